"""netcheck in networks that are in the way each in its own manner, with a helper outside and without one.

`test_topology` shows with the bytes of NAT-PMP and STUN that the network is what the class says; the others ask
`sallyport netcheck`.
"""

import json
import shutil
import signal
import subprocess
import unittest

import stun
import wire
from ahead import OUTER, PRIVATE, SHARED, LabBehind, masquerade
from lab import DEVICE1, EXTERNAL, FAR, LAN, OTHER_FAR, PATIENCE, SILENCE, Host, Lab, wait_until
from labcase import LabCase
from test_firewall6 import FAR6, HOST
from test_firewall6 import Ipv6Case as Ipv6Lab

OTHER_FAR6 = "2001:db8:100::20"
STAGES = ["network", "gateway", "mapping", "address", "second_nat", "probe", "ipv6"]


def asked(test, host, cli, *words):
    """What `sallyport netcheck` says there."""
    done = host.call(cli, "netcheck", *words)
    if "'netcheck' is no command" in done.stderr:
        test.skipTest("this sallyport has no netcheck")
    test.assertNotEqual(done.stdout, "", done.stderr)
    return done.stdout


class Netcheck:
    """What each network has to show; see the classes below."""

    told = None        # the address that the gateway says it has
    result = 0         # of a NAT-PMP request; None: nobody answers
    observed = OUTER   # what the helper sees
    arrives = False    # whether its packet does
    alone = helped = {}  # the verdict and stages to be found without and with a helper

    @classmethod
    def setUpClass(cls):
        if cls.lab_class is LabBehind and not shutil.which("nft"):
            raise unittest.SkipTest("nft is missing")
        super().setUpClass()
        cls.helper = stun.Server(cls.lab.internet)
        cls.addClassCleanup(cls.helper.close)

    def netcheck(self, *words, text=False):
        out = asked(self, self.lab.device1, self.lab.cli_path, *([] if text else ["--json"]), *words)
        return out if text else json.loads(out)

    def with_helper(self, server=None):
        return "--stun", "%s:%d" % (server or self.helper.address)

    def shows(self, report, verdict, **stages):
        self.assertEqual(report["verdict"], verdict, report)
        self.assertEqual([stage["name"] for stage in report["stages"]], STAGES)
        states = {stage["name"]: stage["state"] for stage in report["stages"]}
        self.assertEqual(states, {**states, **stages}, report)
        for stage in report["stages"]:
            self.assertTrue(stage["evidence"] or stage["state"] == "skipped", stage)

    def given_back(self):
        if self.daemon:
            self.assertEqual(self.leases("kind=explicit"), [])

    def test_topology(self):
        port = self.port()
        answer = self.client().ask(wire.natpmp_map("udp", port, port), timeout=None if self.result is not None else SILENCE)
        answer = answer and wire.parse_natpmp(answer)
        self.assertEqual(answer and answer.result, self.result)
        if self.told:
            self.assertEqual(wire.parse_natpmp(self.client().ask(b"\0\0")).address, self.told)
        with self.lab.device1.udp(DEVICE1) as asking, self.lab.device1.udp(DEVICE1, port) as listening:
            self.assertEqual(stun.seen(asking, self.helper.address)[0], self.observed)
            external = answer.external if answer and answer.result == 0 else port
            sender = stun.probe(asking, listening, self.helper.address, external)
            self.assertEqual(sender, (OTHER_FAR, 3479) if self.arrives else None)
            self.assertIn(((OTHER_FAR, 3479), (self.observed, external)), self.helper.sent)
        if answer and answer.result == 0:
            self.client().ask(wire.natpmp_map("udp", port, 0, 0))

    def test_without_a_helper(self):
        self.shows(self.netcheck(), **self.alone)
        self.given_back()

    def test_with_a_helper(self):
        report = self.netcheck(*self.with_helper())
        self.shows(report, **self.helped)
        self.assertEqual(report["paths"][0]["seen"]["address"], self.observed)
        self.given_back()

    def test_of_a_given_port(self):
        port = self.port()
        report = self.netcheck("--port", str(port), *self.with_helper())
        self.assertEqual((report["verdict"], report["port"]), (self.helped["verdict"], port))
        self.given_back()


