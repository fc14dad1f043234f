// The XDP program: UDP datagrams to endpoints of ours go to the AF_XDP socket of the queue that they came in on, anything else goes on to the
// kernel untouched.
//
// It reads headers only and decides by them. What the kernel would not deliver or not answer is the kernel's, and so is what is rare: options,
// extension headers, fragments. Of what is ours, a list of rules says which sources it passes on to the kernel, or drops. All offsets are constants,
// because the verifier lets only processes with CAP_PERFMON add anything else to a pointer. The layouts of keys and values are those of `lib.rs`,
// which checks their sizes.

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
	PASS_OTHER_HOST,
	PASS_OTHER_VLAN,
	PASS_OPTIONS,
	PASS_SOURCE,
	PASS_RULE,
	PASS_TOO_LONG,
	DROP_RULE,
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

// The link-layer address of the interface, and whether it is the loopback interface, the one on which addresses of loopback are right; whether
// there are rules for sources of each family: where there are none, none are looked for; and the longest IP packets that go to sockets.
struct link {
	__u16 address[ETH_ALEN / 2];
	__u16 is_loopback;
	__u16 has_rules_v4;
	__u16 has_rules_v6;
	__u16 packet_max;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct link);
} link SEC(".maps");

// The VLANs of the host on the interface: the numbers of the outer and the inner tag, in network order. Without an inner tag, that is NO_TAG.
struct tags {
	__be16 outer;
	__be16 inner;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tags);
	__type(value, __u32);
} vlans SEC(".maps");

// What is done with datagrams to our endpoints from a prefix of addresses. In the order of `SourceAction` in sources.rs.
enum action {
	ACCEPT,
	PASS,
	DROP,
};

struct rule {
	__u32 action;
	__u32 counter; // index into `rule_counts`
};

// The rules of a family, and the counters of both, as in sources.rs.
#define RULES_MAX 4096

struct prefix_v4 {
	__u32 bits;
	__u8 address[4];
};

struct prefix_v6 {
	__u32 bits;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RULES_MAX);
	__type(key, struct prefix_v4);
	__type(value, struct rule);
} rules_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RULES_MAX);
	__type(key, struct prefix_v6);
	__type(value, struct rule);
} rules_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * RULES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} rule_counts SEC(".maps");

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

#define VLAN_NUMBER 0x0fff /* the rest of a tag is priority */
#define NO_TAG 0xffff
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */

static __always_inline void count(__u32 verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&verdicts, &verdict);
	if (counter)
		*counter += 1;
}

