#include "src/daemon/lease_log.hpp"

#include "src/daemon/log.hpp"

namespace sallyport::daemon {

using Verdict = transport::SourceLimiter::Verdict;

void LeaseLog::on_lease(const LeaseEvent& event, TimePoint now) {
  const auto& lease = event.lease;
  if (lease.set_place != 0) return;  // the first port of a set speaks for all
  const bool detail = event.kind == LeaseEventKind::renewed;
  if (detail && !log::enabled(log::Level::debug)) return;
  if (per_device_.admit(lease.internal.address, now) != Verdict::pass ||
      total_.admit({}, now) != Verdict::pass) {
    ++left_out_;
    return;
  }
  std::string line = "lease " + lease.id + ' ' + std::string{to_string(event.kind)} + " (" +
                     std::string{to_string(event.reason)} + "): " + std::string{to_string(lease.transport)} +
                     ' ' + to_string(lease.internal) + " <-> " + to_string(lease.external);
  if (lease.set_size > 1) line += " and the " + std::to_string(lease.set_size - 1) + " ports behind";
  line += ", via " + std::string{to_string(lease.via)};
  if (event.kind != LeaseEventKind::ended && lease.lifetime_s)
    line += ", " + std::to_string(*lease.lifetime_s) + " s";
  // last, and its own quotes look like none: what stands in it is never read as the rest of the line
  if (!lease.description.empty()) {
    auto text = log::escaped(lease.description);
    for (std::size_t at = 0; (at = text.find('"', at)) != text.npos;) text.replace(at, 1, "\\x22");
    line += ", \"" + text + '"';
  }
  write_(line, detail);
}

void LeaseLog::on_epoch_reset(TimePoint) {
  write_("the epoch starts over: clients are told to ask again", false);
}

void LeaseLog::on_external_address(const std::optional<Address>& address, TimePoint) {
  write_(address ? "the external address is " + address->to_string() : "there is no external address now",
         false);
}

void LeaseLog::handle_timeout(TimePoint) {
  if (left_out_ == 0) return;
  write_(std::to_string(left_out_) +
             " more lease events in the last second (not written: 10 a second of a device, 100 "
             "in all; `sallyport watch` shows each)",
         false);
  left_out_ = 0;
}

}  // namespace sallyport::daemon
