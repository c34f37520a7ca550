/* The translator in the kernel: the common way of every packet, by the rules that the engine has (nat/engine). What is
 * rare goes to the plane by a TAP device: ICMP errors, fragments, answers to what is refused, a pool that is full.
 *
 * wan_egress translates what the LAN sends and drops what cannot be; wan_ingress finds the host that a packet from
 * outside is for; lan_ingress is for hairpins; other_egress drops what of the LAN would leave as it is by another
 * interface. tap_ingress puts back what the slow path finished. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "nat/plane/ebpf/abi.h"

#define NS_PER_S 1000000000ull
/* Verified by itself, once, whoever calls it; so its pointers may be null as far as the verifier knows. */
#define PROGRAM __attribute__((noinline))
#ifndef NULL
#define NULL ((void *)0)
#endif

char program_license[] SEC("license") = "Dual BSD/GPL";

/* --- tables; sizes that depend on the configuration are set before loading --- */

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, SP_SLOTS);
  __type(key, sp_u32);
  __type(value, struct sp_slot);
} slots SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, SP_LEASES);
  __type(key, sp_u32);
  __type(value, struct sp_lease);
} leases SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1 << 17);
  __type(key, struct sp_endpoint);
  __type(value, sp_u32);
} endpoints SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, SP_NEAR + (SP_WAYS << 13));
  __type(key, sp_u32);
  __type(value, struct sp_flow_entry);
} flows SEC(".maps");

/* What outsiders began and nobody confirmed yet: the oldest gives way, so a flood fills nothing else. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 1 << 15);
  __type(key, struct sp_flow_key);
  __type(value, struct sp_flow);
} embryos SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 1 << 14);
  __type(key, sp_u32);
  __type(value, struct sp_host);
} hosts SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 1 << 13);
  __type(key, struct sp_fragment_key);
  __type(value, struct sp_fragment);
} fragments SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1 << 16);
  __type(key, struct sp_filter_key);
  __type(value, struct sp_filters);
} filters SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1 << 12);
  __type(key, struct sp_net_key);
  __type(value, sp_u32);
} networks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1 << 10);
  __type(key, struct sp_net6_key);
  __type(value, sp_u32);
} networks6 SEC(".maps");

/* The WAN's interfaces that have our programs, and the TAP. The kernel takes an entry out when its interface goes. */
struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP);
  __uint(max_entries, SP_MOST_WANS + 1);
  __type(key, sp_u32);
  __type(value, sp_u32);
} wans SEC(".maps");

/* Ports that are given to nobody: reserved, or the router's own. Words of 64 ports, TCP then UDP. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 2048);
  __type(key, sp_u32);
  __type(value, sp_u64);
} busy SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, sp_u32);
  __type(value, struct sp_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, sp_u32);
  __type(value, struct sp_state);
} state SEC(".maps");

/* By destination: where the stack would send a packet. Of each processor, so nobody reads what another one writes. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, SP_WAYS_KNOWN);
  __type(key, sp_u32);
  __type(value, struct sp_way);
} ways SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, SP_COUNTERS);
  __type(key, sp_u32);
  __type(value, sp_u64);
} counters SEC(".maps");

/* --- a packet on its way --- */

struct work {
  sp_u64 now_ns;
  sp_u32 now_s;
  sp_u32 l3, l4; /* offsets in the frame */
  sp_u32 source, destination;
  sp_u16 sport, dport;
  sp_u16 id, total;
  sp_u16 offset; /* of a fragment */
  sp_u8 more_fragments, dont_fragment;
  sp_u8 protocol, part, ttl, icmp_type;
  sp_u8 header_length, transport_header_length;
  sp_u8 address; /* index of the external address whose slots are looked at */
  struct sp_segment segment;
};

/* Verdicts of the steps below: 0 goes on, up to 255 is a reason to drop, the rest: */
#define LOCAL 0x1000000
#define UNTRANSLATED 0x2000000
#define SLOW(what, code, reason) (0x4000000 | (reason) << 16 | (code) << 8 | (what))
#define IS_SLOW(verdict) ((verdict) & 0x4000000)

static __always_inline void count(sp_u32 what) {
  sp_u64 *counter = bpf_map_lookup_elem(&counters, &what);
  if (counter) ++*counter;
}

static __always_inline struct sp_config *configuration(void) {
  const sp_u32 zero = 0;
  return bpf_map_lookup_elem(&config, &zero);
}

/* Octets of the link layer's header on the WAN. */
static __always_inline sp_u32 wan_header(const struct sp_config *cfg) { return cfg->wan_header ? ETH_HLEN : 0; }

/* Coarse, a few milliseconds: reading the clock exactly costs more than all else that is done for a packet. */
static __always_inline sp_u64 now_of(const struct sp_config *cfg) {
  return cfg->now_ns ? cfg->now_ns : bpf_ktime_get_coarse_ns() + cfg->boot_offset_ns;
}
static __always_inline void tell_time(struct work *w, const struct sp_config *cfg) {
  w->now_ns = now_of(cfg);
  w->now_s = (sp_u32)(w->now_ns / NS_PER_S);
}

static __always_inline bool has_ports(const struct work *w) {
  return w->protocol == IPPROTO_TCP || w->protocol == IPPROTO_UDP;
}
static __always_inline bool is_fragment(const struct work *w) { return w->more_fragments || w->offset; }

static __always_inline bool is_query(sp_u8 type) { return type == 8 || type == 0 || type == 13 || type == 14; }
static __always_inline bool is_error(sp_u8 type) {
  return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

static __always_inline bool is_special(sp_u32 address) {
  const sp_u32 top = address >> 24;
  return top == 0 || top == 127 || top >= 224 || address >> 16 == 0xa9fe;
}
static __always_inline bool is_private(sp_u32 address) {
  return address >> 24 == 10 || address >> 20 == 0xac1 || address >> 16 == 0xc0a8;
}

static __always_inline sp_u32 networks_of(sp_u32 address) {
  struct sp_net_key key = {.length = 32};
  __builtin_memcpy(key.address, &(sp_u32){bpf_htonl(address)}, 4);
  const sp_u32 *flags = bpf_map_lookup_elem(&networks, &key);
  return flags ? *flags : 0;
}
static __always_inline sp_u32 networks6_of(const sp_u8 *address) {
  struct sp_net6_key key = {.length = 128};
  __builtin_memcpy(key.address, address, sizeof key.address);
  const sp_u32 *flags = bpf_map_lookup_elem(&networks6, &key);
  return flags ? *flags : 0;
}
static __always_inline bool is_lan_host(sp_u32 address) {
  return (networks_of(address) & (SP_NET_LAN | SP_NET_END | SP_NET_GATEWAY)) == SP_NET_LAN && !is_special(address);
}
/* Sources that cannot come from a WAN, whoever its provider is. */
static __always_inline bool is_impossible(sp_u32 address) {
  return is_special(address) || (networks_of(address) & (SP_NET_INSIDE | SP_NET_GATEWAY));
}
PROGRAM int is_martian(sp_u32 address) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return 1;
  return is_impossible(address) || (cfg->drop_private && is_private(address));
}

/* --- reading --- */

static __always_inline sp_u16 be16(const void *at) { return bpf_ntohs(*(const sp_u16 *)at); }
static __always_inline sp_u32 be32(const void *at) { return bpf_ntohl(*(const sp_u32 *)at); }

/* Combinations that no TCP sends: they map a network, or slip past a filter. */
static __always_inline bool is_nonsense(sp_u8 flags) {
  if (flags & SP_SYN) return flags & (SP_FIN | SP_RST);
  if (flags & SP_RST) return flags & SP_FIN;
  return !(flags & SP_ACK);
}

struct option_walk {
  struct __sk_buff *skb;
  sp_u32 start, at, length;
  sp_u32 wanted; /* kind << 8 | length */
  sp_u32 result;
};

static long judge_option(sp_u32 index, struct option_walk *walk) {
  sp_u8 option[2] = {};
  if (walk->at >= walk->length) return 1;
  if (bpf_skb_load_bytes(walk->skb, walk->start + walk->at, option, 1)) {
    walk->result = SP_DROP_truncated;
    return 1;
  }
  if (option[0] == 0) return 1;
  if (option[0] == 1) {
    ++walk->at;
    return 0;
  }
  walk->result = SP_DROP_bad_option;
  if (walk->at + 1 >= walk->length || bpf_skb_load_bytes(walk->skb, walk->start + walk->at, option, 2)) return 1;
  if (option[1] < 2 || walk->at + option[1] > walk->length) return 1;
  walk->result = SP_DROP_source_route;
  if (option[0] == 131 || option[0] == 137) return 1;
  walk->result = 0;
  walk->at += option[1];
  return 0;
}

PROGRAM int judge_options(struct __sk_buff *skb, sp_u32 l3, sp_u32 header_length) {
  struct option_walk walk = {.skb = skb, .start = l3, .at = 20, .length = header_length};
  bpf_loop(40, judge_option, &walk, 0);
  return walk.result;
}

/* The value of a TCP option of a SYN: its place in the frame, or 0. */
static long look_at_option(sp_u32 index, struct option_walk *walk) {
  sp_u8 option[2] = {};
  if (walk->at + 1 >= walk->length || bpf_skb_load_bytes(walk->skb, walk->start + walk->at, option, 2)) return 1;
  if (option[0] == 0) return 1;
  if (option[0] == 1) {
    ++walk->at;
    return 0;
  }
  if (option[1] < 2 || walk->at + option[1] > walk->length) return 1;
  if (((sp_u32)option[0] << 8 | option[1]) == walk->wanted) {
    walk->result = walk->start + walk->at + 2;
    return 1;
  }
  walk->at += option[1];
  return 0;
}

PROGRAM sp_u32 find_tcp_option(struct __sk_buff *skb, sp_u32 l4, sp_u32 header_length, sp_u32 kind_length) {
  struct option_walk walk = {.skb = skb, .start = l4, .at = 20, .length = header_length, .wanted = kind_length};
  bpf_loop(40, look_at_option, &walk, 0);
  return walk.result;
}

