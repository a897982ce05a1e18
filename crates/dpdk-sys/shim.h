/*
 * What Vipa calls of DPDK, in a form that is the same for every release from 22.11 on.
 *
 * Most of DPDK's fast path is `static inline` and its configuration structs change from release to release. So bursts,
 * allocation and configuration go through the functions declared here, whose types are ours; the rest is called
 * directly. Nothing here is called once per packet.
 */
#ifndef VIPA_SHIM_H
#define VIPA_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields of an mbuf are in the installed release; src/lib.rs checks its own struct against them. */
enum vipa_mbuf_layout {
    VIPA_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
    VIPA_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
    VIPA_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
    VIPA_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
    VIPA_MBUF_PORT = offsetof(struct rte_mbuf, port),
    VIPA_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
    VIPA_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
    VIPA_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
    VIPA_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
    VIPA_HEADER_SUM = RTE_MBUF_F_RX_IP_CKSUM_MASK,
    VIPA_HEADER_SUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD,
    VIPA_HEADROOM = RTE_PKTMBUF_HEADROOM,
    VIPA_MAX_CACHE = RTE_MEMPOOL_CACHE_MAX_SIZE,
};

/* What a driver says of its port. `rss` is the set of packet types it can spread over queues, `rss_key` the bytes of the key it
 * does that with, `rss_table` the entries of the table that names a queue for each hash; 0 where it has none to set.
 * `header_sums`: whether it verifies the checksums of IPv4 headers. */
struct vipa_port_info {
    uint16_t max_rx_queues;
    uint16_t max_tx_queues;
    uint16_t min_mtu;
    uint16_t max_mtu;
    uint32_t min_rx_buffer;
    uint64_t rss;
    uint16_t rss_key;
    uint16_t rss_table;
    uint8_t header_sums;
    int socket;
    char driver[32];
};

struct vipa_port_stats {
    uint64_t received;
    uint64_t sent;
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t missed;
    uint64_t receive_errors;
    uint64_t send_errors;
    uint64_t no_buffer;
};

struct vipa_link {
    uint32_t megabits;
    uint8_t up;
    uint8_t full_duplex;
};

/* Receives each message of DPDK's log; the text is not terminated. */
typedef void (*vipa_log_sink)(uint32_t level, const char *text, size_t length);

/* Sends DPDK's log to `sink`, from the first message of rte_eal_init on. 0, or -errno. */
int vipa_log_to(vipa_log_sink sink);

int vipa_errno(void);

/* Receives up to `count` packets; returns how many. Each is one segment and nobody else's: what is not is made so, or
 * freed and added to `unreadable`. */
uint16_t vipa_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count, uint64_t *unreadable);

/* Offers `count` packets; the driver owns the first N of them from then on, and N is returned. */
uint16_t vipa_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

/* All `count` or none: 0, or negative. */
int vipa_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned count);

void vipa_free(struct rte_mbuf *packet);

int vipa_port_info(uint16_t port, struct vipa_port_info *info);

/* The longest key of any driver's, and the largest table. */
enum vipa_rss_limits { VIPA_RSS_KEY = 52, VIPA_RSS_TABLE = 512 };

/* Configures queues and, for more than one receive queue, spreading by address and port, with the beginning of `key` where the
 * driver takes one. A driver that can verify the checksums of IPv4 headers is to. `mtu` 0 keeps the driver's. */
int vipa_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu,
                        const uint8_t key[VIPA_RSS_KEY]);

/* Deals a started port's hashes to its receive queues in turn, by `key` also where the driver has ignored it so far. 0 as well where there
 * is no table to set. */
int vipa_port_deal(uint16_t port, uint16_t rx_queues, const uint8_t key[VIPA_RSS_KEY]);

/* How a port spreads: its key, of which it says the length, and its table, likewise. */
int vipa_port_spread(uint16_t port, uint8_t key[VIPA_RSS_KEY], uint16_t *key_length, uint16_t table[VIPA_RSS_TABLE],
                     uint16_t *table_length);

/* Sets every queue up with the driver's own defaults, its descriptors rounded to what the driver accepts. */
int vipa_port_queues(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t rx_descriptors,
                     uint16_t tx_descriptors, struct rte_mempool *pool);

int vipa_port_mac(uint16_t port, uint8_t mac[6]);
int vipa_port_stats(uint16_t port, struct vipa_port_stats *stats);
int vipa_port_link(uint16_t port, struct vipa_link *link);

/* Stops and closes the port, and takes its device away again when it is a virtual one. */
int vipa_port_close(uint16_t port, int is_virtual);

#endif
