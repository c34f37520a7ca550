"""The WAN side: nothing leaves untranslated, addresses that come late or change, guests, VPNs, announcements."""

import os
import time

import wire
from lab import DEVICE1, EXTERNAL, FAR, LAN, PEER, UdpEcho, tcp_ask, udp_ask, wait_until
from labcase import Chatter, LabCase, leaks

SECONDS = 40
NEW = "203.0.114.9"


class NothingLeavesUntranslated(LabCase):
    starts = False

    def test_before_start_while_running_after_kill_9_after_sigterm_and_between(self):
        lab = self.lab
        outside = self.sniff(lab.internet, "eth0")
        time.sleep(0.5)  # an AF_PACKET socket is on at once; the rest of the half second is for the bridge
        with Chatter(lab.device1, DEVICE1) as chatter:
            def talks(what, seconds=0.6):
                before, end = chatter.sent, time.monotonic() + seconds
                wait_until("the device talks", lambda: chatter.sent > before + 20 and time.monotonic() > end)
                self.assertEqual(leaks(outside)[:5], [], what)

            def translated(what):
                outside.clear()
                wait_until(f"{what}: translated packets leave", lambda: outside.find(
                    lambda p: p.source == EXTERNAL and b"leak?" in p.payload), 20)
                self.assertEqual(leaks(outside)[:5], [], what)

            talks("before the first start")
            type(self).start()
            translated("while running")
            self.daemon.kill()
            talks("after kill -9")
            outside.clear()
            talks("dead")
            if lab.data_plane == "ebpf":
                translated("the programs in the kernel go on")
            else:
                self.assertIsNone(outside.find(lambda p: b"leak?" in p.payload), "nothing passes while the daemon is dead")
            self.daemon.start()
            translated("after the restart")
            self.assertEqual(self.daemon.stop(), 0)
            talks("after SIGTERM")
            for _ in range(3):
                self.daemon.start()
                self.daemon.kill()
            talks("after restarts")
            self.daemon.start()
            translated("at last")

    def test_the_way_in_is_shut_while_the_daemon_is_dead(self):
        lab = self.lab
        if not (self.daemon and self.daemon.running()):
            type(self).start()
        inside = self.sniff(lab.device1, "eth0")
        self.daemon.kill()
        for to in (DEVICE1, EXTERNAL):
            lab.internet.send_frame("eth0", lab.gateway.mac("wan0"), wire.udp(FAR, 4000, to, 1998, b"in?"))
        time.sleep(0.4)
        self.assertIsNone(inside.find(lambda p: b"in?" in p.payload))
        if lab.data_plane != "ebpf":  # whose mappings live on in the kernel
            lab.internet.send_frame("eth0", lab.gateway.mac("wan0"), wire.udp(FAR, 4000, EXTERNAL, 1999, b"in?"))
            time.sleep(0.4)
            self.assertIsNone(inside.find(lambda p: b"in?" in p.payload))
        # the router itself still pings out and is pinged (its own traffic)
        self.assertEqual(lab.internet.call("ping", "-n", "-c", "1", "-W", "5", EXTERNAL).returncode, 0)


class Guests(LabCase):
    """A LAN that is translated but not served: `control` names the others."""
    lab_args = {"guest": True}
    config = {"listen": {"lan": ["br0", "guest0"], "control": ["br0"]}}

    def test_a_guest_lan_is_translated_but_not_served(self):
        guest = self.lab.guest
        with UdpEcho(self.lab.internet, 7500, b"u"):
            self.assertEqual(self.answer_of(guest, (FAR, 7500))[0], b"u")
        from lab import TcpEcho
        with TcpEcho(self.lab.internet, 7501, b"t") as service:
            self.assertEqual(tcp_ask(guest, (FAR, 7501))[0], b"t")
            self.assertEqual(service.peers[0][0], EXTERNAL)
        for gateway in ("192.168.60.1", LAN, EXTERNAL):
            with guest.udp("192.168.60.11", timeout=0.4) as sock:
                for request in (b"\0\0", wire.pcp_header(wire.ANNOUNCE, 0, "192.168.60.11")):
                    sock.sendto(request, (gateway, 5351))
                with self.assertRaises((TimeoutError, ConnectionRefusedError)):
                    sock.recvfrom(2000)
        self.assertEqual(self.client().announce().result, 0)
        outside = self.sniff(self.lab.internet, "eth0")
        with Chatter(guest, "192.168.60.11"):
            wait_until("translated", lambda: outside.find(lambda p: p.source == EXTERNAL and b"leak?" in p.payload))
        self.assertEqual(leaks(outside), [])

    def test_a_guest_reaches_a_mapped_port_by_hairpin(self):
        port = self.port()
        service = self.udp_service(port, name=b"h:")
        external = self.client().natpmp("udp", port, port).external
        self.assertEqual(self.answer_of(self.lab.guest, (EXTERNAL, external))[0], b"h:")
        self.assertEqual({sender[0] for _, sender in service.got}, {EXTERNAL})


