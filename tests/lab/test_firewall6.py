"""IPv6 between LAN and WAN: hosts speak first, nobody else; what a crash leaves; a system without IPv6."""

import socket

from lab import FAR, token, wait_until
from labcase import LabCase

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
            wait_until("IPv6 is filtered", lambda: "2001:db8:50::/64" in cls.lab.gateway.ip("-6", "rule", "show"))

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