static __always_inline int parse(struct __sk_buff *skb, struct work *w, sp_u32 l3, bool check_header) {
  void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  const sp_u32 most = l3 + 60 + 20;
  if (data + most > end && (sp_u32)(end - data) < skb->len) {
    bpf_skb_pull_data(skb, skb->len < most ? skb->len : most);
    data = (void *)(long)skb->data;
    end = (void *)(long)skb->data_end;
  }
  const sp_u8 *ip = data + l3;
  if ((void *)(ip + 20) > end) return SP_DROP_truncated;
  const sp_u32 size = skb->len - l3;
  w->l3 = l3;
  if (ip[0] >> 4 != 4) return SP_DROP_bad_version;
  const sp_u32 header_length = (ip[0] & 15) * 4;
  if (header_length < 20 || header_length > size) return SP_DROP_bad_header_length;
  w->header_length = header_length;
  w->total = be16(ip + 2);
  if (w->total < header_length || w->total > size) return SP_DROP_bad_total_length;
  if (check_header) {
    /* The order of octets is the same to a ones' complement sum. */
    const sp_u32 *words = (const sp_u32 *)ip;
    sp_u64 sum = (sp_u64)words[0] + words[1] + words[2] + words[3] + words[4];
    for (sp_u32 i = 20; i < 60; i += 4) {
      if (i >= header_length) break;
      if ((void *)(ip + i + 4) > end) return SP_DROP_truncated;
      sum += *(const sp_u32 *)(ip + i);
    }
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    if (sum != 0xffff) return SP_DROP_bad_header_checksum;
  }
  w->id = be16(ip + 4);
  const sp_u16 fragment = be16(ip + 6);
  w->dont_fragment = fragment >> 14 & 1;
  w->more_fragments = fragment >> 13 & 1;
  w->offset = (fragment & 0x1fff) * 8;
  w->ttl = ip[8];
  w->protocol = ip[9];
  w->source = be32(ip + 12);
  w->destination = be32(ip + 16);
  if (w->ttl == 0) return SP_DROP_ttl_zero;
  if (header_length > 20) {
    const int verdict = judge_options(skb, l3, header_length);
    if (verdict) return verdict;
    ip = (void *)(long)skb->data + l3;
    end = (void *)(long)skb->data_end;
    if ((void *)(ip + 20) > end) return SP_DROP_truncated;
  }
  const sp_u32 payload = w->total - header_length;
  if (is_fragment(w)) {
    if (payload == 0 || (w->more_fragments && payload % 8) || w->offset + payload + header_length > 65535)
      return SP_DROP_bad_fragment;
    if (w->offset) return 0;
  }
  w->l4 = l3 + header_length;
  const sp_u8 *l4 = ip + header_length;
  const int cut = is_fragment(w) ? SP_DROP_bad_fragment : SP_DROP_bad_transport_header;
  if (w->protocol == IPPROTO_TCP) {
    w->part = SP_TCP;
    if (payload < 20 || (void *)(l4 + 20) > end) return cut;
    const sp_u32 length = (l4[12] >> 4) * 4;
    if (length < 20) return SP_DROP_bad_transport_header;
    if (length > payload) return cut;
    w->transport_header_length = length;
    w->sport = be16(l4);
    w->dport = be16(l4 + 2);
    w->segment.seq = be32(l4 + 4);
    w->segment.ack = be32(l4 + 8);
    w->segment.flags = l4[13] & 0x3f;
    w->segment.window = be16(l4 + 14);
    w->segment.payload = payload - length;
    w->segment.scale = SP_NO_SCALE;
    if (is_nonsense(w->segment.flags)) return SP_DROP_bad_tcp_flags;
    if (!w->sport || !w->dport) return SP_DROP_port_zero;
  } else if (w->protocol == IPPROTO_UDP) {
    w->part = SP_UDP;
    if (payload < 8 || (void *)(l4 + 8) > end) return cut;
    w->sport = be16(l4);
    w->dport = be16(l4 + 2);
    const sp_u16 length = be16(l4 + 4);
    if (!skb->gso_size && !is_fragment(w) && (length < 8 || length > payload)) return SP_DROP_bad_transport_length;
    if (!w->sport || !w->dport) return SP_DROP_port_zero;
  } else if (w->protocol == IPPROTO_ICMP) {
    w->part = SP_ICMP;
    if (payload < 8 || (void *)(l4 + 8) > end) return cut;
    w->icmp_type = l4[0];
    if (is_query(l4[0])) w->sport = w->dport = be16(l4 + 4);
  }
  return 0;
}

/* The window scale of a SYN, read only when one is at hand. */
static __always_inline void read_scale(struct __sk_buff *skb, struct work *w) {
  if (w->protocol != IPPROTO_TCP || !(w->segment.flags & SP_SYN)) return;
  const sp_u32 at = find_tcp_option(skb, w->l4, w->transport_header_length, 3 << 8 | 3);
  sp_u8 scale;
  if (at && !bpf_skb_load_bytes(skb, at, &scale, 1)) w->segment.scale = scale > 14 ? 14 : scale;
}

/* --- rewriting --- */

enum end { SOURCE, DESTINATION };

static __always_inline sp_u16 fold(sp_u32 sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  return (sp_u16)((sum & 0xffff) + (sum >> 16));
}
/* ~(~HC + ~m + m'), RFC 1624. */
static __always_inline sp_u16 checksum_after(sp_u16 checksum, sp_u32 change) {
  return (sp_u16)~fold((sp_u16)~checksum + fold(change));
}
static __always_inline sp_u32 change_of(sp_u16 before, sp_u16 after) { return (sp_u32)(sp_u16)~before + after; }

static __always_inline void store16(sp_u8 *at, sp_u16 value) { *(sp_u16 *)at = bpf_htons(value); }

static __always_inline void clamp_mss(struct __sk_buff *skb, const struct work *w, sp_u32 mss) {
  const sp_u32 at = find_tcp_option(skb, w->l4, w->transport_header_length, 2 << 8 | 4);
  sp_u16 before;
  if (!at || bpf_skb_load_bytes(skb, at, &before, 2) || bpf_ntohs(before) <= mss) return;
  sp_u16 after = bpf_htons(mss);
  /* The option may stand at an odd offset: then its octets belong to two words. */
  const bool odd = (at - w->l4) & 1;
  bpf_l4_csum_replace(skb, w->l4 + 16, odd ? (sp_u16)(before << 8 | before >> 8) : before,
                      odd ? (sp_u16)(after << 8 | after >> 8) : after, 2);
  bpf_skb_store_bytes(skb, at, &after, 2, 0);
}

/* Puts another address and port (of an ICMP query: identifier) at one end. `host`: 0, or whose IPv4 ID is hidden.
 * `ttl_less`: what is taken from the TTL. */
static __always_inline int rewrite(struct __sk_buff *skb, struct work *w, const struct sp_config *cfg, enum end end,
                                   sp_u32 address, sp_u16 port, sp_u32 host, sp_u8 ttl_less) {
  /* Bounds that the verifier cannot know otherwise. */
  const sp_u32 l3 = w->l3 & 15, l4 = l3 + (w->header_length & 60);
  const sp_u32 old = end == SOURCE ? w->source : w->destination;
  const bool transport = !w->offset;
  const sp_u16 old_port = end == SOURCE ? w->sport : w->dport;
  sp_u32 port_at = l4 + (end == SOURCE ? 0 : 2);
  if (transport && has_ports(w)) {
    const sp_u32 field = l4 + (w->protocol == IPPROTO_TCP ? 16 : 6);
    const sp_u64 udp = w->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
    if (old != address)
      bpf_l4_csum_replace(skb, field, bpf_htonl(old), bpf_htonl(address), BPF_F_PSEUDO_HDR | udp | 4);
    if (old_port != port) bpf_l4_csum_replace(skb, field, bpf_htons(old_port), bpf_htons(port), udp | 2);
    if (cfg->mss && w->protocol == IPPROTO_TCP && (w->segment.flags & SP_SYN) && !is_fragment(w))
      clamp_mss(skb, w, cfg->mss);
  } else if (transport && w->protocol == IPPROTO_ICMP) {
    port_at = l4 + 4;
    if (old_port != port) bpf_l4_csum_replace(skb, l4 + 2, bpf_htons(old_port), bpf_htons(port), 2);
  }

  void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
  if (data + l4 + 8 > data_end) {
    /* A helper may have left the header outside the linear part. */
    if (bpf_skb_pull_data(skb, l4 + 8 < skb->len ? l4 + 8 : skb->len)) return SP_DROP_truncated;
    data = (void *)(long)skb->data;
    data_end = (void *)(long)skb->data_end;
  }
  sp_u8 *ip = data + l3;
  if ((void *)(ip + 20) > data_end) return SP_DROP_truncated;
  sp_u32 change = change_of((sp_u16)(old >> 16), (sp_u16)(address >> 16)) + change_of((sp_u16)old, (sp_u16)address);
  sp_u8 *at = ip + (end == SOURCE ? 12 : 16);
  *(sp_u32 *)at = bpf_htonl(address);
  if (host && (!w->dont_fragment || is_fragment(w))) {
    const sp_u16 id = sp_hide_id(cfg->id_secret, host, w->id);
    change += change_of(w->id, id);
    store16(ip + 4, id);
    w->id = id;
  }
  if (ttl_less) {
    change += change_of((sp_u16)(ip[8] << 8), (sp_u16)((sp_u8)(ip[8] - ttl_less) << 8));
    ip[8] -= ttl_less;
  }
  store16(ip + 10, checksum_after(be16(ip + 10), change));
  if (transport && (has_ports(w) || w->protocol == IPPROTO_ICMP) && old_port != port) {
    sp_u8 *to = data + port_at;
    if ((void *)(to + 2) > data_end) return SP_DROP_truncated;
    store16(to, port);
  }
  if (end == SOURCE) {
    w->source = address;
    w->sport = port;
  } else {
    w->destination = address;
    w->dport = port;
  }
  return 0;
}

/* For a packet that the stack does not forward. */
PROGRAM int lower_ttl(struct __sk_buff *skb) {
  void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  sp_u8 *ip = data + ETH_HLEN;
  if ((void *)(ip + 20) > end) return 1;
  const sp_u32 change = change_of((sp_u16)(ip[8] << 8), (sp_u16)((sp_u8)(ip[8] - 1) << 8));
  --ip[8];
  store16(ip + 10, checksum_after(be16(ip + 10), change));
  return 0;
}

/* --- mappings --- */

PROGRAM sp_u32 find_among(sp_u32 address) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !address) return SP_NOBODY;
  for (sp_u32 i = 0; i < SP_MOST_ADDRESSES; ++i)
    if (cfg->externals[i] == address) return i;
  return SP_NOBODY;
}
/* The index of an external address, or SP_NOBODY. */
static __always_inline sp_u32 find_external(const struct sp_config *cfg, sp_u32 address) {
  if (address == cfg->external) return cfg->only;
  return cfg->externals_count > 1 ? find_among(address) : SP_NOBODY;
}
/* That of the address which a host has (nat::Pairing). */
static __always_inline sp_u8 address_of(const struct sp_config *cfg, sp_u32 host) {
  return cfg->externals_count > 1 ? cfg->pairs[sp_bucket(host)] : (sp_u8)cfg->only;
}
static __always_inline sp_u32 external_of(const struct sp_config *cfg, const struct work *w) {
  return cfg->externals[w->address & (SP_MOST_ADDRESSES - 1)];
}
static __always_inline bool is_elsewhere(const struct sp_config *cfg, sp_u32 address) {
  return cfg->elsewhere >> (address & (SP_MOST_ADDRESSES - 1)) & 1;
}

static __always_inline struct sp_slot *slot_of(sp_u8 address, sp_u8 part, sp_u16 external) {
  const sp_u32 at = ((sp_u32)address * SP_PARTS + part) << 16 | external;
  return bpf_map_lookup_elem(&slots, &at);
}
static __always_inline bool is_lease(const struct sp_slot *slot) {
  return slot->kind == SP_EXPLICIT || slot->kind == SP_STATIC;
}
static __always_inline struct sp_lease *lease_of(const struct sp_slot *slot) {
  const sp_u32 at = slot->aux;
  return bpf_map_lookup_elem(&leases, &at);
}
static __always_inline bool in_force(const struct sp_slot *slot, const struct work *w) {
  if (slot->kind == SP_IMPLICIT || slot->kind == SP_DRAINING) return !sp_is_over(slot->deadline_s, w->now_s);
  if (!is_lease(slot)) return false;
  if (slot->deadline_s > w->now_s) return true;
  const struct sp_lease *lease = lease_of(slot);
  return lease && lease->deadline_ns > w->now_ns;
}
static __always_inline bool is_of(const struct sp_slot *slot, sp_u32 host, sp_u16 port) {
  return slot->host == host && slot->port == port;
}

static __always_inline sp_u64 word_of(sp_u32 host, sp_u16 port, sp_u8 kind, sp_u8 generation) {
  return (sp_u64)host | (sp_u64)port << 32 | (sp_u64)kind << 48 | (sp_u64)generation << 56;
}

/* SipHash-1-3 of two words, as nat::SipHash. */
#define ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define SIP_ROUND        \
  v0 += v1;              \
  v1 = ROTATE(v1, 13) ^ v0; \
  v0 = ROTATE(v0, 32);   \
  v2 += v3;              \
  v3 = ROTATE(v3, 16) ^ v2; \
  v0 += v3;              \
  v3 = ROTATE(v3, 21) ^ v0; \
  v2 += v1;              \
  v1 = ROTATE(v1, 17) ^ v2; \
  v2 = ROTATE(v2, 32);