static __always_inline int pass(__u32 verdict)
{
	count(verdict);
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

// Frames to groups and, in promiscuous mode, to other hosts come by too.
static __always_inline int is_to(const struct link *ours, const struct ethhdr *ethernet)
{
	const __u16 *to = (const void *)ethernet->h_dest;

	return to[0] == ours->address[0] && to[1] == ours->address[1] && to[2] == ours->address[2];
}

// Counts what matches a rule, and gives its action.
static __always_inline __u32 applied(const struct rule *rule)
{
	__u32 index;
	__u64 *counter;

	if (!rule)
		return ACCEPT;
	index = rule->counter;
	counter = bpf_map_lookup_elem(&rule_counts, &index);
	if (counter)
		*counter += 1;
	return rule->action;
}

// The payload of the IP packet begins at `at` and has `left` bytes by its header, all of them within the frame. `from_v4` or `from_v6` is where it
// comes from, if there are rules for that. What is too long would be dropped by the kernel for want of room, or is several datagrams.
static __always_inline int udp(struct xdp_md *ctx, void *at, __u32 left, int is_too_long, struct endpoint *to, const struct prefix_v4 *from_v4,
			       const struct prefix_v6 *from_v6)
{
	void *end = (void *)(long)ctx->data_end;
	struct udphdr *header = at;
	__u32 length, action = ACCEPT, queue = ctx->rx_queue_index;

	if ((void *)(header + 1) > end)
		return pass(PASS_MALFORMED);
	length = bpf_ntohs(header->len);
	if (length < sizeof(*header) || length > left)
		return pass(PASS_MALFORMED);
	to->port = header->dest;
	if (!bpf_map_lookup_elem(&endpoints, to))
		return pass(PASS_NOT_OURS);
	if (!header->source)
		return pass(PASS_SOURCE);
	// What would not come by AF_XDP is the kernel's, whose own rules are for it. So a program without its process drops nothing.
	if ((from_v4 || from_v6) && !bpf_map_lookup_elem(&sockets, &queue))
		return pass(PASS_NO_SOCKET);
	if (from_v4)
		action = applied(bpf_map_lookup_elem(&rules_v4, from_v4));
	else if (from_v6)
		action = applied(bpf_map_lookup_elem(&rules_v6, from_v6));
	if (action == PASS)
		return pass(PASS_RULE);
	if (action == DROP) {
		count(DROP_RULE);
		return XDP_DROP;
	}
	if (is_too_long)
		return pass(PASS_TOO_LONG);
	note_processor(queue);
	if (bpf_redirect_map(&sockets, queue, XDP_PASS) != XDP_REDIRECT)
		return pass(PASS_NO_SOCKET);
	count(REDIRECTED);
	return XDP_REDIRECT;
}

// RFC 1071, of a header without options.
static __always_inline int is_sound(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;
	int i;

	for (i = 0; i < (int)(sizeof(*ip) / 2); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static __always_inline int ipv4(struct xdp_md *ctx, void *at, __u32 left, const struct link *ours)
{
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = at;
	struct endpoint to = {};
	struct prefix_v4 source = { .bits = 32 };
	__u32 total, from;

	if ((void *)(ip + 1) > end)
		return pass(PASS_MALFORMED);
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || total < ip->ihl * 4)
		return pass(PASS_MALFORMED);
	if (total > left)
		return pass(PASS_CUT_OFF);
	if (ip->protocol != IPPROTO_UDP)
		return pass(PASS_NOT_UDP);
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return pass(PASS_FRAGMENT);
	if (ip->ihl > 5)
		return pass(PASS_OPTIONS);
	if (!is_sound(ip))
		return pass(PASS_MALFORMED);
	// RFC 1122 section 3.2.1.3: this network, loopback, groups, broadcast.
	from = bpf_ntohl(ip->saddr) >> 24;
	if (from == 0 || (from == 127 && !ours->is_loopback) || from >= 224)
		return pass(PASS_SOURCE);
	to.address[10] = 0xff;
	to.address[11] = 0xff;
	__builtin_memcpy(to.address + 12, &ip->daddr, 4);
	__builtin_memcpy(source.address, &ip->saddr, sizeof(source.address));
	return udp(ctx, ip + 1, total - sizeof(*ip), left > ours->packet_max, &to, ours->has_rules_v4 ? &source : 0, 0);
}

static __always_inline int ipv6(struct xdp_md *ctx, void *at, __u32 left, const struct link *ours, int is_tagged)
{
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = at;
	struct endpoint to = {};
	struct prefix_v6 source = { .bits = 128 };
	__u32 payload;

	if ((void *)(ip + 1) > end)
		return pass(PASS_MALFORMED);
	payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6)
		return pass(PASS_MALFORMED);
	if (payload > left - sizeof(*ip))
		return pass(PASS_CUT_OFF);
	switch (ip->nexthdr) {
	case IPPROTO_UDP:
		break;
	case IPPROTO_FRAGMENT:
		return pass(PASS_FRAGMENT);
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return pass(PASS_OPTIONS);
	default:
		return pass(PASS_NOT_UDP);
	}
	// RFC 4291 sections 2.5 and 2.7: groups; and what begins as the unspecified address, loopback and IPv4 written as IPv6 do.
	if (ip->saddr.in6_u.u6_addr8[0] == 0xff ||
	    (!ip->saddr.in6_u.u6_addr32[0] && !ip->saddr.in6_u.u6_addr32[1] && !ours->is_loopback))
		return pass(PASS_SOURCE);
	// An address of the VLAN's own interface, of which nothing is known here (RFC 4007 section 6).
	if (is_tagged && (ip->saddr.in6_u.u6_addr16[0] & bpf_htons(0xffc0)) == bpf_htons(0xfe80))
		return pass(PASS_SOURCE);
	__builtin_memcpy(to.address, &ip->daddr, sizeof(to.address));
	__builtin_memcpy(source.address, &ip->saddr, sizeof(source.address));
	return udp(ctx, ip + 1, payload, left > ours->packet_max, &to, 0, ours->has_rules_v6 ? &source : 0);
}

static __always_inline int ip(struct xdp_md *ctx, __be16 protocol, void *at, __u32 left, const struct link *ours, int is_tagged)
{
	if (protocol == bpf_htons(ETH_P_IP))
		return ipv4(ctx, at, left, ours);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return ipv6(ctx, at, left, ours, is_tagged);
	return pass(PASS_NOT_IP);
}

static __always_inline int is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

// Frames may lie in several buffers ("frags"): headers are in the first.
SEC("xdp.frags")
int ringway(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct vlan *outer = (void *)(ethernet + 1), *inner = outer + 1;
	__u32 left = bpf_xdp_get_buff_len(ctx);
	struct tags tags = { .inner = NO_TAG };
	__u32 first = 0;
	const struct link *ours = bpf_map_lookup_elem(&link, &first);

	if ((void *)(ethernet + 1) > end)
		return pass(PASS_NOT_IP);
	if (!ours || !is_to(ours, ethernet))
		return pass(PASS_OTHER_HOST);
	if (!is_vlan(ethernet->h_proto))
		return ip(ctx, ethernet->h_proto, ethernet + 1, left - sizeof(*ethernet), ours, 0);
	if ((void *)(outer + 1) > end)
		return pass(PASS_NOT_IP);
	tags.outer = outer->tag & bpf_htons(VLAN_NUMBER);
	if (!is_vlan(outer->protocol)) {
		if (!bpf_map_lookup_elem(&vlans, &tags))
			return pass(PASS_OTHER_VLAN);
		return ip(ctx, outer->protocol, outer + 1, left - sizeof(*ethernet) - sizeof(*outer), ours, 1);
	}
	if ((void *)(inner + 1) > end)
		return pass(PASS_NOT_IP);
	tags.inner = inner->tag & bpf_htons(VLAN_NUMBER);
	if (!bpf_map_lookup_elem(&vlans, &tags))
		return pass(PASS_OTHER_VLAN);
	return ip(ctx, inner->protocol, inner + 1, left - sizeof(*ethernet) - 2 * sizeof(*outer), ours, 1);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
