#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/system/result.hpp>

#include "sallyport/admin/filter.hpp"

/// The admin API of a running daemon, typed. Blocking: one call, one answer; not for two threads at once.
/// Texts are as the devices wrote them; make them printable before showing them.
namespace sallyport::admin {

struct Failure {
  enum class Kind : std::uint8_t {
    unreachable,    ///< nobody answers at the socket, or the daemon went away
    not_permitted,  ///< the socket is not for this user
    not_found,
    conflict,  ///< also an ambiguous id prefix
    bad_request,
    failed,  ///< the daemon could not do it now
  } kind = Kind::failed;
  std::string message;  ///< a sentence, without the next step
};

template <class T>
using Answer = boost::system::result<T, Failure>;

struct Device {
  std::string address;
  std::optional<std::string> mac;
  std::optional<std::string> name;
};

/// One row of the list, as in the API; times as RFC 3339 text.
struct Lease {
  std::string id;  ///< empty for implicit mappings
  std::string state, kind, family, protocol;
  std::string internal_address, external_address;
  std::uint16_t internal_port = 0, external_port = 0;
  std::vector<std::string> remote;
  std::optional<std::string> via;
  Device device;
  std::string description;
  std::optional<std::uint64_t> lifetime_s, remaining_s;  ///< empty: permanent
  std::optional<std::string> created;
  std::uint64_t renewals = 0, packets_in = 0, packets_out = 0, bytes_in = 0, bytes_out = 0;
  std::optional<std::string> last_packet;
  std::uint64_t set_size =
      1;                  ///< of the set of ports that it is one of, and that ends as a whole; 1: of none
  std::string set_first;  ///< the id of the set's first port
};

struct Block {
  std::string id;  ///< of the lease whose revocation made it
  Device device;
  std::string protocol;
  std::uint16_t internal_port = 0;
  std::optional<std::string> until;  ///< empty: forever
  std::optional<std::uint64_t> remaining_s;
  std::string description;
};

struct Status {
  struct Interface {
    std::string name, role;
    bool up = false, served = false;
    std::vector<std::string> addresses;
  };
  std::string version, data_plane, data_plane_reason, store_state;
  std::optional<std::string> store_reason;
  std::uint64_t uptime_s = 0, epoch_s = 0, leases = 0, mappings = 0, static_mappings = 0, implicit_mappings = 0,
                flows = 0, packets = 0, blocks = 0;
  std::vector<Interface> interfaces;
  std::vector<std::string> external_addresses, protocols, warnings;
};

struct Event {
  std::string event, reason;
  Lease lease;
};

/// What to revoke: ids (or unique prefixes), or a filter when there are no ids.
struct RevokeRequest {
  std::vector<std::string> ids;
  Filter filter;
  std::optional<std::string> block;  ///< "24h", "forever"
  bool dry_run = false;
};
struct RevokeAnswer {
  struct Failed {
    std::string id, reason, code;  ///< code: "not_found", "ambiguous" or "failed"
  };
  std::vector<std::string> revoked;
  std::vector<Failed> failed;
  std::optional<std::string> blocked_until;  ///< RFC 3339, or "forever"
};
struct UnblockAnswer {
  std::vector<std::string> unblocked;
  std::vector<RevokeAnswer::Failed> failed;
};

class Client {
 public:
  explicit Client(std::string socket);

  Answer<Status> status();
  /// Calls `each` for every lease in the daemon's order, as they arrive.
  Answer<void> leases(const Filter& filter, bool with_implicit,
                      const std::function<void(const Lease&)>& each);
  Answer<Lease> lease(std::string_view id);
  Answer<std::vector<Block>> blocks();
  Answer<RevokeAnswer> revoke(const RevokeRequest& request);
  /// By ids of blocks (or unique prefixes), or by a filter of device, protocol and internal when there are
  /// none.
  Answer<UnblockAnswer> unblock(const std::vector<std::string>& ids, const Filter& filter);
  /// Calls `each` for every event, with the JSON line it came as, until it returns false (success) or the
  /// daemon goes away (unreachable). `started` runs when the daemon has accepted.
  Answer<void> watch(const std::function<void()>& started,
                     const std::function<bool(const Event&, std::string_view json)>& each);

  /// The body of a GET, piece by piece, as the daemon wrote it: for programs that pass JSON on.
  Answer<void> fetch(std::string_view target, const std::function<void(std::string_view)>& piece);

 private:
  std::string socket_;
};

}  // namespace sallyport::admin