static __always_inline sp_u64 siphash_of(sp_u64 secret0, sp_u64 secret1, sp_u64 first, sp_u64 second) {
  sp_u64 v0 = secret0 ^ 0x736f6d6570736575, v1 = secret1 ^ 0x646f72616e646f6d, v2 = secret0 ^ 0x6c7967656e657261,
         v3 = secret1 ^ 0x7465646279746573;
  v3 ^= first;
  SIP_ROUND v0 ^= first;
  v3 ^= second;
  SIP_ROUND v0 ^= second;
  v3 ^= 16ull << 56;
  SIP_ROUND v0 ^= 16ull << 56;
  v2 ^= 0xff;
  SIP_ROUND SIP_ROUND SIP_ROUND return v0 ^ v1 ^ v2 ^ v3;
}
PROGRAM sp_u64 siphash(sp_u64 first, sp_u64 second) {
  const struct sp_config *cfg = configuration();
  return cfg ? siphash_of(cfg->secret[0], cfg->secret[1], first, second) : 0;
}

static __always_inline struct sp_state *programs_state(void) {
  const sp_u32 zero = 0;
  return bpf_map_lookup_elem(&state, &zero);
}

static __always_inline bool is_busy(sp_u8 part, sp_u16 port) {
  const sp_u32 at = (sp_u32)part * 1024 + port / 64;
  const sp_u64 *word = bpf_map_lookup_elem(&busy, &at);
  return !word || (*word >> port % 64 & 1);
}

/* Whether the router itself has a socket for such a packet (POL-TGT-05). */
static __always_inline int look_for_socket(struct __sk_buff *skb, sp_u8 protocol, sp_u32 source, sp_u32 destination,
                                           sp_u32 ports) {
  /* As bpf_sock_tuple, without the room for IPv6. */
  struct {
    __be32 saddr, daddr;
    __be16 sport, dport;
  } ipv4 = {bpf_htonl(source), bpf_htonl(destination), bpf_htons((sp_u16)(ports >> 16)), bpf_htons((sp_u16)ports)};
  struct bpf_sock_tuple *const tuple = (void *)&ipv4;
  struct bpf_sock *found = protocol == IPPROTO_TCP
                               ? bpf_skc_lookup_tcp(skb, tuple, sizeof ipv4, BPF_F_CURRENT_NETNS, 0)
                               : bpf_sk_lookup_udp(skb, tuple, sizeof ipv4, BPF_F_CURRENT_NETNS, 0);
  if (!found) return 0;
  bpf_sk_release(found);
  return 1;
}
PROGRAM int has_socket(struct __sk_buff *skb, sp_u8 protocol, sp_u32 source, sp_u32 destination, sp_u32 ports) {
  return look_for_socket(skb, protocol, source, destination, ports);
}

/* Whether a port of TCP or UDP is for others: reserved, another device's by a lease of its twin, or the router's. A
 * function of its own, as claim() would not fit into the stack with it (Linux 6.1). */
PROGRAM int is_kept(struct __sk_buff *skb, struct work *w, sp_u16 external) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !w || w->part >= SP_PARTS || is_busy(w->part, external)) return 1;
  const struct sp_slot *twin = slot_of(w->address, w->part == SP_TCP ? SP_UDP : SP_TCP, external);
  if (twin && is_lease(twin) && twin->host != w->source && in_force(twin, w)) return 1;
  /* 192.0.2.1: a caller from outside, whoever it is. Then the peer itself, with whom the router may be connected. */
  const sp_u32 address = external_of(cfg, w);
  return look_for_socket(skb, w->protocol, 0xc0000201, address, 9u << 16 | external) ||
         look_for_socket(skb, w->protocol, w->destination, address, (sp_u32)w->dport << 16 | external);
}

/* A port that the router itself sends from goes to nobody from now on (POL-NET-04): its connected sockets answer to
 * their peers alone, so is_kept() does not find them, and the plane looks at all of them every half minute only. Here,
 * the plane is told too. */
static __always_inline void keep_for_router(const struct sp_config *cfg, const struct work *w) {
  if (w->sport < cfg->pool_first || w->sport > cfg->pool_last || find_external(cfg, w->source) == SP_NOBODY) return;
  const sp_u32 at = (sp_u32)w->part * 1024 + w->sport / 64;
  sp_u64 *word = bpf_map_lookup_elem(&busy, &at);
  const sp_u64 bit = 1ull << w->sport % 64;
  if (word && !(*word & bit)) __sync_fetch_and_or(word, bit);
}

/* Claims an external port for an implicit mapping, if it may have it. `resting`: also one that rests for another
 * host. */
PROGRAM int claim(struct __sk_buff *skb, struct work *w, sp_u16 external, sp_u32 resting) {
  if (!w || external == 0 || w->part >= SP_PARTS) return 0;
  struct sp_slot *slot = slot_of(w->address, w->part, external);
  const struct sp_config *cfg = configuration();
  if (!slot || !cfg) return 0;
  /* Before the owner: whoever claims it from here on is noticed by one of the two. */
  const sp_u32 seen_until_s = __sync_fetch_and_add(&slot->deadline_s, 0);
  const sp_u64 seen = *(volatile sp_u64 *)slot;
  const sp_u8 kind = (sp_u8)(seen >> 48);
  if (kind == SP_EXPLICIT || kind == SP_STATIC) return 0;
  if (kind != SP_FREE && !sp_is_over(seen_until_s, w->now_s)) return 0;
  if (w->part != SP_ICMP) {
    /* One that is over is not freed before the next sweep. */
    const bool outbound = kind == SP_IMPLICIT || kind == SP_DRAINING;
    const sp_u32 until_s = outbound ? seen_until_s + cfg->reuse_delay : seen_until_s;
    if (!resting && sp_rests((sp_u32)seen, until_s, w->source, w->now_s)) return 0;
    if (is_kept(skb, w, external)) return 0;
  }
  /* Its deadline first: whoever sees the new owner sees that it is in force. Who is too late leaves the winner's. */
  if (__sync_val_compare_and_swap(&slot->deadline_s, seen_until_s, sp_deadline(w->now_s, 1)) != seen_until_s) return 0;
  const sp_u64 mine = word_of(w->source, w->sport, SP_IMPLICIT, (sp_u8)((seen >> 56) + SP_ANEW));
  if (__sync_val_compare_and_swap((sp_u64 *)slot, seen, mine) != seen) return 0;
  slot->aux = 0xffffffff;
  return 1;
}

static __always_inline struct sp_host *host_of(sp_u32 host, bool make) {
  struct sp_host *found = bpf_map_lookup_elem(&hosts, &host);
  if (found || !make) return found;
  const struct sp_host fresh = {};
  bpf_map_update_elem(&hosts, &host, &fresh, BPF_NOEXIST);
  return bpf_map_lookup_elem(&hosts, &host);
}

/* While the daemon is dead nobody counts what ended: then numbers are no reason to refuse anything. */
static __always_inline bool is_counted(const struct sp_config *cfg, sp_u32 now_s) {
  return !cfg->counted_until_s || now_s < cfg->counted_until_s;
}

/* The external port of an endpoint's mapping in force in *external, 0 when it has none. */
PROGRAM int mapping_of(struct work *w, sp_u32 *external) {
  if (!w || !external || w->part >= SP_PARTS) return SP_DROP_no_mapping;
  const struct sp_endpoint endpoint = {.host = w->source, .port = w->sport, .part = w->part};
  const sp_u32 *found = bpf_map_lookup_elem(&endpoints, &endpoint);
  *external = 0;
  if (!found) return 0;
  const sp_u16 port = (sp_u16)*found;
  const struct sp_slot *slot = slot_of(w->address, w->part, port);
  if (!slot || !is_of(slot, w->source, w->sport)) return 0;
  if (in_force(slot, w)) {
    *external = port;
    return 0;
  }
  /* Between its deadline and its withdrawal a lease still stands. */
  return is_lease(slot) ? SP_DROP_ended : 0;
}

struct draw {
  struct __sk_buff *skb;
  struct work *w;
  sp_u32 port;
  sp_u32 resting;
};

static long draw_port(sp_u32 index, struct draw *draw) {
  struct sp_state *st = programs_state();
  const struct sp_config *cfg = configuration();
  if (!st || !cfg) return 1;
  const bool icmp = draw->w->part == SP_ICMP;
  const sp_u32 first = icmp ? 1 : cfg->pool_first, last = icmp ? 65535 : cfg->pool_last;
  if (last < first) return 1;
  const sp_u64 number = siphash(3ull << 62, __sync_fetch_and_add(&st->draws, 1) + 1);
  const sp_u16 candidate = (sp_u16)(first + (sp_u32)(number >> 32) % (last - first + 1));
  if (!claim(draw->skb, draw->w, candidate, draw->resting)) return 0;
  draw->port = candidate;
  return 1;
}

/* Makes an implicit mapping of the source. */
PROGRAM int make_implicit(struct __sk_buff *skb, struct work *w, sp_u32 *external) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !w || !external || w->part >= SP_PARTS) return SP_DROP_no_mapping;
  struct sp_host *host = host_of(w->source, true);
  struct sp_state *st = programs_state();
  if (!host || !st) return SP_DROP_table_full;
  if (!is_counted(cfg, w->now_s)) {
    /* The table's size is the limit. */
  } else if (w->part == SP_ICMP) {
    if (cfg->icmp_ids_per_device && host->icmp_ids >= cfg->icmp_ids_per_device) return SP_DROP_icmp_id_limit;
  } else if (cfg->mappings_per_device && host->mappings >= cfg->mappings_per_device) {
    return SP_DROP_mapping_limit;
  }
  if (cfg->new_mappings_per_second && host->made_s == w->now_s && host->made >= cfg->new_mappings_per_second)
    return SP_DROP_mapping_rate;
  sp_u16 port = 0;
  if (!cfg->random_ports && (w->part == SP_ICMP || (w->sport >= cfg->pool_first && w->sport <= cfg->pool_last)) &&
      claim(skb, w, w->sport, 0))
    port = w->sport;
  if (!port) {
    struct draw draw = {.skb = skb, .w = w};
    bpf_loop(SP_RESTING_PASSED_OVER, draw_port, &draw, 0);
    if (!draw.port) {
      draw.resting = 1;
      bpf_loop(32, draw_port, &draw, 0);
    }
    port = (sp_u16)draw.port;
  }
  if (!port) return SP_DROP_no_ports;

  const struct sp_endpoint endpoint = {.host = w->source, .port = w->sport, .part = w->part};
  const sp_u32 value = port;
  if (bpf_map_update_elem(&endpoints, &endpoint, &value, BPF_NOEXIST)) {
    /* Somebody was faster, or what stands there is over. */
    sp_u32 winner = 0;
    mapping_of(w, &winner);
    if (winner && winner != port) {
      struct sp_slot *slot = slot_of(w->address, w->part, port);
      if (slot) {
        const sp_u64 seen = *(volatile sp_u64 *)slot;
        __sync_val_compare_and_swap((sp_u64 *)slot, seen, word_of(0, 0, SP_FREE, (sp_u8)(seen >> 56)));
      }
      *external = winner;
      return 0;
    }
    if (bpf_map_update_elem(&endpoints, &endpoint, &value, BPF_ANY)) {
      struct sp_slot *slot = slot_of(w->address, w->part, port);
      if (slot) slot->deadline_s = 0;
      return SP_DROP_table_full;
    }
  }
  __sync_fetch_and_add(w->part == SP_ICMP ? &host->icmp_ids : &host->mappings, 1);
  if (host->made_s != w->now_s) {
    host->made_s = w->now_s;
    host->made = 0;
  }
  __sync_fetch_and_add(&host->made, 1);
  *external = port;
  return 0;
}

/* --- flows --- */

static __always_inline sp_u64 hash_of(const struct sp_config *cfg, const struct sp_flow_key *key) {
  return siphash_of(cfg->flow_secret[0], cfg->flow_secret[1], (sp_u64)key->host << 32 | key->peer,
                    (sp_u64)key->host_port << 32 | (sp_u64)key->peer_port << 16 | (sp_u64)key->protocol << 8 |
                        key->permission);
}
static __always_inline bool same_key(const struct sp_flow_key *a, const struct sp_flow_key *b) {
  const sp_u64 *x = (const sp_u64 *)a, *y = (const sp_u64 *)b;
  return x[0] == y[0] && x[1] == y[1];
}

