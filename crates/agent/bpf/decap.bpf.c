// What routers wrapped for this target, unwrapped as it arrives: IP in IP, GRE and GUE, either family in either.
//
//   Ethernet │ outer IPv4 or IPv6 │ nothing, GRE 4, or UDP 8 + GUE 4 │ inner packet, from its IP header on
//            └───────────────── taken away ───────────────────────┘
//
// Only from a router of the cluster, only to this target, and only what is inside for a VIPA. Whatever is no tunnel's
// packet of ours goes on as if this program were not there. Every tunnel's packet is counted under what became of it.
//
// A filter of classifier type on an interface's ingress; the agent fills the maps and reads the counters (`decap.rs`).

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define ETHER_IPV4 0x0800
#define ETHER_IPV6 0x86dd
#define GUE_PORT 6080
#define TO_THIS_HOST 0
#define CONGESTED 3

// What becomes of a tunnel's packet; `decap.rs` has the same order.
enum fate {
	IPIP,
	GRE,
	GUE,
	// Left to the kernel: this host may have tunnels of other people's.
	FOREIGN,
	FRAGMENT,
	UNREADABLE,
	// Dropped.
	NO_VIPA,
	MALFORMED,
	CONGESTED_UNMARKABLE,
	FAILED,
	FATES,
};

// IPv4 addresses as IPv4-mapped ones.
struct address {
	__u32 part[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u8);
} vipas SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u8);
} routers SEC(".maps");

// Where routers send this target's packets.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, __u8);
} own SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FATES);
	__type(key, __u32);
	__type(value, __u64);
} fates SEC(".maps");

// A packet as far as it has been read; offsets are from the outer IP header.
struct tunnel {
	struct address source;
	struct address destination;
	// Where the outer header ends, and where the whole packet does; an Ethernet frame may be longer.
	__u32 shim;
	__u32 end;
	__u8 protocol;
	__u8 outer_ecn;
	__u8 outer_is_ipv6;
	__u8 is_fragment;
};

static __always_inline void count(enum fate fate)
{
	__u32 key = fate;
	__u64 *counter = bpf_map_lookup_elem(&fates, &key);

	if (counter)
		*counter += 1;
}

static __always_inline int drop(enum fate fate)
{
	count(fate);
	return TC_ACT_SHOT;
}

// Counts a packet and leaves it to the kernel.
static __always_inline int leave(enum fate fate)
{
	count(fate);
	return TC_ACT_UNSPEC;
}

// The results of reading; functions that look for a tunnel return 1 when they find one and 0 when there is none.
#define TOO_SHORT -1
#define NOT_READABLE -2

// Copies `length` bytes from `offset` behind the Ethernet header. The bytes may lie in the buffer's linear part or in its
// fragments: a sender that transmits from pages leaves as little as the Ethernet header in the linear part, which is all that
// bpf_skb_load_bytes_relative and direct access see.
static __always_inline int load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	if (ETHERNET + offset + length > skb->len)
		return TOO_SHORT;
	// The kernel refuses fragments that it cannot map (device memory).
	return bpf_skb_load_bytes(skb, ETHERNET + offset, to, length) ? NOT_READABLE : 0;
}

static __always_inline struct address mapped(__u32 ipv4)
{
	return (struct address){ .part = { 0, 0, bpf_htonl(0xffff), ipv4 } };
}

static __always_inline struct address of_ipv6(const struct in6_addr *address)
{
	struct address copy;

	__builtin_memcpy(&copy, address, sizeof copy);
	return copy;
}

