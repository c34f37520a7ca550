"""The client at a gateway that lies, stalls and forgets: it takes no lie for a grant, ends in time, and asks nobody else."""

import os
import random
import struct
import time

import upnp
from fake_gateway import FakeGateway, http_answer, soap_answer, soap_fault
from lab import DEVICE1, DEVICE2, EXTERNAL, LAN, wait_until
from test_client import ClientCase

SECONDS = 40
SEED = int(os.environ.get("SALLYPORT_LAB_SEED", 0)) or int.from_bytes(os.urandom(4), "big")
BOMB = ('<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' +
        "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9)) + "]><root>&j;</root>")


def with_bytes(data, *changes):
    data = bytearray(data)
    for at, octets in changes:
        data[at:at + len(octets)] = octets
    return bytes(data)


class Fake(ClientCase):
    starts = False
    speaks = ("pcp", "natpmp", "upnp")

    def setUp(self):
        self.fake = FakeGateway(self.lab.gateway, self.speaks)
        self.addCleanup(self.fake.close)
        self.wire = self.sniff(self.lab.device1, "eth0")

    def held(self, protocol, port):
        return self.fake.held(protocol, port)

    def only_the_gateway_was_asked(self):
        # the kernel joins groups at the second one; at the third a provider may have his server (RFC 7723)
        groups = (upnp.GROUP[0], "224.0.0.22", "192.0.0.9")
        others = {packet.destination for packet in self.wire.all(lambda p: p.source == DEVICE1)} - {LAN, *groups}
        self.assertEqual(others, set())

    def ends_without_a_grant(self, all_of, seconds):
        for name, opened in all_of.items():
            code, last = opened.wait(seconds)
            self.assertIn(code, (1, 4, 5), (name, opened.told()))
            self.assertEqual((opened.kinds()[0], last), ("refused", "closed"), (name, opened.told()))
        self.only_the_gateway_was_asked()


