#include "sallyport/admin/client.hpp"

#include <nlohmann/json.hpp>

#include "src/client/admin/http.hpp"

namespace sallyport::admin {
namespace {

using nlohmann::json;

// Readers that take what is there and leave the rest at its default: a newer daemon may say more, an older
// one less.

template <class T>
void read(const json& object, const char* key, T& place) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  if constexpr (std::is_same_v<T, std::string>) {
    if (found->is_string()) place = found->get<std::string>();
  } else if constexpr (std::is_same_v<T, bool>) {
    if (found->is_boolean()) place = found->get<bool>();
  } else {
    if (found->is_number_unsigned()) place = found->get<T>();
  }
}

template <class T>
void read(const json& object, const char* key, std::optional<T>& place) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  T value{};
  read(object, key, value);
  place = std::move(value);
}

void read(const json& object, const char* key, std::vector<std::string>& place) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return;
  for (const auto& entry : *found)
    if (entry.is_string()) place.push_back(entry.get<std::string>());
}

const json& child(const json& object, const char* key) {
  static const json nothing = json::object();
  const auto found = object.find(key);
  return found != object.end() && found->is_object() ? *found : nothing;
}

Device to_device(const json& object) {
  Device device;
  read(object, "address", device.address);
  read(object, "mac", device.mac);
  read(object, "name", device.name);
  return device;
}

Lease to_lease(const json& object) {
  Lease lease;
  read(object, "id", lease.id);
  read(object, "state", lease.state);
  read(object, "kind", lease.kind);
  read(object, "family", lease.family);
  read(object, "protocol", lease.protocol);
  read(child(object, "internal"), "address", lease.internal_address);
  read(child(object, "internal"), "port", lease.internal_port);
  read(child(object, "external"), "address", lease.external_address);
  read(child(object, "external"), "port", lease.external_port);
  read(object, "remote", lease.remote);
  read(object, "via", lease.via);
  lease.device = to_device(child(object, "device"));
  read(object, "description", lease.description);
  read(object, "lifetime_s", lease.lifetime_s);
  read(object, "remaining_s", lease.remaining_s);
  read(object, "created", lease.created);
  read(object, "renewals", lease.renewals);
  read(object, "packets_in", lease.packets_in);
  read(object, "packets_out", lease.packets_out);
  read(object, "bytes_in", lease.bytes_in);
  read(object, "bytes_out", lease.bytes_out);
  read(object, "last_packet", lease.last_packet);
  read(child(object, "set"), "size", lease.set_size);
  read(child(object, "set"), "first", lease.set_first);
  return lease;
}

Block to_block(const json& object) {
  Block block;
  read(object, "id", block.id);
  block.device = to_device(child(object, "device"));
  read(object, "protocol", block.protocol);
  read(child(object, "internal"), "port", block.internal_port);
  read(object, "until", block.until);
  read(object, "remaining_s", block.remaining_s);
  read(object, "description", block.description);
  return block;
}

std::vector<RevokeAnswer::Failed> to_failed(const json& object) {
  std::vector<RevokeAnswer::Failed> all;
  if (const auto found = object.find("failed"); found != object.end() && found->is_array()) {
    for (const auto& entry : *found) {
      RevokeAnswer::Failed failed;
      read(entry, "id", failed.id);
      read(entry, "reason", failed.reason);
      read(entry, "code", failed.code);
      all.push_back(std::move(failed));
    }
  }
  return all;
}

Failure to_failure(int status, std::string_view body) {
  Failure failure;
  switch (status) {
    case 400:
      failure.kind = Failure::Kind::bad_request;
      break;
    case 401:
    case 403:
      failure.kind = Failure::Kind::not_permitted;
      break;
    case 404:
      failure.kind = Failure::Kind::not_found;
      break;
    case 409:
      failure.kind = Failure::Kind::conflict;
      break;
    default:
      failure.kind = Failure::Kind::failed;
  }
  const auto problem = json::parse(body, nullptr, false);
  if (problem.is_object()) {
    read(problem, "detail", failure.message);
    if (failure.message.empty()) read(problem, "title", failure.message);
  }
  if (failure.message.empty())
    failure.message = "the daemon answered with HTTP status " + std::to_string(status);
  return failure;
}

Failure not_ours() {
  return {Failure::Kind::failed, "the daemon's answer is not the JSON that was expected"};
}

struct Document {
  json object;
};

