"""Who is answered: devices on the LAN, asking the gateway's LAN address, and nobody else."""

import time

import wire
from lab import DEVICE1, EXTERNAL, FAR, LAN, PEER
from labcase import LabCase

REQUESTS = {
    "PCP ANNOUNCE": lambda me: wire.pcp_header(wire.ANNOUNCE, 0, me),
    "PCP MAP": lambda me: wire.pcp_map(me, b"n" * 12, "udp", 7777),
    "PCP version 9": lambda me: b"\x09" + wire.pcp_header(wire.ANNOUNCE, 0, me)[1:],
    "NAT-PMP address": lambda me: b"\0\0",
    "NAT-PMP mapping": lambda me: wire.natpmp_map("udp", 7777),
    "NAT-PMP opcode 9": lambda me: b"\0\x09\0\0",
}


class Silence(LabCase):
    def answers(self, send, watch):
        """Packets from port 5351 or ICMP errors about it, anywhere in the gateway, after what `send` sends."""
        sniffers = [self.sniff(self.lab.gateway, device) for device in watch]
        time.sleep(0.05)
        send()
        self.assertEqual(self.client().announce().result, 0)  # a good request after them is answered
        time.sleep(0.2)
        seen = [p for s in sniffers for p in s.all(lambda p: p.protocol in (wire.UDP, wire.ICMP))]
        mine = (DEVICE1, LAN)
        return [f"{p.source} -> {p.destination} {p.protocol} {p.payload[:12].hex()}" for p in seen
                if (p.sport == 5351 or p.kind == 3) and not (p.source in mine and p.destination in mine) and p.destination != "224.0.0.1"]

    def test_nothing_on_the_wan_is_answered_POL_WHO_01_PCP_7_05(self):
        def send():
            for source in (PEER, FAR):
                with self.lab.internet.udp(source) as sock:
                    for to in (EXTERNAL, LAN):
                        for request in REQUESTS.values():
                            sock.sendto(request(source), (to, 5351))
            # a LAN device's address as sender, on the WAN
            for to in (EXTERNAL, LAN):
                for request in REQUESTS.values():
                    self.lab.internet.send_frame("eth0", self.lab.gateway.mac("wan0"),
                                                 wire.udp(DEVICE1, 5555, to, 5351, request(DEVICE1)))

        self.assertEqual(self.answers(send, ("wan0", "br0")), [])
        self.assertEqual([x for x in self.leases() if x["kind"] == "explicit"], [])

    def test_control_ports_are_shut_for_tcp_from_the_wan_NSEC_05(self):
        for port in (5000, 5351, 1900):
            with self.assertRaises(OSError):
                self.lab.internet.connect((EXTERNAL, port), timeout=0.3)

    def test_senders_that_do_not_belong_there_are_not_answered_POL_WHO_02(self):
        def send():
            for source in ("10.1.2.3", FAR, EXTERNAL, LAN, "127.0.0.1", "0.0.0.0", "192.168.50.255", "192.168.50.0",
                           "255.255.255.255", "224.0.0.1", "192.168.60.11"):
                for request in REQUESTS.values():
                    self.lab.device1.send_frame("eth0", self.lab.gateway.mac("br0"),
                                                wire.udp(source, 5555, LAN, 5351, request(source)))

        self.assertEqual(self.answers(send, ("wan0", "br0", "lo")), [])
        self.assertEqual([x for x in self.leases() if x["kind"] == "explicit"], [])

    def test_destinations_other_than_the_lan_address_are_not_answered_POL_WHO_03(self):
        def send():
            broadcast, gateway = "ff:ff:ff:ff:ff:ff", self.lab.gateway.mac("br0")
            for to, mac in (("255.255.255.255", broadcast), ("192.168.50.255", broadcast), ("224.0.0.1", "01:00:5e:00:00:01"),
                            ("239.255.255.250", "01:00:5e:7f:ff:fa"), (EXTERNAL, gateway), ("127.0.0.1", gateway),
                            ("192.168.50.0", broadcast), ("192.168.50.255", gateway)):
                for request in REQUESTS.values():
                    self.lab.device1.send_frame("eth0", mac, wire.udp(DEVICE1, 5555, to, 5351, request(DEVICE1)))

        self.assertEqual(self.answers(send, ("wan0",)), [])
        with self.lab.device1.udp(DEVICE1, 5555, timeout=0.4) as sock:
            send()
            with self.assertRaises((TimeoutError, ConnectionRefusedError)):
                data, sender = sock.recvfrom(2000)
                self.fail(f"{sender} answered {data.hex()}")
        self.assertEqual([x for x in self.leases() if x["kind"] == "explicit"], [])

    def test_answers_are_not_answered_POL_WHO_04(self):
        client = self.client()
        for request in REQUESTS.values():
            data = bytearray(request(DEVICE1))
            data[1] |= 0x80
            self.assertTrue(client.silent(bytes(data)))

    def test_nothing_of_the_protocols_leaves_on_the_wan_POL_WHO_06(self):
        sniffer = self.sniff(self.lab.internet, "eth0")
        client, port = self.client(), self.port()
        client.unmap("udp", port, client.map("udp", port).nonce), client.natpmp("udp", port), client.natpmp("udp", 0, 0, 0)
        time.sleep(0.3)
        self.assertEqual([vars(p) for p in sniffer.all(lambda p: p.sport in (5350, 5351, 1900) or p.dport in (5350, 5351, 1900))], [])

    def test_the_answer_comes_from_where_it_was_asked_PCP_7_03(self):
        with self.lab.device1.udp(DEVICE1, 5350) as sock:  # even from the announcement port
            sock.sendto(wire.pcp_header(wire.ANNOUNCE, 0, DEVICE1), (LAN, 5351))
            self.assertEqual(sock.recvfrom(2000)[1], (LAN, 5351))
