// The body of an answer, with a status of either kind: a success has a response or nothing in it, and all
// keeps its limits.
#include <cstdlib>

#include "protocols/upnp/soap/client.hpp"

using namespace sallyport::upnp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  http::Reply reply{.status = 200, .body = std::string{reinterpret_cast<const char*>(data), size}};
  for (const unsigned status : {200u, 500u}) {
    reply.status = status;
    const auto read = soap::read_answer(reply, "GetExternalIPAddress");
    if (const auto* const answer = std::get_if<soap::Answer>(&read)) {
      if (status != 200 || answer->arguments.size() > soap::max_out_arguments) std::abort();
      (void)answer->find("NewExternalIPAddress");
    } else {
      const auto& refusal = std::get<soap::Refusal>(read);
      if (refusal.code > 999 || refusal.description.size() > soap::max_error_description) std::abort();
    }
  }
  return 0;
}
