"""IPv6: pinholes by PCP over IPv6 and by WANIPv6FirewallControl, one list, over restarts. Packets are not tried here."""

import os
import time
import unittest

import lab as lab_module
import upnp
import wire
from lab import DEVICE1, LAN, wait_until
from labcase import LabCase
from wire import Client

LAN6, LAN6_PREFIX = "2001:db8:50::1", "2001:db8:50::/64"
SIX1, SIX1_OTHER, SIX2 = "2001:db8:50::11", "2001:db8:50::a11", "2001:db8:50::12"
FAR6, ANYCAST6 = "2001:db8:ffff::10", "2001:1::1"
NO_ENTRY, NOT_AUTHORIZED = 704, 606


class Six(LabCase):
    """A LAN with 2001:db8:50::/64 beside IPv4."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "policy": {"third_party": [DEVICE1]},
              "static": [{"protocol": "tcp", "internal": f"[{SIX2}]:443", "description": "web six"}]}

    @classmethod
    def start(cls, config=None):
        lab = cls.lab
        if not os.path.exists("/proc/sys/net/ipv6"):
            raise unittest.SkipTest("the kernel has no IPv6")
        lab.gateway.sysctl("net.ipv6.conf.lo.disable_ipv6", 0)  # the anycast address is a route there
        for host, device, addresses in ((lab.gateway, "br0", [LAN6]), (lab.device1, "eth0", [SIX1, SIX1_OTHER]),
                                        (lab.device2, "eth0", [SIX2])):
            host.link_local(device)
            for address in addresses:
                host.ip("-6", "addr", "replace", f"{address}/64", "dev", device, "nodad")
        for device in lab.devices.values():
            device.ip("-6", "route", "replace", "default", "via", LAN6)
        super().start(config)
        status = cls.lab.cli_json(cls.daemon, "status")
        if "IPv6 is left to the system" in status["data_plane_reason"] and cls.config.get("engine", {}).get("ipv6", True):
            raise unittest.SkipTest("this data plane leaves IPv6 to the system")

    def six(self, device=1, address=None, gateway=LAN6):
        client = Client(self.lab.devices[device], address or (SIX1, SIX2)[device - 1], gateway)
        self.addCleanup(client.close)
        return client

    def pinholes(self, *words):
        return [row for row in self.leases(*words) if row["family"] == "ipv6"]

    def pinhole(self, port):
        found = [row for row in self.pinholes() if row["external"]["port"] == port]
        self.assertEqual(len(found), 1, f"pinholes of {port}: {found}")
        return found[0]


class PcpOverIpv6(Six):
    def test_map_gives_the_hosts_own_endpoint_PCP_11_3_22_7_02(self):
        port, nonce = self.port(), os.urandom(12)
        answer = self.six().map("tcp", port, port + 1, 600, nonce, external_address="::")
        self.assertEqual((answer.version, answer.result, answer.lifetime, answer.nonce), (2, 0, 600, nonce))
        self.assertEqual((answer.internal, answer.external, answer.external_address), (port, port, SIX1))
        row = self.pinhole(port)
        self.assertEqual((row["internal"], row["external"]), ({"address": SIX1, "port": port},) * 2)
        self.assertEqual((row["state"], row["kind"], row["protocol"], row["via"]), ("active", "explicit", "tcp", "pcp"))
        wait_until("its MAC is known", lambda: self.pinhole(port)["device"]["mac"] == self.lab.device1.mac("eth0"))
        self.assertEqual(self.six().unmap("tcp", port, nonce).result, 0)
        self.assertEqual([r for r in self.pinholes() if r["external"]["port"] == port], [])

    def test_answered_from_the_address_asked_ANY_3_02_PCP_7_03(self):
        for gateway in (LAN6, ANYCAST6):  # the client hears no other sender
            self.assertEqual(self.six(gateway=gateway).map("udp", self.port(), external_address="::").result, 0, gateway)
        link = self.lab.gateway.link_local("br0")
        own, scope = self.lab.device1.link_local("eth0"), self.lab.device1.number("eth0")
        with self.lab.device1.udp(own, scope=scope) as sock:
            sock.sendto(wire.pcp_header(wire.ANNOUNCE, 0, own), (link, 5351, 0, scope))
            data, sender = sock.recvfrom(2048)
            self.assertEqual((sender[0].split("%")[0], wire.parse_pcp(data).result), (link, 0))
            sock.sendto(wire.pcp_map(own, os.urandom(12), "tcp", self.port(), external_address="::"), (link, 5351, 0, scope))
            self.assertEqual(wire.parse_pcp(sock.recvfrom(2048)[0]).result, wire.NOT_AUTHORIZED)

    def test_refusals_PCP_8_2_09_13_2(self):
        client = self.six()
        prefer = wire.option(wire.PREFER_FAILURE)
        port = self.port()
        self.assertEqual(client.map("tcp", port, port + 1, options=prefer, external_address="::").result,
                         wire.CANNOT_PROVIDE_EXTERNAL)
        self.assertEqual(client.map("tcp", port, port, options=prefer, external_address="0.0.0.0").result,
                         wire.CANNOT_PROVIDE_EXTERNAL)
        self.assertEqual(client.map("tcp", port, port, client=SIX2, external_address="::").result, 12)  # ADDRESS_MISMATCH
        self.assertEqual(client.map("tcp", port, port, options=wire.filter_option("198.51.100.10", 32), external_address="::").result, 6)
        self.assertEqual([r for r in self.pinholes() if r["external"]["port"] == port], [])
        only = wire.filter_option(FAR6, 64, 443)
        self.assertEqual(client.map("tcp", port, port, options=only, external_address="::").options, [(wire.FILTER, only[4:])])
        self.assertEqual(self.pinhole(port)["remote"], [f"[{FAR6}]/64:443"])

    def test_a_third_party_by_IPv4_PCP_13_1_06(self):
        port = self.port()
        answer = self.client(1).map("tcp", port, options=wire.option(wire.THIRD_PARTY, wire.v6(SIX2)), external_address="::")
        self.assertEqual((answer.result, answer.external_address), (0, SIX2))

    def test_a_static_one_answers_PCP_11_3_09(self):
        answer = self.six(2).map("tcp", 443, external_address="::")
        self.assertEqual((answer.result, answer.external, answer.external_address), (0, 443, SIX2))
        self.assertEqual((self.pinhole(443)["kind"], self.pinhole(443)["description"]), ("static", "web six"))

    def test_revoke_tells_the_client_and_block_holds_for_the_device_PCP_14_2(self):
        client, port, nonce = self.six(), self.port(), os.urandom(12)
        self.assertEqual(client.map("tcp", port, 0, 600, nonce, external_address="::").result, 0)
        lease = self.pinhole(port)["id"]
        self.assertEqual(self.cli_json("revoke", lease, "--block", "forever")["revoked"], [lease])
        told = wire.parse_pcp(client.hear())
        self.assertEqual((told.result, told.lifetime, told.nonce, told.internal), (0, 0, nonce, port))
        other = self.six(address=SIX1_OTHER)
        # its first request may come before the gateway can know whose address that is; it does not last
        wait_until("the device's other address is refused",
                   lambda: other.map("tcp", port, nonce=nonce, external_address="::").result == wire.NOT_AUTHORIZED)
        wait_until("nothing is open", lambda: [r for r in self.pinholes() if r["external"]["port"] == port] == [])
        self.assertEqual(self.cli("unblock", lease).returncode, 0)
        self.assertEqual(self.six(address=SIX1_OTHER).map("tcp", port, external_address="::").result, 0)

    def test_the_list_at_80_columns(self):
        self.six().map("tcp", port := self.port(), external_address="::")
        text = self.cli("list", "family=ipv6").stdout
        self.assertRegex(text, rf"{SIX1} +tcp +{port} -> {port} +pcp")
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertEqual(self.pinholes("family=ipv4"), [])
        self.assertEqual(len(self.pinholes("family=ipv6")), len(self.pinholes()))


class PinholesByUpnp(Six):
    def wall(self, address=SIX1, device=1):
        """The firewall service, asked at the gateway's IPv6 address unless `address` is of IPv4."""
        host = self.lab.devices[device]
        gateway = upnp.find(host, DEVICE1 if device == 1 else "192.168.50.12")
        if ":" in address:
            gateway = upnp.Gateway(host, address, gateway.location.replace(LAN, f"[{LAN6}]"))
        return gateway.service(upnp.FIREWALL)

    @staticmethod
    def hole(port, client=SIX1, lease=600, protocol=6, remote="", remote_port=0):
        return [("RemoteHost", remote), ("RemotePort", remote_port), ("InternalClient", client), ("InternalPort", port),
                ("Protocol", protocol), ("LeaseTime", lease)]

    def test_the_way_of_a_pinhole_6FC(self):
        wall, port = self.wall(), self.port()
        self.assertEqual(wall.call("GetFirewallStatus"), {"FirewallEnabled": "1", "InboundPinholeAllowed": "1"})
        number = wall.call("AddPinhole", self.hole(port, remote=FAR6, remote_port=443))["UniqueID"]
        row = self.pinhole(port)
        self.assertEqual((row["via"], row["remote"], row["external"]["address"]), ("upnp", [f"[{FAR6}]:443"], SIX1))
        self.assertEqual(wall.call("AddPinhole", self.hole(port, remote=FAR6, remote_port=443)), {"UniqueID": number})
        self.assertEqual(wall.call("UpdatePinhole", [("UniqueID", number), ("NewLeaseTime", 7200)]), {})
        self.assertGreater(self.pinhole(port)["remaining_s"], 7000)
        self.assertEqual(wall.call("GetPinholePackets", [("UniqueID", number)]), {"PinholePackets": "0"})
        self.assertEqual(wall.error("CheckPinholeWorking", [("UniqueID", number)]), 709)
        other = self.wall(SIX2, 2)
        for action, args in (("UpdatePinhole", [("NewLeaseTime", 60)]), ("DeletePinhole", []), ("GetPinholePackets", [])):
            self.assertEqual(other.error(action, [("UniqueID", number), *args]), NOT_AUTHORIZED, action)
        self.assertEqual(wall.call("DeletePinhole", [("UniqueID", number)]), {})
        self.assertEqual(wall.error("DeletePinhole", [("UniqueID", number)]), NO_ENTRY)
        self.assertEqual([r for r in self.pinholes() if r["external"]["port"] == port], [])

    def test_a_device_opens_to_itself_only_by_either_family_6FC_04(self):
        port = self.port()
        self.assertEqual(self.wall().error("AddPinhole", self.hole(port, SIX2)), NOT_AUTHORIZED)
        self.assertEqual(self.wall().error("AddPinhole", self.hole(port, SIX1_OTHER)), NOT_AUTHORIZED)
        self.six().announce()  # the gateway has met both addresses of the device
        by_four = self.wall(DEVICE1)
        self.assertEqual(by_four.error("AddPinhole", self.hole(port, SIX2)), NOT_AUTHORIZED)
        answer = wait_until("its MAC is known", lambda: "UniqueID" in (a := self.try_call(by_four, self.hole(port))) and a)
        self.assertEqual(self.wall().call("DeletePinhole", [("UniqueID", answer["UniqueID"])]), {})

    @staticmethod
    def try_call(service, args):
        try:
            return service.call("AddPinhole", args)
        except upnp.UpnpError:
            return {}

    def test_a_pinhole_of_both_protocols_lives_until_the_last_lets_go_6FC_16(self):
        port, nonce = self.port(), os.urandom(12)
        self.assertEqual(self.six().map("tcp", port, nonce=nonce, external_address="::").result, 0)
        number = self.wall().call("AddPinhole", self.hole(port))["UniqueID"]
        rows = [row for row in self.pinholes() if row["external"]["port"] == port]
        self.assertEqual(sorted(row["via"] for row in rows), ["pcp", "upnp"])
        self.assertEqual(self.six().unmap("tcp", port, nonce).result, 0)
        self.assertEqual(self.pinhole(port)["via"], "upnp")
        self.wall().call("DeletePinhole", [("UniqueID", number)])

    def test_host_names_of_the_request_POL_WEB_05(self):
        description = upnp.Url(f"http://[{LAN6}]:5000/rootDesc.xml")
        for name, status in ((f"[{LAN6}]:5000", 200), (f"[{LAN6}]", 200), (LAN, 200), ("localhost:5000", 403),
                             (f"[{SIX1}]:5000", 403), (f"{LAN6}:5000", 403)):
            data = upnp.request("GET", description, [("Host", name), ("Connection", "close")], host_field=False)
            self.assertEqual(upnp.exchange(self.lab.device1, description.to, data, SIX1).status, status, name)


