"""The ebpf plane where it differs from others: it works on while the daemon does not, and is taken off without a trace."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import unittest

import bpf
import lab as lab_module
import test_addresses
import test_datapath
import test_firewall6
import test_ipv6
import test_links
import test_pcp
import test_restart
import test_wan
import wire
from lab import DEVICE1, EXTERNAL, FAR, LAN, UdpEcho, wait_until
from labcase import Chatter, LabCase, leaks


class Ebpf(LabCase):
    @classmethod
    def setUpClass(cls):
        lab_module.Lab.data_plane = "ebpf"  # each class has a process of its own
        try:
            super().setUpClass()
        except AssertionError as error:
            if "built without the ebpf plane" in str(error):
                raise unittest.SkipTest("built without the ebpf plane") from None
            raise

    def programs(self):
        """How many of ours there are, by interface and direction."""
        return {(device, direction): len(bpf.programs(self.lab.gateway, device, direction))
                for device in ("wan0", "br0") for direction in ("ingress", "egress")}

    def status(self):
        return self.lab.cli_json(self.daemon, "status")


class Restart(Ebpf):
    """What flows keeps flowing: through a stop, a kill -9 and the starts after them."""

    class Stream:
        """Numbered datagrams, a thousand a second, to an echo outside; what came back."""

        def __init__(self, device, port):
            self.sock = device.udp(DEVICE1, 0, timeout=0.2)
            self.to, self.sent, self.back, self.open = (FAR, port), 0, set(), True
            self.threads = [threading.Thread(target=f, daemon=True) for f in (self.send, self.receive)]
            for thread in self.threads:
                thread.start()

        def send(self):
            while self.open:
                self.sock.sendto(self.sent.to_bytes(4, "big"), self.to)
                self.sent += 1
                time.sleep(0.001)

        def receive(self):
            while self.open:
                try:
                    self.back.add(int.from_bytes(self.sock.recv(64), "big"))
                except OSError:
                    continue

        def close(self):
            self.open = False
            for thread in self.threads:
                thread.join()
            self.sock.close()

    def test_no_connection_breaks_when_the_daemon_stops_dies_and_starts(self):
        server = self.lab.internet.popen("iperf3", "-s", "-1", "-B", FAR, stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: server.poll() is None and server.terminate())
        wait_until("iperf3 listens", lambda: ":5201" in self.lab.internet.run("ss", "-Hltn"))
        with UdpEcho(self.lab.internet, 7700):
            stream = self.Stream(self.lab.device1, 7700)
            try:
                client = self.lab.device1.popen("iperf3", "-c", FAR, "-t", "8", "-b", "100M", "-J", stdout=subprocess.PIPE,
                                                text=True)
                time.sleep(1)
                self.assertEqual(self.daemon.stop(), 0)
                time.sleep(0.5)
                self.daemon.start()
                time.sleep(1)
                self.daemon.kill()
                time.sleep(0.5)
                self.daemon.start()
                report = json.loads(client.communicate(timeout=30)[0])
                time.sleep(0.3)
            finally:
                stream.close()
        self.assertEqual(client.returncode, 0, report.get("error"))
        # what is still on its way when the sockets close does not count
        lost = [n for n in range(stream.sent - 300) if n not in stream.back]
        print(f"        iperf3: {report['end']['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s of 100, "
              f"{report['end']['sum_sent']['retransmits']} retransmissions; of {stream.sent} datagrams {len(lost)} lost", flush=True)
        self.assertEqual(min(i["sum"]["bytes"] for i in report["intervals"][:8]) > 0, True, "it stood still for a second")
        self.assertLess(len(lost), stream.sent // 100, lost[:20])

    def test_mappings_live_on_and_end_in_time_while_the_daemon_is_dead(self):
        service, short = self.udp_service(self.port()), self.udp_service(self.port())
        client = self.client()
        kept = client.map("udp", service.port, service.port, 3600)
        ends = client.natpmp("udp", short.port, short.port, 3)
        self.assertEqual((kept.result, ends.result), (0, 0))
        self.arrives(service, kept.external)
        self.daemon.kill()
        try:
            self.arrives(service, kept.external)
            wait_until("the short one's time is over", lambda: time.sleep(0.5) or True)
            time.sleep(4)
            self.dropped(short, short.port)
        finally:
            self.daemon.start()
        self.arrives(service, kept.external)

    def test_a_lease_deleted_while_others_were_away_is_gone_after_a_restart(self):
        service = self.udp_service(self.port())
        client = self.client()
        nonce = bytes(12)
        made = client.map("udp", service.port, service.port, 3600, nonce)
        self.arrives(service, made.external)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(client.map("udp", service.port, 0, 0, nonce).result, 0)
        self.dropped(service, made.external)

    def test_who_asks_anew_after_the_store_was_lost_gets_the_port_he_had(self):
        service = self.udp_service(self.port())
        client = self.client()
        made = client.map("udp", service.port, service.port, 3600)
        self.arrives(service, made.external)
        self.daemon.kill()
        for name in os.listdir(self.daemon.state):
            os.remove(os.path.join(self.daemon.state, name))
        self.daemon.start()
        again = client.map("udp", service.port, service.port, 3600)  # with another nonce
        self.assertEqual((again.result, again.external), (0, made.external))
        self.arrives(service, again.external)
        self.assertEqual([lease["external"]["port"] for lease in self.leases(f"external={again.external}")], [again.external])


class Traces(Ebpf):
    def test_programs_that_another_one_removed_are_put_back(self):
        self.assertEqual(self.programs(), {("wan0", "ingress"): 1, ("wan0", "egress"): 1, ("br0", "ingress"): 1, ("br0", "egress"): 0})
        bpf.detach(self.lab.gateway, "wan0", "egress", bpf.programs(self.lab.gateway, "wan0", "egress")[0])
        wait_until("it is back", lambda: self.programs()[("wan0", "egress")] == 1)
        with UdpEcho(self.lab.internet, 7701, b"u"):
            answer, _ = self.answer_of(self.lab.device1, (FAR, 7701), source=(DEVICE1, 0))
            self.assertEqual(answer, b"u")
        wait_until("it says so", lambda: any("removed the programs" in w for w in self.status()["warnings"]))

    def test_it_keeps_only_the_rights_it_needs(self):
        for thread in os.listdir(f"/proc/{self.daemon.pid}/task"):
            with open(f"/proc/{self.daemon.pid}/task/{thread}/status") as file:
                status = dict(line.split(":", 1) for line in file)
            self.assertEqual(status["CapEff"].strip(), "0000000000003000", status["Name"])
            self.assertEqual(status["NoNewPrivs"].strip(), "1")

    def test_filters_of_others_stay_and_detach_leaves_nothing_of_ours(self):
        self.lab.gateway.run("tc", "qdisc", "add", "dev", "wan0", "clsact")
        others = self.lab.gateway.call("tc", "filter", "add", "dev", "wan0", "ingress", "prio", "7", "protocol", "ip", "matchall",
                                       "action", "pass").returncode == 0  # not every kernel has the classifier
        before = self.lab.gateway.run("sysctl", "-n", "net.ipv4.ip_local_port_range")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.programs()["wan0", "egress"], 1, "a stop leaves them")
        detached = self.daemon.detach()
        self.assertEqual(detached.returncode, 0, detached.stderr)
        self.assertEqual(set(self.programs().values()), {0})
        if others:
            self.assertIn("matchall", self.lab.gateway.run("tc", "filter", "show", "dev", "wan0", "ingress"))
        self.assertNotEqual(self.lab.gateway.run("sysctl", "-n", "net.ipv4.ip_local_port_range"), before)
        self.daemon.start()

    def test_from_one_plane_to_the_other_and_back(self):
        with UdpEcho(self.lab.internet, 7702, b"u"):
            for plane in ("tun", "ebpf"):
                self.assertEqual(self.daemon.stop(), 0)
                self.daemon.configure({"engine": {"data_plane": plane}})
                self.daemon.start()
                self.assertEqual(self.status()["data_plane"], plane)
                answer, sender = self.answer_of(self.lab.device1, (FAR, 7702), source=(DEVICE1, 0))
                self.assertEqual(answer, b"u")
        self.assertEqual(self.programs()["wan0", "egress"], 1)


class FromPlaneToPlane(Ebpf):
    starts = False

    def seen(self):
        """How many packets with a LAN's source came out of the WAN, as the kernel counts."""
        return int(re.search(r"counter packets (\d+)", self.lab.internet.run("nft", "list", "table", "inet", "seen")).group(1))

    def test_nothing_leaves_as_it_is_meanwhile_POL_NET_01(self):
        lab = self.lab
        lab.gateway.sysctl("net.ipv4.ip_forward", 1)  # the administrator's: what is put back lets all through
        lab.internet.run("nft", "-f", "-", stdin="table inet seen { chain in { type filter hook prerouting priority -300; "
                                                 "ip saddr 192.168.50.0/24 counter; }; }\n")
        type(self).start()
        with Chatter(lab.device1, DEVICE1, rate=0):
            for plane in ("tun", "ebpf") * 3:
                self.assertEqual(self.daemon.stop(), 0)
                self.daemon.configure({"engine": {"data_plane": plane}})
                self.daemon.start()
                self.assertEqual(self.status()["data_plane"], plane)
            self.assertEqual(self.seen(), 0)
            self.assertEqual(lab.gateway.sysctl("net.ipv4.conf.br0.forwarding"), "1")
            self.assertEqual(self.daemon.stop(), 0)
            self.assertEqual(self.daemon.detach().returncode, 0)
            self.assertEqual(lab.gateway.sysctl("net.ipv4.conf.br0.forwarding"), "1")
            wait_until("the counter sees what is not ours", self.seen)


