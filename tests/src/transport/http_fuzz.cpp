// The octets of one HTTP connection, whole and cut in pieces: the same events, within the limits.
#include <cstdlib>
#include <string>

#include "protocols/upnp/http/admission.hpp"
#include "src/transport/http_reader.hpp"

using namespace sallyport;
using transport::HttpReader;

namespace {

constexpr HttpReader::Limits limits{.head_octets = 512, .fields = 8, .target_octets = 64, .body_octets = 300};

std::string read(std::string_view octets, std::size_t piece) {
  HttpReader reader{limits};
  std::string said;
  bool failed = false;
  for (std::size_t at = 0; at < octets.size(); at += piece) {
    reader.feed(octets.substr(at, piece));
    while (const auto event = reader.next()) {
      if (failed) std::abort();
      if (const auto* failure = std::get_if<HttpReader::Failure>(&*event)) {
        failed = true;
        said += "failure " + std::to_string(failure->status);
      } else if (const auto* request = std::get_if<upnp::http::Request>(&*event)) {
        if (request->body.size() > limits.body_octets || request->target.size() > limits.target_octets ||
            request->fields.all().size() > limits.fields || request->method.empty())
          std::abort();
        said += request->method + ' ' + request->target;
        for (const auto& [name, value] : request->fields.all()) {
          if ((name + value).find_first_of(std::string_view{"\r\n\0", 3}) != std::string::npos) std::abort();
          said += '\n' + name + ':' + value;
        }
        said += '\n' + request->body;
        const auto refusal = upnp::http::refuse(*request, {});
        said += refusal ? std::to_string(refusal->status) : "in";
      } else {
        said += "continue";
      }
    }
    if (failed && reader.waiting() != 0) std::abort();
  }
  return said;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::string_view octets{reinterpret_cast<const char*>(data) + 1, size - 1};
  const auto whole = read(octets, octets.size() + 1);
  if (read(octets, 1) != whole) std::abort();
  if (read(octets, 1U + data[0]) != whole) std::abort();
  return 0;
}