class Vpn(LabCase):
    lab_args = {"vpn": True}

    def test_a_route_to_a_vpn_stays_untranslated(self):
        with UdpEcho(self.lab.vpn, 7600, b"u") as service:
            self.answer_of(self.lab.device1, ("10.200.0.5", 7600), source=(DEVICE1, 0))
            self.assertEqual({sender[0] for _, sender in service.got}, {DEVICE1})
        # and from the VPN to the LAN
        with UdpEcho(self.lab.device1, 7601, b"d") as service:
            self.answer_of(self.lab.vpn, (DEVICE1, 7601), source=("10.200.0.5", 0))
            self.assertEqual(service.got[0][1][0], "10.200.0.5")
        self.assertEqual(self.lab.device1.call("ping", "-n", "-c", "1", "-W", "5", "10.200.0.5").returncode, 0)

    def test_a_vpn_that_comes_later_is_left_alone_too_and_one_that_goes_is_not_a_leak(self):
        gw, vpn = self.lab.gateway, self.lab.vpn
        vpn.ip("addr", "add", "10.201.0.5/32", "dev", "lo")
        outside = self.sniff(self.lab.internet, "eth0")
        with UdpEcho(vpn, 7602, b"late", "10.201.0.5") as service:
            gw.ip("route", "add", "10.201.0.0/16", "via", "10.99.0.2")

            def untranslated():
                udp_ask(self.lab.device1, ("10.201.0.5", 7602), tries=1, wait=0.3)
                return any(sender[0] == DEVICE1 for _, sender in service.got)

            wait_until("the new route is used untranslated", untranslated)
            gw.ip("route", "del", "10.201.0.0/16", "via", "10.99.0.2")

            def by_the_wan():
                udp_ask(self.lab.device1, ("10.201.0.5", 7602), tries=1, wait=0.1)
                return outside.find(lambda p: p.destination == "10.201.0.5")

            self.assertEqual(wait_until("then it goes by the WAN", by_the_wan).source, EXTERNAL)
            self.assertEqual(leaks(outside), [])

    def test_it_is_reached_while_the_daemon_is_dead_and_when_its_link_comes_anew_then(self):
        gw, vpn = self.lab.gateway, self.lab.vpn
        self.daemon.kill()
        self.addCleanup(self.daemon.start)

        def reached(port):
            with UdpEcho(vpn, port, b"u") as service:
                def heard():
                    udp_ask(self.lab.device1, ("10.200.0.5", port), source=(DEVICE1, 0), tries=1, wait=0.2)
                    return [sender[0] for _, sender in service.got]
                self.assertEqual(set(wait_until("it hears the LAN", heard)), {DEVICE1})

        reached(7604)
        gw.ip("link", "del", "vpn0")
        self.lab.wire(gw, "vpn0", vpn, "eth0")
        gw.ip("addr", "add", "10.99.0.1/24", "dev", "vpn0")
        gw.ip("route", "add", "10.200.0.0/16", "via", "10.99.0.2")
        vpn.ip("addr", "add", "10.99.0.2/24", "dev", "eth0")
        vpn.ip("route", "add", "192.168.50.0/24", "via", "10.99.0.1")
        reached(7605)

    def test_hosts_on_the_wans_own_subnet_are_translated(self):
        with UdpEcho(self.lab.internet, 7603, b"p", PEER) as service:
            self.answer_of(self.lab.device1, (PEER, 7603))
            self.assertEqual({sender[0] for _, sender in service.got}, {EXTERNAL})


