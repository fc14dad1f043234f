// The XDP program: UDP datagrams to endpoints of ours go to the AF_XDP socket of the queue that they came in on, anything else goes on to the
// kernel untouched.
//
// It reads headers only and decides by them; what looks wrong in any way is the kernel's. The layouts of keys and values are those of
// `lib.rs`, which checks their sizes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// What became of a packet: index into `verdicts`. In the order of `Verdict` in lib.rs.
enum verdict {
	REDIRECTED,
	PASS_NOT_IP,
	PASS_NOT_UDP,
	PASS_FRAGMENT,
	PASS_MALFORMED,
	PASS_CUT_OFF,
	PASS_NOT_OURS,
	PASS_NO_SOCKET,
	VERDICTS,
};

// A local endpoint: IPv4 addresses as IPv4-mapped IPv6 ones.
struct endpoint {
	__u8 address[16];
	__be16 port;
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct endpoint);
	__type(value, __u32);
} endpoints SEC(".maps");

// The most receive queues of an interface, as in lib.rs.
#define QUEUES_MAX 512

// By receive queue. The kernel takes a frame for a socket of the very queue that it came in on only.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

// By receive queue: the processor that has served it last, plus one. Zero until one has. Mapped into the process.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} processors SEC(".maps");

struct vlan {
	__be16 tag;
	__be16 protocol;
};

#define VLANS_MAX 2
#define EXTENSIONS_MAX 6
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */

static __always_inline int pass(__u32 verdict)
{
	__u64 *count = bpf_map_lookup_elem(&verdicts, &verdict);
	if (count)
		*count += 1;
	return XDP_PASS;
}

static __always_inline void note_processor(__u32 queue)
{
	__u64 *processor = bpf_map_lookup_elem(&processors, &queue);
	__u64 here = (__u64)bpf_get_smp_processor_id() + 1;

	// Written only where it changes: others read it all the time.
	if (processor && *processor != here)
		*processor = here;
}

// The payload of the IP packet begins at `at` and has `left` bytes by its header, all of them within the frame.
static __always_inline int udp(struct xdp_md *ctx, void *at, __u32 left, struct endpoint *to)
{
	void *end = (void *)(long)ctx->data_end;
	struct udphdr *header = at;
	__u32 length;

	if ((void *)(header + 1) > end)
		return pass(PASS_MALFORMED);
	length = bpf_ntohs(header->len);
	if (length < sizeof(*header) || length > left)
		return pass(PASS_MALFORMED);
	to->port = header->dest;
	if (!bpf_map_lookup_elem(&endpoints, to))
		return pass(PASS_NOT_OURS);
	note_processor(ctx->rx_queue_index);
	if (bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT)
		return pass(PASS_NO_SOCKET);
	pass(REDIRECTED);
	return XDP_REDIRECT;
}

static __always_inline int ipv4(struct xdp_md *ctx, void *at, __u32 left)
{
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = at;
	struct endpoint to = {};
	__u32 header, total;

	if ((void *)(ip + 1) > end)
		return pass(PASS_MALFORMED);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header)
		return pass(PASS_MALFORMED);
	if (total > left)
		return pass(PASS_CUT_OFF);
	if (ip->protocol != IPPROTO_UDP)
		return pass(PASS_NOT_UDP);
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return pass(PASS_FRAGMENT);
	to.address[10] = 0xff;
	to.address[11] = 0xff;
	__builtin_memcpy(to.address + 12, &ip->daddr, 4);
	return udp(ctx, at + header, total - header, &to);
}

static __always_inline int ipv6(struct xdp_md *ctx, void *at, __u32 left)
{
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = at;
	struct endpoint to = {};
	__u32 payload;
	__u8 next;
	int i;

	if ((void *)(ip + 1) > end)
		return pass(PASS_MALFORMED);
	payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6)
		return pass(PASS_MALFORMED);
	if (payload > left - sizeof(*ip))
		return pass(PASS_CUT_OFF);
	__builtin_memcpy(to.address, &ip->daddr, sizeof(to.address));
	next = ip->nexthdr;
	at += sizeof(*ip);
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		struct ipv6_opt_hdr *extension = at;
		__u32 length;

		if (next == IPPROTO_UDP)
			return udp(ctx, at, payload, &to);
		if (next == IPPROTO_FRAGMENT)
			return pass(PASS_FRAGMENT);
		// RFC 8200 section 4: those that go with a datagram that is delivered here.
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return pass(PASS_NOT_UDP);
		if ((void *)(extension + 1) > end)
			return pass(PASS_MALFORMED);
		// A route that goes on from here is the kernel's business: the destination is not the last one.
		if (next == IPPROTO_ROUTING)
			return pass(PASS_NOT_OURS);
		length = (extension->hdrlen + 1) * 8;
		if (length > payload)
			return pass(PASS_MALFORMED);
		next = extension->nexthdr;
		payload -= length;
		at += length;
	}
	return pass(PASS_NOT_UDP);
}

// Frames may lie in several buffers ("frags"): headers are in the first.
SEC("xdp.frags")
int ringway(struct xdp_md *ctx)
{
	void *at = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 left = bpf_xdp_get_buff_len(ctx);
	struct ethhdr *ethernet = at;
	__be16 protocol;
	int i;

	if ((void *)(ethernet + 1) > end)
		return pass(PASS_NOT_IP);
	protocol = ethernet->h_proto;
	at += sizeof(*ethernet);
	left -= sizeof(*ethernet);
	for (i = 0; i < VLANS_MAX; i++) {
		struct vlan *vlan = at;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return pass(PASS_NOT_IP);
		protocol = vlan->protocol;
		at += sizeof(*vlan);
		left -= sizeof(*vlan);
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return ipv4(ctx, at, left);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return ipv6(ctx, at, left);
	return pass(PASS_NOT_IP);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
