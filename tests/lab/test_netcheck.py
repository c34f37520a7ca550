"""netcheck in networks that are in the way each in its own manner, with a helper outside and without one.

`test_topology` shows with the bytes of NAT-PMP and STUN that the network is what the class says; the others ask
`sallyport netcheck`.
"""

import json
import shutil
import unittest

import stun
import wire
from ahead import OUTER, PRIVATE, SHARED, LabBehind, masquerade
from lab import DEVICE1, EXTERNAL, FAR, OTHER_FAR, SILENCE, Host, Lab
from labcase import LabCase

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
