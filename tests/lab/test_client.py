"""The client library by way of `sallyport open` and `close`, at sallyportd and at Debian's miniupnpd: each protocol
alone and all at once."""

import shutil
import signal
import tempfile
import time
import unittest

from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, OTHER_FAR, tcp_ask, tcp_shut, wait_until
from labcase import LabCase
from opened import Miniupnpd, Opened, environment

SECONDS = 40
CONFLICT, NOT_PERMITTED, UNREACHABLE = 6, 4, 5
ANNOUNCED = 6.5  # an announcement spreads its hearers over up to 5 s (PCP-14.1-07, NPM-3.7-03)


class ClientCase(LabCase):
    words = ()      # how the client asks
    via = ("pcp",)  # what may grant then

    def open(self, port, *words, **kw):
        opened = Opened(self.lab, port, *self.words, *words, **kw)
        self.addCleanup(opened.close)
        return opened

    def run_client(self, command, *words, home=None, device=1):
        """A command that ends by itself: exit code, both outputs, seconds."""
        home = home or tempfile.mkdtemp(prefix="home-", dir=self.lab.directory)
        began = time.monotonic()
        done = self.lab.devices[device].call("env", *(f"{k}={v}" for k, v in environment(home).items() if k == "XDG_STATE_HOME"),
                                             self.lab.cli_path, command, *map(str, (*words, *self.words)), "--json")
        return done.returncode, done.stdout, done.stderr, time.monotonic() - began

    def in_tcp(self, service, external):
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, external), (FAR, 0))[0], service.name)

    def in_udp(self, service, external):
        self.assertEqual(self.answer_of(self.lab.internet, (EXTERNAL, external), source=(FAR, 0))[0], service.name)

    def held(self, protocol, port):
        """The external ports that lead to this port of device 1 or 2."""
        raise NotImplementedError

    def only(self, protocol, port, count=1):
        wait_until(f"{count} mappings of {protocol} {port}", lambda: len(self.held(protocol, port)) == count)


