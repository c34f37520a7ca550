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

#ifdef __cplusplus
}  // namespace sallyport::nat::rules
#endif
#undef SP_RULE
#endif