class Restart6(Six):
    def test_kill_9_keeps_pinholes_POL_STO_02(self):
        client, port, nonce = self.six(), self.port(), os.urandom(12)
        self.assertEqual(client.map("tcp", port, 0, 3600, nonce, external_address="::").result, 0)
        epoch = client.announce().epoch
        before = self.pinholes()
        self.daemon.kill()
        self.daemon.start()
        after = self.pinholes()
        self.assertEqual([(r["id"], r["external"], r["created"]) for r in after],
                         [(r["id"], r["external"], r["created"]) for r in before])
        answer = wait_until("PCP answers over IPv6", client.announce)
        self.assertGreaterEqual(answer.epoch, epoch)
        self.assertEqual(client.map("tcp", port, 0, 3600, os.urandom(12), external_address="::").result, wire.NOT_AUTHORIZED)
        self.assertEqual(client.unmap("tcp", port, nonce).result, 0)

    def test_another_external_address_is_not_told_to_IPv6(self):
        client, port = self.six(), self.port()
        client.map("tcp", port, external_address="::")
        self.client(1).map("tcp", port)
        time.sleep(1.1)
        epoch = client.announce().epoch
        self.lab.wan_address("203.0.114.8", lab_module.EXTERNAL)
        wait_until("the address is followed",
                   lambda: self.cli_json("status")["external_addresses"] == ["203.0.114.8"])
        wait_until("IPv4 is told", lambda: self.client(1).announce().epoch < epoch or None)
        self.assertGreaterEqual(client.announce().epoch, epoch)
        self.assertEqual(self.pinhole(port)["external"]["address"], SIX1)
        self.lab.wan_address(lab_module.EXTERNAL, "203.0.114.8")


class FirewallOff(Six):
    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "engine": {"ipv6": False}}

    def test_nothing_to_open(self):
        self.assertEqual(self.six().map("tcp", self.port(), external_address="::").result, 4)  # UNSUPP_OPCODE
        wall = upnp.find(self.lab.device1, DEVICE1).service(upnp.FIREWALL)
        self.assertEqual(wall.call("GetFirewallStatus"), {"FirewallEnabled": "0", "InboundPinholeAllowed": "0"})
        self.assertEqual(wall.error("AddPinhole", PinholesByUpnp.hole(self.port())), 702)


if __name__ == "__main__":
    unittest.main()
