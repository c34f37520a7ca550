"""Kinds of links: a WAN without a link layer (as PPP), sub-interfaces, several LANs."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
import time
import unittest

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, PEER, TcpEcho, UdpEcho, tcp_ask, token, wait_until
from labcase import Chatter, LabCase, leaks

SECONDS = 20
GUEST, GUEST_LAN = "192.168.60.11", "192.168.60.1"


class Links(LabCase):
    """What has to work whatever the links are. `build` makes them, before the daemon starts."""

    starts = False
    outer = "eth0"  # the provider's end of the WAN

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.build()
        cls.start(cls.config)

    @classmethod
    def build(cls):
        pass

    def hosts(self):
        """LAN hosts with their addresses and their gateways."""
        found = [(self.lab.device1, DEVICE1, LAN), (self.lab.device2, DEVICE2, LAN)]
        return found + ([(self.lab.guest, GUEST, GUEST_LAN)] if self.lab.guest else [])

    def echo(self, host, port, name):
        service = UdpEcho(host, port, name)
        self.addCleanup(service.close)
        return service

    def answered(self, host, to, size=0, source=("0.0.0.0", 0)):
        """A datagram of that size there and back."""
        data = token() + b"." * size
        with host.udp(*source, timeout=0.5) as sock:
            def once():
                sock.sendto(data, to)
                try:
                    return sock.recv(65536).endswith(data)
                except (TimeoutError, ConnectionError):
                    return False
            wait_until(f"{len(data)} octets to {to} are answered", once)

    def refused(self, host, to):
        """An ICMP error comes back to the socket that asked for it."""
        with host.udp() as sock:
            sock.connect(to)

            def once():
                try:
                    sock.settimeout(0.2)
                    sock.send(b"anybody?")
                    sock.recv(100)
                except ConnectionRefusedError:
                    return True
                except TimeoutError:
                    return False
            wait_until(f"{to} is told to be closed", once)

    def mapped(self, protocol, of=0):
        """A mapping of a LAN host; its port inside and outside."""
        host, address, gateway = self.hosts()[of]
        port = self.port()
        answer = self.client(host=host, address=address, gateway=gateway).map(protocol, port, port)
        self.assertEqual((answer.result, answer.external), (0, port))
        return port

    def test_udp_tcp_and_pings_get_out(self):
        with UdpEcho(self.lab.internet, 7800, b"u") as udp, TcpEcho(self.lab.internet, 7800, b"t") as tcp:
            for host, address, _ in self.hosts():
                self.answered(host, (FAR, 7800), source=(address, 0))
                self.assertEqual(tcp_ask(host, (FAR, 7800))[0], b"t")
                self.assertEqual(host.call("ping", "-n", "-c", "1", "-W", "5", FAR).returncode, 0)
            self.assertEqual({sender[0] for _, sender in udp.got}, {EXTERNAL})
            self.assertEqual({peer[0] for peer in tcp.peers}, {EXTERNAL})

    def test_streams_both_ways(self):
        for way in ((), ("-R",)):
            server = self.lab.internet.popen("iperf3", "-s", "-1", "-B", FAR, stdout=subprocess.DEVNULL)
            wait_until("iperf3 listens", lambda: ":5201" in self.lab.internet.run("ss", "-Hltn"))
            done = self.lab.device1.call("iperf3", "-c", FAR, "-n", "5M", *way, timeout=120)
            server.wait(10)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_mappings_let_in(self):
        for of, (host, *_) in enumerate(self.hosts()):
            port = self.mapped("udp", of)
            self.echo(host, port, b"u")
            self.answered(self.lab.internet, (EXTERNAL, port), source=(FAR, 0))
            port = self.mapped("tcp", of)
            with TcpEcho(host, port, b"t"):
                self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, port), (FAR, 0))[0], b"t")

    def test_icmp_errors_find_who_asked(self):
        for of, (host, *_) in enumerate(self.hosts()):
            self.refused(host, (FAR, 7801))
            self.refused(self.lab.internet, (EXTERNAL, self.mapped("udp", of)))

    def test_fragments(self):
        self.echo(self.lab.internet, 7802, b"f")
        for of, (host, *_) in enumerate(self.hosts()):
            self.answered(host, (FAR, 7802), 4000)
            port = self.mapped("udp", of)
            self.echo(host, port, b"f")
            self.answered(self.lab.internet, (EXTERNAL, port), 4000, source=(FAR, 0))

    def test_hairpins_from_every_lan_to_every_lan(self):
        for of, (host, *_) in enumerate(self.hosts()):
            udp, tcp, shut = self.mapped("udp", of), self.mapped("tcp", of), self.mapped("udp", of)
            service = self.echo(host, udp, b"h")
            with TcpEcho(host, tcp, b"t") as listener:
                for other, address, _ in self.hosts():
                    if other is host:
                        continue
                    with self.subTest(of=host.role, by=other.role):
                        self.answered(other, (EXTERNAL, udp))
                        self.answered(other, (EXTERNAL, udp), 4000)
                        self.assertEqual(tcp_ask(other, (EXTERNAL, tcp))[0], b"t")
                        self.refused(other, (EXTERNAL, shut))
                self.assertEqual({peer[0] for peer in listener.peers}, {EXTERNAL})
            self.assertEqual({sender[0] for _, sender in service.got}, {EXTERNAL})

    def leaked(self):
        outside = self.sniff(self.lab.internet, self.outer)
        for host, address, _ in self.hosts():
            with Chatter(host, address):
                outside.clear()
                wait_until("translated packets leave", lambda: outside.find(
                    lambda p: p.source == EXTERNAL and b"leak?" in p.payload))
        return leaks(outside)

    def test_nothing_leaves_as_it_is(self):
        self.assertEqual(self.leaked(), [])


class TwoLans(Links):
    lab_args = {"guest": True}
    config = {"listen": {"lan": ["br0", "guest0"]}}


class TwoLansTheOtherWayRound(Links):
    """The bridge is not the first one, and the first of all is not there."""

    lab_args = {"guest": True}
    config = {"listen": {"lan": ["late0", "guest0", "br0"]}}


class TwoWans(Links):
    """A network behind the second WAN: what goes there leaves by it, whatever way it took through the gateway."""

    lab_args = {"vpn": True}
    config = {"listen": {"wan": ["wan0", "vpn0"]}}
    THERE = "10.200.0.5"

    @classmethod
    def build(cls):
        cls.lab.vpn.ip("route", "replace", f"{EXTERNAL}/32", "via", "10.99.0.1")
        cls.lab.gateway.sysctl("net.ipv4.conf.wan0.rp_filter", 1)

    def setUp(self):
        self.first, self.second = self.sniff(self.lab.internet, "eth0"), self.sniff(self.lab.vpn, "eth0")
        time.sleep(0.5)

    def by_the_second(self, protocol):
        """Something of that protocol left by the second WAN, all of it translated, and nothing by the first."""
        def of_it(sniffer):
            return sniffer.all(lambda p: p.destination in (self.THERE, "10.99.0.2") and p.protocol == protocol)
        wait_until("it leaves by the second WAN", lambda: of_it(self.second))
        self.assertEqual({p.source for p in of_it(self.second)}, {EXTERNAL})
        self.assertEqual(of_it(self.first), [])

    def test_fragments_leave_and_come_by_the_second(self):
        self.echo(self.lab.vpn, 7803, b"v")
        port = self.mapped("udp")
        self.echo(self.lab.device1, port, b"f")
        for size in (10, 4000):
            self.answered(self.lab.device1, (self.THERE, 7803), size)
            self.answered(self.lab.vpn, (EXTERNAL, port), size, source=(self.THERE, 0))
        self.by_the_second(wire.UDP)

    def test_errors_leave_and_come_by_the_second(self):
        self.refused(self.lab.device1, (self.THERE, 7804))
        self.refused(self.lab.vpn, (EXTERNAL, self.mapped("udp")))
        self.by_the_second(wire.ICMP)

    def test_resets_leave_by_the_second(self):
        port = self.mapped("tcp")
        with TcpEcho(self.lab.device1, port, b"t"), self.lab.vpn.connect((EXTERNAL, port), (self.THERE, 0)) as there:
            there.sendall(b"anybody?")
            self.assertTrue(there.recv(1))
            self.assertEqual(self.cli("revoke", "-y", self.lease("tcp", port)["id"]).returncode, 0)
            self.ends_by_reset(there, "the connection by the second WAN")
        self.by_the_second(wire.TCP)


class Wire:
    """A link between two hosts that knows packets only: a TUN device in each."""

    def __init__(self, one, one_name, other, other_name):
        self.ends = [self.end(one, one_name), self.end(other, other_name)]
        self.seen, self.open = [], True
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    @staticmethod
    def end(host, name):
        with host.inside():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        return fd

    def carry(self):
        while self.open:
            for fd in select.select(self.ends, [], [], 0.1)[0]:
                try:
                    packet = os.read(fd, 65536)
                    if fd == self.ends[0]:
                        self.seen.append(packet)
                    os.write(self.ends[1 - self.ends.index(fd)], packet)
                except OSError:  # the other end is full, or down: lost as on any wire
                    continue

    def close(self):
        self.open = False
        self.thread.join()
        for fd in self.ends:
            os.close(fd)


class WithoutALinkLayer(Links):
    """A WAN as PPP makes it: packets without a header before them, no neighbours, one address at each end."""

    lab_args = {"wan": False}
    config = {"listen": {"wan": ["ppp0"]}}

    @classmethod
    def build(cls):
        gateway, internet = cls.lab.gateway, cls.lab.internet
        internet.ip("addr", "del", f"{PEER}/24", "dev", "eth0")
        cls.wire = Wire(gateway, "ppp0", internet, "ppp0")
        cls.addClassCleanup(cls.wire.close)
        internet.ip("addr", "add", PEER, "peer", EXTERNAL, "dev", "ppp0")
        gateway.ip("addr", "add", EXTERNAL, "peer", PEER, "dev", "ppp0")
        for host in (internet, gateway):
            host.ip("link", "set", "ppp0", "mtu", "1492", "up")
        gateway.ip("route", "replace", "default", "dev", "ppp0")
        internet.ip("route", "replace", "192.168.0.0/16", "dev", "ppp0")

    def leaked(self):
        for host, address, _ in self.hosts():
            with Chatter(host, address):
                at = len(self.wire.seen)
                wait_until("translated packets leave", lambda: any(
                    (p := wire.parse(raw)) and p.source == EXTERNAL and b"leak?" in p.payload for raw in self.wire.seen[at:]))
        sources = {p.source for p in map(wire.parse, self.wire.seen) if p}
        return sorted(sources - {EXTERNAL})


class Vlans(Links):
    """802.1Q sub-interfaces on both sides."""

    lab_args = {"wan": False}
    config = {"listen": {"wan": ["wan0.7"], "lan": ["lan3.9"]}}
    outer = "eth0.7"

    @classmethod
    def sub(cls, host, device, number):
        host.ip("link", "add", "link", device, "name", f"{device}.{number}", "type", "vlan", "id", str(number))
        host.ip("link", "set", f"{device}.{number}", "up")

    @classmethod
    def build(cls):
        lab, gateway, internet = cls.lab, cls.lab.gateway, cls.lab.internet
        try:
            cls.sub(gateway, "wan0", 7)
        except RuntimeError as error:
            raise unittest.SkipTest(f"this kernel has no 802.1Q: {error}") from None
        cls.sub(internet, "eth0", 7)
        internet.ip("addr", "del", f"{PEER}/24", "dev", "eth0")
        internet.ip("addr", "add", f"{PEER}/24", "dev", "eth0.7")
        gateway.ip("addr", "add", f"{EXTERNAL}/24", "dev", "wan0.7")
        gateway.ip("route", "replace", "default", "via", PEER)
        internet.ip("route", "replace", "192.168.0.0/16", "via", EXTERNAL)
        lab.wire(gateway, "lan3", lab.device1, "eth3")
        cls.sub(gateway, "lan3", 9)
        cls.sub(lab.device1, "eth3", 9)
        gateway.ip("addr", "add", "192.168.90.1/24", "dev", "lan3.9")
        lab.device1.ip("addr", "add", "192.168.90.11/24", "dev", "eth3.9")
        lab.device1.ip("route", "replace", "default", "via", "192.168.90.1")

    def hosts(self):
        return [(self.lab.device1, "192.168.90.11", "192.168.90.1")]


class AnotherUplink(LabCase):
    """An interface that is neither LAN nor WAN takes the WAN's default route (POL-NET-01): what the LAN sends to the world
    does not leave by it as it is."""

    NEAR, BEYOND = "203.0.116.7", "203.0.116.1"  # the second provider's ends

    def setUp(self):
        self.uplink()
        self.addCleanup(self.lab.gateway.ip, "link", "del", "alt0", check=False)
        self.addCleanup(self.lab.wan_address_back)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lab.wan_address_back = lambda: cls.lab.gateway.ip("route", "replace", "default", "via", PEER)

    def uplink(self):
        """The other provider's link, as it comes up; a sniffer stands behind it."""
        lab = self.lab
        lab.gateway.ip("link", "add", "alt0", "type", "veth", "peer", "name", "eth9", "netns", lab.internet.name)
        lab.internet.ip("link", "set", "eth9", "up")
        lab.internet.ip("addr", "add", f"{self.BEYOND}/24", "dev", "eth9")
        self.there = self.sniff(lab.internet, "eth9")
        lab.gateway.ip("link", "set", "alt0", "up")
        lab.gateway.ip("addr", "add", f"{self.NEAR}/24", "dev", "alt0")

    def takes_over(self):
        self.lab.gateway.ip("route", "replace", "default", "via", self.BEYOND, "dev", "alt0")

    def nothing_leaves(self, chatter, what):
        before = chatter.sent
        wait_until("the device talks", lambda: chatter.sent > before + 400)
        with self.lab.gateway.udp(self.NEAR) as sock:  # the router's own goes, and the sniffer hears
            sock.sendto(b"own of the router", (self.BEYOND, 7990))
        wait_until("the router's own is heard", lambda: self.there.find(lambda p: b"own of the router" in p.payload))
        self.assertEqual(leaks(self.there, (EXTERNAL, self.NEAR))[:5], [], what)

    def translated(self, outside):
        outside.clear()
        wait_until("translated packets leave by the WAN", lambda: outside.find(
            lambda p: p.source == EXTERNAL and b"leak?" in p.payload), 20)

    def by_turns(self, what):
        """The default route goes there and back."""
        outside = self.sniff(self.lab.internet, "eth0")
        time.sleep(0.5)
        with Chatter(self.lab.device1, DEVICE1) as chatter:
            for _ in range(2):
                if self.daemon.running() or self.lab.data_plane == "ebpf":
                    self.translated(outside)
                self.takes_over()
                self.nothing_leaves(chatter, what)
                self.lab.wan_address_back()
            if self.daemon.running() or self.lab.data_plane == "ebpf":
                self.translated(outside)
            self.assertEqual(leaks(outside), [])

    def dead(self):
        self.daemon.kill()
        self.addCleanup(self.daemon.start)

    def test_nothing_leaves_by_it_as_it_is(self):
        self.by_turns("while running")

    def test_nor_while_the_daemon_is_dead(self):
        self.dead()
        self.by_turns("while dead")

    def test_nor_when_its_interface_comes_while_the_daemon_is_dead(self):
        self.dead()
        self.lab.gateway.ip("link", "del", "alt0")
        self.uplink()
        self.by_turns("while dead, by an interface made anew")

    def test_nor_when_it_comes_with_its_route(self):
        with Chatter(self.lab.device1, DEVICE1) as chatter:
            for _ in range(5):
                self.lab.gateway.ip("link", "del", "alt0")
                self.lab.wan_address_back()
                self.uplink()
                self.takes_over()
                self.nothing_leaves(chatter, "by an interface that came a moment ago")

    def test_nor_when_the_daemon_starts_then(self):
        outside = self.sniff(self.lab.internet, "eth0")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.daemon.detach().returncode, 0)
        self.takes_over()
        with Chatter(self.lab.device1, DEVICE1) as chatter:
            self.daemon.start()
            self.nothing_leaves(chatter, "after a start")
            self.lab.wan_address_back()
            self.translated(outside)

    def test_an_interface_that_was_a_wan_is_another_one(self):
        with Chatter(self.lab.device1, DEVICE1) as chatter:
            self.daemon.stop()
            type(self).start({"listen": {"wan": ["alt0"]}})
            self.takes_over()
            wait_until("translated packets leave by the other WAN", lambda: self.there.find(
                lambda p: p.source == self.NEAR and b"leak?" in p.payload), 20)
            self.daemon.stop()
            self.there.clear()
            type(self).start({})
            self.nothing_leaves(chatter, "by an interface that was a WAN")


