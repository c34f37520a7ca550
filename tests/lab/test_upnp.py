"""The UPnP gateway with sockets: how it is found, what it says it is, doors that open and shut, what it tells."""

import contextlib
import os
import re
import shutil
import socket
import time
import unittest

import lab as lab_module
import upnp
import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, OTHER_FAR, PEER, UdpEcho, tcp_shut, wait_until
from labcase import CONTROL_HOST, LabCase, UpnpCase

SECONDS = 40

GROUP_MAC = "01:00:5e:7f:ff:fa"
# of each service: the state variables that are evented
EVENTED = {upnp.WANIP: {"PossibleConnectionTypes", "ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries",
                        "SystemUpdateID"},
           upnp.WAN_COMMON: {"PhysicalLinkStatus"}, upnp.LAYER3: {"DefaultConnectionService"},
           upnp.FIREWALL: {"FirewallEnabled", "InboundPinholeAllowed"}}
REQUIRED = {  # WANIPConnection:2, in > out
    "SetConnectionType": "NewConnectionType >",
    "GetConnectionTypeInfo": "> NewConnectionType NewPossibleConnectionTypes",
    "RequestConnection": ">",
    "ForceTermination": ">",
    "GetStatusInfo": "> NewConnectionStatus NewLastConnectionError NewUptime",
    "GetNATRSIPStatus": "> NewRSIPAvailable NewNATEnabled",
    "GetGenericPortMappingEntry": "NewPortMappingIndex > NewRemoteHost NewExternalPort NewProtocol NewInternalPort "
                                  "NewInternalClient NewEnabled NewPortMappingDescription NewLeaseDuration",
    "GetSpecificPortMappingEntry": "NewRemoteHost NewExternalPort NewProtocol > NewInternalPort NewInternalClient NewEnabled "
                                   "NewPortMappingDescription NewLeaseDuration",
    "AddPortMapping": "NewRemoteHost NewExternalPort NewProtocol NewInternalPort NewInternalClient NewEnabled "
                      "NewPortMappingDescription NewLeaseDuration >",
    "AddAnyPortMapping": "NewRemoteHost NewExternalPort NewProtocol NewInternalPort NewInternalClient NewEnabled "
                         "NewPortMappingDescription NewLeaseDuration > NewReservedPort",
    "DeletePortMapping": "NewRemoteHost NewExternalPort NewProtocol >",
    "DeletePortMappingRange": "NewStartPort NewEndPort NewProtocol NewManage >",
    "GetExternalIPAddress": "> NewExternalIPAddress",
    "GetListOfPortMappings": "NewStartPort NewEndPort NewProtocol NewManage NewNumberOfPorts > NewPortListing"}


def targets(gateway):
    """(NT, USN) of all that a description says there is."""
    out = []
    for device in upnp.all_devices(gateway.description.root):
        names = [upnp.ROOT_DEVICE] if device.parent is None else []
        out += [(name, f"{device.udn}::{name}") for name in names + [device.type] + [s.type for s in device.services]]
        out.append((device.udn, device.udn))
    return sorted(out)


def named(messages, kind="nt"):
    return sorted((m[kind], m["usn"]) for m in messages)


def identity(gateway):
    """What control points keep of a gateway."""
    return (gateway.location, [d.udn for d in upnp.all_devices(gateway.description.root)],
            [(s.type, s.control, s.events, s.scpd) for s in gateway.services], gateway.answer.body)


class Announcements(LabCase):
    starts = False
    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}}
    PORTS = 11  # messages of one set: 3 of the root, 2 of each of two devices in it, 1 of each of four services

    def tearDown(self):
        if self.daemon is not None and self.daemon.running():
            self.daemon.kill()

    def heard(self, sock, nts, count):
        """The next `count` NOTIFYs, which must all be of that kind."""
        out = [m for m, sender in upnp.heard(sock, lab_module.PATIENCE, count) if sender[0] == LAN]
        self.assertEqual([m["nts"] for m in out], [nts] * count)
        for m in out:
            self.assertEqual((m.start, m["host"]), ("NOTIFY * HTTP/1.1", "239.255.255.250:1900"))
        return out

    def begins(self, sock):
        """A start: it leaves and comes; the gateway, its BOOTID."""
        byebyes = self.heard(sock, "ssdp:byebye", self.PORTS)
        alives = self.heard(sock, "ssdp:alive", 3 * self.PORTS)  # three copies, for UDP loses some
        for m in alives:
            self.assertRegex(m["location"], rf"^http://{re.escape(LAN)}:5000/")
            self.assertGreaterEqual(int(re.fullmatch(r"max-age\s*=\s*(\d+)", m["cache-control"])[1]), 1800)
            self.assertRegex(m["server"], r"^Linux/\S+ UPnP/1\.1 Sallyport/\S+$")
            self.assertNotIn("searchport.upnp.org", m)
        self.assertEqual(len({m["location"] for m in alives}), 1)
        gateway = upnp.Gateway(self.lab.device1, DEVICE1, alives[0]["location"])
        self.assertEqual(named(byebyes), targets(gateway))
        self.assertEqual(named(alives), sorted(3 * targets(gateway)))
        self.assertEqual({m["configid.upnp.org"] for m in alives + byebyes}, {gateway.description.config_id})
        boot_ids = {m["bootid.upnp.org"] for m in alives + byebyes}
        self.assertEqual(len(boot_ids), 1)
        return gateway, int(boot_ids.pop())

    def test_it_comes_leaves_and_is_the_same_after_a_stop_and_a_crash_UDA_1_2(self):
        outside, inside = self.sniff(self.lab.internet, "eth0"), self.sniff(self.lab.device2, "eth0")
        with upnp.notify_socket(self.lab.device1, DEVICE1) as sock:
            type(self).start(self.config)
            first, boot_id = self.begins(sock)
            self.assertEqual(len(targets(first)), self.PORTS)
            self.assertLessEqual(self.daemon.stop(), 0)
            leaving = self.heard(sock, "ssdp:byebye", 2 * self.PORTS)
            self.assertEqual(named(leaving), sorted(2 * targets(first)))  # UDA-1.2-09
            self.assertEqual({m["bootid.upnp.org"] for m in leaving}, {str(boot_id)})

            self.daemon.start()
            second, second_boot_id = self.begins(sock)
            self.assertEqual(identity(second), identity(first))
            self.assertGreater(second_boot_id, boot_id)

            self.daemon.kill()
            self.daemon.start()
            third, third_boot_id = self.begins(sock)
            self.assertEqual(identity(third), identity(first))
            self.assertGreater(third_boot_id, second_boot_id)
        said = inside.all(lambda p: p.protocol == wire.UDP and p.dport == 1900)
        self.assertGreater(len(said), 100)
        self.assertEqual({(p.source, p.destination, p.ttl) for p in said}, {(LAN, upnp.GROUP[0], 2)})  # UDA-1.2-13
        self.assertEqual([vars(p) for p in outside.all(lambda p: 1900 in (p.sport, p.dport) or p.destination == upnp.GROUP[0])], [])


    def test_another_address_of_the_LAN_is_announced_as_an_update_UDA_1_2_10_11(self):
        with upnp.notify_socket(self.lab.device1, DEVICE1) as sock:
            type(self).start(self.config)
            _, boot_id = self.begins(sock)
            self.lab.gateway.ip("addr", "add", "192.168.51.1/24", "dev", "br0")
            try:
                updates = self.heard(sock, "ssdp:update", self.PORTS)
                self.assertEqual({(m["bootid.upnp.org"], m["nextbootid.upnp.org"]) for m in updates}, {(str(boot_id), str(boot_id + 1))})
                alives = [m for m, sender in upnp.heard(sock, lab_module.PATIENCE, 6 * self.PORTS) if m["nts"] == "ssdp:alive"]
                self.assertEqual(len(alives), 6 * self.PORTS)
                self.assertEqual({m["bootid.upnp.org"] for m in alives}, {str(boot_id + 1)})
                self.assertEqual({upnp.Url(m["location"]).host for m in alives}, {LAN, "192.168.51.1"})
            finally:
                self.lab.gateway.ip("addr", "del", "192.168.51.1/24", "dev", "br0")