/// Collects the body; an error for every status but 200.
Answer<Document> call(const std::string& socket, const http::Request& request) {
  http::Head head;
  std::string body;
  const auto done = http::exchange(
      socket, request, [&](const http::Head& got) { head = got; },
      [&](std::string_view part) {
        body += part;
        return true;
      });
  if (!done) return done.error();
  if (head.status != 200) return to_failure(head.status, body);
  auto parsed = json::parse(body, nullptr, false);
  if (!parsed.is_object()) return not_ours();
  return Document{std::move(parsed)};
}

/// Cuts the objects out of {"leases":[{...},{...}]} as they arrive, however it is laid out.
class ArrayCutter {
 public:
  /// False when what comes cannot be JSON.
  template <class Each>
  bool take(std::string_view text, const Each& each) {
    for (const char c : text) {
      if (depth_ >= 3) object_ += c;
      if (in_string_) {
        if (escaped_)
          escaped_ = false;
        else if (c == '\\')
          escaped_ = true;
        else if (c == '"')
          in_string_ = false;
        continue;
      }
      if (c == '"') {
        in_string_ = true;
      } else if (c == '{' || c == '[') {
        if (++depth_ == 3) object_ = c;
      } else if (c == '}' || c == ']') {
        if (--depth_ == 2 && !object_.empty()) {
          if (!each(object_)) return false;
          object_.clear();
        }
        if (depth_ < 0) return false;
        if (depth_ == 0) complete_ = true;
      }
    }
    return true;
  }
  bool complete() const { return complete_; }

 private:
  std::string object_;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false, complete_ = false;
};

json ids_or_filter(const std::vector<std::string>& ids, const Filter& filter) {
  json body = json::object();
  if (!ids.empty()) {
    body["ids"] = ids;
  } else {
    body["filter"] = json::array();
    for (const auto& [key, value] : filter.words) body["filter"].push_back(key + "=" + value);
  }
  return body;
}

std::string dump(const json& body) { return body.dump(-1, ' ', true, json::error_handler_t::replace); }

}  // namespace

Client::Client(std::string socket) : socket_{std::move(socket)} {}

Answer<Status> Client::status() {
  const auto got = call(socket_, {.method = "GET", .target = "/api/v1/status", .body = {}});
  if (!got) return got.error();
  Status status;
  read(got->object, "version", status.version);
  read(got->object, "uptime_s", status.uptime_s);
  read(got->object, "data_plane", status.data_plane);
  read(got->object, "data_plane_reason", status.data_plane_reason);
  read(got->object, "epoch_s", status.epoch_s);
  read(got->object, "leases", status.leases);
  read(got->object, "mappings", status.mappings);
  read(got->object, "static_mappings", status.static_mappings);
  read(got->object, "implicit_mappings", status.implicit_mappings);
  read(got->object, "flows", status.flows);
  read(got->object, "packets", status.packets);
  read(got->object, "blocks", status.blocks);
  read(child(got->object, "store"), "state", status.store_state);
  read(child(got->object, "store"), "reason", status.store_reason);
  read(got->object, "external_addresses", status.external_addresses);
  read(got->object, "protocols", status.protocols);
  read(got->object, "warnings", status.warnings);
  if (const auto found = got->object.find("interfaces"); found != got->object.end() && found->is_array()) {
    for (const auto& entry : *found) {
      if (!entry.is_object()) continue;
      Status::Interface interface;
      read(entry, "name", interface.name);
      read(entry, "role", interface.role);
      read(entry, "up", interface.up);
      read(entry, "served", interface.served);
      read(entry, "addresses", interface.addresses);
      status.interfaces.push_back(std::move(interface));
    }
  }
  return status;
}

Answer<void> Client::leases(const Filter& filter, bool with_implicit,
                            const std::function<void(const Lease&)>& each) {
  http::Request request{.method = "GET", .target = "/api/v1/leases", .body = {}};
  std::string query = to_query(filter);
  if (with_implicit) query += query.empty() ? "all=1" : "&all=1";
  if (!query.empty()) request.target += "?" + query;
  http::Head head;
  std::string problem;
  ArrayCutter cutter;
  bool sound = true;
  const auto done = http::exchange(
      socket_, request, [&](const http::Head& got) { head = got; },
      [&](std::string_view part) {
        if (head.status != 200) {
          problem += part;
          return true;
        }
        sound = cutter.take(part, [&](const std::string& text) {
          const auto object = json::parse(text, nullptr, false);
          if (!object.is_object()) return false;
          each(to_lease(object));
          return true;
        });
        return sound;
      });
  if (!done) return done.error();
  if (head.status != 200) return to_failure(head.status, problem);
  if (!sound || !cutter.complete()) return not_ours();
  return {};
}