/* The place of a flow in the table plus 1; 0: it is not there. */
PROGRAM sp_u32 place_of(struct sp_flow_key *key) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !key) return 0;
  const sp_u64 hash = hash_of(cfg, key);
  for (sp_u32 turn = 0; turn < SP_PLACES; ++turn) {
    if (turn == SP_NEAR_WAYS && !cfg->far_used[0]) turn = SP_SECOND;
    if (turn == SP_SECOND && !cfg->far_used[1]) return 0;
    const sp_u32 at = sp_flow_place(hash, turn, cfg->flow_buckets);
    const struct sp_flow_entry *entry = bpf_map_lookup_elem(&flows, &at);
    if (!entry) return 0;
    if (entry->tag == sp_flow_tag(hash) && same_key(&entry->key, key)) return at + 1;
    if (entry->tag == SP_TAG_NEVER) turn = sp_flow_last_turn(turn);
  }
  return 0;
}

static __always_inline struct sp_flow_entry *entry_at(sp_u32 place) {
  const sp_u32 at = place - 1;
  return place ? bpf_map_lookup_elem(&flows, &at) : NULL;
}
static __always_inline struct sp_flow *flow_at(struct sp_flow_key *key) {
  return (struct sp_flow *)entry_at(place_of(key));
}

/* Puts a flow into the table; 0: done. */
PROGRAM int put_flow(struct sp_flow_key *key, struct sp_flow *flow, sp_u32 now_s) {
  struct sp_config *cfg = configuration();
  if (!cfg || !key || !flow) return 1;
  const sp_u64 hash = hash_of(cfg, key);
  for (sp_u32 turn = 0; turn < SP_PLACES; ++turn) {
    /* Said before anything is there. */
    if (turn == SP_NEAR_WAYS && cfg->far_used[0] != SP_FAR_USED) cfg->far_used[0] = SP_FAR_USED;
    if (turn == SP_SECOND && cfg->far_used[1] != SP_FAR_USED) cfg->far_used[1] = SP_FAR_USED;
    const sp_u32 at = sp_flow_place(hash, turn, cfg->flow_buckets);
    struct sp_flow_entry *entry = bpf_map_lookup_elem(&flows, &at);
    if (!entry) return 1;
    /* Twice: the sweep may have made SP_TAG_NEVER of SP_TAG_GONE, and nothing may lie behind that. */
    for (sp_u32 tries = 0; tries < 2; ++tries) {
      const sp_u32 seen = *(volatile sp_u32 *)&entry->tag;
      if (seen == SP_TAG_BUSY ||
          (seen >= SP_TAG_FIRST && (now_s < entry->flow.deadline_s || now_s - entry->flow.deadline_s < SP_FLOW_GRACE)))
        break;
      if (__sync_val_compare_and_swap(&entry->tag, seen, (sp_u32)SP_TAG_BUSY) != seen) continue;
      entry->key = *key;
      entry->flow = *flow;
      __sync_lock_test_and_set(&entry->tag, sp_flow_tag(hash));
      return 0;
    }
  }
  return 1;
}

/* Takes a flow out of the table; 0: it was there. */
static __always_inline int take_flow(struct sp_flow_key *key) {
  struct sp_flow_entry *entry = entry_at(place_of(key));
  if (!entry) return 1;
  const sp_u32 seen = *(volatile sp_u32 *)&entry->tag;
  return seen < SP_TAG_FIRST || __sync_val_compare_and_swap(&entry->tag, seen, (sp_u32)SP_TAG_GONE) != seen;
}

static __always_inline void permit(const struct sp_flow_key *key, sp_u32 deadline_s, sp_u32 now_s) {
  struct sp_flow_key permission = *key;
  permission.peer_port = 0;
  permission.permission = 1;
  struct sp_flow *found = flow_at(&permission);
  if (found) {
    if (found->deadline_s < deadline_s) found->deadline_s = deadline_s;
    return;
  }
  struct sp_flow fresh = {.deadline_s = deadline_s};
  put_flow(&permission, &fresh, now_s);
}

/* Whether the endpoint sent to that address and may hear from it (ADF). */
static __always_inline bool outbound_allows(const struct sp_config *cfg, const struct sp_flow_key *key,
                                            const struct work *w) {
  if (cfg->filtering == SP_FILTER_ENDPOINT) return true;
  if (cfg->filtering != SP_FILTER_ADDRESS) return false;
  struct sp_flow_key permission = *key;
  permission.peer_port = 0;
  permission.permission = 1;
  const struct sp_flow *found = flow_at(&permission);
  return found && !sp_is_over(found->deadline_s, w->now_s);
}

struct filter_walk {
  sp_u32 lease, peer;
  sp_u32 port;
  sp_u32 allowed;
};

static long look_at_filters(sp_u32 index, struct filter_walk *walk) {
  const struct sp_filter_key key = {.lease = walk->lease, .part = index};
  const struct sp_filters *some = bpf_map_lookup_elem(&filters, &key);
  if (!some) return 1;
  for (sp_u32 i = 0; i < SP_FILTERS_AN_ENTRY; ++i) {
    const bool fits = i < some->count && (walk->peer & some->mask[i]) == some->address[i] &&
                      (some->port[i] == 0 || some->port[i] == walk->port);
    if (fits) walk->allowed = 1;
  }
  return walk->allowed || some->count <= SP_FILTERS_AN_ENTRY;
}

PROGRAM int filters_allow(sp_u32 lease, sp_u32 peer, sp_u16 port) {
  struct filter_walk walk = {.lease = lease, .peer = peer, .port = port};
  bpf_loop(SP_FILTER_ENTRIES, look_at_filters, &walk, 0);
  return walk.allowed;
}

/* A deadline moved: its slot, and the permission, live as long. Once a second at most. */
PROGRAM int keep_alive(struct sp_flow_key *key, struct sp_flow *flow, sp_u8 part, sp_u8 address, sp_u32 now_s) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !key || !flow || part >= SP_PARTS) return 0;
  struct sp_slot *slot = slot_of(address, part, flow->external);
  if (!slot || slot->generation != flow->generation) return 0;
  const sp_u32 deadline_s = flow->deadline_s;
  const bool implicit = slot->kind == SP_IMPLICIT || slot->kind == SP_DRAINING;
  if (implicit && slot->deadline_s < deadline_s) slot->deadline_s = deadline_s;
  if (part == SP_ICMP || cfg->filtering != SP_FILTER_ADDRESS || !(flow->flags & SP_FLOW_ANSWERED)) return 0;
  if (!implicit) {
    const struct sp_lease *lease = is_lease(slot) ? lease_of(slot) : NULL;
    if (!lease || !(lease->flags & SP_LEASE_OUTBOUND)) return 0;
  }
  permit(key, deadline_s, now_s);
  return 0;
}

/* Follows a segment, or refreshes by a datagram. */
static __always_inline int carry(const struct sp_config *cfg, struct sp_flow *flow, struct work *w, bool inside,
                                 bool *confirms, bool *moved) {
  const sp_u32 before = flow->deadline_s;
  *confirms = false;
  *moved = false;
  if (w->protocol == IPPROTO_TCP) {
    w->segment.inside = inside;
    const bool unconfirmed = (flow->flags & SP_FLOW_INBOUND) && !(flow->flags & SP_FLOW_CONFIRMED);
    const sp_u32 result = sp_tcp_carry(&flow->tcp, &w->segment, unconfirmed);
    if (result == SP_CARRY_DROP) return SP_DROP_out_of_window;
    if (result & SP_CARRY_CONFIRMS) {
      flow->flags |= SP_FLOW_CONFIRMED;
      *confirms = true;
    }
    sp_u32 lifetime = 0;
    if (result & SP_CARRY_HALF_OPEN)
      lifetime = cfg->tcp_half_open;
    else if (result & SP_CARRY_TRANSITORY)
      lifetime = cfg->tcp_transitory;
    else if (result & SP_CARRY_BY_STATE)
      lifetime = unconfirmed && !*confirms ? cfg->tcp_transitory
                                           : sp_tcp_timeout(flow->tcp.state, cfg->tcp_established, cfg->tcp_transitory);
    if (lifetime) flow->deadline_s = sp_deadline(w->now_s, lifetime);
  } else if (inside || !(flow->flags & SP_FLOW_INBOUND)) {
    /* Outbound always refreshes; inbound only what was opened from inside (NAT-X-08). */
    flow->deadline_s = sp_deadline(w->now_s, w->part == SP_ICMP ? cfg->icmp_query : cfg->udp_idle);
  }
  *moved = flow->deadline_s > before;
  return 0;
}

static __always_inline void start(const struct sp_config *cfg, struct sp_flow *flow, struct work *w, bool inside) {
  if (w->protocol == IPPROTO_TCP) {
    w->segment.inside = inside;
    sp_tcp_start(&flow->tcp, &w->segment);
    flow->deadline_s = sp_deadline(w->now_s, cfg->tcp_half_open);
  } else {
    flow->deadline_s = sp_deadline(w->now_s, w->part == SP_ICMP ? cfg->icmp_query : cfg->udp_idle);
  }
}

static __always_inline void set_epoch(struct sp_flow *flow, const struct sp_config *cfg) {
  flow->tcp.spare = (sp_u16)cfg->epoch;
}

static __always_inline void flows_changed(int by) {
  struct sp_state *st = programs_state();
  if (st) __sync_fetch_and_add(&st->flows, by);
}

enum standing { STANDS, ENDED, GONE };

/* Whether a flow's slot is still its own. */
static __always_inline enum standing stands(const struct sp_config *cfg, const struct sp_flow_key *key,
                                            struct sp_flow *flow, const struct work *w) {
  if (sp_is_over(flow->deadline_s, w->now_s)) return GONE;
  if (flow->tcp.spare == (sp_u16)cfg->epoch && !(flow->flags & SP_FLOW_OF_EXPLICIT)) return STANDS;
  const struct sp_slot *slot = slot_of(w->address, w->part, flow->external);
  if (!slot || !is_of(slot, key->host, key->host_port)) return GONE;
  if (slot->generation == flow->generation) {
    if (!in_force(slot, w)) return is_lease(slot) ? ENDED : GONE;
    const bool explicit = is_lease(slot);
    if (explicit != !!(flow->flags & SP_FLOW_OF_EXPLICIT)) flow->flags ^= SP_FLOW_OF_EXPLICIT;
    set_epoch(flow, cfg);
    return STANDS;
  }
  const bool ended = (slot->generation - flow->generation) % SP_ANEW;
  if (slot->kind == SP_QUARANTINE) return sp_is_over(slot->deadline_s, w->now_s) ? GONE : ENDED;
  return ended && in_force(slot, w) && is_lease(slot) ? ENDED : GONE;
}

static __always_inline void count_lease(struct sp_lease *lease, const struct work *w, bool in) {
  __sync_fetch_and_add(in ? &lease->packets_in : &lease->packets_out, 1);
  __sync_fetch_and_add(in ? &lease->bytes_in : &lease->bytes_out, w->total);
  lease->last_packet_ns = w->now_ns;
}

/* Makes a flow. */
PROGRAM int new_flow(struct sp_flow_key *key, struct sp_flow *fresh, sp_u32 now_s) {
  const struct sp_config *cfg = configuration();
  if (!cfg || !key || !fresh) return SP_DROP_table_full;
  struct sp_host *host = host_of(key->host, true);
  const bool counted = is_counted(cfg, now_s);
  if (counted && cfg->flows_per_device && host && host->flows >= cfg->flows_per_device) return SP_DROP_flow_limit;
  struct sp_state *st = programs_state();
  if (!st) return SP_DROP_table_full;
  if ((counted && cfg->flows_total && st->flows >= cfg->flows_total) || put_flow(key, fresh, now_s)) {
    st->shortage_flows = 1;
    return SP_DROP_table_full;
  }
  __sync_fetch_and_add(&st->flows, 1);
  if (host) __sync_fetch_and_add(&host->flows, 1);
  return 0;
}

