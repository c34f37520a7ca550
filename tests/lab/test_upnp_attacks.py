"""The UPnP gateway under attack: requests that are wrong on purpose, floods, clients that stall, want of descriptors.

The rows are those of the policy: what is refused is refused with the code told there, nothing is done, and whoever
asks beside the attacker is served.
"""

import contextlib
import os
import random
import resource
import socket
import struct
import threading
import time

import lab as lab_module
import upnp
import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, LAN, PEER, wait_until
from labcase import UpnpCase, sanitized

SECONDS = 30
HTTP = (LAN, 5000)


class AttackCase(UpnpCase):
    def talk(self, data, address=DEVICE1, device=1, timeout=None, end=False):
        """(the answers to these octets, whether the gateway then hung up). `end`: nothing more will be sent."""
        answers = []
        with self.lab.devices[device].connect(HTTP, (address, 0)) as sock:
            sock.settimeout(lab_module.PATIENCE if timeout is None else timeout)
            reader = upnp.Reader(sock)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
                if end:
                    sock.shutdown(socket.SHUT_WR)
            try:
                while (answer := reader.message()) is not None:
                    answers.append(answer)
            except TimeoutError:
                return answers, False
            except ConnectionError:
                pass
        return answers, True

    def statuses(self, data, **kw):
        return [a.status for a in self.talk(data, **kw)[0]]

    def is_well(self, device=1):
        """The daemon runs and answers by HTTP."""
        self.assertTrue(self.daemon.running())
        self.assertEqual(self.wan(device).call("GetExternalIPAddress"), {"NewExternalIPAddress": EXTERNAL})

    def explicit(self):
        return [r for r in self.leases() if r["kind"] == "explicit"]

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def addresses(self, device, first, count):
        """Own addresses of a device, more than its usual one."""
        out = [f"192.168.50.{n}" for n in range(first, first + count)]
        for address in out:
            self.lab.devices[device].ip("addr", "add", f"{address}/24", "dev", "eth0", check=False)
        return out

    @contextlib.contextmanager
    def many_leases(self, count, device=1):
        """Short of a second's work: leases by NAT-PMP, so that lists are long."""
        with wire.Client(self.lab.devices[device], (DEVICE1, DEVICE2)[device - 1]) as client:
            missing = set(range(30000, 30000 + count))
            for _ in range(20):
                for port in sorted(missing):
                    client.sock.sendto(wire.natpmp_map("udp", port, port, 7200), client.gateway)
                    if port % 100 == 0 or port == max(missing):
                        while (data := client.hear(0.02)) is not None:
                            missing.discard(wire.parse_natpmp(data).internal)
                if not missing:
                    break
            self.assertFalse(missing)
            yield
            client.natpmp("udp", 0, 0, 0)