class Discovery(UpnpCase):
    """By a network that also has link-local IPv6, as most have."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "limits": {"searches_per_second": 0}}

    @classmethod
    def start(cls, config=None):
        cls.lan6, cls.own6 = cls.lab.gateway.link_local("br0"), cls.lab.device1.link_local("eth0")
        super().start(config)

    def gateway6(self):
        scope = self.lab.device1.number("eth0")
        if not hasattr(type(self), "_gateway6"):
            found = upnp.search6(self.lab.device1, "eth0", upnp.ROOT_DEVICE, enough=1)
            self.assertTrue(found, "no answer by IPv6")
            answer, sender = found[0]
            self.assertEqual(sender[0].split("%")[0], self.lan6)
            self.assertEqual(upnp.Url(answer["location"]).host, self.lan6)
            type(self)._gateway6 = upnp.Gateway(self.lab.device1, "0.0.0.0", answer["location"], scope)
        return type(self)._gateway6

    def answers(self, wanted, host=None, address=DEVICE1, to=upnp.GROUP):
        """What answers each of these searches (bytes), all asked at once, in the time their MX gives."""
        host = host or self.lab.device1
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(upnp.ssdp_socket(host, address)) for _ in wanted]
            for sock, data in zip(socks, wanted):
                sock.sendto(data, to)
            time.sleep(1.2)
            return [upnp.heard(sock, 0.01) for sock in socks]

    def kinds(self):
        """Each kind there is and each older version of it: {ST: USN}."""
        out = {}
        for st, usn in targets(self.gateway()):
            out[st] = usn
            kind, _, version = st.rpartition(":")
            if st.startswith("urn:") and version == "2":
                out[f"{kind}:1"] = usn.rpartition(":")[0] + ":1"
        return out

    def judge(self, st, usn, answers):
        self.assertEqual([(a["st"], a["usn"]) for a, _ in answers], [(st, usn)])
        answer, sender = answers[0]
        self.assertEqual((answer.start, sender), ("HTTP/1.1 200 OK", (LAN, 1900)))
        self.assertEqual((answer["location"], answer["ext"]), (self.gateway().location, ""))
        self.assertEqual(answer["configid.upnp.org"], self.gateway().description.config_id)
        self.assertGreaterEqual(int(answer["bootid.upnp.org"]), 1)
        self.assertRegex(answer["cache-control"], r"max-age\s*=\s*1800")
        self.assertRegex(answer["date"], r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
        self.assertLessEqual(len(answer.raw), 1024)

    def test_each_kind_is_answered_once_in_the_version_asked_for_UDA_1_3_06_11(self):
        kinds = self.kinds()
        self.assertEqual(len(kinds), 15)  # four of the eleven have a version before theirs
        for to in (upnp.GROUP, (LAN, 1900)):
            for (st, usn), answers in zip(kinds.items(), self.answers([upnp.msearch(st) for st in kinds], to=to)):
                with self.subTest(st=st, to=to):
                    self.judge(st, usn, answers)

    def test_everything_is_one_answer_per_message_of_a_set_UDA_1_3_07(self):
        devices = list(upnp.all_devices(self.gateway().description.root))
        self.assertEqual(len(targets(self.gateway())), 3 + 2 * (len(devices) - 1) + len(self.gateway().services))
        for to in (upnp.GROUP, (LAN, 1900)):
            answers = self.answers([upnp.msearch("ssdp:all")], to=to)[0]
            self.assertEqual(named([a for a, _ in answers], "st"), targets(self.gateway()))

    def test_a_uuid_is_found_in_either_case_UDA_1_3_17(self):
        udn = self.gateway().description.root.udn
        upper, blanks = self.answers([upnp.msearch("uuid:" + udn[5:].upper()), upnp.msearch(f"  {udn} \t")])
        self.judge(udn, udn, upper)  # ST is the gateway's own text (POL-DSC-03)
        self.judge(udn, udn, blanks)

    def test_a_unicast_search_needs_no_MX_UDA_1_3_05(self):
        self.judge(upnp.ROOT_DEVICE, dict(targets(self.gateway()))[upnp.ROOT_DEVICE],
                   self.answers([upnp.msearch(upnp.ROOT_DEVICE, mx=None)], to=(LAN, 1900))[0])

    def test_what_is_no_search_for_something_it_has_is_not_answered_UDA_1_3(self):
        good = upnp.msearch(upnp.IGD + "1")
        replaced = lambda old, new: good.replace(old, new)
        wrong = [upnp.msearch(st) for st in (
            upnp.IGD + "3", upnp.WANIP + "3", upnp.WANIP + "0", upnp.WANIP + "01", upnp.WANIP, upnp.IGD[:-1], "upnp:rootdevices",
            "urn:schemas-upnp-org:service:WANPPPConnection:1", "urn:schemas-upnp-org:device:MediaServer:1",
            "uuid:00000000-0000-4000-8000-000000000000", upnp.IGD.upper() + "1", "", "ssdp:all ssdp:all", upnp.IGD + "1\0",
            "ssdp:all" + " " * 300 + "x")]
        wrong += [upnp.msearch(upnp.IGD + "1", mx=None), upnp.msearch(upnp.IGD + "1", mx=0), upnp.msearch(upnp.IGD + "1", mx="soon"),
                  upnp.msearch(upnp.IGD + "1", man=None), upnp.msearch(upnp.IGD + "1", man="ssdp:discover"),
                  upnp.msearch(upnp.IGD + "1", man='"ssdp:other"'),
                  replaced(b"M-SEARCH", b"NOTIFY"), replaced(b"M-SEARCH * HTTP/1.1", b"HTTP/1.1 200 OK"),
                  replaced(b"* HTTP", b"/ HTTP"), good[:-2], good[:-4], b"", b"\0", b"\r\n\r\n", good + b"x" * 2100,
                  upnp.msearch(upnp.IGD + "1", extra=[("X-Long", "y" * 2000)])]
        *silent, answered = self.answers(wrong + [good])
        self.assertEqual([(request[:200], a) for request, a in zip(wrong, silent) if a], [])
        self.assertEqual(len(answered), 1)

    def test_unknown_fields_and_other_spellings_are_fine_UDA_1_3_13(self):
        good = upnp.msearch(upnp.IGD + "1", extra=[("USER-AGENT", "x/1 UPnP/1.1 y/2"), ("X-Unknown", "1")])
        lower = good.replace(b"HOST:", b"host:").replace(b"MAN: ", b"Man:").replace(b"MX:", b"mx:").replace(b"ST:", b"sT:  ")
        for answers in self.answers([good, lower, upnp.msearch(upnp.IGD + "1", mx=1, man='"ssdp:discover" ')]):
            self.assertEqual(len(answers), 1)

    def test_nobody_on_the_wan_or_from_elsewhere_is_answered_POL_WHO_01_02_UDA_1_3_14(self):
        gateway, wan = self.lab.gateway, self.sniff(self.lab.gateway, "wan0")
        lan = self.sniff(gateway, "br0")
        request = upnp.msearch("ssdp:all")
        for source in (PEER, FAR):
            with self.lab.internet.udp(source) as sock:
                for to in (EXTERNAL, LAN):
                    sock.sendto(request, (to, 1900))
        for source in (PEER, FAR, DEVICE1):
            for to, mac in ((upnp.GROUP[0], GROUP_MAC), (EXTERNAL, gateway.mac("wan0")), (LAN, gateway.mac("wan0"))):
                self.lab.internet.send_frame("eth0", mac, wire.udp(source, 5555, to, 1900, request))
        for source in ("10.1.2.3", FAR, EXTERNAL, LAN, "127.0.0.1", "0.0.0.0", "192.168.50.255", "192.168.50.0",
                       "255.255.255.255", "224.0.0.1", "192.168.60.11"):
            for to, mac in ((upnp.GROUP[0], GROUP_MAC), (LAN, gateway.mac("br0"))):
                self.lab.device2.send_frame("eth0", mac, wire.udp(source, 5555, to, 1900, request))
        # a multicast search of the others' group address or by broadcast is none
        for to, mac in (("224.0.0.1", "01:00:5e:00:00:01"), ("192.168.50.255", "ff:ff:ff:ff:ff:ff"), (EXTERNAL, gateway.mac("br0"))):
            self.lab.device2.send_frame("eth0", mac, wire.udp(DEVICE2, 5555, to, 1900, request))
        self.assertEqual(len(self.answers([request])[0]), 11)  # asked after all of them, and more than MX later
        self.assertEqual([vars(p) for p in wan.all(lambda p: p.sport == 1900 or p.kind == 3)], [])
        self.assertEqual({p.destination for p in lan.all(lambda p: p.sport == 1900)} - {DEVICE1, upnp.GROUP[0]}, set())

    def test_the_same_by_link_local_IPv6(self):
        gateway = self.gateway6()
        found = upnp.search6(self.lab.device1, "eth0", "ssdp:all")
        self.assertEqual(named([a for a, _ in found], "st"), targets(gateway))
        self.assertEqual({a["location"] for a, _ in found}, {gateway.location})
        alone = upnp.search6(self.lab.device1, "eth0", upnp.IGD + "1", mx=None, to=self.lan6, seconds=1)
        self.assertEqual([a["st"] for a, _ in alone], [upnp.IGD + "1"])
        self.assertEqual(targets(gateway), targets(self.gateway()))

    # descriptions

    def test_descriptions_by_IPv4_and_IPv6_UDA_2(self):
        for gateway in (self.gateway(), self.gateway6()):
            with self.subTest(location=gateway.location):
                self.assertRegex(gateway.answer["content-type"], r'^text/xml(; charset="?utf-8"?)?$')
                self.assertIn("server", gateway.answer)
                root = gateway.description.root
                self.assertEqual(gateway.description.xml.findtext(f"{{{upnp.DEVICE_NS}}}specVersion/{{{upnp.DEVICE_NS}}}major"), "1")
                self.assertIsNone(gateway.description.xml.find(f"{{{upnp.DEVICE_NS}}}URLBase"))
                tree = {d.type: d for d in upnp.all_devices(root)}
                self.assertEqual(list(tree), [upnp.IGD + "2", upnp.WAN_DEVICE + "2", upnp.WAN_CONNECTION_DEVICE + "2"])
                self.assertEqual(len({d.udn for d in tree.values()}), 3)
                for d in tree.values():
                    self.assertRegex(d.udn, r"^uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
                    for name, most in (("friendlyName", 64), ("manufacturer", 64), ("modelName", 32), ("modelDescription", 128),
                                       ("modelNumber", 32)):
                        self.assertTrue(0 < len(d.about[name]) < most, (name, d.about))
                self.assertIn("presentationURL", root.about)
                urls = [u for s in gateway.services for u in (s.control, s.events, s.scpd)]
                self.assertEqual(len(set(urls)), len(urls))
                for service in gateway.services:
                    self.assertTrue(service.control.startswith(gateway.location.rpartition("/")[0][:12]))
                    self.assertRegex(service.control, r"[A-Za-z0-9_-]{22}")  # POL-WEB-08
                    self.assertRegex(service.events, r"[A-Za-z0-9_-]{22}")
                self.assertEqual(sorted(s.id.rpartition(":")[2] for s in gateway.services),
                                 ["L3Forwarding1", "WANCommonIFC1", "WANIPConn1", "WANIPv6Firewall1"])

    def test_each_SCPD_by_IPv4_and_IPv6_UDA_2_08_10(self):
        for gateway in (self.gateway(), self.gateway6()):
            for service in gateway.services:
                with self.subTest(service.scpd):
                    scpd = gateway.scpd(service)
                    self.assertEqual(scpd.xml.get("configId"), gateway.description.config_id)
                    evented = {name for name, v in scpd.variables.items() if v.evented}
                    self.assertEqual(evented, EVENTED[service.type.rpartition(":")[0] + ":"])
                    for name, arguments in scpd.actions.items():
                        ways = [way for _, way, _ in arguments]
                        self.assertEqual(ways, sorted(ways), name)  # all `in` before the `out`
                        for _, _, variable in arguments:
                            self.assertIn(variable, scpd.variables)
                    if service.type == upnp.WANIP + "2":
                        shape = {name: " ".join([a for a, way, _ in args if way == "in"] + [">"] +
                                                [a for a, way, _ in args if way == "out"]) for name, args in scpd.actions.items()}
                        self.assertEqual({name: shape.get(name) for name in REQUIRED}, REQUIRED)

    def test_descriptions_by_HEAD_by_HTTP_1_0_and_in_a_language_HTTP_01_03_UDA_2_12(self):
        location, whole = self.gateway().location, self.gateway().answer
        head = upnp.get(self.lab.device1, location, DEVICE1, method="HEAD")
        self.assertEqual((head.status, head.body, head["content-length"]), (200, b"", str(len(whole.body))))
        old = upnp.get(self.lab.device1, location, DEVICE1, version="1.0", host_field=False)
        self.assertEqual((old.status, old.body), (200, whole.body))
        self.assertNotIn("transfer-encoding", old)
        self.assertNotIn("content-language", whole)
        spoken = upnp.get(self.lab.device1, location, DEVICE1, pairs=[("Accept-Language", "de")])
        self.assertIn("content-language", spoken)
        self.assertEqual(upnp.get(self.lab.device1, location + "x", DEVICE1).status, 404)

    def test_control_by_IPv6_reads_and_maps_nothing_POL_TGT_01(self):
        six = self.gateway6().service()
        self.assertEqual(six.call("GetExternalIPAddress"), {"NewExternalIPAddress": EXTERNAL})
        before = self.leases()
        for action in ("AddPortMapping", "AddAnyPortMapping"):
            self.assertEqual(six.error(action, six.mapping_args(self.port(), client=DEVICE1)), 606)
            self.assertEqual(six.error(action, six.mapping_args(self.port(), client=self.own6)), 402)
        self.assertEqual(self.leases(), before)
        wall = self.gateway6().service(upnp.FIREWALL)
        self.assertEqual(wall.call("GetFirewallStatus"), {"FirewallEnabled": "1", "InboundPinholeAllowed": "1"})
        self.assertEqual(wall.error("AddPinhole", [("RemoteHost", ""), ("RemotePort", 0), ("InternalClient", self.own6),
                                                   ("InternalPort", 8080), ("Protocol", 6), ("LeaseTime", 60)]), 606)

    def test_events_go_to_link_local_IPv6_too(self):
        scope = self.lab.device1.number("eth0")
        with self.lab.device1.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind((self.own6, 0, 0, scope))
            sock.listen(8)
            sock.settimeout(lab_module.PATIENCE)
            six = self.gateway6().service()
            answer = six.subscribe(None, "Second-60", callback=f"<http://[{self.own6}]:{sock.getsockname()[1]}/six>")
            self.assertEqual(answer.status, 200)
            conn, peer = sock.accept()
            with conn:
                event = upnp.parse_event(upnp.Reader(conn).message(request=True))
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual((event.sid, event.seq, event.values["ExternalIPAddress"]), (answer["sid"], 0, EXTERNAL))
            self.assertEqual((peer[0].split("%")[0], event.message.start), (self.lan6, "NOTIFY /six HTTP/1.1"))
            self.assertEqual(six.unsubscribe(answer["sid"]).status, 200)
            for callback in (f"<http://{DEVICE1}:7/>", f"<http://[{self.lan6}]:7/>", f"<http://[{self.own6}%eth0]:7/>", "<http://[ff02::1]/>"):
                self.assertEqual(six.subscribe(None, callback=callback).status, 412, callback)

    def test_the_other_services_answer_WCIC_L3F(self):
        common = self.gateway().service(upnp.WAN_COMMON)
        link = common.call("GetCommonLinkProperties")
        self.assertEqual((link["NewWANAccessType"], link["NewPhysicalLinkStatus"]), ("Ethernet", "Up"))
        before = int(common.call("GetTotalBytesSent")["NewTotalBytesSent"])
        with UdpEcho(self.lab.internet, 7300, b"c"), self.lab.device1.udp(DEVICE1) as sock:
            for _ in range(20):
                sock.sendto(b"x" * 1000, (FAR, 7300))
            wait_until("what goes out is counted as sent", lambda: int(
                common.call("GetTotalBytesSent")["NewTotalBytesSent"]) >= before + 20000)
        layer3 = self.gateway().service(upnp.LAYER3)
        default = layer3.call("GetDefaultConnectionService")["NewDefaultConnectionService"]
        connection = next(s for s in self.gateway().services if s.type == upnp.WANIP + "2")
        self.assertEqual(default, f"{connection.device.udn}:WANConnectionDevice:2,{connection.id}")
        wan = self.wan()
        self.assertEqual(wan.call("GetStatusInfo")["NewConnectionStatus"], "Connected")
        self.assertEqual(wan.call("GetConnectionTypeInfo")["NewConnectionType"], "IP_Routed")
        self.assertEqual(wan.call("GetNATRSIPStatus"), {"NewRSIPAvailable": "0", "NewNATEnabled": "1"})
        self.assertEqual(wan.call("RequestConnection"), {})
        for action, code in (("ForceTermination", 606), ("RequestTermination", 606), ("GetIdleDisconnectTime", 401)):
            self.assertIn(wan.error(action), (code, 401), action)
        self.assertEqual(wan.error("SetConnectionType", [("NewConnectionType", "IP_Bridged")]), 731)
        self.assertEqual(wan.call("GetStatusInfo")["NewConnectionStatus"], "Connected")


class Doors(UpnpCase):
    def subscribed(self, device=1):
        """A listener with a subscription of which the first event has come, and that event."""
        listener = self.listener(device)
        answer = self.wan(device).subscribe(listener)
        self.assertEqual(answer.status, 200)
        return listener, listener.wait("the initial event", lambda e: e.seq == 0)

    def count(self, event):
        return int(event.values.get("PortMappingNumberOfEntries", -1))

    def test_a_service_is_open_while_its_entry_is_there_WIC_ADD_01_WIC_DEL_01(self):
        wan, port, uport = self.wan(), self.port(), self.port()
        service, uservice = self.tcp_service(port, name=b"tcp:"), self.udp_service(uport, name=b"udp:")
        self.shut(port)
        wan.add(port)
        self.reached(service, port)  # open when the answer is sent
        external = self.port()
        wan.add(external, "UDP", uport)
        self.assertEqual(self.answer_of(self.lab.internet, (EXTERNAL, external), source=(FAR, 0)), (b"udp:", (EXTERNAL, external)))
        self.assertEqual(self.arrives(uservice, external, sport=4001), (FAR, 4001))
        self.assertEqual({k: v for k, v in wan.mapping(external, "UDP").items() if k != "NewLeaseDuration"},
                         {"NewInternalPort": str(uport), "NewInternalClient": DEVICE1, "NewEnabled": "1",
                          "NewPortMappingDescription": "lab"})
        with self.lab.internet.connect((EXTERNAL, port), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertTrue(sock.recv(9))
            self.assertEqual((wan.delete(port), wan.delete(external, "UDP")), ({}, {}))
            self.ends_by_reset(sock, "the caller's connection")
        wait_until("the service's end is reset", lambda: "reset" in service.ends)
        self.dropped(uservice, external, sport=4001)
        self.shut(port)
        self.assertEqual((wan.mapping(port), wan.error("DeletePortMapping", wan.key(port))), (None, 714))

    def test_an_entry_ends_with_its_lease_and_that_is_told_WIC_ADD_14(self):
        wan, port, uport = self.wan(), self.port(), self.port()
        service, uservice = self.tcp_service(port), self.udp_service(uport)
        listener, first = self.subscribed()
        began = time.monotonic()
        wan.add(port, lease=2)
        wan.add(uport, "UDP", lease=2)
        with self.lab.internet.connect((EXTERNAL, port), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            self.arrives(uservice, uport, sport=4001)
            listener.wait("both are counted", lambda e: self.count(e) == self.count(first) + 2)
            last = listener.wait("both ended", lambda e: e.seq > 1 and self.count(e) == self.count(first))
            self.assertGreaterEqual(last.at - began, 1.9)
            self.assertGreater(int(last.values["SystemUpdateID"]), int(first.values["SystemUpdateID"]))
            self.ends_by_reset(sock, "the caller's connection")
            self.dropped(uservice, uport, sport=4001)
        self.shut(port)
        self.assertEqual((wan.mapping(port), wan.mapping(uport, "UDP")), (None, None))
        self.assertEqual(service.ends, ["reset"])

    def test_what_the_administrator_revokes_is_shut_and_told(self):
        wan, port = self.wan(), self.port()
        service = self.tcp_service(port)
        wan.add(port)
        row = self.lease("tcp", port)
        self.assertEqual((row["via"], row["kind"], row["internal"], row["description"]),
                         ("upnp", "explicit", {"address": DEVICE1, "port": port}, "lab"))
        listener, first = self.subscribed(2)
        with self.lab.internet.connect((EXTERNAL, port), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            self.assertEqual(self.cli_json("revoke", row["id"], "-y")["revoked"], [row["id"]])
            self.ends_by_reset(sock, "the caller's connection")
        listener.wait("the revoke", lambda e: e.seq > 0 and self.count(e) == self.count(first) - 1)
        self.shut(port)
        self.assertIsNone(wan.mapping(port))
        self.assertEqual(len(service.peers), 1)

    def test_a_disabled_entry_holds_its_port_and_forwards_nothing_POL_TGT_09(self):
        wan, port = self.wan(), self.port()
        service = self.udp_service(port)
        wan.add(port, "UDP", enabled=0)
        self.assertEqual(wan.mapping(port, "UDP")["NewEnabled"], "0")
        self.dropped(service, port)
        self.assertEqual(self.wan(2).error("AddPortMapping", self.wan(2).mapping_args(port, "UDP")), 718)
        wan.add(port, "UDP", enabled=1)
        self.arrives(service, port, sport=4002)
        wan.add(port, "UDP", enabled="no")
        self.dropped(service, port, sport=4002)  # nor what came through before
        self.assertEqual(self.lease("udp", port)["internal"]["port"], port)

    def test_a_remote_host_is_held_to_for_every_packet_POL_TGT_07_WIC_ADD_15_16(self):
        wan, port, external, tport = self.wan(), self.port(), self.port(), self.port()
        service, tcp = self.udp_service(port), self.tcp_service(tport, name=b"t:")
        wan.add(external, "UDP", port, remote=FAR)
        self.arrives(service, external, source=FAR)
        self.dropped(service, external, source=OTHER_FAR)
        # another entry of the same port for the other host, which does not touch the first
        wan.add(external, "UDP", port, remote=OTHER_FAR, description="other")
        self.arrives(service, external, source=OTHER_FAR)
        self.arrives(service, external, source=FAR)
        self.dropped(service, external, source=PEER)
        self.assertEqual([wan.mapping(external, "UDP", far)["NewPortMappingDescription"] for far in (FAR, OTHER_FAR)], ["lab", "other"])
        self.assertIsNone(wan.mapping(external, "UDP"))  # WIC-DEL-06
        self.assertEqual(wan.error("DeletePortMapping", wan.key(external, "UDP")), 714)
        # both lead to one internal port: a port that would depend on who calls is refused, and nothing changes
        self.assertEqual(wan.error("AddPortMapping", wan.mapping_args(external, "UDP", port + 1, remote=PEER)), 718)
        self.assertEqual(wan.error("AddPortMapping", wan.mapping_args(external, "UDP", port + 1, remote=FAR)), 718)
        # never for two devices (POL-OWN-02)
        self.assertEqual(self.wan(2).error("AddPortMapping", self.wan(2).mapping_args(external, "UDP", remote=PEER)), 718)
        wan.delete(external, "UDP", FAR)
        self.dropped(service, external, source=FAR)
        self.arrives(service, external, source=OTHER_FAR)
        wan.add(tport, remote=OTHER_FAR)
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, tport)))
        self.reached(tcp, tport, source=OTHER_FAR)
        for any_host in ("*", "0.0.0.0"):
            again = self.port()
            wan.add(again, "UDP", port, remote=any_host)
            self.arrives(service, again, source=OTHER_FAR)
            self.assertEqual(wan.mapping(again, "UDP")["NewInternalPort"], str(port))

    def test_two_external_ports_of_one_service_answer_each_as_itself(self):
        wan, port, tport = self.wan(), self.port(), self.port()
        self.udp_service(port, name=b"u:")
        service = self.tcp_service(tport, name=b"t:")
        externals = [self.port() for _ in range(3)]
        for external in externals:
            wan.add(external, "UDP", port)
            wan.add(external, "TCP", tport)
        for _ in range(2):
            for external in externals:
                self.assertEqual(self.answer_of(self.lab.internet, (EXTERNAL, external), source=(FAR, 0)),
                                 (b"u:", (EXTERNAL, external)))
                self.reached(service, external)
        wan.delete(externals[0], "UDP")
        for external in externals[1:]:
            self.assertEqual(self.answer_of(self.lab.internet, (EXTERNAL, external), source=(FAR, 0))[1], (EXTERNAL, external))

    def test_one_list_for_all_protocols_WIC_V_06(self):
        wan, client = self.wan(), self.client()
        upnp_port, pcp_port, natpmp_port, said = (self.port() for _ in range(4))
        wan.add(upnp_port, description="Spiel & Spaß <1>")
        self.assertEqual(client.map("udp", pcp_port, pcp_port).result, 0)
        self.assertEqual(client.map("tcp", said, said, options=wire.option(wire.DESCRIPTION, b"my words")).result, 0)
        self.assertEqual(client.natpmp("udp", natpmp_port, natpmp_port).external, natpmp_port)
        for version in (1, 2):
            entries = {(e["NewProtocol"], int(e["NewExternalPort"])): e["NewPortMappingDescription"]
                       for e in self.wan(2, version).mappings()}
            self.assertEqual([entries.get(key) for key in (("TCP", upnp_port), ("UDP", pcp_port), ("UDP", natpmp_port), ("TCP", said))],
                             ["Spiel & Spaß <1>", "PCP", "NAT-PMP", "my words"])
            self.assertEqual(len(entries), len(self.wan(2, version).mappings()))  # POL-TXT-06
        listing = upnp.xml.fromstring(self.wan(2).call("GetListOfPortMappings", [
            ("NewStartPort", upnp_port), ("NewEndPort", natpmp_port), ("NewProtocol", "UDP"), ("NewManage", 1),
            ("NewNumberOfPorts", 0)])["NewPortListing"])
        self.assertEqual([upnp.local(e) for e in listing[0]], ["NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort",
                                                              "NewInternalClient", "NewEnabled", "NewDescription", "NewLeaseTime"])
        self.assertEqual({e[1].text for e in listing}, {str(pcp_port), str(natpmp_port)})
        vias = {(r["protocol"], r["external"]["port"]): (r["via"], r["description"]) for r in self.leases()}
        self.assertEqual(vias[("tcp", upnp_port)], ("upnp", "Spiel & Spaß <1>"))
        self.assertEqual((vias[("udp", pcp_port)][0], vias[("udp", natpmp_port)][0]), ("pcp", "natpmp"))

    def test_a_description_comes_back_as_it_was_and_no_list_breaks_POL_TXT_01_03(self):
        wan, made = self.wan(), {}
        for said, kept in (("a]]>b&amp;<!--", "a]]>b&amp;<!--"), ("\t\r\nx", None), ("é" * 200, "é" * 127), ("", ""), ("  b  ", "  b  ")):
            port = self.port()
            inner = upnp.arguments_xml(wan.mapping_args(port, description=said)).replace("\r", "&#13;").replace("\t", "&#9;")
            wan.call("AddPortMapping", inner=inner)
            made[port] = "   x" if kept is None else kept
        port = self.port()
        wan.call("AddPortMapping", inner=upnp.arguments_xml(wan.mapping_args(port, description="@")).replace(
            "@", "<![CDATA[<b>]]>&#233;<!-- no --><?no no?>&#x202e;&#127;"))
        made[port] = "<b>é  "
        listing = upnp.xml.fromstring(wan.call("GetListOfPortMappings", [
            ("NewStartPort", min(made)), ("NewEndPort", port), ("NewProtocol", "TCP"), ("NewManage", 0),
            ("NewNumberOfPorts", 0)])["NewPortListing"])
        self.assertEqual({int(e[1].text): e[6].text or "" for e in listing}, made)
        self.assertEqual({p: wan.mapping(p)["NewPortMappingDescription"] for p in made}, made)

    def test_nobody_changes_or_deletes_anothers_POL_OWN_01_02_05_06(self):
        mine, theirs, client = self.wan(1), self.wan(2), self.client(1)
        port, pcp_port, natpmp_port = (self.port() for _ in range(3))
        service = self.udp_service(port)
        mine.add(port, "UDP")
        self.assertEqual(client.map("udp", pcp_port, pcp_port).result, 0)
        self.assertEqual(client.natpmp("udp", natpmp_port, natpmp_port).external, natpmp_port)
        before = sorted(self.leases(), key=lambda r: r["id"])
        for version in (1, 2):
            for external in (port, pcp_port, natpmp_port):
                self.assertEqual(self.wan(2, version).error("DeletePortMapping", mine.key(external, "UDP")), 606)
                self.assertEqual(self.wan(2, version).error("AddPortMapping", theirs.mapping_args(external, "UDP")), 718)
        for manage in (0, 1):
            self.assertEqual(theirs.error("DeletePortMappingRange", [("NewStartPort", port), ("NewEndPort", natpmp_port),
                                                                     ("NewProtocol", "UDP"), ("NewManage", manage)]), 606)
        self.assertEqual(theirs.error("AddPortMapping", theirs.mapping_args(self.port(), client=DEVICE1)), 606)
        # nor a protocol what another protocol made, from the same device
        for external in (pcp_port, natpmp_port):
            self.assertEqual(mine.error("DeletePortMapping", mine.key(external, "UDP")), 606)
        self.assertEqual(client.natpmp("udp", port, 0, 0).result, 2)
        self.assertEqual(client.natpmp("udp", pcp_port, 0, 0).result, 2)
        self.assertIn(client.unmap("udp", port, b"q" * 12).result, (0, 2))
        key = lambda rows: [(r["id"], r["external"], r["internal"], r["via"]) for r in rows]
        self.assertEqual(key(sorted(self.leases(), key=lambda r: r["id"])), key(before))
        self.arrives(service, port)
        # another is found for who will have any
        other = theirs.add_any(port, "UDP")
        self.assertNotEqual(other, port)
        self.assertEqual(self.lease("udp", other)["internal"]["address"], DEVICE2)
        # an owner that asks by another protocol gets the port in force
        self.assertEqual(client.natpmp("udp", port, 0).external, port)
        mine.delete(port, "UDP")
        self.arrives(service, port)  # the other lease holds it open (POL-OWN-04)

    def test_a_range_deletes_ones_own_and_no_more_WIC_RNG(self):
        mine, theirs = self.wan(1), self.wan(2)
        a, b, c, d = (self.port() for _ in range(4))
        mine.add(a, "UDP"), mine.add(b, "TCP"), theirs.add(c, "UDP"), mine.add(d, "UDP")
        ends = lambda first, last, manage=0, protocol="UDP": [("NewStartPort", first), ("NewEndPort", last),
                                                              ("NewProtocol", protocol), ("NewManage", manage)]
        self.assertEqual(mine.error("DeletePortMappingRange", ends(d, a)), 733)
        self.assertEqual(mine.error("DeletePortMappingRange", ends(64000, 64001)), 730)
        self.assertIsNone(mine.error("DeletePortMappingRange", ends(a, d, 1)))
        self.assertEqual([mine.mapping(p, k) is None for p, k in ((a, "UDP"), (b, "TCP"), (c, "UDP"), (d, "UDP"))],
                         [True, False, False, True])

    def test_version_1_and_2_of_the_service_answer_as_themselves_UDA_3_12_UPNP_X_01(self):
        one, two = self.wan(version=1), self.wan(version=2)
        port = self.port()
        one.add(port, lease=0)
        self.assertEqual(one.mapping(port)["NewLeaseDuration"], "0")
        self.assertIsNone(self.lease("tcp", port)["remaining_s"])
        two.add(port, lease=0)
        self.assertTrue(604790 < int(two.mapping(port)["NewLeaseDuration"]) <= 604800)
        two.add(port, lease=4000000000)
        self.assertTrue(604790 < int(two.mapping(port)["NewLeaseDuration"]) <= 604800)
        self.assertEqual(one.error("AddAnyPortMapping", one.mapping_args(port)), 401)
        self.assertEqual(two.add_any(0, internal=self.port()) >= 1024, True)  # UPNP-X-12

    def test_arguments_and_their_errors_POL_NUM_POL_TGT(self):
        wan, port = self.wan(), self.port()
        before = len(self.leases())

        def code(action="AddPortMapping", version=2, **over):
            args = [(name, over.get(name, value)) for name, value in wan.mapping_args(port) if over.get(name, value) is not None]
            return self.wan(version=version).error(action, args)

        rows = [({"NewExternalPort": v}, c) for v, c in ((0, 716), (80, 606), (1023, 606), (65536, 601), (73616, 601), ("-1", 402),
                                                        ("+8", 402), ("0x50", 402), ("8080.0", 402), ("8e3", 402), ("80 80", 402),
                                                        ("", 402), (None, 402), ("9" * 40, 601), (5000, 718))]
        rows += [({"NewInternalPort": v}, c) for v, c in ((0, 732), (1023, 606), (65536, 601), ("x", 402), (None, 402))]
        rows += [({"NewProtocol": v}, c) for v, c in (("ICMP", 600), ("TCPUDP", 600), ("6", 600), ("", 402), (None, 402))]
        rows += [({"NewEnabled": v}, c) for v, c in (("2", 402), ("on", 402), ("", 402), (None, 402))]
        rows += [({"NewLeaseDuration": v}, c) for v, c in (("-1", 402), ("4294967296", 601), ("1h", 402), ("", 402), (None, 402))]
        rows += [({"NewRemoteHost": v}, c) for v, c in (("example.com", 402), ("300.1.1.1", 402), ("1.2.3", 402), ("::1", 402),
                                                       ("198.51.100.10/24", 402), (None, 402))]
        rows += [({"NewInternalClient": v}, c) for v, c in (
            (DEVICE2, 606), (LAN, 606), (EXTERNAL, 606), (FAR, 606), ("127.0.0.1", 606), ("0.0.0.0", 606), ("192.168.50.255", 606),
            ("255.255.255.255", 606), ("224.0.0.1", 606), ("device1", 402), ("*", 402), ("", 402), ("0xc0a8320b", 402),
            ("192.168.50.011", 402), ("192.168.12811", 402), ("::ffff:192.168.50.11", 402), (DEVICE1 + ":80", 402),
            (DEVICE1 + "%eth0", 402), (DEVICE1 + "/24", 402), (None, 402))]
        rows += [({"NewPortMappingDescription": None}, 402)]
        for over, expected in rows:
            with self.subTest(over):
                self.assertEqual(code(**over), expected)
        self.assertEqual(code(version=1, NewInternalPort=0), 402)
        self.assertGreaterEqual(wan.add_any(80, internal=self.port()), 1024)  # POL-TGT-03
        self.assertEqual(len(self.leases()), before + 1)
        # and what looks odd and is fine
        for over in ({"NewProtocol": "tcp"}, {"NewExternalPort": f"  00{port} \n"}, {"NewEnabled": "true"}, {"NewEnabled": "Yes"},
                     {"NewInternalClient": f" {DEVICE1} "}):
            with self.subTest(over):
                self.assertIsNone(code(**over))
        self.assertEqual(len([r for r in self.leases() if r["external"]["port"] == port]), 1)
        for index, expected in ((65535, 713), (65536, 402), ("-1", 402), ("x", 402), ("", 402), (99999999999, 402)):
            self.assertEqual(wan.error("GetGenericPortMappingEntry", [("NewPortMappingIndex", index)]), expected, index)
        self.assertEqual(wan.error("GetSpecificPortMappingEntry", wan.key(port, "SCTP")), 600)
        self.assertEqual(wan.error("DeletePortMapping", wan.key(0)), 714)

    def test_a_static_mapping_is_listed_and_stays(self):
        self.assertEqual(self.wan().mapping(1999, "UDP")["NewInternalClient"], CONTROL_HOST)
        control = upnp.Service(self.lab.device1, CONTROL_HOST, next(s for s in self.gateway().services if s.type == upnp.WANIP + "2"))
        self.assertEqual(control.error("DeletePortMapping", control.key(1999, "UDP")), 606)
        self.assertEqual(self.wan().error("AddPortMapping", self.wan().mapping_args(1999, "UDP")), 718)
        self.arrives(self.control, 1999)

    def test_what_is_evented_is_told_at_first_and_a_subscription_ends_UDA_4(self):
        for service in self.gateway().services:
            with self.subTest(service.type):
                listener, asked = self.listener(), upnp.Service(self.lab.device1, DEVICE1, service)
                answer = asked.subscribe(listener, "Second-5", path="/a/b?c=d")
                self.assertEqual((answer.status, answer["timeout"], answer["content-length"]), (200, "Second-5", "0"))
                self.assertRegex(answer["sid"], r"^uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
                event = listener.wait("the first event")
                self.assertEqual((event.message.start, event.sid, event.seq), ("NOTIFY /a/b?c=d HTTP/1.1", answer["sid"], 0))
                self.assertEqual(set(event.values), EVENTED[service.type.rpartition(":")[0] + ":"])
                self.assertEqual((event.message["nt"], event.message["nts"], event.message["host"], event.peer[0]),
                                 ("upnp:event", "upnp:propchange", f"{DEVICE1}:{listener.port}", LAN))
                renewed = asked.renew(answer["sid"], "Second-600")
                self.assertEqual((renewed.status, renewed["sid"], renewed["timeout"]), (200, answer["sid"], "Second-600"))
                self.assertEqual(asked.unsubscribe(answer["sid"]).status, 200)
                self.assertEqual(asked.unsubscribe(answer["sid"]).status, 412)
                self.assertEqual(asked.renew(answer["sid"]).status, 412)
        # a change made after the end is told to who is still there and not to who is gone
        gone, there = self.listener(), self.listener()
        sids = [self.wan().subscribe(listener)["sid"] for listener in (gone, there)]
        for listener in (gone, there):
            listener.wait("the first event")
        self.wan().unsubscribe(sids[0])
        port = self.port()
        self.wan().add(port)
        event = there.wait("a new entry", lambda e: e.seq == 1)
        self.assertIn("SystemUpdateID", event.values)
        self.assertEqual(len(gone.events()), 1)
        self.wan().unsubscribe(sids[1])


class Changes(UpnpCase):
    """Crash, reload, another address."""

    def entries(self):
        keep = ("NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient", "NewEnabled",
                "NewPortMappingDescription")
        return sorted(tuple(e[k] for k in keep) for e in self.wan().mappings())

    def test_kill_9_keeps_every_entry_as_it_was_POL_STO_02_IGD_09(self):
        wan, one = self.wan(), self.wan(version=1)
        plain, permanent, disabled, remote, gone = (self.port() for _ in range(5))
        services = {p: self.udp_service(p) for p in (plain, permanent, disabled, remote)}
        wan.add(plain, "UDP", description="ein & <zwei>")
        one.add(permanent, "UDP", lease=0)
        wan.add(disabled, "UDP", enabled=0)
        wan.add(remote, "UDP", remote=FAR)
        wan.add(remote, "UDP", remote=OTHER_FAR, enabled=0)
        wan.add(gone, "UDP")
        wan.delete(gone, "UDP")
        before, ids = self.entries(), sorted((r["id"], r["lifetime_s"]) for r in self.leases())
        listener = self.listener()
        sid = wan.subscribe(listener)["sid"]
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(wan.renew(sid).status, 412)  # a subscriber learns that it is to begin anew
        self.assertEqual(self.entries(), before)
        self.assertEqual(sorted((r["id"], r["lifetime_s"]) for r in self.leases()), ids)
        self.assertEqual(one.mapping(permanent, "UDP")["NewLeaseDuration"], "0")
        self.assertTrue(3500 < int(wan.mapping(plain, "UDP")["NewLeaseDuration"]) <= 3600)
        for port in (plain, permanent, remote):
            self.arrives(services[port], port)
        self.dropped(services[disabled], disabled)
        self.dropped(services[remote], remote, source=OTHER_FAR)
        wan.add(disabled, "UDP")
        self.arrives(services[disabled], disabled)
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assertEqual(one.mapping(permanent, "UDP")["NewLeaseDuration"], "0")
        self.assertEqual(wan.mapping(disabled, "UDP")["NewEnabled"], "1")

    def test_a_reload_keeps_entries_and_subscriptions_POL_RUN_04(self):
        wan, port = self.wan(), self.port()
        service, listener = self.tcp_service(port), self.listener()
        wan.add(port)
        sid = wan.subscribe(listener)["sid"]
        listener.wait("the first event")
        with self.lab.internet.connect((EXTERNAL, port), (FAR, 0)) as sock, \
                self.lab.device1.connect(wan.control.to, (DEVICE1, 0)) as kept:
            reader = upnp.Reader(kept)
            ask = upnp.soap_request(wan.control, wan.type, "GetExternalIPAddress", pairs=[
                ("Content-Type", 'text/xml; charset="utf-8"'), ("SOAPAction", f'"{wan.type}#GetExternalIPAddress"')])
            kept.sendall(ask)
            self.assertEqual(reader.message().status, 200)
            for n in range(5):
                said = len(self.daemon.log())
                self.daemon.hang_up()
                wait_until("the log tells of the reload", lambda: len(self.daemon.log()) > said)
                sock.sendall(b"x")
                self.assertEqual(sock.recv(1), b"x")
                kept.sendall(ask)
                self.assertEqual(reader.message().status, 200, n)
        self.assertEqual(len(service.peers), 1)
        wan.add(self.port())
        self.assertEqual(listener.wait("a new entry", lambda e: e.seq == 1).sid, sid)
        self.assertEqual(wan.renew(sid).status, 200)
        self.assertIsNotNone(wan.mapping(port))

    def test_another_external_address_is_told_within_5_s_POL_RUN_01_WIC_V_04(self):
        wan, port = self.wan(), self.port()
        service, listener = self.udp_service(port), self.listener(2)
        wan.add(port, "UDP")
        self.wan(2).subscribe(listener)
        first = listener.wait("the first event")
        self.assertEqual((first.values["ExternalIPAddress"], first.values["ConnectionStatus"]), (EXTERNAL, "Connected"))
        other = "203.0.114.8"
        try:
            began = time.monotonic()
            self.lab.wan_address(other, old=EXTERNAL)
            event = listener.wait("the new address", lambda e: e.values.get("ExternalIPAddress") == other)
            self.assertLess(event.at - began, 5)
            self.assertEqual(wan.call("GetExternalIPAddress"), {"NewExternalIPAddress": other})
            self.lab.internet.ip("route", "replace", "192.168.0.0/16", "via", other)
            self.arrives(service, port, to=other)
            self.lab.gateway.ip("addr", "del", f"{other}/24", "dev", "wan0")
            event = listener.wait("none at all", lambda e: e.values.get("ConnectionStatus") == "Disconnected")
            self.assertEqual(event.values["ExternalIPAddress"], "")
            self.assertEqual(wan.call("GetExternalIPAddress"), {"NewExternalIPAddress": ""})
            self.assertEqual(wan.call("GetStatusInfo")["NewUptime"], "0")
            self.assertEqual(wan.error("AddPortMapping", wan.mapping_args(self.port())), 501)
            self.assertEqual(wan.error("RequestConnection"), 704)
        finally:
            self.lab.wan_address(EXTERNAL)
        listener.wait("the old one again", lambda e: e.seq > event.seq and e.values.get("ExternalIPAddress") == EXTERNAL)
        self.arrives(service, port)


class Configured(UpnpCase):
    """Version 1 for old clients, lists of one's own, quotas, no permanent entries."""

    config = {"listen": {"protocols": ["pcp", "upnp"], "igd_version": 1, "uda_version": "1.0", "multicast_ttl": 3, "http_port": 5555}, "policy": {"list": "own"},
              "limits": {"leases_per_device": 3}, "lifetimes": {"upnp_v1_permanent": False, "upnp_max": 7200}}

    def test_the_whole_tree_is_version_1_IGD_08(self):
        gateway = self.gateway()
        self.assertEqual(upnp.Url(gateway.location).port, 5555)
        kinds = [d.type for d in upnp.all_devices(gateway.description.root)] + [s.type for s in gateway.services]
        self.assertEqual({kind.rpartition(":")[2] for kind in kinds}, {"1"})
        actions = gateway.scpd(next(s for s in gateway.services if s.type.startswith(upnp.WANIP))).actions
        self.assertFalse({"AddAnyPortMapping", "DeletePortMappingRange", "GetListOfPortMappings"} & set(actions))
        self.assertEqual(self.wan().error("AddAnyPortMapping", self.wan().mapping_args(self.port())), 401)
        self.assertEqual(self.wan(version=2).error("GetExternalIPAddress"), 401)
        with upnp.ssdp_socket(self.lab.device1, DEVICE1) as sock:
            for st in (upnp.IGD + "2", upnp.WANIP + "2", upnp.IGD + "1"):
                sock.sendto(upnp.msearch(st, mx=None), (LAN, 1900))
            self.assertEqual([a["st"] for a, _ in upnp.heard(sock, 1)], [upnp.IGD + "1"])

    def test_its_version_and_ttl_are_as_configured_UPNP_X_11_UDA_1_2_13(self):
        gateway = self.gateway()
        description = upnp.get(self.lab.device1, gateway.location)
        self.assertIn(b"<minor>0</minor>", description.body)
        self.assertNotIn(b"configId", description.body)
        found = upnp.search(self.lab.device1, DEVICE1, upnp.ROOT_DEVICE, enough=1)[0][0]
        for answer in (description, found):
            self.assertRegex(answer["server"], "^Linux/.* UPnP/1.0 Sallyport/")
        self.assertEqual([name for name, _ in found.fields if name.endswith(".upnp.org")], [])
        with self.sniff(self.lab.device2, "eth0") as sniffer:
            self.daemon.stop()  # says byebye
            self.daemon.start()
            said = sniffer.all(lambda p: p.dport == 1900 and p.destination == upnp.GROUP[0])
        self.assertEqual({p.ttl for p in said}, {3})

    def test_a_device_sees_its_own_entries_and_has_so_many_WIC_GEN_04_POL_QTA_01(self):
        mine, theirs = self.wan(1), self.wan(2)
        a, b, c, d = (self.port() for _ in range(4))
        theirs.add(d)
        for n, port in enumerate((a, b, c)):
            mine.add(port, lease=0 if n == 0 else 60)
        self.assertTrue(7190 < int(mine.mapping(a)["NewLeaseDuration"]) <= 7200)
        self.assertEqual([int(e["NewExternalPort"]) for e in mine.mappings()], [a, b, c])
        self.assertEqual([int(e["NewExternalPort"]) for e in theirs.mappings()], [d])
        self.assertEqual(mine.call("GetGenericPortMappingEntry", [("NewPortMappingIndex", 2)])["NewExternalPort"], str(c))
        self.assertIsNone(mine.mapping(d))
        self.assertEqual(mine.error("AddPortMapping", mine.mapping_args(self.port())), 501)
        mine.add(b, lease=90)  # what is there goes on
        mine.delete(c)
        mine.add(self.port())
        theirs.add(self.port())