PROGRAM int drop_flow(struct sp_flow_key *key) {
  if (!key) return 0;
  if (take_flow(key)) {
    bpf_map_delete_elem(&embryos, key);
    return 0;
  }
  flows_changed(-1);
  struct sp_host *host = host_of(key->host, false);
  if (host && host->flows) __sync_fetch_and_add(&host->flows, -1);
  return 0;
}

/* What an outsider began has shown to be real. */
static __always_inline void promote(struct sp_flow_key *key, struct sp_flow *embryo, sp_u32 now_s) {
  if (!new_flow(key, embryo, now_s)) bpf_map_delete_elem(&embryos, key);
}

/* While there are none nobody looks for them. */
static __always_inline void keep_embryos(struct sp_config *cfg, const struct sp_flow *embryo) {
  if (cfg->embryos_until_s < embryo->deadline_s) cfg->embryos_until_s = embryo->deadline_s;
}

static __always_inline struct sp_flow *find_flow(const struct sp_config *cfg, struct sp_flow_key *key, sp_u32 now_s,
                                                 bool *embryo) {
  struct sp_flow *flow = flow_at(key);
  *embryo = false;
  if (flow || key->protocol == IPPROTO_ICMP || now_s >= cfg->embryos_until_s) return flow;
  flow = bpf_map_lookup_elem(&embryos, key);
  *embryo = flow != NULL;
  return flow;
}

/* --- outbound --- */

/* What of a packet without a flow is still to be judged. */
enum { TO_OUTSIDE, AROUND, KNOWN };

/* The external port that a packet of the source wears from now on. */
PROGRAM int outbound(struct __sk_buff *skb, struct work *w, sp_u32 *wears, sp_u32 way) {
  struct sp_config *cfg = configuration();
  if (!cfg || !w || !wears || w->part >= SP_PARTS) return SP_DROP_no_mapping;
  struct sp_flow_key key = {.host = w->source,
                            .peer = w->destination,
                            .host_port = w->sport,
                            .peer_port = w->part == SP_ICMP ? 0 : w->dport,
                            .protocol = w->protocol};
  const bool syn = w->part == SP_TCP && sp_plain_syn(w->segment.flags);
  bool embryo;
  struct sp_flow *flow = find_flow(cfg, &key, w->now_s, &embryo);
  struct sp_lease *lease = NULL;
  if (flow) {
    const enum standing standing = stands(cfg, &key, flow, w);
    if (standing == ENDED && !syn) {
      if (w->part == SP_TCP && !(w->segment.flags & SP_RST)) return SLOW(SP_SLOW_ENDED, 0, SP_DROP_ended);
      return SP_DROP_ended;
    }
    if (standing != STANDS) {
      drop_flow(&key);
      flow = NULL;
    }
  }
  if (flow) {
    bool confirms, moved;
    const int verdict = carry(cfg, flow, w, true, &confirms, &moved);
    if (verdict) return verdict;
    if (embryo) keep_embryos(cfg, flow);
    const sp_u16 external = flow->external;
    const bool explicit = flow->flags & SP_FLOW_OF_EXPLICIT;
    if (!(flow->flags & SP_FLOW_ANSWERED)) {
      flow->flags |= SP_FLOW_ANSWERED;
      moved = true;
      if (embryo && w->part == SP_UDP) promote(&key, flow, w->now_s);
    }
    if (moved) keep_alive(&key, flow, w->part, w->address, w->now_s);
    if (explicit) {
      const struct sp_slot *slot = slot_of(w->address, w->part, external);
      if (slot && is_lease(slot)) lease = lease_of(slot);
      if (lease) count_lease(lease, w, false);
    }
    *wears = external;
    return 0;
  }

  /* A flow stands for every check that its first packet passed. */
  if (way != KNOWN && !is_lan_host(w->source)) return SP_DROP_spoofed_source;
  if (way == TO_OUTSIDE) {
    if (is_special(w->destination)) return SP_DROP_martian_destination;
    const sp_u32 there = networks_of(w->destination);
    if (there & SP_NET_LAN) return SP_DROP_martian_destination;
    if (there & SP_NET_UNTRANSLATED) return UNTRANSLATED;
    if (!cfg->has_external) return SP_DROP_no_external_address;
  }
  int verdict = mapping_of(w, wears);
  if (verdict) return verdict;
  struct sp_slot *slot = NULL;
  if (*wears) {
    slot = slot_of(w->address, w->part, (sp_u16)*wears);
    if (slot && is_lease(slot)) lease = lease_of(slot);
  }
  const bool untracked = w->part == SP_TCP && !syn;
  if (untracked && (!lease || lease->untracked_until_s <= w->now_s)) return SP_DROP_no_session;
  if (!*wears) {
    const struct sp_state *st = programs_state();
    if (is_counted(cfg, w->now_s) && cfg->flows_total && st && st->flows >= cfg->flows_total)
      verdict = SP_DROP_table_full;
    else
      verdict = make_implicit(skb, w, wears);
    if (verdict == SP_DROP_no_ports) {
      struct sp_state *st = programs_state();
      if (st) st->shortage_ports = 1;
      return SLOW(SP_SLOW_POOL, 1, SP_DROP_no_ports);
    }
    if (verdict == SP_DROP_table_full) return SLOW(SP_SLOW_REFUSE, 1, verdict);
    if (verdict) return SLOW(SP_SLOW_REFUSE, 13, verdict);
  }
  slot = slot_of(w->address, w->part, (sp_u16)*wears);
  if (!slot) return SP_DROP_table_full;
  if (!untracked) {
    struct sp_flow fresh = {.external = (sp_u16)*wears, .generation = slot->generation};
    fresh.flags = SP_FLOW_ANSWERED | (lease ? SP_FLOW_OF_EXPLICIT : 0);
    start(cfg, &fresh, w, true);
    set_epoch(&fresh, cfg);
    verdict = new_flow(&key, &fresh, w->now_s);
    if (!verdict) {
      keep_alive(&key, &fresh, w->part, w->address, w->now_s);
    } else if (lease && (verdict == SP_DROP_table_full || w->part == SP_UDP)) {
      /* A lease without filters works even without a free entry (POL-NET-14), and what its host answered to a flood of
       * UDP leaves it its real peers, though it is at its own limit. */
      if (w->part == SP_TCP) lease->untracked_until_s = sp_deadline(w->now_s, cfg->tcp_established);
    } else {
      return SLOW(SP_SLOW_REFUSE, verdict == SP_DROP_flow_limit ? 13 : 1, verdict);
    }
  }
  if (lease) count_lease(lease, w, false);
  return 0;
}

/* --- inbound --- */

/* To the gateway's own services where they listen, never to its control ports; else silence (POL-NET-04). */
static __always_inline int unmapped(struct __sk_buff *skb, const struct sp_config *cfg, const struct work *w) {
  if (is_martian(w->source)) return SP_DROP_martian_source;
  if (is_elsewhere(cfg, w->address)) return SP_DROP_no_mapping;
  const bool control = w->part == SP_UDP && (w->dport == 1900 || w->dport == 5350 || w->dport == 5351);
  if (!control && has_ports(w) &&
      has_socket(skb, w->protocol, w->source, w->destination, (sp_u32)w->sport << 16 | w->dport))
    return LOCAL;
  return SP_DROP_no_mapping;
}

struct target {
  sp_u32 host;
  sp_u16 port;
  sp_u16 zero;
};

/* The host and port that a packet to the external address is for. */
PROGRAM int inbound(struct __sk_buff *skb, struct work *w, struct target *to, sp_u32 hairpin) {
  struct sp_config *cfg = configuration();
  if (!cfg || !w || !to || w->part >= SP_PARTS) return SP_DROP_no_mapping;
  const sp_u16 external = w->dport;
  struct sp_slot *slot = slot_of(w->address, w->part, external);
  if (!slot) return SP_DROP_no_mapping;
  const bool syn = w->part == SP_TCP && sp_plain_syn(w->segment.flags);
  struct sp_flow_key key = {.host = slot->host,
                            .peer = w->source,
                            .host_port = slot->port,
                            .peer_port = w->part == SP_ICMP ? 0 : w->sport,
                            .protocol = w->protocol};
  bool embryo = false;
  if (!in_force(slot, w)) {
    if (hairpin) return SP_DROP_no_mapping;
    const bool rests = slot->kind == SP_QUARANTINE && !sp_is_over(slot->deadline_s, w->now_s);
    if ((rests || is_lease(slot)) && w->part == SP_TCP && !syn) {
      const struct sp_flow *ended = find_flow(cfg, &key, w->now_s, &embryo);
      if (ended && ended->external == external && !sp_is_over(ended->deadline_s, w->now_s)) {
        if (w->segment.flags & SP_RST) return SP_DROP_ended;
        return SLOW(SP_SLOW_ENDED, 0, SP_DROP_ended);
      }
    }
    return unmapped(skb, cfg, w);
  }

  struct sp_flow *flow = find_flow(cfg, &key, w->now_s, &embryo);
  enum standing standing = flow ? stands(cfg, &key, flow, w) : GONE;
  if (flow && standing == GONE) {
    drop_flow(&key);
    flow = NULL;
  }
  if (!flow && !hairpin && is_martian(w->source)) return SP_DROP_martian_source;

  struct sp_lease *lease = is_lease(slot) ? lease_of(slot) : NULL;
  if (lease) {
    if (lease->flags & SP_LEASE_DISABLED) return SP_DROP_disabled;
    /* Filters are for who comes from outside; what answers the host has been asked (PCP-13.3-11). */
    const bool answers = flow && standing == STANDS && !(flow->flags & SP_FLOW_INBOUND);
    if ((lease->flags & SP_LEASE_FILTERED) && !answers && !filters_allow(slot->aux, w->source, w->sport) &&
        !((lease->flags & SP_LEASE_OUTBOUND) && outbound_allows(cfg, &key, w)))
      return SP_DROP_filtered;
  }
  if (flow && standing == ENDED) {
    /* The endpoint holds another port now: what comes for its ended flow by that one is new. */
    if (w->part == SP_TCP && !syn) {
      if (w->segment.flags & SP_RST) return SP_DROP_ended;
      return SLOW(SP_SLOW_ENDED, 0, SP_DROP_ended);
    }
    drop_flow(&key);
    flow = NULL;
  }
  if (flow && flow->external != external) {
    /* Two external ports of one endpoint: the answer wears the one that the peer sent to last. */
    if (w->part == SP_TCP &&
        (!syn || (flow->tcp.state != SP_TCP_BOTH_FIN && flow->tcp.state != SP_TCP_TRANS)))
      return SP_DROP_no_session;
    flow->external = external;
    flow->generation = slot->generation;
    if (lease) flow->flags |= SP_FLOW_OF_EXPLICIT;
    set_epoch(flow, cfg);
  }

  if (flow) {
    bool confirms, moved;
    const int verdict = carry(cfg, flow, w, false, &confirms, &moved);
    if (verdict) return verdict;
    if (embryo) keep_embryos(cfg, flow);
    if (moved && (!(flow->flags & SP_FLOW_INBOUND) || w->part == SP_TCP)) keep_alive(&key, flow, w->part, w->address, w->now_s);
    if (embryo && confirms) promote(&key, flow, w->now_s);
  } else {
    bool track = false;
    if (lease) {
      if (w->part == SP_TCP) {
        track = syn;
        if (!syn && lease->untracked_until_s <= w->now_s) return SP_DROP_no_session;
      } else {
        track = lease->flags & SP_LEASE_SECOND_PORT;
      }
    } else if (slot->kind == SP_DRAINING || w->part == SP_ICMP) {
      return w->part == SP_ICMP ? SP_DROP_no_session : SP_DROP_filtered;
    } else {
      /* The router may have had a flow there before the host took the port. */
      if (!hairpin && !is_elsewhere(cfg, w->address) &&
          has_socket(skb, w->protocol, w->source, w->destination, (sp_u32)w->sport << 16 | w->dport))
        return LOCAL;
      if (!outbound_allows(cfg, &key, w)) return SP_DROP_filtered;
      if (w->part == SP_TCP && !syn) return SP_DROP_no_session;
      track = w->part == SP_TCP;
    }
    if (track) {
      struct sp_flow fresh = {.external = external, .generation = slot->generation};
      fresh.flags = SP_FLOW_INBOUND | (lease ? SP_FLOW_OF_EXPLICIT : 0);
      start(cfg, &fresh, w, false);
      set_epoch(&fresh, cfg);
      keep_embryos(cfg, &fresh);
      if (bpf_map_update_elem(&embryos, &key, &fresh, BPF_ANY)) {
        if (!lease || (lease->flags & SP_LEASE_FILTERED)) return SP_DROP_table_full;
        if (w->part == SP_TCP) lease->untracked_until_s = sp_deadline(w->now_s, cfg->tcp_established);
      } else if (!lease) {
        keep_alive(&key, &fresh, w->part, w->address, w->now_s);
      }
    }
  }
  if (lease) count_lease(lease, w, true);
  to->host = slot->host;
  to->port = slot->port;
  return 0;
}

