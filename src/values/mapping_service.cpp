#include "sallyport/values/mapping_service.hpp"

namespace sallyport {

std::string_view to_string(LeaseEventKind kind) noexcept {
  switch (kind) {
    case LeaseEventKind::granted: return "granted";
    case LeaseEventKind::renewed: return "renewed";
    case LeaseEventKind::changed: return "changed";
    case LeaseEventKind::ended: return "ended";
  }
  return "unknown";
}

std::string_view to_string(LeaseEventReason reason) noexcept {
  switch (reason) {
    case LeaseEventReason::requested: return "requested";
    case LeaseEventReason::expired: return "expired";
    case LeaseEventReason::revoked: return "revoked";
    case LeaseEventReason::address_changed: return "address_changed";
    case LeaseEventReason::replaced: return "replaced";
    case LeaseEventReason::configured: return "configured";
    case LeaseEventReason::lost: return "lost";
    case LeaseEventReason::policy: return "policy";
  }
  return "unknown";
}

}  // namespace sallyport