class LateWan(LabCase):
    """A gateway started before its WAN has an address."""
    lab_args = {"wan": False}

    def test_it_starts_says_so_and_takes_the_address_up(self):
        client, port = self.client(), self.port()
        self.assertTrue(self.daemon.running())
        answer = client.natpmp_address()
        self.assertEqual((answer.result, answer.address), (3, "0.0.0.0"))  # NPM-3.2-02, -06
        self.assertEqual(client.map("udp", port).result, wire.NETWORK_FAILURE)  # PCP-11.3-17
        self.assertEqual(client.natpmp("udp", port).result, 3)
        status = self.cli_json("status")
        self.assertEqual(status["external_addresses"], [])
        self.assertTrue(status["warnings"], "status says that there is no external address")
        heard = wire.listen_for_announcements(self.lab.device1, DEVICE1)
        self.addCleanup(heard.close)
        self.lab.wan_address()
        wait_until("the address is told", lambda: client.natpmp_address().address == EXTERNAL)
        wait_until("announced", lambda: any(p and getattr(p, "address", None) == EXTERNAL for _, p in wire.announcements(heard)))
        service = self.udp_service(port, name=b"late:")
        answer = client.map("udp", port, port)
        self.assertEqual((answer.result, answer.external, answer.external_address), (0, port, EXTERNAL))
        self.arrives(service, port)
        with UdpEcho(self.lab.internet, 7700, b"u"):
            self.assertEqual(self.answer_of(self.lab.device2, (FAR, 7700))[0], b"u")
        self.arrives(self.control, 1999)  # the static mapping stands as well


class AddressChange(LabCase):
    def change(self, new, old):
        self.lab.wan_address(new, old)

    def test_mappings_move_and_clients_are_told_POL_RUN_01_02_PCP_8_5_03_11_5_01_14_2(self):
        lab, port, nport = self.lab, self.port(), self.port()
        client, nonce = self.client(), os.urandom(12)
        self.assertEqual(client.map("udp", port, port, 3600, nonce).external_address, EXTERNAL)
        client.natpmp("tcp", nport, nport)
        service, tservice = self.udp_service(port), self.tcp_service(nport, name=b"t:")
        ids = {x["id"] for x in self.leases()}
        wait_until("the epoch has counted", lambda: client.announce().epoch >= 2)
        heard = wire.listen_for_announcements(lab.device1, DEVICE1)
        self.addCleanup(heard.close)
        wire.announcements(heard)
        self.change(NEW, EXTERNAL)
        wait_until("the new address is answered", lambda: client.natpmp_address().address == NEW, 5)
        self.assertLessEqual(client.announce().epoch, 10)
        seen = []

        def announced():
            seen.extend(wire.announcements(heard))
            pcp = [p for s, p in seen if p and p.version == 2]
            pmp = [p for s, p in seen if p and p.version == 0 and getattr(p, "address", None) == NEW]
            return (pcp, pmp) if len(pcp) >= 3 and len(pmp) >= 3 else None

        pcp, pmp = wait_until("announcements of both protocols, repeated", announced)
        self.assertTrue(all(s == (LAN, 5351) for s, _ in seen), seen)
        self.assertTrue(all(p.response and p.opcode == wire.ANNOUNCE and p.result == 0 for p in pcp))
        epochs = [p.epoch for p in pcp]
        self.assertEqual(epochs, sorted(epochs))
        self.assertLessEqual(epochs[0], 5)
        # an unsolicited MAP answer, to the address and port that asked
        update = None
        for _ in range(20):
            data = client.hear(0.5)
            parsed = data and wire.parse_pcp(data)
            if parsed and parsed.version == 2 and parsed.opcode == wire.MAP:
                update = parsed
                break
        self.assertIsNotNone(update, "an unsolicited MAP answer")
        self.assertEqual((update.result, update.nonce, update.internal, update.external, update.external_address),
                         (0, nonce, port, port, NEW))
        self.arrives(service, port, to=NEW)
        self.assertEqual(tcp_ask(lab.internet, (NEW, nport))[0], b"t:")
        self.arrives(self.control, 1999, to=NEW)
        self.assertEqual({x["id"] for x in self.leases()}, ids)
        self.assertEqual({x["external"]["address"] for x in self.leases()}, {NEW})
        outside = self.sniff(lab.internet, "eth0")
        with UdpEcho(lab.internet, 7800, b"u"):
            self.assertEqual(self.answer_of(lab.device2, (FAR, 7800))[0], b"u")
        self.assertEqual(leaks(outside, (NEW,)), [])
        # the renewal keeps the port
        again = client.map("udp", port, port, 3600, nonce)
        self.assertEqual((again.result, again.external, again.external_address), (0, port, NEW))
        # an address that changed while the daemon was down resets the epoch too
        self.daemon.kill()
        self.change(EXTERNAL, NEW)
        self.daemon.start()
        self.assertLessEqual(client.announce().epoch, 5)
        self.arrives(service, port)

    def test_an_address_that_goes_is_an_error_until_another_comes(self):
        client = self.client()
        address = client.natpmp_address().address
        self.lab.gateway.ip("addr", "del", f"{address}/24", "dev", "wan0")
        wait_until("no address", lambda: client.natpmp_address().result == 3)
        self.assertEqual(client.map("udp", self.port()).result, wire.NETWORK_FAILURE)
        self.lab.wan_address(address)
        wait_until("the address is back", lambda: client.natpmp_address().result == 0)
        port = self.port()
        service = self.udp_service(port)
        answer = client.map("udp", port, port)
        self.assertEqual(answer.result, 0)
        self.arrives(service, answer.external, to=address)
        self.assertTrue(self.daemon.running())


