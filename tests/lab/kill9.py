#!/usr/bin/env python3
"""kill -9 at random moments under load: is every acknowledged lease back?

    sudo tests/lab/kill9.py [--rounds N] [--seed S] [--leases N] [--daemon PATH] [--cli PATH]

A hundred source addresses grant, renew and delete by PCP and NAT-PMP. At a random moment the daemon is killed and
started again. Then every acknowledged lease must be back with its id, external port and remaining lifetime (2 s), a packet
must pass through each, no acknowledged deletion may return, and the epoch must go on. What was asked and not answered
when the daemon died may have happened or not.
"""

import argparse
import os
import random
import select
import struct
import sys
import time
from types import SimpleNamespace

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import lab as lab_module  # noqa: E402
import wire  # noqa: E402
from lab import EXTERNAL, FAR, LAN, Lab, run  # noqa: E402

ADDRESSES = [f"192.168.50.{n}" for n in range(100, 200)]
WINDOW = 64
TOLERANCE = 2.0


class Load:
    def __init__(self, lab, rng, target):
        self.rng, self.target = rng, target
        self.held = {}     # (address, protocol, internal) -> what was acknowledged
        self.asked = {}    # the same key -> what was asked and is not answered yet
        self.poll, self.socks = select.epoll(), {}
        for address in ADDRESSES:
            sock = lab.device1.udp(address, 0)
            sock.setblocking(False)
            sock.connect((LAN, 5351))
            self.socks[sock.fileno()] = (address, sock)
            self.poll.register(sock, select.EPOLLIN)
        self.by_address = {address: sock for address, sock in self.socks.values()}
        self.keys = []
        self.granted = self.renewed = self.deleted = self.refused = 0

    def ask_one(self):
        rng = self.rng
        full = len(self.held) / self.target
        kind = rng.choices(("grant", "renew", "delete"), (max(0.1, 1.6 - full), 0.4 * min(1, full), 0.6 * min(1, full)))[0]
        if kind == "grant" or not self.held:
            key = (rng.choice(ADDRESSES), rng.choice(("udp", "tcp")), rng.randint(1024, 65000))
            if key in self.held or key in self.asked:
                return
            what = SimpleNamespace(kind="grant", via=rng.choice(("pcp", "natpmp")), nonce=rng.randbytes(12), lifetime=rng.randint(600, 7200))
        else:
            key = self.some_key()
            if key is None:
                return
            held = self.held[key]
            what = SimpleNamespace(kind=kind, via=held.via, nonce=held.nonce, lifetime=rng.randint(600, 7200) if kind == "renew" else 0)
        address, protocol, internal = key
        what.request = (wire.pcp_map(address, what.nonce, protocol, internal, 0, what.lifetime) if what.via == "pcp"
                        else wire.natpmp_map(protocol, internal, 0, what.lifetime))
        what.sent = time.monotonic()
        self.asked[key] = what
        try:
            self.by_address[address].send(what.request)
        except OSError:
            pass

    def some_key(self):
        """A held key without walking them all; None when only busy ones come by."""
        for _ in range(8):
            if not self.keys or self.rng.random() < 1 / len(self.keys):
                self.keys = list(self.held)
            at = self.rng.randrange(len(self.keys))
            key = self.keys[at]
            if key in self.held and key not in self.asked:
                return key
            self.keys[at] = self.keys[-1]
            self.keys.pop()
        return None

    def hear(self, timeout):
        for fd, _ in self.poll.poll(timeout):
            address, sock = self.socks[fd]
            while True:
                try:
                    data = sock.recv(2048)
                except OSError:
                    break
                self.answer(address, data)

    def answer(self, address, data):
        if data[0] == 2:
            parsed = wire.parse_pcp(data)
            if parsed.opcode != wire.MAP:
                return
            key = (address, "udp" if parsed.protocol == 17 else "tcp", parsed.internal)
        else:
            parsed = wire.parse_natpmp(data)
            if parsed.op not in (129, 130):
                return
            key = (address, "udp" if parsed.op == 129 else "tcp", parsed.internal)
        what = self.asked.get(key)
        if what is None or (data[0] == 2) != (what.via == "pcp"):
            return
        del self.asked[key]
        if parsed.result != 0:
            self.refused += 1
        elif what.lifetime == 0:
            self.deleted += 1
            self.held.pop(key, None)
        else:
            if what.kind == "grant":
                self.granted += 1
            else:
                self.renewed += 1
            old = self.held.pop(key, None)
            self.held[key] = SimpleNamespace(via=what.via, nonce=what.nonce, external=parsed.external, id=old.id if old else None,
                                             # granted between these two moments
                                             until=(what.sent + parsed.lifetime, time.monotonic() + parsed.lifetime))

    def drive(self, until):
        while time.monotonic() < until:
            for _ in range(WINDOW - len(self.asked)):
                self.ask_one()
            self.hear(0.005)
            now = time.monotonic()
            for key, what in list(self.asked.items()):  # a client retransmits
                if now - what.sent > 1.0 and not getattr(what, "again", False):
                    what.again = True
                    try:
                        self.by_address[key[0]].send(what.request)
                    except OSError:
                        pass