class Http(AttackCase):
    def get(self, *pairs, target=None, version="1.1", host=f"{LAN}:5000", method="GET", body=b""):
        target = upnp.Url(self.gateway().location).target if target is None else target
        fields = [("Host", host)] if host is not None else []
        return (f"{method} {target} HTTP/{version}\r\n" + upnp.fields([*fields, *pairs]) + "\r\n").encode("latin-1") + body

    def post(self, *pairs, body=None, action="GetExternalIPAddress", length=True):
        wan = self.wan()
        body = upnp.envelope(wan.type, action) if body is None else body
        fields = [("SOAPAction", f'"{wan.type}#{action}"'), *([("Content-Length", len(body))] if length else []), *pairs]
        return self.get(*fields, target=wan.control.target, method="POST", body=body)

    def add_body(self, port):
        return upnp.envelope(self.wan().type, "AddPortMapping", self.wan().mapping_args(port))

    def judge(self, rows):
        """(what, octets, status or statuses it may have): one answer, then the gateway hangs up when asked to or when it
        can no longer tell where the next request begins."""
        before = self.explicit()
        for what, data, *allowed in rows:
            with self.subTest(what):
                answers, _ = self.talk(data)
                self.assertEqual(len(answers), 1, answers)
                self.assertIn(answers[0].status, allowed)
                self.assertFalse([f for f, _ in answers[0].fields if f.startswith("access-control")])
        self.assertEqual(self.explicit(), before)
        self.is_well()

    CLOSE = ("Connection", "close")

    def test_lengths_POL_WEB_01(self):
        fit = lambda size: [("X-Pad", "p" * size)]
        body = upnp.envelope(self.wan().type, "GetExternalIPAddress")
        chunk = lambda size: f"{size:x}\r\n".encode() + b" " * size + b"\r\n"
        chunked = ("Transfer-Encoding", "chunked")
        self.judge([
            ("head of 15 KiB", self.get(*fit(15 * 1024), self.CLOSE), 200),
            ("head above 16 KiB", self.get(*fit(17 * 1024), self.CLOSE), 431),
            ("a head without an end", self.get(*fit(20 * 1024))[:18 * 1024], 431),
            ("128 fields", self.get(*[("X", n) for n in range(126)], self.CLOSE), 200),
            ("129 fields", self.get(*[("X", n) for n in range(127)], self.CLOSE), 431),
            ("target of 8 KiB", self.get(self.CLOSE, target="/" + "t" * 8190), 404),
            ("target above 8 KiB", self.get(self.CLOSE, target="/" + "t" * 8192), 414),
            ("body of 64 KiB", self.post(self.CLOSE, body=body + b" " * (65536 - len(body))), 200),
            ("body above it", self.post(self.CLOSE, body=body + b" " * (65537 - len(body))), 413),
            ("announced only", self.post(self.CLOSE, ("Content-Length", 65537), body=b"", length=False), 413),
            ("announced beyond all", self.post(self.CLOSE, ("Content-Length", "9" * 60), body=b"", length=False), 413),
            ("no 100 Continue before a 413", self.post(self.CLOSE, ("Content-Length", 70000), ("Expect", "100-continue"), body=b"",
                                                       length=False), 413),
            ("chunks above it", self.post(chunked, body=chunk(60000) + chunk(6000) + b"0\r\n\r\n", length=False), 413),
            ("one chunk above it", self.post(chunked, body=chunk(66000), length=False), 413),
            ("extensions count as head", self.post(chunked, body=b"1;" + b"e" * 17000 + b"\r\n", length=False), 431),
            ("trailers count as head", self.post(chunked, body=b"0\r\nX: " + b"t" * 17000 + b"\r\n\r\n", length=False), 431)])

    def test_after_a_413_not_much_more_is_read_POL_WEB_01(self):
        with self.lab.device1.connect(HTTP, (DEVICE1, 0)) as sock:
            sock.sendall(self.post(("Content-Length", 100_000_000), body=b"", length=False))
            sent = 0
            with self.assertRaises(OSError):
                while sent < 100_000_000:
                    sent += sock.send(b"x" * 65536)
        self.is_well()

    def test_whose_host_it_is_POL_WEB_05(self):
        rows = [(f"Host {host!r}", self.get(self.CLOSE, host=host), *codes) for host, *codes in (
            (LAN, 200), (f"{LAN}:5000", 200), (f"{LAN}:80", 200), (f" {LAN}\t", 200),
            ("localhost", 403, 400), ("localhost:5000", 403, 400), ("router.lan", 403, 400), ("", 403, 400), (f"{LAN}.evil.example", 403, 400),
            (f"evil.example:{LAN}", 403, 400), (f"user@{LAN}", 403, 400), (f"{LAN}@evil.example", 403, 400), (f"{LAN}:5000/x", 403, 400),
            (f"{LAN}:", 403, 400), (f"{LAN}:x", 403, 400), (f"{LAN}:99999", 403, 400), (f"{LAN} evil", 403, 400), (f"{LAN},{LAN}", 403, 400),
            ("127.0.0.1", 403, 400), (FAR, 403, 400), (DEVICE1, 403, 400), ("0xc0a83201", 403, 400), ("3232248321", 403, 400),
            ("192.168.50.01", 403, 400), ("192.168.12801", 403, 400), ("[::1]", 403, 400), (f"[::ffff:{LAN}]", 403, 400),
            (None, 400))]
        path = upnp.Url(self.gateway().location).target
        rows += [("two hosts", self.get(("Host", LAN), self.CLOSE), 400),
                 ("two hosts that differ", self.get(("Host", "evil.example"), self.CLOSE), 400),
                 ("HTTP/1.0 without one", self.get(host=None, version="1.0"), 200),
                 ("HTTP/1.0 with a name", self.get(host="evil.example", version="1.0"), 403, 400),
                 ("a target that names it", self.get(self.CLOSE, target=f"http://{LAN}:5000{path}", host="evil.example"), 200),
                 ("a target that names another", self.get(self.CLOSE, target=f"http://evil.example{path}"), 403, 400),
                 ("a target with a user", self.get(self.CLOSE, target=f"http://x@{LAN}{path}"), 403, 400),
                 ("a control URL by name", self.post(self.CLOSE).replace(f"Host: {LAN}:5000".encode(), b"Host: rebound.example"), 403, 400)]
        self.judge(rows)

    def test_web_pages_POL_WEB_06_07(self):
        wan, port = self.wan(), self.port()
        add = lambda *pairs: self.post(self.CLOSE, *pairs, body=self.add_body(port), action="AddPortMapping")
        event = lambda method, *pairs: self.get(self.CLOSE, *pairs, target=wan.events.target, method=method)
        callback = [("CALLBACK", f"<http://{DEVICE1}:7/>"), ("NT", "upnp:event")]
        rows = []
        for name, value in (("Origin", "http://evil.example"), ("Origin", "null"), ("Origin", f"http://{LAN}:5000"), ("origin", ""),
                            ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin"), ("sec-fetch-site", "")):
            rows += [(f"{name}: {value}", add((name, value)), 403),
                     (f"SUBSCRIBE {name}: {value}", event("SUBSCRIBE", *callback, (name, value)), 403),
                     (f"UNSUBSCRIBE {name}: {value}", event("UNSUBSCRIBE", ("SID", "uuid:1"), (name, value)), 403)]
        soap = ("SOAPAction", f'"{wan.type}#AddPortMapping"')
        body = self.add_body(port)
        form = [("Content-Length", len(body)), ("Content-Type", "text/plain"), self.CLOSE]
        rows += [("a page's GET", self.get(self.CLOSE, ("Origin", "http://evil.example")), 200),
                 ("preflight", self.get(self.CLOSE, ("Origin", "http://evil.example"), method="OPTIONS", target=wan.control.target),
                  403, 405, 501),
                 ("a form: no SOAPACTION", self.get(*form, target=wan.control.target, method="POST", body=body), 400),
                 ("by GET", self.get(*form, soap, target=wan.control.target, body=body), 405),
                 ("by PUT", self.get(*form, soap, target=wan.control.target, body=body, method="PUT"), 405, 501),
                 ("to the description", self.get(*form, soap, body=body, method="POST"), 405),
                 ("to the event URL", self.get(*form, soap, target=wan.events.target, body=body, method="POST"), 405),
                 ("SUBSCRIBE to the control URL", self.get(self.CLOSE, *callback, target=wan.control.target, method="SUBSCRIBE"), 405),
                 ("M-POST", self.get(*form, ("MAN", '"http://schemas.xmlsoap.org/soap/envelope/"; ns=01'), ("01-" + soap[0], soap[1]),
                                     target=wan.control.target, body=body, method="M-POST"), 405, 501)]
        self.judge(rows)
        self.assertEqual(self.statuses(self.post(self.CLOSE, ("Content-Type", "application/octet-stream"))), [200])
        self.assertEqual(self.statuses(self.post(self.CLOSE, ("Sec-Fetch-Site", "none"))), [200])

    def test_paths_POL_WEB_08_09(self):
        wan = self.wan()
        path, control = upnp.Url(self.gateway().location).target, wan.control.target
        changed = control[:-1] + ("A" if control[-1] != "A" else "B")
        rows = [(f"path {p}", self.get(self.CLOSE, target=p), 404, 400) for p in (
            "/../../../../etc/passwd", path + "/../../etc/passwd", "/%2e%2e/etc/passwd", "/./" + path[1:], "/" + path, path + "/", path + "?x=1",
            path + "%00", path.replace(path[1], f"%{ord(path[1]):02x}", 1), path.upper(), "/etc/passwd", "/\\..\\x", path + "#x", "*",
            "x", "//" + LAN + path, "file:///etc/passwd", "ftp://" + LAN + path, "/\xff\xfe", "/<script>alert(1)</script>")]
        rows += [("another control path", self.post(self.CLOSE).replace(control.encode(), changed.encode()), 404),
                 ("no secret", self.post(self.CLOSE).replace(control.encode(), b"/control/WANIPConn1"), 404),
                 ("the usual path of others", self.post(self.CLOSE).replace(control.encode(), b"/ctl/IPConn"), 404),
                 ("CONNECT", self.get(self.CLOSE, target=f"{FAR}:80", method="CONNECT"), 501, 400, 405),
                 ("a proxy's GET", self.get(self.CLOSE, target=f"http://{FAR}/"), 403, 400),
                 ("an unknown method", self.get(self.CLOSE, method="BREW"), 501),
                 ("a long method", self.get(self.CLOSE, method="X" * 40), 501, 400)]
        self.judge(rows)
        for method in ("TRACE", "BREW"):
            answers, _ = self.talk(self.get(self.CLOSE, ("X-Secret", "echo-me"), method=method, target=path + "?echo-me"))
            self.assertEqual([a.status for a in answers], [501])
            self.assertNotIn(b"echo-me", answers[0].raw)
        for target in ("/<script>alert(1)</script>", "/\x1b[31m"):
            for answer in self.talk(self.get(self.CLOSE, target=target))[0]:
                self.assertNotIn(target[1:].encode(), answer.raw)

    def test_framing_that_two_could_read_in_two_ways_POL_WEB_10(self):
        """Each is followed by a whole request that opens a port; it must not be one."""
        port = self.port()
        follows = self.post(body=self.add_body(port), action="AddPortMapping")
        body = upnp.envelope(self.wan().type, "GetExternalIPAddress")
        size, chunks = str(len(body)), f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        te, cl = ("Transfer-Encoding", "chunked"), ("Content-Length", size)
        rows = [(f"Content-Length {v!r}", [("Content-Length", v)], body) for v in (
            "-1", "+" + size, "0x10", "1e2", size + "," + size, size + " " + size, "", "abc", size + ".0", "\xb2")]
        rows += [("two lengths", [cl, ("Content-Length", "0")], body), ("the same twice", [cl, cl], body),
                 ("both framings", [te, cl], chunks), ("both the other way", [("Content-Length", "0"), te], chunks),
                 ("chunked twice", [te, te], chunks), ("identity", [("Transfer-Encoding", "identity")], chunks),
                 ("gzip, chunked", [("Transfer-Encoding", "gzip, chunked")], chunks),
                 ("chunked, identity", [("Transfer-Encoding", "chunked, identity")], chunks),
                 ("xchunked", [("Transfer-Encoding", "xchunked")], chunks), ("chunked;x", [("Transfer-Encoding", '"chunked"')], chunks),
                 ("a blank before the colon", [("Transfer-Encoding ", "chunked"), cl], body),
                 ("a folded field", [cl, ("X", "1\r\n Transfer-Encoding: chunked")], body),
                 ("a bare CR", [cl, ("X", "1\rTransfer-Encoding: chunked")], body),
                 ("NUL", [cl, ("X", "1\0")], body), ("a field without a colon", [cl, ("X\r\nnonsense", "1")], body),
                 ("no length at all", [], body)]
        rows += [(f"chunk size {v!r}", [te], v + b"\r\n" + body + b"\r\n0\r\n\r\n") for v in (
            b"-1", b"+1", b"0x10", b"", b" ", b"1 1", b"g", b"123456789", b"fffffffff", b"1\n", b"\x00")]
        rows += [("data beyond its chunk", [te], b"1\r\nxyz\r\n0\r\n\r\n"), ("a chunk ended by LF", [te], b"1\r\nx\n0\r\n\r\n"),
                 ("a broken trailer", [te], b"0\r\nnonsense\r\n\r\n")]
        before = self.explicit()
        for what, fields, data in rows:
            with self.subTest(what):
                answers, closed = self.talk(self.post(*fields, body=data, length=False) + follows)
                self.assertEqual(len(answers), 1, answers)
                self.assertIn(answers[0].status, (400, 411, 413, 501))
                self.assertTrue(closed)
                self.assertEqual(self.explicit(), before)
        # and what is sound is read as one request, in any pieces, with the next behind it
        for fields, data in (([cl], body), ([te], chunks), ([("Transfer-Encoding", "Chunked")], f"{len(body):08X};x=\"y\"\r\n".encode() +
                                                             body + b"\r\n000\r\nTrailer: Content-Length\r\n\r\n")):
            request = self.post(*fields, body=data, length=False)
            with self.lab.device1.connect(HTTP, (DEVICE1, 0)) as sock:
                reader = upnp.Reader(sock)
                sock.sendall(b"\r\n" + request + request)
                self.assertEqual([reader.message().status, reader.message().status], [200, 200])
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for n in range(len(request)):
                    sock.sendall(request[n:n + 1])
                self.assertEqual(reader.message().status, 200)
        self.is_well()

    def test_what_is_not_HTTP_1_POL_WEB_11(self):
        hello = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
        rows = [("TLS", hello), ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ("zeros", b"\0" * 64), ("noise", b"\xff\xfe\x80" * 30),
                ("HTTP/2.0", self.get(version="2.0")), ("HTTP/0.9", b"GET /\r\n"), ("HTTP/1", b"GET / HTTP/1\r\n\r\n"),
                ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"), ("an answer", b"HTTP/1.1 200 OK\r\n\r\n"), ("SMB", b"\0\0\0\x85\xffSMBr" + b"\0" * 100),
                ("two blanks", b"GET  / HTTP/1.1\r\n\r\n"), ("a tab", b"GET\t/ HTTP/1.1\r\n\r\n"), ("lower case", b"GET / http/1.1\r\n\r\n")]
        for what, data in rows:
            with self.subTest(what):
                answers, closed = self.talk(data, timeout=3)  # at once, not when the head's time is over
                self.assertTrue(closed)
                self.assertEqual([a.status for a in answers if a.status not in (400, 501, 505)], [])
        wan = self.wan()
        for soap in ("", '""', "#", f'"{wan.type}"', f'"{wan.type}#"', '"#AddPortMapping"', f'"{wan.type}#Add#Port"', f'"{wan.type}#A',
                     f'"{wan.type} #GetExternalIPAddress"', '"' * 9, "x" * 3000):
            with self.subTest(soap[:60]):
                body = upnp.envelope(wan.type, "GetExternalIPAddress")
                data = self.get(("SOAPAction", soap), ("Content-Length", len(body)), self.CLOSE, target=wan.control.target, method="POST", body=body)
                self.assertIn(self.statuses(data), ([400], [500]))
        double = self.post(("SOAPAction", f'"{wan.type}#AddPortMapping"'), self.CLOSE)
        self.assertEqual(self.statuses(double), [400])
        self.is_well()

    def test_requests_in_a_row_are_answered_in_their_order_POL_WEB_03(self):
        requests = [self.post() if n % 2 else self.get(target=f"/{n}") for n in range(40)]
        with self.lab.device1.connect(HTTP, (DEVICE1, 0)) as sock:
            sock.sendall(b"".join(requests))
            reader = upnp.Reader(sock)
            self.assertEqual([reader.message().status for _ in requests], [200 if n % 2 else 404 for n in range(40)])

    def test_a_client_that_has_said_all_is_answered(self):
        self.assertEqual(self.statuses(self.post(), end=True), [200])
        for cut in (1, 10, 100, 300):  # and one that hangs up amid its request is forgotten
            self.talk(self.post()[:cut], end=True)
        self.is_well()

    def test_the_WAN_and_strangers_have_no_HTTP_HTTP_14_POL_WHO_01_03(self):
        for to in ((EXTERNAL, 5000), HTTP):
            for source in (PEER, FAR):
                with self.assertRaises(TimeoutError):
                    self.lab.internet.connect(to, (source, 0), timeout=0.4)
        with self.assertRaises(TimeoutError):  # a LAN device that asks the external address
            self.lab.device1.connect((EXTERNAL, 5000), (DEVICE1, 0), timeout=0.4)
        self.lab.device2.ip("addr", "add", "10.66.0.2/24", "dev", "eth0")
        self.lab.gateway.ip("route", "add", "10.66.1.0/24", "dev", "wan0")
        sniffer = self.sniff(self.lab.gateway, "br0")
        for source in ("10.66.1.2", FAR, LAN, "192.168.50.255", "127.0.0.1"):
            self.lab.device2.send_frame("eth0", self.lab.gateway.mac("br0"), wire.tcp(source, 4321, LAN, 5000, wire.SYN))
        self.is_well()
        self.assertEqual([vars(p) for p in sniffer.all(lambda p: p.sport == 5000 and p.dport == 4321 and p.data)], [])


class Soap(AttackCase):
    def judged(self, rows):
        """(what, body, fault codes or statuses it may have): nothing is done."""
        before = self.explicit()
        wan = self.wan()
        for what, body, *allowed in rows:
            with self.subTest(what):
                answer = wan.raw("AddPortMapping", body=body)
                self.assertIsNotNone(answer)
                outcome = answer.status
                if answer.status == 500:
                    with self.assertRaises(upnp.UpnpError) as caught:
                        upnp.parse_soap(answer)
                    outcome = caught.exception.code
                self.assertIn(outcome, allowed)
                self.assertEqual(self.explicit(), before)
        self.is_well()

    def body(self, inner=None, before=b"", old=b"", new=b"", **kw):
        wan = self.wan()
        return before + upnp.envelope(wan.type, "AddPortMapping", wan.mapping_args(self.p, **kw), inner=inner).replace(old, new)

    def setUp(self):
        self.p = self.port()

    def test_a_document_type_and_what_is_deep_or_broad_POL_XML_01_02(self):
        bomb = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
        declared = lambda text, value="&a9;": self.body(description="@").replace(b'<?xml version="1.0"?>', b'<?xml version="1.0"?>' + text.encode()
                                                                         ).replace(b"@", value.encode())
        self.judged([
            ("an entity bomb", declared(f'<!DOCTYPE x [<!ENTITY a0 "lol">{bomb}]>'), 400, 402),
            ("an entity of a file", declared('<!DOCTYPE x [<!ENTITY a9 SYSTEM "file:///etc/passwd">]>'), 400, 402),
            ("a fetched document type", declared(f'<!DOCTYPE x SYSTEM "http://{DEVICE2}/x.dtd">', "x"), 400, 402),
            ("a plain one", declared("<!DOCTYPE x>", "x"), 400, 402), ("lower case", declared("<!doctype x>", "x"), 400, 402),
            ("an entity nobody declared", self.body(description="@", old=b"@", new=b"&nbsp;"), 400, 402),
            ("33 levels", self.body(description="@", old=b"@", new=b"<a>" * 30 + b"</a>" * 30), 400, 402),
            ("20,000 levels", b"<a>" * 20000, 400, 402), ("20,000 levels, closed", b"<a>" * 9000 + b"</a>" * 9000, 400, 402),
            ("65 attributes", self.body(old=b"<u:AddPortMapping ", new=b"<u:AddPortMapping " + b" ".join(b'a%d="1"' % n for n in range(65)) + b" "), 400, 402),
            ("a name of 257", self.body(old=b"</u:AddPortMapping>", new=b"<" + b"n" * 257 + b"/></u:AddPortMapping>"), 400, 402),
            ("an attribute twice", self.body(old=b"<s:Body>", new=b'<s:Body a="1" a="2">'), 400, 402),
            ("nothing", b"", 400, 402), ("blanks", b" " * 1000, 400, 402), ("no XML", b"hello", 400, 402), ("a tag", b"<", 400, 402),
            ("a cut body", self.body()[:-20], 400, 402), ("something behind it", self.body() + b"<x/>", 400, 402),
            ("text behind it", self.body() + b"x", 400, 402), ("two documents", self.body() * 2, 400, 402),
            ("an endless comment", self.body() + b"<!-- ", 400, 402), ("an endless CDATA", self.body(description="@", old=b"@", new=b"<![CDATA["), 400, 402)])

    def test_a_name_space_that_is_not_bound_or_another(self):
        wan = self.wan()
        self.judged([("prefix unbound", self.body(old=b"<u:Add", new=b"<w:Add"), 400, 401, 402),
                     ("SOAP 1.2", self.body(old=upnp.SOAP_NS.encode(), new=b"http://www.w3.org/2003/05/soap-envelope"), 400, 402),
                     ("another service", self.body(old=wan.type.encode(), new=upnp.WAN_COMMON.encode() + b"1"), 401),
                     ("another version", self.body(old=wan.type.encode(), new=upnp.WANIP.encode() + b"1"), 401),
                     ("another action", self.body(old=b"AddPortMapping", new=b"AddAnyPortMapping"), 401),
                     ("another action that exists", upnp.envelope(wan.type, "GetExternalIPAddress"), 401)])
        for soap in (f'"{upnp.WAN_COMMON}1#AddPortMapping"', f'"{upnp.WANIP}3#AddPortMapping"', f'"{upnp.WANIP}0#AddPortMapping"',
                     f'"{wan.type}#addportmapping"', f'"{wan.type}#QueryStateVariable"', f'"{wan.type}#X{"x" * 2000}"'):
            with self.assertRaises(upnp.UpnpError) as caught:
                upnp.parse_soap(wan.raw("AddPortMapping", wan.mapping_args(self.p), soap_action=soap))
            self.assertEqual(caught.exception.code, 401, soap[:80])
        self.assertEqual(self.explicit(), [])

    def test_each_argument_once_as_text_POL_XML_03(self):
        client = f"<NewInternalClient>{DEVICE1}</NewInternalClient>".encode()
        other = client.replace(DEVICE1.encode(), DEVICE2.encode())
        twice = lambda new: self.body(old=client, new=new)
        self.judged([("twice", twice(client + other), 402), ("the other first", twice(other + client), 402),
                     ("twice the same", twice(client * 2), 402),
                     ("with another prefix", twice(client + b'<x:NewInternalClient xmlns:x="urn:x">' + DEVICE2.encode() + b"</x:NewInternalClient>"), 402),
                     ("an element inside", twice(client.replace(b"192.", b"192.<b/>")), 402),
                     ("hidden one below", twice(b"<wrap>" + client + b"</wrap>"), 402),
                     ("an attribute instead", twice(f'<NewInternalClient value="{DEVICE1}"/>'.encode()), 402),
                     ("two actions", self.body(old=b"</s:Body>", new=b'<u:AddPortMapping xmlns:u="x"/></s:Body>'), 402, 400),
                     ("two bodies", self.body(old=b"</s:Body>", new=b"</s:Body><s:Body/>"), 400, 402),
                     ("no action", self.body(old=b"", new=b"")[:0] + upnp.envelope("x", "y").replace(b'<u:y xmlns:u="x"></u:y>', b""), 400, 402),
                     ("in CDATA, another's", twice(b"<NewInternalClient><![CDATA[" + DEVICE2.encode() + b"]]></NewInternalClient>"), 606),
                     ("by references, another's", twice(b"<NewInternalClient>" + b"".join(b"&#%d;" % c for c in DEVICE2.encode()) + b"</NewInternalClient>"), 606),
                     ("by a comment, another's", twice(other.replace(b".12", b".1<!-- 1 -->2")), 606)])

    def test_what_is_judged_is_what_is_stored_POL_XML_05(self):
        wan, ports = self.wan(), [self.port() for _ in range(3)]
        client = f"<NewInternalClient>{DEVICE1}</NewInternalClient>"
        for port, written in zip(ports, (f"<![CDATA[{DEVICE1}]]>", "".join(f"&#x{ord(c):x};" for c in DEVICE1), "192.168.50.1<!-- 2 -->1")):
            inner = upnp.arguments_xml(wan.mapping_args(port)).replace(client, f"<NewInternalClient>{written}</NewInternalClient>")
            wan.call("AddPortMapping", inner=inner)
            self.assertEqual(self.lease("tcp", port)["internal"], {"address": DEVICE1, "port": port})
            self.assertEqual(wan.mapping(port)["NewInternalClient"], DEVICE1)
            wan.delete(port)

    def test_encodings_POL_XML_06(self):
        text = self.body()
        self.judged([("UTF-16", b"\xff\xfe" + text.decode().encode("utf-16-le"), 400, 402), ("UTF-16 without a mark", text.decode().encode("utf-16-be"), 400, 402),
                     ("UTF-32", text.decode().encode("utf-32"), 400, 402),
                     ("NUL", self.body(description="a@b", old=b"@", new=b"\0"), 400, 402), ("NUL by reference", self.body(description="a@b", old=b"@", new=b"&#0;"), 400, 402),
                     ("a forbidden reference", self.body(description="a@b", old=b"@", new=b"&#x1b;"), 400, 402),
                     ("a surrogate", self.body(description="a@b", old=b"@", new=b"&#xd800;"), 400, 402),
                     ("a reference beyond Unicode", self.body(description="a@b", old=b"@", new=b"&#x110000;"), 400, 402),
                     ("an endless reference", self.body(description="a@b", old=b"@", new=b"&#x" + b"0" * 9000 + b"41"), 400, 402),
                     ("declared UTF-7", self.body(old=b'version="1.0"', new=b'version="1.0" encoding="UTF-7"'), 400, 402),
                     ("declared UTF-16", self.body(old=b'version="1.0"', new=b'version="1.0" encoding="UTF-16"'), 400, 402)])
        wan, port = self.wan(), self.p
        for bad in (b"\xe9t\xe9", b"\xc0\xbc", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\xff"):
            answer = wan.raw("AddPortMapping", body=self.body(description="@", old=b"@", new=bad))
            self.assertEqual(answer.status, 200, bad)
            kept = wan.mapping(port)["NewPortMappingDescription"]
            self.assertIn("\ufffd", kept)
        self.assertEqual(wan.raw("AddPortMapping", body=b"\xef\xbb\xbf" + self.body()).status, 200)  # a byte order mark (UDA-3-22)
        wan.delete(port)

    def test_logs_and_lists_hold_one_line_each_POL_TXT_02_04(self):
        wan, port = self.wan(), self.p
        wan.call("AddPortMapping", inner=upnp.arguments_xml(wan.mapping_args(port, description="@")).replace(
            "@", "a&#10;2026-01-01 info: forged&#13;&#9;\u202etxt\u2028&#x9b;31m"))
        self.talk(f"GET /\x1b[31m{'%0a'} HTTP/1.1\r\nHost: x\x1b[2J\r\n\r\n".encode())
        kept = wan.mapping(port)["NewPortMappingDescription"]
        self.assertEqual(kept, "a 2026-01-01 info: forged   txt  31m")
        self.assertFalse([line for line in self.daemon.log().splitlines() if line.startswith("2026-01-01 info: forged")])
        self.assertNotIn("\x1b", self.daemon.log())
        out = self.cli("list").stdout
        self.assertFalse([c for c in out if ord(c) < 32 and c != "\n"])
        wan.delete(port)


class Events(AttackCase):
    def test_callbacks_that_lead_elsewhere_are_refused_and_none_is_dialled_POL_EVT_01(self):
        wan, own = self.wan(), self.listener()
        good, v6 = own.url(), "[fe80::1]"
        bad = [f"<http://{h}/>" for h in (
            DEVICE2, DEVICE2 + ":80", LAN, LAN + ":5000", EXTERNAL, FAR, PEER, "127.0.0.1", "localhost", "0.0.0.0", "255.255.255.255",
            "192.168.50.255", "224.0.0.1", "239.255.255.250:1900", "169.254.1.1", "device1", "evil.example", f"user@{DEVICE1}",
            f"{DEVICE1}@evil.example", f"{DEVICE1}.evil.example", "0xc0a8320b", "3232248331", "192.168.50.011", "192.168.12811",
            f"[::ffff:{DEVICE1}]", v6, "[::1]", DEVICE1 + ":0", DEVICE1 + ":65536", DEVICE1 + ":x", DEVICE1 + ":-1", f"{DEVICE1} ", "", ":80",
            f"{DEVICE1}:7 HTTP/1.1")]
        bad += ["", "<>", "<http://>", good, f"<{good}", f"{good}>", f"<https://{DEVICE1}:7/>", f"<ftp://{DEVICE1}/>", f"<//{DEVICE1}/>",
                f"<http:/{DEVICE1}/>", f"<file:///etc/passwd>", f"<{good}a b>", f"<{good}\t>", f"<{good}\x7f>", f"<{good}é>", f"<<{good}>",
                f"<{good}><http://{DEVICE2}/>", f"<http://{FAR}/><{good}>", f"<{good}>" * 5, f"<{good}{'p' * 1024}>", f"<{good}> x", f"<{good}>,<{good}>"]
        sniffers = [self.sniff(self.lab.internet, "eth0"), self.sniff(self.lab.device2, "eth0"), self.sniff(self.lab.device1, "eth0"),
                    self.sniff(self.lab.gateway, "lo")]
        for callback in bad:
            answer = wan.subscribe(None, callback=callback)
            self.assertIn(answer.status if answer else None, (400, 412) if "\x7f" in callback else (412,), callback)
        for pairs in ([("CALLBACK", f"<{good}>")], [("CALLBACK", f"<http://{FAR}/>")]):
            self.assertEqual(wan.subscribe(own, pairs=pairs).status, 412)  # two fields
        for nt in (None, "", "upnp:other", "upnp:event2"):
            self.assertEqual(wan.subscribe(own, nt=nt).status, 412)
        self.assertEqual(wan.subscribe(own, pairs=[("SID", "uuid:1")]).status, 400)
        sid = wan.subscribe(own)["sid"]
        own.wait("the first event of the one that was fine")
        wan.add(self.port())
        own.wait("the next", lambda e: e.seq == 1)
        dialled = [f"{p.source}:{p.sport} -> {p.destination}:{p.dport}" for s in sniffers
                   for p in s.all(lambda p: p.protocol == wire.TCP and p.flags & wire.SYN and not p.flags & wire.ACK and p.source in (LAN, EXTERNAL))]
        self.assertEqual({d.rpartition(" ")[2] for d in dialled}, {f"{DEVICE1}:{own.port}"})
        wan.unsubscribe(sid)

    def test_a_subscription_is_of_one_device_and_has_a_whole_name_POL_EVT_02(self):
        mine, theirs, listener = self.wan(1), self.wan(2), self.listener()
        sid = mine.subscribe(listener)["sid"]
        other = "uuid:" + sid[5:].replace(sid[5], "0" if sid[5] != "0" else "1", 1)
        for name in (other, sid[:-1], sid + "0", sid[5:], "uuid:", "", sid.upper(), sid + "," + sid, f" {sid} x", "*", "uuid:" + "0" * 5000):
            self.assertEqual(mine.renew(name).status, 412, name[:60])
            self.assertEqual(mine.unsubscribe(name).status, 412, name[:60])
        self.assertEqual((theirs.renew(sid).status, theirs.unsubscribe(sid).status), (412, 412))
        common = self.gateway().service(upnp.WAN_COMMON)
        self.assertEqual((common.renew(sid).status, common.unsubscribe(sid).status), (412, 412))
        for pairs in ([("NT", "upnp:event")], [("CALLBACK", f"<{listener.url()}>")]):
            self.assertEqual((mine.renew(sid, pairs=pairs).status, mine.unsubscribe(sid, pairs).status), (400, 400))
        self.assertEqual(mine.unsubscribe(None).status, 412)
        self.assertEqual((mine.renew(sid).status, mine.unsubscribe(sid).status), (200, 200))

    def test_times_POL_EVT_03(self):
        wan, listener = self.wan(), self.listener()
        for asked, granted in (("Second-5", 5), ("Second-86400", 86400), ("Second-86401", 86400), ("Second-" + "9" * 50, 86400), ("second-77", 77),
                               ("Second-4", 1800), ("Second-0", 1800), ("Second--1", 1800), ("infinite", 1800), ("Second-infinite", 1800),
                               ("Second-5x", 1800), ("1800", 1800), ("", 1800), (None, 1800)):
            answer = wan.subscribe(listener, asked)
            self.assertEqual((answer.status, answer.get("timeout")), (200, f"Second-{granted}"), asked)
            self.assertEqual(wan.unsubscribe(answer["sid"]).status, 200)

    def test_a_subscription_that_ran_out_is_told_nothing_UDA_4_23(self):
        wan, short, long = self.wan(), self.listener(), self.listener()
        sid, other = wan.subscribe(short, "Second-5")["sid"], wan.subscribe(long)["sid"]
        for listener in (short, long):
            listener.wait("the first event")
        wait_until("it is over", lambda: wan.renew(other).status == 200 and time.monotonic() > short.events()[0].at + 5.1)
        wan.add(self.port())
        long.wait("a new entry", lambda e: e.seq == 1)
        self.assertEqual((len(short.events()), wan.renew(sid).status), (1, 412))
        wan.unsubscribe(other)

    def test_a_device_has_eight_subscriptions_and_others_theirs_POL_QTA_09(self):
        mine, theirs, listener, other = self.wan(1), self.wan(2), self.listener(1), self.listener(2)
        sids = [mine.subscribe(listener, "Second-60")["sid"] for _ in range(8)]
        self.assertEqual(len(set(sids)), 8)
        self.assertEqual(mine.subscribe(listener).status, 503)
        self.assertEqual(mine.renew(sids[0], "Second-60").status, 200)
        there = theirs.subscribe(other)
        self.assertEqual(there.status, 200)
        self.assertEqual(mine.unsubscribe(sids.pop()).status, 200)
        sids.append(mine.subscribe(listener)["sid"])
        for service, names in ((mine, sids), (theirs, [there["sid"]])):
            for sid in names:
                self.assertEqual(service.unsubscribe(sid).status, 200)

    def test_a_stalled_subscriber_holds_up_nobody_POL_EVT_04_UDA_4_22(self):
        stalled = [self.listener(2, answers=False) for _ in range(4)]
        lost = self.lab.device2.listen(DEVICE2)  # accepts, reads nothing, answers nothing
        self.addCleanup(lost.close)
        theirs, mine, listener = self.wan(2), self.wan(1), self.listener(1)
        sids = [theirs.subscribe(each, "Second-300")["sid"] for each in stalled]
        sids.append(theirs.subscribe(None, "Second-300", callback=f"<http://{DEVICE2}:{lost.getsockname()[1]}/>")["sid"])
        sids.append(theirs.subscribe(None, "Second-300", callback=f"<http://{DEVICE2}:9/>")["sid"])  # nobody there
        for each in stalled:
            each.wait("the first event, which is not answered")
        own = mine.subscribe(listener)["sid"]
        listener.wait("the first event")
        for n in range(1, 6):
            mine.add(self.port())
            listener.wait(f"event {n}", lambda e: e.seq >= n)
            time.sleep(0.25)
        self.assertEqual([e.seq for e in listener.events()], list(range(len(listener.events()))))
        for each in stalled:
            self.assertEqual(len(each.events()), 1)  # one connection, one event at a time
        # once it answers, what has waited comes in order
        stalled[0].answers = True
        last = stalled[0].wait("what waited", lambda e: e.values and e.values.get("SystemUpdateID") == listener.events()[-1].values["SystemUpdateID"])
        seqs = [e.seq for e in stalled[0].events()]
        self.assertEqual(seqs, list(range(last.seq + 1)))
        for sid in sids:
            self.assertEqual(theirs.unsubscribe(sid).status, 200)
        mine.unsubscribe(own)

    def test_answers_to_events_lead_nowhere_and_cost_little_POL_EVT_05(self):
        wan, target = self.wan(), self.listener()
        answers = {"a redirect": f"HTTP/1.1 302 Found\r\nLocation: {target.url()}\r\nContent-Length: 0\r\n\r\n".encode(),
                   "endless fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200000, "an endless body": b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 1000000,
                   "no HTTP": b"\0\1\2\3" * 4000, "nothing": b"", "an error": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"}
        for what, answer in answers.items():
            with self.subTest(what), self.lab.device1.listen(DEVICE1) as sock:
                sid = wan.subscribe(None, callback=f"<http://{DEVICE1}:{sock.getsockname()[1]}/>")["sid"]
                for seq in range(2):  # the subscription lives on, whatever was answered
                    conn, _ = sock.accept()
                    with conn:
                        conn.settimeout(lab_module.PATIENCE)
                        self.assertEqual(upnp.Reader(conn).message(request=True)["seq"], str(seq))
                        with contextlib.suppress(OSError):
                            conn.sendall(answer)
                    if seq == 0:
                        wan.add(self.port())
                self.assertEqual(wan.unsubscribe(sid).status, 200)
        self.assertEqual(target.events(), [])
        self.is_well()


class Times(AttackCase):
    config = {**UpnpCase.config, "limits": {"http_head_timeout": 1, "http_request_timeout": 3, "http_idle_timeout": 2}}

    def ends(self, sock, every=None, data=b"x"):
        """How long until the gateway hangs up, though octets trickle."""
        began = time.monotonic()
        sock.settimeout(every or lab_module.PATIENCE)
        while time.monotonic() - began < lab_module.PATIENCE:
            try:
                if sock.recv(4096) == b"":
                    return time.monotonic() - began
            except TimeoutError:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(data)
            except ConnectionError:
                return time.monotonic() - began
        self.fail("the gateway never hung up")

    def test_slow_clients_are_hung_up_on_and_trickling_buys_no_time_POL_WEB_02(self):
        wan = self.wan()
        request = upnp.soap_request(wan.control, wan.type, "GetExternalIPAddress", pairs=[("SOAPAction", f'"{wan.type}#GetExternalIPAddress"')])
        with contextlib.ExitStack() as stack:
            silent, head, fields, body, idle = (stack.enter_context(self.lab.device1.connect(HTTP, (DEVICE1, 0))) for _ in range(5))
            head.sendall(b"G")
            fields.sendall(b"GET / HTTP/1.1\r\nHost: 192.168.50.1\r\n")
            body.sendall(request[:-50])
            idle.sendall(request)
            self.assertEqual(upnp.Reader(idle).message().status, 200)
            took, threads = {}, []
            for name, sock, every, data in (("silent", silent, None, b""), ("head", head, 0.2, b"E"), ("fields", fields, 0.2, b"X: 1\r\n"),
                                            ("body", body, 0.2, b" "), ("idle", idle, None, b"")):
                threads.append(threading.Thread(target=lambda n=name, a=(sock, every, data): took.__setitem__(n, self.ends(*a))))
                threads[-1].start()
            for thread in threads:
                thread.join()
        self.assertEqual(set(took), {"silent", "head", "fields", "body", "idle"})
        for name, least in (("silent", 0.9), ("head", 0.8), ("fields", 0.8), ("body", 2.5), ("idle", 1.5)):
            self.assertGreater(took[name], least, name)
        self.is_well()


class Connections(AttackCase):
    def asks(self, count=40):
        """One after the other, by each protocol: each is answered."""
        wan, client = self.wan(), self.client()
        for n in range(count):
            self.assertEqual(wan.call("GetExternalIPAddress"), {"NewExternalIPAddress": EXTERNAL}, n)
            self.assertEqual(client.natpmp_address().address, EXTERNAL)
        port = self.port()
        wan.add(port)
        self.assertEqual(wan.mapping(port)["NewInternalClient"], DEVICE1)
        wan.delete(port)

    def test_a_thousand_idle_connections_and_a_hundred_trickling_ones_POL_FAIR_01_POL_QTA_08(self):
        wan, listener = self.wan(), self.listener()
        wan.subscribe(listener)
        listener.wait("the first event")
        self.asks(5)
        before, rss = self.descriptors(), self.daemon.rss_kib()
        idle, trickling = self.addresses(2, 100, 125), self.addresses(2, 30, 13)
        stop, trickled, socks, slow = threading.Event(), [0], [], []

        def trickle():
            while not stop.wait(0.02):
                for sock in slow:
                    with contextlib.suppress(OSError):
                        sock.send(b"X")
                        trickled[0] += 1

        thread = threading.Thread(target=trickle, daemon=True)
        try:
            for address in idle:
                for _ in range(8):
                    socks.append(self.lab.device2.connect(HTTP, (address, 0)))
            for n in range(100):
                slow.append(self.lab.device2.connect(HTTP, (trickling[n % 13], 0)))
                slow[-1].sendall(b"GET / HTTP/1.1\r\nX")
            thread.start()
            self.assertEqual((len(socks), len(slow)), (1000, 100))
            wait_until("they trickle", lambda: trickled[0] > 200)
            self.asks()
            seen = len(listener.events())
            wan.add(self.port())
            wait_until("an event amid it", lambda: len(listener.events()) > seen)
            self.assertGreater(trickled[0], 300)
            self.assertLessEqual(self.descriptors(), before + 520)
            if not sanitized(self.lab):
                self.assertLess(self.daemon.rss_kib() - rss, 16 * 1024)
        finally:
            stop.set()
            with contextlib.suppress(RuntimeError):
                thread.join()
            for sock in socks + slow:
                sock.close()
        wait_until("descriptors are back", lambda: self.descriptors() <= before + 2)
        self.asks(5)

    def test_the_ninth_connection_of_a_device_is_closed_at_once_POL_WEB_04(self):
        request = upnp.request("GET", self.gateway(2).location)
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(self.lab.device2.connect(HTTP, (DEVICE2, 0))) for _ in range(8)]
            for sock in socks:  # each is there when it is answered
                sock.sendall(request)
                self.assertEqual(upnp.Reader(sock).message().status, 200)
            for _ in range(3):
                self.assertEqual(self.talk(b"", DEVICE2, 2), ([], True))
            self.assertEqual(upnp.get(self.lab.device1, self.gateway().location, DEVICE1).status, 200)
            for sock in socks:
                sock.sendall(request)
                self.assertEqual(upnp.Reader(sock).message().status, 200)
            socks[3].close()
            again = stack.enter_context(self.lab.device2.connect(HTTP, (DEVICE2, 0)))
            again.sendall(request)
            self.assertEqual(upnp.Reader(again).message().status, 200)

    def test_clients_that_do_not_read_long_lists_POL_WEB_03_POL_FAIR_05(self):
        wan, theirs = self.wan(), self.wan(2)
        args = [("NewStartPort", 1), ("NewEndPort", 65535), ("NewProtocol", "UDP"), ("NewManage", 1), ("NewNumberOfPorts", 0)]
        request = upnp.soap_request(theirs.control, theirs.type, "GetListOfPortMappings", args,
                                    pairs=[("SOAPAction", f'"{theirs.type}#GetListOfPortMappings"')])
        with self.many_leases(1000), contextlib.ExitStack() as stack:
            whole = upnp.xml.fromstring(wan.call("GetListOfPortMappings", args)["NewPortListing"])
            self.assertEqual(len(whole), 1001)
            rss = self.daemon.rss_kib()
            socks = []
            for _ in range(8):
                sock = self.lab.device2.socket(socket.AF_INET, socket.SOCK_STREAM)
                stack.enter_context(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.bind((DEVICE2, 0))
                sock.settimeout(lab_module.PATIENCE)
                sock.connect(HTTP)
                sock.sendall(request * 30)  # eight megabytes of answers
                socks.append(sock)
            self.asks(20)
            if not sanitized(self.lab):
                self.assertLess(self.daemon.rss_kib() - rss, 8 * 128 + 1024)
            reader = upnp.Reader(socks[0])  # and who reads after all gets it whole
            for _ in range(3):
                listing = upnp.xml.fromstring(upnp.parse_soap(reader.message())["NewPortListing"])
                self.assertEqual(len(listing), 1001)
            socks[1].sendall(b"")
        self.is_well()

    def test_half_open_connections_leave_the_port_to_others_POL_FAIR_02(self):
        mac, sent = self.lab.gateway.mac("br0"), 0
        raw = self.lab.device2.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with raw:
            raw.bind(("eth0", 0))
            head = lab_module.mac_bytes(mac) + lab_module.mac_bytes(self.lab.device2.mac("eth0")) + b"\x08\x00"
            for n in range(3000):  # of hosts that are not there
                raw.send(head + wire.tcp(f"192.168.50.{60 + n % 30}", 1024 + n, LAN, 5000, wire.SYN, seq=n))
                sent += 1
                if n % 500 == 499:
                    self.asks(3)
        self.assertEqual(sent, 3000)
        self.asks(10)

    def test_one_device_cannot_have_all_turns_POL_FAIR_01(self):
        theirs, stop, answered = self.wan(2), threading.Event(), [0]
        request = upnp.soap_request(theirs.control, theirs.type, "GetExternalIPAddress",
                                    pairs=[("SOAPAction", f'"{theirs.type}#GetExternalIPAddress"')])

        def flood():
            with contextlib.suppress(OSError), self.lab.device2.connect(HTTP, (DEVICE2, 0)) as sock:
                reader = upnp.Reader(sock)
                while not stop.is_set():
                    sock.sendall(request * 50)
                    for _ in range(50):
                        reader.message()
                        answered[0] += 1

        threads = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            self.asks(30)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(answered[0], 50)  # above its rate it waits; it is not refused


class Descriptors(AttackCase):
    def ticks(self):
        with open(f"/proc/{self.daemon.pid}/stat") as file:
            return sum(int(x) for x in file.read().rpartition(")")[2].split()[11:13])

    def test_out_of_descriptors_it_goes_on_and_heals_POL_WEB_04_POL_FAIR_07(self):
        wan, listener, client = self.wan(), self.listener(), self.client()
        wan.subscribe(listener)
        listener.wait("the first event")
        before = self.descriptors()
        limits = resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (before + 12, limits[1]))
        socks = []
        try:
            for address in self.addresses(2, 100, 6):
                for _ in range(8):
                    socks.append(self.lab.device2.connect(HTTP, (address, 0)))
            wait_until("there is no descriptor left", lambda: self.descriptors() >= before + 11)
            began, used = time.monotonic(), self.ticks()
            for _ in range(10):
                self.assertEqual(client.natpmp_address().address, EXTERNAL)
                port = self.port()
                self.assertEqual(client.natpmp("udp", port, port).external, port)
                time.sleep(0.1)
            busy = (self.ticks() - used) / os.sysconf("SC_CLK_TCK")
            self.assertLess(busy, (time.monotonic() - began) / 2, "it spins")
            self.assertTrue(self.daemon.running())
        finally:
            for sock in socks:
                sock.close()
        # still with few descriptors, but none is taken any more
        wait_until("it answers again", lambda: upnp.get(self.lab.device1, self.gateway().location, DEVICE1))
        self.is_well()
        wan.add(self.port())
        listener.wait("and events come again", lambda e: e.seq > 0 and int(e.values["PortMappingNumberOfEntries"]) >= 11, 20)
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, limits)
        wait_until("descriptors are back", lambda: self.descriptors() <= before + 2)


class Searches(AttackCase):
    def test_a_flood_of_searches_leaves_others_theirs_and_amplifies_little_POL_DSC_01_POL_QTA_10(self):
        kind, count = upnp.msearch("ssdp:all"), 1500
        invented = [f"192.168.50.{n}" for n in range(60, 90)]
        sniffer = self.sniff(self.lab.gateway, "br0")
        sent, found, gateway_mac = 0, 0, self.lab.gateway.mac("br0")
        with upnp.ssdp_socket(self.lab.device2, DEVICE2) as sock:
            for n in range(count):
                sock.sendto(kind, upnp.GROUP if n % 2 else (LAN, 1900))
                if n % 10 == 0:
                    source = invented[n // 10 % len(invented)]
                    self.lab.device2.send_frame("eth0", gateway_mac, wire.udp(source, 5555, LAN, 1900, kind))
                if n % 250 == 0:
                    found += len(upnp.search(self.lab.device1, DEVICE1, upnp.IGD + "1", enough=1)) == 1
            time.sleep(1.2)
        self.assertGreaterEqual(found, 3)  # one of two
        of = lambda wanted: sum(len(raw) for _, raw in sniffer.packets() if (p := wire.parse(raw)) and p.protocol == wire.UDP and wanted(p))
        asked, told = of(lambda p: p.source == DEVICE2 and p.dport == 1900), of(lambda p: p.destination == DEVICE2 and p.sport == 1900)
        self.assertGreater(asked, count * 100)
        self.assertGreater(told, 0)
        self.assertLess(told, 10 * asked)
        answers = len(sniffer.all(lambda p: p.destination == DEVICE2 and p.sport == 1900))
        self.assertLess(answers, count, "more answers than searches")
        self.assertEqual(len(upnp.search(self.lab.device1, DEVICE1, upnp.ROOT_DEVICE, enough=1)), 1)

    def test_a_burst_is_answered_with_less_than_ten_times_its_octets_POL_DSC_01(self):
        source, = self.addresses(2, 95, 1)
        sniffer = self.sniff(self.lab.gateway, "br0")
        with upnp.ssdp_socket(self.lab.device2, source) as sock:
            for _ in range(30):
                sock.sendto(upnp.msearch("ssdp:all"), (LAN, 1900))
            time.sleep(0.5)
        octets = lambda wanted: sum(len(raw) for _, raw in sniffer.packets() if (p := wire.parse(raw)) and p.protocol == wire.UDP and wanted(p))
        asked, told = octets(lambda p: p.source == source), octets(lambda p: p.destination == source)
        self.assertGreater(told, asked)
        self.assertLess(told, 10 * asked)

    def test_one_search_is_one_set_and_one_answer_is_1024_octets_at_most_POL_WHO_05_POL_DSC_03(self):
        for st in ("ssdp:all", upnp.ROOT_DEVICE):
            got = upnp.search(self.lab.device2, DEVICE2, st, extra=[("X", "y" * 1500)])
            self.assertEqual(len(got), 11 if st == "ssdp:all" else 1)
            self.assertTrue(all(len(a.raw) <= 1024 for a, _ in got))
            self.assertFalse([a for a, _ in got if b"yyy" in a.raw])

    def test_what_others_say_leaves_no_trace_POL_DSC_04(self):
        forged = ("NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCACHE-CONTROL: max-age=1800\r\nLOCATION: http://%s/evil.xml\r\n"
                  "NT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:%036d::upnp:rootdevice\r\n\r\n")
        sniffer = self.sniff(self.lab.internet, "eth0")
        rss = self.daemon.rss_kib()
        with upnp.ssdp_socket(self.lab.device2, DEVICE2) as sock:
            for n in range(5000):
                sock.sendto((forged % (DEVICE2, n)).encode(), upnp.GROUP)
            sock.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                sock.recvfrom(2000)
        self.is_well()
        self.assertEqual(sniffer.all(lambda p: p.dport in (80, 1900)), [])
        if not sanitized(self.lab):
            self.assertLess(self.daemon.rss_kib() - rss, 2048)


class Mutations(AttackCase):
    """Whatever comes, it lives, and its memory comes back (POL-FAIR-05, -07)."""

    REQUESTS = 2500

    def seed(self):
        seed = int(os.environ.get("SALLYPORT_LAB_SEED") or int.from_bytes(os.urandom(4), "big"))
        print(f"     SALLYPORT_LAB_SEED={seed}", flush=True)
        return random.Random(seed)

    @staticmethod
    def mutated(rng, seeds):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            at = rng.randrange(len(data) + 1)
            way = rng.randrange(7)
            if way == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif way == 1:
                data[at:at] = rng.choice((b"\r\n", b"\0", b"<", b">", b"&", b"\"", b":", b"\xff", b"%n", b"A" * 300, b"9" * 30, b"<![CDATA[", b"\r\n\r\n",
                                          b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"<!DOCTYPE x>", b" "))
            elif way == 2:
                del data[at:at + rng.randrange(1, 40)]
            elif way == 3:
                end = at + rng.randrange(1, 60)
                data[at:at] = data[at:end]
            elif way == 4:
                del data[at:]
            elif way == 5:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other)):]
            elif way == 6 and data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
        return bytes(data[:60000])

    def test_mutated_requests_by_HTTP(self):
        rng, wan = self.seed(), self.wan(2)
        event = upnp.Url(wan.about.events)
        action = lambda name, args=(), **kw: upnp.soap_request(wan.control, wan.type, name, args, **kw)
        body = upnp.envelope(wan.type, "GetStatusInfo")
        seeds = [upnp.request("GET", self.gateway(2).location), upnp.request("HEAD", self.gateway(2).location),
                 action("AddPortMapping", wan.mapping_args(40001)), action("AddAnyPortMapping", wan.mapping_args(0, internal=40002)),
                 action("DeletePortMapping", wan.key(40001)), action("GetGenericPortMappingEntry", [("NewPortMappingIndex", 0)]),
                 action("GetListOfPortMappings", [("NewStartPort", 1), ("NewEndPort", 65535), ("NewProtocol", "TCP"), ("NewManage", 1), ("NewNumberOfPorts", 0)]),
                 action("DeletePortMappingRange", [("NewStartPort", 1), ("NewEndPort", 65535), ("NewProtocol", "TCP"), ("NewManage", 1)]),
                 upnp.request("SUBSCRIBE", event, [("CALLBACK", f"<http://{DEVICE2}:9/>"), ("NT", "upnp:event"), ("TIMEOUT", "Second-5")]),
                 upnp.request("UNSUBSCRIBE", event, [("SID", "uuid:12345678-1234-4234-8234-123456789abc")]),
                 action("GetStatusInfo", body=f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n", length=False,
                        pairs=[("Transfer-Encoding", "chunked"), ("SOAPAction", f'"{wan.type}#GetStatusInfo"')])]
        for _ in range(100):  # the buffers it keeps
            self.talk(rng.choice(seeds), DEVICE2, 2, end=True)
        rss, others = self.daemon.rss_kib(), [r for r in self.explicit() if r["internal"]["address"] != DEVICE2]
        for _ in range(self.REQUESTS):
            data = self.mutated(rng, seeds)
            try:
                with self.lab.device2.connect(HTTP, (DEVICE2, 0), timeout=3) as sock:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        sock.sendall(data)
                        sock.shutdown(socket.SHUT_WR)
                    if rng.randrange(4):
                        while sock.recv(65536):
                            pass
            except (ConnectionError, TimeoutError):
                self.assertTrue(self.daemon.running(), data)
        self.is_well()
        self.assertEqual([r for r in self.explicit() if r["internal"]["address"] != DEVICE2], others)
        self.assertEqual(self.wan().call("GetStatusInfo")["NewConnectionStatus"], "Connected")
        if not sanitized(self.lab):
            self.assertLess(self.daemon.rss_kib() - rss, 8 * 1024)

    def test_mutated_datagrams_by_SSDP(self):
        rng = self.seed()
        seeds = [upnp.msearch(st) for st in ("ssdp:all", upnp.ROOT_DEVICE, upnp.IGD + "1", self.gateway().description.root.udn)]
        seeds.append(b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:byebye\r\nUSN: uuid:1\r\n\r\n")
        rss = self.daemon.rss_kib()
        with upnp.ssdp_socket(self.lab.device2, DEVICE2) as sock:
            for n in range(6000):
                with contextlib.suppress(OSError):
                    sock.sendto(self.mutated(rng, seeds), upnp.GROUP if n % 2 else (LAN, 1900))
        self.is_well()
        self.assertEqual(len(upnp.search(self.lab.device1, DEVICE1, upnp.ROOT_DEVICE, enough=1)), 1)
        if not sanitized(self.lab):
            self.assertLess(self.daemon.rss_kib() - rss, 8 * 1024)
