"""Gateways to measure at: sallyportd and Debian's miniupnpd, each with a LAN and an outside of its own."""

import os
import re
import socket
import subprocess
import sys
import time

from benchlib import *  # noqa: F403

SOURCES = 128
GATEWAY = "192.168.4.1"
FIRST_SOURCE = "192.168.5.0"
EXTERNAL = "203.0.114.7"  # miniupnpd refuses the documentation ranges
RESERVED = {1900, 5000, 5350, 5351}
PORTS = [p for p in range(1024, 65000) if p not in RESERVED]  # as bench_load counts them


def source(index):
    a, b, c, d = map(int, FIRST_SOURCE.split("."))
    number_ = (c << 8 | d) + index % SOURCES
    return f"{a}.{b}.{number_ >> 8}.{number_ & 255}"


class Gateway:
    """A gateway with one LAN and one WAN host around it, and a daemon that grants leases."""

    def __init__(self, letter, scratch, gateways, sources=SOURCES):
        self.hosts, self.pid, self.leases = [], None, 0
        gateways.append(self)  # first, so that whatever happens next is cleaned up
        self.dir = os.path.join(scratch, self.name)
        os.makedirs(self.dir)
        self.gw, self.device, self.outside = (self.host(f"sb{letter}{n}") for n in "gdw")
        link(self.gw, "lan0", self.device, "eth0")
        link(self.gw, "wan0", self.outside, "eth0")
        self.gw.ip("addr", "add", f"{GATEWAY}/22", "dev", "lan0")
        self.gw.ip("addr", "add", f"{EXTERNAL}/24", "dev", "wan0")
        self.outside.ip("addr", "add", "203.0.114.1/24", "dev", "eth0")
        address_batch(self.device, "eth0", [f"{source(k)}/22" for k in range(sources)])
        self.device.ip("route", "add", "default", "via", GATEWAY)
        self.gw.ip("route", "add", "default", "via", "203.0.114.1")
        self.gw.sysctl(net__ipv4__ip_forward=1)

    def host(self, name):
        host = Host(name)
        self.hosts.append(host)
        return host

    def load(self, program, op, protocol, first, count, in_flight, timeout_ms=1000):
        text = run("ip", "netns", "exec", self.device.name, program, "--server", GATEWAY, "--first-source", FIRST_SOURCE,
                   "--sources", str(SOURCES), "--protocol", protocol, "--op", op, "--first", str(first), "--count", str(count),
                   "--in-flight", str(in_flight), "--timeout-ms", str(timeout_ms),
                   check=False, timeout=900)
        if not text.strip():
            raise RuntimeError(f"{self.name}: bench_load gave no answer for {op} by {protocol}")
        result = json_of(text)
        bad = {k: result[k] for k in ("refused", "lost", "strange") if result[k]}
        if bad:
            say(f"  {self.name}: {op} by {protocol} at {self.leases} leases: {bad}")
        return result

    def remove(self):
        if self.pid:
            stop(self.pid)
        for host in self.hosts:
            host.remove()


