/* fopencookie */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

static vipa_log_sink log_sink;

static ssize_t write_log(void *cookie, const char *text, size_t length) {
    (void)cookie;
    log_sink((uint32_t)rte_log_cur_msg_loglevel(), text, length);
    return (ssize_t)length;
}

int vipa_log_to(vipa_log_sink sink) {
    cookie_io_functions_t functions = {.write = write_log};
    log_sink = sink;
    FILE *stream = fopencookie(NULL, "w", functions);
    if (stream == NULL)
        return -errno;
    return rte_openlog_stream(stream) == 0 ? 0 : -EINVAL;
}

int vipa_errno(void) { return rte_errno; }

/* Whether `packet` is one segment that nobody else holds: two counts side by side, looked at in one go. */
static inline int is_plain(const struct rte_mbuf *packet) {
    uint32_t counts;
    _Static_assert(offsetof(struct rte_mbuf, nb_segs) == offsetof(struct rte_mbuf, refcnt) + sizeof(uint16_t),
                   "side by side");
    memcpy(&counts, &packet->refcnt, sizeof(counts));
    return likely(counts == 0x00010001);
}

static inline int make_plain(struct rte_mbuf *packet) {
    if (is_plain(packet))
        return 1;
    return rte_mbuf_refcnt_read(packet) == 1 && rte_pktmbuf_linearize(packet) == 0;
}

uint16_t vipa_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count, uint64_t *unreadable) {
    uint16_t received = rte_eth_rx_burst(port, queue, packets, count);
    uint16_t kept = 0;
    for (; kept < received && is_plain(packets[kept]); kept++)
        rte_prefetch0(rte_pktmbuf_mtod(packets[kept], void *));
    for (uint16_t i = kept; i < received; i++) {
        struct rte_mbuf *packet = packets[i];
        if (likely(make_plain(packet))) {
            rte_prefetch0(rte_pktmbuf_mtod(packet, void *));
            packets[kept++] = packet;
        } else {
            rte_pktmbuf_free(packet);
            ++*unreadable;
        }
    }
    return kept;
}

uint16_t vipa_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    return rte_eth_tx_burst(port, queue, packets, count);
}

int vipa_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned count) {
    return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void vipa_free(struct rte_mbuf *packet) { rte_pktmbuf_free(packet); }

int vipa_port_info(uint16_t port, struct vipa_port_info *info) {
    struct rte_eth_dev_info from;
    int result = rte_eth_dev_info_get(port, &from);
    if (result != 0)
        return result;
    memset(info, 0, sizeof(*info));
    info->max_rx_queues = from.max_rx_queues;
    info->max_tx_queues = from.max_tx_queues;
    info->min_mtu = from.min_mtu;
    info->max_mtu = from.max_mtu;
    info->min_rx_buffer = from.min_rx_bufsize;
    info->rss = from.flow_type_rss_offloads;
    info->rss_key = from.hash_key_size;
    info->rss_table = from.reta_size;
    info->header_sums = (from.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
    info->socket = rte_eth_dev_socket_id(port);
    snprintf(info->driver, sizeof(info->driver), "%s", from.driver_name != NULL ? from.driver_name : "");
    return 0;
}

int vipa_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t mtu,
                        const uint8_t key[VIPA_RSS_KEY]) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    int result = rte_eth_dev_info_get(port, &info);
    if (result != 0)
        return result;
    memset(&conf, 0, sizeof(conf));
    conf.rxmode.mtu = mtu;
    conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
    if (rx_queues > 1) {
        uint64_t spread = info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
        if (spread != 0) {
            conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = spread;
            if (info.hash_key_size > 0 && info.hash_key_size <= VIPA_RSS_KEY) {
                /* Only read; the field is not const. */
                conf.rx_adv_conf.rss_conf.rss_key = (uint8_t *)(uintptr_t)key;
                conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
            }
        }
    }
    result = rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
    if (result != 0 || mtu == 0)
        return result;
    /* A driver that cannot change its MTU has none that would limit us. */
    result = rte_eth_dev_set_mtu(port, mtu);
    return result == -ENOTSUP ? 0 : result;
}

/* A driver may ignore the key that it is configured with (net_null of DPDK 24.11): then it gets it once more. One that refuses goes on with
 * its own. */
static void set_key(uint16_t port, const struct rte_eth_dev_info *info, const uint8_t key[VIPA_RSS_KEY]) {
    uint8_t present[VIPA_RSS_KEY];
    struct rte_eth_rss_conf conf;
    if (info->hash_key_size == 0 || info->hash_key_size > VIPA_RSS_KEY)
        return;
    memset(&conf, 0, sizeof(conf));
    conf.rss_key = present;
    conf.rss_key_len = info->hash_key_size;
    if (rte_eth_dev_rss_hash_conf_get(port, &conf) != 0 || memcmp(present, key, info->hash_key_size) == 0)
        return;
    memcpy(present, key, info->hash_key_size);
    conf.rss_key = present;
    conf.rss_key_len = info->hash_key_size;
    (void)rte_eth_dev_rss_hash_update(port, &conf);
}

