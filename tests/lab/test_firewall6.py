"""IPv6 between LAN and WAN: hosts speak first, nobody else; what a crash leaves; a system without IPv6."""

import contextlib
import json
import socket
import struct
import subprocess

import wire
from lab import FAR, token, wait_until
from labcase import LabCase
from wire import Client

GATEWAY = "2001:db8:50::1"
HOST = "2001:db8:50::11"
WAN = "2001:db8:114::7"
PEER = "2001:db8:114::1"
FAR6 = "2001:db8:100::10"


def give(host, device, *addresses):
    for key, value in (("accept_dad", 0), ("accept_ra", 0), ("disable_ipv6", 0)):
        host.sysctl(f"net.ipv6.conf.{device}.{key}", value)
    for address in addresses:
        host.ip("addr", "add", address, "dev", device, "nodad")


class Ipv6Case(LabCase):
    """The hosts of the lab have IPv6 too; the gateway's system need not forward for it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab = cls.lab
        give(lab.gateway, "br0", f"{GATEWAY}/64")
        give(lab.gateway, "wan0", f"{WAN}/64")
        give(lab.device1, "eth0", f"{HOST}/64")
        give(lab.internet, "eth0", f"{PEER}/64")
        give(lab.internet, "lo", f"{FAR6}/128")
        lab.gateway.ip("-6", "route", "add", "default", "via", PEER)
        lab.device1.ip("-6", "route", "add", "default", "via", GATEWAY)
        lab.internet.ip("-6", "route", "add", "2001:db8:50::/48", "via", WAN)
        try:
            lab.gateway.sysctl("net.ipv6.conf.all.force_forwarding")
        except OSError:  # before Linux 6.17 that is the administrator's
            lab.gateway.sysctl("net.ipv6.conf.all.forwarding", 1)
        cls.start(cls.config)
        if cls.filtered:  # the daemon takes the addresses up when the kernel tells of them
            if lab.data_plane == "tun":
                wait_until("IPv6 is filtered", lambda: "2001:db8:50::/64" in lab.gateway.ip("-6", "rule", "show"))
            wait_until("IPv6 gets out", lambda: lab.device1.call("ping", "-6", "-c1", "-W1", FAR6).returncode == 0)

    starts = False
    filtered = True

    def listener(self, host, address, port):
        sock = host.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(8)
        sock.settimeout(10)
        self.addCleanup(sock.close)
        return sock

    def datagrams(self, host, address, port=0):
        sock = host.udp(address, port)
        self.addCleanup(sock.close)
        return sock

    def pinhole(self, protocol, port, lifetime=3600):
        """A door to device1, by PCP over IPv6."""
        client = Client(self.lab.device1, HOST, GATEWAY)
        self.addCleanup(client.close)
        answer = client.map(protocol, port, lifetime=lifetime, external_address="::")
        self.assertEqual((answer.result, answer.external), (0, port))
        return answer

    def heard(self, sock, data, seconds=0.5):
        """Who sent `data`; None when nobody did in time."""
        sock.settimeout(seconds)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                got, sender = sock.recvfrom(65536)
                if got == data:
                    return sender
        return None

    def crosses(self, of, to, sock, port):
        """A datagram from `of` reaches the socket, sent again as applications do."""
        data = token()
        def once():
            of.sendto(data, (to, port))
            return self.heard(sock, data, 0.2)
        return wait_until(f"a datagram reaches {to} port {port}", once)

    def comes_through(self, of, to, port, timeout=None):
        """Whether a TCP connection stands."""
        try:
            of.connect((to, port), timeout=timeout).close()
        except TimeoutError:
            return False
        return True


class Firewall(Ipv6Case):
    def test_hosts_speak_first_and_nobody_else(self):
        port = self.port()
        self.listener(self.lab.internet, FAR6, port)
        self.listener(self.lab.device1, HOST, port)
        self.assertTrue(self.comes_through(self.lab.device1, FAR6, port))
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=1))

    def test_pings_of_hosts_are_answered_and_those_to_hosts_are_not(self):
        self.lab.device1.run("ping", "-6", "-c1", "-W5", FAR6)
        self.assertNotEqual(self.lab.internet.call("ping", "-6", "-c1", "-W1", HOST).returncode, 0)
        self.lab.internet.run("ping", "-6", "-c1", "-W5", WAN)  # the router's own stack
        self.lab.device1.run("ping", "-6", "-c1", "-W5", GATEWAY)

    def test_large_packets_find_their_size(self):
        self.lab.device1.run("ping", "-6", "-c1", "-W5", "-s", "4000", FAR6)  # fragments, both ways

    def test_status_tells(self):
        status = self.cli_json("status")
        self.assertIn("IPv6 is filtered", status["data_plane_reason"])
        self.assertFalse([w for w in status["warnings"] if "IPv6" in w], status["warnings"])
        self.assertIn(GATEWAY, next(i for i in status["interfaces"] if i["name"] == "br0")["addresses"])

    def test_a_new_prefix_of_the_provider_is_taken_up(self):
        gateway, device, internet = self.lab.gateway, self.lab.device1, self.lab.internet
        give(gateway, "br0", "2001:db8:51::1/64")
        give(device, "eth0", "2001:db8:51::11/64")
        internet.ip("-6", "route", "add", "2001:db8:51::/48", "via", WAN)
        device.ip("-6", "route", "add", f"{FAR6}/128", "via", GATEWAY, "src", "2001:db8:51::11")
        self.addCleanup(device.ip, "-6", "route", "del", f"{FAR6}/128", check=False)
        port = self.port()
        self.listener(internet, FAR6, port)
        self.listener(device, "2001:db8:51::11", port)
        self.assertFalse(self.comes_through(internet, "2001:db8:51::11", port, timeout=0.5))
        wait_until("the new prefix gets out", lambda: self.comes_through(device, FAR6, port, timeout=1))
        self.assertFalse(self.comes_through(internet, "2001:db8:51::11", port, timeout=0.5))


def udp6(source, sport, destination, dport, data):
    """An IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    bare = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    total = wire.checksum(ends + struct.pack("!IHBB", len(bare), 0, 0, wire.UDP) + bare) or 0xffff
    return struct.pack("!IHBB", 6 << 28, len(bare), wire.UDP, 64) + ends + bare[:6] + struct.pack("!H", total) + data


