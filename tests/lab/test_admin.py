"""The admin's side: sallyport status, list, show, revoke, unblock, watch; shapes, codes, effects."""

import json
import os
import re
import subprocess
import threading
import time

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, tcp_shut, wait_until
from labcase import LabCase

NUMBER, TEXT = (int, float), str
LEASE = {"id": TEXT, "state": TEXT, "kind": TEXT, "family": TEXT, "protocol": TEXT, "internal": dict, "external": dict,
         "remote": list, "via": (str, type(None)), "device": dict, "description": (str, type(None)),
         "lifetime_s": (*NUMBER, type(None)), "remaining_s": (*NUMBER, type(None)), "created": TEXT, "renewals": int,
         "packets_in": int, "packets_out": int, "bytes_in": int, "bytes_out": int, "last_packet": (str, type(None))}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Admin(LabCase):
    def check_lease(self, row):
        for key, kind in LEASE.items():
            self.assertIn(key, row)
            self.assertIsInstance(row[key], kind, f"{key}: {row[key]!r}")
        self.assertRegex(row["id"], r"\A[a-z2-9]{4,}\Z")
        self.assertIn(row["state"], ("active", "disabled", "pending", "ending"))
        self.assertIn(row["kind"], ("explicit", "static", "implicit"))
        self.assertIn(row["protocol"], ("tcp", "udp"))
        self.assertEqual(row["family"], "ipv4")
        self.assertIn(row["via"], ("pcp", "natpmp", "upnp", "admin", "config", None))
        for end in ("internal", "external"):
            self.assertEqual(set(row[end]), {"address", "port"})
            self.assertIsInstance(row[end]["port"], int)
        self.assertLessEqual({"address", "mac", "name"}, set(row["device"]))
        self.assertRegex(row["created"], RFC3339)
        self.assertNotIn("nonce", json.dumps(row))

    def opened(self, protocol="udp", device=1, lifetime=3600, **kw):
        port = self.port()
        nonce = os.urandom(12)
        answer = self.client(device).map(protocol, port, port, lifetime, nonce, **kw)
        self.assertEqual(answer.result, 0)
        row = self.lease(protocol, answer.external)
        return port, answer.external, row, nonce

    def test_list_json_and_show_json_have_the_contracts_shape(self):
        port, external, row, nonce = self.opened(options=wire.filter_option(FAR, 32) + wire.option(wire.DESCRIPTION, b"shape"))
        self.check_lease(row)
        self.assertEqual((row["state"], row["kind"], row["via"], row["internal"], row["external"], row["remote"], row["description"]),
                         ("active", "explicit", "pcp", {"address": DEVICE1, "port": port}, {"address": EXTERNAL, "port": external},
                          [FAR], "shape"))
        self.assertEqual((row["lifetime_s"], row["renewals"], row["device"]["address"]), (3600, 0, DEVICE1))
        self.assertTrue(3500 < row["remaining_s"] <= 3600)
        self.assertEqual(row["device"]["mac"], self.lab.device1.mac("eth0"))
        self.client().map("udp", port, port, 3600, nonce)
        shown = self.cli_json("show", row["id"])
        self.check_lease(shown)
        self.assertEqual((shown["id"], shown["renewals"]), (row["id"], 1))
        self.assertNotIn(nonce.hex(), json.dumps(shown))  # POL-TXT-05
        static = self.lease("udp", 1999)
        self.check_lease(static)
        self.assertEqual((static["kind"], static["via"], static["lifetime_s"], static["remaining_s"]), ("static", "config", None, None))

    def test_counters_count_towards_the_lan_as_in(self):
        port, external, row, _ = self.opened()
        service = self.udp_service(port, name=b"c")
        for _ in range(3):
            self.answer_of(self.lab.internet, (EXTERNAL, external))

        def counted():
            now = self.cli_json("show", row["id"])
            return now["packets_in"] >= 3 and now["packets_out"] >= 3 and now["bytes_in"] > 84 and now["last_packet"]

        wait_until("packets are counted both ways", counted)
        self.assertEqual(len(service.got), 3)

    def test_filters_are_words_that_must_all_hold(self):
        a = self.opened("udp", 1)[2]["id"]
        b = self.opened("tcp", 2)[2]
        ids = lambda *words: {x["id"] for x in self.leases(*words)}
        self.assertIn(a, ids("protocol=udp", f"device={DEVICE1}"))
        self.assertNotIn(a, ids("protocol=tcp"))
        self.assertEqual(ids(f"device={DEVICE2}", f"external={b['external']['port']}"), {b["id"]})
        self.assertEqual(ids(f"external={b['external']['port']}-{b['external']['port']}", "via=pcp", "kind=explicit",
                             f"internal={b['internal']['port']}", "state=active"), {b["id"]})
        self.assertEqual(ids("via=natpmp", "protocol=udp", "external=1024"), set())  # an empty list is code 0
        with_all = self.leases("--all")
        self.assertLessEqual({a, b["id"]}, {x["id"] for x in with_all})

    def test_implicit_mappings_are_listed_with_all_only(self):
        with self.lab.device1.udp(DEVICE1, self.port()) as mine, self.lab.internet.udp(FAR) as peer:
            mine.sendto(b"x", peer.getsockname())
            external = peer.recvfrom(10)[1][1]
        self.assertEqual([x for x in self.leases() if x["kind"] == "implicit"], [])
        rows = wait_until("the implicit mapping is listed", lambda: [x for x in self.leases("--all")
                                                                      if x["kind"] == "implicit" and x["external"]["port"] == external])
        self.assertEqual((rows[0]["via"], rows[0]["internal"]["address"]), (None, DEVICE1))

    def test_revoke_shuts_the_door_ends_connections_and_tells_the_client_PCP_14_2_03(self):
        port, uport = self.port(), self.port()
        client, nonce = self.client(), os.urandom(12)
        service, uservice = self.tcp_service(port), self.udp_service(uport)
        external, uexternal = client.map("tcp", port, port, 3600, nonce).external, client.natpmp("udp", uport, uport).external
        rows = [self.lease("tcp", external)["id"], self.lease("udp", uexternal)["id"]]
        with self.lab.internet.connect((EXTERNAL, external), (FAR, 0)) as sock:
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")
            self.arrives(uservice, uexternal, sport=4001)
            done = self.cli("revoke", *rows, "-y", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            out = json.loads(done.stdout)
            self.assertEqual((set(out["revoked"]), out["failed"], out["blocked_until"]), (set(rows), [], None))
            self.dropped(uservice, uexternal, sport=4001)
            self.ends_by_reset(sock, "the caller's connection")
        wait_until("the service's end is reset", lambda: service.ends == ["reset"])
        self.assertTrue(tcp_shut(self.lab.internet, (EXTERNAL, external)))
        self.assertEqual([x for x in self.leases() if x["id"] in rows], [])
        update = wait_until("an unsolicited MAP answer with lifetime 0", lambda: (
            (data := client.hear(0.5)) and (p := wire.parse_pcp(data)) and p.version == 2 and p.opcode == wire.MAP and p))
        self.assertEqual((update.nonce, update.internal, update.lifetime, update.result), (nonce, port, 0, 0))
        # unblocked, it may ask again
        self.assertEqual(client.map("tcp", port, port, 3600, nonce).result, 0)

    def test_block_refuses_by_every_protocol_is_listed_and_survives_a_restart(self):
        port, external, row, nonce = self.opened("udp")
        out = self.cli_json("revoke", row["id"], "--block", "24h")
        self.assertEqual(out["revoked"], [row["id"]])
        self.assertRegex(out["blocked_until"], RFC3339)
        other = os.urandom(12)
        for _ in range(2):
            client = self.client()
            answer = client.map("udp", port, port, 3600, nonce)
            self.assertEqual((answer.result, answer.lifetime), (wire.NOT_AUTHORIZED, 1800))
            self.assertEqual(client.natpmp("udp", port, port).result, 2)
            self.assertEqual(client.map("tcp", port, port, 3600, other).result, 0)  # that transport only
            self.assertEqual(self.client(2).map("udp", port, 0, 3600, other).result, 0)  # that device only
            self.assertIn(str(port), self.cli("list", "--blocked").stdout)
            self.daemon.kill()
            self.daemon.start()
        done = self.cli("unblock", f"device={DEVICE1}", f"internal={port}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.client().map("udp", port, port, 3600, nonce).result, 0)

    def test_dry_run_and_refusal_to_guess(self):
        a, b = self.opened("udp", 2)[2]["id"], self.opened("tcp", 2)[2]["id"]
        done = self.cli("revoke", f"device={DEVICE2}", "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(a, done.stdout)
        self.assertLessEqual({a, b}, {x["id"] for x in self.leases()})
        done = self.cli("revoke", f"device={DEVICE2}")  # several, no terminal, no -y
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertLessEqual({a, b}, {x["id"] for x in self.leases()})
        self.assertEqual(self.cli("revoke", f"device={DEVICE2}", "-y").returncode, 0)
        self.assertEqual(self.leases(f"device={DEVICE2}"), [])

    def test_exit_codes(self):
        port, external, row, _ = self.opened()
        code = lambda *words: self.cli(*words)
        for words, expected in ((["list"], 0), (["list", "external=1"], 0), (["status"], 0), (["show", row["id"]], 0), (["--help"], 0),
                                (["nonsense"], 2), ([], 2), (["list", "colour=blue"], 2), (["list", "protocol=sctp"], 2),
                                (["list", "external=x"], 2), (["show"], 2), (["revoke"], 2), (["list", "--no-such-flag"], 2),
                                (["revoke", row["id"], "--block", "soon"], 2),
                                (["show", "zzzzzzzz"], 3), (["revoke", "zzzzzzzz", "-y"], 3),
                                (["revoke", "external=1023", "-y"], 3)):
            with self.subTest(words):
                done = code(*words)
                self.assertEqual(done.returncode, expected, done.stdout + done.stderr)
                if expected:
                    self.assertEqual(done.stdout, "")
                    self.assertTrue(done.stderr.strip())
        # 7: one of two
        done = self.cli("revoke", row["id"], "zzzzzzzz", "-y", "--json")
        self.assertEqual(done.returncode, 7, done.stderr)
        out = json.loads(done.stdout)
        self.assertEqual((out["revoked"], [x["id"] for x in out["failed"]]), ([row["id"]], ["zzzzzzzz"]))
        # 5: nobody there
        done = subprocess.run([self.lab.cli_path, "--socket", "/nonexistent/admin.sock", "list"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (5, ""), done.stderr)

    def test_others_than_root_and_the_group_are_not_permitted_code_4(self):
        def drop():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        mode = os.stat(self.daemon.socket).st_mode & 0o777
        self.assertEqual(mode, 0o660)
        for path in (self.daemon.directory, self.lab.directory):
            os.chmod(path, 0o755)
        cli = os.path.join(self.lab.directory, "sallyport")
        import shutil
        shutil.copy(self.lab.cli_path, cli)
        done = subprocess.run([cli, "--socket", self.daemon.socket, "list"], capture_output=True, text=True, preexec_fn=drop)
        self.assertEqual(done.returncode, 4, done.stdout + done.stderr)

    def test_a_unique_prefix_names_a_lease_and_an_ambiguous_one_is_a_conflict(self):
        rows = [self.opened()[2]["id"] for _ in range(40)]
        every = [x["id"] for x in self.leases()]
        prefix = next((p for n in (1, 2) for p in (i[:n] for i in every) if sum(e.startswith(p) for e in every) > 1), None)
        self.assertIsNotNone(prefix)
        self.assertEqual(self.cli("show", prefix).returncode, 6)
        self.assertEqual(self.cli("revoke", prefix, "-y").returncode, 6)
        one = rows[0]
        unique = next(one[:n] for n in range(1, len(one) + 1) if sum(e.startswith(one[:n]) for e in every) == 1)
        self.assertEqual(self.cli_json("show", unique)["id"], one)

    def test_watch_tells_of_grants_renewals_and_ends_as_they_come(self):
        watch = subprocess.Popen([self.lab.cli_path, "--socket", self.daemon.socket, "watch", "--json"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (watch.kill(), watch.communicate()))
        lines = []
        threading.Thread(target=lambda: [lines.append(json.loads(line)) for line in watch.stdout], daemon=True).start()
        first = self.port()

        def listening():  # the subscription stands once an event comes by
            self.client().natpmp("tcp", first, 0, 60)
            time.sleep(0.1)
            return lines

        wait_until("watch shows an event", listening)
        port, external, row, nonce = self.opened()
        self.client().map("udp", port, port, 1800, nonce)
        self.client().unmap("udp", port, nonce)
        mine = lambda: [x for x in lines if x["lease"]["id"] == row["id"]]
        wait_until("three events", lambda: len(mine()) >= 3)
        self.assertEqual([x["event"] for x in mine()], ["granted", "renewed", "ended"])
        for line in lines:
            self.assertIn(line["event"], ("granted", "renewed", "changed", "ended"))
            self.assertIsInstance(line["reason"], str)
            self.check_lease(line["lease"])

    def test_status_has_what_the_contract_names(self):
        status = self.cli_json("status")
        self.assertLessEqual({"version", "uptime_s", "data_plane", "data_plane_reason", "interfaces", "external_addresses", "epoch_s",
                              "leases", "mappings", "flows", "store", "protocols", "warnings"}, set(status))
        self.assertEqual(status["data_plane"], self.lab.data_plane)
        self.assertIn("state", status["store"])
        self.assertIn(EXTERNAL, json.dumps(status["external_addresses"]))
        self.assertIsInstance(status["warnings"], list)

    def test_tables_are_readable_at_80_columns_and_plain_in_a_pipe(self):
        self.opened(options=wire.option(wire.DESCRIPTION, b"a game console in the children's room, the new one"))
        for words in (["list"], ["status"], ["list", "--all"]):
            done = subprocess.run([self.lab.cli_path, "--socket", self.daemon.socket, *words], capture_output=True, text=True,
                                  env={**os.environ, "COLUMNS": "80"})
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("\x1b", done.stdout)
            self.assertEqual([line for line in done.stdout.splitlines() if len(line) > 80], [], words)

    def test_a_description_cannot_speak_to_the_terminal_POL_TXT_04(self):
        _, external, row, _ = self.opened(options=wire.option(wire.DESCRIPTION, "evil\x1b]0;title\x07\u202eend".encode()))
        for words in (["list"], ["show", row["id"]], ["list", "--json"], ["show", row["id"], "--json"]):
            out = self.cli(*words).stdout
            self.assertFalse(set("\x1b\x07\u202e") & set(out), words)

    def test_metrics_and_the_openapi_file_are_served(self):
        call = lambda path: subprocess.run(["curl", "-sS", "--unix-socket", self.daemon.socket, f"http://localhost{path}"],
                                           capture_output=True, text=True)
        self.assertIn("sallyport_leases", call("/metrics").stdout)
        api = json.loads(call("/api/v1/openapi.json").stdout)
        self.assertLessEqual({"/api/v1/status", "/api/v1/leases", "/api/v1/leases/{id}", "/api/v1/events"}, set(api["paths"]))
        problem = json.loads(call("/api/v1/leases/zzzzzzzz").stdout)
        self.assertEqual(problem["status"], 404)
        self.assertEqual(self.client().announce().result, 0)
