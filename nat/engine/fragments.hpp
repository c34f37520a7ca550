#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/engine/siphash.hpp"
#include "nat/packet/ipv4.hpp"
#include "nat/packet/ipv6.hpp"

namespace sallyport::nat {

/// What became of a first fragment, and so becomes of all others.
struct FragmentFate {
  Action action = Action::drop;
  std::uint32_t source = 0, destination = 0;  ///< after translation
  std::uint32_t id_of = 0;                    ///< the host whose IPv4 ID is rewritten; 0: it stays
};

/// What names a datagram of each family, and where its fragments' octets are.
struct Fragmented4 {
  using Packet = packet::Ipv4;
  using Address = std::uint32_t;
  static std::uint64_t name(const Packet& packet) noexcept {
    return std::uint64_t{packet.id} << 8 | packet.protocol;
  }
  static std::uint32_t size(const Packet& packet) noexcept { return packet.transport_size(); }
  static std::uint64_t hash(const SipHash& hash, Address source) noexcept { return hash(source); }
  static std::uint64_t hash(const SipHash& hash, Address source, Address destination,
                            std::uint64_t rest) noexcept {
    return hash(std::uint64_t{source} << 32 | destination, rest);
  }
};
struct Fragmented6 {  // RFC 8200 4.5: the next header is that of the first fragment, and names nothing
  using Packet = packet::Ipv6;
  using Address = packet::Address6;
  static std::uint64_t name(const Packet& packet) noexcept { return packet.id; }
  static std::uint32_t size(const Packet& packet) noexcept { return packet.fragment_size(); }
  static std::uint64_t hash(const SipHash& hash, const Address& source) noexcept {
    return hash(source.high, source.low);
  }
  static std::uint64_t hash(const SipHash& hash, const Address& source, const Address& destination,
                            std::uint64_t rest) noexcept {
    return hash(source.high, source.low, destination.high, destination.low, rest);
  }
};

/// Follows the fragments of datagrams by side, source, destination and name, in any order (N4787-24).
/// Later fragments that come first are kept until the first tells where they belong. Bounded in number and
/// octets; at a source's limit its further fragments are dropped, at the total the oldest datagram gives way
/// (POL-NET-10).
template <class Family>
class BasicFragments {
 public:
  using Ip = typename Family::Packet;
  using Source = typename Family::Address;
  struct Limits {
    std::uint32_t per_source = 256, total = 8192;  ///< 0: no limit
    std::uint32_t timeout_s = 15;
  };
  static constexpr std::size_t most_octets = 2 << 20;  // POL-FAIR-05: 4 MiB, half for each family

  explicit BasicFragments(const SipHash& hash)
      : datagrams_{16, Hasher{hash}}, sources_{16, SourceHasher{hash}} {}

  void set_limits(const Limits& limits) { limits_ = limits; }

  enum class Next : std::uint8_t { translate_first, follow, hold, overlap, limit, dropped };
  /// Judges a fragment and notes what it covers. `translate_first`: translate it as a packet and then tell
  /// settle(). `follow`: `fate` says what to do with it. `hold`: it was copied.
  Next take(const Ip& packet, Side side, std::uint32_t now_s, FragmentFate& fate);

  /// Tells what became of the first fragment taken last; the held ones come out, in order.
  std::vector<std::vector<std::byte>> settle(const Ip& first, const Source& source, const Source& destination,
                                             Side side, const FragmentFate& fate);
  void sweep(std::uint32_t now_s);
  void clear();

  std::size_t count() const noexcept { return datagrams_.size(); }
  std::size_t octets() const noexcept { return octets_; }

 private:
  struct Key {
    Source source, destination;
    std::uint64_t name;
    Side side;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hasher {
    SipHash hash;
    std::size_t operator()(const Key& key) const noexcept {
      return Family::hash(hash, key.source, key.destination,
                          key.name << 2 | static_cast<std::uint8_t>(key.side));
    }
  };
  struct SourceHasher {
    SipHash hash;
    std::size_t operator()(const Source& source) const noexcept { return Family::hash(hash, source); }
  };
  struct Held {
    std::uint32_t offset;
    std::vector<std::byte> octets;
  };
  struct Datagram {
    std::uint32_t deadline_s = 0;
    bool settled = false;
    bool poisoned = false;  // overlapping: nothing more of it passes
    FragmentFate fate;
    std::uint32_t covered = 0, end = 0;  // octets so far; 0: the last fragment has not come
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
    std::vector<Held> held;
    typename std::list<Key>::iterator age;
  };
  using Map = std::unordered_map<Key, Datagram, Hasher>;

  void erase(typename Map::iterator at);
  void forget_held(Datagram& datagram);
  /// Notes first..last; false where it overlaps what came before.
  static bool cover(Datagram& datagram, std::uint32_t first, std::uint32_t last);

  Limits limits_;
  Map datagrams_;
  std::list<Key> ages_;  // oldest first: all wait equally long
  std::unordered_map<Source, std::uint32_t, SourceHasher> sources_;
  std::size_t octets_ = 0;
};

extern template class BasicFragments<Fragmented4>;
extern template class BasicFragments<Fragmented6>;
using Fragments = BasicFragments<Fragmented4>;
using Fragments6 = BasicFragments<Fragmented6>;

}  // namespace sallyport::nat
