"""Malformed requests on port 5351, byte for byte: PCP-7.3, PCP-8.2, PCP-9, NPM-3.1, NPM-3.5."""

import os
import struct

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL
from labcase import LabCase

LONG, SHORT = 1800, 30
LONG_ERRORS = {1, 2, 3, 4, 5, 6, 9, 12, 13}


class Malformed(LabCase):
    def setUp(self):
        self.device = self.client()

    def request(self, **kw):
        args = {"protocol": "udp", "internal": self.port(), "nonce": os.urandom(12), "options": b"", **kw}
        return wire.pcp_map(DEVICE1, args["nonce"], args["protocol"], args["internal"], 0, 3600, "0.0.0.0", args["options"])

    def error(self, request, result, what, changed=True, tail="either"):
        """An error answer is the request, cut at 1100 and padded to 4, with the server's header fields (PCP-8.2-11)."""
        answer = self.device.ask(request)
        self.assertIsNotNone(answer, f"{what}: no answer")
        cut = request[:1100] + b"\0" * (-len(request[:1100]) % 4)
        self.assertEqual(len(answer) % 4, 0, what)
        version, op, reserved, code, lifetime = struct.unpack_from("!BBBBI", answer)
        self.assertEqual((version, op, reserved, code), (2, request[1] | 0x80, 0, result), what)
        self.assertEqual(lifetime, LONG if result in LONG_ERRORS else SHORT, what)
        copied = cut[12:24]
        allowed = {"copied": [copied], "zero": [b"\0" * 12], "either": [copied, b"\0" * 12]}[tail]
        self.assertIn(answer[12:24], allowed, f"{what}: octets 12-23")
        self.assertEqual(answer[24:].hex(), cut[24:].hex(), f"{what}: what follows the header")
        return answer

    def leaves_no_trace(self):
        self.assertEqual([x for x in self.leases() if x["kind"] == "explicit"], [])

    def tearDown(self):
        self.lab.cli(self.daemon, "revoke", "kind=explicit", "-y")  # what a failed test or noise opened

    def test_silence_PCP_8_2_01_02_04_NPM_3_1_10(self):
        good = self.request()
        for what, datagram in [("nothing", b""), ("one octet", b"\2"), ("one octet, version 0", b"\0"),
                               ("an answer", bytes([2, 0x81]) + good[2:]), ("an answer to ANNOUNCE", bytes([2, 0x80]) + b"\0" * 22),
                               ("an answer of an unknown version", bytes([77, 0x81]) + good[2:]),
                               *((f"version 2, {n} octets", good[:n]) for n in range(2, 24))]:
            with self.subTest(what):
                self.device.sock.sendto(datagram, self.device.gateway)
        # one answer to the next good request, none to any before it
        answer = self.device.ask(wire.pcp_header(wire.ANNOUNCE, 0, DEVICE1), tries=1)
        self.assertIsNotNone(answer)
        self.assertEqual((answer[1], answer[3], len(answer)), (0x80, 0, 24))
        self.assertIsNone(self.device.hear(0.3))
        self.leaves_no_trace()

    def test_versions_PCP_8_2_03_9_02_03(self):
        for version in (1, 3, 4, 127, 255):
            for size in (2, 3, 4, 23, 24, 60):
                with self.subTest(version=version, size=size):
                    request = (bytes([version]) + self.request()[1:])[:size]
                    answer = self.device.ask(request)
                    self.assertIsNotNone(answer)
                    if version == 1 and answer[0] == 0:  # NPM-X-01: RFC 6886's form is allowed too
                        self.assertEqual((len(answer), answer[2:4]), (8, b"\0\1"))
                        continue
                    self.assertEqual((answer[0], answer[1], answer[3]), (2, request[1] | 0x80, 1))
                    self.assertGreaterEqual(len(answer), 24)
                    self.assertEqual(len(answer) % 4, 0)
                    self.assertEqual(struct.unpack_from("!I", answer, 4)[0], LONG)
        self.leaves_no_trace()

    def test_lengths_PCP_8_2_06_07_08(self):
        good = self.request()
        for size in range(24, 60):
            with self.subTest(size=size):
                self.error(good[:size], wire.MALFORMED_REQUEST, f"{size} octets", tail="copied")
        self.error(good + b"\0", wire.MALFORMED_REQUEST, "61 octets", tail="copied")
        padding = wire.option(200, b"\0" * 1036)  # skipped when understood, but the datagram is too long
        self.assertEqual(len(good + padding), 1100)
        self.assertEqual(self.device.ask(good + padding)[3], wire.SUCCESS)
        self.device.unmap("udp", struct.unpack_from("!H", good, 40)[0], good[24:36])
        for extra in (4, 5, 400):
            answer = self.error(good + padding + b"\0" * extra, wire.MALFORMED_REQUEST, f"{1100 + extra} octets", tail="copied")
            self.assertEqual(len(answer), 1100)
        self.leaves_no_trace()

    def test_opcodes_PCP_8_2_10(self):
        for opcode in (3, 4, 63, 64, 95, 96, 126, 127):
            with self.subTest(opcode=opcode):
                body = os.urandom(56)
                self.error(wire.pcp_header(opcode, 60, DEVICE1) + body, wire.UNSUPP_OPCODE, f"opcode {opcode}")
                self.error(wire.pcp_header(opcode, 60, DEVICE1), wire.UNSUPP_OPCODE, f"opcode {opcode}, header only")

    def test_the_client_address_is_the_senders_PCP_8_2_09(self):
        for client in (DEVICE2, EXTERNAL, "0.0.0.0", "127.0.0.1"):
            with self.subTest(client=client):
                self.error(wire.pcp_map(client, os.urandom(12), "udp", self.port()), wire.ADDRESS_MISMATCH, client, tail="zero")
                self.error(wire.pcp_header(wire.ANNOUNCE, 0, client), wire.ADDRESS_MISMATCH, client, tail="zero")
        self.leaves_no_trace()

    def test_reserved_octets_change_nothing_PCP_7_07(self):
        request = bytearray(self.request())
        request[2:4] = b"\xff\xff"
        request[37:40] = b"\xff\xff\xff"
        answer = wire.parse_pcp(self.device.ask(bytes(request)))
        self.assertEqual((answer.result, answer.reserved, answer.tail), (0, 0, b"\0" * 12))
        self.assertEqual(answer.raw[37:40], b"\0\0\0")
        self.device.unmap("udp", answer.internal, answer.nonce)

    def test_option_area_PCP_7_3_04_05_06_07_08(self):
        description = wire.option(wire.DESCRIPTION, b"abc")
        prefer = wire.option(wire.PREFER_FAILURE)
        only = wire.filter_option("198.51.100.10", 32)
        bad, unknown = wire.MALFORMED_OPTION, wire.UNSUPP_OPTION
        table = [
            ("a length past the end", struct.pack("!BBH", 128, 0, 8) + b"abcd", bad),
            ("a length past the end, unknown optional", struct.pack("!BBH", 200, 0, 5) + b"abcd", bad),
            ("the longest length", struct.pack("!BBH", 128, 0, 65535) + b"abcd", bad),
            ("DESCRIPTION twice", description * 2, bad),
            ("PREFER_FAILURE twice", prefer * 2, bad),
            ("PREFER_FAILURE with data", wire.option(wire.PREFER_FAILURE, b"abcd"), bad),
            ("PREFER_FAILURE without a suggestion", prefer, bad),
            ("FILTER too short", wire.option(wire.FILTER, only[4:20]), bad),
            ("FILTER too long", wire.option(wire.FILTER, only[4:] + b"\0" * 4), bad),
            ("FILTER with prefix 129", wire.option(wire.FILTER, b"\0\x81\0\0" + wire.v6("198.51.100.10")), bad),
            ("FILTER with prefix 95 of an IPv4 address", wire.option(wire.FILTER, b"\0\x5f\0\0" + wire.v6("198.51.100.10")), bad),
            ("FILTER with prefix 1 of an IPv4 address", wire.option(wire.FILTER, b"\0\1\0\0" + wire.v6("198.51.100.10")), bad),
            ("FILTER of IPv6", wire.option(wire.FILTER, b"\0\x80\0\0" + bytes.fromhex("20010db8") + b"\0" * 11 + b"\1"), bad),
            ("THIRD_PARTY, off", wire.option(wire.THIRD_PARTY, wire.v6(DEVICE2)), unknown),
            ("THIRD_PARTY of a bad length, off", wire.option(wire.THIRD_PARTY, b"\0" * 12), unknown),
            ("THIRD_PARTY_ID", wire.option(13, b"abcd"), unknown),
            ("a reserved option", wire.option(0), unknown),
            ("an authentication option", wire.option(4, b"abcd"), unknown),
            ("an unknown mandatory option", wire.option(127, b"abcd"), unknown),
            ("an unknown mandatory option, empty", wire.option(99), unknown),
            ("an unknown mandatory option after a good one", description + wire.option(55, b"x"), unknown),
        ]
        for what, options, result in table:
            with self.subTest(what):
                self.error(self.request(options=options), result, what)
        for what, options in [("unknown optional", wire.option(129, b"abcd")), ("unknown optional, empty", wire.option(255)),
                              ("PREFIX64 and another", wire.option(129) + wire.option(254, b"12345"))]:
            with self.subTest(what):
                answer = wire.parse_pcp(self.device.ask(self.request(options=options)))
                self.assertEqual((answer.result, answer.options), (0, []), what)  # PCP-7.3-08, -09: left out
                self.device.unmap("udp", answer.internal, answer.nonce)
        self.leaves_no_trace()

    def test_padding_is_ignored_and_sent_as_zero_PCP_7_3_17(self):
        options = struct.pack("!BBH", 128, 0, 3) + b"abc\xff"
        answer = wire.parse_pcp(self.device.ask(self.request(options=options)))
        self.assertEqual((answer.result, answer.raw[60:]), (0, struct.pack("!BBH", 128, 0, 3) + b"abc\0"))
        self.device.unmap("udp", answer.internal, answer.nonce)

    def test_options_foreign_to_announce_PCP_7_3_15_14_1_10(self):
        for code, data in ((wire.PREFER_FAILURE, b""), (wire.FILTER, b"\0" * 20), (100, b"")):
            with self.subTest(code=code):
                self.error(wire.pcp_header(wire.ANNOUNCE, 0, DEVICE1) + wire.option(code, data), wire.UNSUPP_OPTION, str(code))
        answer = self.device.ask(wire.pcp_header(wire.ANNOUNCE, 99, DEVICE1) + wire.option(200, b"abcd"))
        self.assertEqual((answer[3], answer[4:8], len(answer)), (0, b"\0" * 4, 24))

    def test_bad_descriptions_do_not_break_the_request_DESC_3_06(self):
        answer = wire.parse_pcp(self.device.ask(self.request(options=wire.option(wire.DESCRIPTION, b"\xff\xfe\x00"))))
        self.assertEqual((answer.result, answer.options), (0, []))
        self.device.unmap("udp", answer.internal, answer.nonce)

    def test_natpmp_opcodes_NPM_3_5_02_03_08_09(self):
        for opcode in (3, 4, 64, 127):
            for size in (4, 8, 12, 40):
                with self.subTest(opcode=opcode, size=size):
                    request = bytes([0, opcode]) + os.urandom(size - 2)
                    expected = bytes([0, opcode | 128, 0, 5]) + request[4:]
                    self.assertEqual(self.device.ask(request).hex(), expected.hex())
            for size in (2, 3):
                with self.subTest(opcode=opcode, size=size):
                    answer = self.device.ask(bytes([0, opcode, 9])[:size])
                    self.assertEqual((len(answer), answer[:4]), (8, bytes([0, opcode | 128, 0, 5])))
        for opcode in (128, 129, 130, 255):
            with self.subTest(opcode=opcode):
                self.assertTrue(self.device.silent(bytes([0, opcode]) + b"\0" * 10))

    def test_natpmp_lengths_NPM_3_1_09_POL_WHO_05(self):
        whole = wire.natpmp_map("udp", self.port(), 0, 60)
        for size in range(2, 12):
            self.device.sock.sendto(whole[:size], self.device.gateway)
        self.device.sock.sendto(whole + b"\0" * 1089, self.device.gateway)  # 1101 octets
        answer = self.device.ask(b"\0\0", tries=1)
        self.assertEqual((len(answer), answer[1]), (12, 128))
        self.assertIsNone(self.device.hear(0.3))
        self.leaves_no_trace()
        answer = self.device.ask(b"\0\0more octets")
        self.assertEqual((len(answer), answer[1], answer[2:4]), (12, 128, b"\0\0"))
        answer = self.device.ask(whole + b"more")
        self.assertEqual((len(answer), answer[:4]), (16, b"\0\x81\0\0"))
        self.device.natpmp("udp", 0, 0, 0)

    def test_natpmp_reserved_field_NPM_3_3_02(self):
        request = bytearray(wire.natpmp_map("tcp", port := self.port(), 0, 60))
        request[2:4] = b"\xff\xff"
        answer = wire.parse_natpmp(self.device.ask(bytes(request)))
        self.assertEqual((answer.op, answer.result, answer.internal, answer.lifetime), (130, 0, port, 60))
        self.device.natpmp("tcp", port, 0, 0)

    def test_noise_never_ends_the_daemon_PCP_18_07_POL_FAIR_07(self):
        seed = int.from_bytes(os.urandom(4), "big")
        import random
        random = random.Random(seed)
        vectors = [self.request(), self.request(options=wire.filter_option("198.51.100.10", 32)),
                   wire.pcp_header(0, 0, DEVICE1), wire.natpmp_map("tcp", 5000), b"\0\0"]
        for _ in range(3000):
            data = bytearray(random.choice(vectors))
            for _ in range(random.randint(1, 6)):
                data[random.randrange(len(data))] = random.randrange(256)
            if random.random() < 0.3:
                data = data[:random.randrange(len(data) + 1)] + random.randbytes(random.choice((0, 0, 1, 4, 900, 1400)))
            self.device.sock.sendto(bytes(data), self.device.gateway)
            while (answer := self.device.hear(0.0001)) is not None:
                self.assertLessEqual(len(answer), 1100, f"seed {seed}")
        while self.device.hear(0.2) is not None:
            pass
        self.assertTrue(self.daemon.running(), f"seed {seed}")
        self.assertEqual(self.client().announce().result, 0)
        self.client().natpmp("udp", 0, 0, 0)
        self.client().natpmp("tcp", 0, 0, 0)


class ProtocolsSwitchedOff(LabCase):
    starts = False

    def test_one_protocol_off_PCP_9_05_NPM_3_5_07(self):
        type(self).start({"listen": {"protocols": ["pcp"]}})
        answer = self.client().ask(wire.natpmp_map("udp", 5000))
        self.assertEqual((answer[0], answer[3]), (2, 1))
        self.assertEqual(self.client().announce().result, 0)
        self.daemon.stop()
        type(self).start({"listen": {"protocols": ["natpmp"]}})
        answer = self.client().ask(wire.pcp_header(wire.ANNOUNCE, 0, DEVICE1))
        self.assertEqual((len(answer), answer[:2], answer[2:4]), (8, b"\0\0", b"\0\1"))
        self.assertEqual(self.client().natpmp_address().address, EXTERNAL)
