#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/plane/data_plane.hpp"
#include "nat/plane/memory/memory_plane.hpp"

namespace sallyport::test {

/// A plane that tests give packets by hand. The tests of the engine are compiled once and linked with each plane that
/// can be run so: what holds for one holds for all.
class TestPlane : public nat::DataPlane {
 public:
  using Emitted = nat::MemoryPlane::Emitted;

  /// Takes one packet and gives what goes out: itself, translated, unless it was dropped or held; and behind it
  /// whatever else it caused.
  virtual std::vector<Emitted> pass(std::vector<std::byte> octets, nat::Side from, TimePoint now) = 0;
  virtual nat::Action last_action() const = 0;
  virtual nat::DropReason last_reason() const = 0;
  virtual void listen(Transport transport, std::uint16_t port) = 0;
  virtual void close(Transport transport, std::uint16_t port) = 0;
  /// What was made without a packet since the last call: RSTs of sessions that ended.
  virtual std::vector<Emitted> take_made() = 0;
  /// The engine that packets pass; null where programs in the kernel do what it does.
  virtual nat::Engine* engine() = 0;
  /// Why nothing can be run here; empty when all is well.
  virtual std::string unusable() const { return {}; }
};

/// The plane that the test program is linked with.
std::unique_ptr<TestPlane> make_test_plane(const nat::EngineOptions& options);

}  // namespace sallyport::test