BPF = os.path.join(os.path.dirname(os.path.realpath(__file__)), "bpf.py")
WITHOUT_TCX = ("python3", BPF, "--without-tcx")
WITHOUT_PROGRAMS = ("python3", BPF, "--without-programs")
NO_RIGHTS = ("setpriv", "--bounding-set=-bpf,-sys_admin")


class Auto(Ebpf):
    """`auto` takes ebpf where it runs, and else tun; both say why."""

    starts = False

    def restart(self, plane, *wrapper):
        """Stops, and is to start behind another program, perhaps."""
        if self.daemon and self.daemon.running():
            self.assertEqual(self.daemon.stop(), 0)
        config = {"engine": {"data_plane": plane}}
        if self.daemon is None:
            type(self).daemon = self.lab.daemon(config, start=False)
        command = lab_module.Daemon.command
        self.daemon.command = lambda *more: [*wrapper, *command(self.daemon, *more)]
        self.daemon.configure(config)

    def tearDown(self):
        self.restart("auto")
        self.assertEqual(self.daemon.detach().returncode, 0)

    def works(self, port):
        with UdpEcho(self.lab.internet, port, b"u") as service:
            self.assertEqual(self.answer_of(self.lab.device1, (FAR, port), source=(DEVICE1, 0))[0], b"u")
            self.assertEqual(service.got[0][1][0], lab_module.EXTERNAL)

    def test_it_takes_what_runs_and_says_why(self):
        outside = self.sniff(self.lab.internet, "eth0")
        time.sleep(0.5)
        with Chatter(self.lab.device1, DEVICE1):
            self.restart("auto")
            self.daemon.start()
            status = self.status()
            self.assertEqual((status["data_plane"], status["data_plane_reason"].split(";")[0]), ("ebpf", "auto"))
            self.assertIn("data plane ebpf (auto)", self.daemon.log())
            self.works(7710)
            # its programs make room for tun, and tun's rules for them
            self.restart("auto", *WITHOUT_PROGRAMS)
            self.daemon.start()
            self.assertEqual(self.status()["data_plane"], "tun")
            self.assertEqual(set(self.programs().values()), {0})
            self.works(7711)
            self.restart("auto")
            self.daemon.start()
            self.assertEqual(self.status()["data_plane"], "ebpf")
            self.works(7712)
        self.assertEqual(leaks(outside), [])
        self.assertEqual(self.lab.gateway.ip("-d", "rule", "show").count("proto 83"), 0)

    def test_without_the_rights_it_is_tun(self):
        self.restart("auto", *NO_RIGHTS)
        self.daemon.start()
        status = self.status()
        self.assertEqual(status["data_plane"], "tun")
        self.assertIn("ebpf: the kernel does not let us load programs", status["data_plane_reason"])
        self.assertIn("CAP_BPF and CAP_NET_ADMIN are needed", status["data_plane_reason"])
        self.assertRegex(self.cli("status").stdout, r"data plane +tun \(ebpf: the kernel does not let us")
        self.assertIn("data plane tun (ebpf: the kernel does not let us", self.daemon.log())
        self.works(7713)

    def test_programs_that_it_may_not_look_at_are_an_error(self):
        self.restart("ebpf", "setpriv", "--bounding-set=-sys_admin")
        self.daemon.start()  # the first time there is nothing to look at
        for plane, wrapper in (("ebpf", ("setpriv", "--bounding-set=-sys_admin")), ("auto", NO_RIGHTS), ("tun", NO_RIGHTS)):
            with self.subTest(plane):
                self.restart(plane, *wrapper)
                with open(self.daemon.log_file, "w"):
                    pass
                self.daemon.start(wait=False)
                self.assertEqual(self.daemon.process.wait(20), 1)
                self.assertIn("needs CAP_SYS_ADMIN: run sallyportd --detach as root", self.daemon.log())

    def test_asked_for_by_name_it_is_an_error(self):
        self.restart("ebpf", *NO_RIGHTS)
        self.daemon.start(wait=False)
        self.assertEqual(self.daemon.process.wait(20), 1)
        self.assertIn("error: the kernel does not let us load programs", self.daemon.log())
        self.assertEqual(self.daemon.out(), "")

    def test_without_tcx_it_takes_filters_and_then_tcx_again(self):
        for wrapper in (WITHOUT_TCX, ()):
            self.restart("auto", *wrapper)
            self.daemon.start()
            self.assertEqual(self.status()["data_plane"], "ebpf")
            self.assertEqual(len(bpf.filters(self.lab.gateway, "wan0", "egress")), 1 if wrapper else 0)
            self.assertEqual(self.programs()["wan0", "egress"], 1)
            self.works(7714)