/* --- fragments: the slow path puts them in order; here they follow their first one --- */

static __always_inline struct sp_fragment_key fragment_key_of(const struct work *w, sp_u8 side) {
  return (struct sp_fragment_key){
      .source = w->source, .destination = w->destination, .id = w->id, .protocol = w->protocol, .side = side};
}

static __always_inline int follow_fragment(struct __sk_buff *skb, const struct sp_config *cfg, struct work *w,
                                           sp_u8 side) {
  const struct sp_fragment_key key = fragment_key_of(w, side);
  const struct sp_fragment *fate = bpf_map_lookup_elem(&fragments, &key);
  if (!fate || sp_is_over(fate->deadline_s, w->now_s)) return SP_DROP_fragment_of_dropped;
  const sp_u32 source = fate->source, destination = fate->destination, host = fate->id_of;
  if (source == w->source && destination == w->destination) return LOCAL;
  w->l4 = w->l3 + w->header_length;
  if (destination != w->destination) {
    const int verdict = rewrite(skb, w, cfg, DESTINATION, destination, 0, source == w->source ? host : 0, 0);
    if (verdict || source == w->source) return verdict;
  }
  return rewrite(skb, w, cfg, SOURCE, source, 0, host, 0);
}

/* Notes what became of a first fragment, which had `key` before. */
static __always_inline void note_fragment(const struct sp_config *cfg, const struct work *w,
                                          const struct sp_fragment_key *key) {
  const struct sp_fragment fate = {.source = w->source,
                                   .destination = w->destination,
                                   .id_of = w->id != key->id ? key->source : 0,
                                   .deadline_s = sp_deadline(w->now_s, cfg->fragment_timeout)};
  bpf_map_update_elem(&fragments, key, &fate, BPF_ANY);
}

/* --- the ends of a packet's way --- */

static __always_inline int dropped(int reason) {
  count(reason & 0xff);
  return TC_ACT_SHOT;
}

/* Counts to `most` within each second. */
static __always_inline bool is_beyond(sp_u32 *second, sp_u32 *number, sp_u32 now_s, sp_u32 most) {
  if (*second != now_s) {
    *second = now_s;
    *number = 0;
  }
  return __sync_fetch_and_add(number, 1) >= most;
}

/* Hands a packet to the plane, or drops it: one that comes from there, and one too many. */
PROGRAM int to_slow_path(struct __sk_buff *skb, sp_u32 l3, sp_u32 side, sp_u32 verdict) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  const sp_u8 reason = verdict >> 16, what = (sp_u8)verdict;
  if (reason && what != SP_SLOW_POOL) count(reason);
  if (skb->mark == SP_MARK_RETRY || skb->mark == SP_MARK_FINISHED) {
    if (what == SP_SLOW_POOL) count(reason);
    return TC_ACT_SHOT;
  }
  struct sp_state *st = programs_state();
  if (!st) return TC_ACT_SHOT;
  const sp_u32 now_s = (sp_u32)(now_of(cfg) / NS_PER_S);
  /* What is only answered is answered 200 times a second. */
  if ((what == SP_SLOW_ENDED || what == SP_SLOW_REFUSE) && is_beyond(&st->slow_s, &st->slow, now_s, 200))
    return TC_ACT_SHOT;
  /* A flood of them from outside leaves the TAP to others, IPv6 among them. */
  if ((what == SP_SLOW_ICMP_ERROR || what == SP_SLOW_FRAGMENT) && side == SP_FROM_WAN &&
      is_beyond(&st->strange_s, &st->strange, now_s, 40000))
    return dropped(what == SP_SLOW_FRAGMENT ? SP_DROP_fragment_limit : SP_DROP_icmp_fits_nothing);
  if (l3 == 0) {
    if (bpf_skb_change_head(skb, ETH_HLEN, 0)) return TC_ACT_SHOT;
    const sp_u16 type = skb->protocol;
    bpf_skb_store_bytes(skb, 12, &type, 2, 0);
  }
  const struct sp_tag tag = {.tag0 = SP_TAG_0,
                             .tag1 = SP_TAG_1,
                             .side = (sp_u8)side,
                             .what = what,
                             .code = (sp_u8)(verdict >> 8),
                             .reason = reason};
  bpf_skb_store_bytes(skb, ETH_ALEN, &tag, sizeof tag, 0);
  return bpf_redirect(cfg->tap, 0);
}

static __always_inline bool is_lan_interface(const struct sp_config *cfg, sp_u32 index) {
  for (sp_u32 i = 0; i < SP_MOST_LANS; ++i) {
    if (i >= cfg->lan_count) return false;
    if (cfg->lan[i] == index) return true;
  }
  return false;
}

/* --- past the stack, when the administrator wants it --- */

/* The way that the stack would take, written into the frame's link layer: the interface, or 0 where the stack is
 * needed: no route, no neighbour yet, too large, another kind of link. Asked of the stack once in one or two seconds. */
PROGRAM sp_u32 find_way(struct __sk_buff *skb, sp_u32 source, sp_u32 destination, sp_u32 length, sp_u32 now_s) {
  const sp_u32 in_by = skb->ingress_ifindex ? skb->ingress_ifindex : skb->ifindex;
  const sp_u32 at = (destination ^ destination >> 10 ^ destination >> 20) % SP_WAYS_KNOWN;
  struct sp_way *way = bpf_map_lookup_elem(&ways, &at);
  if (!way) return 0;
  if (way->destination != destination || way->in_by != in_by || now_s - way->found_s > 1) {
    struct bpf_fib_lookup fib = {};
    fib.family = 2; /* AF_INET */
    fib.ifindex = in_by;
    fib.ipv4_src = bpf_htonl(source);
    fib.ipv4_dst = bpf_htonl(destination);
    fib.tot_len = 1; /* asks for the MTU */
    way->destination = 0;
    if (bpf_fib_lookup(skb, &fib, sizeof fib, 0) != BPF_FIB_LKUP_RET_SUCCESS) return 0;
    __builtin_memcpy(way->to, fib.dmac, ETH_ALEN);
    __builtin_memcpy(way->from, fib.smac, ETH_ALEN);
    way->interface = fib.ifindex;
    way->mtu = fib.mtu_result;
    way->in_by = in_by;
    way->found_s = now_s;
    way->destination = destination;
  }
  if (skb->gso_size) {
    sp_u32 mtu = 0;
    if (bpf_check_mtu(skb, way->interface, &mtu, 0, BPF_MTU_CHK_SEGS)) return 0;
  } else if (length > way->mtu) {
    return 0;
  }
  bpf_skb_store_bytes(skb, 0, way->to, sizeof way->to + sizeof way->from, 0);
  return way->interface;
}

/* --- WAN egress --- */

static __always_inline int from_router(struct __sk_buff *skb, const struct sp_config *cfg, struct work *w) {
  /* Its address in a LAN is an internal one too, whoever bound a socket to it. */
  const sp_u32 there = networks_of(w->destination);
  if (there & SP_NET_INSIDE) return SP_DROP_martian_destination;
  if ((networks_of(w->source) & SP_NET_INSIDE) && !(there & SP_NET_UNTRANSLATED) &&
      find_external(cfg, w->source) == SP_NOBODY)
    return SP_DROP_spoofed_source;
  if (has_ports(w) && !w->offset) keep_for_router(cfg, w);
  if (w->protocol != IPPROTO_ICMP || !cfg->has_external || is_fragment(w)) return UNTRANSLATED;
  if (is_error(w->icmp_type)) return SLOW(SP_SLOW_ICMP_ERROR, 0, 0);
  /* Its own pings share the identifiers with the hosts'. */
  const sp_u32 own = find_external(cfg, w->source);
  if (own == SP_NOBODY || w->icmp_type != 8) return UNTRANSLATED;
  w->address = (sp_u8)own;
  sp_u32 wears;
  const int verdict = outbound(skb, w, &wears, KNOWN);
  if (verdict) return verdict;
  return rewrite(skb, w, cfg, SOURCE, w->source, (sp_u16)wears, 0, 0);
}

static __always_inline int leave(struct __sk_buff *skb, const struct sp_config *cfg, struct work *w, sp_u32 side) {
  if (side == SP_FROM_ROUTER) return from_router(skb, cfg, w);
  if (is_fragment(w)) {
    if (!is_lan_host(w->source)) return SP_DROP_spoofed_source;
    if (networks_of(w->destination) & SP_NET_UNTRANSLATED) return UNTRANSLATED;
    if (skb->mark != SP_MARK_RETRY) return SLOW(SP_SLOW_FRAGMENT, 0, 0);
    if (w->offset) return follow_fragment(skb, cfg, w, SP_FROM_LAN);
  } else if (!has_ports(w)) {
    if (!is_lan_host(w->source)) return SP_DROP_spoofed_source;
  }
  const sp_u32 host = w->source;
  w->address = address_of(cfg, host);
  sp_u32 wears;
  if (has_ports(w)) {
    const int verdict = outbound(skb, w, &wears, TO_OUTSIDE);
    if (verdict) return verdict;
    return rewrite(skb, w, cfg, SOURCE, external_of(cfg, w), (sp_u16)wears, host, 0);
  }
  if (is_special(w->destination)) return SP_DROP_martian_destination;
  const sp_u32 there = networks_of(w->destination);
  if (there & SP_NET_LAN) return SP_DROP_martian_destination;
  if (there & SP_NET_UNTRANSLATED) return UNTRANSLATED;
  if (!cfg->has_external) return SP_DROP_no_external_address;
  if (w->protocol != IPPROTO_ICMP) return SLOW(SP_SLOW_REFUSE, 2, SP_DROP_unknown_protocol);
  if (is_error(w->icmp_type)) return SLOW(SP_SLOW_ICMP_ERROR, 0, 0);
  if (w->icmp_type != 8 && w->icmp_type != 13) return SP_DROP_unknown_icmp;
  const int verdict = outbound(skb, w, &wears, KNOWN);
  if (verdict) return verdict;
  return rewrite(skb, w, cfg, SOURCE, external_of(cfg, w), (sp_u16)wears, host, 0);
}

/* From an interface that is neither LAN nor the router itself. Of the addresses that are or were a LAN's nothing leaves
 * that way (POL-NET-01), nor to them: a LAN's route may be gone when what came in for it finds its way. */
PROGRAM int from_elsewhere(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    sp_u8 source[16];
    if (!cfg->ipv6 || bpf_skb_load_bytes(skb, wan_header(cfg) + 8, source, 16)) return TC_ACT_UNSPEC;
    return networks6_of(source) & SP_NET_INSIDE ? dropped(SP_DROP_spoofed_source) : TC_ACT_UNSPEC;
  }
  struct {
    sp_u8 source[4], destination[4];
  } ip;
  if (bpf_skb_load_bytes(skb, wan_header(cfg) + 12, &ip, sizeof ip)) return TC_ACT_UNSPEC;
  if (networks_of(be32(ip.source)) & SP_NET_INSIDE) return dropped(SP_DROP_spoofed_source);
  return networks_of(be32(ip.destination)) & SP_NET_INSIDE ? dropped(SP_DROP_martian_destination) : TC_ACT_UNSPEC;
}