def too_big(source, destination, mtu, quoted):
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    bare = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    total = wire.checksum(ends + struct.pack("!IHBB", len(bare), 0, 0, 58) + bare)
    return struct.pack("!IHBB", 6 << 28, len(bare), 58, 64) + ends + bare[:2] + struct.pack("!H", total) + bare[4:]


class Traffic(Ipv6Case):
    """What passes, in the shapes that real traffic has."""

    def test_streams_of_super_packets_both_ways(self):
        for way in ((), ("-R",)):
            server = self.lab.internet.popen("iperf3", "-s", "-1", "-B", FAR6, stdout=subprocess.DEVNULL)
            wait_until("iperf3 listens", lambda: ":5201" in self.lab.internet.run("ss", "-Hltn"))
            done = self.lab.device1.call("iperf3", "-6", "-c", FAR6, "-n", "100M", "-J", *way, timeout=120)
            server.wait(10)
            report = json.loads(done.stdout)
            self.assertEqual(done.returncode, 0, report.get("error"))
            self.assertGreaterEqual(report["end"]["sum_received"]["bytes"], 90 << 20)  # the rest may be on its way

    def test_datagrams_in_fragments_both_ways(self):
        port = self.port()
        inside, outside = self.datagrams(self.lab.device1, HOST, port), self.datagrams(self.lab.internet, FAR6, port)
        self.pinhole("udp", port)
        data = token() * 500
        for sock, to, other in ((inside, FAR6, outside), (outside, HOST, inside)):
            sock.sendto(data, (to, port))
            self.assertIsNotNone(self.heard(other, data, 5), f"fragments to {to}")
        # nobody asked for these
        stranger = self.datagrams(self.lab.internet, PEER)
        closed = self.datagrams(self.lab.device1, HOST, self.port())
        stranger.sendto(data, (HOST, closed.getsockname()[1]))
        self.crosses(stranger, HOST, inside, port)
        self.assertIsNone(self.heard(closed, data, 0.1))

    def test_a_revoke_ends_a_live_connection_for_both_ends(self):
        port = self.port()
        listener = self.listener(self.lab.device1, HOST, port)
        self.pinhole("tcp", port)
        outside = self.lab.internet.connect((HOST, port))
        inside, _ = listener.accept()
        self.addCleanup(outside.close)
        self.addCleanup(inside.close)
        for one, other in ((outside, inside), (inside, outside)):
            one.sendall(b"hello")
            self.assertEqual(other.recv(5), b"hello")
        row = next(r for r in self.leases() if r["family"] == "ipv6" and r["external"]["port"] == port)
        self.assertEqual(self.cli_json("revoke", row["id"])["revoked"], [row["id"]])
        self.ends_by_reset(outside, "the outer end")
        self.ends_by_reset(inside, "the inner end")
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=0.7))

    def mtu_error(self, sock, to, data):
        """Sends until the kernel knows that it is too large."""
        try:
            sock.sendto(data, to)
        except OSError as error:
            return error.errno == 90  # EMSGSIZE
        return False

    def test_a_smaller_link_is_told_by_too_big(self):
        lab, port = self.lab, self.port()
        inside, outside = self.datagrams(lab.device1, HOST, port), self.datagrams(lab.internet, FAR6, port)
        for sock in (inside, outside):
            sock.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER: IPV6_PMTUDISC_DO
        self.pinhole("udp", port)
        # the gateway's own links: to the outside from the inside, and back
        for link, sock, to in (("wan0", inside, FAR6), ("br0", outside, HOST)):
            lab.gateway.ip("link", "set", link, "mtu", "1400")
            self.addCleanup(lab.gateway.ip, "link", "set", link, "mtu", "1500")
            wait_until(f"too big for {link}", lambda: self.mtu_error(sock, (to, port), b"x" * 1440))
            lab.gateway.ip("link", "set", link, "mtu", "1500")

    def test_a_routers_too_big_passes_for_a_flow_and_no_other(self):
        lab, port, other = self.lab, self.port(), self.port()
        inside, outside = self.datagrams(lab.device1, HOST, port), self.datagrams(lab.internet, FAR6, port)
        inside.setsockopt(socket.IPPROTO_IPV6, 23, 2)
        self.crosses(inside, FAR6, outside, port)
        into = lab.gateway.mac("wan0")
        seen = lab.device1.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))
        self.addCleanup(seen.close)
        seen.bind(("eth0", 0x86dd))
        for sport, mtu in ((other, 1290), (port, 1300)):
            error = too_big(PEER, HOST, mtu, udp6(HOST, sport, FAR6, port, b"y" * 1200)[:1200])
            lab.internet.send_frame("eth0", into, error, ethertype=0x86dd)
        self.assertTrue(wait_until("it knows", lambda: self.mtu_error(inside, (FAR6, port), b"x" * 1380)))
        seen.setblocking(False)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = seen.recv(4096)
                if frame[20] == 58 and frame[54] == 2:
                    told.append(struct.unpack_from("!I", frame, 58)[0])
        self.assertEqual(told, [1300])

    def test_forged_sources_pass_in_neither_direction(self):
        lab, port = self.lab, self.port()
        inside, outside = self.datagrams(lab.device1, HOST, port), self.datagrams(lab.internet, FAR6, port)
        self.pinhole("udp", port)
        into, out = lab.gateway.mac("wan0"), lab.gateway.mac("br0")
        for source in (f"{HOST}2", GATEWAY, WAN, "::1", "fe80::77", "ff02::1"):
            lab.internet.send_frame("eth0", into, udp6(source, 4000, HOST, port, b"forged"), ethertype=0x86dd)
        lab.internet.send_frame("eth0", into, udp6(FAR6, 4000, HOST, port, b"honest"), ethertype=0x86dd)
        self.assertEqual(inside.recvfrom(100)[0], b"honest")
        for source in ("2001:db8:77::1", WAN, GATEWAY, FAR6):
            lab.device1.send_frame("eth0", out, udp6(source, 4000, FAR6, port, b"forged"), ethertype=0x86dd)
        lab.device1.send_frame("eth0", out, udp6(HOST, 4000, FAR6, port, b"honest"), ethertype=0x86dd)
        self.assertEqual(outside.recvfrom(100)[0], b"honest")


