"""What the tests of the lab share: a lab and a daemon per class, fresh ports per test, doors tried from outside."""

import contextlib
import itertools
import os
import socket
import threading
import time
import unittest

import lab as lab_module
import upnp
import wire
from lab import (DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, PEER, Lab, TcpEcho, UdpEcho, tcp_ask, tcp_shut, token, wait_until)
from wire import Client

CONTROL = 1999  # a static UDP mapping to device1: what arrives there later proves that what came before was dropped
CONTROL_HOST = "192.168.50.19"  # an address of device1 that only that mapping uses


def sanitized(lab):
    """Whether the daemon is a sanitizer's build, whose memory tells nothing."""
    cache = os.path.join(getattr(lab, "build", ""), "CMakeCache.txt")
    if not os.path.exists(cache):
        return False
    with open(cache) as file:
        return any(line.startswith("SALLYPORT_SANITIZE") and line.strip().split("=")[1] for line in file)


class LabCase(unittest.TestCase):
    lab_class = Lab
    lab_args = {}
    config = {}
    flags = ()
    starts = True
    lab = daemon = None

    @classmethod
    def setUpClass(cls):
        cls.lab = cls.lab_class(**cls.lab_args)
        cls.addClassCleanup(cls.lab.close)
        cls.ports = itertools.count(20000)
        cls.control = None
        if cls.starts:
            cls.start(cls.config)

    @classmethod
    def start(cls, config=None):
        control = {"protocol": "udp", "external": CONTROL, "internal": f"{CONTROL_HOST}:{CONTROL}", "description": "control"}
        config = dict(config or {})
        config["static"] = [control, *config.get("static", [])]
        if cls.control is None:
            cls.lab.device1.ip("addr", "add", f"{CONTROL_HOST}/24", "dev", "eth0")
            cls.control = UdpEcho(cls.lab.device1, CONTROL, address=CONTROL_HOST)
            cls.addClassCleanup(cls.control.close)
        if cls.daemon is None:
            cls.daemon = cls.lab.daemon(config, cls.flags, start=False)
        cls.daemon.configure(config)
        cls.daemon.start()

    def port(self):
        return next(self.ports)

    def client(self, device=1, host=None, address=None, **kw):
        client = Client(host or self.lab.devices[device], address or (DEVICE1, DEVICE2)[device - 1], **kw)
        self.addCleanup(client.close)
        return client

    def udp_service(self, port, device=1, name=b"", **kw):
        service = UdpEcho(self.lab.devices[device], port, name, **kw)
        self.addCleanup(service.close)
        return service

    def tcp_service(self, port, device=1, name=b"", **kw):
        service = TcpEcho(self.lab.devices[device], port, name, **kw)
        self.addCleanup(service.close)
        return service

    def sniff(self, host, device):
        sniffer = host.sniff(device)
        self.addCleanup(sniffer.close)
        return sniffer

    # doors, tried from the internet
    def arrives(self, service, external, source=FAR, host=None, sport=0, to=EXTERNAL):
        """A datagram from outside reaches the service; who it came from as the service saw it."""
        data = token()
        with (host or self.lab.internet).udp(source, sport) as sock:
            def sent():
                sock.sendto(data, (to, external))
                time.sleep(0.03)
                return service.heard(data)

            return wait_until(f"a datagram to {to}:{external} arrives inside", sent)

    def dropped(self, service, external, source=FAR, host=None, sport=0, to=EXTERNAL):
        """Datagrams from outside do not reach the service, though one sent after them reaches another one."""
        data = token("unwanted")
        with (host or self.lab.internet).udp(source, sport) as sock:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    sock.sendto(data, (to, external))
        self.arrives(self.control, CONTROL)
        time.sleep(0.05)
        self.assertIsNone(service.heard(data), f"a datagram from {source} to {to}:{external} came through")

    def answer_of(self, host, to, **kw):
        answer = lab_module.udp_ask(host, to, **kw)
        self.assertIsNotNone(answer, f"no answer from {to}")
        return answer

    def ends_by_reset(self, sock, what):
        """Both ends of an ended mapping's connection learn of it by RST, at the latest when they send (NMAP-09)."""
        def reset():
            try:
                sock.settimeout(0.05)
                sock.send(b"still there?")
                while sock.recv(4096):
                    pass
            except TimeoutError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        wait_until(f"{what} is reset", reset)

    def cli(self, *words, **kw):
        return self.lab.cli(self.daemon, *words, **kw)

    def cli_json(self, *words):
        return self.lab.cli_json(self.daemon, *words)

    def leases(self, *words):
        return self.lab.leases(self.daemon, *words)

    def lease(self, protocol, external):
        found = [row for row in self.leases() if row["protocol"] == protocol and row["external"]["port"] == external]
        self.assertEqual(len(found), 1, f"leases of {protocol} {external}: {found}")
        return found[0]