SEC("tc")
int wan_egress(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  if (skb->mark == SP_MARK_FINISHED) {
    skb->mark = 0;
    return TC_ACT_UNSPEC;
  }
  const sp_u32 iif = cfg->test_iif ? cfg->test_iif : skb->ingress_ifindex;
  if (skb->protocol == bpf_htons(ETH_P_IPV6) && cfg->ipv6) {
    if (is_lan_interface(cfg, iif))
      return to_slow_path(skb, wan_header(cfg), SP_FROM_LAN, SLOW(SP_SLOW_IPV6, 0, 0));
    return iif != 0 && iif != 0xffffffff ? from_elsewhere(skb) : TC_ACT_UNSPEC;
  }
  if (skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_UNSPEC;
  sp_u32 side = SP_FROM_LAN;
  if (skb->mark != SP_MARK_RETRY && !is_lan_interface(cfg, iif)) {
    if (iif != 0 && iif != 0xffffffff) return from_elsewhere(skb);
    side = SP_FROM_ROUTER;
  }
  struct work w = {};
  tell_time(&w, cfg);
  int verdict = parse(skb, &w, wan_header(cfg), false);
  const struct sp_fragment_key before = fragment_key_of(&w, SP_FROM_LAN);
  if (!verdict) {
    read_scale(skb, &w);
    verdict = leave(skb, cfg, &w, side);
  } else if (side == SP_FROM_ROUTER) {
    return TC_ACT_UNSPEC;
  }
  if (verdict == UNTRANSLATED) return TC_ACT_UNSPEC;
  if (IS_SLOW(verdict)) return to_slow_path(skb, wan_header(cfg), side, verdict);
  if (verdict && verdict != LOCAL) return dropped(verdict);
  if (w.more_fragments && !w.offset && skb->mark == SP_MARK_RETRY) note_fragment(cfg, &w, &before);
  if (skb->mark == SP_MARK_RETRY) skb->mark = 0;
  count(SP_COUNT_PACKETS);
  return TC_ACT_UNSPEC;
}

/* --- WAN ingress --- */

static __always_inline int arrive(struct __sk_buff *skb, const struct sp_config *cfg, struct work *w) {
  const sp_u32 own = find_external(cfg, w->destination);
  if (!cfg->has_external || own == SP_NOBODY) {
    if (w->destination >> 24 >= 224) {
      /* For the router's services, if its source may be; 0.0.0.0 asks by DHCP or IGMP, and providers answer from
       * private addresses. */
      const bool spoofed = is_impossible(w->source) || find_external(cfg, w->source) != SP_NOBODY;
      return w->source && spoofed ? SP_DROP_martian_source : LOCAL;
    }
    if (is_special(w->destination)) return SP_DROP_martian_destination;
    const sp_u32 there = networks_of(w->destination);
    if (there & SP_NET_LAN) {
      /* Back from where packets pass untranslated; everybody else has no business with internal addresses. */
      const sp_u32 origin = networks_of(w->source);
      if ((origin & (SP_NET_UNTRANSLATED | SP_NET_LAN | SP_NET_GATEWAY)) == SP_NET_UNTRANSLATED &&
          !(there & (SP_NET_GATEWAY | SP_NET_END)))
        return LOCAL;
      return SP_DROP_internal_destination;
    }
    if (is_martian(w->source)) return SP_DROP_martian_source;
    /* The gateway's own, or for a network that it routes without us. */
    if (there & (SP_NET_GATEWAY | SP_NET_UNTRANSLATED)) return LOCAL;
    return cfg->has_external ? SP_DROP_not_ours : SP_DROP_no_external_address;
  }
  w->address = (sp_u8)own;
  /* LAND: a hairpin's flow has such an address as its peer, and must not vouch for it here (NSEC-03). */
  if (find_external(cfg, w->source) != SP_NOBODY) return SP_DROP_martian_source;
  if (is_fragment(w) && (has_ports(w) || w->protocol == IPPROTO_ICMP)) {
    if (is_martian(w->source)) return SP_DROP_martian_source;
    if (skb->mark != SP_MARK_RETRY) return SLOW(SP_SLOW_FRAGMENT, 0, 0);
    if (w->offset) return follow_fragment(skb, cfg, w, SP_FROM_WAN);
  }
  if (!has_ports(w)) {
    if (is_martian(w->source)) return SP_DROP_martian_source;
    if (w->protocol != IPPROTO_ICMP) /* the router's own: tunnels, ESP */
      return is_elsewhere(cfg, own) ? SP_DROP_unknown_protocol : LOCAL;
    if (is_error(w->icmp_type)) return SLOW(SP_SLOW_ICMP_ERROR, 0, 0);
    if (w->icmp_type == 8 && !cfg->answer_ping) return SP_DROP_ping_refused;
    if (w->icmp_type == 8) return is_elsewhere(cfg, own) ? SLOW(SP_SLOW_PING, 0, 0) : LOCAL;
    if (w->icmp_type != 0 && w->icmp_type != 14) return SP_DROP_unknown_icmp;
  }
  struct target to = {};
  const int verdict = inbound(skb, w, &to, false);
  if (verdict) return verdict;
  return rewrite(skb, w, cfg, DESTINATION, to.host, to.port, 0, 0);
}

/* What is for the LAN is the engine's to judge; what is for the router, its link or a VPN is the stack's. All else is
 * dropped: a prefix that came a moment ago, or while the plane is dead, is not open until it is known. */
static __always_inline int arrive6(struct __sk_buff *skb, const struct sp_config *cfg) {
  struct {
    sp_u8 source[16], destination[16];
  } ip;
  if (bpf_skb_load_bytes(skb, wan_header(cfg) + 8, &ip, sizeof ip)) return TC_ACT_SHOT;
  if (ip.destination[0] == 0xff || (ip.destination[0] == 0xfe && (ip.destination[1] & 0xc0) == 0x80))
    return TC_ACT_UNSPEC;
  const sp_u32 there = networks6_of(ip.destination), origin = networks6_of(ip.source);
  if (origin & (SP_NET_INSIDE | SP_NET_GATEWAY | SP_NET_ELSEWHERE)) return dropped(SP_DROP_martian_source);
  if (there & SP_NET_LAN) return to_slow_path(skb, wan_header(cfg), SP_FROM_WAN, SLOW(SP_SLOW_IPV6, 0, 0));
  return there && !(there & SP_NET_WAS_LAN) ? TC_ACT_UNSPEC : dropped(SP_DROP_not_ours);
}

SEC("tc")
int wan_ingress(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  /* The slow path addresses what comes by it to the first WAN. */
  if ((skb->mark == SP_MARK_FINISHED || skb->mark == SP_MARK_RETRY) && skb->pkt_type) bpf_skb_change_type(skb, 0);
  if (skb->mark == SP_MARK_FINISHED) {
    skb->mark = 0;
    return TC_ACT_UNSPEC;
  }
  if (skb->protocol == bpf_htons(ETH_P_IPV6) && cfg->ipv6) return arrive6(skb, cfg);
  if (skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_UNSPEC;
  struct work w = {};
  tell_time(&w, cfg);
  int verdict = parse(skb, &w, wan_header(cfg), true);
  const struct sp_fragment_key before = fragment_key_of(&w, SP_FROM_WAN);
  if (!verdict) {
    read_scale(skb, &w);
    verdict = arrive(skb, cfg, &w);
  }
  if (IS_SLOW(verdict)) return to_slow_path(skb, wan_header(cfg), SP_FROM_WAN, verdict);
  if (verdict && verdict != LOCAL) return dropped(verdict);
  if (w.more_fragments && !w.offset && skb->mark == SP_MARK_RETRY) note_fragment(cfg, &w, &before);
  if (skb->mark == SP_MARK_RETRY) skb->mark = 0;
  if (verdict != LOCAL) {
    count(SP_COUNT_PACKETS);
    if (cfg->redirect && cfg->wan_header && !is_fragment(&w) && w.ttl > 1) {
      const sp_u32 way = find_way(skb, w.source, w.destination, w.total, w.now_s);
      if (way && is_lan_interface(cfg, way)) {
        if (lower_ttl(skb)) return TC_ACT_SHOT;
        return bpf_redirect(way, 0);
      }
    }
  }
  return TC_ACT_UNSPEC;
}

/* --- LAN ingress: hairpins --- */

static __always_inline int turn(struct __sk_buff *skb, const struct sp_config *cfg, struct work *w) {
  const sp_u8 there = (sp_u8)find_external(cfg, w->destination);
  if (is_fragment(w)) {
    if (!has_ports(w)) return LOCAL;
    if (!is_lan_host(w->source)) return SP_DROP_spoofed_source;
    if (skb->mark != SP_MARK_RETRY) return SLOW(SP_SLOW_FRAGMENT, 0, 0);
    if (w->offset) return follow_fragment(skb, cfg, w, SP_HAIRPIN);
  }
  if (w->protocol == IPPROTO_ICMP) {
    if (!is_lan_host(w->source)) return SP_DROP_spoofed_source;
    if (is_error(w->icmp_type)) return SLOW(SP_SLOW_ICMP_ERROR, 0, 0);
    if (w->icmp_type == 8 && is_elsewhere(cfg, there)) return SLOW(SP_SLOW_PING, 0, 0);
    return w->icmp_type == 8 ? LOCAL : SP_DROP_unknown_icmp;
  }
  if (!has_ports(w)) return LOCAL;
  const struct sp_slot *slot = slot_of(there, w->part, w->dport);
  if (!slot) return SP_DROP_no_mapping;
  if (!in_force(slot, w) || find_external(cfg, slot->host) != SP_NOBODY) {
    if (!is_lan_host(w->source)) return SP_DROP_spoofed_source;
    return SP_DROP_no_mapping;
  }
  if (is_of(slot, w->source, w->sport)) return SP_DROP_hairpin_to_itself;
  if (w->ttl <= 1) return SP_DROP_ttl_expired;
  const sp_u32 host = w->source;
  sp_u32 wears;
  w->address = address_of(cfg, host);
  int verdict = outbound(skb, w, &wears, AROUND);
  if (verdict) return verdict;
  verdict = rewrite(skb, w, cfg, SOURCE, external_of(cfg, w), (sp_u16)wears, host, 0);
  if (verdict) return verdict;
  w->address = there;
  struct target to = {};
  verdict = inbound(skb, w, &to, true);
  if (verdict) return verdict;
  return rewrite(skb, w, cfg, DESTINATION, to.host, to.port, 0, 1);
}

/* Out by the interface that leads to a LAN host, past the stack: it would take the source for its own. Not by another
 * one, should the LAN's route be gone. */
PROGRAM int to_lan(struct __sk_buff *skb, sp_u32 iif, sp_u32 destination) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  struct bpf_fib_lookup fib = {};
  fib.family = 2; /* AF_INET */
  fib.ifindex = iif;
  fib.ipv4_src = 0;
  fib.ipv4_dst = bpf_htonl(destination);
  const long found = bpf_fib_lookup(skb, &fib, sizeof fib, BPF_FIB_LOOKUP_DIRECT);
  if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) return TC_ACT_SHOT;
  if (!is_lan_interface(cfg, fib.ifindex)) return TC_ACT_SHOT;
  return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
}

/* A packet to the outside: translated here and sent out by the WAN, or left to the stack and the WAN's own program. */
static __always_inline int leave_at_once(struct __sk_buff *skb, const struct sp_config *cfg) {
  struct work w = {};
  tell_time(&w, cfg);
  /* What is rare, or wrong, or new goes the long way, where all of it is judged. */
  if (parse(skb, &w, ETH_HLEN, true) || is_fragment(&w) || !has_ports(&w) || w.ttl <= 1) return TC_ACT_UNSPEC;
  if (w.protocol == IPPROTO_TCP && (w.segment.flags & (SP_SYN | SP_RST))) return TC_ACT_UNSPEC;
  struct sp_flow_key key = {.host = w.source,
                            .peer = w.destination,
                            .host_port = w.sport,
                            .peer_port = w.dport,
                            .protocol = w.protocol};
  if (!place_of(&key)) return TC_ACT_UNSPEC;
  const sp_u32 way = find_way(skb, w.source, w.destination, w.total, w.now_s);
  if (way != cfg->wan) return TC_ACT_UNSPEC;
  const sp_u32 host = w.source;
  w.address = address_of(cfg, host);
  sp_u32 wears;
  const int verdict = outbound(skb, &w, &wears, TO_OUTSIDE);
  if (IS_SLOW(verdict)) return to_slow_path(skb, ETH_HLEN, SP_FROM_LAN, verdict);
  if (verdict) return dropped(verdict & 0xff);
  if (rewrite(skb, &w, cfg, SOURCE, external_of(cfg, &w), (sp_u16)wears, host, 1)) return TC_ACT_SHOT;
  skb->mark = SP_MARK_FINISHED;
  count(SP_COUNT_PACKETS);
  return bpf_redirect(way, 0);
}

