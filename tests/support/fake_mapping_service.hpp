#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "sallyport/values/mapping_service.hpp"

namespace sallyport::test {

/// A mapping service that keeps what it was asked and answers as the test says. Without orders it grants the
/// suggested port (40000 when there is none) on 203.0.113.7 for the time asked, PCP's within 120..86400 s.
class FakeMappingService final : public MappingService {
 public:
  std::vector<GrantRequest> grants;
  std::vector<ReleaseRequest> releases;
  std::vector<ReleaseAllRequest> release_alls;
  std::function<Outcome<Granted>(const GrantRequest&)> on_grant = default_grant;
  std::optional<Refusal> refuse_release;  ///< of release and release_all
  std::optional<Address> external = Address::v4(0xcb007107);
  std::map<Address, Address> own_external;  ///< of devices that have another one
  TimePoint epoch_start{};
  bool deferred = false;  ///< answers wait for complete()
  bool recording = true;  ///< false: the vectors above stay empty
  std::set<ServiceListener*> listeners;

  static Outcome<Granted> default_grant(const GrantRequest& request) {
    const auto lifetime_s = request.via == Via::pcp ? std::clamp(request.lifetime_s, 120U, 86400U)
                                                    : std::min(request.lifetime_s, 86400U);
    return Granted{1,
                   {Address::v4(0xcb007107), request.suggested_port.value_or(*Port::from(40000))},
                   lifetime_s,
                   request.description.value_or(""),
                   request.ports};
  }
  void refuse_grants(MappingErrc reason, std::optional<std::uint32_t> retry_after_s = std::nullopt) {
    on_grant = [=](const GrantRequest&) -> Outcome<Granted> { return Refusal{reason, retry_after_s}; };
  }

  /// Answers the deferred request `index` (of those that still wait).
  void complete(std::size_t index, TimePoint now) {
    const auto answer = std::move(waiting_.at(index));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
    answer(now);
  }
  void complete_all(TimePoint now) {
    while (!waiting_.empty()) complete(0, now);
  }
  std::size_t waiting() const { return waiting_.size(); }
  void forget_waiting() { waiting_.clear(); }

  void tell(const LeaseEvent& event, TimePoint now) {
    for (auto* listener : listeners) listener->on_lease(event, now);
  }
  void reset_epoch(TimePoint now) {
    epoch_start = now;
    for (auto* listener : listeners) listener->on_epoch_reset(now);
  }
  void set_external(std::optional<Address> address, TimePoint now) {
    external = address;
    for (auto* listener : listeners) listener->on_external_address(address, now);
  }

  // MappingService
  void grant(GrantRequest request, TimePoint now, GrantDone done) override {
    auto outcome = on_grant(request);
    if (recording) grants.push_back(std::move(request));
    finish(now,
           [outcome = std::move(outcome), done = std::move(done)](TimePoint then) { done(outcome, then); });
  }
  void release(ReleaseRequest request, TimePoint now, ReleaseDone done) override {
    if (recording) releases.push_back(request);
    finish(now,
           [outcome = release_outcome(), done = std::move(done)](TimePoint then) { done(outcome, then); });
  }
  void release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done) override {
    if (recording) release_alls.push_back(request);
    finish(now,
           [outcome = release_outcome(), done = std::move(done)](TimePoint then) { done(outcome, then); });
  }
  Result<Address> external_address(const Address& device) const override {
    if (const auto own = own_external.find(device); own != own_external.end()) return own->second;
    if (!external) return MappingErrc::no_external_address;
    return *external;
  }
  std::uint32_t epoch_s(TimePoint now) const override {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::seconds>(now - epoch_start).count());
  }
  void add_listener(ServiceListener& listener) override { listeners.insert(&listener); }
  void remove_listener(ServiceListener& listener) override { listeners.erase(&listener); }

 private:
  Outcome<void> release_outcome() const {
    if (refuse_release) return *refuse_release;
    return boost::system::in_place_value;
  }
  void finish(TimePoint now, std::function<void(TimePoint)> answer) {
    if (deferred)
      waiting_.push_back(std::move(answer));
    else
      answer(now);
  }

  std::vector<std::function<void(TimePoint)>> waiting_;
};

}  // namespace sallyport::test
