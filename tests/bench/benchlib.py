"""What the measuring scripts share: hosts in network namespaces, the build, the machine line, tables."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
STARTED = time.monotonic()


def say(text):
    """Progress: to stderr, so that stdout holds the tables alone."""
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", file=sys.stderr, flush=True)


def die(text):
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr)
    sys.exit(1)


def run(*command, check=True, stdin=None, timeout=120):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def need(*programs):
    missing = [p for p in programs if not any(
        os.access(os.path.join(d, p), os.X_OK) for d in (os.environ.get("PATH", "") + ":/usr/sbin:/sbin").split(":"))]
    if missing:
        die(f"these programs are missing: {' '.join(missing)} (the packages are listed in .ci/packages)")


def need_root():
    if os.geteuid() != 0:
        die("network namespaces need root: run it with sudo")


# -- build

def optimised(build):
    try:
        cache = open(os.path.join(build, "CMakeCache.txt")).read()
    except OSError:
        return False
    kind = re.search(r"^CMAKE_BUILD_TYPE:\w+=(\w+)", cache, re.M)
    sanitizer = re.search(r"^SALLYPORT_SANITIZE:\w+=(\S+)", cache, re.M)
    return bool(kind and kind.group(1) in ("Release", "RelWithDebInfo") and not sanitizer)


def build(wanted, targets, fresh=True):
    """Directory of an optimised build that has the targets up to date; made when there is none."""
    where = wanted or next((d for d in (os.path.join(ROOT, n) for n in ("build-release", "build")) if optimised(d)), None)
    if where is None:
        where = os.path.join(ROOT, "build")
    where = os.path.abspath(where)
    if not os.path.exists(os.path.join(where, "CMakeCache.txt")):
        say(f"configuring {where}")
        run("cmake", "-S", ROOT, "-B", where, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", timeout=300)
    if not optimised(where):
        die(f"{where} is not an optimised build; figures of it would mean nothing")
    if fresh:
        say(f"building {' '.join(targets)} in {where}")
        done = subprocess.run(["cmake", "--build", where, "--target", *targets], capture_output=True, text=True)
        if done.returncode != 0:
            die("the build failed:\n" + done.stdout[-3000:])
    return where


# -- network namespaces

class Host:
    """A host: one network namespace, named after our process, gone when the lab is."""

    def __init__(self, name):
        self.name = f"{name}{os.getpid()}"
        self.path = f"/run/netns/{self.name}"
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def run(self, *command, **kw):
        return run("ip", "netns", "exec", self.name, *command, **kw)

    def popen(self, command, **kw):
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **kw)

    def own(self):
        """Refuses to go on when this name is the namespace we were started in."""
        if os.stat(self.path).st_ino == os.stat("/proc/self/ns/net").st_ino:
            die(f"{self.name} is the machine's own network namespace")

    def sysctl(self, **settings):
        self.own()
        for key, value in settings.items():
            self.run("sysctl", "-qw", f"{key.replace('__', '.')}={value}")

    def remove(self):
        run("ip", "netns", "del", self.name, check=False)


def link(one, one_name, other, other_name):
    one.ip("link", "add", one_name, "type", "veth", "peer", "name", other_name, "netns", other.name)
    one.ip("link", "set", one_name, "up")
    other.ip("link", "set", other_name, "up")


def address_batch(host, device, addresses):
    """Many addresses at once."""
    run("ip", "-n", host.name, "-batch", "-", stdin="".join(f"addr add {a} dev {device}\n" for a in addresses))


def stop(pid, seconds=6):
    """Ends a process of ours by its id."""
    for what, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 2)):
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            return
        until = time.monotonic() + wait
        while time.monotonic() < until:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return
            except ChildProcessError:  # it went to the background: another's child now, who may not have fetched it yet
                try:
                    if open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] in "ZX":
                        return
                except OSError:
                    return
            time.sleep(0.02)


def rss_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M).group(1))


# -- figures

def json_of(text):
    return json.loads(text.strip().splitlines()[-1])


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def number(value, digits=None):
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def ratio(ours, theirs):
    return None if not ours or not theirs or ours < 0 or theirs < 0 else ours / theirs


def times(value):
    return "-" if value is None else f"{number(value)}x"


def table(header, rows):
    """A Markdown table: first column left, the others right, padded so that it reads well unrendered too."""
    rows = [[str(c) for c in row] for row in rows]
    width = [max(len(r[k]) for r in [header, *rows]) for k in range(len(header))]
    def line(cells):
        return "| " + " | ".join(c.ljust(width[0]) if k == 0 else c.rjust(width[k]) for k, c in enumerate(cells)) + " |"
    rule = "|" + "|".join("-" * (width[k] + 1) + ("-" if k == 0 else ":") for k in range(len(header))) + "|"
    print("\n".join([line(header), rule, *map(line, rows)]), flush=True)


def other_load(seconds=0.5):
    """Share of the machine that others use now, in percent: asked while nothing of ours runs."""
    def idle():
        fields = open("/proc/stat").readline().split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
    began, before = time.monotonic(), idle()
    time.sleep(seconds)
    wall = (time.monotonic() - began) * os.cpu_count()
    return max(0.0, 100 * (1 - (idle() - before) / wall))


def machine(loads):
    model = re.search(r"^model name\s*:\s*(.*)$", open("/proc/cpuinfo").read(), re.M)
    commit = run("git", "-C", ROOT, "rev-parse", "--short=10", "HEAD", check=False).strip() or "unknown"
    if run("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no", check=False).strip():
        commit += " with changes"
    busy = f", others used {median(loads):.0f} % of it meanwhile" if loads else ""
    if loads and median(loads) > 15:
        print("The machine was busy with other work: figures are rough, ratios less so, CPU per packet and latencies most of all.\n")
    return (f"Machine: {model.group(1).strip() if model else os.uname().machine}, {os.cpu_count()} cores, "
            f"Linux {os.uname().release}, {time.strftime('%Y-%m-%d %H:%M')}, commit {commit}{busy}.")
