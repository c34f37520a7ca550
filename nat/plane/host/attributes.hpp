#pragma once

#include <libmnl/libmnl.h>

#include <cstddef>

namespace sallyport::nat::host {

/// libmnl's mnl_attr_for_each is C: it assigns void pointers. `header` is the size of what stands before the
/// attributes.
template <class OnAttribute>
void for_each_attribute(const nlmsghdr* message, std::size_t header, OnAttribute&& on_attribute) {
  const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  const auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, header));
  while (mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)))) {
    on_attribute(attribute);
    attribute = mnl_attr_next(attribute);
  }
}

}  // namespace sallyport::nat::host