class LiesOf5351(Fake):
    speaks = ("pcp", "natpmp")

    @staticmethod
    def noise(honest):
        dice = random.Random(SEED)
        return [bytes(dice.randrange(256) for _ in range(dice.choice((0, 1, 3, 24, 60, 1100, 1400)))) for _ in range(40)]

    pcp = {
        "cut": lambda it: [it[:n] for n in range(len(it))],
        "another's nonce": lambda it: [with_bytes(it, (24, b"x" * 12), (42, b"\x27\x10"))],
        "of another port": lambda it: [with_bytes(it, (40, b"\0\1"), (42, b"\x27\x10"))],
        "of another protocol": lambda it: [with_bytes(it, (36, b"\x84"), (42, b"\x27\x10"))],
        "a request": lambda it: [with_bytes(it, (1, b"\1"), (42, b"\x27\x10"))],
        "port 0": lambda it: [with_bytes(it, (42, b"\0\0"))],
        "lifetime 0": lambda it: [with_bytes(it, (4, bytes(4)), (42, b"\x27\x10"))],
        "options without end": lambda it: [it + b"\3\0\xff\xff" * 9],
        "noise": noise,
    }
    natpmp = {
        "cut": lambda it: [it[:n] for n in range(len(it))],
        "of another port": lambda it: [with_bytes(it, (8, b"\0\1"), (10, b"\x27\x10"))],
        "of another protocol": lambda it: [with_bytes(it, (1, b"\x81"), (10, b"\x27\x10"))],
        "a request": lambda it: [with_bytes(it, (1, b"\2"), (10, b"\x27\x10"))],
        "port 0": lambda it: [with_bytes(it, (10, b"\0\0"))],
        "noise": noise,
    }

    def all_vices(self, via, make):
        all_of = {}
        for name, vice in getattr(self, via).items():
            port = self.port()
            self.fake.vices[port] = make(vice)
            all_of[name] = self.open(port, "--via", via)
        return all_of

    def truth_after_lies(self, via):
        all_of = self.all_vices(via, lambda vice: lambda it: [*vice(it), (0.1, it), (0.1, it)])
        for name, opened in all_of.items():
            grant = opened.grant()
            port = opened.events[0]["grant"]["internal"]["port"]
            self.assertEqual(grant["external"], {"address": EXTERNAL, "port": port}, (name, opened.told(), f"SALLYPORT_LAB_SEED={SEED}"))
        for name, opened in all_of.items():
            self.assertEqual(opened.end(), (0, "closed"), name)
        self.assertEqual(self.fake.leases, {})
        self.only_the_gateway_was_asked()

    def test_pcp_truth_after_lies_PCP_8_3(self):
        self.truth_after_lies("pcp")

    def test_natpmp_truth_after_lies_NPM_3_3(self):
        self.truth_after_lies("natpmp")

    def test_nothing_but_lies_is_no_grant(self):
        all_of = {(via, name): opened for via in ("pcp", "natpmp")
                  for name, opened in self.all_vices(via, lambda vice: vice).items() if name != "options without end"}
        self.ends_without_a_grant(all_of, 8)

    def test_nobody_answers_in_the_gateways_name_PCP_8_3_NPM_3_2(self):
        sock = self.lab.device2.udp(DEVICE2, 5351)
        self.addCleanup(sock.close)
        forged = []

        def impostor(honest, sender):
            forged.append(with_bytes(honest, (42, b"\x27\x10")) if honest[0] == 2 else with_bytes(honest, (10, b"\x27\x10")))
            for _ in range(3):
                sock.sendto(forged[-1], sender)

        self.fake.impostor = impostor
        for via in ("pcp", "natpmp"):
            port = self.port()
            opened = self.open(port, "--via", via)
            self.assertEqual(opened.grant()["external"], {"address": EXTERNAL, "port": port})
            self.assertEqual(opened.end(), (0, "closed"))
        self.assertGreaterEqual(len(forged), 4)

    def test_nobody_announces_in_the_gateways_name_PCP_14_1_NPM_3_2_1(self):
        all_of = [self.open(self.port(), "--via", via) for via in ("pcp", "natpmp")]
        for opened in all_of:
            opened.grant()
        requests = lambda: sum(len(data) >= 12 for _, _, data in self.fake.asked)
        before = requests()
        with self.lab.device2.udp(DEVICE2, 5351) as sock:
            for epoch in (0, 0, 1):
                sock.sendto(struct.pack("!BBBBII", 2, 128, 0, 0, 0, epoch) + bytes(12), ("224.0.0.1", 5350))
                sock.sendto(struct.pack("!BBHI4B", 0, 128, 0, epoch, 203, 0, 114, 99), ("224.0.0.1", 5350))
        time.sleep(5.3)  # for as long as who believed it might wait (PCP-14.1-07)
        self.assertEqual((requests(), [opened.kinds() for opened in all_of]), (before, [["granted"]] * 2))
        self.fake.restart()
        for opened in all_of:
            self.only("tcp", opened.events[0]["grant"]["internal"]["port"])
            self.assertEqual(opened.end(), (0, "closed"))

    def test_a_lifetime_beyond_belief_and_an_answer_thrice(self):
        port, other = self.port(), self.port()
        self.fake.vices[port] = lambda it: [with_bytes(it, (4, b"\xff" * 4))] * 3
        self.fake.vices[other] = lambda it: [with_bytes(it, (12, b"\xff" * 4))] * 3
        for opened in (self.open(port, "--via", "pcp"), self.open(other, "--via", "natpmp")):
            self.assertLessEqual(opened.grant()["lifetime_s"], 0xffffffff)
            time.sleep(0.3)
            self.assertEqual(opened.kinds(), ["granted"])
            # a deletion that is answered with a lifetime is not confirmed
            self.assertIn(opened.end(), ((0, "closed"), (5, "granted")))

    def test_slow_answers_make_no_double_lease(self):
        port = self.port()
        self.fake.vices[port] = lambda it: [(0.4, it)]
        opened = self.open(port)
        opened.grant()
        self.only("tcp", port)
        time.sleep(1)
        self.only("tcp", port)
        code, last = opened.end()
        self.assertEqual((code, last), (0, "closed"))
        wait_until("nothing is left", lambda: not self.fake.leases)