static __always_inline int read_outer(struct __sk_buff *skb, struct tunnel *tunnel)
{
	int error;

	if (skb->protocol == bpf_htons(ETHER_IPV4)) {
		struct iphdr ip;

		error = load(skb, 0, &ip, sizeof ip);
		if (error)
			return error;
		if (ip.ihl < 5)
			return 0;
		tunnel->source = mapped(ip.saddr);
		tunnel->destination = mapped(ip.daddr);
		tunnel->shim = ip.ihl * 4;
		tunnel->end = bpf_ntohs(ip.tot_len);
		tunnel->protocol = ip.protocol;
		tunnel->outer_ecn = ip.tos & 3;
		tunnel->is_fragment = (ip.frag_off & bpf_htons(0x3fff)) != 0;
		return 1;
	}
	if (skb->protocol == bpf_htons(ETHER_IPV6)) {
		struct ipv6hdr ip;

		// Routers put no extension headers there.
		error = load(skb, 0, &ip, sizeof ip);
		if (error)
			return error;
		tunnel->source = of_ipv6(&ip.saddr);
		tunnel->destination = of_ipv6(&ip.daddr);
		tunnel->shim = sizeof ip;
		tunnel->end = sizeof ip + bpf_ntohs(ip.payload_len);
		tunnel->protocol = ip.nexthdr;
		tunnel->outer_ecn = ip.flow_lbl[0] >> 4 & 3;
		tunnel->outer_is_ipv6 = 1;
		return 1;
	}
	return 0;
}

// The length of what stands between outer and inner header, and how it was wrapped. The inner packet's IP version must be
// what is announced. TOO_SHORT also when it is malformed otherwise.
static __always_inline int read_shim(struct __sk_buff *skb, const struct tunnel *tunnel, enum fate *how, __u32 *length)
{
	__u8 shim[12], first, version;
	int error;

	switch (tunnel->protocol) {
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
		*how = IPIP;
		*length = 0;
		version = tunnel->protocol == IPPROTO_IPIP ? 4 : 6;
		break;
	case IPPROTO_GRE:
		*how = GRE;
		*length = 4;
		// No checksum, key or sequence number, version 0 (RFC 2784 §2.1).
		if (tunnel->is_fragment)
			return 1;
		error = load(skb, tunnel->shim, shim, 4);
		if (error)
			return error;
		if (shim[0] || shim[1])
			return TOO_SHORT;
		if (shim[2] == ETHER_IPV4 >> 8 && shim[3] == (ETHER_IPV4 & 0xff))
			version = 4;
		else if (shim[2] == ETHER_IPV6 >> 8 && shim[3] == (ETHER_IPV6 & 0xff))
			version = 6;
		else
			return TOO_SHORT;
		break;
	case IPPROTO_UDP:
		// Of the parts of a datagram only the first one tells the port.
		if (tunnel->is_fragment)
			return 0;
		error = load(skb, tunnel->shim, shim, 8);
		if (error)
			return error == TOO_SHORT ? 0 : error;
		if (shim[2] != GUE_PORT >> 8 || shim[3] != (GUE_PORT & 0xff))
			return 0;
		*how = GUE;
		*length = 12;
		// Version 0, data, no options (draft-ietf-intarea-gue §3.2).
		error = load(skb, tunnel->shim, shim, 12);
		if (error)
			return error;
		if (shim[8] || shim[10] || shim[11])
			return TOO_SHORT;
		if (shim[9] == IPPROTO_IPIP)
			version = 4;
		else if (shim[9] == IPPROTO_IPV6)
			version = 6;
		else
			return TOO_SHORT;
		break;
	default:
		return 0;
	}
	if (tunnel->is_fragment)
		return 1;
	error = load(skb, tunnel->shim + *length, &first, 1);
	if (error)
		return error;
	return first >> 4 == version ? 1 : TOO_SHORT;
}

static __always_inline int read_inner(struct __sk_buff *skb, __u32 offset, __u32 end, int is_ipv6, struct address *destination, __u8 *ecn)
{
	int error;

	if (is_ipv6) {
		struct ipv6hdr ip;

		error = offset + sizeof ip > end ? TOO_SHORT : load(skb, offset, &ip, sizeof ip);
		if (error)
			return error;
		*destination = of_ipv6(&ip.daddr);
		*ecn = ip.flow_lbl[0] >> 4 & 3;
	} else {
		struct iphdr ip;

		error = offset + sizeof ip > end ? TOO_SHORT : load(skb, offset, &ip, sizeof ip);
		if (error)
			return error;
		*destination = mapped(ip.daddr);
		*ecn = ip.tos & 3;
	}
	return 0;
}