class NotServed(UpnpCase):
    """LANs that are translated and have no UPnP: not even a refusal says that there is one."""

    lab_args = {"guest": True}
    config = {"listen": {"lan": ["br0", "guest0"], "control": ["br0"], "protocols": ["pcp", "natpmp", "upnp"]}}

    def silent(self):
        guest, gateway = self.lab.guest, self.lab.gateway
        with self.sniff(gateway, "guest0") as sniffer:
            for to in (upnp.GROUP, ("192.168.60.1", 1900), (LAN, 1900)):
                with upnp.ssdp_socket(guest, "192.168.60.11") as sock:
                    sock.sendto(upnp.msearch("ssdp:all"), to)
            for to in ("192.168.60.1", LAN, EXTERNAL):
                with self.assertRaises(TimeoutError):
                    guest.connect((to, 5000), timeout=0.4)
            self.assertEqual(len(upnp.search(self.lab.device1, DEVICE1, upnp.ROOT_DEVICE, enough=1)), 1)  # while br0 is served
            return sniffer.all(lambda p: p.source in ("192.168.60.1", LAN, EXTERNAL) and
                               (p.sport in (1900, 5000) or p.dport == 1900 or p.kind == 3))

    def test_guests_and_LANs_of_other_protocols_find_no_gateway_POL_WHO_01(self):
        self.assertEqual([vars(p) for p in self.silent()], [])
        wan, port = self.wan(), self.port()
        wan.add(port)
        # the same LAN with PCP only
        control = {"protocol": "udp", "external": 1999, "internal": f"{CONTROL_HOST}:1999", "description": "control"}
        self.daemon.configure({"listen": {"lan": ["br0", "guest0"], "protocols": ["pcp", "natpmp", "upnp"],
                                          "interface": [{"name": "guest0", "protocols": ["pcp"]}]}, "static": [control]})
        self.daemon.hang_up()
        guest = self.client(host=self.lab.guest, address="192.168.60.11", gateway="192.168.60.1")
        wait_until("the guests have PCP", lambda: guest.ask(wire.pcp_header(wire.ANNOUNCE, 0, "192.168.60.11"), tries=1, timeout=0.5))
        self.assertEqual([vars(p) for p in self.silent()], [])
        self.assertIsNotNone(wan.mapping(port))


