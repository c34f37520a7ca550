#include <cstdio>

#include <CLI/CLI.hpp>

#include "src/daemon/config.hpp"
#include "src/daemon/daemon.hpp"
#include "src/daemon/log.hpp"

namespace {

constexpr int exit_usage = 2;
constexpr int exit_configuration = 78;  // EX_CONFIG of sysexits.h

}  // namespace

int main(int argc, char** argv) {
  using namespace sallyport::daemon;
  Flags flags;
  bool check = false;
  bool remove = false;
  CLI::App app{"Sallyport: devices of the LAN open ports by PCP, NAT-PMP and UPnP. See sallyportd(8).",
               "sallyportd"};
  app.set_version_flag("--version", "sallyportd " SALLYPORT_VERSION);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  app.add_option(
         "--config", flags.config,
         "read only FILE (default: " + std::string{default_config} + ", then conf.d/*.toml beside it)")
      ->option_text("FILE");
  app.add_flag("--check-config", check, "say what is wrong with the configuration, and exit");
  app.add_flag("--detach", remove, "take every rule, table and setting of ours out of the system, and exit");
  app.add_option("--lan", flags.lan, "a LAN interface; may be given several times")
      ->option_text("IF")
      ->type_size(1)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--wan", flags.wan, "the WAN interface")->option_text("IF");
  app.add_option("--external-address", flags.external_addresses,
                 "pin an external address instead of following the WAN interface; may be given several times")
      ->option_text("A")
      ->type_size(1)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--data-plane", flags.data_plane, "what carries packets: auto, tun or ebpf")
      ->option_text("PLANE")
      ->check(CLI::IsMember({"auto", "tun", "ebpf"}));
  app.add_option("--state-dir", flags.state_dir, "where leases are kept (default: /var/lib/sallyport)")
      ->option_text("DIR");
  app.add_option("--admin-socket", flags.admin_socket,
                 "the unix socket of the admin API (default: /run/sallyport/admin.sock)")
      ->option_text("PATH");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn or error")
      ->option_text("LEVEL")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : exit_usage;
  }

  log::start(flags.log_level.value_or("info"));
  if (remove) return detach();

  auto loaded = load_config(flags);
  if (!loaded.problems.empty()) {
    for (const auto& problem : loaded.problems) {
      if (check || loaded.bad_flags)
        std::fprintf(stderr, "%s\n", log::escaped(problem).c_str());
      else
        log::error(log::escaped(problem));
    }
    return loaded.bad_flags ? exit_usage : exit_configuration;
  }
  if (check) {
    std::puts("configuration is fine");
    return 0;
  }
  log::set_level(loaded.config.log.level);
  return run(loaded.config, flags);
}
