#include "nat/engine/tcp_session.hpp"

#include "nat/engine/rules.h"

namespace sallyport::nat {
namespace {

using namespace rules;

sp_segment segment_of(const TcpSegment& segment, bool from_inside) noexcept {
  return {segment.seq, segment.ack, segment.payload, segment.window, segment.flags, segment.scale, from_inside};
}
sp_tcp to_rules(const TcpSession& session) noexcept {
  return {session.ack_host,    session.ack_peer, session.window_host,
          session.window_peer, session.state,    session.scales,
          0};
}
void from_rules(TcpSession& session, const sp_tcp& tcp) noexcept {
  session.ack_host = tcp.ack_host;
  session.ack_peer = tcp.ack_peer;
  session.window_host = tcp.window_host;
  session.window_peer = tcp.window_peer;
  session.state = tcp.state;
  session.scales = tcp.scales;
}

}  // namespace

void start_tcp(TcpSession& session, const TcpSegment& syn, bool from_inside) noexcept {
  sp_tcp tcp = to_rules(session);
  const sp_segment segment = segment_of(syn, from_inside);
  sp_tcp_start(&tcp, &segment);
  from_rules(session, tcp);
}

TcpVerdict carry_tcp(TcpSession& session, const TcpSegment& given, bool from_inside, bool unconfirmed,
                     const TcpTimers& timers) noexcept {
  sp_tcp tcp = to_rules(session);
  const sp_segment segment = segment_of(given, from_inside);
  const sp_u32 result = sp_tcp_carry(&tcp, &segment, unconfirmed);
  from_rules(session, tcp);
  TcpVerdict verdict{.passes = result != SP_CARRY_DROP, .confirms = (result & SP_CARRY_CONFIRMS) != 0, .lifetime_s = 0};
  if (result & SP_CARRY_HALF_OPEN)
    verdict.lifetime_s = timers.half_open;
  else if (result & SP_CARRY_TRANSITORY)
    verdict.lifetime_s = timers.transitory;
  else if (result & SP_CARRY_BY_STATE)
    verdict.lifetime_s = unconfirmed && !verdict.confirms
                             ? timers.transitory
                             : sp_tcp_timeout(tcp.state, timers.established, timers.transitory);
  return verdict;
}

}  // namespace sallyport::nat
