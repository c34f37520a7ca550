"""Packets: outbound translation, hairpin, ICMP, fragments, filtering, spoofed senders."""

import os
import socket
import struct
import threading
import time

import wire
from lab import (DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, PEER, TcpEcho, UdpEcho, tcp_ask, token, udp_ask,
                 wait_until)
from labcase import LabCase, leaks
from wire import ACK, RST, SYN

GHOST = "192.168.50.77"   # LAN hosts without a stack: a sniffer and raw frames, nothing answers by itself
GHOST2 = "192.168.50.78"
NOWHERE = "198.51.100.77"  # internet hosts without a stack
NOWHERE2 = "198.51.100.78"


class Packets(LabCase):
    """Raw packets of ghosts: their neighbours are written into the gateway, their frames go by AF_PACKET."""

    @classmethod
    def start(cls, config=None):
        super().start(config)
        gateway = cls.lab.gateway
        cls.mac = cls.lab.device1.mac("eth0")
        cls.gateway_mac = gateway.mac("br0")
        cls.wan_mac, cls.net_mac = gateway.mac("wan0"), cls.lab.internet.mac("eth0")
        for ghost in (GHOST, GHOST2):
            gateway.ip("neigh", "replace", ghost, "lladdr", cls.mac, "dev", "br0", "nud", "permanent")

    def setUp(self):
        self.inside = self.sniff(self.lab.device1, "eth0")
        self.outside = self.sniff(self.lab.internet, "eth0")

    def send_out(self, packet):
        self.lab.device1.send_frame("eth0", self.gateway_mac, packet)

    def send_in(self, packet):
        self.lab.internet.send_frame("eth0", self.wan_mac, packet)

    def leaves(self, what, data=None, **fields):
        return self.outside.await_packet(f"{what} leaves on the WAN", self.matcher(data, fields))

    def comes(self, what, data=None, **fields):
        return self.inside.await_packet(f"{what} comes to the LAN host", self.matcher(data, fields))

    @staticmethod
    def matcher(data, fields):
        return lambda p: (data is None or data in p.payload) and all(getattr(p, k) == v for k, v in fields.items())

    def opened(self, source=GHOST, remote=NOWHERE, sport=None, dport=9000):
        """An outbound UDP flow; its external port."""
        data, sport = token("open"), sport or self.port()
        self.send_out(wire.udp(source, sport, remote, dport, data))
        packet = self.leaves("the first packet", data, destination=remote)
        self.assertEqual((packet.source, packet.dport, packet.sums), (EXTERNAL, dport, True))
        return sport, packet.sport

    def not_in(self, packet, data):
        """The packet does not come in, though one sent after it does."""
        self.send_in(packet)
        self.arrives(self.control, 1999)
        time.sleep(0.05)
        self.assertIsNone(self.inside.find(lambda p: data in p.payload and p.source != "192.168.50.1"))

    def not_out(self, packet, data):
        self.send_out(packet)
        self.opened()
        time.sleep(0.05)
        self.assertIsNone(self.outside.find(lambda p: data in p.payload))


class Records(Packets):
    config = {"log": {"mappings": True}}

    def test_a_mapping_of_outbound_traffic_is_on_record_and_where_it_leads_is_not_NLOG_01_02(self):
        sport, external = self.opened()
        begins = f"mapping begins: udp {GHOST}:{sport} <-> {EXTERNAL}:{external}"
        wait_until("the log has it", lambda: begins in self.daemon.log())
        self.assertNotIn(NOWHERE, self.daemon.log())


