"""PCP with sockets: what is granted, refused, enforced and told."""

import os

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, OTHER_FAR, PEER, tcp_ask, tcp_shut, wait_until
from labcase import CONTROL_HOST, LabCase, UpnpCase


class Pcp(LabCase):
    config = {"lifetimes": {"pcp_min": 2}}

    def test_a_service_is_reached_behind_a_mapped_port_PCP_11_3_01_19(self):
        port = self.port()
        service, tservice = self.udp_service(port), self.tcp_service(port, name=b"t:")
        for protocol in ("udp", "tcp"):
            nonce = os.urandom(12)
            answer = self.client().map(protocol, port, port, 600, nonce)
            self.assertEqual((answer.version, answer.response, answer.result, answer.lifetime, answer.nonce),
                             (2, True, 0, 600, nonce))
            self.assertEqual((answer.internal, answer.external, answer.external_address), (port, port, EXTERNAL))
            self.assertEqual((answer.reserved, answer.tail, len(answer.raw)), (0, b"\0" * 12, 60))  # PCP-7-10, -13
        self.arrives(service, port)
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, port))[0], b"t:")
        self.assertEqual(len(tservice.peers), 1)

    def test_only_the_nonce_of_its_creator_renews_or_deletes_a_lease_PCP_11_3_06_15_1_10(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        external = client.map("udp", port, port, 600, nonce).external
        for lifetime in (600, 0):
            answer = client.map("udp", port, port, lifetime, os.urandom(12))
            self.assertEqual(answer.result, wire.NOT_AUTHORIZED)
            self.assertTrue(580 <= answer.lifetime <= 600, answer.lifetime)
        self.assertEqual(self.lease("udp", external)["state"], "active")
        self.assertEqual(client.map("udp", port, port + 9000, 700, nonce).external, external)  # PCP-11.3-07
        self.assertEqual(client.unmap("udp", port, nonce).result, 0)
        self.assertEqual(client.unmap("udp", port, nonce).result, 0)  # PCP-15.1-07

    def test_the_right_nonce_from_another_address_is_worth_nothing_POL_OWN_01(self):
        port, nonce = self.port(), os.urandom(12)
        external = self.client(1).map("udp", port, port, 600, nonce).external
        before = self.lease("udp", external)
        self.assertEqual(self.client(2).unmap("udp", port, nonce).result, 0)  # it had none
        other = self.client(2).map("udp", port, port, 600, nonce)
        self.assertEqual(other.result, 0)
        self.assertNotEqual(other.external, external)
        now = self.lease("udp", external)
        self.assertEqual((now["id"], now["internal"]["address"]), (before["id"], DEVICE1))

    def test_shut_after_deletion_established_connections_included_PCP_15_1_01_NMAP_09(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        service = self.tcp_service(port)
        external = client.map("tcp", port, port, 600, nonce).external
        with self.lab.internet.connect((EXTERNAL, external), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            gone = client.unmap("tcp", port, nonce)
            self.assertEqual((gone.result, gone.lifetime, gone.internal), (0, 0, port))  # PCP-15.1-08
            self.ends_by_reset(sock, "the caller's connection")
        wait_until("the service's end is reset", lambda: service.ends == ["reset"])
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, external)))

    def test_shut_after_expiry_NMAP_05(self):
        port = self.port()
        service = self.udp_service(port)
        answer = self.client().map("udp", port, port, 2)
        self.assertEqual(answer.lifetime, 2)
        self.arrives(service, answer.external)
        wait_until("the lease is over", lambda: not [x for x in self.leases() if x["external"]["port"] == port])
        self.dropped(service, answer.external)

    def test_a_second_device_gets_another_port_and_prefer_failure_tells_PCP_11_3_11_13_2(self):
        port, nonce = self.port(), os.urandom(12)
        self.assertEqual(self.client(1).map("tcp", port, port, 500, nonce).external, port)
        self.assertNotEqual(self.client(2).map("tcp", port, port).external, port)
        prefer = wire.option(wire.PREFER_FAILURE)
        refused = self.client(2).map("tcp", self.port(), port, options=prefer)
        self.assertEqual(refused.result, wire.CANNOT_PROVIDE_EXTERNAL)
        self.assertTrue(480 <= refused.lifetime <= 500, refused.lifetime)  # PCP-13.2-03: the rest of that lease
        self.assertIn((wire.PREFER_FAILURE, b""), refused.options)  # PCP-7.3-10
        granted = self.client(2).map("tcp", self.port(), wanted := self.port(), options=prefer)
        self.assertEqual((granted.result, granted.external), (0, wanted))
        self.assertEqual(granted.options, [(wire.PREFER_FAILURE, b"")])  # PCP-7.3-09
        held = self.client(1).map("tcp", port, port + 9000, 500, nonce, options=prefer)
        self.assertEqual(held.result, wire.CANNOT_PROVIDE_EXTERNAL)  # PCP-13.2-07
        self.assertEqual(self.client(1).map("tcp", self.port(), 443, options=prefer).result,
                         wire.CANNOT_PROVIDE_EXTERNAL)  # POL-TGT-03
        self.assertEqual(self.client(1).map("tcp", self.port(), 0, options=prefer).result, wire.MALFORMED_OPTION)

    def test_filters_hold_for_every_packet_PCP_13_3_02_POL_TGT_07(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        service = self.udp_service(port)
        only = wire.filter_option(FAR, 32)
        answer = client.map("udp", port, port, 600, nonce, options=only)
        self.assertEqual((answer.result, answer.options), (0, [(wire.FILTER, only[4:])]))
        external = answer.external
        self.arrives(service, external, FAR)
        self.dropped(service, external, OTHER_FAR)
        self.dropped(service, external, PEER)
        # PCP-13.3-06: a renewal adds
        client.map("udp", port, port, 600, nonce, options=wire.filter_option(OTHER_FAR, 32))
        self.arrives(service, external, OTHER_FAR)
        self.arrives(service, external, FAR)
        self.dropped(service, external, PEER)
        # PCP-13.3-05: prefix length 0 clears, what follows it counts
        clear = wire.option(wire.FILTER, b"\0" * 20)
        client.map("udp", port, port, 600, nonce, options=clear + wire.filter_option(PEER, 32))
        self.arrives(service, external, PEER)
        self.dropped(service, external, FAR)
        client.map("udp", port, port, 600, nonce, options=clear)
        self.arrives(service, external, FAR)
        self.assertEqual(self.lease("udp", external)["remote"], [])

    def test_a_filter_with_a_remote_port_admits_that_port_only_PCP_13_3_02_03(self):
        port = self.port()
        service = self.udp_service(port)
        answer = self.client().map("udp", port, port, 600, options=wire.filter_option("198.51.100.0", 24, 7777))
        self.assertEqual(answer.result, 0)
        self.arrives(service, answer.external, FAR, sport=7777)
        self.dropped(service, answer.external, FAR, sport=7778)

    def test_a_filter_of_a_tcp_mapping_shuts_out_others_and_ends_nobody_inside_PCP_13_3_11(self):
        port = self.port()
        service = self.tcp_service(port, name=b"f:")
        answer = self.client().map("tcp", port, port, 600, options=wire.filter_option(FAR, 32))
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, answer.external), (FAR, 0))[0], b"f:")
        with self.assertRaises(OSError):
            self.lab.internet.connect((EXTERNAL, answer.external), (OTHER_FAR, 0), timeout=0.7)
        self.assertEqual(len(service.peers), 1)
        # outbound from the inside of a filtered mapping, to a remote the filter does not name, and its answer
        uport = self.port()
        external = self.client().map("udp", uport, uport, 600, options=wire.filter_option(FAR, 32)).external
        with self.lab.internet.udp(OTHER_FAR, 0) as peer, self.lab.device1.udp(DEVICE1, uport) as mine:
            mine.sendto(b"out", peer.getsockname())
            data, sender = peer.recvfrom(100)
            self.assertEqual((data, sender), (b"out", (EXTERNAL, external)))
            peer.sendto(b"back", sender)
            self.assertEqual(mine.recvfrom(100), (b"back", (OTHER_FAR, peer.getsockname()[1])))

    def test_the_anycast_address_is_this_gateway_ANY_3_02_03_05(self):
        anycast, port, nonce = "192.0.0.9", self.port(), os.urandom(12)
        outside = self.sniff(self.lab.internet, "eth0")
        with wire.Client(self.lab.device1, DEVICE1, gateway=anycast) as client:
            answer = client.map("udp", port, port, 600, nonce)  # heard from the address that was asked
            self.assertEqual((answer.result, answer.external_address), (0, EXTERNAL))
            self.arrives(self.udp_service(port), answer.external)
            self.assertEqual(client.announce().result, 0)
            # a lease is one wherever it is asked for
            self.assertEqual(self.client().map("udp", port, 0, 600, nonce).external, answer.external)
            client.unmap("udp", port, nonce)
            with self.lab.device1.udp(DEVICE1, 0) as sock, self.lab.internet.udp(FAR, 9999) as far:
                sock.sendto(b"elsewhere", (anycast, 9999))  # no port of ours, and not for the internet either
                sock.sendto(b"seen", (FAR, 9999))  # where that came, the other would have been seen
                self.assertEqual(far.recvfrom(100)[0], b"seen")
        said = outside.all(lambda p: p.destination in (anycast, FAR) and p.dport == 9999)
        self.assertEqual({p.destination for p in said}, {FAR})
        # nor is it the gateway's to the internet
        self.lab.internet.ip("route", "add", f"{anycast}/32", "via", EXTERNAL)
        try:
            with wire.Client(self.lab.internet, FAR, gateway=anycast) as stranger:
                self.assertIsNone(stranger.ask(wire.pcp_header(wire.ANNOUNCE, 0, FAR), timeout=0.5))
            with self.lab.gateway.socket() as service:
                service.bind(("0.0.0.0", 8765))
                service.listen()
                with self.assertRaises(OSError):
                    self.lab.internet.connect((anycast, 8765), (FAR, 0), timeout=0.7)
        finally:
            self.lab.internet.ip("route", "del", f"{anycast}/32")

    def test_an_anycast_address_of_the_administrators_stays_his(self):
        def ours():
            return [line for line in self.lab.gateway.run("ip", "route", "show", "table", "local").splitlines() if "192.0.0.9" in line]

        self.assertEqual(len(ours()), 1)
        self.daemon.stop()
        self.assertEqual(ours(), [])
        self.lab.gateway.ip("addr", "add", "192.0.0.9/32", "dev", "lo")
        try:
            before = ours()
            self.daemon.start()
            self.assertEqual(ours(), before)
            self.daemon.stop()
            self.assertEqual(ours(), before)
        finally:
            self.lab.gateway.ip("addr", "del", "192.0.0.9/32", "dev", "lo")
            self.daemon.start()

    def test_a_peer_keeps_the_port_for_what_it_sends_there_PCP_12_3(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        service = self.udp_service(port)
        answer = client.peer("udp", port, (FAR, 7777), nonce)
        self.assertEqual((answer.result, answer.lifetime, answer.remote), (0, 3600, (FAR, 7777)))
        self.assertEqual((answer.external, answer.external_address), (port, EXTERNAL))  # as an outbound packet would
        self.arrives(service, answer.external, FAR, sport=7777)  # as if a packet had gone there (PCP-12.3-02)
        self.arrives(service, answer.external, FAR, sport=7778)  # address-dependent filtering is in force
        self.dropped(service, answer.external, OTHER_FAR, sport=7777)  # PCP-12.3-06
        lease = self.lease("udp", answer.external)
        self.assertEqual((lease["via"], lease["kind"], lease["remote"]), ("pcp", "explicit", [f"{FAR}:7777"]))
        self.assertEqual(client.peer("udp", port, (FAR, 7777)).result, wire.NOT_AUTHORIZED)  # another nonce
        self.assertEqual(client.peer("udp", port, (FAR, 7778)).external, answer.external)  # another 5-tuple
        self.assertEqual(client.unmap("udp", port, nonce).result, wire.NOT_AUTHORIZED)  # no MAP: PCP-15.1-09
        # what goes out leaves by that port, to others too
        with self.lab.internet.udp(OTHER_FAR, 0) as far:
            service.sock.sendto(b"out", far.getsockname())
            self.assertEqual(far.recvfrom(100), (b"out", (EXTERNAL, answer.external)))
        self.arrives(service, answer.external, OTHER_FAR, sport=7777)  # and lets these in, as without the PEER
        # outbound traffic came first: PEER learns of its port (PCP-12.3-01)
        other = self.port()
        with self.lab.internet.udp(FAR, 0) as far, self.lab.device1.udp(DEVICE1, other) as mine:
            mine.sendto(b"out", far.getsockname())
            sender = far.recvfrom(100)[1]
            learnt = client.peer("udp", other, far.getsockname())
            self.assertEqual((learnt.external_address, learnt.external), sender)
            far.sendto(b"back", sender)
            self.assertEqual(mine.recvfrom(100)[0], b"back")
        # a MAP opens the port to everybody
        self.assertEqual(client.map("udp", port, 0, 600, nonce).external, answer.external)
        self.arrives(service, answer.external, PEER)
        client.unmap("udp", port, nonce)

    def test_descriptions_are_kept_and_told_back_DESC_3_03_05(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        text = "caméra du jardin".encode()
        answer = client.map("udp", port, port, 600, nonce, options=wire.option(wire.DESCRIPTION, text))
        self.assertEqual((answer.result, answer.options), (0, [(wire.DESCRIPTION, text)]))
        self.assertEqual(self.lease("udp", answer.external)["description"], text.decode())
        client.map("udp", port, port, 600, nonce)
        self.assertEqual(self.lease("udp", answer.external)["description"], text.decode())
        client.map("udp", port, port, 600, nonce, options=wire.option(wire.DESCRIPTION, b"new\x1b[31mred"))
        self.assertEqual(self.lease("udp", answer.external)["description"], "new [31mred")  # POL-TXT-02

    def test_third_party_is_off_unless_allowed_PCP_13_1_02(self):
        port = self.port()
        answer = self.client().map("udp", port, port, options=wire.option(wire.THIRD_PARTY, wire.v6(DEVICE2)))
        self.assertEqual(answer.result, wire.UNSUPP_OPTION)
        self.assertEqual([x for x in self.leases() if x["internal"]["port"] == port], [])

    def test_announce_is_answered_with_the_epoch_PCP_14_1_02(self):
        answer = self.client().announce()
        self.assertEqual((answer.result, answer.lifetime, len(answer.raw)), (0, 0, 24))
        later = wait_until("the epoch counts", lambda: (a := self.client().announce()).epoch > answer.epoch and a)
        self.assertLessEqual(later.epoch - answer.epoch, 30)

    def test_lifetimes_are_cut_to_the_window_PCP_15_03(self):
        client = self.client()
        self.assertEqual(client.map("udp", self.port(), lifetime=1).lifetime, 2)
        self.assertEqual(client.map("udp", self.port(), lifetime=0xffffffff).lifetime, 86400)

    def test_a_renewal_may_shorten_PCP_15_07(self):
        client, port, nonce = self.client(), self.port(), os.urandom(12)
        client.map("udp", port, port, 3600, nonce)
        self.assertEqual(client.map("udp", port, port, 300, nonce).lifetime, 300)
        self.assertLessEqual(self.lease("udp", port)["remaining_s"], 300)

    def test_only_tcp_and_udp_are_mapped_POL_TGT_06(self):
        client = self.client()
        for protocol, internal, expected in ((132, 5000, wire.UNSUPP_PROTOCOL), (6, 0, wire.UNSUPP_PROTOCOL),
                                             (0, 0, wire.UNSUPP_PROTOCOL), (0, 5000, wire.MALFORMED_REQUEST)):
            with self.subTest(protocol=protocol, internal=internal):
                self.assertEqual(client.map(protocol, internal).result, expected)

    def test_a_static_mapping_answers_and_cannot_be_deleted_PCP_11_3_09_15_1_09(self):
        client = self.client(address=CONTROL_HOST)
        answer = client.map("udp", 1999, 5555)
        self.assertEqual((answer.result, answer.external), (0, 1999))
        self.assertEqual(client.unmap("udp", 1999, os.urandom(12)).result, wire.NOT_AUTHORIZED)

    def test_an_implicit_mapping_becomes_explicit_with_its_port_PCP_11_3_10(self):
        port = self.port()
        # device 2 holds the port, so what device 1 sends from it gets another
        self.client(2).map("udp", port, port)
        with self.lab.device1.udp(DEVICE1, port) as mine, self.lab.internet.udp(FAR) as peer:
            mine.sendto(b"out", peer.getsockname())
            external = peer.recvfrom(100)[1][1]
            self.assertNotEqual(external, port)
            answer = self.client(1).map("udp", port)
            self.assertEqual((answer.result, answer.external), (0, external))
            with self.lab.internet.udp(OTHER_FAR) as stranger:
                stranger.sendto(b"in", (EXTERNAL, external))
                self.assertEqual(mine.recvfrom(100)[0], b"in")

    def test_a_port_of_another_devices_flow_is_not_leased_and_the_flow_lives_POL_TGT_08(self):
        port = self.port()
        with self.lab.device1.udp(DEVICE1, port) as mine, self.lab.internet.udp(FAR) as peer:
            mine.sendto(b"out", peer.getsockname())
            sender = peer.recvfrom(100)[1]
            self.assertEqual(sender, (EXTERNAL, port))
            answer = self.client(2).map("udp", port, port)
            self.assertEqual(answer.result, 0)
            self.assertNotEqual(answer.external, port)
            refused = self.client(2).map("udp", self.port(), port, options=wire.option(wire.PREFER_FAILURE))
            self.assertEqual(refused.result, wire.CANNOT_PROVIDE_EXTERNAL)
            peer.sendto(b"back", sender)
            self.assertEqual(mine.recvfrom(100)[0], b"back")

    def test_a_freed_port_goes_at_once_to_who_asks_for_just_it_POL_TGT_10(self):
        port, nonce = self.port(), os.urandom(12)
        self.assertEqual(self.client(1).map("udp", port, port, 600, nonce).external, port)
        self.assertEqual(self.client(1).unmap("udp", port, nonce).result, 0)
        service = self.udp_service(port + 5000, device=2)
        answer = self.client(2).map("udp", port + 5000, port, 600, options=wire.option(wire.PREFER_FAILURE))
        self.assertEqual((answer.result, answer.external), (0, port))
        self.arrives(service, port)

    def test_a_freed_port_comes_back_to_its_former_owner_and_works(self):
        port, client = self.port(), self.client()
        service = self.udp_service(port)
        for _ in range(3):
            nonce = os.urandom(12)
            self.assertEqual(client.map("udp", port, port, 600, nonce).external, port)
            self.arrives(service, port)
            self.assertEqual(client.unmap("udp", port, nonce).result, 0)
            self.dropped(service, port)

    def test_a_lan_behind_an_inner_router_is_served_POL_WHO_02(self):
        lab = self.lab
        lab.device2.ip("addr", "add", "192.168.80.5/32", "dev", "lo")
        lab.gateway.ip("route", "add", "192.168.80.0/24", "via", DEVICE2)
        self.addCleanup(lab.gateway.ip, "route", "del", "192.168.80.0/24")
        client = self.client(host=lab.device2, address="192.168.80.5")
        wait_until("it is answered", lambda: client.ask(b"\0\0", tries=1, timeout=0.3))
        port = self.port()
        service = self.udp_service(port, device=2, address="192.168.80.5")
        answer = client.map("udp", port, port)
        self.assertEqual((answer.result, answer.external), (0, port))
        self.arrives(service, port)
        self.assertEqual(self.lease("udp", port)["internal"]["address"], "192.168.80.5")

    def test_the_daemons_control_ports_are_never_leased_POL_TGT_05(self):
        prefer = wire.option(wire.PREFER_FAILURE)
        for protocol, port in (("udp", 1900), ("udp", 5350), ("udp", 5351), ("tcp", 5000)):
            with self.subTest(protocol=protocol, port=port):
                self.assertNotEqual(self.client().map(protocol, self.port(), port).external, port)
                self.assertEqual(self.client().map(protocol, self.port(), port, options=prefer).result,
                                 wire.CANNOT_PROVIDE_EXTERNAL)

    def test_a_port_where_the_gateway_listens_is_not_leased_and_stays_reachable_POL_TGT_05_NET_04(self):
        prefer = wire.option(wire.PREFER_FAILURE)
        from lab import TcpEcho, UdpEcho
        for protocol, kind in (("tcp", TcpEcho), ("udp", UdpEcho)):
            port = self.port()
            with kind(self.lab.gateway, port, b"own:"):
                if protocol == "tcp":
                    ask = lambda: tcp_ask(self.lab.internet, (EXTERNAL, port), timeout=1)[0]
                else:
                    ask = lambda: (self.answer_of(self.lab.internet, (EXTERNAL, port)))[0]

                def answered():
                    try:
                        return ask() == b"own:"
                    except OSError:
                        return False

                self.assertNotEqual(self.client().map(protocol, self.port(), port).external, port)
                self.assertEqual(self.client().map(protocol, self.port(), port, options=prefer).result,
                                 wire.CANNOT_PROVIDE_EXTERNAL)
                wait_until(f"the gateway's own {protocol} service is reached from the WAN", answered)


class PcpThirdParty(LabCase):
    config = {"policy": {"third_party": [DEVICE1]}}

    def test_an_allowed_client_opens_and_closes_for_another_PCP_13_1_06_15_1_11(self):
        port, nonce = self.port(), os.urandom(12)
        service = self.udp_service(port, device=2)
        third = wire.option(wire.THIRD_PARTY, wire.v6(DEVICE2))
        answer = self.client(1).map("udp", port, port, 600, nonce, options=third)
        self.assertEqual((answer.result, answer.options), (0, [(wire.THIRD_PARTY, wire.v6(DEVICE2))]))
        self.arrives(service, answer.external)
        self.assertEqual(self.lease("udp", answer.external)["internal"], {"address": DEVICE2, "port": port})
        self.assertEqual(self.client(1).map("udp", port, 0, 0, nonce, options=third).result, 0)
        self.dropped(service, answer.external)

    def test_its_bounds_PCP_13_1_03_04_07_08(self):
        client, port = self.client(1), self.port()
        for address, expected in ((DEVICE1, wire.MALFORMED_REQUEST), ("10.77.0.1", wire.NOT_AUTHORIZED),
                                  ("192.168.50.1", wire.NOT_AUTHORIZED), ("192.168.50.255", wire.NOT_AUTHORIZED),
                                  (FAR, wire.NOT_AUTHORIZED), ("127.0.0.1", wire.NOT_AUTHORIZED)):
            with self.subTest(address=address):
                answer = client.map("udp", port, options=wire.option(wire.THIRD_PARTY, wire.v6(address)))
                self.assertEqual(answer.result, expected)
        self.assertEqual(client.map("udp", port, options=wire.option(1, b"\0" * 12)).result, wire.MALFORMED_OPTION)
        other = self.client(2).map("udp", port, options=wire.option(wire.THIRD_PARTY, wire.v6(DEVICE1)))
        self.assertIn(other.result, (wire.UNSUPP_OPTION, wire.NOT_AUTHORIZED))


class PcpPortSet(UpnpCase):
    """RFC 7753: ports in a row as one mapping."""

    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "limits": {"leases_per_device": 600}}

    def tearDown(self):
        self.cli("revoke", "kind=explicit", "-y")
        super().tearDown()

    def row(self, count):
        return [self.port() for _ in range(count)][0]

    def set(self, client, protocol, first, size, external=0, lifetime=600, nonce=None, parity=False, prefer=False):
        options = wire.port_set_option(size, first, parity) + (wire.option(wire.PREFER_FAILURE) if prefer else b"")
        return client.map(protocol, first, external, lifetime, nonce, options=options)

    def rows(self, *words):
        return sorted((row["internal"]["port"], row["external"]["port"]) for row in self.leases("via=pcp", *words))

    def test_packets_pass_by_its_first_and_last_port_and_by_no_other_PSET_4_04_06(self):
        client, first, nonce = self.client(), self.row(10), os.urandom(12)
        services = {i: self.udp_service(first + i) for i in (-1, 0, 3, 7, 8)}
        answer = self.set(client, "udp", first, 8, first + 4000, nonce=nonce)
        self.assertEqual((answer.result, answer.lifetime, answer.internal, answer.external, answer.external_address),
                         (0, 600, first, first + 4000, EXTERNAL))
        self.assertEqual((answer.set_size, answer.set_first, answer.set_bits), (8, first, 0))
        for i in (0, 3, 7):
            self.arrives(services[i], first + 4000 + i)
        for i in (-1, 8):
            self.dropped(services[i], first + 4000 + i)
        # what goes out from a port of it wears its number
        with self.lab.internet.udp(FAR, 0) as far:
            services[7].sock.sendto(b"out", far.getsockname())
            self.assertEqual(far.recvfrom(100), (b"out", (EXTERNAL, first + 4007)))
        again = self.set(client, "udp", first, 8, 0, 1200, nonce)
        self.assertEqual((again.external, again.lifetime, again.set_size), (first + 4000, 1200, 8))
        self.assertEqual({row["lifetime_s"] for row in self.leases("via=pcp")}, {1200})
        self.assertEqual(self.set(client, "udp", first, 8, 0, 0, os.urandom(12)).result, wire.NOT_AUTHORIZED)
        gone = self.set(client, "udp", first, 8, 0, 0, nonce)
        self.assertEqual((gone.result, gone.lifetime, gone.set_size), (0, 0, 8))
        for i in (0, 7):
            self.dropped(services[i], first + 4000 + i)
        self.assertEqual(self.rows(), [])

    def test_connections_by_its_ports_end_with_it_PSET_4_06(self):
        client, first, nonce = self.client(), self.row(3), os.urandom(12)
        services = [self.tcp_service(first + i, name=b"%d:" % i) for i in range(3)]
        answer = self.set(client, "tcp", first, 3, first, nonce=nonce)
        self.assertEqual(answer.set_size, 3)
        for i, service in enumerate(services):
            self.reached(service, answer.external + i)
        with self.lab.internet.connect((EXTERNAL, answer.external + 2), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertTrue(sock.recv(4))
            self.assertEqual(self.set(client, "tcp", first, 3, 0, 0, nonce).result, 0)
            self.ends_by_reset(sock, "the connection to its last port")
        self.shut(answer.external)

    def test_a_set_outlives_kill_9_whole_PSET_4_06(self):
        client, first, nonce = self.client(), self.row(256), os.urandom(12)
        answer = self.set(client, "udp", first, 256, nonce=nonce)
        self.assertEqual((answer.result, answer.set_size), (0, 256))
        before = [(row["id"], row["internal"], row["external"]) for row in self.leases("via=pcp")]
        self.assertEqual(len(before), 256)
        epoch = client.announce().epoch
        self.daemon.kill()
        self.daemon.start()
        self.assertGreaterEqual(client.announce().epoch, epoch)
        self.assertEqual([(row["id"], row["internal"], row["external"]) for row in self.leases("via=pcp")], before)
        for i in (0, 255):
            self.arrives(self.udp_service(first + i), answer.external + i)
        again = self.set(client, "udp", first, 256, nonce=nonce)
        self.assertEqual((again.external, again.set_size), (answer.external, 256))
        self.assertEqual(self.set(client, "udp", first, 256, 0, 0, nonce).result, 0)

    def test_parity_size_and_place_PSET_4_05_07_09_11_12(self):
        client, other, first = self.client(), self.client(2), self.row(40) | 1
        taken = first + 2000
        self.assertEqual(other.map("udp", taken, taken, 500).external, taken)
        self.assertEqual(other.map("udp", taken + 3, taken + 3, 500).external, taken + 3)
        nonce = os.urandom(12)
        answer = self.set(client, "udp", first, 4, taken - 1, nonce=nonce, parity=True)
        self.assertEqual((answer.result, answer.set_size, answer.set_bits & 1), (0, 4, 1))
        self.assertEqual(answer.external % 2, 1)
        self.set(client, "udp", first, 4, 0, 0, nonce)
        refused = self.set(client, "udp", first, 4, taken + 1, prefer=True)
        self.assertEqual(refused.result, wire.CANNOT_PROVIDE_EXTERNAL)
        self.assertTrue(400 <= refused.lifetime <= 500, refused.lifetime)
        self.assertEqual(self.rows("device=" + DEVICE1), [])
        answer = self.set(client, "udp", first, 2, taken + 1, nonce=nonce, prefer=True)
        self.assertEqual((answer.result, answer.external, answer.set_size), (0, taken + 1, 2))
        self.set(client, "udp", first, 2, 0, 0, nonce)
        # as large as the limit for one set, then as the device's quota lets it, then none
        self.assertEqual(self.set(client, "tcp", 30000, 1000, nonce=nonce).set_size, 256)
        self.assertEqual(self.set(client, "tcp", 31000, 1000, nonce=nonce).set_size, 256)
        self.assertEqual(self.set(client, "tcp", 32000, 1000, nonce=nonce).set_size, 88)
        self.assertEqual(self.set(client, "tcp", 33000, 2, nonce=nonce).result, wire.USER_EX_QUOTA)
        for first, size in ((30000, 256), (31000, 256), (32000, 88)):
            self.assertEqual(self.set(client, "tcp", first, size, 0, 0, nonce).result, 0)
        for size, first, internal in ((0, 30000, 30000), (2, 30001, 30000), (2, 65535, 65535)):
            with self.subTest(size=size, first=first):
                answer = client.map("udp", internal, options=wire.port_set_option(size, first))
                self.assertEqual(answer.result, wire.MALFORMED_OPTION)
        self.assertEqual(self.set(client, "udp", 30000, 3, 65534, prefer=True).result, wire.MALFORMED_OPTION)

    def test_what_overlaps_is_refused_or_answered_with_what_is_there_PSET_4_08(self):
        client, first, nonce = self.client(), self.row(20) + 4, os.urandom(12)
        external = self.set(client, "tcp", first, 4, first, nonce=nonce).external
        rows = self.rows()
        for at, size, expected in ((0, 8, (external, 4)), (0, 2, (external, 2)), (2, 2, (external + 2, 2)),
                                   (3, 5, (external + 3, None))):
            answer = self.set(client, "tcp", first + at, size, nonce=nonce)
            self.assertEqual((answer.result, answer.external, answer.set_size), (0, *expected))
        self.assertEqual(client.map("tcp", first + 1, 0, 600, nonce).external, external + 1)
        self.assertEqual(self.set(client, "tcp", first - 2, 4, nonce=nonce).result, wire.NO_RESOURCES)
        for at, size in ((0, 4), (1, 2), (-2, 4)):
            self.assertEqual(self.set(client, "tcp", first + at, size).result, wire.NOT_AUTHORIZED)
        self.assertEqual(self.rows(), rows)
        # other protocols share its ports and cannot end them
        self.assertEqual(client.natpmp("tcp", first + 2, 5555).external, external + 2)
        wan = self.wan()
        wan.add(external + 3, "TCP", first + 3)
        self.assertEqual(wan.error("AddPortMapping", wan.mapping_args(external + 1, "TCP", first + 9)), 718)
        entry = wan.mapping(external + 1, "TCP")
        self.assertEqual((entry["NewInternalPort"], entry["NewInternalClient"]), (str(first + 1), DEVICE1))
        self.assertEqual(wan.error("DeletePortMapping", wan.key(external + 1, "TCP")), 606)
        self.set(client, "tcp", first, 4, 0, 0, nonce)
        self.assertEqual(sorted((row["via"], row["external"]["port"]) for row in self.leases() if row["kind"] == "explicit"),
                         [("natpmp", external + 2), ("upnp", external + 3)])
        self.assertEqual(client.natpmp("tcp", first + 2, 0, 0).result, 0)
        wan.delete(external + 3, "TCP")

    def test_revoking_one_port_ends_the_set_says_so_and_tells_the_client(self):
        client, first = self.client(), self.row(5)
        answer = self.set(client, "udp", first, 5)
        rows = self.leases("via=pcp")
        self.assertEqual({row["set"]["size"] for row in rows}, {5})
        asked = self.cli("revoke", rows[3]["id"])
        self.assertEqual(asked.returncode, 2, asked)  # more than one lease: not without -y
        self.assertIn("5 leases", asked.stderr)
        done = self.cli_json("revoke", rows[3]["id"], "-y")
        self.assertEqual(sorted(done["revoked"]), sorted(row["id"] for row in rows))
        told = wire.parse_pcp(client.hear())
        self.assertEqual((told.result, told.lifetime, told.internal, told.external, told.set_size),
                         (0, 0, first, answer.external, 5))
        self.dropped(self.udp_service(first + 4), answer.external + 4)