class FullDisk(UpnpCase):
    """A store that cannot be written, from the first start on."""

    starts = False

    def test_nothing_is_promised_that_could_not_be_kept_and_it_is_the_same_device_later_POL_STO_04(self):
        disk = os.path.join(self.lab.directory, "disk")
        filler = os.path.join(disk, "filler")
        os.mkdir(disk)
        lab_module.run("mount", "-t", "tmpfs", "-o", "size=640k,mode=755", "none", disk)
        self.lab.later(lab_module.run, "umount", "-l", disk)
        with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        type(self).daemon = self.lab.daemon(start=False, state=os.path.join(disk, "state"))
        type(self).start(self.config)
        wan, port = self.wan(), self.port()
        self.assertEqual(wan.call("GetExternalIPAddress"), {"NewExternalIPAddress": EXTERNAL})
        for action in ("AddPortMapping", "AddAnyPortMapping"):
            self.assertEqual(wan.error(action, wan.mapping_args(port)), 501)
        self.assertIsNone(wan.mapping(port))
        os.unlink(filler)
        wait_until("entries are granted again", lambda: wan.error("AddPortMapping", wan.mapping_args(port)) is None, 60)
        before = identity(self.gateway())
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(identity(upnp.find(self.lab.device1, DEVICE1, LAN)), before)
        self.assertIsNotNone(wan.mapping(port))
        with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        for n in range(2000):  # what the journal still has room for
            if wan.error("AddPortMapping", wan.mapping_args(port, description=f"{n}" * 50)) == 501:
                break
        self.assertEqual(wan.error("DeletePortMapping", wan.key(port)), 501)
        self.assertIsNotNone(wan.mapping(port))
        os.unlink(filler)
        wait_until("it is deleted in the end", lambda: wan.error("DeletePortMapping", wan.key(port)) in (None, 714), 60)
        self.assertIsNone(wan.mapping(port))


