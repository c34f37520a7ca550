#pragma once

#include <cstdint>

namespace sallyport::nat {

/// A TCP connection as seen from between its ends: the state of rules.h, and what each side acknowledged and
/// offered last. Before the other side answered a SYN: the acknowledgement that would be right, and by how
/// much more (data in the SYN) it may be.
struct TcpSession {
  static constexpr std::uint8_t no_scale = 15;
  std::uint32_t ack_host = 0, ack_peer = 0;
  std::uint16_t window_host = 0, window_peer = 0;
  std::uint8_t state = 0;
  std::uint8_t scales =
      no_scale << 4 | no_scale;  ///< of the host in the low half, of the peer in the high one
};

/// What the rules need to know of a segment.
struct TcpSegment {
  std::uint32_t seq = 0, ack = 0;
  std::uint32_t payload = 0;  ///< octets
  std::uint16_t window = 0;
  std::uint8_t flags = 0;
  std::uint8_t scale = TcpSession::no_scale;  ///< the window scale it offers; only looked at in a SYN
};

/// Seconds; PlanePolicy has them.
struct TcpTimers {
  std::uint32_t established = 0, transitory = 0, half_open = 0;
};

struct TcpVerdict {
  bool passes = true;            ///< false: a RST out of the window, which changed nothing
  bool confirms = false;         ///< the peer took the host's answer, so its address is its own
  std::uint32_t lifetime_s = 0;  ///< until silence ends the session; 0: what it was
};

/// The first SYN of a session.
void start_tcp(TcpSession& session, const TcpSegment& syn, bool from_inside) noexcept;

/// A further segment (RFC 6146 3.5.2, RFC 5961). `unconfirmed`: the session came from outside, and its peer
/// has not acknowledged anything of the host's yet; until then it lives for the transitory time only.
TcpVerdict carry_tcp(TcpSession& session, const TcpSegment& segment, bool from_inside, bool unconfirmed,
                     const TcpTimers& timers) noexcept;

}  // namespace sallyport::nat
