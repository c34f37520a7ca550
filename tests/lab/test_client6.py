"""Pinholes in sallyportd's IPv6 firewall that `sallyport open` asks for, by PCP and by UPnP."""

import shutil

from lab import EXTERNAL, wait_until
from opened import Opened
from test_firewall6 import GATEWAY, HOST, Ipv6Case

SECONDS = 20


class Pinholes(Ipv6Case):
    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}}

    def open(self, port, *words):
        opened = Opened(self.lab, port, *words)
        self.addCleanup(opened.close)
        return opened

    def rows(self, port):
        return sorted((row["family"], row["via"]) for row in self.leases() if row["internal"]["port"] == port)

    def is_a_pinhole(self, via):
        port = self.port()
        self.listener(self.lab.device1, HOST, port)
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=0.5))
        opened = self.open(port, "-6", "--via", via)
        grant = opened.grant(family="ipv6")
        self.assertEqual((grant["via"], grant["internal"], grant["external"]), (via, *[{"address": HOST, "port": port}] * 2))
        self.assertEqual(self.rows(port), [("ipv6", via)])
        self.assertTrue(self.comes_through(self.lab.internet, HOST, port))
        self.assertEqual(opened.end(), (0, "closed"))
        self.assertEqual(opened.kinds(), ["granted", "closed"])
        self.assertEqual(self.rows(port), [])
        self.assertFalse(self.comes_through(self.lab.internet, HOST, port, timeout=0.5))

    def test_by_pcp_PCP_11_3(self):
        self.is_a_pinhole("pcp")

    def test_by_pcp_at_a_router_known_by_its_link_local_address(self):
        """As router advertisements make it."""
        device = self.lab.device1
        device.ip("-6", "route", "replace", "default", "via", self.lab.gateway.link_local("br0"), "dev", "eth0")
        self.addCleanup(device.ip, "-6", "route", "replace", "default", "via", GATEWAY)
        self.is_a_pinhole("pcp")

    def test_by_upnp_6FC(self):
        self.is_a_pinhole("upnp")

    def test_one_wish_opens_both_families(self):
        port = self.port()
        opened = self.open(port)
        places = {event["family"]: event["grant"]["external"]
                  for event in (opened.event("granted"), opened.event("granted"))}
        self.assertEqual(places, {"ipv4": {"address": EXTERNAL, "port": port}, "ipv6": {"address": HOST, "port": port}})
        wait_until("one lease of each family", lambda: len(self.rows(port)) == 2)
        self.assertEqual([family for family, _ in self.rows(port)], ["ipv4", "ipv6"])
        self.assertEqual(opened.end(), (0, "closed"))
        self.assertEqual(self.rows(port), [])

    def test_revoked_by_the_administrator_PCP_14_2(self):
        port = self.port()
        opened = self.open(port, "-6")
        opened.grant(family="ipv6")
        lease = next(row["id"] for row in self.leases() if row["internal"]["port"] == port)
        self.assertEqual(self.cli_json("revoke", lease, "--block", "forever")["revoked"], [lease])
        self.assertEqual(opened.event("revoked", family="ipv6")["reason"], "revoked")
        self.assertEqual(opened.event("refused", family="ipv6")["reason"], "not_authorized")
        self.assertEqual(opened.end(), (0, "closed"))

    def test_what_a_crash_lost_is_asked_for_again_PCP_8_5(self):
        all_of = {via: self.open(self.port(), "-6", "--via", via) for via in ("pcp", "upnp")}
        ports = {via: opened.grant(family="ipv6")["internal"]["port"] for via, opened in all_of.items()}
        wait_until("the epoch has counted", lambda: self.client().natpmp_address().epoch >= 4)
        self.daemon.kill()
        shutil.rmtree(self.daemon.state)
        self.daemon.start()
        for via, opened in all_of.items():
            wait_until(f"the pinhole by {via} is there again", lambda: self.rows(ports[via]) == [("ipv6", via)])
            self.assertNotIn("revoked", opened.kinds())
            self.assertEqual(opened.end(), (0, "closed"))