class Ours(Gateway):
    name = "ours"
    settle = 1.0

    def start(self, build_dir, extra=()):
        self.state = os.path.join(self.dir, "state")
        self.socket = os.path.join(self.dir, "admin.sock")
        self.log = open(os.path.join(self.dir, "log"), "a")
        self.process = self.gw.popen(
            [os.path.join(build_dir, "bin", "sallyportd"), "--lan", "lan0", "--wan", "wan0", "--state-dir", self.state,
             "--admin-socket", self.socket, "--data-plane", "tun", *extra], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()  # ends at the latest when the daemon does
        if "ready" not in line:
            raise RuntimeError(f"sallyportd did not start:\n{open(self.log.name).read()[-2000:]}")
        self.pid = self.process.pid  # `ip netns exec` becomes what it starts
        time.sleep(0.3)

    def fill(self, program, level):
        if level > self.leases:
            self.load(program, "grant", "pcp", self.leases, level - self.leases, 256, timeout_ms=3000)
            self.leases = level

    def list(self):
        """Seconds and octets of a listing by the admin API, and its rows."""
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.socket)
            s.sendall(b"GET /api/v1/leases HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            parts = []
            while part := s.recv(1 << 20):
                parts.append(part)
        seconds = time.monotonic() - began
        body = b"".join(parts)
        return {"seconds": seconds, "octets": len(body), "rows": len(re.findall(rb'"remaining_s"', body)),
                "status": body.split(b"\r\n", 1)[0].decode(errors="replace")}


class Miniupnpd(Gateway):
    name = "miniupnpd"
    settle = 0.2
    upnp = "no"  # or "yes": its server of UPnP, on port 5000
    natpmp = "yes"  # or "no": PCP goes with it
    allow = "allow 1024-65535 192.168.4.0/22 1024-65535\n"

    def start(self):
        self.gw.own()
        self.gw.run("nft", "-f", "-", stdin="""table inet miniupnpd {
  chain forward { type filter hook forward priority 0; policy accept; jump leases_forward; }
  chain prerouting { type nat hook prerouting priority -100; jump leases_in; }
  chain postrouting { type nat hook postrouting priority 100; jump leases_out; oifname "wan0" masquerade; }
  chain leases_forward { }
  chain leases_in { }
  chain leases_out { }
}
""")
        config = os.path.join(self.dir, "miniupnpd.conf")
        # No lease file: its rewriting would only slow it down.
        with open(config, "w") as out:
            out.write("ext_ifname=wan0\nlistening_ip=lan0\nsecure_mode=yes\n"
                      f"enable_natpmp={self.natpmp}\nenable_upnp={self.upnp}\nhttp_port=5000\n"
                      "upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=leases_forward\n"
                      "upnp_nat_chain=leases_in\nupnp_nat_postrouting_chain=leases_out\nmin_lifetime=120\nmax_lifetime=86400\n"
                      "system_uptime=yes\nuuid=00000000-0000-0000-0000-000000000001\n"
                      + self.allow + "deny 0-65535 0.0.0.0/0 0-65535\n")
        pid_file = os.path.join(self.dir, "pid")
        if os.path.exists(pid_file):
            os.unlink(pid_file)
        self.gw.run("miniupnpd", "-f", config, "-P", pid_file)  # goes to the background by itself
        until = time.monotonic() + 5
        while not (os.path.exists(pid_file) and open(pid_file).read().strip()):
            if time.monotonic() > until:
                raise RuntimeError("miniupnpd did not start")
            time.sleep(0.05)
        self.pid = int(open(pid_file).read())
        time.sleep(0.3)

    def fill(self, program, level):
        """All that a request walks is in the kernel: rules of two leases it granted are copied. By its own protocols
        5,000 leases take more than five minutes."""
        self.program = program
        if level <= self.leases:
            return
        model = len(PORTS) - 2  # the last two, beyond what is measured: they count among the leases present
        if self.leases == 0:
            self.load(program, "grant", "pcp", model, 2, 1, timeout_ms=60000)
        udp, tcp = (model, model + 1) if model % 2 == 0 else (model + 1, model)
        lines = [f"{PORTS[udp]} {source(udp)} {PORTS[tcp]} {source(tcp)}"]
        lines += [f"{'tcp' if k % 2 else 'udp'} {PORTS[k]} {source(k)}" for k in range(max(0, self.leases - 2), level - 2)]
        self.gw.run(sys.executable, os.path.join(os.path.dirname(os.path.realpath(__file__)), "miniupnpd_fill.py"), "miniupnpd",
                    "leases_in,leases_forward", stdin="\n".join(lines), timeout=300)
        found = self.gw.run("nft", "list", "chain", "inet", "miniupnpd", "leases_in").count("dnat")
        if found != level:
            raise RuntimeError(f"miniupnpd has {found} leases instead of {level}")
        self.leases = level

    def refill(self, level):
        """Exactly `level` leases again, whatever was granted and not deleted: a new daemon on empty tables."""
        stop(self.pid)
        self.gw.run("nft", "delete", "table", "inet", "miniupnpd")
        self.leases = 0
        self.start()
        self.fill(self.program, level)