class UpnpCase(LabCase):
    """With the gateway as each device finds it."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gateways = {}

    def gateway(self, device=1):
        if device not in self.gateways:
            self.gateways[device] = upnp.find(self.lab.devices[device], (DEVICE1, DEVICE2)[device - 1], LAN)
        return self.gateways[device]

    def wan(self, device=1, version=None):
        return self.gateway(device).service(upnp.WANIP, version)

    def listener(self, device=1, address=None, **kw):
        listener = upnp.Listener(self.lab.devices[device], address or (DEVICE1, DEVICE2)[device - 1], **kw)
        self.addCleanup(listener.close)
        return listener

    def reached(self, service, external, source=FAR):
        """By TCP from the internet, and the service sees who it was."""
        name, own = tcp_ask(self.lab.internet, (EXTERNAL, external), (source, 0))
        self.assertEqual(name, service.name)
        self.assertEqual(service.peers[-1], own)

    def shut(self, external, **kw):
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, external), **kw), f"tcp {external} is open")


class Chatter:
    """A device that keeps sending all that could leak: UDP, TCP, ICMP and transports that are not translated."""

    def __init__(self, host, address, to=FAR, rate=0.01):
        self.host, self.address, self.to, self.rate = host, address, to, rate
        self.open, self.sent = True, 0
        self.thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def _talk(self):
        raw = self.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        numbers = itertools.count(30000)
        with raw:
            while self.open:
                n = 30000 + next(numbers) % 20000
                me, to = self.address, self.to
                quoted = wire.udp(to, 53, me, n, b"x" * 20)
                for packet in (wire.udp(me, n, to, 53, b"leak?"), wire.tcp(me, n, to, 80, wire.SYN),
                               wire.tcp(me, n, to, 80, wire.ACK, ack=7, data=b"leak?"), wire.echo(me, to, n),
                               wire.icmp(me, to, 3, 3, data=quoted), wire.icmp(me, to, 13, 0, n << 16, b"\0" * 12),
                               wire.ip(me, to, 132, b"sctp" * 8), wire.ip(me, to, 47, b"gre!" * 8),
                               wire.ip(me, to, wire.UDP, b"f" * 64, offset=1480),
                               wire.udp(me, n, PEER, 53, b"leak?")):
                    with contextlib.suppress(OSError):
                        raw.sendto(packet, (to, 0))
                        self.sent += 1
                time.sleep(self.rate)

    def __exit__(self, *_):
        self.open = False
        self.thread.join()


def leaks(sniffer, allowed=(EXTERNAL,)):
    """What left on the WAN with another source address than an external one."""
    out = []
    for incoming, raw in sniffer.packets():
        packet = wire.parse(raw)
        if incoming and packet and packet.source not in allowed:
            out.append(f"{packet.source}:{packet.sport} -> {packet.destination}:{packet.dport} protocol {packet.protocol}")
        elif incoming and packet and packet.inner and packet.inner.destination.startswith("192.168."):
            out.append(f"ICMP {packet.kind}/{packet.code} to {packet.destination} quoting {packet.inner.destination}")
    return out