class Dead(Ipv6Case):
    def test_only_what_was_opened_passes_before_while_and_after_the_daemon_is_dead_POL_NET_04(self):
        lab, port, other = self.lab, self.port(), self.port()
        inside, shut = self.datagrams(lab.device1, HOST, port), self.datagrams(lab.device1, HOST, other)
        outside, stranger = self.datagrams(lab.internet, FAR6, port), self.datagrams(lab.internet, PEER)
        self.pinhole("udp", port)
        self.crosses(stranger, HOST, inside, port)
        listener = self.listener(lab.internet, FAR6, other)
        running = lab.device1.connect((FAR6, other))
        self.addCleanup(running.close)
        far, _ = listener.accept()
        self.addCleanup(far.close)
        # whatever comes while it is dead: an address of a new prefix among it
        self.daemon.kill()
        give(lab.gateway, "br0", "2001:db8:52::1/64")
        give(lab.device1, "eth0", "2001:db8:52::11/64")
        lab.internet.ip("-6", "route", "add", "2001:db8:52::/48", "via", WAN)
        fresh = self.datagrams(lab.device1, "2001:db8:52::11", other)
        for to, sock in ((HOST, inside), (HOST, shut), ("2001:db8:52::11", fresh)):
            data = token("unasked")
            stranger.sendto(data, (to, sock.getsockname()[1]))
            self.assertIsNone(self.heard(sock, data, 0.4), f"to {to} while the daemon is dead")
        running.sendall(b"waits")
        lab.internet.run("ping", "-6", "-c1", "-W5", WAN)  # the router's own goes on
        self.daemon.start()
        self.crosses(stranger, HOST, inside, port)  # the pinhole is back
        for to, sock in ((HOST, shut), ("2001:db8:52::11", fresh)):
            data = token("unasked")
            stranger.sendto(data, (to, sock.getsockname()[1]))
            self.assertIsNone(self.heard(sock, data, 0.3), f"to {to} after the start")
        # a flow of UDP goes on with the host's next datagram; a connection of before is not taken up
        self.crosses(inside, FAR6, outside, port)
        far.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            far.recv(10)


