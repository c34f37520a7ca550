"""Quotas, fairness, memory."""

import os
import threading
import time

import wire
from lab import DEVICE1, DEVICE2, EXTERNAL, FAR, UdpEcho, wait_until
from labcase import LabCase, leaks, sanitized

SECONDS = 15


class Quotas(LabCase):
    config = {"limits": {"leases_per_device": 5}}

    def test_a_device_over_its_quota_is_refused_and_renews_on_POL_QTA_01_PCP_11_3_16_NPM_5_03(self):
        client, made = self.client(), []
        for _ in range(5):
            port, nonce = self.port(), os.urandom(12)
            self.assertEqual(client.map("udp", port, port, 3600, nonce).result, 0)
            made.append((port, nonce))
        refused = client.map("udp", self.port())
        self.assertEqual((refused.result, refused.lifetime), (wire.USER_EX_QUOTA, 30))
        self.assertEqual(client.natpmp("tcp", self.port()).result, 4)
        self.assertEqual(client.map("udp", *made[0][:1], 0, 3600, made[0][1]).result, 0)
        self.assertEqual(self.client(2).map("udp", self.port()).result, 0)
        self.assertEqual(client.unmap("udp", *made[0]).result, 0)
        self.assertEqual(client.map("udp", self.port()).result, 0)


class ImplicitLimit(LabCase):
    config = {"limits": {"mappings_per_device": 5}}

    def test_a_device_over_its_mappings_is_told_and_its_live_flows_go_on_POL_QTA_04(self):
        lab = self.lab
        outside, inside = self.sniff(lab.internet, "eth0"), self.sniff(lab.device1, "eth0")
        socks = [lab.device1.udp(DEVICE1, self.port()) for _ in range(8)]
        for sock in socks:
            self.addCleanup(sock.close)
        with UdpEcho(lab.internet, 7970, b"l"):
            def sent():
                for sock in socks:
                    try:
                        sock.sendto(b"one of eight", (FAR, 7970))
                    except ConnectionRefusedError:
                        pass
                return {p.sport for p in outside.all(lambda p: p.data == b"one of eight" and p.source == EXTERNAL)}

            wait_until("five go out", lambda: len(sent()) == 5)
            self.assertEqual(len(sent()), 5)
            refusal = wait_until("the device is told by ICMP 3/13", lambda: inside.find(lambda p: p.kind == 3 and p.code == 13))
            self.assertEqual(refusal.destination, DEVICE1)
            self.assertEqual(leaks(outside), [])
            self.assertEqual(self.answer_of(lab.device2, (FAR, 7970))[0], b"l")  # another device is not touched
        # explicit mappings have their own limit
        self.assertEqual(self.client().map("udp", self.port()).result, 0)


class Fairness(LabCase):
    def test_a_flooding_device_does_not_starve_another_POL_FAIR_01_POL_QTA_03(self):
        stop = threading.Event()
        sent = [0]

        def flood():
            with self.lab.device2.udp(DEVICE2) as sock:
                sock.setblocking(False)
                while not stop.is_set():
                    for n in range(64):
                        try:
                            sock.sendto(wire.natpmp_map("udp", 1024 + (sent[0] * 7 + n) % 60000, 0, 60), ("192.168.50.1", 5351))
                            sent[0] += 1
                        except BlockingIOError:
                            pass
                    time.sleep(0.0005)

        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        answered, times = 0, []
        try:
            client = self.client(1)
            for n in range(50):
                began = time.monotonic()
                data = client.ask(wire.pcp_map(DEVICE1, os.urandom(12), "tcp", self.port()), tries=1, timeout=2)
                if data is not None and data[3] == 0:
                    answered += 1
                    times.append(time.monotonic() - began)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(sent[0], 1000)
        self.assertGreaterEqual(answered, 48, f"{answered} of 50 answered while another device sent {sent[0]} requests")
        self.assertLess(sorted(times)[len(times) // 2], 1.0)
        self.assertTrue(self.daemon.running())

    def test_requests_beyond_the_rate_are_dropped_and_come_back_POL_QTA_03(self):
        client = self.client(2)
        for _ in range(3000):
            client.sock.sendto(b"\0\0", client.gateway)
        while client.hear(0.5) is not None:
            pass
        self.assertIsNotNone(client.ask(b"\0\0", tries=5))


class Memory(LabCase):
    def test_idle_it_stays_below_16_MiB(self):
        if sanitized(self.lab):
            self.skipTest("a sanitizer's build needs more memory")
        time.sleep(1)
        self.assertLessEqual(self.daemon.rss_kib(), 16 * 1024)