class DhcpClient(LabCase):
    """What DHCP clients do to the WAN's interface when the provider gives another address (POL-RUN-01, POL-RUN-02)."""

    NET, ROUTER = "203.0.115.7", "203.0.115.1"  # another subnet, with another router

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lab.internet.ip("addr", "add", f"{cls.ROUTER}/24", "dev", "eth0")

    def setUp(self):
        self.address = self.client().natpmp_address().address

    def follows(self, address, change):
        """Leases and outbound traffic are on the new address within seconds; nothing leaves by another one meanwhile."""
        lab, client, port = self.lab, self.client(), self.port()
        service, nonce = self.udp_service(port), os.urandom(12)
        self.assertEqual(client.map("udp", port, port, 3600, nonce).external_address, self.address)
        self.arrives(service, port, to=self.address)
        outside = self.sniff(lab.internet, "eth0")
        time.sleep(0.5)
        with Chatter(lab.device2, "192.168.50.12"):
            change(self.address)
            wait_until("the new address is answered", lambda: client.natpmp_address().address == address, 5)
            self.arrives(service, port, to=address)
            outside.await_packet("outbound traffic wears it", lambda p: p.source == address and b"leak?" in p.payload)
        self.assertEqual(leaks(outside, (address, self.address)), [])
        again = client.map("udp", port, port, 3600, nonce)
        self.assertEqual((again.result, again.external, again.external_address), (0, port, address))
        self.arrives(self.control, 1999, to=address)
        self.address = address

    def give(self, address, router):
        self.lab.gateway.ip("addr", "add", f"{address}/24", "dev", "wan0")
        self.lab.gateway.ip("route", "replace", "default", "via", router)

    def test_the_old_address_goes_after_the_new_one_came(self):
        def change(old):
            self.give(self.NET, self.ROUTER)
            time.sleep(0.3)
            self.lab.gateway.ip("addr", "del", f"{old}/24", "dev", "wan0")

        self.follows(self.NET, change)
        self.follows(EXTERNAL, lambda old: (self.give(EXTERNAL, PEER), self.lab.gateway.ip("addr", "del", f"{old}/24", "dev", "wan0")))

    def test_all_addresses_are_flushed_before_the_new_one_comes(self):
        def change(old):
            self.lab.gateway.ip("addr", "flush", "dev", "wan0")
            time.sleep(0.3)
            self.give(NEW, PEER)

        self.follows(NEW, change)
        self.follows(EXTERNAL, lambda old: (self.lab.gateway.ip("addr", "flush", "dev", "wan0"), self.give(EXTERNAL, PEER)))

    def test_the_link_goes_down_and_up(self):
        def change(old):
            gateway = self.lab.gateway
            gateway.ip("link", "set", "wan0", "down")
            gateway.ip("addr", "flush", "dev", "wan0")
            time.sleep(0.3)
            gateway.ip("link", "set", "wan0", "up")
            self.give(NEW, PEER)

        self.follows(NEW, change)
        # the same address again, as after a cable was out
        def again(old):
            self.lab.gateway.ip("link", "set", "wan0", "down")
            self.lab.gateway.ip("link", "set", "wan0", "up")
            self.lab.gateway.ip("route", "replace", "default", "via", PEER)

        self.follows(NEW, again)
        self.follows(EXTERNAL, lambda old: (self.lab.gateway.ip("addr", "flush", "dev", "wan0"), self.give(EXTERNAL, PEER)))


class PrivateAddress(LabCase):
    """A gateway behind another NAT."""
    flags = ("--external-address", "100.64.3.4")

    def test_a_private_external_address_is_warned_of_IGD_11(self):
        warnings = self.cli_json("status")["warnings"]
        self.assertTrue([w for w in warnings if "100.64.3.4 is private" in w], warnings)
        self.assertEqual(self.client().natpmp_address().address, "100.64.3.4")


