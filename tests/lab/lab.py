"""Hosts in network namespaces: internet, gateway, device1, device2, and what a test does with them.

    internet  203.0.114.1, 198.51.100.10, 198.51.100.20 (behind a route)
       | wan0
    gateway   203.0.114.7, 192.168.50.1 (br0); on request a guest LAN 192.168.60.1 (guest0), a VPN 10.99.0.1 (vpn0)
       | br0
    device1   192.168.50.11      device2   192.168.50.12

Everything is named after our process and goes away with it: at the end, after a failure, after Ctrl-C and SIGTERM;
what a kill -9 of ourselves leaves is removed by the next run. Nothing outside these namespaces is changed.
"""

import atexit
import contextlib
import ctypes
import errno
import glob
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
EXTERNAL = "203.0.114.7"
PEER = "203.0.114.1"          # the provider's router: an internet host on the WAN's own subnet
FAR = "198.51.100.10"         # internet hosts behind it
OTHER_FAR = "198.51.100.20"
LAN = "192.168.50.1"
DEVICE1 = "192.168.50.11"
DEVICE2 = "192.168.50.12"
PATIENCE = float(os.environ.get("SALLYPORT_LAB_PATIENCE", "10"))  # seconds until something awaited counts as not coming
SILENCE = 0.4                  # seconds of listening before nothing came counts as nothing came

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)
_cleanups = []
_owner = os.getpid()


# -- cleaning up, whatever happens

def at_end(function, *args):
    _cleanups.append((function, args))


def clean_up():
    if os.getpid() != _owner:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)
    while _cleanups:
        function, args = _cleanups.pop()
        with contextlib.suppress(Exception):
            function(*args)


def _ended(number, _frame):
    clean_up()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def guard():
    """Arms the clean-up and removes what a killed run left behind."""
    atexit.register(clean_up)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    for path in glob.glob("/run/netns/sp*-*-*"):
        match = re.fullmatch(r"sp\d+-(\d+)-\w+", os.path.basename(path))
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            run("ip", "netns", "del", os.path.basename(path), check=False)
    for path in glob.glob(os.path.join(tempfile.gettempdir(), "sallyport-lab-*-*")):
        match = re.fullmatch(r"sallyport-lab-(\d+)-\w+", os.path.basename(path))
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            for disk in glob.glob(os.path.join(path, "disk")):
                run("umount", "-l", disk, check=False)
            shutil.rmtree(path, ignore_errors=True)


def run(*command, check=True, stdin=None, timeout=60):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def wait_until(what, ask, seconds=None):
    """The first true value of ask(); an AssertionError that says `what` did not happen."""
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while True:
        value = ask()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


# -- a host