class FailsClosed(Ipv6Case):
    def test_nothing_passes_after_a_crash_and_all_is_well_again_after_the_start(self):
        port = self.port()
        self.listener(self.lab.internet, FAR6, port)
        self.listener(self.lab.device1, HOST, port)
        self.assertTrue(self.comes_through(self.lab.device1, FAR6, port))
        self.daemon.kill()
        self.assertFalse(self.comes_through(self.lab.device1, FAR6, port, timeout=0.7))
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=0.7))
        self.daemon.start()
        self.assertTrue(self.comes_through(self.lab.device1, FAR6, port))
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=0.7))
        self.daemon.stop()
        self.assertEqual(self.daemon.detach().returncode, 0)
        self.assertNotIn("proto 83", self.lab.gateway.ip("-d", "-6", "rule", "show"))
        self.assertEqual(self.lab.gateway.ip("-6", "route", "show", "table", "7100", check=False), "")


class SwitchedOff(Ipv6Case):
    config = {"engine": {"ipv6": False}}
    filtered = False

    def test_it_is_the_systems_until_a_reload_says_otherwise(self):
        self.assertIn("IPv6 is left to the system", self.cli_json("status")["data_plane_reason"])
        self.lab.gateway.sysctl("net.ipv6.conf.all.forwarding", 1)
        port = self.port()
        self.listener(self.lab.device1, HOST, port)
        self.assertTrue(self.comes_through(self.lab.internet, HOST, port))
        self.daemon.configure()
        self.daemon.hang_up()
        wait_until("the firewall stands", lambda: not self.comes_through(self.lab.internet, HOST, port, timeout=0.5))


class SwitchedOffByReload(Ipv6Case):
    def test_what_was_switched_on_for_the_filtered_does_not_stay_for_all(self):
        lab = self.lab
        if lab.gateway.sysctl("net.ipv6.conf.all.forwarding") != "0":
            self.skipTest("before Linux 6.17 forwarding is the administrator's")
        port = self.port()
        self.listener(lab.device1, HOST, port)
        self.daemon.configure({"engine": {"ipv6": False}})
        self.daemon.hang_up()
        wait_until("it is the system's", lambda: "left to the system" in self.cli_json("status")["data_plane_reason"])
        self.assertFalse(self.comes_through(lab.internet, HOST, port, timeout=0.5))
        self.daemon.configure()
        self.daemon.hang_up()
        wait_until("it is filtered again", lambda: lab.device1.call("ping", "-6", "-c1", "-W1", FAR6).returncode == 0)
        self.assertFalse(self.comes_through(lab.internet, HOST, port, timeout=0.5))


class WithoutIpv6(LabCase):
    """A kernel that has none: nothing below /proc/sys/net/ipv6."""

    starts = False

    def test_it_says_so_and_goes_on_with_IPv4(self):
        daemon = self.lab.daemon(start=False)
        command = daemon.command
        daemon.command = lambda *more: ["unshare", "-m", "sh", "-c",
                                        "mount -t tmpfs none /proc/sys/net/ipv6 && exec \"$0\" \"$@\"", *command(*more)]
        daemon.start()
        self.assertIn("this system has no IPv6", daemon.log())
        self.assertIn("this system has no IPv6", self.lab.cli_json(daemon, "status")["data_plane_reason"])
        self.assertEqual(self.lab.gateway.ip("-6", "rule", "show").count("iif"), 0)
        data = token()
        with self.lab.internet.udp(FAR, 7300) as there, self.lab.device1.udp() as here:
            here.sendto(data, (FAR, 7300))
            self.assertEqual(there.recvfrom(100)[0], data)
        daemon.stop()
