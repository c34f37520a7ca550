"""`sallyport open` in a device, watched line by line; and Debian's miniupnpd as the gateway it asks."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time

from lab import LAN, PATIENCE, end_process, wait_until


class Opened:
    """One that runs. `events` are what it has told, each with the time it came at as `at`."""

    def __init__(self, lab, *words, device=1, home=None):
        self.lab, self.home = lab, home or tempfile.mkdtemp(prefix="home-", dir=lab.directory)
        self.errors = tempfile.TemporaryFile("w+")
        self.began, self.events, self.next = time.monotonic(), [], 0
        self.process = lab.devices[device].popen(
            lab.cli_path, "open", *map(str, words), "--json", stdout=subprocess.PIPE, stderr=self.errors,
            stdin=subprocess.DEVNULL, text=True, env=environment(self.home))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append({**json.loads(line), "at": time.monotonic() - self.began})

    def told(self):
        self.errors.seek(0)
        return [{k: v for k, v in event.items() if k in ("at", "event", "reason", "text")} for event in self.events], self.errors.read()

    def event(self, kind, seconds=None, family=None):
        """The next one of this kind, of those not asked for before."""
        def look():
            for number, event in enumerate(self.events[self.next:], self.next):
                if event["event"] == kind and family in (None, event["family"]):
                    self.next = number + 1
                    return event
            return None

        try:
            return wait_until(f"the event {kind}", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; told: {self.told()}") from None

    def grant(self, kind="granted", **kw):
        return self.event(kind, **kw)["grant"]

    def kinds(self):
        return [event["event"] for event in self.events]

    def end(self, number=signal.SIGINT):
        """Its exit code and the kind of its last event."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds=None):
        try:
            code = self.process.wait(PATIENCE if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; told: {self.told()}") from None
        self.thread.join()
        return code, self.events[-1]["event"] if self.events else None

    def close(self):
        end_process(self.process)
        self.thread.join()
        self.errors.close()


def environment(home):
    return {**os.environ, "XDG_STATE_HOME": home}


class Miniupnpd:
    """In the place of sallyportd. Its leases are rules of nftables, which outlive it."""

    tables = """table inet miniupnpd {
  chain forward { type filter hook forward priority 0; policy accept; jump leases_forward; }
  chain prerouting { type nat hook prerouting priority -100; jump leases_in; }
  chain postrouting { type nat hook postrouting priority 100; jump leases_out; oifname "wan0" masquerade; }
  chain leases_forward { }
  chain leases_in { }
  chain leases_out { }
}
"""

    def __init__(self, lab, natpmp=True, upnp=True):
        self.lab, self.host, self.process = lab, lab.gateway, None
        self.config = os.path.join(lab.directory, "miniupnpd.conf")
        self.log_file = os.path.join(lab.directory, "miniupnpd.log")
        with open(self.config, "w") as out:
            out.write("ext_ifname=wan0\nlistening_ip=br0\nsecure_mode=yes\nhttp_port=5000\n"
                      f"enable_natpmp={'yes' if natpmp else 'no'}\nenable_upnp={'yes' if upnp else 'no'}\n"
                      "upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=leases_forward\n"
                      "upnp_nat_chain=leases_in\nupnp_nat_postrouting_chain=leases_out\n"
                      "min_lifetime=2\nmax_lifetime=86400\nclean_ruleset_interval=1\n"
                      "system_uptime=no\nuuid=00000000-0000-0000-0000-000000000001\n"
                      "allow 1024-65535 192.168.50.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n")
        lab.later(self.stop)
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.start()

    def start(self):
        self.host.run("nft", "-f", "-", stdin=self.tables)
        with open(self.log_file, "ab") as log:
            self.process = self.host.popen("miniupnpd", "-d", "-f", self.config, "-P",
                                           os.path.join(self.lab.directory, "miniupnpd.pid"), stdout=log, stderr=log,
                                           stdin=subprocess.DEVNULL)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def log_tail(self, lines=25):
        with open(self.log_file, errors="replace") as log:
            return "\n".join("    " + line for line in log.read().splitlines()[-lines:])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None:
            end_process(self.process)

    def forget(self):
        """All leases, while it does not run."""
        self.host.run("nft", "delete", "table", "inet", "miniupnpd")

    def rules(self):
        out = self.host.run("nft", "list", "chain", "inet", "miniupnpd", "leases_in")
        return [line.strip() for line in out.splitlines() if "dnat" in line]