Answer<Lease> Client::lease(std::string_view id) {
  const auto got =
      call(socket_, {.method = "GET", .target = "/api/v1/leases/" + percent_encode(id), .body = {}});
  if (!got) return got.error();
  return to_lease(got->object);
}

Answer<std::vector<Block>> Client::blocks() {
  const auto got = call(socket_, {.method = "GET", .target = "/api/v1/blocks", .body = {}});
  if (!got) return got.error();
  std::vector<Block> blocks;
  if (const auto found = got->object.find("blocks"); found != got->object.end() && found->is_array())
    for (const auto& entry : *found)
      if (entry.is_object()) blocks.push_back(to_block(entry));
  return blocks;
}

Answer<RevokeAnswer> Client::revoke(const RevokeRequest& request) {
  RevokeAnswer all;
  // the daemon takes requests of 64 KiB: long lists go in several
  constexpr std::size_t at_once = 2000;
  std::size_t from = 0;
  do {
    const auto until = std::min(request.ids.size(), from + at_once);
    const std::vector<std::string> ids{request.ids.begin() + static_cast<std::ptrdiff_t>(from),
                                       request.ids.begin() + static_cast<std::ptrdiff_t>(until)};
    json body = ids_or_filter(ids, request.filter);
    if (request.block) body["block"] = *request.block;
    if (request.dry_run) body["dry_run"] = true;
    const auto got = call(socket_, {.method = "POST", .target = "/api/v1/revoke", .body = dump(body)});
    if (!got) {
      if (all.revoked.empty()) return got.error();
      for (std::size_t i = from; i < request.ids.size(); ++i)
        all.failed.push_back({request.ids[i], got.error().message, "failed"});
      return all;
    }
    read(got->object, "revoked", all.revoked);
    for (auto& failed : to_failed(got->object)) all.failed.push_back(std::move(failed));
    read(got->object, "blocked_until", all.blocked_until);
    from = until;
  } while (from < request.ids.size());
  return all;
}

Answer<UnblockAnswer> Client::unblock(const std::vector<std::string>& ids, const Filter& filter) {
  const auto got = call(
      socket_, {.method = "POST", .target = "/api/v1/unblock", .body = dump(ids_or_filter(ids, filter))});
  if (!got) return got.error();
  UnblockAnswer answer;
  read(got->object, "unblocked", answer.unblocked);
  answer.failed = to_failed(got->object);
  return answer;
}

Answer<void> Client::watch(const std::function<void()>& started,
                           const std::function<bool(const Event&, std::string_view json)>& each) {
  http::Head head;
  std::string pending;
  bool stopped = false;
  const auto done = http::exchange(
      socket_,
      // the daemon says something every 15 s; three times that is silence
      {.method = "GET", .target = "/api/v1/events", .body = {}, .patience = std::chrono::seconds{45}},
      [&](const http::Head& got) {
        head = got;
        if (head.status == 200) started();
      },
      [&](std::string_view part) {
        pending += part;
        if (head.status != 200) return true;
        std::size_t from = 0;
        for (auto end = pending.find('\n'); end != pending.npos; end = pending.find('\n', from)) {
          const auto line = std::string_view{pending}.substr(from, end - from);
          from = end + 1;
          if (!line.starts_with("data: ")) continue;
          const auto text = line.substr(6);
          const auto object = json::parse(text, nullptr, false);
          if (!object.is_object()) continue;
          Event event;
          read(object, "event", event.event);
          read(object, "reason", event.reason);
          event.lease = to_lease(child(object, "lease"));
          if (!each(event, text)) {
            stopped = true;
            return false;
          }
        }
        pending.erase(0, from);
        return true;
      });
  if (!done) return done.error();
  if (head.status != 200) return to_failure(head.status, pending);
  if (stopped) return {};
  return Failure{Failure::Kind::unreachable, "the daemon ended the stream of events"};
}

Answer<void> Client::fetch(std::string_view target, const std::function<void(std::string_view)>& piece) {
  http::Head head;
  std::string problem;
  const auto done = http::exchange(
      socket_, {.method = "GET", .target = std::string{target}, .body = {}},
      [&](const http::Head& got) { head = got; },
      [&](std::string_view part) {
        if (head.status == 200)
          piece(part);
        else
          problem += part;
        return true;
      });
  if (!done) return done.error();
  if (head.status != 200) return to_failure(head.status, problem);
  return {};
}

}  // namespace sallyport::admin