class Outbound(Packets):
    def test_udp_goes_out_and_its_answer_comes_back(self):
        sport, external = self.opened()
        data = token()
        self.send_in(wire.udp(NOWHERE, 9000, EXTERNAL, external, data))
        packet = self.comes("the answer", data)
        self.assertEqual((packet.source, packet.sport, packet.destination, packet.dport, packet.sums),
                         (NOWHERE, 9000, GHOST, sport, True))

    def test_one_external_port_whatever_the_remote_N4787_01(self):
        sport, external = self.opened()
        for remote, dport in ((NOWHERE2, 9000), (NOWHERE, 9001), (PEER, 53)):
            self.assertEqual(self.opened(remote=remote, sport=sport, dport=dport)[1], external)

    def test_two_devices_with_one_source_port_are_both_served_N4787_29(self):
        sport = self.port()
        one, two = self.opened(GHOST, sport=sport)[1], self.opened(GHOST2, sport=sport)[1]
        self.assertEqual(one, sport)  # kept while it is free
        self.assertNotEqual(one, two)
        for host, external in ((GHOST, one), (GHOST2, two)):
            data = token()
            self.send_in(wire.udp(NOWHERE, 9000, EXTERNAL, external, data))
            self.assertEqual(self.comes("the answer", data).destination, host)

    def test_real_sockets_of_two_devices_with_one_source_port(self):
        sport = self.port()
        with UdpEcho(self.lab.internet, 7100, b"u"), TcpEcho(self.lab.internet, 7100, b"t"):
            for device, address in ((self.lab.device1, DEVICE1), (self.lab.device2, DEVICE2)):
                self.assertEqual(self.answer_of(device, (FAR, 7100), source=(address, sport))[0], b"u")
                self.assertEqual(tcp_ask(device, (FAR, 7100), (address, sport))[0], b"t")

    def test_a_large_tcp_transfer_arrives_whole_both_ways(self):
        size = 8 << 20
        blob = os.urandom(1 << 20)
        with self.lab.internet.listen("0.0.0.0", 7200) as listener:
            mine = self.lab.device1.connect((FAR, 7200))
            theirs, _ = listener.accept()
            import hashlib
            import threading
            for sender, receiver in ((mine, theirs), (theirs, mine)):
                digest = hashlib.sha256()
                thread = threading.Thread(target=lambda: [sender.sendall(blob) for _ in range(size >> 20)])
                thread.start()
                receiver.settimeout(20)
                left = size
                while left:
                    data = receiver.recv(min(left, 1 << 18))
                    self.assertTrue(data)
                    digest.update(data)
                    left -= len(data)
                thread.join()
                self.assertEqual(digest.digest(), hashlib.sha256(blob * (size >> 20)).digest())
            mine.close(), theirs.close()

    def test_implicit_mappings_admit_the_same_address_only_N4787_13(self):
        sport, external = self.opened()
        data = token()
        self.not_in(wire.udp(NOWHERE2, 9000, EXTERNAL, external, data), data)
        self.send_in(wire.udp(NOWHERE, 9999, EXTERNAL, external, data))
        self.assertEqual(self.comes("another port of the same address", data).dport, sport)

    def test_a_udp_mapping_lets_no_tcp_in_N4787_27(self):
        _, external = self.opened()
        self.send_in(wire.tcp(NOWHERE, 9000, EXTERNAL, external, SYN))
        self.arrives(self.control, 1999)
        self.assertIsNone(self.inside.find(lambda p: p.protocol == wire.TCP and p.dport == external))

    def test_zero_checksums_stay_zero_TTL_falls_by_one_DSCP_stays_N4787_30_32_34(self):
        data, sport = token(), self.port()
        packet = wire.ip(GHOST, NOWHERE, wire.UDP, wire.udp_segment(GHOST, sport, NOWHERE, 9000, data, zero_sum=True),
                         ttl=17, tos=0xb9)
        self.send_out(packet)
        out = self.leaves("it", data)
        self.assertEqual((out.payload[6:8], out.ttl, out.tos, out.sums), (b"\0\0", 16, 0xb9, True))

    def test_ttl_1_is_answered_with_time_exceeded_N4787_32(self):
        data, sport = token(), self.port()
        self.send_out(wire.udp(GHOST, sport, NOWHERE, 9000, data, ttl=1))
        error = self.comes("ICMP time exceeded", kind=11)
        self.assertEqual((error.code, error.destination, error.inner.source, error.inner.sport), (0, GHOST, GHOST, sport))
        self.assertIsNone(self.outside.find(lambda p: data in p.payload))

    def test_a_wrong_checksum_is_not_masked_NPKT_03(self):
        data, sport = token(), self.port()
        segment = bytearray(wire.udp_segment(GHOST, sport, NOWHERE, 9000, data))
        segment[6] ^= 0x55
        self.send_out(wire.ip(GHOST, NOWHERE, wire.UDP, bytes(segment)))
        self.assertFalse(self.leaves("it", data).sums)

    def test_echo_goes_out_and_back_for_two_hosts_with_one_ID_N5508_01_08(self):
        externals = {}
        for ghost in (GHOST, GHOST2):
            data = token()
            self.send_out(wire.echo(ghost, NOWHERE, 4242, 1, data))
            packet = self.leaves("the request", data)
            self.assertEqual((packet.source, packet.kind, packet.sums), (EXTERNAL, 8, True))
            externals[ghost] = packet.ident_icmp
        self.assertEqual(len(set(externals.values())), 2)
        for ghost, ident in externals.items():
            data = token()
            self.send_in(wire.echo(NOWHERE, EXTERNAL, ident, 1, data, reply=True))
            packet = self.comes("the reply", data)
            self.assertEqual((packet.destination, packet.ident_icmp, packet.sums), (ghost, 4242, True))

    def test_ping_from_a_device_from_the_gateway_and_to_the_gateway(self):
        for host, to in ((self.lab.device1, FAR), (self.lab.device2, FAR), (self.lab.gateway, FAR),
                         (self.lab.internet, EXTERNAL), (self.lab.device1, LAN)):
            done = host.call("ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", to)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_sums_left_to_the_card_are_right_on_the_wire_NPKT_09(self):
        """Devices and internet leave sums to their cards; the gateway's sum themselves, so a wrong one is a lost packet."""
        gateway = self.lab.gateway
        ports = [link["ifname"] for link in gateway.ip_json("link", "show", "master", "br0")]
        for device in ("wan0", *ports):
            gateway.run("ethtool", "-K", device, "tx", "off")
            self.addCleanup(gateway.run, "ethtool", "-K", device, "tx", "on")
        data = os.urandom(200_000)
        # of the two connections from one port one gets another outside, so ports are rewritten too
        with TcpEcho(self.lab.internet, 7300, b"", FAR), UdpEcho(self.lab.internet, 7300, b""):
            port = self.port()
            for device in (self.lab.device1, self.lab.device2):
                with device.connect((FAR, 7300), ("0.0.0.0", port), timeout=10) as connection:
                    writer = threading.Thread(target=connection.sendall, args=(data,))
                    writer.start()
                    back = b""
                    while len(back) < len(data):
                        back += connection.recv(65536)
                    writer.join()
                    self.assertTrue(back == data)
                self.assertIsNotNone(udp_ask(device, (FAR, 7300), ("0.0.0.0", port)))
        sent = self.outside.all(lambda p: p.source == EXTERNAL and p.dport == 7300)
        self.assertEqual({p.protocol for p in sent}, {6, 17})
        self.assertEqual([p for p in sent if not p.sums], [])

    def test_the_gateways_own_connections_work(self):
        with UdpEcho(self.lab.internet, 7300, b"u"), TcpEcho(self.lab.internet, 7300, b"t"):
            self.assertEqual(self.answer_of(self.lab.gateway, (FAR, 7300))[0], b"u")
            self.assertEqual(tcp_ask(self.lab.gateway, (FAR, 7300))[0], b"t")

    def test_errors_come_back_to_who_caused_them_as_traceroute_needs_N5508_25_27(self):
        sport, external = self.opened()
        for kind, code in ((11, 0), (3, 3), (3, 1)):
            quoted = wire.udp(EXTERNAL, external, NOWHERE, 9000, b"quoted", ttl=1)
            self.inside.clear()
            self.send_in(wire.icmp("203.0.114.99", EXTERNAL, kind, code, data=quoted))
            error = self.comes("the error", kind=kind, code=code)
            self.assertEqual((error.source, error.destination, error.sums), ("203.0.114.99", GHOST, True))
            self.assertEqual((error.inner.source, error.inner.sport, error.inner.destination, error.inner.dport),
                             (GHOST, sport, NOWHERE, 9000))
            self.assertEqual(wire.checksum(error.inner.raw[:20]), 0)

    def test_fragmentation_needed_reaches_the_sender_with_its_mtu_N5508_35(self):
        sport, external = self.opened()
        quoted = wire.udp(EXTERNAL, external, NOWHERE, 9000, b"q" * 64, df=True)
        self.send_in(wire.icmp("203.0.114.99", EXTERNAL, 3, 4, 1280, quoted))
        error = self.comes("3/4", kind=3, code=4)
        self.assertEqual((error.mtu, error.inner.source, error.inner.sport, error.sums), (1280, GHOST, sport, True))

    def test_a_kernels_path_mtu_discovery_works_through_the_gateway(self):
        with self.lab.device1.udp(DEVICE1) as mine:
            mine.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            mine.connect((NOWHERE, 9000))
            mine.send(data := token() + b"m" * 1400)
            packet = self.leaves("the big datagram", data[:40])
            self.send_in(wire.icmp("203.0.114.99", EXTERNAL, 3, 4, 1300, packet.raw[:100]))
            wait_until("the device knows the path MTU", lambda: mine.getsockopt(socket.IPPROTO_IP, 14) == 1300)  # IP_MTU

    def test_errors_that_quote_no_session_stay_out_POL_NET_08(self):
        sport, external = self.opened()
        good = wire.udp(EXTERNAL, external, NOWHERE, 9000, b"quoted")
        cases = [("another remote", wire.udp(EXTERNAL, external, NOWHERE2, 9000, b"stray")),
                 ("another remote port", wire.udp(EXTERNAL, external, NOWHERE, 9001, b"stray")),
                 ("a port without mapping", wire.udp(EXTERNAL, self.port() + 20000, NOWHERE, 9000, b"stray")),
                 ("another protocol", wire.tcp(EXTERNAL, external, NOWHERE, 9000, SYN)),
                 ("a later fragment", wire.ip(EXTERNAL, NOWHERE, wire.UDP, b"stray" * 4, offset=64))]
        self.inside.clear()
        for _, quoted in cases:
            self.send_in(wire.icmp("203.0.114.99", EXTERNAL, 3, 1, data=quoted))
        for kind in (4, 5):  # source quench, redirect
            self.send_in(wire.icmp("203.0.114.99", EXTERNAL, kind, 1, data=good))
        self.arrives(self.control, 1999)
        time.sleep(0.05)
        self.assertEqual([vars(p) for p in self.inside.all(lambda p: p.protocol == wire.ICMP and p.source == "203.0.114.99")], [])

    def test_outbound_errors_are_translated_inside_too_N5508_28(self):
        _, external = self.opened()
        data = token()
        self.send_in(wire.udp(NOWHERE, 9000, EXTERNAL, external, data))
        packet = self.comes("the datagram", data)
        self.send_out(wire.icmp(GHOST, NOWHERE, 3, 3, data=packet.raw))
        error = self.leaves("the error", kind=3, code=3)
        self.assertEqual((error.source, error.inner.destination, error.inner.dport, error.sums), (EXTERNAL, EXTERNAL, external, True))
        self.assertEqual(wire.checksum(error.inner.raw[:20]), 0)

    def test_fragments_in_order_and_out_of_order_both_ways_N4787_24(self):
        sport, external = self.opened()
        for reverse in (False, True):
            for outbound in (True, False):
                with self.subTest(reverse=reverse, outbound=outbound):
                    self.outside.clear(), self.inside.clear()
                    ident, data = int.from_bytes(os.urandom(2), "big"), os.urandom(2000)
                    ends = (GHOST, sport, NOWHERE, 9000) if outbound else (NOWHERE, 9000, EXTERNAL, external)
                    whole = wire.udp_segment(*ends, data)
                    parts = [wire.ip(ends[0], ends[2], wire.UDP, whole[at:at + 800], ident=ident, mf=at + 800 < len(whole), offset=at)
                             for at in range(0, len(whole), 800)]
                    for part in reversed(parts) if reverse else parts:
                        (self.send_out if outbound else self.send_in)(part)
                    place = self.outside if outbound else self.inside
                    want = ({"source": EXTERNAL, "destination": NOWHERE} if outbound else
                            {"source": NOWHERE, "destination": GHOST})

                    def assembled():
                        pieces = {p.offset: p.payload for p in place.all(self.matcher(None, want)) if p.protocol == wire.UDP}
                        joined = b"".join(pieces[at] for at in sorted(pieces))
                        return joined if len(joined) == len(whole) else None

                    joined = wait_until("all fragments arrive", assembled)
                    self.assertEqual(joined[8:], data)
                    self.assertEqual(struct.unpack_from("!HH", joined), (external, 9000) if outbound else (9000, sport))
                    self.assertIn(wire.checksum(wire._pseudo(want["source"], want["destination"], wire.UDP, joined)), (0, 0xffff))

    def test_a_large_datagram_of_a_real_socket_is_fragmented_and_answered(self):
        with UdpEcho(self.lab.internet, 7400, b"") as service, self.lab.device1.udp() as mine:
            data = os.urandom(6000)
            mine.sendto(data, (FAR, 7400))
            self.assertEqual(mine.recvfrom(65536), (data, (FAR, 7400)))
            self.assertEqual(service.got[0][1][0], EXTERNAL)

    def test_too_big_for_the_wan_gives_3_4_with_the_mtu_N4787_22(self):
        self.lab.gateway.ip("link", "set", "wan0", "mtu", "1400")
        self.addCleanup(self.lab.gateway.ip, "link", "set", "wan0", "mtu", "1500")

        def told():
            self.send_out(wire.udp(GHOST, self.port(), NOWHERE, 9000, b"b" * 1420, df=True))
            time.sleep(0.05)
            return self.inside.find(lambda p: p.kind == 3 and p.code == 4)

        error = wait_until("ICMP 3/4", told)
        self.assertEqual((error.mtu, error.destination, error.inner.source), (1400, GHOST, GHOST))

    def test_without_df_it_is_fragmented_in_order_and_arrives_whole_N4787_23(self):
        self.lab.gateway.ip("link", "set", "wan0", "mtu", "1400")
        self.addCleanup(self.lab.gateway.ip, "link", "set", "wan0", "mtu", "1500")
        sport, data = self.port(), os.urandom(1440)

        def parts():
            self.outside.clear()
            self.send_out(wire.udp(GHOST, sport, NOWHERE, 9000, data))
            time.sleep(0.05)
            found = self.outside.all(lambda p: p.destination == NOWHERE and (p.offset or p.dport == 9000))
            return found if len(found) > 1 else None

        found = wait_until("its fragments leave", parts)
        self.assertEqual([(p.source, p.mf) for p in found], [(EXTERNAL, True)] * (len(found) - 1) + [(EXTERNAL, False)])
        self.assertLessEqual(max(len(p.raw) for p in found), 1400)
        self.assertEqual(len({p.ident for p in found}), 1)
        whole = b""
        for part in found:  # in order
            self.assertEqual(part.offset, len(whole))
            whole += part.payload
        self.assertEqual(whole[8:], data)
        sent = wire.parse(wire.ip(EXTERNAL, NOWHERE, wire.UDP, whole))
        self.assertEqual((sent.dport, sent.sums), (9000, True))

    def test_mss_is_clamped_to_a_smaller_wan_N5382_25(self):
        self.lab.gateway.ip("link", "set", "wan0", "mtu", "1400")
        self.addCleanup(self.lab.gateway.ip, "link", "set", "wan0", "mtu", "1500")
        with TcpEcho(self.lab.internet, 7450, b"m"):
            def clamped():
                self.outside.clear()
                self.assertEqual(tcp_ask(self.lab.device1, (FAR, 7450))[0], b"m")
                syn = self.outside.find(lambda p: p.flags == SYN and p.dport == 7450)
                options = syn.payload[20:(syn.payload[12] >> 4) * 4]
                return options[:2] == b"\2\4" and struct.unpack_from("!H", options, 2)[0] == 1360

            wait_until("the SYN says 1360", clamped)

    def test_no_rule_of_the_kernels_nat_is_needed(self):
        done = self.lab.gateway.call("nft", "list", "ruleset")
        self.assertEqual((done.returncode, done.stdout.strip()), (0, ""), done.stderr)

    def test_what_cannot_be_translated_is_dropped_POL_NET_01(self):
        for what, packet in [("SCTP", wire.ip(GHOST, NOWHERE, 132, b"unwanted-sctp")),
                             ("GRE", wire.ip(GHOST, NOWHERE, 47, b"unwanted-gre!")),
                             ("TCP without session", wire.tcp(GHOST, self.port(), NOWHERE, 80, ACK, ack=1, data=b"unwanted")),
                             ("a later fragment alone", wire.ip(GHOST, NOWHERE, wire.UDP, b"unwanted" * 4, offset=800)),
                             ("a router solicitation", wire.icmp(GHOST, NOWHERE, 10, 0, 0, b"unwanted")),
                             ("a redirect", wire.icmp(GHOST, NOWHERE, 5, 1, 0, wire.udp(NOWHERE, 1, GHOST, 2, b"unwanted"))),
                             ("an error without session", wire.icmp(GHOST, NOWHERE, 3, 3, data=wire.udp(NOWHERE, 1, GHOST, 2, b"unwanted")))]:
            with self.subTest(what):
                self.not_out(packet, b"unwanted")
        self.assertEqual(leaks(self.outside), [])

    def test_spoofed_senders_inside_are_dropped_POL_NET_02(self):
        for source in ("10.1.2.3", FAR, EXTERNAL, LAN, "127.0.0.1", "0.0.0.0"):
            with self.subTest(source):
                data = token("unwanted")
                self.not_out(wire.udp(source, self.port(), NOWHERE, 9000, data), data)

    def test_spoofed_senders_and_internal_destinations_outside_are_dropped_POL_NET_03_NSEC_01_03(self):
        port = self.port()
        self.client().natpmp("udp", port, port)
        service = self.udp_service(port)
        for source in ("192.168.50.99", DEVICE2, LAN, EXTERNAL, "127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.5", "240.0.0.1"):
            with self.subTest(source):
                data = token("unwanted")
                self.not_in(wire.udp(source, 4000, EXTERNAL, port, data), data)
        for destination in (DEVICE1, GHOST, "192.168.50.255", "255.255.255.255", "224.0.0.1"):
            with self.subTest(destination):
                data = token("unwanted")
                self.not_in(wire.udp(NOWHERE, 4000, destination, port, data), data)
        self.arrives(service, port)
        data = token()
        self.send_in(wire.udp("10.9.8.7", 4000, EXTERNAL, port, data))  # the WAN may be a NAT itself
        self.comes("a private source", data)

    def test_spoofed_senders_outside_reach_no_service_by_the_wans_broadcast_POL_NET_03(self):
        service = self.lab.gateway.udp("0.0.0.0", 7777, timeout=5)
        self.addCleanup(service.close)
        for source in (DEVICE1, "192.168.50.99", LAN, EXTERNAL, "127.0.0.1", "169.254.1.1", "240.0.0.1"):
            self.lab.internet.send_frame("eth0", "ff:ff:ff:ff:ff:ff", wire.udp(source, 4000, "203.0.114.255", 7777, source.encode()))
        self.send_in(wire.udp(NOWHERE, 4000, EXTERNAL, 7777, b"wanted"))
        self.assertEqual(service.recv(99), b"wanted")

    def test_the_gateways_own_flows_keep_their_ports_POL_NET_04(self):
        """Port shadow: a LAN host's flow from the port where the gateway has a connected socket, of now or a while ago."""
        with UdpEcho(self.lab.internet, 7100, b"e:"), TcpEcho(self.lab.internet, 7100, b"e:", FAR):
            for wait, remote in ((0, FAR), (0, NOWHERE), (1.5, FAR), (1.5, NOWHERE)):
                for protocol in ("udp", "tcp"):
                    with self.subTest(f"{protocol} to {remote} {wait} s later"):
                        port = self.port()
                        if protocol == "udp":
                            own = self.lab.gateway.udp("0.0.0.0", port)
                            own.connect((FAR, 7100))
                        else:
                            own = self.lab.gateway.connect((FAR, 7100), ("0.0.0.0", port))
                        with own:
                            own.settimeout(5)
                            time.sleep(wait)
                            if protocol == "udp":
                                self.opened(remote=remote, sport=port, dport=7100)
                            else:
                                self.send_out(wire.tcp(GHOST, port, remote, 7100, SYN, seq=99))
                                syn = self.outside.await_packet("the SYN", lambda p: p.flags == SYN and p.seq == 99)
                                self.assertNotEqual(syn.sport, port)
                            data = token()
                            own.send(data)
                            self.assertEqual(own.recv(99), b"e:" + data)
                        self.outside.clear()

    def test_broken_packets_are_dropped_POL_NET_05(self):
        port = self.port()
        self.client().natpmp("udp", port, port)
        make = lambda data, **kw: wire.udp(NOWHERE, 4000, EXTERNAL, port, data, **kw)
        for what, change in [("header checksum", lambda p: p[:10] + bytes([p[10] ^ 1]) + p[11:]),
                             ("version", lambda p: b"\x55" + p[1:]), ("header length", lambda p: b"\x44" + p[1:]),
                             ("total length past the frame", lambda p: p[:2] + struct.pack("!H", len(p) + 90) + p[4:])]:
            with self.subTest(what):
                data = token("unwanted")
                self.not_in(change(make(data)), data)
        data = token("unwanted")
        self.not_in(make(data, ttl=0), data)

    def test_an_unasked_packet_finds_silence_N5382_06_POL_NET_04(self):
        free = self.port() + 25000
        self.outside.clear()
        self.send_in(wire.udp(NOWHERE, 4000, EXTERNAL, free, b"anyone?"))
        self.send_in(wire.tcp(NOWHERE, 4000, EXTERNAL, free, SYN))
        self.send_in(wire.tcp(NOWHERE, 4001, EXTERNAL, free, ACK, ack=9))
        self.send_in(wire.tcp(NOWHERE, 4002, EXTERNAL, free, RST))
        self.arrives(self.control, 1999)
        time.sleep(0.3)
        self.assertEqual([vars(p) for p in self.outside.all(lambda p: p.destination == NOWHERE and p.source != NOWHERE)], [])

    def test_only_a_plain_syn_opens_and_a_blind_reset_ends_nothing_POL_NET_06_07(self):
        port = self.port()
        self.client().natpmp("tcp", port, port)
        with TcpEcho(self.lab.device1, port, b"e"):
            sock = self.lab.internet.connect((EXTERNAL, port), (FAR, 0))
            with sock:
                sock.sendall(b"1")
                self.assertEqual(sock.recv(2), b"e1")
                own = sock.getsockname()[1]
                # sequence numbers a blind attacker guesses
                for guess in (1, 0x40000000, 0xc0000000):
                    self.send_in(wire.tcp(FAR, own, EXTERNAL, port, RST, seq=guess))
                self.arrives(self.control, 1999)
                sock.sendall(b"2")
                self.assertEqual(sock.recv(2), b"e2")
        data = token("unwanted")
        self.not_in(wire.tcp(NOWHERE, 4000, EXTERNAL, port, ACK, ack=5, data=data), data)
        self.not_in(wire.tcp(NOWHERE, 4000, EXTERNAL, port, SYN | wire.FIN, data=data), data)