class Public(Netcheck, LabCase):
    told, observed, arrives = EXTERNAL, EXTERNAL, True
    alone = dict(verdict="likely_reachable", network="yes", gateway="yes", mapping="yes", address="yes",
                 second_nat="unknown", probe="unknown", ipv6="no")
    helped = dict(verdict="reachable", network="yes", gateway="yes", mapping="yes", address="yes", second_nat="no",
                  probe="yes", ipv6="no")

    def test_with_a_helper_that_cannot_probe(self):
        with stun.Server(self.lab.internet, port=13478, probes=False) as plain:
            self.shows(self.netcheck(*self.with_helper(plain.address)), **{**self.alone, "second_nat": "no"})

    def test_with_a_helper_that_is_not_there(self):
        self.shows(self.netcheck(*self.with_helper((FAR, 23478))), **self.alone)

    def test_text_for_people(self):
        lines = self.netcheck(*self.with_helper(), text=True).splitlines()
        self.assertTrue(lines[0].startswith("Reachable:"), lines)
        self.assertEqual([line for line in lines if len(line) > 80], [])


class Asked(LabCase):
    """How it is asked, and what it leaves behind."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}}

    def netcheck(self, *words):
        done = self.lab.device1.call(self.lab.cli_path, "netcheck", *words)
        return done.returncode, json.loads(done.stdout)

    def test_by_each_protocol_alone(self):
        for via in ("pcp", "natpmp", "upnp"):
            code, report = self.netcheck("--json", "--via", via, "--interface", "eth0", "--gateway", LAN)
            path = report["paths"][0]
            self.assertEqual((code, report["verdict"], path["via"], path["protocols"]), (0, "likely_reachable", via, [via]))
            self.assertEqual(path["mapped"], {"address": EXTERNAL, "port": report["port"]})
            self.assertEqual(self.leases("kind=explicit"), [])

    def test_all_protocols_are_listed_and_one_maps(self):
        _, report = self.netcheck("--json", "--protocol", "tcp")
        self.assertEqual((report["paths"][0]["protocols"], report["paths"][0]["via"]), (["pcp", "natpmp", "upnp"], "pcp"))
        self.assertIn("IGD:2", report["stages"][1]["evidence"])

    def test_of_a_gateway_that_is_not_there(self):
        code, report = self.netcheck("--json", "--gateway", "192.168.50.77", "--for", "2s")
        self.assertEqual((code, report["verdict"], report["paths"][0]["gateway"]), (5, "no_gateway", "192.168.50.77"))

    def test_a_port_in_use_is_opened_and_not_probed(self):
        with stun.Server(self.lab.internet) as helper, self.lab.device1.udp(DEVICE1, self.port()) as service:
            port = service.getsockname()[1]
            _, report = self.netcheck("--json", "--port", str(port), "--stun", "%s:%d" % helper.address)
        self.assertEqual((report["verdict"], report["paths"][0]["probe"]), ("likely_reachable", "skipped"))
        self.assertEqual(report["paths"][0]["mapped"]["port"], port)

    def test_ctrl_c_gives_the_test_mapping_back(self):
        child = self.lab.device1.popen(self.lab.cli_path, "netcheck", "--stun", "%s:23478" % FAR, "--for", "30s",
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until("the test mapping is there", lambda: self.leases("kind=explicit"))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
        self.assertEqual((child.returncode, out), (1, ""))
        self.assertIn("interrupted", err)
        self.assertEqual(self.leases("kind=explicit"), [])

    def test_it_ends_in_its_time_when_the_gateway_falls_silent(self):
        child = self.lab.device1.popen(self.lab.cli_path, "netcheck", "--json", "--for", "2s", stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
        wait_until("the test mapping is there", lambda: self.leases("kind=explicit"))
        self.daemon.process.send_signal(signal.SIGSTOP)
        try:
            out, _ = child.communicate(timeout=PATIENCE)
        finally:
            self.daemon.process.send_signal(signal.SIGCONT)
        self.assertEqual((child.returncode, json.loads(out)["verdict"]), (0, "likely_reachable"))
        wait_until("what was sent meanwhile has ended the test mapping", lambda: not self.leases("kind=explicit"))


class ByIpv6(Ipv6Lab):
    """Beside IPv4, with a helper that has both."""

    def netcheck(self, *words):
        return json.loads(asked(self, self.lab.device1, self.lab.cli_path, "--json", *words))

    def test_a_pinhole_is_opened_probed_and_given_back(self):
        self.lab.internet.ip("addr", "add", f"{OTHER_FAR6}/128", "dev", "lo", "nodad")
        with stun.Server(self.lab.internet, addresses=(FAR6, OTHER_FAR6)) as helper:
            report = self.netcheck("--stun", "[%s]:%d" % helper.address)
            self.assertIn(((OTHER_FAR6, 3479), (HOST, report["port"])),
                          [(sender, to[:2]) for sender, to in helper.sent])
        six = report["ipv6"]
        self.assertEqual((six["pinhole"], six["via"], six["probe"], six["addresses"]),
                         ({"address": HOST, "port": report["port"]}, "pcp", "yes", [HOST]))
        self.assertEqual(report["stages"][6]["state"], "yes")
        self.assertEqual((report["verdict"], report["paths"][0]["seen"]), ("likely_reachable", None))
        self.assertEqual(self.leases("kind=explicit"), [])

    def test_alone(self):
        self.lab.device1.ip("addr", "flush", "dev", "eth0", "scope", "global", "to", "0.0.0.0/0")
        self.addCleanup(self.lab.device1.ip, "route", "replace", "default", "via", LAN)
        self.addCleanup(self.lab.device1.ip, "addr", "add", f"{DEVICE1}/24", "dev", "eth0")
        report = self.netcheck()
        self.assertEqual((report["verdict"], report["paths"]), ("likely_reachable", []))
        self.assertEqual(report["external"], {"address": HOST, "port": report["port"]})


class HostFirewall(Public):
    """The host's own firewall drops what nobody asked for."""

    arrives = False
    helped = dict(verdict="blocked_ahead", mapping="yes", address="yes", second_nat="no", probe="no")
    test_with_a_helper_that_cannot_probe = test_with_a_helper_that_is_not_there = test_text_for_people = None

    @classmethod
    def setUpClass(cls):
        if not shutil.which("nft"):
            raise unittest.SkipTest("nft is missing")
        super().setUpClass()
        cls.lab.device1.run("nft", "-f", "-", stdin="table ip filter { chain input { type filter hook input priority 0; "
                            "policy accept; ip saddr 192.168.50.0/24 accept; ct state new drop; }; }")


