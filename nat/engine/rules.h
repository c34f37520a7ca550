/* The pure rules of the translator: TCP steps, port classes, expiry. Plain C so that BPF programs can include
 * this file too; constexpr in C++. The caller has the integer types. Sources: RFC 6146 3.5.2, RFC 5382, RFC 7857
 * section 2, RFC 5961. */
#ifndef SALLYPORT_NAT_ENGINE_RULES_H
#define SALLYPORT_NAT_ENGINE_RULES_H

#ifdef __cplusplus
#include <cstdint>
#define SP_RULE constexpr
namespace sallyport::nat::rules {
using sp_u8 = std::uint8_t;
using sp_u16 = std::uint16_t;
using sp_u32 = std::uint32_t;
using sp_s32 = std::int32_t;
using sp_u64 = std::uint64_t;
#else
#define SP_RULE static inline
#endif

enum sp_tcp_state {
  SP_TCP_CLOSED = 0,
  SP_TCP_INTERNAL_INIT, /* a SYN from inside */
  SP_TCP_EXTERNAL_INIT, /* a SYN from outside */
  SP_TCP_ESTABLISHED,
  SP_TCP_INTERNAL_FIN, /* inside sent FIN */
  SP_TCP_EXTERNAL_FIN,
  SP_TCP_BOTH_FIN,
  SP_TCP_TRANS, /* a RST passed; later data brings the session back */
};

enum sp_tcp_flag { SP_FIN = 1, SP_SYN = 2, SP_RST = 4, SP_PSH = 8, SP_ACK = 16, SP_URG = 32 };

SP_RULE bool sp_plain_syn(sp_u8 flags) { return (flags & (SP_SYN | SP_ACK | SP_RST | SP_FIN)) == SP_SYN; }

/* The state after a segment (RFC 6146 3.5.2.2). in_window: see sp_in_window and its fellows; outside of it nothing
 * changes (POL-NET-06). A SYN restarts sessions that are over, and from inside also those where inside sent FIN:
 * the host itself reuses the 4-tuple (N5382-24). */
SP_RULE sp_u8 sp_tcp_step(sp_u8 state, bool inside, sp_u8 flags, bool in_window) {
  const sp_u8 own_fin = inside ? SP_TCP_INTERNAL_FIN : SP_TCP_EXTERNAL_FIN;
  const sp_u8 other_fin = inside ? SP_TCP_EXTERNAL_FIN : SP_TCP_INTERNAL_FIN;
  const sp_u8 own_init = inside ? SP_TCP_INTERNAL_INIT : SP_TCP_EXTERNAL_INIT;
  const sp_u8 other_init = inside ? SP_TCP_EXTERNAL_INIT : SP_TCP_INTERNAL_INIT;
  if (sp_plain_syn(flags)) {
    if (state == SP_TCP_CLOSED || state == SP_TCP_BOTH_FIN || state == SP_TCP_TRANS) return own_init;
    if (inside && state == own_fin) return own_init;
    if (state == other_init) return in_window ? (sp_u8)SP_TCP_ESTABLISHED : state; /* simultaneous open */
    return state;
  }
  if (state == SP_TCP_CLOSED || !in_window) return state;
  if (flags & SP_RST) return SP_TCP_TRANS;
  if (state == other_init && (flags & SP_SYN)) return SP_TCP_ESTABLISHED;
  if (state == SP_TCP_INTERNAL_INIT || state == SP_TCP_EXTERNAL_INIT) return state;
  if (flags & SP_SYN) return state;
  if (state == SP_TCP_TRANS) state = SP_TCP_ESTABLISHED;
  if (flags & SP_FIN) {
    if (state == SP_TCP_ESTABLISHED) return own_fin;
    if (state == other_fin) return SP_TCP_BOTH_FIN;
  }
  return state;
}

/* Seconds of silence after which a session of that state is over (N5382-21). */
SP_RULE sp_u32 sp_tcp_timeout(sp_u8 state, sp_u32 established, sp_u32 transitory) {
  return state == SP_TCP_ESTABLISHED || state == SP_TCP_INTERNAL_FIN || state == SP_TCP_EXTERNAL_FIN ? established
                                                                                                     : transitory;
}

/* Whether a sequence number lies in what the other side will take: its last acknowledgement, and its window from
 * there (RFC 5961 3.2 for RST). */
SP_RULE bool sp_in_window(sp_u32 seq, sp_u32 other_ack, sp_u32 other_window) {
  return (sp_u32)(seq - other_ack) <= other_window;
}

/* The same with room for what was sent before: retransmissions, keep-alives. */
SP_RULE bool sp_near_window(sp_u32 seq, sp_u32 other_ack, sp_u32 other_window) {
  const sp_u32 room = 1u << 18;
  return (sp_u32)(seq - other_ack + room) <= other_window + room;
}

SP_RULE bool sp_seq_at_or_after(sp_u32 a, sp_u32 b) { return (sp_s32)(a - b) >= 0; }

/* Ports below 1024 and those from 1024 up are two classes (RFC 4787 REQ-3a). */
SP_RULE bool sp_same_port_class(sp_u16 a, sp_u16 b) { return (a < 1024) == (b < 1024); }

/* Deadlines in whole seconds are rounded up, so nothing ends early (NMAP-05). */
SP_RULE sp_u32 sp_deadline(sp_u32 now_s, sp_u32 lifetime_s) {
  return lifetime_s >= 0xffffffffu - now_s - 1 ? 0xffffffffu : now_s + lifetime_s + 1;
}
SP_RULE bool sp_is_over(sp_u32 deadline_s, sp_u32 now_s) { return now_s >= deadline_s; }

/* Whether a port that outbound traffic gave up is not chosen for that host yet: only its last owner has it back at once
 * (N6888-08). A free slot keeps the owner, and as its deadline the end of the rest. */
SP_RULE bool sp_rests(sp_u32 owner, sp_u32 rests_until_s, sp_u32 host, sp_u32 now_s) {
  return owner != host && !sp_is_over(rests_until_s, now_s);
}
/* So many resting ports are passed over; then one of them is taken: no flow is refused for them. */
enum { SP_RESTING_PASSED_OVER = 32 };

/* A TCP session: what each side acknowledged last, and the window it offered then. Before the other side answered a SYN:
 * the acknowledgement that would be right, and by how much more (data in the SYN) it may be. */
enum { SP_NO_SCALE = 15 };
struct sp_tcp {
  sp_u32 ack_host, ack_peer;
  sp_u16 window_host, window_peer;
  sp_u8 state;  /* sp_tcp_state */
  sp_u8 scales; /* window scale of the host in the low half, of the peer in the high one; SP_NO_SCALE: none offered */
  sp_u16 spare; /* the owner's */
};

/* One segment of a session. */
struct sp_segment {
  sp_u32 seq, ack, payload;
  sp_u16 window;
  sp_u8 flags;
  sp_u8 scale; /* offered in a SYN: 0 to 14, or SP_NO_SCALE */
  bool inside; /* the host sent it */
};

/* What a segment does to its session's deadline, and whether it may pass. */
enum sp_carry {
  SP_CARRY_DROP = 0, /* outside the window */
  SP_CARRY_PASS = 1,
  SP_CARRY_HALF_OPEN = 2,  /* with PASS: the deadline is that of a handshake */
  SP_CARRY_TRANSITORY = 4, /* with PASS: ... of a session that ends */
  SP_CARRY_BY_STATE = 8,   /* with PASS: ... of the state; of a handshake until the peer confirmed its address */
  SP_CARRY_CONFIRMS = 16,  /* with PASS: the peer took the host's answer, so its address is its own */
};

SP_RULE void sp_tcp_offer(struct sp_tcp *tcp, bool inside, sp_u8 scale) {
  tcp->scales = inside ? (sp_u8)((tcp->scales & 0xf0) | scale) : (sp_u8)((tcp->scales & 0x0f) | scale << 4);
}

/* The first SYN of a session. */
SP_RULE void sp_tcp_start(struct sp_tcp *tcp, const struct sp_segment *segment) {
  const sp_u16 room = (sp_u16)(segment->payload > 65535 ? 65535 : segment->payload);
  tcp->scales = SP_NO_SCALE << 4 | SP_NO_SCALE;
  sp_tcp_offer(tcp, segment->inside, segment->scale);
  if (segment->inside) {
    tcp->state = SP_TCP_INTERNAL_INIT;
    tcp->ack_host = 0;
    tcp->window_host = segment->window;
    tcp->ack_peer = segment->seq + 1;
    tcp->window_peer = room;
  } else {
    tcp->state = SP_TCP_EXTERNAL_INIT;
    tcp->ack_peer = 0;
    tcp->window_peer = segment->window;
    tcp->ack_host = segment->seq + 1;
    tcp->window_host = room;
  }
}

/* Takes a segment of a session that is known. unconfirmed: the peer began it and has not shown yet that its address
 * is its own. Gives sp_carry flags. */
SP_RULE sp_u32 sp_tcp_carry(struct sp_tcp *tcp, const struct sp_segment *segment, bool unconfirmed) {
  const bool inside = segment->inside;
  const sp_u8 flags = segment->flags;
  const sp_u8 own_init = inside ? SP_TCP_INTERNAL_INIT : SP_TCP_EXTERNAL_INIT;
  const sp_u8 other_init = inside ? SP_TCP_EXTERNAL_INIT : SP_TCP_INTERNAL_INIT;
  const sp_u8 before = tcp->state;
  const sp_u32 own_ack = inside ? tcp->ack_host : tcp->ack_peer;
  const sp_u32 own_window = inside ? tcp->window_host : tcp->window_peer;
  const sp_u32 other_ack = inside ? tcp->ack_peer : tcp->ack_host;
  const sp_u32 other_window = inside ? tcp->window_peer : tcp->window_host;

  if (before == own_init) {
    /* Only the other side's SYN moves it on. What its own side says again is passed on. */
    if (sp_plain_syn(flags)) {
      /* A host may try anew with other numbers; an outsider's second SYN is not let to move the first one's. */
      if (inside) sp_tcp_start(tcp, segment);
      return SP_CARRY_PASS | SP_CARRY_HALF_OPEN;
    }
    if (flags & SP_RST) {
      if (!inside && segment->seq != other_ack && segment->seq + 1 != other_ack) return SP_CARRY_DROP;
      tcp->state = SP_TCP_TRANS;
    }
    return SP_CARRY_PASS;
  }
  if (before == other_init) {
    const bool plain = sp_plain_syn(flags);
    const bool acknowledges = (flags & SP_ACK) && (sp_u32)(segment->ack - own_ack) <= own_window;
    if ((flags & SP_RST) && !acknowledges && !inside) return SP_CARRY_DROP;
    const sp_u8 after = sp_tcp_step(before, inside, flags, plain || acknowledges || inside);
    if (after == SP_TCP_ESTABLISHED) {
      sp_tcp_offer(tcp, inside, segment->scale);
      if (inside) {
        if (!plain) tcp->ack_host = segment->ack;
        tcp->window_host = segment->window;
        tcp->ack_peer = segment->seq + 1 + segment->payload;
      } else {
        if (!plain) tcp->ack_peer = segment->ack;
        tcp->window_peer = segment->window;
        tcp->ack_host = segment->seq + 1 + segment->payload;
      }
    }
    if (after == before) return SP_CARRY_PASS;
    tcp->state = after;
    return SP_CARRY_PASS | SP_CARRY_BY_STATE;
  }

  const sp_u32 host_scale = tcp->scales & 15, peer_scale = tcp->scales >> 4;
  const bool scaled = host_scale != SP_NO_SCALE && peer_scale != SP_NO_SCALE;
  const sp_u32 other_scale = scaled ? (inside ? peer_scale : host_scale) : 0;
  const sp_u32 window = other_window << other_scale;
  const bool near = sp_near_window(segment->seq, other_ack, window);
  if (sp_plain_syn(flags)) {
    if (sp_tcp_step(before, inside, flags, near) == before) return SP_CARRY_PASS;
    sp_tcp_start(tcp, segment);
    return SP_CARRY_PASS | SP_CARRY_HALF_OPEN;
  }
  bool valid = near;
  if (flags & SP_RST) {
    valid = sp_in_window(segment->seq, other_ack, window);
    if (!valid) return SP_CARRY_DROP;
  } else if (flags & SP_FIN) {
    valid = near && sp_in_window(segment->seq + segment->payload, other_ack, window);
  }
  tcp->state = sp_tcp_step(before, inside, flags, valid);
  if (flags & SP_RST) return before == SP_TCP_TRANS ? SP_CARRY_PASS : SP_CARRY_PASS | SP_CARRY_TRANSITORY;
  if (!near || (flags & SP_SYN)) return SP_CARRY_PASS;
  sp_u32 result = SP_CARRY_PASS | SP_CARRY_BY_STATE;
  if ((flags & SP_ACK) && sp_seq_at_or_after(segment->ack, own_ack)) {
    /* Who acknowledges the host's own SYN receives at its address: no spoofed flood goes that far. */
    const sp_u32 far = 1u << 24;
    if (!inside && unconfirmed && segment->ack - own_ack < far) result |= SP_CARRY_CONFIRMS;
    if (inside) {
      tcp->ack_host = segment->ack;
      tcp->window_host = segment->window;
    } else {
      tcp->ack_peer = segment->ack;
      tcp->window_peer = segment->window;
    }
  }
  return result;
}

/* Hosts fall into buckets, each of which has one external address. Consecutive hosts, and the same host of consecutive
 * networks, fall into different ones. */
enum { SP_BUCKETS = 256 };
SP_RULE sp_u8 sp_bucket(sp_u32 host) {
  return (sp_u8)(host + (host >> 8) * 157 + (host >> 16) * 89 + (host >> 24) * 211);
}

/* IPv4 IDs of datagrams that may be, or are, fragmented: a permutation of the host's own, of its own for each host, so
 * that two hosts who count alike do not meet at one remote (RFC 6864 5.3), and fragments stay together. */
SP_RULE sp_u8 sp_id_round(sp_u64 key, sp_u32 round, sp_u8 half) {
  sp_u64 mixed = (key ^ half ^ ((sp_u64)round << 56)) * 0x9e3779b97f4a7c15u;
  mixed ^= mixed >> 29;
  return (sp_u8)((mixed * 0xbf58476d1ce4e5b9u) >> 56);
}
SP_RULE sp_u16 sp_hide_id(sp_u64 secret, sp_u32 host, sp_u16 id) {
  const sp_u64 key = (secret ^ host) * 0xff51afd7ed558ccdu;
  sp_u8 left = (sp_u8)(id >> 8), right = (sp_u8)id;
  for (sp_u32 round = 0; round < 4; ++round) {
    const sp_u8 next = (sp_u8)(left ^ sp_id_round(key, round, right));
    left = right;
    right = next;
  }
  return (sp_u16)(left << 8 | right);
}
SP_RULE sp_u16 sp_show_id(sp_u64 secret, sp_u32 host, sp_u16 id) {
  const sp_u64 key = (secret ^ host) * 0xff51afd7ed558ccdu;
  sp_u8 left = (sp_u8)(id >> 8), right = (sp_u8)id;
  for (sp_u32 round = 4; round-- > 0;) {
    const sp_u8 previous = (sp_u8)(right ^ sp_id_round(key, round, left));
    right = left;
    left = previous;
  }
  return (sp_u16)(left << 8 | right);
}

#ifdef __cplusplus
}  // namespace sallyport::nat::rules
#endif
#undef SP_RULE
#endif
