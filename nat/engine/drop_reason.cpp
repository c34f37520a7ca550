#include "nat/engine/drop_reason.hpp"

namespace sallyport::nat {

std::string_view to_string(DropReason reason) noexcept {
  switch (reason) {
    case DropReason::none:
      return "none";
    case DropReason::truncated:
      return "truncated";
    case DropReason::bad_version:
      return "bad_version";
    case DropReason::bad_header_length:
      return "bad_header_length";
    case DropReason::bad_total_length:
      return "bad_total_length";
    case DropReason::bad_header_checksum:
      return "bad_header_checksum";
    case DropReason::ttl_zero:
      return "ttl_zero";
    case DropReason::bad_option:
      return "bad_option";
    case DropReason::source_route:
      return "source_route";
    case DropReason::bad_transport_header:
      return "bad_transport_header";
    case DropReason::bad_transport_length:
      return "bad_transport_length";
    case DropReason::port_zero:
      return "port_zero";
    case DropReason::bad_tcp_flags:
      return "bad_tcp_flags";
    case DropReason::bad_fragment:
      return "bad_fragment";
    case DropReason::bad_extension:
      return "bad_extension";
    case DropReason::spoofed_source:
      return "spoofed_source";
    case DropReason::martian_source:
      return "martian_source";
    case DropReason::martian_destination:
      return "martian_destination";
    case DropReason::internal_destination:
      return "internal_destination";
    case DropReason::not_ours:
      return "not_ours";
    case DropReason::no_external_address:
      return "no_external_address";
    case DropReason::unknown_protocol:
      return "unknown_protocol";
    case DropReason::unknown_icmp:
      return "unknown_icmp";
    case DropReason::ping_refused:
      return "ping_refused";
    case DropReason::hairpin_to_itself:
      return "hairpin_to_itself";
    case DropReason::ttl_expired:
      return "ttl_expired";
    case DropReason::too_big:
      return "too_big";
    case DropReason::no_mapping:
      return "no_mapping";
    case DropReason::filtered:
      return "filtered";
    case DropReason::disabled:
      return "disabled";
    case DropReason::no_session:
      return "no_session";
    case DropReason::out_of_window:
      return "out_of_window";
    case DropReason::ended:
      return "ended";
    case DropReason::mapping_limit:
      return "mapping_limit";
    case DropReason::mapping_rate:
      return "mapping_rate";
    case DropReason::flow_limit:
      return "flow_limit";
    case DropReason::icmp_id_limit:
      return "icmp_id_limit";
    case DropReason::no_ports:
      return "no_ports";
    case DropReason::table_full:
      return "table_full";
    case DropReason::bad_icmp_checksum:
      return "bad_icmp_checksum";
    case DropReason::icmp_fits_nothing:
      return "icmp_fits_nothing";
    case DropReason::fragment_overlap:
      return "fragment_overlap";
    case DropReason::fragment_limit:
      return "fragment_limit";
    case DropReason::fragment_of_dropped:
      return "fragment_of_dropped";
    case DropReason::count_:
      break;
  }
  return "unknown";
}

DropReason reason_of(packet::Malformed malformed) noexcept {
  using packet::Malformed;
  switch (malformed) {
    case Malformed::no:
      return DropReason::none;
    case Malformed::truncated:
      return DropReason::truncated;
    case Malformed::version:
      return DropReason::bad_version;
    case Malformed::header_length:
      return DropReason::bad_header_length;
    case Malformed::total_length:
      return DropReason::bad_total_length;
    case Malformed::header_checksum:
      return DropReason::bad_header_checksum;
    case Malformed::ttl:
      return DropReason::ttl_zero;
    case Malformed::option:
      return DropReason::bad_option;
    case Malformed::source_route:
      return DropReason::source_route;
    case Malformed::transport_header:
      return DropReason::bad_transport_header;
    case Malformed::transport_length:
      return DropReason::bad_transport_length;
    case Malformed::port:
      return DropReason::port_zero;
    case Malformed::tcp_flags:
      return DropReason::bad_tcp_flags;
    case Malformed::fragment:
      return DropReason::bad_fragment;
    case Malformed::extension:
      return DropReason::bad_extension;
  }
  return DropReason::truncated;
}

}  // namespace sallyport::nat