class SecondNat(Netcheck, LabCase):
    lab_class, lab_args = LabBehind, {"ahead": "nat"}
    told = PRIVATE
    alone = dict(verdict="double_nat", mapping="yes", address="no", second_nat="unknown", probe="unknown")
    helped = dict(verdict="double_nat", mapping="yes", address="no", second_nat="yes", probe="no")


class CarrierNat(Netcheck, LabCase):
    lab_class, lab_args = LabBehind, {"ahead": "carrier"}
    told = SHARED
    alone = dict(verdict="carrier_nat", mapping="yes", address="no", second_nat="unknown", probe="unknown")
    helped = dict(verdict="carrier_nat", mapping="yes", address="no", second_nat="yes", probe="no")


class FirewallAhead(Netcheck, LabCase):
    lab_class, lab_args = LabBehind, {"ahead": "firewall"}
    told, observed = EXTERNAL, EXTERNAL
    alone = dict(verdict="likely_reachable", mapping="yes", address="yes", second_nat="unknown", probe="unknown")
    helped = dict(verdict="blocked_ahead", mapping="yes", address="yes", second_nat="no", probe="no")


class NoGateway(Netcheck, LabCase):
    """A router that translates and speaks none of the protocols."""

    starts = False
    result, observed = None, EXTERNAL
    alone = dict(verdict="no_gateway", network="yes", gateway="no", mapping="skipped", address="skipped",
                 second_nat="skipped", probe="skipped")
    helped = dict(verdict="no_gateway", network="yes", gateway="no", mapping="skipped", second_nat="unknown")

    @classmethod
    def setUpClass(cls):
        if not shutil.which("nft"):
            raise unittest.SkipTest("nft is missing")
        super().setUpClass()
        masquerade(cls.lab.gateway, "wan0")


class Refused(Netcheck, LabCase):
    config = {"policy": {"rule": [{"device": "192.168.50.0/24", "action": "deny"}]}}
    told, observed, result = EXTERNAL, EXTERNAL, 2
    alone = dict(verdict="refused", gateway="yes", mapping="no", address="yes", second_nat="unknown", probe="skipped")
    helped = dict(verdict="refused", gateway="yes", mapping="no", address="yes", second_nat="no")

    def test_says_who_refused_and_why(self):
        refusals = self.netcheck()["paths"][0]["refusals"]
        self.assertIn({"via": "pcp", "reason": "not_authorized", "code": 2}, refusals)


class NoNetwork(unittest.TestCase):
    def test_without_any_address(self):
        lab = Lab()
        self.addCleanup(lab.close)
        report = json.loads(asked(self, Host(lab, "lonely"), lab.cli_path, "--json"))
        self.assertEqual((report["verdict"], report["stages"][0]["state"], report["paths"]), ("no_network", "no", []))