def layout():
    """SP_ABI."""
    with open(os.path.join(lab_module.ROOT, "nat/plane/ebpf/abi.h")) as file:
        return int(re.search(r"SP_ABI = (\d+)", file.read()).group(1))


class AnotherLayout(Ebpf):
    def test_tables_of_another_layout_begin_anew_and_leases_come_back(self):
        lab = self.lab
        service, client = self.udp_service(self.port()), self.client()
        made = client.map("udp", service.port, service.port, 3600)
        self.assertEqual(made.result, 0)
        self.arrives(service, made.external)
        outside = self.sniff(lab.internet, "eth0")
        time.sleep(0.5)
        with Chatter(lab.device1, DEVICE1):
            for other, told in ((2, "(2, ours is "), (0xdeadbeef, "(an unknown one, ours is ")):
                self.daemon.kill()
                program = bpf.programs(lab.gateway, "wan0", "egress")[0]
                with bpf.Table(program, "config") as config:
                    self.assertEqual(int.from_bytes(config.read()[:4], "little"), layout())
                    before = config.number
                    config.write(other.to_bytes(4, "little") + config.read()[4:])
                self.daemon.start()
                self.assertIn("the tables of an earlier run have another layout " + told, self.daemon.log())
                program = bpf.programs(lab.gateway, "wan0", "egress")[0]
                with bpf.Table(program, "config") as config:
                    self.assertNotEqual(config.number, before)
                self.assertEqual(self.programs(), {("wan0", "ingress"): 1, ("wan0", "egress"): 1,
                                                   ("br0", "ingress"): 1, ("br0", "egress"): 0})
                self.arrives(service, made.external)
                self.assertEqual(self.lease("udp", made.external)["via"], "pcp")
        self.assertEqual(leaks(outside), [])
        # the same layout is taken up, and says nothing
        self.daemon.kill()
        with open(self.daemon.log_file, "w"):
            pass
        self.daemon.start()
        self.assertNotIn("layout", self.daemon.log())
        with bpf.Table(bpf.programs(lab.gateway, "wan0", "egress")[0], "config") as config:
            self.assertEqual(int.from_bytes(config.read()[:4], "little"), layout())


