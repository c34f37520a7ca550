"""NAT-PMP with sockets: Debian's natpmpc, doors that open and shut, owners that cannot be robbed."""

import re

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, tcp_ask, tcp_shut, wait_until
from labcase import CONTROL_HOST, LabCase


class NatPmp(LabCase):
    def natpmpc(self, *words, device=1):
        done = self.lab.devices[device].call("natpmpc", "-g", LAN, *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def mapped(self, output):
        match = re.search(r"Mapped public port (\d+) protocol (\w+) to local port (\d+)\s+li\w*time (\d+)", output)
        self.assertIsNotNone(match, output)
        return int(match[1]), match[2].lower(), int(match[3]), int(match[4])

    def test_natpmpc_opens_renews_lists_the_address_and_deletes(self):
        self.assertIn(f"Public IP address : {EXTERNAL}", self.natpmpc())
        for protocol in ("tcp", "udp"):
            port = self.port()
            self.assertEqual(self.mapped(self.natpmpc("-a", str(port), str(port), protocol, "600")),
                             (port, protocol, port, 600))
            self.assertEqual(self.mapped(self.natpmpc("-a", "0", str(port), protocol, "1200")),
                             (port, protocol, port, 1200))
            self.assertEqual(self.lease(protocol, port)["lifetime_s"], 1200)
            self.assertEqual(self.mapped(self.natpmpc("-a", "0", str(port), protocol, "0"))[3], 0)
            self.assertEqual([x for x in self.leases() if x["external"]["port"] == port], [])

    def test_a_service_is_reached_by_udp_and_the_caller_is_seen_NMAP_01(self):
        port, service = self.port(), None
        external = self.client().natpmp("udp", port, port).external
        service = self.udp_service(port, name=b"udp:")
        self.assertEqual(self.arrives(service, external, sport=4444), (FAR, 4444))
        self.assertEqual(self.answer_of(self.lab.internet, (EXTERNAL, external), source=(FAR, 0)),
                         (b"udp:", (EXTERNAL, external)))

    def test_a_service_is_reached_by_tcp_and_the_caller_is_seen_NMAP_01(self):
        port = self.port()
        service = self.tcp_service(port, name=b"tcp:")
        external = self.client().natpmp("tcp", port, port).external
        name, own = tcp_ask(self.lab.internet, (EXTERNAL, external), (FAR, 0))
        self.assertEqual(name, b"tcp:")
        self.assertEqual(service.peers[-1], own)

    def test_one_protocol_opens_no_other_NPM_3_3_08(self):
        port = self.port()
        self.client().natpmp("tcp", port, port)
        service = self.udp_service(port)
        self.dropped(service, port)

    def test_outbound_from_the_internal_port_leaves_with_the_external_port_NMAP_02(self):
        port, wanted = self.port(), self.port()
        external = self.client().natpmp("udp", port, wanted).external
        self.assertEqual(external, wanted)
        for remote in (FAR, "203.0.114.1"):
            with self.lab.internet.udp(remote, 0) as peer, self.lab.device1.udp(DEVICE1, port) as mine:
                mine.sendto(b"hello", peer.getsockname())
                self.assertEqual(peer.recvfrom(100), (b"hello", (EXTERNAL, external)))

    def test_shut_after_deletion_established_connections_included_NPM_3_4_09(self):
        client, port, uport = self.client(), self.port(), self.port()
        service, uservice = self.tcp_service(port), self.udp_service(uport)
        external, uexternal = client.natpmp("tcp", port, port).external, client.natpmp("udp", uport, uport).external
        with self.lab.internet.connect((EXTERNAL, external), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            self.arrives(uservice, uexternal, sport=4001)
            for protocol, p in (("tcp", port), ("udp", uport)):
                gone = client.natpmp(protocol, p, 0, 0)
                self.assertEqual((gone.result, gone.internal, gone.external, gone.lifetime), (0, p, 0, 0))
            self.dropped(uservice, uexternal, sport=4001)
            self.ends_by_reset(sock, "the caller's connection")
        wait_until("the service's end is reset", lambda: service.ends == ["reset"])
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, external)))

    def test_shut_after_expiry_established_connections_included_NPM_3_4_01(self):
        client, port, uport = self.client(), self.port(), self.port()
        service, uservice = self.tcp_service(port), self.udp_service(uport)
        external = client.natpmp("tcp", port, port, 2).external
        with self.lab.internet.connect((EXTERNAL, external), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            answer = client.natpmp("udp", uport, uport, 1)
            self.assertEqual(answer.lifetime, 1)  # NPM-X-06: as asked
            wait_until("the leases are over", lambda: not [x for x in self.leases()
                                                            if x["internal"]["port"] in (port, uport)])
            self.dropped(uservice, answer.external)
            self.ends_by_reset(sock, "the caller's connection")
        wait_until("the service's end is reset", lambda: service.ends == ["reset"])
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, external)))

    def test_a_second_device_that_wants_the_same_port_gets_another_NPM_3_3_06(self):
        port = self.port()
        for protocol in ("udp", "tcp"):
            first = self.client(1).natpmp(protocol, port, port)
            second = self.client(2).natpmp(protocol, port, port)
            self.assertEqual((first.result, first.external, second.result), (0, port, 0))
            self.assertNotEqual(second.external, port)
            self.assertGreaterEqual(second.external, 1024)

    def test_the_companion_port_is_kept_for_the_same_device_NPM_3_3_09_10(self):
        port = self.port()
        self.assertEqual(self.client(1).natpmp("tcp", port, port).external, port)
        self.assertNotEqual(self.client(2).natpmp("udp", port, port).external, port)
        self.assertEqual(self.client(1).natpmp("udp", port, port).external, port)

    def test_nobody_deletes_or_renews_a_lease_of_another_device(self):
        port = self.port()
        service = self.udp_service(port)
        external = self.client(1).natpmp("udp", port, port).external
        before = self.lease("udp", external)
        self.assertEqual(self.client(2).natpmp("udp", port, external, 0).result, 0)  # it had none itself
        self.client(2).natpmp("udp", 0, 0, 0)
        after = self.lease("udp", external)
        self.assertEqual((after["id"], after["internal"]), (before["id"], {"address": DEVICE1, "port": port}))
        other = self.client(2).natpmp("udp", port, external, 7000)
        self.assertNotEqual(other.external, external)
        self.assertEqual(self.lease("udp", external)["lifetime_s"], before["lifetime_s"])
        self.arrives(service, external)

    def test_delete_all_ends_the_senders_leases_of_that_protocol_only_NPM_3_4_10_13(self):
        a, b, mine = self.port(), self.port(), self.client(1)
        mine.natpmp("udp", a, a), mine.natpmp("udp", b, b), mine.natpmp("tcp", a, a)
        theirs = self.client(2).natpmp("udp", a).external
        gone = mine.natpmp("udp", 0, 0, 0)
        self.assertEqual((gone.result, gone.internal, gone.external, gone.lifetime), (0, 0, 0, 0))
        left = {(x["protocol"], x["external"]["port"]) for x in self.leases()}
        self.assertNotIn(("udp", a), left)
        self.assertNotIn(("udp", b), left)
        self.assertIn(("tcp", a), left)
        self.assertIn(("udp", theirs), left)

    def test_a_repeated_request_is_one_lease_and_a_renewal_keeps_its_port_NPM_3_3_12_13(self):
        client, port = self.client(), self.port()
        first = client.natpmp("udp", port, port, 600)
        again = client.natpmp("udp", port, port + 7000, 900)
        self.assertEqual((again.result, again.external, again.lifetime), (0, first.external, 900))
        self.assertEqual(len([x for x in self.leases() if x["internal"] == {"address": DEVICE1, "port": port}]), 1)

    def test_lifetimes_NPM_3_3_17_24(self):
        client = self.client()
        self.assertEqual(client.natpmp("udp", self.port(), 0, 30).lifetime, 30)
        port = self.port()
        answer = client.natpmp("udp", port, port, 0xffffffff)
        self.assertEqual((answer.result, answer.lifetime), (0, 86400))
        service = self.udp_service(port)
        self.arrives(service, answer.external)  # POL-NUM-04: it works now

    def test_internal_port_0_with_a_lifetime_is_refused_NPM_3_3_23(self):
        answer = self.client().natpmp("udp", 0, 1234, 60)
        self.assertEqual((answer.result, answer.external, answer.lifetime), (2, 0, 0))

    def test_ports_below_1024_are_not_given_POL_TGT_03(self):
        answer = self.client().natpmp("tcp", 80, 80)
        self.assertEqual(answer.result, 0)
        self.assertGreaterEqual(answer.external, 1024)
        self.assertEqual(self.client().natpmp("tcp", 80, 0, 0).result, 0)

    def test_a_lease_of_pcp_is_neither_shortened_nor_deleted_by_natpmp_NPM_3_3_25_3_4_15(self):
        client, port = self.client(), self.port()
        made = client.map("udp", port, port, 3600)
        self.assertEqual(made.result, 0)
        answer = client.natpmp("udp", port, 0, 60)
        self.assertEqual((answer.result, answer.external), (0, made.external))
        self.assertEqual(client.natpmp("udp", port, 0, 0).result in (0, 2), True)  # ends the NAT-PMP lease beside it
        self.assertEqual(client.natpmp("udp", port, 0, 0).result, 2)
        rows = [x for x in self.leases() if x["external"]["port"] == made.external and x["via"] == "pcp"]
        self.assertEqual(len(rows), 1)
        self.assertGreater(rows[0]["remaining_s"], 3500)
        self.assertEqual(wire.SUCCESS, client.unmap("udp", port, made.nonce).result)

    def test_a_static_mapping_is_not_deleted_NPM_3_4_08(self):
        answer = self.client(address=CONTROL_HOST).natpmp("udp", 1999, 0, 0)
        self.assertEqual((answer.result, answer.internal, answer.lifetime), (2, 1999, 0))
        self.arrives(self.control, 1999)

    def test_addresses_and_epoch_agree_with_pcp_PCP_8_5_05(self):
        client = self.client()
        answer = client.natpmp_address()
        self.assertEqual((answer.result, answer.address), (0, EXTERNAL))
        self.assertLessEqual(abs(client.announce().epoch - answer.epoch), 1)

    def test_device_2_is_served_too(self):
        port = self.port()
        service = self.tcp_service(port, device=2, name=b"two:")
        external = self.client(2).natpmp("tcp", port).external
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, external))[0], b"two:")
        self.assertEqual(self.lease("tcp", external)["internal"]["address"], DEVICE2)
        self.assertEqual(len(service.peers), 1)
