#include "nat/engine/tcp_session.hpp"

#include <algorithm>

#include "nat/engine/rules.h"

namespace sallyport::nat {
namespace {

/// A session as one side sees it.
struct Sides {
  std::uint32_t& own_ack;
  std::uint16_t& own_window;
  std::uint32_t& other_ack;
  std::uint16_t& other_window;
  unsigned own_shift;  // where its scale stands
};
Sides sides(TcpSession& session, bool from_inside) noexcept {
  if (from_inside) return {session.ack_host, session.window_host, session.ack_peer, session.window_peer, 0};
  return {session.ack_peer, session.window_peer, session.ack_host, session.window_host, 4};
}
void set_scale(TcpSession& session, unsigned shift, std::uint8_t scale) noexcept {
  session.scales = static_cast<std::uint8_t>((session.scales & ~(15U << shift)) | unsigned{scale} << shift);
}

}  // namespace

void start_tcp(TcpSession& session, const TcpSegment& syn, bool from_inside) noexcept {
  session = {};
  const auto side = sides(session, from_inside);
  session.state = from_inside ? rules::SP_TCP_INTERNAL_INIT : rules::SP_TCP_EXTERNAL_INIT;
  set_scale(session, side.own_shift, syn.scale);
  side.own_window = syn.window;
  side.other_ack = syn.seq + 1;
  side.other_window = static_cast<std::uint16_t>(std::min<std::uint32_t>(syn.payload, 65535));
}

TcpVerdict carry_tcp(TcpSession& session, const TcpSegment& segment, bool from_inside, bool unconfirmed,
                     const TcpTimers& timers) noexcept {
  using namespace rules;
  const auto side = sides(session, from_inside);
  const std::uint8_t flags = segment.flags;
  const std::uint8_t own_init = from_inside ? SP_TCP_INTERNAL_INIT : SP_TCP_EXTERNAL_INIT;
  const std::uint8_t other_init = from_inside ? SP_TCP_EXTERNAL_INIT : SP_TCP_INTERNAL_INIT;
  const std::uint8_t before = session.state;
  constexpr TcpVerdict refused{.passes = false};
  TcpVerdict verdict;
  const auto lifetime = [&](bool waits) {
    return waits ? timers.transitory : sp_tcp_timeout(session.state, timers.established, timers.transitory);
  };

  if (before == own_init) {
    // Only the other side's SYN moves it on. What its own side says again is passed on.
    if (sp_plain_syn(flags)) {
      // A host may try anew with other numbers; an outsider's second SYN is not let to move the first one's.
      if (from_inside) start_tcp(session, segment, true);
      verdict.lifetime_s = timers.half_open;
    } else if (flags & SP_RST) {
      if (!from_inside && segment.seq != side.other_ack && segment.seq + 1 != side.other_ack) return refused;
      session.state = SP_TCP_TRANS;
    }
    return verdict;
  }
  if (before == other_init) {
    const bool plain = sp_plain_syn(flags);
    const bool acknowledges =
        (flags & SP_ACK) && static_cast<std::uint32_t>(segment.ack - side.own_ack) <= side.own_window;
    if ((flags & SP_RST) && !acknowledges && !from_inside) return refused;
    const std::uint8_t after = sp_tcp_step(before, from_inside, flags, plain || acknowledges || from_inside);
    if (after == before) return verdict;
    if (after == SP_TCP_ESTABLISHED) {
      set_scale(session, side.own_shift, segment.scale);
      if (!plain) side.own_ack = segment.ack;
      side.own_window = segment.window;
      side.other_ack = segment.seq + 1 + segment.payload;
    }
    session.state = after;
    verdict.lifetime_s = lifetime(unconfirmed);
    return verdict;
  }

  const unsigned host_scale = session.scales & 15U, peer_scale = session.scales >> 4;
  const bool scaled = host_scale != TcpSession::no_scale && peer_scale != TcpSession::no_scale;
  const unsigned other_scale = scaled ? (from_inside ? peer_scale : host_scale) : 0;
  const std::uint32_t window = std::uint32_t{side.other_window} << other_scale;
  const bool near = sp_near_window(segment.seq, side.other_ack, window);
  if (sp_plain_syn(flags)) {
    if (sp_tcp_step(before, from_inside, flags, near) != before) {
      start_tcp(session, segment, from_inside);
      verdict.lifetime_s = timers.half_open;
    }
    return verdict;
  }
  bool valid = near;
  if (flags & SP_RST)
    valid = sp_in_window(segment.seq, side.other_ack, window);
  else if (flags & SP_FIN)
    valid = near && sp_in_window(segment.seq + segment.payload, side.other_ack, window);
  if ((flags & SP_RST) && !valid) return refused;
  session.state = sp_tcp_step(before, from_inside, flags, valid);
  if (flags & SP_RST) {
    if (before != SP_TCP_TRANS) verdict.lifetime_s = timers.transitory;
    return verdict;
  }
  if (!near || (flags & SP_SYN)) return verdict;
  if ((flags & SP_ACK) && sp_seq_at_or_after(segment.ack, side.own_ack)) {
    // Who acknowledges the host's own SYN receives at its address: no spoofed flood goes that far.
    constexpr std::uint32_t far = 1 << 24;
    verdict.confirms = unconfirmed && !from_inside && segment.ack - side.own_ack < far;
    side.own_ack = segment.ack;
    side.own_window = segment.window;
  }
  verdict.lifetime_s = lifetime(unconfirmed && !verdict.confirms);
  return verdict;
}

}  // namespace sallyport::nat