class PinnedAddress(LabCase):
    """--external-address pins: WAN changes move nothing, and it need not be on the interface."""
    flags = ("--external-address", "203.0.114.20")

    def test_a_pinned_address_is_used_and_kept(self):
        lab, client, port = self.lab, self.client(), self.port()
        lab.internet.ip("route", "add", "203.0.114.20/32", "via", EXTERNAL)
        self.assertEqual(client.natpmp_address().address, "203.0.114.20")
        service = self.udp_service(port)
        answer = client.map("udp", port, port)
        self.assertEqual((answer.result, answer.external_address), (0, "203.0.114.20"))
        self.arrives(service, port, to="203.0.114.20")
        outside = self.sniff(lab.internet, "eth0")
        with UdpEcho(lab.internet, 7900, b"u"):
            self.assertEqual(self.answer_of(lab.device1, (FAR, 7900))[0], b"u")
        self.assertEqual(leaks(outside, ("203.0.114.20", EXTERNAL)), [])
        lab.wan_address(NEW, EXTERNAL)
        lab.internet.ip("route", "replace", "203.0.114.20/32", "via", NEW)
        self.arrives(service, port, to="203.0.114.20")
        self.assertEqual(client.natpmp_address().address, "203.0.114.20")


class Announcements(LabCase):
    starts = False

    def test_a_first_start_is_announced_in_both_protocols_with_growing_gaps_PCP_14_1_04_05_NPM_3_2_1(self):
        heard = wire.listen_for_announcements(self.lab.device2, "192.168.50.12")
        self.addCleanup(heard.close)
        type(self).start()
        seen, times = [], []

        def enough():
            for sender, parsed in wire.announcements(heard):
                seen.append((sender, parsed))
                times.append((parsed.version, time.monotonic()))
            return all(sum(1 for v, _ in times if v == version) >= 5 for version in (0, 2))

        wait_until("five announcements of each protocol", enough, 30)
        self.assertEqual({sender for sender, _ in seen}, {(LAN, 5351)})
        for version in (0, 2):
            at = [t for v, t in times if v == version]
            gaps = [b - a for a, b in zip(at, at[1:])]
            self.assertGreater(gaps[-1], gaps[0], gaps)
        self.assertTrue(all(p.address == EXTERNAL and p.result == 0 and len(p.raw) == 12 for _, p in seen if p.version == 0))
        self.assertTrue(all(p.opcode == 0 and p.result == 0 and p.lifetime == 0 and len(p.raw) == 24 for _, p in seen if p.version == 2))
        # none on the WAN
        outside = self.sniff(self.lab.internet, "eth0")
        time.sleep(0.3)
        self.assertIsNone(outside.find(lambda p: p.dport == 5350))


class LinksThatComeLate(LabCase):
    starts = False

    def test_a_lan_link_that_comes_after_the_start_is_taken_up(self):
        lab = self.lab
        lab.gateway.ip("link", "add", "late0", "type", "veth", "peer", "name", "eth1", "netns", lab.device2.name)
        lab.gateway.ip("link", "del", "late0")
        type(self).start({"listen": {"lan": ["br0", "late0"]}})
        lab.wire(lab.gateway, "late0", lab.device2, "eth1")
        lab.gateway.ip("addr", "add", "192.168.70.1/24", "dev", "late0")
        lab.device2.ip("addr", "add", "192.168.70.12/24", "dev", "eth1")
        client = self.client(host=lab.device2, address="192.168.70.12", gateway="192.168.70.1")

        def served():
            return client.ask(b"\0\0", tries=1, timeout=0.3)

        self.assertEqual(wire.parse_natpmp(wait_until("the new LAN is served", served)).address, EXTERNAL)
        lab.device2.ip("route", "replace", "default", "via", "192.168.70.1")
        with UdpEcho(lab.internet, 7950, b"u") as service:
            self.answer_of(lab.device2, (FAR, 7950), source=("192.168.70.12", 0))
            self.assertEqual(service.got[0][1][0], EXTERNAL)
        self.assertEqual(client.map("udp", self.port()).result, 0)

    def test_no_wan_link_at_all(self):
        lab = self.lab
        daemon = lab.daemon({"listen": {"wan": ["ppp7"]}}, start=False)
        if self.daemon and self.daemon.running():
            self.daemon.stop()
        daemon.start()
        client = self.client()
        self.assertEqual(client.natpmp_address().result, 3)
        self.assertEqual(client.map("udp", self.port()).result, wire.NETWORK_FAILURE)
        self.assertTrue(lab.cli_json(daemon, "status")["warnings"])
        self.assertEqual(daemon.stop(), 0)
