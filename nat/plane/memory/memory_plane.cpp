#include "nat/plane/memory/memory_plane.hpp"

namespace sallyport::nat {
namespace {

class Collector final : public PacketSink {
 public:
  explicit Collector(std::vector<MemoryPlane::Emitted>& out) : out_{out} {}
  void emit(std::span<const std::byte> packet, Action where) override {
    out_.push_back({{packet.begin(), packet.end()}, where});
  }

 private:
  std::vector<MemoryPlane::Emitted>& out_;
};

}  // namespace

MemoryPlane::MemoryPlane(const EngineOptions& options) : engine_{options, own_ports_} {}

std::vector<MemoryPlane::Emitted> MemoryPlane::take_made() {
  std::vector<Emitted> out;
  Collector sink{out};
  engine_.take_made(sink);
  return out;
}

std::vector<MemoryPlane::Emitted> MemoryPlane::pass(std::vector<std::byte> octets, Side from, TimePoint now) {
  std::vector<Emitted> out;
  Collector sink{out};
  Packet packet{.data = octets.data(), .size = static_cast<std::uint32_t>(octets.size()), .from = from};
  engine_.translate(std::span{&packet, 1}, now, sink);
  last_action_ = packet.action;
  last_reason_ = packet.reason;
  if (packet.action != Action::drop && packet.action != Action::held) {
    octets.resize(packet.size);
    // Fragments that waited for this one follow it.
    out.insert(out.begin(), {std::move(octets), packet.action});
  }
  return out;
}

PlaneStatus MemoryPlane::status() const {
  PlaneStatus status;
  status.name = "memory";
  status.running = true;
  engine_.fill_status(status);
  return status;
}

}  // namespace sallyport::nat
