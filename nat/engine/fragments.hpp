#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/engine/siphash.hpp"
#include "nat/packet/ipv4.hpp"

namespace sallyport::nat {

/// What became of a first fragment, and so becomes of all others.
struct FragmentFate {
  Action action = Action::drop;
  std::uint32_t source = 0, destination = 0;  ///< after translation
  std::uint32_t id_of = 0;                    ///< the host whose IPv4 ID is rewritten; 0: it stays
};

/// Follows the fragments of datagrams by (side, source, destination, protocol, ID), in any order (N4787-24).
/// Later fragments that come first are kept until the first tells where they belong. Bounded in number and
/// octets; at a source's limit its further fragments are dropped, at the total the oldest datagram gives way
/// (POL-NET-10).
class Fragments {
 public:
  struct Limits {
    std::uint32_t per_source = 256, total = 8192;  ///< 0: no limit
    std::uint32_t timeout_s = 15;
  };
  static constexpr std::size_t most_octets = 4 << 20;  // POL-FAIR-05

  explicit Fragments(const SipHash& hash) : datagrams_{16, Hasher{hash}}, sources_{16, SourceHasher{hash}} {}

  void set_limits(const Limits& limits) { limits_ = limits; }

  enum class Next : std::uint8_t { translate_first, follow, hold, overlap, limit, dropped };
  /// Judges a fragment and notes what it covers. `translate_first`: translate it as a packet and then tell
  /// settle(). `follow`: `fate` says what to do with it. `hold`: it was copied.
  Next take(const packet::Ipv4& packet, Side side, std::uint32_t now_s, FragmentFate& fate);

  /// Tells what became of the first fragment taken last; the held ones come out, in order.
  std::vector<std::vector<std::byte>> settle(const packet::Ipv4& first, std::uint32_t source,
                                             std::uint32_t destination, Side side, const FragmentFate& fate);
  void sweep(std::uint32_t now_s);
  void clear();

  std::size_t count() const noexcept { return datagrams_.size(); }
  std::size_t octets() const noexcept { return octets_; }

 private:
  struct Key {
    std::uint32_t source, destination;
    std::uint16_t id;
    std::uint8_t protocol;
    Side side;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hasher {
    SipHash hash;
    std::size_t operator()(const Key& key) const noexcept {
      return hash(std::uint64_t{key.source} << 32 | key.destination, std::uint64_t{key.id} << 16 |
                                                                         std::uint64_t{key.protocol} << 8 |
                                                                         static_cast<std::uint8_t>(key.side));
    }
  };
  struct SourceHasher {
    SipHash hash;
    std::size_t operator()(std::uint32_t source) const noexcept { return hash(source); }
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
    std::list<Key>::iterator age;
  };
  using Map = std::unordered_map<Key, Datagram, Hasher>;

  void erase(Map::iterator at);
  void forget_held(Datagram& datagram);
  /// Notes first..last; false where it overlaps what came before.
  static bool cover(Datagram& datagram, std::uint32_t first, std::uint32_t last);

  Limits limits_;
  Map datagrams_;
  std::list<Key> ages_;  // oldest first: all wait equally long
  std::unordered_map<std::uint32_t, std::uint32_t, SourceHasher> sources_;
  std::size_t octets_ = 0;
};

}  // namespace sallyport::nat
