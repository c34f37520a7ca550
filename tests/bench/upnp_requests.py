"""What `requests` measures by UPnP: mappings a second, listings, many clients at once, bad neighbours."""

import json
import os
import shutil
import statistics
import sys

from benchlib import ROOT, address_batch, json_of, median, number, other_load, ratio, run, say, table, times

SOURCES = 128
GATEWAY = "192.168.4.1"
FIRST_SOURCE = "192.168.5.0"
IDLE_SOURCE, IDLE_SOURCES, IDLE = "192.168.6.1", 125, 1000
SLOW_SOURCE, SLOW_SOURCES, SLOW = "192.168.7.1", 25, 100
LEVELS = (0, 1000)
PATIENT = {"timeout_ms": 10000, "tries": 2}  # for a gateway that may need seconds; what takes longer counts as lost
WAYS = (("close", 64), ("keep", 64), ("close", 1), ("keep", 1))
WORDS = {"close": "a connection each", "keep": "kept connections"}


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Side:
    """One gateway, and how it is asked."""

    def __init__(self, gateway, where):
        self.gateway, self.name = gateway, gateway.name
        self.program = os.path.join(where, "bench", "bench_upnp")
        self.load_program = os.path.join(where, "bench", "bench_load")
        address_batch(gateway.device, "eth0", [f"192.168.6.{k + 1}/22" for k in range(IDLE_SOURCES)] +
                      [f"192.168.7.{k + 1}/22" for k in range(SLOW_SOURCES)])

    def find(self):
        """Where its WANIPConnection is controlled, learned as a device learns it."""
        text = self.gateway.device.run(sys.executable, os.path.join(ROOT, "tests", "lab", "upnp.py"), FIRST_SOURCE)
        service = next(s for s in json.loads(text)["services"] if ":WANIPConnection:" in s["type"])
        address, _, self.control = service["control"].removeprefix("http://").partition("/")
        host, _, port = address.partition(":")
        self.at = ["--server", host, "--port", port or "80", "--control", "/" + self.control, "--service", service["type"]]

    def ask(self, op, first=0, count=1, in_flight=64, connections="close", sources=SOURCES, timeout_ms=5000, tries=6,
            seconds=0, extra=(), first_source=FIRST_SOURCE):
        text = run("ip", "netns", "exec", self.gateway.device.name, self.program, *self.at, "--first-source", first_source,
                   "--sources", str(sources), "--op", op, "--first", str(first), "--count", str(count), "--in-flight",
                   str(in_flight), "--connections", connections, "--timeout-ms", str(timeout_ms), "--tries", str(tries),
                   "--max-seconds", str(seconds), *extra, check=False, timeout=900)
        if not text.strip():
            raise RuntimeError(f"{self.name}: bench_upnp gave no answer for {op}")
        result = json_of(text)
        bad = {k: result[k] for k in ("refused", "lost", "strange") if result[k]}
        if bad:
            say(f"  {self.name}: {op} by upnp at {self.gateway.leases} leases: {bad}")
        return result

    def fill(self, level):
        self.gateway.fill(self.load_program, level)