def check(lab, daemon, load, problems):
    """Compares the list with what was acknowledged; takes over what the unanswered requests turned into."""
    asked_at = time.monotonic()
    rows = lab.leases(daemon)
    now = time.monotonic()
    listed = {}
    for row in rows:
        if row["kind"] != "explicit":
            continue
        key = (row["internal"]["address"], row["protocol"], row["internal"]["port"])
        if key in listed:
            problems.append(f"{key} is listed twice")
        listed[key] = row
    for key, held in load.held.items():
        row, open_question = listed.get(key), load.asked.get(key)
        if row is None:
            if open_question is None or open_question.lifetime != 0:
                problems.append(f"{key}: acknowledged and lost")
            continue
        if row["external"]["port"] != held.external:
            problems.append(f"{key}: external port {held.external} became {row['external']['port']}")
        if held.id is not None and row["id"] != held.id:
            problems.append(f"{key}: id {held.id} became {row['id']}")
        earliest, latest = held.until[0] - now - TOLERANCE, held.until[1] - asked_at + TOLERANCE
        renewing = open_question is not None and open_question.kind == "renew"
        if not earliest <= row["remaining_s"] <= latest and not renewing:
            problems.append(f"{key}: {row['remaining_s']} s remain, not {earliest + TOLERANCE:.1f}..{latest - TOLERANCE:.1f}")
    for key in listed:
        if key not in load.held and key not in load.asked:
            problems.append(f"{key}: nobody holds it, or its deletion was acknowledged")
    old, load.held = load.held, {}
    for key, row in listed.items():
        known, question = old.get(key), load.asked.get(key)
        load.held[key] = SimpleNamespace(
            via=known.via if known else question.via if question else row["via"],
            nonce=known.nonce if known else question.nonce if question else b"\0" * 12, external=row["external"]["port"], id=row["id"],
            until=known.until if known and not question else (asked_at + row["remaining_s"] - 1, now + row["remaining_s"] + 1))
    load.asked = {}


def passes(lab, load, inside):
    """Waits until a packet has passed through every held lease; those through which none did."""
    wan, net = lab.gateway.mac("wan0"), lab.internet.mac("eth0")
    sock = lab.internet.socket(lab_module.socket.AF_PACKET, lab_module.socket.SOCK_RAW, 0)
    sock.bind(("eth0", 0))
    head = lab_module.mac_bytes(wan) + lab_module.mac_bytes(net) + struct.pack("!H", 0x0800)
    missing = {(protocol, address, internal): held.external for (address, protocol, internal), held in load.held.items()}
    end = time.monotonic() + 10
    with sock:
        while missing and time.monotonic() < end:
            for n, ((protocol, _, _), external) in enumerate(missing.items()):
                packet = (wire.udp(FAR, 4000, EXTERNAL, external, b"in force?") if protocol == "udp" else
                          wire.tcp(FAR, load.rng.randint(1024, 65000), EXTERNAL, external, wire.SYN))
                sock.send(head + packet)
                if n % 64 == 63:
                    time.sleep(0.001)  # a socket buffer is no mapping
            time.sleep(0.02)
            for packet in inside.all(lambda p: p.source == FAR):
                missing.pop(("udp" if packet.protocol == wire.UDP else "tcp", packet.destination, packet.dport), None)
            inside.seen = []
    return list(missing)