class Guarded(Ebpf):
    """POL-NET-01 where others take our programs or the WAN away: what the LAN sends does not leave as it is."""

    lab_args = {"vpn": True}
    starts = False

    def setUp(self):
        super().setUp()
        self.lab.gateway.sysctl("net.ipv4.ip_forward", 1)  # the worst case: new interfaces forward

    def begin(self, *wrapper):
        if self.daemon is None:
            type(self).daemon = self.lab.daemon(start=False)
        command = lab_module.Daemon.command
        self.daemon.command = lambda *more: [*wrapper, *command(self.daemon, *more)]
        self.daemon.start()
        self.addCleanup(self.end)

    def end(self):
        self.daemon.stop()
        self.daemon.command = lambda *more: lab_module.Daemon.command(self.daemon, *more)
        self.assertEqual(self.daemon.detach().returncode, 0)

    def watched(self):
        outside = self.sniff(self.lab.internet, "eth0")
        time.sleep(0.5)
        return outside

    def translated(self, outside):
        outside.clear()
        wait_until("translated packets leave", lambda: outside.find(lambda p: p.source == EXTERNAL and p.dport == 7720), 20)

    def wan_anew(self):
        """The WAN's interface again, without an address yet; a sniffer stands behind it."""
        lab = self.lab
        lab.wire(lab.gateway, "wan0", lab.internet, "eth0")
        lab.internet.ip("addr", "add", f"{lab_module.PEER}/24", "dev", "eth0")
        lab.internet.ip("route", "replace", "192.168.0.0/16", "via", EXTERNAL)
        return self.watched()

    def stream(self):
        stream = Restart.Stream(self.lab.device1, 7720)
        self.addCleanup(stream.close)
        return stream

    def test_a_qdisc_that_somebody_deletes_takes_nothing_of_ours_along(self):
        self.begin()
        self.stream()
        outside = self.watched()
        self.translated(outside)
        for _ in range(3):
            self.lab.gateway.run("tc", "qdisc", "add", "dev", "wan0", "clsact")
            self.lab.gateway.run("tc", "qdisc", "del", "dev", "wan0", "clsact")
        time.sleep(0.2)
        self.translated(outside)
        self.assertEqual(leaks(outside), [])

    def test_without_tcx_they_are_back_at_once(self):
        self.begin(*WITHOUT_TCX)
        stream = self.stream()
        outside = self.watched()
        self.translated(outside)
        gone = 0
        for _ in range(10):
            self.lab.gateway.run("tc", "qdisc", "del", "dev", "wan0", "clsact")
            wait_until("they are back", lambda: len(bpf.filters(self.lab.gateway, "wan0", "egress")) == 1)
            time.sleep(0.1)
            gone += len(leaks(outside))
            self.translated(outside)
        print(f"        {gone} of {stream.sent} packets left untranslated while 10 qdiscs were deleted", flush=True)
        # what left between the removal and its news, and not what a sweep a second later would let out
        self.assertLess(gone, 100)
        self.assertTrue(any("removed the programs" in w for w in self.status()["warnings"]))

    def others_have_theirs(self, take):
        gateway = self.lab.gateway

        def egress(device):
            return len(bpf.programs(gateway, device, "egress"))

        self.assertEqual([egress(device) for device in ("vpn0", "lan1", "br0", "lo", "sp0")], [1, 0, 0, 0, 0])
        take()
        wait_until("it is back", lambda: egress("vpn0") == 1)
        gateway.ip("link", "set", "vpn0", "master", "br0")
        wait_until("a port of the LAN's bridge has none", lambda: egress("vpn0") == 0)
        gateway.ip("link", "set", "vpn0", "nomaster")
        wait_until("by itself it has", lambda: egress("vpn0") == 1)
        gateway.ip("link", "add", "late1", "type", "bridge")
        self.addCleanup(gateway.ip, "link", "del", "late1", check=False)
        wait_until("one that came has it before it is up", lambda: egress("late1") == 1)
        self.end()
        self.assertEqual([egress(device) for device in ("vpn0", "late1")], [0, 0])

    def test_other_interfaces_have_their_program_and_lose_it_by_detach_alone(self):
        self.begin()
        self.others_have_theirs(lambda: bpf.detach(
            self.lab.gateway, "vpn0", "egress", bpf.programs(self.lab.gateway, "vpn0", "egress")[0]))

    def test_without_tcx_too(self):
        self.begin(*WITHOUT_TCX)
        self.others_have_theirs(lambda: self.lab.gateway.run("tc", "qdisc", "del", "dev", "vpn0", "clsact"))

    def test_a_wan_made_anew_under_the_daemon(self):
        lab = self.lab
        self.begin()
        self.stream()
        outside = self.watched()
        self.translated(outside)
        for _ in range(3):
            lab.gateway.ip("link", "del", "wan0")
            self.assertEqual(leaks(outside), [])
            outside = self.wan_anew()
            lab.wan_address()
            self.translated(outside)
            self.assertEqual(leaks(outside), [])
        self.assertEqual(self.programs()["wan0", "egress"], 1)

    def test_a_wan_made_anew_while_the_daemon_is_dead(self):
        lab = self.lab
        self.begin()
        stream = self.stream()
        self.translated(self.watched())
        self.daemon.kill()
        lab.gateway.ip("link", "del", "wan0")
        outside = self.wan_anew()
        lab.wan_address()
        before = stream.sent
        wait_until("the device talks", lambda: stream.sent > before + 500)
        lab.gateway.run("ping", "-c1", "-W5", FAR)  # the router's own goes on, and the sniffer hears
        self.assertIsNotNone(outside.find(lambda p: p.source == EXTERNAL))
        self.assertEqual(leaks(outside), [])
        # what stays inside goes on
        self.assertEqual(lab.device1.call("ping", "-c1", "-W5", lab_module.LAN).returncode, 0)
        with UdpEcho(lab.vpn, 7721, b"v") as service:
            self.answer_of(lab.device1, ("10.200.0.5", 7721), source=(DEVICE1, 0))
            self.assertEqual(service.got[0][1][0], DEVICE1)
        self.daemon.start()
        self.translated(outside)
        self.assertEqual(leaks(outside), [])

    def test_a_lan_made_anew_while_the_daemon_is_dead(self):
        lab = self.lab
        self.begin()
        stream = self.stream()
        outside = self.watched()
        self.translated(outside)
        self.daemon.kill()
        lab.gateway.ip("link", "del", "br0")
        lab.gateway.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
        lab.gateway.ip("addr", "add", f"{lab_module.LAN}/24", "dev", "br0")
        lab.gateway.ip("link", "set", "br0", "up")
        for number in lab.devices:
            lab.gateway.ip("link", "set", f"lan{number}", "master", "br0")
        lab.device1.run("ping", "-c1", "-W5", lab_module.LAN)
        outside.clear()
        before = stream.sent
        wait_until("the device talks", lambda: stream.sent > before + 500)
        self.assertEqual(leaks(outside), [])
        self.assertEqual(outside.all(lambda p: p.dport == 7720), [])
        self.daemon.start()
        self.translated(outside)
        self.assertEqual(leaks(outside), [])