/* Whether the WAN has its programs. */
static __always_inline bool is_guarded(const struct sp_config *cfg) {
  for (sp_u32 i = 0; i < SP_MOST_WANS; ++i) {
    if (i >= cfg->wan_count) return i != 0;
    const sp_u32 at = i;
    if (!bpf_map_lookup_elem(&wans, &at)) return false;
  }
  return true;
}

/* Without programs on the WAN, or when its interface was made anew, a packet goes on only to where it cannot leave
 * untranslated: the router, a LAN, a VPN. The second line: it needs nobody who reacts. */
PROGRAM int stays_inside(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  sp_u8 to[16];
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    if (!cfg->ipv6) return TC_ACT_UNSPEC;
    if (bpf_skb_load_bytes(skb, ETH_HLEN + 24, to, 16)) return TC_ACT_SHOT;
    if (to[0] == 0xff || (to[0] == 0xfe && (to[1] & 0xc0) == 0x80)) return TC_ACT_UNSPEC;
    return networks6_of(to) & (SP_NET_LAN | SP_NET_GATEWAY | SP_NET_ELSEWHERE) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
  }
  struct bpf_fib_lookup fib = {};
  fib.family = 2; /* AF_INET */
  fib.ifindex = skb->ifindex;
  if (bpf_skb_load_bytes(skb, ETH_HLEN + 12, &fib.ipv4_src, 4) || bpf_skb_load_bytes(skb, ETH_HLEN + 16, to, 4))
    return TC_ACT_SHOT;
  if (to[0] >= 224) return TC_ACT_UNSPEC; /* not forwarded */
  __builtin_memcpy(&fib.ipv4_dst, to, 4);
  const long found = bpf_fib_lookup(skb, &fib, sizeof fib, 0);
  if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
    return found > 0 ? TC_ACT_UNSPEC : TC_ACT_SHOT; /* the router's own, or nobody's */
  if (is_lan_interface(cfg, fib.ifindex)) return TC_ACT_UNSPEC;
  for (sp_u32 i = 0; i < SP_MOST_OTHERS; ++i) {
    if (i >= cfg->other_count) break;
    if (cfg->other[i] == fib.ifindex) return TC_ACT_UNSPEC;
  }
  return dropped(SP_DROP_no_external_address);
}

/* Whether the daemon runs: it gives interfaces that come anew their other_egress. */
static __always_inline bool is_watched(void) {
  const sp_u32 at = SP_WATCH;
  return bpf_map_lookup_elem(&wans, &at) != NULL;
}

/* Where a packet of the LAN may go as it is. */
static __always_inline bool is_known(sp_u32 address) {
  return networks_of(address) & (SP_NET_LAN | SP_NET_GATEWAY | SP_NET_UNTRANSLATED | SP_NET_ELSEWHERE);
}

/* While the daemon is dead an interface may have come that has no other_egress: to the world only by a WAN. */
PROGRAM int leaves_by_wan(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  struct bpf_fib_lookup fib = {};
  fib.family = 2; /* AF_INET */
  fib.ifindex = skb->ifindex;
  sp_u8 to[4];
  if (!cfg || bpf_skb_load_bytes(skb, ETH_HLEN + 12, &fib.ipv4_src, 4) ||
      bpf_skb_load_bytes(skb, ETH_HLEN + 16, to, 4))
    return TC_ACT_SHOT;
  if (to[0] >= 224 || is_known(be32(to))) return TC_ACT_UNSPEC;
  __builtin_memcpy(&fib.ipv4_dst, to, 4);
  const long found = bpf_fib_lookup(skb, &fib, sizeof fib, 0);
  if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
    return found > 0 ? TC_ACT_UNSPEC : TC_ACT_SHOT; /* the router's own, or nobody's */
  for (sp_u32 i = 0; i < SP_MOST_WANS; ++i) {
    if (i >= cfg->wan_count) break;
    const sp_u32 at = i;
    const sp_u32 *wan = bpf_map_lookup_elem(&wans, &at);
    if (wan && *wan == fib.ifindex) return TC_ACT_UNSPEC;
  }
  return dropped(SP_DROP_no_external_address);
}

/* To the stack, if there it cannot leave untranslated. */
static __always_inline int let_on(struct __sk_buff *skb, const struct sp_config *cfg) {
  if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return TC_ACT_UNSPEC;
  if (!is_guarded(cfg)) return stays_inside(skb);
  return is_watched() || skb->protocol != bpf_htons(ETH_P_IP) ? TC_ACT_UNSPEC : leaves_by_wan(skb);
}

SEC("tc")
int lan_ingress(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_UNSPEC;
  void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  const bool judged = cfg->has_external && skb->protocol == bpf_htons(ETH_P_IP) && skb->mark != SP_MARK_FINISHED &&
                      data + ETH_HLEN + 20 <= end;
  if (!judged) return let_on(skb, cfg);
  const sp_u32 destination = be32(data + ETH_HLEN + 16);
  if (find_external(cfg, destination) == SP_NOBODY) {
    if (let_on(skb, cfg) == TC_ACT_SHOT) return TC_ACT_SHOT;
    if (!cfg->redirect || !cfg->wan_header || networks_of(destination)) return TC_ACT_UNSPEC;
    return leave_at_once(skb, cfg);
  }
  struct work w = {};
  tell_time(&w, cfg);
  int verdict = parse(skb, &w, ETH_HLEN, true);
  const struct sp_fragment_key before = fragment_key_of(&w, SP_HAIRPIN);
  if (!verdict) {
    read_scale(skb, &w);
    verdict = turn(skb, cfg, &w);
  }
  if (IS_SLOW(verdict)) return to_slow_path(skb, ETH_HLEN, SP_HAIRPIN, verdict);
  if (verdict == LOCAL) {
    if (skb->mark == SP_MARK_RETRY) skb->mark = 0;
    return let_on(skb, cfg);
  }
  if (verdict) return dropped(verdict);
  if (w.more_fragments && !w.offset && skb->mark == SP_MARK_RETRY) note_fragment(cfg, &w, &before);
  skb->mark = 0;
  count(SP_COUNT_PACKETS);
  return to_lan(skb, skb->ifindex, w.destination);
}

/* --- egress of every other interface --- */

/* Should such an interface take the WAN's place, what the LAN sends to the world does not leave by it as it is
 * (POL-NET-01). IPv6 needs no translation and has no firewall there. */
SEC("tc")
int other_egress(struct __sk_buff *skb) {
  /* Forwarded packets are for this host by their link layer (0, PACKET_HOST); bridged ones are not. What has a VLAN's
   * tag was judged at that VLAN's interface. */
  if (skb->protocol != bpf_htons(ETH_P_IP) || skb->pkt_type != 0 || skb->vlan_present) return TC_ACT_UNSPEC;
  const struct sp_config *cfg = configuration();
  if (!cfg) return TC_ACT_SHOT;
  const sp_u32 iif = cfg->test_iif ? cfg->test_iif : skb->ingress_ifindex;
  if (iif == 0 || iif == 0xffffffff) return TC_ACT_UNSPEC;
  struct {
    sp_u8 source[4], destination[4];
  } ip;
  if (bpf_skb_load_bytes_relative(skb, 12, &ip, sizeof ip, BPF_HDR_START_NET)) return TC_ACT_SHOT;
  const sp_u32 source = be32(ip.source);
  /* From a LAN, or a LAN's address: that LAN may have been made anew while the daemon is dead. A WAN's packets, already
   * translated, may pass here on their way to its lower device. */
  const bool from_lan = is_lan_interface(cfg, iif) ? find_external(cfg, source) == SP_NOBODY
                                                   : (networks_of(source) & SP_NET_INSIDE) != 0;
  if (!from_lan || is_known(be32(ip.destination))) return TC_ACT_UNSPEC;
  return dropped(SP_DROP_no_external_address);
}

/* --- what the slow path gives back --- */

/* Of several WANs the one that leads to who is outside: the destination, or for `inbound` the source. As the stack
 * chooses for what comes by the first LAN; the first WAN where it would choose none. */
PROGRAM sp_u32 wan_of(struct __sk_buff *skb, sp_u32 inbound) {
  const struct sp_config *cfg = configuration();
  if (!cfg) return 0;
  if (cfg->wan_count < 2) return cfg->wan;
  struct bpf_fib_lookup fib = {};
  fib.ifindex = cfg->lan[0];
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    fib.family = 10; /* AF_INET6 */
    bpf_skb_load_bytes(skb, ETH_HLEN + (inbound ? 8 : 24), fib.ipv6_dst, 16);
    if (!inbound) bpf_skb_load_bytes(skb, ETH_HLEN + 8, fib.ipv6_src, 16);
  } else {
    fib.family = 2; /* AF_INET */
    bpf_skb_load_bytes(skb, ETH_HLEN + (inbound ? 12 : 16), &fib.ipv4_dst, 4);
    if (!inbound) bpf_skb_load_bytes(skb, ETH_HLEN + 12, &fib.ipv4_src, 4);
  }
  const long found = bpf_fib_lookup(skb, &fib, sizeof fib, 0);
  if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH && found != BPF_FIB_LKUP_RET_FRAG_NEEDED)
    return cfg->wan;
  for (sp_u32 i = 0; i < SP_MOST_WANS; ++i) {
    if (i >= cfg->wan_count) break;
    const sp_u32 at = i;
    const sp_u32 *wan = bpf_map_lookup_elem(&wans, &at);
    if (wan && *wan == fib.ifindex) return fib.ifindex;
  }
  return cfg->wan;
}

SEC("tc")
int tap_ingress(struct __sk_buff *skb) {
  const struct sp_config *cfg = configuration();
  const bool ipv6 = skb->protocol == bpf_htons(ETH_P_IPV6);
  if (!cfg || (!ipv6 && skb->protocol != bpf_htons(ETH_P_IP))) return TC_ACT_SHOT;
  struct sp_tag tag;
  sp_u32 destination;
  if (bpf_skb_load_bytes(skb, ETH_ALEN, &tag, sizeof tag) || tag.tag0 != SP_TAG_0 || tag.tag1 != SP_TAG_1)
    return TC_ACT_SHOT;
  if (bpf_skb_load_bytes(skb, ETH_HLEN + 16, &destination, sizeof destination)) return TC_ACT_SHOT;
  skb->mark = tag.what == SP_BACK_RETRY ? SP_MARK_RETRY : SP_MARK_FINISHED;
  switch (tag.what) {
    case SP_BACK_LAN:
      if (ipv6) return TC_ACT_SHOT;
      return to_lan(skb, cfg->lan[0], bpf_ntohl(destination));
    case SP_BACK_RETRY:
      if (tag.side == SP_FROM_WAN) break;
      if (tag.side == SP_HAIRPIN) return bpf_redirect(cfg->lan[0], BPF_F_INGRESS);
      /* fallthrough */
    case SP_BACK_WAN: {
      const sp_u32 wan = wan_of(skb, 0);
      return cfg->wan_header ? bpf_redirect_neigh(wan, NULL, 0, 0) : bpf_redirect(wan, 0);
    }
    case SP_BACK_STACK:
      break;
    default:
      return TC_ACT_SHOT;
  }
  return bpf_redirect(wan_of(skb, 1), BPF_F_INGRESS);
}