class Host:
    def __init__(self, lab, role):
        self.role = role
        self.name = f"sp{lab.number}-{os.getpid()}-{role}"
        self.path = f"/run/netns/{self.name}"
        run("ip", "netns", "add", self.name)
        lab.later(self.remove)
        self.ip("link", "set", "lo", "up")
        if os.stat(self.path).st_ino == os.stat("/proc/self/ns/net").st_ino:
            raise RuntimeError(f"{self.name} is the machine's own network namespace")
        # no router discovery, no duplicate address detection: the lab is IPv4
        self.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        self.sysctl("net.ipv6.conf.default.disable_ipv6", 1)

    def remove(self):
        run("ip", "netns", "del", self.name, check=False)

    @contextlib.contextmanager
    def inside(self):
        """The calling thread is in this host; sockets opened meanwhile stay there."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        here = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(here, 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")
            try:
                yield self
            finally:
                if _libc.setns(back, 0x40000000) != 0:
                    os._exit(70)  # never go on in the wrong namespace
        finally:
            os.close(here)
            os.close(back)

    def ip(self, *words, check=True):
        return run("ip", "-n", self.name, *words, check=check)

    def ip_json(self, *words):
        return json.loads(run("ip", "-n", self.name, "-j", *words) or "[]")

    def run(self, *command, **kw):
        return run("ip", "netns", "exec", self.name, *command, **kw)

    def call(self, *command, timeout=60):
        """The finished process, whatever its exit code."""
        return subprocess.run(["ip", "netns", "exec", self.name, *command], capture_output=True, text=True,
                              timeout=timeout)

    def popen(self, *command, **kw):
        child = subprocess.Popen(["ip", "netns", "exec", self.name, *command], preexec_fn=_die_with_parent, **kw)
        at_end(end_process, child)
        return child

    def sysctl(self, key, value=None):
        path = "/proc/sys/" + key.replace(".", "/")
        with self.inside():  # /proc/sys/net shows the namespace of who opens it
            with open(path, "r" if value is None else "w") as file:
                if value is None:
                    return file.read().strip()
                file.write(str(value))

    def number(self, device):
        return self.ip_json("link", "show", device)[0]["ifindex"]

    def link_local(self, device):
        """Its IPv6 address there, which it has from now on."""
        for key, value in (("accept_dad", 0), ("accept_ra", 0), ("disable_ipv6", 0)):
            self.sysctl(f"net.ipv6.conf.{device}.{key}", value)

        def address():
            return next((a["local"] for a in self.ip_json("-6", "addr", "show", "dev", device)[0].get("addr_info", ())
                         if a["scope"] == "link" and not a.get("tentative")), None)

        return wait_until(f"{self.role} has a link-local address", address)

    def mac(self, device):
        return self.ip_json("link", "show", device)[0]["address"]

    # sockets
    def socket(self, *args):
        with self.inside():
            return socket.socket(*args)

    def udp(self, address="0.0.0.0", port=0, timeout=None, scope=0):
        six = ":" in address
        sock = self.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port, 0, scope) if six else (address, port))
        sock.settimeout(PATIENCE if timeout is None else timeout)
        return sock

    def listen(self, address="0.0.0.0", port=0):
        sock = self.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(64)
        sock.settimeout(PATIENCE)
        return sock

    def connect(self, to, source=("0.0.0.0", 0), timeout=None):
        """IPv6 when `to` is: (address, port, 0, number of the interface)."""
        six = ":" in to[0]
        if six and source == ("0.0.0.0", 0):
            source = ("::", 0)
        sock = self.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(source)
            sock.settimeout(PATIENCE if timeout is None else timeout)
            sock.connect(to)
        except BaseException:
            sock.close()
            raise
        return sock

    def sniff(self, device, **kw):
        return Sniffer(self, device, **kw)

    def send_frame(self, device, destination_mac, packet, source_mac=None, ethertype=0x0800):
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind((device, 0))
            sock.send(mac_bytes(destination_mac) + mac_bytes(source_mac or self.mac(device)) +
                      struct.pack("!H", ethertype) + packet)


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


class Sniffer:
    """Every IPv4 packet that passes a device, from the moment the object stands (AF_PACKET is on at once)."""

    def __init__(self, host, device, outgoing=True):
        self.sock = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind((device, 0x0003))
        self.sock.setblocking(False)
        self.outgoing = outgoing  # also what the host itself sends
        self.seen = []

    def packets(self):
        """All seen until now: (incoming, IPv4 packet) each."""
        while True:
            try:
                frame, where = self.sock.recvfrom(70000)
            except BlockingIOError:
                return self.seen
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # told once when the device goes; what it heard is still to be read
                    raise
                continue
            incoming = where[2] != 4  # PACKET_OUTGOING
            if len(frame) >= 34 and frame[12:14] == b"\x08\x00" and (incoming or self.outgoing):
                total = struct.unpack_from("!H", frame, 16)[0]
                self.seen.append((incoming, frame[14:14 + max(total, 20)]))

    def find(self, wanted):
        from wire import parse
        for _, raw in self.packets():
            packet = parse(raw)
            if packet and wanted(packet):
                return packet
        return None

    def await_packet(self, what, wanted, seconds=None):
        return wait_until(what, lambda: self.find(wanted), seconds)

    def all(self, wanted=lambda packet: True):
        from wire import parse
        found = (parse(raw) for _, raw in self.packets())
        return [packet for packet in found if packet and wanted(packet)]

    def clear(self):
        self.packets()
        self.seen = []

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def end_process(child, seconds=6):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# -- the daemon

def toml(table):
    """Enough TOML for a configuration: tables of values, and lists of tables."""

    def value(v):
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, (list, tuple)):
            return "[" + ", ".join(value(x) for x in v) + "]"
        return json.dumps(v)

    def walk(prefix, node):
        plain = [f"{k} = {value(v)}" for k, v in node.items()
                 if not isinstance(v, dict) and not (isinstance(v, list) and v and isinstance(v[0], dict))]
        out = ([f"[{prefix}]"] if prefix and plain else []) + plain
        for k, v in node.items():
            name = f"{prefix}.{k}" if prefix else k
            if isinstance(v, dict):
                out += walk(name, v)
            elif isinstance(v, list) and v and isinstance(v[0], dict):
                for entry in v:
                    out += [f"[[{name}]]"] + [f"{a} = {value(b)}" for a, b in entry.items()]
        return out

    return "\n".join(walk("", table)) + "\n"


def merged(base, over):
    out = dict(base)
    for key, value in (over or {}).items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


class Daemon:
    """sallyportd in the gateway. Its files stand in a directory of their own, the log stays until the lab ends."""

    def __init__(self, lab, config=None, flags=(), state=None):
        self.lab = lab
        self.directory = tempfile.mkdtemp(prefix="daemon-", dir=lab.directory)
        self.state = state or os.path.join(self.directory, "state")
        self.socket = os.path.join(self.directory, "admin.sock")
        self.config_file = os.path.join(self.directory, "sallyport.toml")
        self.log_file = os.path.join(self.directory, "log")
        self.out_file = os.path.join(self.directory, "out")
        self.flags = list(flags)
        self.process = None
        self.configure(config)

    def configure(self, config=None, text=None):
        base = {"listen": {"lan": ["br0"], "wan": ["wan0"], "protocols": ["pcp", "natpmp"]},
                "engine": {"data_plane": self.lab.data_plane},
                "admin": {"socket": self.socket}, "store": {"dir": self.state}, "log": {"level": "debug"}}
        with open(self.config_file + ".new", "w") as file:
            file.write(toml(merged(base, config)) if text is None else text)
        os.rename(self.config_file + ".new", self.config_file)

    def command(self, *more):
        return [self.lab.daemon_path, "--config", self.config_file, *self.flags, *more]

    def start(self, wait=True):
        assert not self.running(), "already running"
        with open(self.out_file, "wb") as out, open(self.log_file, "ab") as log:
            self.process = self.lab.gateway.popen(*self.command(), stdout=out, stderr=log, stdin=subprocess.DEVNULL,
                                                  cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=30):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"sallyportd ended with code {self.process.returncode}:\n{self.log_tail()}")
            return "sallyportd ready\n" in self.out()

        try:
            wait_until("the line `sallyportd ready`", ready, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def out(self):
        with open(self.out_file, errors="replace") as file:
            return file.read()

    def log(self):
        try:
            with open(self.log_file, errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def log_tail(self, lines=25):
        return "\n".join("    " + line for line in self.log().splitlines()[-lines:])

    def kill(self):
        """kill -9"""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=15):
        """SIGTERM; its exit code."""
        if self.running():
            self.process.terminate()
            self.process.wait(seconds)
        return self.process.returncode

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def detach(self):
        return self.lab.gateway.call(*self.command("--detach"))

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"^VmRSS:\s+(\d+)", file.read(), re.M).group(1))


class Lab:
    """The four hosts. `guest` and `vpn` add those links; `wan` False leaves the WAN without an address and a route."""

    build = os.path.join(ROOT, "build")
    daemon_path = os.path.join(ROOT, "build/bin/sallyportd")
    cli_path = os.path.join(ROOT, "build/bin/sallyport")
    data_plane = "tun"

    def __init__(self, guest=False, vpn=False, wan=True):
        if os.geteuid() != 0:
            raise RuntimeError("network namespaces need root")
        self.number = next(_numbers)
        self._later = []
        self.directory = tempfile.mkdtemp(prefix=f"sallyport-lab-{os.getpid()}-")
        self.later(shutil.rmtree, self.directory, True)
        at_end(self.close)
        self.internet, self.gateway, self.device1, self.device2 = (
            Host(self, role) for role in ("internet", "gateway", "device1", "device2"))
        self.devices = {1: self.device1, 2: self.device2}
        gw, net = self.gateway, self.internet
        self.wire(gw, "wan0", net, "eth0")
        net.ip("addr", "add", f"{PEER}/24", "dev", "eth0")
        for far in (FAR, OTHER_FAR):
            net.ip("addr", "add", f"{far}/32", "dev", "lo")
        net.ip("route", "add", "192.168.0.0/16", "via", EXTERNAL)  # an attacker on the WAN tries internal addresses
        gw.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
        gw.ip("addr", "add", f"{LAN}/24", "dev", "br0")
        gw.ip("link", "set", "br0", "up")
        for number, device in self.devices.items():
            self.wire(gw, f"lan{number}", device, "eth0")
            gw.ip("link", "set", f"lan{number}", "master", "br0")
            device.ip("addr", "add", f"192.168.50.1{number}/24", "dev", "eth0")
            device.ip("route", "add", "default", "via", LAN)
        self.guest = self.vpn = None
        if guest:
            self.guest = Host(self, "guest")
            self.wire(gw, "guest0", self.guest, "eth0")
            gw.ip("addr", "add", "192.168.60.1/24", "dev", "guest0")
            self.guest.ip("addr", "add", "192.168.60.11/24", "dev", "eth0")
            self.guest.ip("route", "add", "default", "via", "192.168.60.1")
        if vpn:
            self.vpn = Host(self, "vpn")
            self.wire(gw, "vpn0", self.vpn, "eth0")
            gw.ip("addr", "add", "10.99.0.1/24", "dev", "vpn0")
            gw.ip("route", "add", "10.200.0.0/16", "via", "10.99.0.2")
            self.vpn.ip("addr", "add", "10.99.0.2/24", "dev", "eth0")
            self.vpn.ip("addr", "add", "10.200.0.5/32", "dev", "lo")
            self.vpn.ip("route", "add", "192.168.50.0/24", "via", "10.99.0.1")
        if wan:
            self.wan_address()
        self.daemons = []

    def later(self, function, *args):
        self._later.append((function, args))

    def close(self):
        while self._later:
            function, args = self._later.pop()
            with contextlib.suppress(Exception):
                function(*args)

    @staticmethod
    def wire(one, one_name, other, other_name):
        one.ip("link", "add", one_name, "type", "veth", "peer", "name", other_name, "netns", other.name)
        one.ip("link", "set", one_name, "up")
        other.ip("link", "set", other_name, "up")

    def wan_address(self, address=EXTERNAL, old=None):
        if old:
            self.gateway.ip("addr", "del", f"{old}/24", "dev", "wan0")
        self.gateway.ip("addr", "add", f"{address}/24", "dev", "wan0")
        self.gateway.ip("route", "replace", "default", "via", PEER)

    def daemon(self, config=None, flags=(), start=True, state=None):
        daemon = Daemon(self, config, flags, state)
        self.daemons.append(daemon)
        self.later(lambda: daemon.process and end_process(daemon.process))
        return daemon.start() if start else daemon

    # the admin's side
    def cli(self, daemon, *words, stdin=subprocess.DEVNULL):
        return subprocess.run([self.cli_path, "--socket", daemon.socket, *words], capture_output=True, text=True,
                              stdin=stdin, timeout=60)

    def cli_json(self, daemon, *words):
        done = self.cli(daemon, *words, "--json")
        if done.returncode != 0:
            raise AssertionError(f"sallyport {' '.join(words)} --json: code {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def leases(self, daemon, *words):
        return self.cli_json(daemon, "list", *words)["leases"]


# -- services on the hosts

class UdpEcho:
    """Answers each datagram with its own name in front and keeps who sent what.

    A socket on 0.0.0.0 of a host with several addresses answers from another one than was asked, which a NAT rightly
    drops; so a service of the internet stands on FAR unless told otherwise.
    """

    def __init__(self, host, port, name=b"", address=None):
        address = address or {"internet": FAR, "vpn": "10.200.0.5"}.get(host.role, "0.0.0.0")
        self.sock = host.udp(address, port, timeout=0.1)
        self.port = self.sock.getsockname()[1]
        self.name, self.got, self.open = name, [], True
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while self.open:
            try:
                data, sender = self.sock.recvfrom(65536)
            except (TimeoutError, ConnectionError):
                continue
            except OSError:
                return
            self.got.append((data, sender))
            with contextlib.suppress(OSError):
                self.sock.sendto(self.name + data, sender)

    def heard(self, data):
        return next((sender for what, sender in list(self.got) if what == data), None)

    def close(self):
        self.open = False
        self.thread.join()
        self.sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


class TcpEcho:
    """Answers what it reads with its own name in front; keeps who came and how each connection ended."""

    def __init__(self, host, port, name=b"", address="0.0.0.0"):
        self.listener = host.listen(address, port)
        self.listener.settimeout(0.1)
        self.port = self.listener.getsockname()[1]
        self.name, self.peers, self.ends, self.open = name, [], [], True
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while self.open:
            try:
                conn, peer = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        with conn:
            conn.settimeout(0.2)
            while self.open:
                try:
                    data = conn.recv(65536)
                    if not data:
                        self.ends.append("closed")
                        return
                    conn.sendall(self.name + data)
                except TimeoutError:
                    continue
                except ConnectionError:
                    self.ends.append("reset")
                    return

    def close(self):
        self.open = False
        self.thread.join()
        self.listener.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


_tokens = itertools.count(int.from_bytes(os.urandom(3), "big"))


def token(text="probe"):
    return f"{text}-{next(_tokens):x}".encode()


def udp_ask(host, to, source=("0.0.0.0", 0), tries=3, wait=1.0):
    """The answer of a UDP service, or None; sent again as an application would."""
    data = token()
    with host.udp(*source) as sock:
        sock.settimeout(wait)
        for _ in range(tries):
            sock.sendto(data, to)
            end = time.monotonic() + wait
            while time.monotonic() < end:
                try:
                    answer, sender = sock.recvfrom(65536)
                except (TimeoutError, ConnectionError):
                    break
                if answer.endswith(data):
                    return answer[:-len(data)], sender
    return None


def tcp_ask(host, to, source=("0.0.0.0", 0), timeout=None):
    """(name the service answered with, our connection's own address)."""
    data = token()
    with host.connect(to, source, timeout) as sock:
        sock.sendall(data)
        answer = b""
        while not answer.endswith(data):
            more = sock.recv(65536)
            if not more:
                break
            answer += more
        return answer[:-len(data)], sock.getsockname()


def tcp_shut(host, to, seconds=0.7):
    """Nobody answers there: no connection within the time, and no refusal either unless one comes from a mapping's end."""
    try:
        host.connect(to, timeout=seconds).close()
    except (TimeoutError, ConnectionRefusedError, OSError):
        return True
    return False


def is_reset(sock):
    """True once a connection has ended by RST."""
    sock.settimeout(0.05)
    try:
        return sock.recv(1) == b"" and False
    except ConnectionResetError:
        return True
    except (TimeoutError, BlockingIOError):
        return False