class BigTable(UpnpCase):
    config = {"listen": {"protocols": ["natpmp", "upnp"]}, "limits": {"leases_per_device": 0, "requests_per_second": 0}}
    ENTRIES = 5000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with wire.Client(cls.lab.device1, DEVICE1) as client:
            missing = set(range(10000, 10000 + cls.ENTRIES))
            for _ in range(20):
                for first in range(0, len(missing), 200):
                    for port in sorted(missing)[first:first + 200]:
                        client.sock.sendto(wire.natpmp_map("udp", port, port, 7200), client.gateway)
                    while (data := client.hear(0.05)) is not None:
                        answer = wire.parse_natpmp(data)
                        if answer.result == 0 and answer.internal == answer.external:
                            missing.discard(answer.internal)
                if not missing:
                    break
            assert not missing, f"{len(missing)} leases were not granted"

    def test_a_walk_and_a_list_have_each_entry_once_WIC_GEN_01_WIC_LST_02(self):
        wan = self.wan()
        walked, kept = [], None
        ask = lambda index: upnp.soap_request(wan.control, wan.type, "GetGenericPortMappingEntry", [("NewPortMappingIndex", index)], pairs=[
            ("Content-Type", 'text/xml; charset="utf-8"'), ("SOAPAction", f'"{wan.type}#GetGenericPortMappingEntry"')])
        with self.lab.device1.connect(wan.control.to, (DEVICE1, 0)) as kept:
            reader = upnp.Reader(kept)
            with contextlib.suppress(upnp.UpnpError):
                while True:
                    kept.sendall(ask(len(walked)))
                    walked.append(int(upnp.parse_soap(reader.message())["NewExternalPort"]))
        self.assertEqual(sorted(walked), sorted([1999, *range(10000, 10000 + self.ENTRIES)]))
        for most, expected in ((0, self.ENTRIES), (7, 7)):
            answer = wan.call("GetListOfPortMappings", [("NewStartPort", 2000), ("NewEndPort", 65535), ("NewProtocol", "UDP"),
                                                        ("NewManage", 0), ("NewNumberOfPorts", most)])
            listing = upnp.xml.fromstring(answer["NewPortListing"])
            self.assertEqual(len({e[1].text for e in listing}), expected)
            self.assertEqual(len(listing), expected)

    @unittest.skipUnless(shutil.which("upnpc"), "upnpc is not installed")
    def test_upnpc_lists_them_all(self):
        done = self.lab.device1.call("upnpc", "-m", "eth0", "-l", timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout[-500:] + done.stderr)
        rows = re.findall(rf"^\s*\d+ UDP\s+(\d+)->{re.escape(DEVICE1)}:(\d+)\s+'NAT-PMP'", done.stdout, re.M)
        self.assertEqual(sorted(int(a) for a, _ in rows), list(range(10000, 10000 + self.ENTRIES)), done.stdout[-500:])
