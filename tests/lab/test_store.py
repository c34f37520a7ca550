"""The store: full, read-only, missing, damaged."""

import contextlib
import glob
import os

import wire
from lab import EXTERNAL, run, wait_until
from labcase import LabCase

SECONDS = 30


class StoreCase(LabCase):
    starts = False
    SIZE = "640k"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = os.path.join(cls.lab.directory, "disk")
        os.mkdir(cls.disk)
        run("mount", "-t", "tmpfs", "-o", f"size={cls.SIZE},mode=755", "none", cls.disk)
        cls.lab.later(run, "umount", "-l", cls.disk)
        cls.daemon = cls.lab.daemon(start=False, state=os.path.join(cls.disk, "state"))

    def fill(self):
        with contextlib.suppress(OSError), open(os.path.join(self.disk, "filler"), "ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        with contextlib.suppress(OSError), open(os.path.join(self.disk, "filler2"), "ab", buffering=0) as file:
            while True:
                file.write(b"\0")

    def free(self):
        for name in ("filler", "filler2"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.disk, name))

    def heals(self, client):
        self.free()
        port = self.port()
        service = self.udp_service(port)
        wait_until("grants are given again", lambda: client.map("udp", port, port).result == 0, 60)
        self.arrives(service, port)
        wait_until("status is well again", lambda: self.cli_json("status")["store"]["state"] in ("ok", "healthy", "good", "writable"))

    def is_told(self):
        status = self.cli_json("status")
        self.assertNotIn(status["store"]["state"], ("ok", "healthy", "good", "writable"))
        self.assertTrue(status["warnings"])


class ReadOnlyAtStart(StoreCase):
    def test_a_read_only_disk_is_told_and_heals_POL_STO_04(self):
        run("mount", "-o", "remount,ro", self.disk)
        type(self).start()
        client, port = self.client(), self.port()
        self.assertEqual(client.map("udp", port).result, wire.NO_RESOURCES)
        self.assertEqual(client.natpmp("udp", port).result, 4)
        self.arrives(self.control, 1999)
        self.is_told()
        # the daemon sees the mount through its own mount namespace (ip netns exec makes one)
        run("mount", "-o", "remount,rw", self.disk)
        run("nsenter", "-t", str(self.daemon.pid), "-m", "mount", "-o", "remount,rw", self.disk)
        self.heals(client)


class FullDiskAtStart(StoreCase):
    def test_a_store_that_cannot_be_made_at_start_POL_STO_04(self):
        self.fill()
        type(self).start()
        client, port = self.client(), self.port()
        self.arrives(self.control, 1999)
        answer = client.map("udp", port)
        self.assertEqual((answer.result, answer.lifetime), (wire.NO_RESOURCES, 30))
        answer = client.natpmp("tcp", port)
        self.assertEqual((answer.result, answer.external, answer.lifetime), (4, 0, 0))
        self.assertEqual(client.natpmp_address().address, EXTERNAL)
        self.is_told()
        self.assertNotIn(port, [x["internal"]["port"] for x in self.leases()])
        self.heals(client)


class FullDisk(StoreCase):
    def test_a_disk_that_fills_up_while_running_POL_STO_04(self):
        type(self).start()
        client, port = self.client(), self.port()
        service = self.udp_service(port)
        nonce = os.urandom(12)
        self.assertEqual(client.map("udp", port, port, 3600, nonce).result, 0)
        self.fill()
        granted = []

        def refused():
            for _ in range(50):
                p, n = self.port(), os.urandom(12)
                answer = client.map("udp", p, p, 3600, n, options=wire.option(wire.DESCRIPTION, b"d" * 200))
                if answer.result != 0:
                    return answer
                granted.append(p)
            return None

        answer = wait_until("a full disk is felt", refused, 60)
        self.assertEqual((answer.result, answer.lifetime), (wire.NO_RESOURCES, 30))
        # what is stored is served on; deletions and renewals are not promised
        self.arrives(service, port)
        self.assertEqual(client.unmap("udp", port, nonce).result, wire.NO_RESOURCES)
        self.arrives(service, port)
        self.assertIn(port, [x["external"]["port"] for x in self.leases()])
        self.is_told()
        # nothing acknowledged is lost by a crash in this state
        self.daemon.kill()
        self.daemon.start()
        back = {x["external"]["port"] for x in self.leases()}
        self.assertEqual([p for p in [port, *granted] if p not in back], [])
        self.arrives(service, port)
        self.heals(client)
        wait_until("deletions too", lambda: client.unmap("udp", port, nonce).result == 0)
        self.dropped(service, port)


class DamagedStore(StoreCase):
    SIZE = "16m"

    def open_many(self, count=60):
        client = self.client()
        ports = [self.port() for _ in range(count)]
        for port in ports:
            self.assertEqual(client.map("udp", port, port, 3600, os.urandom(12)).result, 0)
        return ports

    def back(self):
        return {x["external"]["port"] for x in self.leases() if x["kind"] == "explicit"}

    def test_rubbish_in_the_middle_is_salvaged_row_by_row_POL_STO_05(self):
        if not self.daemon.running():
            type(self).start()
        client = self.client()
        ports = self.open_many()
        wait_until("the epoch has counted", lambda: client.announce().epoch >= 3)
        self.daemon.stop()  # the WAL is merged into the file
        path = os.path.join(self.daemon.state, "leases.db")
        size = os.path.getsize(path)
        with open(path, "r+b") as file:  # flip octets inside the records, where the ports' rows are
            data = file.read()
            at = max(data.rfind(b"\0" * 64, 0, size - 600) + 64, size - 500)
            file.seek(at)
            file.write(bytes(b ^ 0xff for b in data[at:at + 40]))
        self.daemon.start()
        back = self.back()
        self.assertTrue(back <= set(ports) | {r for r in back if r >= 20000})
        self.assertGreater(len(back & set(ports)), len(ports) // 2)
        if not set(ports) <= back:
            self.assertLessEqual(client.announce().epoch, 5)  # POL-STO-07
            self.assertGreater(len(glob.glob(os.path.join(self.daemon.state, "*"))), 1)
        self.assertEqual(client.map("udp", self.port()).result, 0)

    def test_a_file_that_is_no_database_is_kept_aside_and_a_new_one_made(self):
        if not self.daemon.running():
            type(self).start()
        self.open_many(3)
        self.daemon.stop()
        path = os.path.join(self.daemon.state, "leases.db")
        with open(path, "wb") as file:
            file.write(b"this is not a database " * 500)
        self.daemon.start()
        client = self.client()
        self.assertLessEqual(client.announce().epoch, 5)
        self.assertEqual(client.map("udp", self.port()).result, 0)
        aside = [name for name in glob.glob(os.path.join(self.daemon.state, "*"))
                 if b"this is not a database" in open(name, "rb").read(100)]
        self.assertEqual(len(aside), 1, os.listdir(self.daemon.state))
        wait_until("the log says so", lambda: "leases.db" in self.daemon.log())

    def test_a_cut_end_costs_at_most_the_newest_POL_STO_05(self):
        if not self.daemon.running():
            type(self).start()
        ports = self.open_many(20)
        self.daemon.kill()
        wal = os.path.join(self.daemon.state, "leases.db-wal")
        if os.path.exists(wal) and os.path.getsize(wal) > 100:
            with open(wal, "r+b") as file:
                file.truncate(os.path.getsize(wal) - 37)
        self.daemon.start()
        self.assertGreaterEqual(len(self.back() & set(ports)), 15)
        self.assertEqual(self.client().map("udp", self.port()).result, 0)