class Restarts(Fake):
    """A gateway that forgets all, at another address and other URLs, by each protocol."""

    def test_is_asked_again_PCP_14_1_NPM_3_6_SSDP(self):
        all_of = {via: self.open(self.port(), "--via", via) for via in ("pcp", "natpmp", "upnp")}
        for opened in all_of.values():
            opened.grant()
        self.assertEqual(len(self.fake.leases), 3)
        self.fake.restart("203.0.114.9", "/control/2")
        for via, opened in all_of.items():
            event = opened.event("granted" if via == "upnp" else "changed")
            self.assertEqual(event["grant"]["external"]["address"], "203.0.114.9", via)
            self.only("tcp", event["grant"]["internal"]["port"])
        for opened in all_of.values():
            self.assertEqual(opened.end(), (0, "closed"))
        self.assertEqual(self.fake.leases, {})
        self.only_the_gateway_was_asked()

    def test_another_port_after_a_restart_is_told(self):
        all_of = {via: self.open(self.port(), "--via", via) for via in ("pcp", "natpmp")}
        for opened in all_of.values():
            opened.grant()
        own = {opened.events[0]["grant"]["internal"]["port"] for opened in all_of.values()}
        self.fake.restart()
        self.fake.leases.update({("tcp", DEVICE2, 7 + n): (port, b"") for n, port in enumerate(own)})
        for opened in all_of.values():
            event = opened.event("changed")
            self.assertNotIn(event["grant"]["external"]["port"], own)
            self.assertIn(event["former"]["external"]["port"], own)


class LiesOfUpnp(Fake):
    speaks = ("upnp",)

    @staticmethod
    def endless(head):
        def lines(_):
            yield head
            for _ in range(200000):
                yield b"<x>" * 400 if b"\r\n\r\n" in head else b"X-Y: " + b"z" * 500 + b"\r\n"
        return lines

    stall = staticmethod(lambda it: [it[:20], (15, None)])
    slow = staticmethod(lambda it: ((0.25, it[n:n + 1]) for n in range(len(it))))
    to_another = staticmethod(lambda it: [http_answer("", "307 Temporary Redirect", [("Location", f"http://{DEVICE2}:5000/x.xml")])])

    def common(self):
        return {
            "endless head": self.endless(b"HTTP/1.1 200 OK\r\n"),
            "endless body": self.endless(b"HTTP/1.1 200 OK\r\n\r\n"),
            "endless chunk": self.endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n"),
            "a length beyond belief": lambda it: [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n<a>", (1, None)],
            "stall": self.stall, "slow": self.slow, "redirect": self.to_another,
            "bomb": lambda it: [http_answer(BOMB)],
            "deep": lambda it: [http_answer("<a>" * 20000)],
            "cut": lambda it: [it[:len(it) // 2], None],
            "closed": lambda it: [None],
            "noise": lambda it: [random.Random(SEED).randbytes(5000), None],
        }

    def test_descriptions_that_lie_UDA_1_3_19(self):
        all_of = {}
        vices = {**self.common(),
                 "elsewhere": None, "empty": lambda it: [http_answer("")],
                 "other control": lambda it: [http_answer(it.split(b"\r\n\r\n", 1)[1].replace(b"/control/1", f"http://{DEVICE2}:5000/c".encode()))]}
        self.fake.locations["elsewhere"] = f"http://{DEVICE2}:5000/elsewhere.xml"
        for number, (name, vice) in enumerate(vices.items()):
            key = f"v{number}"
            self.fake.descriptions[key] = vice
            if name == "elsewhere":
                self.fake.locations[key] = f"http://{DEVICE2}:5000/elsewhere.xml"
            self.fake.expected = key
            all_of[name] = self.open(self.port(), "--via", "upnp")
            wait_until(f"the search of {name}", lambda: key in self.fake.searchers.values())
        self.ends_without_a_grant(all_of, 20)
        self.assertEqual(self.fake.leases, {})

    def test_answers_that_lie(self):
        all_of = {}
        vices = {**self.common(), "a fault without sense": lambda it: [soap_fault("99999999999999999999")],
                 "another's answer": lambda it: [soap_answer("DeletePortMapping")]}
        for name, vice in vices.items():
            port = self.port()
            self.fake.vices[port] = vice
            all_of[name] = self.open(port, "--via", "upnp")
        self.ends_without_a_grant(all_of, 20)

    def test_the_truth_once_the_gateway_has_come_to_its_senses(self):
        lies = {"closed": lambda it: [None], "cut": lambda it: [it[:30], None]}
        all_of = {}
        for name, vice in lies.items():
            port, first = self.port(), [vice]
            self.fake.vices[port] = lambda it, first=first: first.pop()(it) if first else [it]
            all_of[name] = self.open(port, "--via", "upnp")
        for name, opened in all_of.items():
            opened.grant()
        for name, opened in all_of.items():
            self.assertEqual(opened.end(), (0, "closed"), name)
        self.assertEqual(self.fake.leases, {})
