/* What the programs in the kernel and the plane share: tables, their entries, the words passed along with a packet.
 * Plain C for the programs, C++20 for the plane; sizes are asserted on both sides. A change of anything here needs
 * another SP_ABI: tables that do not say the same number are never reused. All numbers are in host order. */
#ifndef SALLYPORT_NAT_PLANE_EBPF_ABI_H
#define SALLYPORT_NAT_PLANE_EBPF_ABI_H

#ifdef __cplusplus
#include "nat/engine/rules.h"
namespace sallyport::nat::ebpf {
using namespace rules;
#define SP_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size))
#define SP_SHARED constexpr
#else
#include <linux/types.h>
#include <stdbool.h>
typedef __u8 sp_u8;
typedef __u16 sp_u16;
typedef __u32 sp_u32;
typedef __s32 sp_s32;
typedef __u64 sp_u64;
#include "nat/engine/rules.h"
#define SP_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
#define SP_SHARED static inline
#endif

enum {
  SP_ABI = 10,
  SP_PARTS = 3,
  SP_SLOTS = SP_PARTS << 16, /* of one external address; the table has those of all */
  SP_MOST_ADDRESSES = 32,
  SP_NOBODY = 0xff, /* the index of what is no external address */
  SP_LEASES = 1 << 17,
  SP_MOST_LANS = 16,
  SP_MOST_WANS = 16,
  SP_WATCH = SP_MOST_WANS, /* the place in `wans` of the TAP, which goes with the daemon */
  SP_MOST_OTHERS = 32,
  SP_NO_LEASE = 0xffffff,
};

enum sp_part { SP_TCP, SP_UDP, SP_ICMP };

/* As nat::SlotKind. */
enum sp_slot_kind { SP_FREE, SP_IMPLICIT, SP_EXPLICIT, SP_STATIC, SP_DRAINING, SP_QUARANTINE };

/* As nat::Slot. The first 8 octets are one word that changes by compare-and-swap only. Flows go on
 * while their slot has the generation they began with: a reset adds 1 to it, an owner that comes anew SP_ANEW. */
enum { SP_ANEW = 16 };
struct sp_slot {
  sp_u32 host; /* of a free one: who had it last */
  sp_u16 port;
  sp_u8 kind;
  sp_u8 generation;
  sp_u32 deadline_s;
  sp_u32 aux; /* the lease of an explicit or static slot */
};
SP_ASSERT_SIZE(struct sp_slot, 16);

/* As nat::Lease::Flag. */
enum sp_lease_flag {
  SP_LEASE_USED = 1,
  SP_LEASE_GONE = 2,
  SP_LEASE_DISABLED = 4,
  SP_LEASE_SECOND_PORT = 8,
  SP_LEASE_FILTERED = 16,
  SP_LEASE_OUTBOUND = 32,
};

/* As nat::Lease: the programs count in it, and read deadline and flags. Times in ns of the boot clock. */
struct sp_lease {
  sp_u64 serial;
  sp_u64 deadline_ns;
  sp_u64 packets_in, packets_out, bytes_in, bytes_out;
  sp_u64 last_packet_ns;
  sp_u32 flows;
  sp_u32 untracked_until_s;
  sp_u16 external;
  sp_u8 part;
  sp_u8 flags;
  sp_u32 unused;
};
SP_ASSERT_SIZE(struct sp_lease, 72);

/* endpoints: an internal endpoint, and the external port that its outbound packets wear. */
struct sp_endpoint {
  sp_u32 host;
  sp_u16 port;
  sp_u16 part;
};
SP_ASSERT_SIZE(struct sp_endpoint, 8);

/* One flow for both directions. `permission` entries (peer_port 0) say that the endpoint sent to that address. */
struct sp_flow_key {
  sp_u32 host, peer;
  sp_u16 host_port, peer_port;
  sp_u8 protocol;
  sp_u8 permission;
  sp_u16 zero;
};
SP_ASSERT_SIZE(struct sp_flow_key, 16);

enum sp_flow_flag { SP_FLOW_INBOUND = 1, SP_FLOW_ANSWERED = 2, SP_FLOW_CONFIRMED = 4, SP_FLOW_OF_EXPLICIT = 16 };

struct sp_flow {
  sp_u32 deadline_s;
  sp_u16 external;
  sp_u8 flags;
  sp_u8 generation;  /* of its slot */
  struct sp_tcp tcp; /* `spare`: the epoch in which its slot was looked at last */
};
SP_ASSERT_SIZE(struct sp_flow, 24);

/* flows: a hash table over an array, because random touches of memory, and of pages, are what a packet costs: a flow is
 * one line of the cache, and the first SP_NEAR entries, taken first, are few pages. A key stands in one of three
 * buckets: a near one of SP_NEAR_WAYS entries, or one of two of SP_WAYS behind them; there in the first place from its
 * own one on that could be had. The search in a bucket ends where no entry ever was, and goes on to the next one only
 * while `far_used` says that something may be there. Entries over for SP_FLOW_GRACE seconds are anybody's.
 * `tag` changes by compare-and-swap: SP_TAG_NEVER, SP_TAG_GONE, SP_TAG_BUSY while it is written, else of the key's hash. */
enum {
  SP_NEAR = 1 << 14,
  SP_NEAR_WAYS = 2,
  SP_WAYS = 32,
  SP_SECOND = SP_NEAR_WAYS + SP_WAYS, /* see sp_flow_place */
  SP_PLACES = SP_SECOND + SP_WAYS,
  SP_FLOW_GRACE = 2,
};
enum { SP_TAG_NEVER, SP_TAG_GONE, SP_TAG_BUSY, SP_TAG_FIRST };
struct sp_flow_entry {
  struct sp_flow flow; /* first: a flow's address is its entry's */
  struct sp_flow_key key;
  sp_u32 tag;
  sp_u32 spare[5];
};
SP_ASSERT_SIZE(struct sp_flow_entry, 64);

SP_SHARED sp_u32 sp_flow_tag(sp_u64 hash) {
  const sp_u32 tag = (sp_u32)(hash >> 32);
  return tag < SP_TAG_FIRST ? tag + SP_TAG_FIRST : tag;
}
/* Where a key of that hash may stand, in turn: near, from SP_NEAR_WAYS on in its first bucket, from SP_SECOND on in its
 * second one. `buckets`: of SP_WAYS, in the whole table. */
SP_SHARED sp_u32 sp_flow_place(sp_u64 hash, sp_u32 turn, sp_u32 buckets) {
  const sp_u32 own = sp_flow_tag(hash) + turn;
  if (turn < SP_NEAR_WAYS)
    return (sp_u32)hash % (SP_NEAR / SP_NEAR_WAYS) * SP_NEAR_WAYS + own % SP_NEAR_WAYS;
  const sp_u32 drawn = turn < SP_SECOND ? (sp_u32)hash : (sp_u32)((hash * 0x9e3779b97f4a7c15u) >> 32);
  return SP_NEAR + (sp_u32)(((sp_u64)drawn * buckets) >> 32) * SP_WAYS +
         (own - (turn < SP_SECOND ? SP_NEAR_WAYS : SP_SECOND)) % SP_WAYS;
}
/* The last turn of a bucket: where a search goes on from an entry that never was. */
SP_SHARED sp_u32 sp_flow_last_turn(sp_u32 turn) {
  return (turn < SP_NEAR_WAYS ? SP_NEAR_WAYS : turn < SP_SECOND ? SP_SECOND : SP_PLACES) - 1;
}

/* hosts: what one device has; the sweep counts anew. */
struct sp_host {
  sp_u32 mappings, flows, icmp_ids;
  sp_u32 made_s, made;
  sp_u32 zero;
};
SP_ASSERT_SIZE(struct sp_host, 24);

/* fragments: what became of a first fragment. */
struct sp_fragment_key {
  sp_u32 source, destination;
  sp_u16 id;
  sp_u8 protocol;
  sp_u8 side; /* sp_side */
};
SP_ASSERT_SIZE(struct sp_fragment_key, 12);

struct sp_fragment {
  sp_u32 source, destination; /* after translation */
  sp_u32 id_of;               /* the host whose IPv4 ID is rewritten; 0: it stays */
  sp_u32 deadline_s;
};
SP_ASSERT_SIZE(struct sp_fragment, 16);

/* filters: the remote peers of a lease, eight an entry. */
enum { SP_FILTERS_AN_ENTRY = 8, SP_FILTER_ENTRIES = 32 };
struct sp_filter_key {
  sp_u32 lease;
  sp_u32 part; /* 0, 1, ...: entries of one lease */
};
struct sp_filters {
  sp_u32 count; /* of all the lease's filters from this entry on */
  sp_u32 address[SP_FILTERS_AN_ENTRY], mask[SP_FILTERS_AN_ENTRY];
  sp_u16 port[SP_FILTERS_AN_ENTRY]; /* 0: all */
};

/* networks: longest match; an entry has the flags of the shorter ones too. */
enum sp_net_flag {
  SP_NET_LAN = 1,
  SP_NET_END = 2, /* a LAN's own or broadcast address */
  SP_NET_GATEWAY = 4,
  SP_NET_UNTRANSLATED = 8, /* reached through the WAN as it is */
  SP_NET_ELSEWHERE = 16,   /* behind an interface that is neither LAN nor WAN */
  SP_NET_WAS_LAN = 32,     /* of a LAN that is none now: its interface was renamed or made anew */
  SP_NET_INSIDE = SP_NET_LAN | SP_NET_WAS_LAN,
};
/* networks6: as networks; the longest match has its own flags alone. */
struct sp_net6_key {
  sp_u32 length;
  sp_u8 address[16];
};
SP_ASSERT_SIZE(struct sp_net6_key, 20);

struct sp_net_key {
  sp_u32 length;
  sp_u8 address[4]; /* network order */
};
SP_ASSERT_SIZE(struct sp_net_key, 8);

enum { SP_FAR_USED = 1, SP_FAR_EMPTY_TURNS = 3 };
enum sp_filtering { SP_FILTER_ENDPOINT, SP_FILTER_ADDRESS, SP_FILTER_ADDRESS_AND_PORT };

/* config: one entry. */
struct sp_config {
  sp_u32 abi; /* SP_ABI; stays the first of every layout to come */
  sp_u32 wan_count; /* entries of `wans`; 0: none has its programs, and what the LAN sends stays inside */
  sp_u64 secret[2];
  sp_u64 flow_secret[2]; /* as long as the flow table is there */
  sp_u64 id_secret;
  sp_u64 now_ns; /* tests only: the time, instead of the kernel's */
  sp_u64 boot_offset_ns; /* the boot clock is ahead of the monotonic one by this: time spent suspended */
  sp_u32 test_iif; /* tests only: the interface a packet came in by, as no program can be told */
  sp_u32 has_external, external; /* external: that of index `only` */
  sp_u32 lan_count, lan[SP_MOST_LANS]; /* interface indexes */
  sp_u32 other_count, other[SP_MOST_OTHERS]; /* indexes of interfaces that are neither: VPNs */
  sp_u32 wan, tap;
  sp_u32 wan_header; /* octets of the link layer's header on the WAN: 14, or 0 */
  sp_u32 epoch;      /* another one: flows look at their slots again */
  sp_u32 flow_buckets; /* of SP_WAYS */
  sp_u32 far_used[2];  /* first, second bucket behind the near ones: 0 nothing is there, SP_FAR_USED, or turns of the
                          sweep that met nothing, and 1 */
  sp_u32 embryos_until_s; /* none is in force then */
  sp_u32 counted_until_s; /* numbers by device and in all are near the truth: a sweep puts them right; 0: always */
  sp_u32 pool_first, pool_last;
  sp_u32 filtering; /* sp_filtering */
  sp_u32 random_ports, answer_ping, drop_private;
  sp_u32 tcp_established, tcp_transitory, tcp_half_open, udp_idle, icmp_query, fragment_timeout; /* seconds */
  sp_u32 mappings_per_device, new_mappings_per_second, flows_per_device, flows_total, icmp_ids_per_device; /* 0: none */
  sp_u32 mss; /* 0: no clamping */
  sp_u32 ipv6;     /* the firewall stands before it */
  sp_u32 redirect; /* past the stack where that can be */
  sp_u32 reuse_delay; /* seconds */
  sp_u32 only;     /* of one external address its index, of several the lowest one */
  sp_u32 externals_count;
  sp_u32 elsewhere;                    /* a bit for each that no interface has: the stack does not know it */
  sp_u32 externals[SP_MOST_ADDRESSES]; /* by index; 0: nobody has it */
  sp_u8 pairs[SP_BUCKETS];             /* the index of the hosts of a bucket (sp_bucket) */
};

/* state: one entry, written by the programs. */
struct sp_state {
  sp_u64 draws;
  sp_u32 flows;
  sp_u32 shortage_ports, shortage_flows;
  sp_u32 slow_s, slow; /* what is only answered, to the slow path within that second */
  sp_u32 strange_s, strange; /* fragments and ICMP errors from outside likewise */
};

/* ways: of `[engine] redirect`. */
enum { SP_WAYS_KNOWN = 1024 };
struct sp_way {
  sp_u32 destination; /* 0: none */
  sp_u32 in_by, interface; /* indexes */
  sp_u32 found_s;
  sp_u32 mtu;
  sp_u8 to[6], from[6]; /* as in the frame */
};
SP_ASSERT_SIZE(struct sp_way, 32);

enum sp_side { SP_FROM_LAN, SP_FROM_WAN, SP_FROM_ROUTER, SP_HAIRPIN };

/* Why a packet goes to the slow path. */
enum sp_slow {
  SP_SLOW_ICMP_ERROR = 1,
  SP_SLOW_FRAGMENT,
  SP_SLOW_ENDED,  /* TCP of an ended flow: answer with RST */
  SP_SLOW_REFUSE, /* answer with ICMP unreachable, `code` */
  SP_SLOW_POOL,   /* no port at random: search, then try again */
  SP_SLOW_PING,   /* of an external address that is nobody's */
  SP_SLOW_IPV6,   /* all of IPv6 that is forwarded: the engine is its firewall */
};

/* The link layer's source address on the way to the slow path and back. */
enum { SP_TAG_0 = 0x02, SP_TAG_1 = 0x53 };
struct sp_tag {
  sp_u8 tag0, tag1;
  sp_u8 side;   /* sp_side */
  sp_u8 what;   /* to the slow path: sp_slow; back: sp_back */
  sp_u8 code;   /* of SP_SLOW_REFUSE */
  sp_u8 reason; /* sp_drop */
};
SP_ASSERT_SIZE(struct sp_tag, 6);

/* Where a packet of the slow path goes. */
enum sp_back {
  SP_BACK_RETRY = 1, /* once more through the hook it came from */
  SP_BACK_WAN,       /* finished: out by the WAN */
  SP_BACK_STACK,     /* finished: as if it came in by the WAN, to be routed or delivered */
  SP_BACK_LAN,       /* finished: to the LAN past the stack, for a source that the stack takes for its own */
};

/* Marks of packets that come from the slow path: none is sent there again. */
enum { SP_MARK_RETRY = 0x53500001, SP_MARK_FINISHED = 0x53500002 };

/* As nat::DropReason. */
enum sp_drop {
  SP_DROP_none,
  SP_DROP_truncated,
  SP_DROP_bad_version,
  SP_DROP_bad_header_length,
  SP_DROP_bad_total_length,
  SP_DROP_bad_header_checksum,
  SP_DROP_ttl_zero,
  SP_DROP_bad_option,
  SP_DROP_source_route,
  SP_DROP_bad_transport_header,
  SP_DROP_bad_transport_length,
  SP_DROP_port_zero,
  SP_DROP_bad_tcp_flags,
  SP_DROP_bad_fragment,
  SP_DROP_bad_extension,
  SP_DROP_spoofed_source,
  SP_DROP_martian_source,
  SP_DROP_martian_destination,
  SP_DROP_internal_destination,
  SP_DROP_not_ours,
  SP_DROP_no_external_address,
  SP_DROP_unknown_protocol,
  SP_DROP_unknown_icmp,
  SP_DROP_ping_refused,
  SP_DROP_hairpin_to_itself,
  SP_DROP_ttl_expired,
  SP_DROP_too_big,
  SP_DROP_no_mapping,
  SP_DROP_filtered,
  SP_DROP_disabled,
  SP_DROP_no_session,
  SP_DROP_out_of_window,
  SP_DROP_ended,
  SP_DROP_mapping_limit,
  SP_DROP_mapping_rate,
  SP_DROP_flow_limit,
  SP_DROP_icmp_id_limit,
  SP_DROP_no_ports,
  SP_DROP_table_full,
  SP_DROP_bad_icmp_checksum,
  SP_DROP_icmp_fits_nothing,
  SP_DROP_fragment_overlap,
  SP_DROP_fragment_limit,
  SP_DROP_fragment_of_dropped,
  SP_DROP_count,
  SP_COUNT_PACKETS = SP_DROP_count, /* in the same map: packets translated */
  SP_COUNTERS,
};

#undef SP_ASSERT_SIZE
#undef SP_SHARED
#ifdef __cplusplus
}  // namespace sallyport::nat::ebpf
#endif
#endif