# What every plane does, once more on this one.

class OutboundOnEbpf(Ebpf, test_datapath.Outbound):
    def test_spoofed_senders_outside_reach_no_service_by_a_group_or_broadcast_POL_NET_03(self):
        group, everybody = "239.1.2.3", "255.255.255.255"
        macs = {group: "01:00:5e:01:02:03"}
        service = self.lab.gateway.udp("0.0.0.0", 7777, timeout=0.3)
        self.addCleanup(service.close)
        for own in (EXTERNAL, LAN):
            service.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(own))

        def heard(send, sources, destinations):
            for source in sources:
                for destination in destinations:
                    send(macs.get(destination, "ff:ff:ff:ff:ff:ff"), wire.udp(source, 4000, destination, 7777, f"{source} to {destination}".encode()))
            found = []
            with contextlib.suppress(TimeoutError):
                while True:
                    found.append(service.recv(99).decode())
            return sorted(found)

        outside = lambda mac, packet: self.lab.internet.send_frame("eth0", mac, packet)
        inside = lambda mac, packet: self.lab.device1.send_frame("eth0", mac, packet)
        both = (group, everybody)
        spoofed = ("192.168.50.99", DEVICE1, LAN, EXTERNAL, "127.0.0.1", "169.254.1.1", "240.0.0.1")
        self.assertEqual(heard(outside, spoofed, both), [])
        self.assertEqual(heard(outside, (test_datapath.NOWHERE, "10.9.8.7"), both), sorted(f"{s} to {d}" for s in (test_datapath.NOWHERE, "10.9.8.7") for d in both))
        self.assertEqual(heard(outside, ("0.0.0.0",), (everybody,)), ["0.0.0.0 to " + everybody])  # who has no address yet
        self.assertEqual(heard(inside, (DEVICE1,), both), sorted(f"{DEVICE1} to {d}" for d in both))  # a LAN's own are heard