class Phase:
    def __init__(self, options, where, scratch, gateways, ours, peer, loads):
        self.options, self.where, self.scratch, self.gateways, self.loads = options, where, scratch, gateways, loads
        self.kinds = {"ours": ours, "miniupnpd": peer}
        self.rounds = 1 if options.quick else 3
        self.rates = {}      # (side, level, connections, in flight, op) -> a result for each turn
        self.single = {}     # (side, what) -> results
        self.notes = []
        self.listings = 0

    def raised(self, name, letter):
        """A new gateway that speaks UPnP, or None when this side is not wanted or does not."""
        kind = self.kinds[name]
        if kind is None:
            return None
        gateway = kind(letter, self.scratch, self.gateways)
        if name == "ours":
            gateway.start(self.where)
        else:
            gateway.upnp = "yes"
            gateway.start()
        side = Side(gateway, self.where)
        try:
            side.find()
        except RuntimeError as error:
            self.notes.append(f"{name} was not measured by UPnP: {str(error).splitlines()[-1].rpartition('upnp.py: ')[2]}")
            say(f"  {self.notes[-1]}")
            self.removed(side)
            return None
        return side

    def removed(self, side):
        side.gateway.remove()
        self.gateways.remove(side.gateway)
        shutil.rmtree(side.gateway.dir)

    def run(self):
        say("upnp: grants and deletions, listings")
        sides = [s for s in (self.raised("ours", "u"), self.raised("miniupnpd", "v")) if s]
        for level in (0, 100, 1000, 5000, 10000):
            here = [s for s in sides if level <= 1000 or s.name == "ours"]
            if not here:
                continue
            say(f"upnp: {level} mappings present, {' and '.join(s.name for s in here)}")
            for side in here:
                side.fill(level)
            for turn in range(self.rounds):
                self.loads.append(other_load())
                order = here if turn % 2 == 0 else here[::-1]
                if level in LEVELS:
                    for connections, in_flight in WAYS:
                        for side in order:
                            if side.name == "ours" or connections == "close":  # miniupnpd closes each anyway
                                self.grants(side, level, connections, in_flight)
                if level == 0:
                    for side in order:
                        self.clients(side)
                if level in (100, 5000):
                    for side in order:
                        self.listing(side, level)
                if level in (5000, 10000):
                    for side in order:  # TCP: every other lease
                        self.keep(side.name, f"range {level}", side.ask("range", 1, 1, 1, timeout_ms=60000))
        for side in sides:
            self.removed(side)
        self.neighbours()
        return self

    def keep(self, name, what, result):
        self.single.setdefault((name, what), []).append(result)

    def grants(self, side, level, connections, in_flight):
        """A turn: so many mappings made and deleted. A slow gateway is asked for what fits into its budget, and for
        at most 64, so that the level stays what it is called."""
        if side.name == "ours":
            few = self.options.quick
            count = (1000 if few else 4000) if in_flight > 1 else (200 if few else 1000)
            patience = {}
        else:
            budget = 1 if self.options.quick else 4
            trial = side.ask("add", level, 1, 1, timeout_ms=60000)
            side.ask("delete", level, 1, 1, timeout_ms=60000)
            count = max(1, min(64 if in_flight > 1 else 20, int(budget / max(trial["seconds"], 1e-4))))
            patience = PATIENT
        for op in ("add", "delete"):
            found = side.ask(op, level, count, in_flight, connections, **patience)
            self.rates.setdefault((side.name, level, connections, in_flight, op), []).append(found)
        if side.name != "ours" and found["ok"] != count:
            side.gateway.refill(level)

    def clients(self, side):
        """64 devices, each asking again as soon as it is answered."""
        seconds = 2 if self.options.quick else 4
        found = side.ask("add", 0, 8000 if side.name == "ours" else 512, 64, sources=64, seconds=seconds, **PATIENT)
        self.keep(side.name, "clients", found)
        if side.name == "ours":
            side.ask("delete", 0, max(1, found["next"]), 64, sources=64)
        if side.name != "ours":
            side.gateway.refill(0)

    def listing(self, side, level):
        for connections in ("close", "keep"):
            # each by a device that asked nothing before: our limit is 2,000 requests a second, 4,000 at once
            self.listings += 1
            found = side.ask("list", 0, 20000, 1, connections, timeout_ms=60000,
                             first_source=f"192.168.6.{1 + self.listings % IDLE_SOURCES}")
            if found["entries"] != level:
                self.notes.append(f"{side.name} listed {found['entries']:,} of {level:,} mappings")
            self.keep(side.name, f"list {level} {connections}", found)

    def neighbours(self):
        """What a device notices of others that take all the connections they can get."""
        say(f"upnp: {IDLE} idle connections and {SLOW} slow ones")
        bad = ["--idle", str(IDLE), "--idle-source", IDLE_SOURCE, "--idle-sources", str(IDLE_SOURCES),
               "--slow", str(SLOW), "--slow-source", SLOW_SOURCE, "--slow-sources", str(SLOW_SOURCES)]
        for name, letter in (("ours", "x"), ("miniupnpd", "y")):
            side = self.raised(name, letter)
            if side is None:
                continue
            self.loads.append(other_load())
            limit = {"count": 60000, "in_flight": 1, "sources": 1, "seconds": 3 if self.options.quick else 10}
            for what, extra in (("alone", ()), ("beside", bad)):
                found = side.ask("status", 0, **limit, timeout_ms=5000 if name == "ours" else 2000, extra=extra)
                found["died"] = not alive(side.gateway.pid)
                self.keep(name, what, found)
            self.removed(side)

    # -- the tables

    def figure(self, key, what):
        found = [r[what] for r in self.rates.get(key, []) if r["ok"]]
        return median(found)

    def one(self, name, what, key):
        return median([r[key] for r in self.single.get((name, what), []) if r["ok"]])

    def paired(self, a, b, key="rate"):
        return median([ratio(x[key], y[key]) for x, y in zip(a, b)])

    def report(self):
        def ms(us):
            return "-" if us is None else number(us / 1000, 2)

        if not self.rates and not self.single:
            for note in self.notes:
                print(f"- {note}")
            return
        print("## UPnP: sallyportd beside miniupnpd 2.3.1 (nftables)\n")
        print(f"{SOURCES} devices; AddPortMapping and DeletePortMapping a second, latency in ms\n")
        rows = []
        for in_flight in (64, 1):
            for level in LEVELS:
                for connections in ("close", "keep"):
                    for op in ("add", "delete"):
                        key = level, connections, in_flight, op
                        ours, peer = ("ours", *key), ("miniupnpd", level, "close", in_flight, op)
                        if ours not in self.rates and peer not in self.rates:
                            continue
                        rows.append([f"{op}, {WORDS[connections]}, {in_flight} in flight, {level:,} present",
                                     times(self.paired(self.rates.get(ours, []), self.rates.get(peer, []))),
                                     number(self.figure(ours, "rate")), number(self.figure(peer, "rate")),
                                     ms(self.figure(ours, "p50_us")), ms(self.figure(ours, "p99_us")),
                                     ms(self.figure(peer, "p50_us")), ms(self.figure(peer, "p99_us"))])
        table(["what", "ratio", "ours/s", "miniupnpd/s", "p50", "p99", "its p50", "its p99"], rows)
        print()
        rows = []

        def row(what, relation, ours, peer):
            if ours != "-" or peer != "-":
                rows.append([what, relation, ours, peer])

        for level in LEVELS:
            ours = self.figure(("ours", level, "close", 64, "add"), "rate")
            peer = max((self.figure(("miniupnpd", level, "close", n, "add"), "rate") or 0 for n in (64, 1)))
            row(f"mappings a second, a connection each, {level:,} present: ours 64 in flight, miniupnpd at its best",
                times(ratio(ours, peer)), number(ours), number(peer or None))
        ours, peer = (self.one(n, "clients", "p99_us") for n in ("ours", "miniupnpd"))
        row("64 clients at once, a connection each, p99 ms", times(ratio(ours, peer)), ms(ours), ms(peer))
        ours, peer = (self.one(n, "clients", "rate") for n in ("ours", "miniupnpd"))
        row("64 clients at once, mappings a second", times(ratio(ours, peer)), number(ours), number(peer))
        for connections in ("close", "keep"):
            a, b = (self.single.get((n, f"list 100 {connections}"), []) for n in ("ours", "miniupnpd"))
            row(f"listing 100 by index, {WORDS[connections]}, entries a second", times(self.paired(a, b)),
                number(median([r["rate"] for r in a])), number(median([r["rate"] for r in b])))
        for connections in ("close", "keep"):
            few, many = (self.one("ours", f"list {n} {connections}", "rate") for n in (100, 5000))
            if few and many:
                row(f"listing 5,000 by index, {WORDS[connections]}, cost of an entry to that among 100",
                    times(few / many), f"{number(1e6 / many)} us", "-")
        for level in (5000, 10000):
            found = self.single.get(("ours", f"range {level}"), [])
            if found:
                rows_found = statistics.median(r["rows"] for r in found)
                row(f"GetListOfPortMappings, {rows_found:,.0f} rows of {level:,} mappings, "
                    f"{median([r['octets'] for r in found]) / 1e6:.1f} MB, ms", "-", ms(self.one("ours", f"range {level}", "p50_us")), "-")
        for name in ("ours", "miniupnpd"):
            alone, beside = (self.single.get((name, w)) for w in ("alone", "beside"))
            if not alone or not beside:
                continue
            a, b = alone[0], beside[0]
            told = "it ended" if b["died"] else "no answer" if not b["ok"] else ms(b["p99_us"])
            relation = times(ratio(b["p99_us"], a["p99_us"])) if b["ok"] and not b["died"] else "-"
            what = (f"p99 ms of a device beside {IDLE:,} idle and {SLOW} slow connections, to its p99 alone "
                    f"({ms(a['p99_us'])})")
            row(f"{name}: {what}", relation, told if name == "ours" else "-", told if name != "ours" else "-")
            if b["lost"] or b["retransmitted"]:
                self.notes.append(f"{name} beside them: {b['ok']} answered, {b['lost']} lost, {b['retransmitted']} asked again")
            self.notes.append(f"{name}: {b['idle']} idle and {b['slow']} slow connections stood when the measuring began; "
                              f"{b['bystanders_closed']:,} were closed on them and offered again")
        table(["what", "ratio", "ours", "miniupnpd"], rows)
        print()
        for (name, level, connections, in_flight, op), found in self.rates.items():
            for r in found:
                bad = {k: r[k] for k in ("refused", "lost", "retransmitted", "strange") if r[k]}
                if bad:
                    self.notes.append(f"{name} at {level:,}: {op}, {WORDS[connections]}, {in_flight} in flight: " +
                                      ", ".join(f"{k} {v}" for k, v in bad.items()))
        for note in list(dict.fromkeys(self.notes))[:24]:
            print(f"- {note}")
        if self.notes:
            print()