def epoch_of(load):
    address, sock = load.socks[next(iter(load.socks))]
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            sock.send(b"\0\0")
        except OSError:
            pass
        for _ in range(20):
            try:
                data = sock.recv(2048)
            except OSError:
                time.sleep(0.01)
                continue
            if data[:2] == b"\0\x80":
                return struct.unpack_from("!I", data, 4)[0], time.monotonic()
    raise AssertionError("no answer to an address request")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--leases", type=int, default=1000, help="about as many are held")
    parser.add_argument("--build", default=os.path.join(lab_module.ROOT, "build"))
    parser.add_argument("--daemon")
    parser.add_argument("--cli")
    args = parser.parse_args()
    Lab.daemon_path = os.path.abspath(args.daemon or os.path.join(args.build, "bin/sallyportd"))
    Lab.cli_path = os.path.abspath(args.cli or os.path.join(args.build, "bin/sallyport"))
    lab_module.guard()
    rng = random.Random(args.seed)
    print(f"seed {args.seed}, {args.rounds} rounds, {len(ADDRESSES)} devices, about {args.leases} leases", flush=True)
    lab = Lab()
    run("ip", "-n", lab.device1.name, "-batch", "-", stdin="".join(f"addr add {a}/24 dev eth0\n" for a in ADDRESSES))
    daemon = lab.daemon({"log": {"level": "info"}})
    load = Load(lab, rng, args.leases)
    bad, slowest_ready, slowest_force, held_then = 0, 0.0, 0.0, 0
    load.drive(time.monotonic() + 1.0)
    for number in range(1, args.rounds + 1):
        epoch, epoch_at = epoch_of(load)
        under_load = rng.uniform(0.02, 0.5)
        load.drive(time.monotonic() + under_load)
        daemon.kill()
        load.hear(0.05)  # answers that left before it died
        load.hear(0)
        unanswered = len(load.asked)
        problems, inside = [], lab.device1.sniff("eth0", outgoing=False)
        began = time.monotonic()
        daemon.start()
        ready = time.monotonic() - began
        check(lab, daemon, load, problems)
        inside.clear()
        for missing in passes(lab, load, inside)[:10]:
            problems.append(f"{missing}: no packet passes")
        force = time.monotonic() - began
        inside.close()
        later, later_at = epoch_of(load)
        if abs(later - epoch - (later_at - epoch_at)) > TOLERANCE:
            problems.append(f"the epoch was {epoch}, is {later} after {later_at - epoch_at:.1f} s")
        slowest_ready, slowest_force = max(slowest_ready, ready), max(slowest_force, force)
        held_then = max(held_then, len(load.held))
        print(f"round {number:3}: killed after {under_load * 1000:3.0f} ms of load, {unanswered:2} unanswered; ready in {ready:.2f} s, "
              f"{len(load.held)} leases listed and passing packets after {force:.2f} s: "
              f"{'all as acknowledged' if not problems else f'{len(problems)} PROBLEMS'}", flush=True)
        for problem in problems[:10]:
            print(f"    {problem}")
        bad += bool(problems)
    print(f"kill -9: {args.rounds - bad} of {args.rounds} rounds kept everything; {load.granted} grants, {load.renewed} renewals, "
          f"{load.deleted} deletions acknowledged, {load.refused} refused; up to {held_then} leases, ready after at most {slowest_ready:.2f} s, "
          f"checked after {slowest_force:.2f} s; seed {args.seed}")
    if bad:
        print(f"the daemon's log ends with:\n{daemon.log_tail()}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
