"""Several external addresses: each host has one of them, for all it sends and all it opens."""

import contextlib

import upnp
import wire
from lab import EXTERNAL, FAR, LAN, Host, TcpEcho, UdpEcho, tcp_ask, wait_until
from labcase import LabCase

SECONDS = 60
SECOND = "203.0.114.8"   # stands on the WAN too
ROUTED = "203.0.115.9"   # no interface has it: the provider routes it to us
POOL = (EXTERNAL, SECOND, ROUTED)


def config(*pool):
    return {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "engine": {"external_addresses": list(pool)}}


class Addresses(LabCase):
    config = config(*POOL)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab = cls.lab
        lab.gateway.ip("addr", "add", f"{SECOND}/24", "dev", "wan0")
        lab.internet.ip("route", "add", ROUTED, "via", EXTERNAL)
        device3 = Host(lab, "device3")
        lab.wire(lab.gateway, "lan3", device3, "eth0")
        lab.gateway.ip("link", "set", "lan3", "master", "br0")
        device3.ip("addr", "add", "192.168.50.13/24", "dev", "eth0")
        device3.ip("route", "add", "default", "via", LAN)
        # a host of each external address, whichever those are
        found = {}
        for last in range(100, 200):
            address = f"192.168.50.{last}"
            lab.device1.ip("addr", "add", f"{address}/24", "dev", "eth0")
            with wire.Client(lab.device1, address) as client:
                found.setdefault(client.natpmp_address().address, address)
            lab.device1.ip("addr", "del", f"{address}/24", "dev", "eth0")
            if len(found) == len(POOL):
                break
        cls.hosts = [(host, found[external]) for host, external in zip((lab.device1, lab.device2, device3), POOL)]
        for host, address in cls.hosts:
            host.ip("addr", "add", f"{address}/24", "dev", "eth0")
            host.ip("neigh", "flush", "all", check=False)
        lab.gateway.ip("neigh", "flush", "all", check=False)

    def client_of(self, i):
        host, address = self.hosts[i]
        client = wire.Client(host, address)
        self.addCleanup(client.close)
        return client

    def udp_of(self, i, port, name=b""):
        host, address = self.hosts[i]
        service = UdpEcho(host, port, name, address=address)
        self.addCleanup(service.close)
        return service

    def tcp_of(self, i, port, name=b""):
        host, address = self.hosts[i]
        service = TcpEcho(host, port, name, address=address)
        self.addCleanup(service.close)
        return service

    def reload(self, *pool):
        with_control = dict(config(*pool))
        with_control["static"] = [{"protocol": "udp", "external": 1999, "internal": "192.168.50.19:1999", "description": "control"}]
        self.daemon.configure(with_control)
        self.daemon.hang_up()
        wait_until("the addresses are others", lambda: self.cli_json("status")["external_addresses"] == list(pool))

    def test_a_host_has_one_address_for_all_it_does_N4787_02(self):
        udp = UdpEcho(self.lab.internet, 7801)
        tcp = TcpEcho(self.lab.internet, 7802)
        self.addCleanup(udp.close)
        self.addCleanup(tcp.close)
        outside = self.sniff(self.lab.internet, "eth0")
        for i, ((host, address), external) in enumerate(zip(self.hosts, POOL)):
            with self.subTest(external=external):
                for _ in range(3):
                    self.answer_of(host, (FAR, 7801), source=(address, 0))
                    self.assertEqual(udp.got[-1][1][0], external)
                tcp_ask(host, (FAR, 7802), (address, 0))
                self.assertEqual(tcp.peers[-1][0], external)
                outside.clear()
                self.assertEqual(host.call("ping", "-n", "-c", "1", "-W", "5", "-I", address, FAR).returncode, 0)
                self.assertIsNotNone(outside.find(lambda p: p.protocol == wire.ICMP and p.source == external))
                client = self.client_of(i)
                self.assertEqual(client.natpmp_address().address, external)
                made = client.map("udp", self.port(), 0)
                self.assertEqual((made.result, made.external_address), (0, external))
                igd = upnp.find(host, address, LAN)
                wan = igd.service(upnp.WANIP)
                self.assertEqual(wan.call("GetExternalIPAddress"), {"NewExternalIPAddress": external})
                with contextlib.closing(upnp.Listener(host, address)) as listener:
                    wan.subscribe(listener)
                    event = listener.wait("the address", lambda e: "ExternalIPAddress" in e.values)
                    self.assertEqual(event.values["ExternalIPAddress"], external)
        self.assertEqual(self.cli_json("status")["external_addresses"], list(POOL))

    def test_each_address_has_the_same_port_for_another_host_N6888_02(self):
        port, inner = self.port(), self.port()
        for i, external in enumerate(POOL):
            made = self.client_of(i).map("udp", inner, port, options=wire.option(wire.PREFER_FAILURE))
            self.assertEqual((made.result, made.external, made.external_address), (0, port, external))
        services = [self.udp_of(i, inner, b"%d:" % i) for i in range(3)]
        for i, external in enumerate(POOL):
            self.arrives(services[i], port, to=external)
            self.assertEqual(self.answer_of(self.lab.internet, (external, port), source=(FAR, 0)), (b"%d:" % i, (external, port)))
        rows = [row for row in self.leases() if row["external"]["port"] == port]
        self.assertEqual({(row["internal"]["address"], row["external"]["address"]) for row in rows},
                         {(address, external) for (_, address), external in zip(self.hosts, POOL)})

    def test_upnp_names_entries_on_the_callers_address(self):
        port = self.port()
        wans = [upnp.find(host, address, LAN).service(upnp.WANIP) for host, address in self.hosts]
        for i in (0, 1):
            wans[i].add(port)
        service = self.tcp_of(1, port, b"second")
        self.assertEqual(tcp_ask(self.lab.internet, (SECOND, port), (FAR, 0))[0], b"second")
        self.assertEqual(len(service.peers), 1)
        self.assertEqual(wans[0].mapping(port)["NewInternalClient"], self.hosts[0][1])
        self.assertEqual(wans[1].mapping(port)["NewInternalClient"], self.hosts[1][1])
        self.assertIsNone(wans[2].mapping(port))
        self.assertEqual(len([e for e in wans[2].mappings() if e["NewExternalPort"] == str(port)]), 2)
        wans[0].delete(port)
        self.assertIsNotNone(wans[1].mapping(port))

    def test_another_address_of_the_pool_is_not_to_be_had_PCP_11_3_13(self):
        client = self.client_of(0)
        refused = client.map("tcp", self.port(), self.port(), external_address=SECOND, options=wire.option(wire.PREFER_FAILURE))
        self.assertEqual(refused.result, wire.CANNOT_PROVIDE_EXTERNAL)
        made = client.map("tcp", self.port(), self.port(), external_address=SECOND)
        self.assertEqual((made.result, made.external_address), (0, EXTERNAL))

    def test_hosts_of_different_addresses_meet_by_them(self):
        for i in range(3):
            to = (i + 1) % 3
            port = self.port()
            self.assertEqual(self.client_of(to).map("tcp", port, port).external, port)
            self.assertEqual(self.client_of(to).map("udp", port, port).external, port)
            tcp, udp = self.tcp_of(to, port, b"t"), self.udp_of(to, port, b"u")
            host, address = self.hosts[i]
            self.assertEqual(tcp_ask(host, (POOL[to], port), (address, 0))[0], b"t")
            self.assertEqual(tcp.peers[-1][0], POOL[i])
            self.assertEqual(self.answer_of(host, (POOL[to], port), source=(address, 0))[0], b"u")
            self.assertEqual(udp.got[-1][1][0], POOL[i])

    def test_every_address_answers_pings(self):
        host, address = self.hosts[0]
        for external in POOL:
            self.assertEqual(self.lab.internet.call("ping", "-n", "-c", "1", "-W", "5", external).returncode, 0, external)
            self.assertEqual(host.call("ping", "-n", "-c", "1", "-W", "5", "-I", address, external).returncode, 0, external)

    def test_nothing_goes_round_at_an_address_that_no_interface_has(self):
        outside = self.sniff(self.lab.internet, "eth0")
        with self.lab.internet.udp(FAR, 0) as sock:
            sock.sendto(b"nobody", (ROUTED, 9))
        wait_until("it was sent", lambda: outside.find(lambda p: b"nobody" in p.payload))
        self.answer_of(self.hosts[0][0], (FAR, self.echo()), source=(self.hosts[0][1], 0))
        self.assertEqual(len(outside.all(lambda p: b"nobody" in p.payload)), 1)

    def echo(self):
        service = UdpEcho(self.lab.internet, 7803)
        self.addCleanup(service.close)
        return service.port

    def test_only_hosts_of_an_address_that_goes_lose_anything_NMAP_11_POL_RUN_02(self):
        port, other = self.port(), self.port()
        stays, moves = self.client_of(0), self.client_of(2)
        kept, moved = stays.map("udp", port, port), moves.map("udp", other, other)
        self.assertEqual((kept.external, moved.external), (port, other))
        service, far = self.udp_of(2, other), TcpEcho(self.lab.internet, 7804)
        self.addCleanup(far.close)
        wait_until("the epoch has counted", lambda: stays.announce().epoch >= 2)
        host, address = self.hosts[0]
        with host.connect((FAR, 7804), (address, 0)) as running:
            running.sendall(b"before")
            self.assertEqual(running.recv(100), b"before")
            self.reload(EXTERNAL, SECOND)
            running.sendall(b"after")
            self.assertEqual(running.recv(100), b"after", "its host has the address it had")
            now_at = moves.natpmp_address().address
            self.assertIn(now_at, (EXTERNAL, SECOND))
            self.assertEqual(stays.natpmp_address().address, EXTERNAL)
            self.assertLessEqual(stays.announce().epoch, 2)
            self.arrives(service, other, to=now_at)
            self.arrives(self.udp_of(0, port), port, to=EXTERNAL)
            self.assertEqual(self.lease("udp", other)["external"], {"address": now_at, "port": other})
            udp = UdpEcho(self.lab.internet, 7805)
            self.addCleanup(udp.close)
            self.answer_of(self.hosts[2][0], (FAR, 7805), source=(self.hosts[2][1], 0))
            self.assertEqual(udp.got[-1][1][0], now_at)
            self.reload(*POOL)
            self.arrives(service, other, to=ROUTED)
            running.sendall(b"still")
            self.assertEqual(running.recv(100), b"still")

    def test_a_fourth_waits_for_a_restart(self):
        self.reload(*POOL, "203.0.115.10")
        self.assertTrue(any("external addresses" in warning for warning in self.cli_json("status")["warnings"]))
        for i, external in enumerate(POOL):
            self.assertEqual(self.client_of(i).natpmp_address().address, external)
        self.reload(*POOL)
        self.assertFalse(any("external addresses" in warning for warning in self.cli_json("status")["warnings"]))

    def test_a_restart_changes_nothing_POL_STO_02(self):
        port, services = self.port(), []
        for i in range(3):
            self.assertEqual(self.client_of(i).map("udp", port, port).external, port)
            services.append(self.udp_of(i, port))
        before = sorted((row["id"], str(row["external"])) for row in self.leases())
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(sorted((row["id"], str(row["external"])) for row in self.leases()), before)
        for i, external in enumerate(POOL):
            self.assertEqual(self.client_of(i).natpmp_address().address, external)
            self.arrives(services[i], port, to=external)