class LanElsewhere(LabCase):
    """A LAN's interface is renamed, made anew, or gives its hosts and its address to another one (POL-NET-01): they are
    internal all the same, and what they send is translated or dropped."""

    starts = False

    def setUp(self):
        lab = self.lab
        lab.gateway.sysctl("net.ipv4.ip_forward", 1)  # the worst case: new interfaces forward
        if self.daemon is None:
            type(self).start()
        elif not self.daemon.running():
            self.daemon.start()
        self.outside = self.sniff(lab.internet, "eth0")
        time.sleep(0.5)

    def talking(self):
        chatter = Chatter(self.lab.device1, DEVICE1, rate=0.002)
        chatter.__enter__()
        self.addCleanup(chatter.__exit__)
        self.translated()
        return chatter

    def translated(self):
        self.outside.clear()
        wait_until("translated packets leave", lambda: self.outside.find(
            lambda p: p.source == EXTERNAL and b"leak?" in p.payload), 20)
        self.assertEqual(leaks(self.outside), [])

    def nothing_leaves(self, chatter, what, seconds=1.5):
        before, end = chatter.sent, time.monotonic() + seconds
        wait_until("the device talks", lambda: chatter.sent > before + 400 and time.monotonic() > end)
        heard = token("own of the router")
        with self.lab.gateway.udp(EXTERNAL) as sock:
            sock.sendto(heard, (PEER, 7991))
        wait_until("the router's own is heard", lambda: self.outside.find(lambda p: heard in p.payload))
        self.assertEqual(leaks(self.outside)[:5], [], what)

    def bridge(self, name, address=f"{LAN}/24"):
        gateway = self.lab.gateway
        gateway.ip("link", "add", name, "type", "bridge", "forward_delay", "0")
        gateway.ip("addr", "add", address, "dev", name)
        gateway.ip("link", "set", name, "up")
        for number in self.lab.devices:
            gateway.ip("link", "set", f"lan{number}", "master", name)

    def stays_inside(self, chatter):
        """Now, with the daemon dead, and after a start that finds the LAN elsewhere."""
        self.nothing_leaves(chatter, "while running")
        self.daemon.kill()
        self.nothing_leaves(chatter, "while dead")
        self.daemon.start(wait=False)
        wait_until("the daemon runs", lambda: self.cli("status").returncode == 0)
        self.nothing_leaves(chatter, "after a start")

    def test_renamed_POL_NET_01(self):
        chatter = self.talking()
        self.lab.gateway.ip("link", "set", "br0", "name", "brX")
        try:
            self.stays_inside(chatter)
        finally:
            self.lab.gateway.ip("link", "set", "brX", "name", "br0")
        self.translated()

    def test_moved_to_another_bridge_POL_NET_01(self):
        gateway, chatter = self.lab.gateway, self.talking()
        gateway.ip("addr", "del", f"{LAN}/24", "dev", "br0")
        self.bridge("br9")
        try:
            self.stays_inside(chatter)
        finally:
            gateway.ip("link", "del", "br9")
            gateway.ip("addr", "add", f"{LAN}/24", "dev", "br0")
            for number in self.lab.devices:
                gateway.ip("link", "set", f"lan{number}", "master", "br0")
        self.translated()

    def test_deleted_and_made_anew_POL_NET_01(self):
        chatter = self.talking()
        for _ in range(3):
            self.lab.gateway.ip("link", "del", "br0")
            try:
                self.nothing_leaves(chatter, "without its interface", 0.3)
            finally:
                self.bridge("br0")
            self.translated()

    def test_what_comes_in_by_the_wan_does_not_reach_it_NSEC_01(self):
        gateway, inside = self.lab.gateway, self.sniff(self.lab.device1, "eth0")
        gateway.ip("link", "set", "br0", "name", "brX")
        try:
            time.sleep(1)
            for _ in range(3):
                self.lab.internet.send_frame("eth0", gateway.mac("wan0"), wire.udp(FAR, 4000, DEVICE1, 1998, b"in?"))
            time.sleep(0.3)
            self.assertEqual(gateway.call("ping", "-c1", "-W5", DEVICE1).returncode, 0)  # the sniffer hears
            self.assertIsNotNone(inside.find(lambda p: p.source == LAN))
            self.assertIsNone(inside.find(lambda p: b"in?" in p.payload))
        finally:
            gateway.ip("link", "set", "brX", "name", "br0")

    def test_the_routers_own_from_its_lan_address_stays_inside_too_POL_NET_01(self):
        gateway = self.lab.gateway
        data = token("from the LAN's address")
        for to in (FAR, PEER):
            with contextlib.suppress(OSError), gateway.udp(LAN) as sock:
                sock.sendto(data, (to, 9000))
            gateway.call("ping", "-c1", "-W1", "-I", LAN, to)
            with contextlib.suppress(OSError), gateway.connect((to, 9999), (LAN, 0), timeout=0.5):
                pass
        with gateway.udp(LAN) as sock, UdpEcho(self.lab.device1, 7992, b"d") as service:  # but to its LAN it goes
            sock.sendto(data, (DEVICE1, 7992))
            wait_until("the LAN host hears", lambda: service.heard(data))
        with gateway.udp() as sock:
            sock.sendto(b"without an address of its own", (PEER, 7993))
        wait_until("the router's own leaves", lambda: self.outside.find(
            lambda p: b"without an address" in p.payload and p.source == EXTERNAL))
        self.assertEqual(gateway.call("ping", "-n", "-c1", "-W5", FAR).returncode, 0)
        self.assertEqual(leaks(self.outside), [])


del Links  # only those that name their links are run
