"""Start, stop, restart, reload, kill -9: what is kept, what is said, with which code it ends."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time

import lab as lab_module
import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, Lab, UdpEcho, tcp_ask, udp_ask, wait_until
from labcase import CONTROL_HOST, LabCase

SECONDS = 60


class Restart(LabCase):
    def open_some(self, client):
        port, nport, nonce = self.port(), self.port(), os.urandom(12)
        made = client.map("udp", port, port, 3600, nonce, options=wire.option(wire.DESCRIPTION, b"kept"))
        self.assertEqual(made.result, 0)
        self.assertEqual(client.natpmp("tcp", nport, 0, 1800).result, 0)
        return port, nport, nonce

    def stays(self, end):
        client = self.client()
        port, nport, nonce = self.open_some(client)
        gone = self.port()
        self.assertEqual(client.natpmp("udp", gone, gone).result, 0)
        self.assertEqual(client.natpmp("udp", gone, 0, 0).result, 0)
        wait_until("the epoch has counted", lambda: client.announce().epoch >= 2)
        before, epoch, asked = self.leases(), client.announce().epoch, time.monotonic()
        end()
        self.daemon.start()
        after, passed = self.leases(), time.monotonic() - asked
        key = lambda rows: [(r["id"], r["protocol"], r["internal"], r["external"], r["via"], r["description"], r["lifetime_s"], r["created"])
                            for r in sorted(rows, key=lambda r: r["id"])]
        self.assertEqual(key(after), key(before))
        left = {r["id"]: r["remaining_s"] for r in before if r["remaining_s"] is not None}
        for row in after:
            if row["remaining_s"] is not None:
                self.assertLessEqual(abs(left[row["id"]] - passed - row["remaining_s"]), 2.5, row)
        now = client.announce().epoch
        self.assertLessEqual(abs(epoch + (time.monotonic() - asked) - now), 2.5)  # PCP-8.5-04: it goes on
        service, tservice = self.udp_service(port), self.tcp_service(nport, name=b"t:")
        self.arrives(service, port)
        external = next(r["external"]["port"] for r in after if r["internal"]["port"] == nport)
        self.assertEqual(tcp_ask(self.lab.internet, (EXTERNAL, external))[0], b"t:")
        self.assertEqual(client.map("udp", port, port, 3600, os.urandom(12)).result, wire.NOT_AUTHORIZED)  # the nonce is kept
        self.assertEqual(client.map("udp", port, port, 3600, nonce).external, port)
        self.assertNotIn(gone, [r["external"]["port"] for r in after])
        self.assertEqual(len(tservice.peers), 1)

    def test_sigterm_ends_it_within_5_s_and_keeps_leases_and_epoch_POL_STO_03(self):
        def end():
            began = time.monotonic()
            self.assertEqual(self.daemon.stop(), 0)
            self.assertLess(time.monotonic() - began, 5)

        self.stays(end)

    def test_kill_9_keeps_leases_and_epoch_POL_STO_02(self):
        self.stays(self.daemon.kill)

    def test_leases_come_back_though_hosts_send_all_the_time_POL_STO_02(self):
        client, inner, outer = self.client(), self.port(), self.port()
        self.assertEqual(client.map("udp", inner, outer).external, outer)
        # the one would like its own number outside, the other the number that is leased
        talkers = [(self.lab.device1.udp(DEVICE1, inner)), (self.lab.device2.udp(DEVICE2, outer))]
        done = threading.Event()

        def talk():
            while not done.wait(0.001):
                for talker in talkers:
                    with contextlib.suppress(OSError):
                        talker.sendto(b"on and on", (FAR, 9))

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            for _ in range(3):
                self.daemon.kill()
                self.daemon.start()
                self.assertEqual(self.lease("udp", outer)["internal"], {"address": DEVICE1, "port": inner})
        finally:
            done.set()
            thread.join()
            for talker in talkers:
                talker.close()

    def test_a_lease_that_ends_while_the_daemon_is_down_stays_ended(self):
        client, port = self.client(), self.port()
        client.natpmp("udp", port, port, 1)
        self.daemon.kill()
        time.sleep(1.3)
        self.daemon.start()
        self.assertNotIn(port, [r["external"]["port"] for r in self.leases()])

    def test_stdout_is_one_line_and_nothing_says_ready_before_it(self):
        self.assertEqual(self.daemon.out(), "sallyportd ready\n")
        self.assertTrue(self.daemon.log())
        lab = Lab()
        self.addCleanup(lab.close)
        daemon = lab.daemon(start=False)
        with open(daemon.log_file, "w"), tempfile.TemporaryFile() as both:
            child = lab.gateway.popen(*daemon.command(), stdout=both, stderr=subprocess.STDOUT)
            both_path = f"/proc/self/fd/{both.fileno()}"

            def text():
                with open(both_path, errors="replace") as file:
                    return file.read()

            wait_until("ready", lambda: "sallyportd ready" in text(), 30)
            self.assertNotIn("ready", text().split("sallyportd ready")[0])
            lab_module.end_process(child)

    def test_a_second_instance_ends_with_1(self):
        done = self.lab.gateway.call(*self.daemon.command())
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertTrue(done.stderr.strip())
        self.assertNotIn("ready", done.stdout)
        self.assertEqual(self.client().announce().result, 0)
        port = self.port()
        service = self.udp_service(port)
        self.assertEqual(self.client().natpmp("udp", port, port).external, port)
        self.arrives(service, port)

    def test_bad_flags_end_with_2_and_a_bad_configuration_with_78(self):
        call = lambda *words: self.lab.gateway.call(Lab.daemon_path, *words)
        for words in (["--no-such-flag"], ["--data-plane", "magic"], ["--lan"], ["--external-address", "nonsense"], ["stray"]):
            with self.subTest(words):
                done = call(*words)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertTrue(done.stderr.strip())
        bad = os.path.join(self.lab.directory, "bad.toml")
        for text, says in (("[listen]\nlan = 5\n", "bad.toml:2"), ("[listen]\nlann = ['x']\n", "bad.toml:2"),
                           ("[limits]\nleases_total = -1\n", "bad.toml:2"), ("[nonsense]\nx = 1\n", "bad.toml"), ("= =", "bad.toml:1")):
            for more in ([], ["--check-config"]):
                with self.subTest(text=text, more=more):
                    with open(bad, "w") as file:
                        file.write(text)
                    done = call("--config", bad, *more)
                    self.assertEqual((done.returncode, done.stdout), (78, ""), done.stderr)
                    self.assertIn(says, done.stderr)
        self.assertEqual(call("--config", "/nonexistent/x.toml").returncode, 78)

    def test_check_config_accepts_what_runs_here_and_changes_nothing(self):
        done = self.lab.gateway.call(*self.daemon.command("--check-config"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("ready", done.stdout + done.stderr)
        self.assertEqual(self.client().announce().result, 0)


class Secret(LabCase):
    config = {"engine": {"random_ports": True}}

    def test_each_start_draws_other_ports_N6056_03(self):
        sources = [self.port() for _ in range(3)]
        with UdpEcho(self.lab.internet, 7480, b"s") as service:
            def drawn():
                for source in sources:
                    self.assertEqual(udp_ask(self.lab.device1, (FAR, 7480), (DEVICE1, source))[0], b"s")
                return [sender[1] for _, sender in service.got[-len(sources):]]

            def anew():
                self.daemon.stop()
                self.daemon.detach()  # with the mappings that a plane may keep
                self.daemon.start()
                return drawn()

            first, second = anew(), anew()
        self.assertFalse(set(first) & set(sources), "random, not kept")
        self.assertNotEqual(first, second)


class Reload(LabCase):
    def reload(self, config=None, text=None, says="reload"):
        before = len(self.daemon.log())
        if text is None:
            control = {"protocol": "udp", "external": 1999, "internal": f"{CONTROL_HOST}:1999", "description": "control"}
            config = dict(config or {})
            config["static"] = [control, *config.get("static", [])]
        self.daemon.configure(config, text)
        self.daemon.hang_up()
        wait_until("the log tells of the reload", lambda: len(self.daemon.log()) > before)
        return before

    def test_a_good_reload_keeps_leases_flows_and_brings_new_rules_POL_RUN_04(self):
        client, port, new = self.client(), self.port(), self.port()
        service, nservice = self.tcp_service(port), self.udp_service(new)
        external = client.natpmp("tcp", port, port).external
        held = client.natpmp("udp", self.port(), new).external
        self.assertEqual(held, new)
        ids = {x["id"] for x in self.leases() if x["external"]["port"] == external}
        with self.lab.internet.connect((EXTERNAL, external), (FAR, 0)) as sock:
            sock.sendall(b"1")
            self.assertEqual(sock.recv(1), b"1")
            # a new static mapping ends the lease on its port
            self.reload({"static": [{"protocol": "udp", "external": new, "internal": f"{DEVICE1}:{new}"}],
                         "policy": {"rule": [{"device": "192.168.50.12", "action": "deny"}]}})
            wait_until("the static mapping stands", lambda: [x for x in self.leases() if x["external"]["port"] == new and x["kind"] == "static"])
            self.assertEqual([x for x in self.leases() if x["external"]["port"] == new and x["kind"] == "explicit"], [])
            self.arrives(nservice, new)
            sock.sendall(b"2")
            self.assertEqual(sock.recv(1), b"2")
        self.assertEqual({x["id"] for x in self.leases() if x["external"]["port"] == external}, ids)
        # the new rule holds
        self.assertEqual(self.client(2).map("udp", self.port()).result, wire.NOT_AUTHORIZED)
        self.assertEqual(self.client(2).natpmp("udp", self.port()).result, 2)
        self.reload()
        wait_until("and is gone with the next reload", lambda: self.client(2).map("udp", self.port()).result == 0)
        self.assertEqual([x for x in self.leases() if x["external"]["port"] == new], [])

    def test_a_bad_configuration_changes_nothing_and_is_told_with_its_place_POL_RUN_03(self):
        client, port = self.client(), self.port()
        service = self.udp_service(port)
        client.natpmp("udp", port, port)
        for text in ("[listen]\nlan = 7\n", "[listen\n", "[policy]\nreuse_delay = 'soon'\n[listen]\nlan=['br0']\nwan=['wan0']\n"):
            with self.subTest(text):
                before = self.reload(text=text)
                wait_until("file and line are told", lambda: "sallyport.toml:" in self.daemon.log()[before:])
                self.assertTrue(self.daemon.running())
                self.arrives(service, port)
                self.assertEqual(client.natpmp("udp", port, port).result, 0)
        self.reload()

    def test_many_reloads_in_a_row_drop_no_request_POL_RUN_04(self):
        client = self.client()
        for _ in range(10):
            self.daemon.hang_up()
            self.assertIsNotNone(client.ask(b"\0\0", tries=1))
        self.assertTrue(self.daemon.running())


class Detach(LabCase):
    starts = False

    def picture(self):
        gw = self.lab.gateway
        rules = gw.ip("rule", "show")
        routes = gw.ip("route", "show", "table", "all")
        keys = ["net.ipv4.ip_forward", "net.ipv4.ip_early_demux", "net.ipv4.ip_local_port_range", "net.ipv4.conf.br0.forwarding",
                "net.ipv4.conf.wan0.forwarding", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.br0.rp_filter", "net.ipv4.conf.wan0.rp_filter"]
        links = sorted(link["ifname"] for link in gw.ip_json("link", "show"))
        return {"rules": rules, "routes": "\n".join(sorted(routes.splitlines())), "links": links, **{k: gw.sysctl(k) for k in keys}}

    def test_detach_takes_every_trace_out_of_the_system(self):
        before = self.picture()
        type(self).start()
        self.assertNotEqual(self.picture(), before)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertNotEqual(self.picture(), before, "what a stop leaves fails closed")
        done = self.daemon.detach()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.picture(), before)
        self.assertEqual(self.daemon.detach().returncode, 0, "twice is fine")
        self.daemon.start()
        self.daemon.kill()
        self.assertEqual(self.daemon.detach().returncode, 0)
        self.assertEqual(self.picture(), before)
        self.daemon.start()
        self.arrives(self.control, 1999)


class Kill9(LabCase):
    starts = False

    def test_ten_rounds_of_kill_9_under_load_POL_STO_02(self):
        here = os.path.dirname(os.path.realpath(__file__))
        done = subprocess.run([sys.executable, os.path.join(here, "kill9.py"), "--rounds", "10", "--daemon", Lab.daemon_path,
                               "--cli", Lab.cli_path], capture_output=True, text=True, timeout=500)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-2000:])
        print("     " + done.stdout.strip().splitlines()[-1], flush=True)