// The way's congestion is the inner packet's (RFC 6040 §4.2). At the bare inner packet.
static __always_inline void mark_congested(struct __sk_buff *skb, int is_ipv6)
{
	__u8 bytes[2];

	if (load(skb, 0, bytes, 2))
		return;
	if (is_ipv6) {
		bytes[1] |= CONGESTED << 4;
		bpf_skb_store_bytes(skb, ETHERNET, bytes, 2, BPF_F_RECOMPUTE_CSUM);
	} else {
		__u8 before = bytes[1];

		bytes[1] |= CONGESTED;
		bpf_l3_csum_replace(skb, ETHERNET + __builtin_offsetof(struct iphdr, check), bpf_htons(before), bpf_htons(bytes[1]), 2);
		bpf_skb_store_bytes(skb, ETHERNET + 1, &bytes[1], 1, 0);
	}
}

// Takes `headers` bytes away behind the Ethernet header. Where the families differ, the kernel is first told which one
// follows; that itself moves the room by the difference of the two headers.
static __always_inline long take_away(struct __sk_buff *skb, __u32 headers, int outer_is_ipv6, int inner_is_ipv6)
{
	const int difference = sizeof(struct ipv6hdr) - sizeof(struct iphdr);
	int less = headers;
	__u16 ether_type = bpf_htons(inner_is_ipv6 ? ETHER_IPV6 : ETHER_IPV4);
	long error;

	if (outer_is_ipv6 != inner_is_ipv6) {
		error = bpf_skb_change_proto(skb, ether_type, 0);
		if (error)
			return error;
		less += inner_is_ipv6 ? difference : -difference;
		error = bpf_skb_store_bytes(skb, ETHERNET - 2, &ether_type, 2, 0);
		if (error)
			return error;
	}
	return bpf_skb_adjust_room(skb, -less, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

SEC("classifier")
int vipa_unwrap(struct __sk_buff *skb)
{
	struct tunnel tunnel = {};
	struct address destination;
	enum fate how = IPIP;
	__u32 length = 0;
	__u8 version = 0, ecn = 0;
	int found, error, inner_is_ipv6;

	// Frames to others, seen by an interface that takes them all.
	if (skb->pkt_type != TO_THIS_HOST)
		return TC_ACT_UNSPEC;
	found = read_outer(skb, &tunnel);
	if (found == NOT_READABLE)
		return leave(UNREADABLE);
	if (found != 1)
		return TC_ACT_UNSPEC;
	if (!bpf_map_lookup_elem(&own, &tunnel.destination))
		return TC_ACT_UNSPEC;
	found = read_shim(skb, &tunnel, &how, &length);
	if (!found)
		return TC_ACT_UNSPEC;
	if (!bpf_map_lookup_elem(&routers, &tunnel.source))
		return leave(FOREIGN);
	if (found == NOT_READABLE)
		return leave(UNREADABLE);
	if (found == TOO_SHORT)
		return drop(MALFORMED);
	if (tunnel.is_fragment)
		return leave(FRAGMENT);
	error = load(skb, tunnel.shim + length, &version, 1);
	inner_is_ipv6 = version >> 4 == 6;
	if (!error)
		error = read_inner(skb, tunnel.shim + length, tunnel.end, inner_is_ipv6, &destination, &ecn);
	if (error == NOT_READABLE)
		return leave(UNREADABLE);
	if (error)
		return drop(MALFORMED);
	if (!bpf_map_lookup_elem(&vipas, &destination))
		return drop(NO_VIPA);
	if (tunnel.outer_ecn == CONGESTED && !ecn)
		return drop(CONGESTED_UNMARKABLE);
	if (take_away(skb, tunnel.shim + length, tunnel.outer_is_ipv6, inner_is_ipv6))
		return drop(FAILED);
	if (tunnel.outer_ecn == CONGESTED && ecn != CONGESTED)
		mark_congested(skb, inner_is_ipv6);
	// It was the outer header's.
	bpf_set_hash_invalid(skb);
	count(how);
	return TC_ACT_UNSPEC;
}

char licence[] SEC("license") = "Apache-2.0 OR MIT";
