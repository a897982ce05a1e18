// What becomes of this host's TCP sockets, told as it happens: begun to listen, established, changed, closed.
//
//   the kernel's TCP ──► this program ── a socket of a watched address ──► events (a ring) ──► the agent
//
// Hangs on the root of the cgroup tree, so that no process of the host escapes it, and looks only at the network
// namespaces and local addresses that the agent has named. Which states a connection is told in, `observe.rs` decides.

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4 2

// `kernel/ring.rs` has the same.
enum kind {
	ESTABLISHED,
	CHANGED,
	LISTENS,
	CONNECTS,
};

struct event {
	// As in a packet; IPv4 addresses as IPv4-mapped ones.
	__u64 local[2];
	__u64 remote[2];
	// In the host's order.
	__u16 local_port;
	__u16 remote_port;
	__u8 kind;
	// TCP states of the kernel.
	__u8 before;
	__u8 now;
	__u8 namespace;
};

struct place {
	__u64 namespace;
	__u64 address[2];
};

// By cookie, each with the agent's own number for it.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u8);
} namespaces SEC(".maps");

// Local addresses that matter.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct place);
	__type(value, __u8);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

// Events that the ring had no room for.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

// One field of the context. The verifier wants its offset in the very instruction that reads it, so the compiler must not
// choose between two fields first and read then.
#define FIELD(field)                                \
	({                                              \
		__u32 value = *(volatile __u32 *)&(field);  \
		asm volatile("" : "+r"(value));             \
		value;                                      \
	})

// Two words of an address, in the order of a packet. On the stack addresses are written eight bytes at a time: before Linux 6.8
// the verifier takes no smaller write over what may be a spilled register from who has no CAP_PERFMON.
static __always_inline __u64 both(__u32 first, __u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (__u64)second << 32 | first;
#else
	return (__u64)first << 32 | second;
#endif
}

static __always_inline void tell(struct bpf_sock_ops *socket, enum kind kind, __u8 before, __u8 now)
{
	struct place place = {};
	__u64 remote[2] = {};
	struct event *event;
	__u8 *namespace;
	__u32 zero = 0;

	place.namespace = bpf_get_netns_cookie(socket);
	namespace = bpf_map_lookup_elem(&namespaces, &place.namespace);
	if (!namespace)
		return;
	if (FIELD(socket->family) == IPV4) {
		place.address[1] = both(bpf_htonl(0xffff), FIELD(socket->local_ip4));
		remote[1] = both(bpf_htonl(0xffff), FIELD(socket->remote_ip4));
	} else {
		place.address[0] = both(FIELD(socket->local_ip6[0]), FIELD(socket->local_ip6[1]));
		place.address[1] = both(FIELD(socket->local_ip6[2]), FIELD(socket->local_ip6[3]));
		remote[0] = both(FIELD(socket->remote_ip6[0]), FIELD(socket->remote_ip6[1]));
		remote[1] = both(FIELD(socket->remote_ip6[2]), FIELD(socket->remote_ip6[3]));
	}
	// Who listens may be bound to any address.
	if (kind != LISTENS && !bpf_map_lookup_elem(&watched, &place))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof *event, 0);
	if (!event) {
		__u64 *counter = bpf_map_lookup_elem(&lost, &zero);

		if (counter)
			__sync_fetch_and_add(counter, 1);
		return;
	}
	__builtin_memcpy(event->local, place.address, sizeof event->local);
	__builtin_memcpy(event->remote, remote, sizeof event->remote);
	event->local_port = socket->local_port;
	event->remote_port = bpf_ntohl(socket->remote_port);
	event->kind = kind;
	event->before = before;
	event->now = now;
	event->namespace = *namespace;
	bpf_ringbuf_submit(event, 0);
}

SEC("sockops")
int vipa_observe(struct bpf_sock_ops *socket)
{
	int flags = socket->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
	__u8 before, now;

	switch (socket->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		// Of every socket, watched or not: its address may come to be watched.
		bpf_sock_ops_cb_flags_set(socket, flags);
		tell(socket, ESTABLISHED, 0, BPF_TCP_ESTABLISHED);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		// Before the SYN leaves: its answer comes to the router, which is to know by then where it goes.
		bpf_sock_ops_cb_flags_set(socket, flags);
		tell(socket, CONNECTS, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		bpf_sock_ops_cb_flags_set(socket, flags);
		tell(socket, LISTENS, 0, BPF_TCP_LISTEN);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		before = socket->args[0];
		now = socket->args[1];
		if (before == BPF_TCP_LISTEN)
			tell(socket, LISTENS, before, now);
		// The steps of closing are all the same to the agent, and a client's attempt that failed was never told.
		else if (before == BPF_TCP_ESTABLISHED || (now == BPF_TCP_CLOSE && before != BPF_TCP_SYN_RECV))
			tell(socket, CHANGED, before, now);
		break;
	}
	// Whatever other programs have answered stays.
	return 1;
}

char licence[] SEC("license") = "Apache-2.0 OR MIT";