class HairpinOnEbpf(Ebpf, test_datapath.Hairpin):
    pass


class OutboundRedirected(Ebpf, test_datapath.Outbound):
    config = {"engine": {"redirect": True}}


class PcpOnEbpf(Ebpf, test_pcp.Pcp):
    pass


class PcpPortSetOnEbpf(Ebpf, test_pcp.PcpPortSet):
    pass


class NothingLeavesUntranslatedOnEbpf(Ebpf, test_wan.NothingLeavesUntranslated):
    pass


class GuestsOnEbpf(Ebpf, test_wan.Guests):
    pass


class VpnOnEbpf(Ebpf, test_wan.Vpn):
    pass


class LateWanOnEbpf(Ebpf, test_wan.LateWan):
    pass


class AddressChangeOnEbpf(Ebpf, test_wan.AddressChange):
    pass


class DhcpClientOnEbpf(Ebpf, test_wan.DhcpClient):
    pass


class LinksThatComeLateOnEbpf(Ebpf, test_wan.LinksThatComeLate):
    pass


class RestartOnEbpf(Ebpf, test_restart.Restart):
    pass


class RecordsOnEbpf(Ebpf, test_datapath.Records):
    pass


class DetachOnEbpf(Ebpf, test_restart.Detach):
    pass


class AddressesOnEbpf(Ebpf, test_addresses.Addresses):
    pass