class AtSallyportd:
    """What differs between gateways: here sallyportd."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "lifetimes": {"pcp_min": 4}}

    def held(self, protocol, port):
        return [row["external"]["port"] for row in self.leases()
                if row["protocol"] == protocol and row["internal"]["port"] == port]


class AtMiniupnpd:
    starts = False
    speaks = {}
    daemon = None

    @classmethod
    def setUpClass(cls):
        if not shutil.which("miniupnpd") or not shutil.which("nft"):
            raise unittest.SkipTest("miniupnpd or nft is missing")
        super().setUpClass()
        cls.daemon = Miniupnpd(cls.lab, **cls.speaks)
        wait_until("miniupnpd listens", lambda: cls.lab.gateway.run("ss", "-Hlun", "sport = :5351 or sport = :1900"))

    def held(self, protocol, port):
        number = {"tcp": "0x6", "udp": "0x11"}[protocol]
        return [int(rule.split(" dport ")[1].split()[0]) for rule in self.daemon.rules()
                if f" {number} " in rule and rule.endswith(f":{port}")]


class Opens:
    """What holds for each protocol and gateway."""

    def test_tcp_is_open_until_ctrl_c(self):
        port = self.port()
        service = self.tcp_service(port, name=b"tcp:")
        opened = self.open(port)
        grant = opened.grant()
        self.assertIn(grant["via"], self.via)
        self.assertEqual((grant["gateway"], grant["interface"]), (LAN, "eth0"))
        self.assertEqual((grant["internal"], grant["external"]), ({"address": DEVICE1, "port": port},
                                                                   {"address": EXTERNAL, "port": port}))
        self.assertEqual(grant["lifetime_s"], 7200)
        self.in_tcp(service, port)
        self.only("tcp", port)  # whatever the gateway speaks
        self.assertEqual(opened.end(signal.SIGINT), (0, "closed"))
        self.assertEqual(opened.kinds(), ["granted", *["renewed"] * (len(opened.events) - 2), "closed"])
        self.assertEqual(self.held("tcp", port), [])
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, port)))

    def test_udp_is_open_until_sigterm_at_the_external_port_wished_for(self):
        port, wish = self.port(), self.port()
        service = self.udp_service(port, name=b"udp:")
        opened = self.open(port, "--protocol", "udp", "--external", wish)
        self.assertEqual(opened.grant()["external"]["port"], wish)
        self.in_udp(service, wish)
        self.assertEqual((self.held("udp", port), self.held("tcp", port)), ([wish], []))
        self.assertEqual(opened.end(signal.SIGTERM), (0, "closed"))
        self.assertEqual(self.held("udp", port), [])

    def test_killed_and_started_again_it_has_its_own_port(self):
        port, wish = self.port(), self.port()
        opened = self.open(port, "--external", wish)
        self.assertEqual(opened.grant()["external"]["port"], wish)
        opened.end(signal.SIGKILL)
        self.assertEqual(self.held("tcp", port), [wish])
        again = self.open(port, home=opened.home)  # the wish is remembered
        self.assertEqual(again.grant()["external"]["port"], wish)
        self.assertEqual(self.held("tcp", port), [wish])
        self.assertEqual(again.end(), (0, "closed"))
        self.assertEqual(self.held("tcp", port), [])

    def test_left_open_and_closed_later(self):
        port, home = self.port(), tempfile.mkdtemp(prefix="home-", dir=self.lab.directory)
        code, out, errors, _ = self.run_client("open", port, "--detach-lease", "--for", "10m", home=home)
        self.assertEqual((code, errors), (0, ""), out)
        self.assertIn('"event":"granted"', out)
        self.assertEqual(self.held("tcp", port), [port])
        code, out, errors, _ = self.run_client("close", port, home=home)
        self.assertEqual((code, errors), (0, ""), out)
        self.assertEqual(self.held("tcp", port), [])

    def test_another_gets_another_port_and_none_if_only_this_one_will_do(self):
        port, mine = self.port(), self.port()
        self.open(port).grant()
        opened = self.open(mine, "--external", port, device=2)
        grant = opened.grant()
        self.assertEqual(grant["internal"], {"address": DEVICE2, "port": mine})
        self.assertNotEqual(grant["external"]["port"], port)
        self.only("tcp", mine)
        code, out, errors, seconds = self.run_client("open", self.port(), "--external", port, "--exact", device=2)
        self.assertEqual(code, CONFLICT, out + errors)
        self.assertIn('"reason":"port_taken"', out)
        self.assertIn("Choose another", errors)
        self.assertLess(seconds, 3)


class OpensAtSallyportd(AtSallyportd, Opens, ClientCase):
    """All protocols at once."""

    via = ("pcp", "natpmp", "upnp")

    def test_short_leases_live_on_PCP_11_2_1_NPM_3_7(self):
        port = self.port()
        service = self.tcp_service(port, name=b"on:")
        all_of = [self.open(port if via == "pcp" else self.port(), "--via", via, "--for", "8s") for via in self.via]
        for opened in all_of:
            opened.grant()
        began = time.monotonic()
        for opened in all_of:
            for _ in range(2):
                self.assertLessEqual(opened.grant("renewed")["lifetime_s"], 8)
        wait_until("the first leases are over", lambda: time.monotonic() > began + 8.2)
        self.in_tcp(service, port)
        for opened in all_of:
            self.assertEqual(set(opened.kinds()), {"granted", "renewed"})
            internal = opened.events[0]["grant"]["internal"]["port"]
            self.assertEqual(len(self.held("tcp", internal)), 1)
            self.assertEqual(opened.end(), (0, "closed"))
            self.assertEqual(self.held("tcp", internal), [])

    def test_nothing_is_lost_when_the_gateway_forgets_everything_PCP_8_5_NPM_3_6(self):
        port = self.port()
        service = self.tcp_service(port, name=b"again:")
        all_of = [self.open(port if via == "pcp" else self.port(), "--via", via) for via in self.via]
        for opened in all_of:
            opened.grant()
        # an epoch that has hardly counted cannot go back (PCP-8.5-01)
        wait_until("the epoch has counted", lambda: self.client().natpmp_address().epoch >= 4)
        self.forget_and_restart()
        for opened in all_of:
            internal = opened.events[0]["grant"]["internal"]["port"]
            wait_until(f"{internal} is open again", lambda: self.held("tcp", internal) == [internal], ANNOUNCED)
        self.in_tcp(service, port)
        for opened in all_of:
            self.assertNotIn("revoked", opened.kinds())
            self.assertEqual(opened.end(), (0, "closed"))

    def forget_and_restart(self):
        self.daemon.kill()
        shutil.rmtree(self.daemon.state)
        self.daemon.start()


class PcpAtSallyportd(AtSallyportd, Opens, ClientCase):
    """Where only PCP is spoken."""

    config = {"listen": {"protocols": ["pcp"]}}


class NatPmpAtSallyportd(AtSallyportd, Opens, ClientCase):
    config = {"listen": {"protocols": ["natpmp"]}}
    via = ("natpmp",)


class UpnpAtSallyportd(AtSallyportd, Opens, ClientCase):
    config = {"listen": {"protocols": ["upnp"]}}
    via = ("upnp",)


class OpensAtMiniupnpd(AtMiniupnpd, Opens, ClientCase):
    via = ("pcp", "natpmp", "upnp")
    test_short_leases_live_on = OpensAtSallyportd.test_short_leases_live_on_PCP_11_2_1_NPM_3_7
    test_nothing_is_lost_when_the_gateway_forgets_everything = (
        OpensAtSallyportd.test_nothing_is_lost_when_the_gateway_forgets_everything_PCP_8_5_NPM_3_6)

    def forget_and_restart(self):
        self.daemon.kill()
        self.daemon.forget()
        self.daemon.start()


class PcpAtMiniupnpd(AtMiniupnpd, Opens, ClientCase):
    speaks = {"upnp": False}


class NatPmpAtMiniupnpd(PcpAtMiniupnpd):
    words, via = ("--via", "natpmp"), ("natpmp",)


class UpnpAtMiniupnpd(AtMiniupnpd, Opens, ClientCase):
    speaks = {"natpmp": False}
    via = ("upnp",)


class Happens(AtSallyportd, ClientCase):
    """What becomes of an open port while it is open."""

    via = ("pcp", "natpmp", "upnp")

    def test_a_crash_of_the_gateway_that_keeps_its_leases_is_not_noticed(self):
        port = self.port()
        service = self.tcp_service(port, name=b"kept:")
        all_of = [self.open(port if via == "pcp" else self.port(), "--via", via) for via in self.via]
        for opened in all_of:
            opened.grant()
        before = sorted((row["id"], row["external"]["port"]) for row in self.leases("kind=explicit"))
        self.daemon.kill()
        self.daemon.start()
        self.in_tcp(service, port)
        self.assertEqual(before, sorted((row["id"], row["external"]["port"]) for row in self.leases("kind=explicit")))
        for opened in all_of:
            self.assertLessEqual(set(opened.kinds()), {"granted", "renewed"}, opened.told())
            self.assertEqual(opened.end(), (0, "closed"))

    def test_another_external_address_is_told(self):
        other = "203.0.114.8"
        # UPnP tells no such news: a renewal brings it
        all_of = [self.open(self.port(), "--via", via, "--for", "8s") for via in self.via]
        for opened in all_of:
            self.assertEqual(opened.grant()["external"]["address"], EXTERNAL)
        self.lab.wan_address(other, EXTERNAL)
        try:
            for opened in all_of:
                event = opened.event("changed")
                self.assertEqual(event["grant"]["external"]["address"], other)
                self.assertEqual((event["former"]["external"]["address"], event["former"]["external"]["port"]),
                                 (EXTERNAL, event["grant"]["external"]["port"]))
        finally:
            self.lab.wan_address(EXTERNAL, other)
        for opened in all_of:
            self.assertEqual(opened.grant("changed")["external"]["address"], EXTERNAL)
            self.assertNotIn("lost", opened.kinds())
            self.assertEqual(opened.end(), (0, "closed"))

    def test_what_the_administrator_takes_back_is_told_as_revoked_PCP_14_2(self):
        port = self.port()
        opened = self.open(port)
        opened.grant()
        lease = self.lease("tcp", port)["id"]
        self.assertEqual(self.cli_json("revoke", lease, "--block", "forever")["revoked"], [lease])
        event = opened.event("revoked")
        self.assertEqual((event["reason"], event["grant"]["external"]["port"]), ("revoked", port))
        self.assertEqual(opened.event("refused")["reason"], "not_authorized")
        self.assertEqual(self.held("tcp", port), [])
        self.assertIsNone(opened.process.poll())  # it goes on asking
        self.assertEqual(opened.end(), (0, "closed"))
        self.assertEqual(self.cli("unblock", lease).returncode, 0)

    def test_a_link_that_was_down_and_an_address_that_changed(self):
        device, other = self.lab.device2, "192.168.50.32"
        port = self.port()
        opened = self.open(port, device=2)
        opened.grant()
        device.ip("link", "set", "eth0", "down")
        self.assertEqual(opened.event("lost")["reason"], "network_changed")
        device.ip("link", "set", "eth0", "up")
        device.ip("route", "replace", "default", "via", LAN)
        self.assertEqual(opened.grant()["internal"]["address"], DEVICE2)
        self.only("tcp", port)
        device.ip("addr", "del", f"{DEVICE2}/24", "dev", "eth0")
        device.ip("addr", "add", f"{other}/24", "dev", "eth0")
        device.ip("route", "replace", "default", "via", LAN)
        try:
            self.assertEqual(opened.event("lost")["reason"], "network_changed")
            self.assertEqual(opened.grant()["internal"]["address"], other)
            self.assertEqual(opened.end(), (0, "closed"))
        finally:
            device.ip("addr", "del", f"{other}/24", "dev", "eth0")
            device.ip("addr", "add", f"{DEVICE2}/24", "dev", "eth0")
            device.ip("route", "replace", "default", "via", LAN)

    def test_only_who_may_comes_in_PCP_13_3(self):
        port = self.port()
        self.tcp_service(port, name=b"few:")
        opened = self.open(port, "--remote", f"{FAR}/32")
        self.assertEqual(opened.grant()["via"], "pcp")  # NAT-PMP has no filters
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, port), (FAR, 0))[0], b"few:")
        with self.assertRaises((TimeoutError, ConnectionError)):
            self.lab.internet.connect((EXTERNAL, port), (OTHER_FAR, 0), timeout=0.7)
        self.assertEqual(opened.end(), (0, "closed"))

    def test_several_runs_of_one_user_remember_all_their_ports(self):
        home = tempfile.mkdtemp(prefix="home-", dir=self.lab.directory)
        ports = {self.port(): self.port() for _ in range(4)}
        all_of = [self.open(port, "--external", wish, home=home) for port, wish in ports.items()]
        for opened in all_of:
            opened.grant()
        for opened in all_of:
            opened.end(signal.SIGKILL)
        ids = [row["id"] for row in self.leases("kind=explicit") if row["internal"]["port"] in ports]
        self.assertEqual(self.cli("revoke", "--yes", *ids).returncode, 0)  # what is known now, the file knows
        for port, wish in ports.items():
            again = self.open(port, home=home)
            self.assertEqual(again.grant()["external"]["port"], wish)
            self.assertEqual(self.held("tcp", port), [wish])
            self.assertEqual(again.end(), (0, "closed"))

    def test_many_at_once_are_one_lease_each(self):
        ports = [self.port() for _ in range(24)]
        all_of = [self.open(port, "--protocol", "udp" if port % 2 else "tcp", device=1 + port % 2) for port in ports]
        for opened in all_of:
            opened.grant()
        for port in ports:  # a lesser one that a slow answer made is given back
            self.only("udp" if port % 2 else "tcp", port)
        rows = [(row["protocol"], row["internal"]["port"]) for row in self.leases() if row["internal"]["port"] in ports]
        self.assertEqual(sorted(rows), sorted(("udp" if port % 2 else "tcp", port) for port in ports))
        for opened in all_of:
            self.assertEqual(opened.end(), (0, "closed"))


class Refuses(AtSallyportd, ClientCase):
    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]},
              "policy": {"rule": [{"device": "192.168.50.0/24", "action": "deny"}]}}

    def test_is_told_at_once_with_its_code(self):
        for via in ("auto", "pcp", "natpmp", "upnp"):
            code, out, errors, seconds = self.run_client("open", self.port(), "--via", via)
            self.assertEqual(code, NOT_PERMITTED, (via, out, errors))
            self.assertIn('"event":"refused"', out)
            self.assertIn('"reason":"not_authorized"', out)
            self.assertIn("Ask who runs the gateway", errors)
            self.assertLess(seconds, 2.5, via)  # some 0.3 s, and not the 3 s of silence


class NobodyAnswers(ClientCase):
    starts = False

    def setUp(self):
        self.device_asks = self.sniff(self.lab.device1, "eth0")
        # silence, and no word that nobody listens there
        self.lab.gateway.run("nft", "-f", "-", stdin="table ip mute { chain in { type filter hook input priority 0; drop; }; }")
        self.addCleanup(self.lab.gateway.run, "nft", "delete", "table", "ip", "mute")

    def test_is_told_with_its_code(self):
        for words in ((), ("--via", "upnp")):
            code, out, errors, seconds = self.run_client("open", self.port(), *words)
            self.assertEqual(code, UNREACHABLE, out + errors)
            self.assertIn('"reason":"no_gateway"', out)
            self.assertIn("netcheck", errors)
            self.assertLess(seconds, 5)  # 3 s of waiting

    def test_ctrl_c_is_not_held_up_by_silence(self):
        opened = self.open(self.port())
        wait_until("it asks", lambda: self.device_asks.find(lambda p: p.dport == 5351))
        began = time.monotonic()
        self.assertEqual(opened.end(), (0, "closed"))
        self.assertLess(time.monotonic() - began, 2)

    def test_without_a_network(self):
        self.lab.device2.ip("link", "set", "eth0", "down")
        code, out, errors, _ = self.run_client("open", self.port(), device=2)
        self.assertEqual(code, UNREACHABLE, out + errors)
        self.assertIn('"reason":"no_network"', out)