int vipa_port_deal(uint16_t port, uint16_t rx_queues, const uint8_t key[VIPA_RSS_KEY]) {
    struct rte_eth_dev_info info;
    struct rte_eth_rss_reta_entry64 groups[VIPA_RSS_TABLE / RTE_ETH_RETA_GROUP_SIZE];
    int result = rte_eth_dev_info_get(port, &info);
    if (result != 0)
        return result;
    if (rx_queues < 2 || info.flow_type_rss_offloads == 0 || info.reta_size == 0 || info.reta_size > VIPA_RSS_TABLE)
        return 0;
    set_key(port, &info, key);
    memset(groups, 0, sizeof(groups));
    for (uint16_t at = 0; at < info.reta_size; at++) {
        groups[at / RTE_ETH_RETA_GROUP_SIZE].mask |= UINT64_C(1) << (at % RTE_ETH_RETA_GROUP_SIZE);
        groups[at / RTE_ETH_RETA_GROUP_SIZE].reta[at % RTE_ETH_RETA_GROUP_SIZE] = at % rx_queues;
    }
    result = rte_eth_dev_rss_reta_update(port, groups, info.reta_size);
    return result == -ENOTSUP ? 0 : result;
}

int vipa_port_spread(uint16_t port, uint8_t key[VIPA_RSS_KEY], uint16_t *key_length, uint16_t table[VIPA_RSS_TABLE],
                     uint16_t *table_length) {
    struct rte_eth_dev_info info;
    struct rte_eth_rss_conf conf;
    struct rte_eth_rss_reta_entry64 groups[VIPA_RSS_TABLE / RTE_ETH_RETA_GROUP_SIZE];
    int result = rte_eth_dev_info_get(port, &info);
    if (result != 0)
        return result;
    *key_length = info.hash_key_size <= VIPA_RSS_KEY ? info.hash_key_size : 0;
    *table_length = info.reta_size <= VIPA_RSS_TABLE ? info.reta_size : 0;
    memset(&conf, 0, sizeof(conf));
    conf.rss_key = key;
    conf.rss_key_len = (uint8_t)*key_length;
    result = rte_eth_dev_rss_hash_conf_get(port, &conf);
    if (result != 0 || *table_length == 0)
        return result;
    memset(groups, 0, sizeof(groups));
    for (uint16_t at = 0; at < *table_length; at++)
        groups[at / RTE_ETH_RETA_GROUP_SIZE].mask |= UINT64_C(1) << (at % RTE_ETH_RETA_GROUP_SIZE);
    result = rte_eth_dev_rss_reta_query(port, groups, *table_length);
    for (uint16_t at = 0; result == 0 && at < *table_length; at++)
        table[at] = groups[at / RTE_ETH_RETA_GROUP_SIZE].reta[at % RTE_ETH_RETA_GROUP_SIZE];
    return result;
}

int vipa_port_queues(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint16_t rx_descriptors,
                     uint16_t tx_descriptors, struct rte_mempool *pool) {
    struct rte_eth_dev_info info;
    int result = rte_eth_dev_info_get(port, &info);
    if (result == 0)
        result = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx_descriptors, &tx_descriptors);
    unsigned socket = (unsigned)rte_eth_dev_socket_id(port);
    for (uint16_t queue = 0; result == 0 && queue < rx_queues; queue++)
        result = rte_eth_rx_queue_setup(port, queue, rx_descriptors, socket, &info.default_rxconf, pool);
    for (uint16_t queue = 0; result == 0 && queue < tx_queues; queue++)
        result = rte_eth_tx_queue_setup(port, queue, tx_descriptors, socket, &info.default_txconf);
    return result;
}

int vipa_port_mac(uint16_t port, uint8_t mac[6]) {
    struct rte_ether_addr address;
    int result = rte_eth_macaddr_get(port, &address);
    if (result == 0)
        memcpy(mac, address.addr_bytes, 6);
    return result;
}

int vipa_port_stats(uint16_t port, struct vipa_port_stats *stats) {
    struct rte_eth_stats from;
    int result = rte_eth_stats_get(port, &from);
    if (result != 0)
        return result;
    *stats = (struct vipa_port_stats){
        .received = from.ipackets,
        .sent = from.opackets,
        .received_bytes = from.ibytes,
        .sent_bytes = from.obytes,
        .missed = from.imissed,
        .receive_errors = from.ierrors,
        .send_errors = from.oerrors,
        .no_buffer = from.rx_nombuf,
    };
    return 0;
}

int vipa_port_link(uint16_t port, struct vipa_link *link) {
    struct rte_eth_link from;
    int result = rte_eth_link_get_nowait(port, &from);
    if (result != 0)
        return result;
    link->megabits = from.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : from.link_speed;
    link->up = from.link_status == RTE_ETH_LINK_UP;
    link->full_duplex = from.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    return 0;
}

int vipa_port_close(uint16_t port, int is_virtual) {
    struct rte_eth_dev_info info;
    struct rte_device *device = rte_eth_dev_info_get(port, &info) == 0 ? info.device : NULL;
    rte_eth_dev_stop(port);
    int result = rte_eth_dev_close(port);
    if (is_virtual && device != NULL)
        return rte_dev_remove(device);
    return result;
}
