#include "nat/engine/fragments.hpp"

#include <algorithm>

#include "nat/engine/rules.h"

namespace sallyport::nat {
namespace {

/// More pieces apart from each other than any honest sender leaves.
constexpr std::size_t most_ranges = 64;
/// What a datagram costs beside the octets it holds.
constexpr std::size_t own_octets = 320;

}  // namespace

template <class Family>
typename BasicFragments<Family>::Next BasicFragments<Family>::take(const Ip& packet, Side side,
                                                                   std::uint32_t now_s, FragmentFate& fate) {
  sweep(now_s);
  const Key key{packet.source, packet.destination, Family::name(packet), side};
  auto at = datagrams_.find(key);
  if (at == datagrams_.end()) {
    auto& of_source = sources_[packet.source];
    if (limits_.per_source && of_source >= limits_.per_source) return Next::limit;
    while (!ages_.empty() &&
           ((limits_.total && datagrams_.size() >= limits_.total) || octets_ + own_octets > most_octets))
      erase(datagrams_.find(ages_.front()));
    at = datagrams_.try_emplace(key).first;
    at->second.deadline_s = rules::sp_deadline(now_s, limits_.timeout_s);
    at->second.age = ages_.insert(ages_.end(), key);
    ++sources_[packet.source];
    octets_ += own_octets;
  }
  Datagram& datagram = at->second;
  if (datagram.poisoned) return Next::overlap;
  const std::uint32_t first = packet.fragment_offset;
  const std::uint32_t last = first + Family::size(packet);
  for (const auto& [from, to] : datagram.ranges)
    if (from <= first && last <= to) return Next::overlap;  // a repetition: the first version holds
  const bool beyond =
      datagram.end && (last > datagram.end || (!packet.more_fragments && last != datagram.end));
  const bool behind =
      !packet.more_fragments && !datagram.ranges.empty() && datagram.ranges.back().second > last;
  if (beyond || behind || !cover(datagram, first, last)) {
    // Which of two versions the receiver would take is nothing to guess (RFC 1858, RFC 5722).
    datagram.poisoned = true;
    forget_held(datagram);
    return Next::overlap;
  }
  if (!packet.more_fragments) datagram.end = last;
  datagram.covered += last - first;
  const bool whole = datagram.end && datagram.covered == datagram.end;

  if (first == 0) return Next::translate_first;
  if (datagram.settled) {
    fate = datagram.fate;
    if (whole) erase(at);
    return fate.action == Action::drop ? Next::dropped : Next::follow;
  }
  while (octets_ + packet.size > most_octets && !ages_.empty() && !(ages_.front() == key))
    erase(datagrams_.find(ages_.front()));
  if (octets_ + packet.size > most_octets) return Next::limit;
  const auto* octets = reinterpret_cast<const std::byte*>(packet.data);
  datagram.held.push_back({first, {octets, octets + packet.size}});
  octets_ += packet.size;
  return Next::hold;
}

template <class Family>
std::vector<std::vector<std::byte>> BasicFragments<Family>::settle(const Ip& first, const Source& source,
                                                                   const Source& destination, Side side,
                                                                   const FragmentFate& fate) {
  std::vector<std::vector<std::byte>> released;
  const auto at = datagrams_.find(Key{source, destination, Family::name(first), side});
  if (at == datagrams_.end()) return released;
  Datagram& datagram = at->second;
  datagram.settled = true;
  datagram.fate = fate;
  std::sort(datagram.held.begin(), datagram.held.end(),
            [](const Held& a, const Held& b) { return a.offset < b.offset; });
  if (fate.action != Action::drop)
    for (Held& held : datagram.held) {
      octets_ -= held.octets.size();
      released.push_back(std::move(held.octets));
      held.octets.clear();
    }
  forget_held(datagram);
  if (datagram.end && datagram.covered == datagram.end) erase(at);
  return released;
}

template <class Family>
bool BasicFragments<Family>::cover(Datagram& datagram, std::uint32_t first, std::uint32_t last) {
  auto& ranges = datagram.ranges;
  const auto behind = std::lower_bound(ranges.begin(), ranges.end(), std::pair{first, 0U});
  if (behind != ranges.end() && behind->first < last) return false;
  if (behind != ranges.begin() && std::prev(behind)->second > first) return false;
  const bool joins_before = behind != ranges.begin() && std::prev(behind)->second == first;
  const bool joins_behind = behind != ranges.end() && behind->first == last;
  if (joins_before && joins_behind) {
    std::prev(behind)->second = behind->second;
    ranges.erase(behind);
  } else if (joins_before) {
    std::prev(behind)->second = last;
  } else if (joins_behind) {
    behind->first = first;
  } else {
    if (ranges.size() >= most_ranges) return false;
    ranges.insert(behind, {first, last});
  }
  return true;
}

template <class Family>
void BasicFragments<Family>::forget_held(Datagram& datagram) {
  for (const Held& held : datagram.held) octets_ -= held.octets.size();
  datagram.held.clear();
  datagram.held.shrink_to_fit();
}

template <class Family>
void BasicFragments<Family>::erase(typename Map::iterator at) {
  forget_held(at->second);
  octets_ -= own_octets;
  ages_.erase(at->second.age);
  const auto source = sources_.find(at->first.source);
  if (source != sources_.end() && --source->second == 0) sources_.erase(source);
  datagrams_.erase(at);
}

template <class Family>
void BasicFragments<Family>::sweep(std::uint32_t now_s) {
  while (!ages_.empty()) {
    const auto oldest = datagrams_.find(ages_.front());
    if (!rules::sp_is_over(oldest->second.deadline_s, now_s)) break;
    erase(oldest);
  }
}

template <class Family>
void BasicFragments<Family>::clear() {
  while (!ages_.empty()) erase(datagrams_.find(ages_.front()));
}

template class BasicFragments<Fragmented4>;
template class BasicFragments<Fragmented6>;

}  // namespace sallyport::nat