class Hairpin(Packets):
    def test_udp_between_two_devices_and_to_oneself_N4787_15_16_NMAP_13(self):
        one, two = self.port(), self.port()
        first = self.client(1).natpmp("udp", one, one).external
        second = self.client(2).natpmp("udp", two, two).external
        service, other = self.udp_service(one, 1, b"one:"), self.udp_service(two, 2, b"two:")
        self.assertEqual(self.answer_of(self.lab.device2, (EXTERNAL, first)), (b"one:", (EXTERNAL, first)))
        self.assertTrue(all(sender[0] == EXTERNAL for _, sender in service.got))
        self.assertEqual(self.answer_of(self.lab.device1, (EXTERNAL, second)), (b"two:", (EXTERNAL, second)))
        self.assertEqual(self.answer_of(self.lab.device1, (EXTERNAL, first)), (b"one:", (EXTERNAL, first)))
        self.assertTrue(all(sender[0] == EXTERNAL for _, sender in other.got))

    def test_two_consoles_on_one_port_reach_each_other_from_it(self):
        port = 3074
        with UdpEcho(self.lab.device1, port, b"one:", DEVICE1) as one, UdpEcho(self.lab.device2, port, b"two:", DEVICE2) as two:
            first = self.client(1).natpmp("udp", port, port).external
            second = self.client(2).natpmp("udp", port, port).external
            self.assertEqual(first, port)
            self.assertNotEqual(second, port)
            data = token()
            # from the game's own socket, as consoles do: the other sees the mapped port as sender

            def heard():
                one.sock.sendto(data, (EXTERNAL, second))
                time.sleep(0.03)
                return two.heard(data)

            self.assertEqual(wait_until("the second console hears the first", heard), (EXTERNAL, first))
            wait_until("and its answer comes back", lambda: one.heard(b"two:" + data) == (EXTERNAL, second))

    def test_tcp_between_two_devices_and_to_oneself_N5382_17(self):
        port = self.port()
        external = self.client(1).natpmp("tcp", port, port).external
        service = self.tcp_service(port, 1, b"h:")
        self.assertEqual(tcp_ask(self.lab.device2, (EXTERNAL, external))[0], b"h:")
        self.assertEqual(tcp_ask(self.lab.device1, (EXTERNAL, external))[0], b"h:")
        self.assertEqual({peer[0] for peer in service.peers}, {EXTERNAL})

    def test_hairpin_obeys_filters_and_reaches_mappings_only_POL_NET_15(self):
        port = self.port()
        service = self.udp_service(port, 1)
        external = self.client(1).map("udp", port, port, options=wire.filter_option(FAR, 32)).external
        self.assertIsNone(udp_ask(self.lab.device2, (EXTERNAL, external), tries=2, wait=0.3))
        self.assertEqual(service.got, [])
        self.arrives(service, external, FAR)

    def test_the_gateways_own_services_are_not_opened_by_hairpin_NSEC_08(self):
        # control ports by way of the external address: silence (POL-WHO-03)
        for host in (self.lab.device1,):
            with host.udp() as sock:
                sock.sendto(b"\0\0", (EXTERNAL, 5351))
                sock.settimeout(0.4)
                with self.assertRaises((TimeoutError, ConnectionRefusedError)):
                    sock.recvfrom(100)