class FirewallOnEbpf(Ebpf, test_firewall6.Firewall):
    pass


class TrafficOnEbpf(Ebpf, test_firewall6.Traffic):
    pass


class DeadOnEbpf(Ebpf, test_firewall6.Dead):
    pass


class FailsClosedOnEbpf(Ebpf, test_firewall6.FailsClosed):
    pass


class SwitchedOffOnEbpf(Ebpf, test_firewall6.SwitchedOff):
    pass


class SwitchedOffByReloadOnEbpf(Ebpf, test_firewall6.SwitchedOffByReload):
    pass


class WithoutIpv6OnEbpf(Ebpf, test_firewall6.WithoutIpv6):
    pass


class PcpOverIpv6OnEbpf(Ebpf, test_ipv6.PcpOverIpv6):
    pass


class PinholesByUpnpOnEbpf(Ebpf, test_ipv6.PinholesByUpnp):
    pass


class Restart6OnEbpf(Ebpf, test_ipv6.Restart6):
    pass


class TwoLansOnEbpf(Ebpf, test_links.TwoLans):
    pass


class TwoLansTheOtherWayRoundOnEbpf(Ebpf, test_links.TwoLansTheOtherWayRound):
    pass


class WithoutALinkLayerOnEbpf(Ebpf, test_links.WithoutALinkLayer):
    pass


class VlansOnEbpf(Ebpf, test_links.Vlans):
    pass


class AnotherUplinkOnEbpf(Ebpf, test_links.AnotherUplink):
    pass


class LanElsewhereOnEbpf(Ebpf, test_links.LanElsewhere):
    pass


class TwoWansOnEbpf(Ebpf, test_links.TwoWans):
    pass
