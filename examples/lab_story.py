"""The story that examples/lab tells, step by step; started by it, after the build."""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
import lab as lab_module  # noqa: E402
from lab import EXTERNAL, FAR, LAN, Lab, TcpEcho, UdpEcho, tcp_ask, udp_ask, wait_until  # noqa: E402

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
PCP_MAP = os.path.join(ROOT, "build/bin/pcp_map")
HOME = FAR  # where the people on the internet sit

PICTURE = f"""
   internet            gateway (sallyportd)           devices of the LAN
   {FAR} ----- {EXTERNAL} | {LAN} --+-- 192.168.50.11
                                                    |   console 1, web, NAS
                                                    +-- 192.168.50.12
                                                        console 2, camera, files
"""


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


class Failed(Exception):
    pass


class Story:
    def __init__(self):
        self.chapters = self.failures = 0
        self.daemon = None

    def chapter(self, title):
        self.chapters += 1
        print("\n" + paint("1", f"{self.chapters}. {title}"), flush=True)

    def good(self, text):
        print(f"   {paint('32', '✓')} {text}", flush=True)

    def command(self, where, *words):
        shown = " ".join(os.path.basename(w) if w.startswith("/") else w for w in words)
        print(paint("2", f"   {where}$ {shown}"), flush=True)

    def step(self, text, action, hint=None):
        """One step, one line: `text` once `action` has come to a true value; else the reason and what to look at."""
        try:
            value = action()
            if not value:
                raise Failed("it did not happen")
            self.good(text(value) if callable(text) else text)
            return value
        except Exception as error:  # whatever went wrong is told, and what to look at
            what = text("...") if callable(text) and not isinstance(error, KeyError) else text
            print(f"   {paint('31', '✗')} {what}\n     {str(error).strip().splitlines()[0]}", flush=True)
            self.look_at(hint)
            raise SystemExit(1) from None

    def look_at(self, hint):
        if self.daemon is None:
            return
        kept = tempfile.mkdtemp(prefix="sallyport-lab-log.")
        for path in (self.daemon.log_file, self.daemon.config_file):
            with contextlib.suppress(OSError):
                shutil.copy(path, kept)
        print(f"     look at: {kept}/log (the daemon's), {kept}/sallyport.toml"
              f"{chr(10) + '     or run: ' + hint if hint else ''}\n     the log's last lines:")
        print("\n".join("       " + line[:240] for line in self.daemon.log().splitlines()[-8:]), flush=True)


def opened_by_natpmpc(host, external, internal, protocol, seconds=3600):
    done = host.call("natpmpc", "-g", LAN, "-a", str(external), str(internal), protocol, str(seconds))
    match = re.search(r"Mapped public port (\d+)", done.stdout)
    if done.returncode != 0 or not match:
        raise Failed((done.stdout + done.stderr).strip().splitlines()[-1])
    return int(match[1])


def upnpc(host, *words):
    """What upnpc printed. It searches for the gateway each time, for 2 seconds."""
    done = host.call("upnpc", *words)
    if "Found valid IGD" not in done.stdout:
        raise Failed("upnpc found no gateway: " + ((done.stdout + done.stderr).strip().splitlines() or ["no word"])[-1].strip())
    return done.stdout


def opened_by_upnpc(host, *words):
    told = upnpc(host, *words)
    match = re.search(rf"external {re.escape(EXTERNAL)}:(\d+) \w+ is redirected to internal", told)
    if not match:
        raise Failed(told.strip().splitlines()[-1])
    return int(match[1])


def opened_by_pcp(host, *words):
    done = host.call(PCP_MAP, LAN, *words)
    match = re.search(r"-> .*|open: .*", done.stdout)
    port = re.search(rf"{re.escape(EXTERNAL)}:(\d+)", done.stdout)
    if done.returncode != 0 or not match or not port:
        raise Failed((done.stderr or done.stdout).strip())
    return int(port[1])


class Camera:
    """Sends a numbered picture ten times a second to everyone who watches, over TCP."""

    def __init__(self, host, port):
        self.listener = host.listen("0.0.0.0", port)
        self.listener.settimeout(0.2)
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while self.open:
            with contextlib.suppress(OSError):
                conn, _ = self.listener.accept()
                threading.Thread(target=self._stream, args=(conn,), daemon=True).start()

    def _stream(self, conn):
        number = 0
        with conn, contextlib.suppress(OSError):
            while self.open:
                number += 1
                conn.sendall(f"picture {number}\n".encode())
                time.sleep(0.1)

    def close(self):
        self.open = False
        self.listener.close()


def pictures(sock, count):
    """Reads until `count` pictures have come; how many came."""
    sock.settimeout(5)
    data = b""
    while data.count(b"\n") < count:
        more = sock.recv(4096)
        if not more:
            break
        data += more
    return data.count(b"\n")


def stream_ended(sock):
    """True once no picture comes any more; what had already arrived is read first."""
    sock.settimeout(1.5)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if not sock.recv(4096):
                return True
        except (TimeoutError, ConnectionError):
            return True
    return False


def tell(story, lab):
    stack = contextlib.ExitStack()
    internet, gateway, one, two = lab.internet, lab.gateway, lab.device1, lab.device2

    story.chapter("The gateway starts")
    story.command("gateway", "sallyportd", "--lan", "br0", "--wan", "wan0", "--data-plane", lab.data_plane)
    story.daemon = daemon = lab.daemon({"listen": {"protocols": ["pcp", "natpmp", "upnp"]}, "log": {"level": "info"}}, start=False)
    story.step("It says `sallyportd ready`: packets flow, PCP, NAT-PMP, UPnP are answered.", lambda: daemon.start(),
               f"{Lab.daemon_path} --config FILE")
    def seen_outside():
        with UdpEcho(internet, 7000) as site:
            answer = udp_ask(one, (HOME, 7000), tries=5)
            return answer and site.got[0][1][0] == EXTERNAL

    story.step(f"A device talks to the internet and is seen there as {EXTERNAL}.", seen_outside)
    story.step("From outside nobody gets in yet: a packet nobody asked for meets silence.",
               lambda: udp_ask(internet, (EXTERNAL, 3074), (HOME, 0), tries=1, wait=0.5) is None)

    story.chapter("Two consoles want the same port of a game: UDP 3074")
    console1 = stack.enter_context(UdpEcho(one, 3074, b"console 1 heard: ", "192.168.50.11"))
    console2 = stack.enter_context(UdpEcho(two, 3074, b"console 2 heard: ", "192.168.50.12"))
    story.command("console1", "natpmpc", "-g", LAN, "-a", "3074", "3074", "udp", "3600")
    first = story.step(lambda port: f"Console 1 asked by NAT-PMP and got {EXTERNAL}:{port}.",
                       lambda: opened_by_natpmpc(one, 3074, 3074, "udp"), f"natpmpc -g {LAN} -a 3074 3074 udp 3600")
    story.command("console2", PCP_MAP, LAN, "3074", "--protocol", "udp", "--external", "3074")
    second = story.step(lambda port: f"Console 2 asked by PCP; 3074 is taken, so it got {EXTERNAL}:{port}.",
                        lambda: opened_by_pcp(two, "3074", "--protocol", "udp", "--external", "3074",
                                              "--description", "game console 2"))
    if first == second:
        raise SystemExit("both consoles got the same port")
    for number, port in ((1, first), (2, second)):
        story.step(f"A player on the internet reaches console {number} at port {port}.",
                   lambda: udp_ask(internet, (EXTERNAL, port), (HOME, 0))[0].startswith(b"console %d" % number))

    def hairpin():
        def heard():
            console1.sock.sendto(b"join my game", (EXTERNAL, second))
            time.sleep(0.05)
            return console2.heard(b"join my game")

        return wait_until("console 2 hears console 1", heard) == (EXTERNAL, first)

    story.step("Console 1 reaches console 2 through the router's own address (hairpin).", hairpin)

    story.chapter("A camera, watched from the internet")
    camera = Camera(two, 8554)
    stack.callback(camera.close)
    by_upnp = ("-e", "camera", "-a", "192.168.50.12", "8554", "8554", "tcp")
    story.command("camera", "upnpc", *by_upnp)
    eye = story.step(lambda port: f"The camera found the gateway by UPnP and opened {EXTERNAL}:{port}.",
                     lambda: opened_by_upnpc(two, *by_upnp), f"upnpc {' '.join(by_upnp)}")
    viewer = story.step("Someone on the internet starts to watch.", lambda: internet.connect((EXTERNAL, eye), (HOME, 0)))
    stack.callback(viewer.close)
    story.step(lambda n: f"Pictures arrive: {n} in the first second.", lambda: pictures(viewer, 8))

    story.chapter("A web server and a file server share the one address")
    for host, path, text, wish, who, asks in (
            (one, "web", "Welcome to our house", 8080, "web server", "natpmpc"),
            (two, "files", "holiday photos", 8081, "file server", "pcp")):
        folder = os.path.join(lab.directory, path)
        os.makedirs(folder)
        with open(os.path.join(folder, "index.html"), "w") as file:
            file.write(text)
        host.popen(sys.executable, "-m", "http.server", "80", "--directory", folder, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
        if asks == "natpmpc":
            story.command("web", "natpmpc", "-g", LAN, "-a", str(wish), "80", "tcp", "3600")
            port = story.step(lambda p: f"The {who} (port 80 inside) opened {EXTERNAL}:{p}.",
                              lambda: opened_by_natpmpc(host, wish, 80, "tcp"))
        else:
            story.command("files", PCP_MAP, LAN, "80", "--external", str(wish), "--description", '"file server"')
            port = story.step(lambda p: f"The {who} (port 80 inside, too) opened {EXTERNAL}:{p}.",
                              lambda: opened_by_pcp(host, "80", "--external", str(wish), "--description", who))

        def fetched():
            page = internet.call("curl", "-sS", "-m", "5", f"http://{EXTERNAL}:{port}/")
            if text not in page.stdout:
                raise Failed(page.stderr or page.stdout)
            return page.stdout.strip()

        wait_until(f"the {who} listens", lambda: host.call("curl", "-s", "-m", "2", "http://127.0.0.1/").returncode == 0)
        story.step(lambda page: f"The internet reads there: {page!r}.", fetched,
                   f"curl http://{EXTERNAL}:{port}/")

    story.chapter("Remote access to a device")
    stack.enter_context(TcpEcho(one, 22, b"nas login, you said: "))
    story.command("nas", "natpmpc", "-g", LAN, "-a", "2222", "22", "tcp", "3600")
    door = story.step(lambda port: f"The NAS opened its login (22 inside) at {EXTERNAL}:{port}.",
                      lambda: opened_by_natpmpc(one, 2222, 22, "tcp"))
    story.step("Its owner logs in from a hotel.", lambda: tcp_ask(internet, (EXTERNAL, door), (HOME, 0))[0].startswith(b"nas login"))

    story.chapter("Who opened what?")
    story.command("gateway", "sallyport", "list")

    def listed():
        done = subprocess.run([Lab.cli_path, "--socket", daemon.socket, *(["--no-color"] if not COLOUR else []), "list"],
                              capture_output=True, text=True, env={**os.environ, "COLUMNS": "77"})
        if done.returncode != 0:
            raise Failed(done.stderr)
        print("\n".join("   " + line for line in done.stdout.splitlines()))
        return lab.leases(daemon)

    rows = story.step(lambda rows: f"{len(rows) if isinstance(rows, list) else 'All'} leases, whoever asked by whatever protocol, in one list.", listed)
    story.command("camera", "upnpc", "-l")

    def listed_by_upnp():
        entries = re.findall(r"^ *\d+ (?:TCP|UDP) .*", upnpc(two, "-l"), re.M)
        print("\n".join("   " + line for line in entries))
        return len(entries) == len(rows) and entries

    story.step("A device sees the same list by UPnP, the leases of other protocols too.", listed_by_upnp, "upnpc -l")
    revoked = next(row["id"] for row in rows if row["external"]["port"] == eye)

    story.chapter("The admin takes the camera's port back, for a day")
    story.command("gateway", "sallyport", "revoke", revoked, "--block", "24h")
    story.step(lambda _: f"{revoked} is revoked.", lambda: lab.cli_json(daemon, "revoke", revoked, "--block", "24h")["revoked"])
    story.step("The stream that was being watched has ended.", lambda: stream_ended(viewer))
    story.step("A new viewer finds the door shut.", lambda: lab_module.tcp_shut(internet, (EXTERNAL, eye)))

    def asks_again():
        done = two.call(PCP_MAP, LAN, "8554", "--external", "8554", "--tries", "1")
        if done.returncode == 0:
            raise Failed("it was given a port again: " + done.stdout)
        return "code 606" in upnpc(two, *by_upnp) and "refused" in done.stderr

    story.step("The camera asks again by UPnP, then tries PCP: refused both times.", asks_again)
    story.step("The others did not notice: console 2 still answers.",
               lambda: udp_ask(internet, (EXTERNAL, second), (HOME, 0))[0].startswith(b"console 2"))

    story.chapter("A packet nobody asked for")
    inside = [stack.enter_context(host.sniff("eth0")) for host in (one, two)]
    time.sleep(0.5)
    import wire
    for to, port in ((EXTERNAL, 40000), (EXTERNAL, 5000), ("192.168.50.11", 22), ("192.168.50.12", 8554)):
        packet = wire.tcp(HOME, 5555, to, port, wire.SYN)
        internet.send_frame("eth0", gateway.mac("wan0"), packet)
        internet.send_frame("eth0", gateway.mac("wan0"), wire.udp(HOME, 5555, to, port, b"let me in"))

    def nothing():
        answered = udp_ask(internet, (EXTERNAL, second), (HOME, 0))  # sent later, and it has arrived
        came = [p for sniffer in inside for p in sniffer.all(lambda p: p.source == HOME and p.sport == 5555)]
        if came:
            raise Failed(f"{len(came)} of 8 packets came through")
        return answered

    story.step("8 packets to unopened ports and to inside addresses: none came through.", nothing)

    story.chapter("The daemon is killed and started again")
    story.command("gateway", "kill", "-9", str(daemon.pid))
    daemon.kill()
    outside = stack.enter_context(internet.sniff("eth0"))

    def shut_both_ways():
        udp_ask(one, (HOME, 7000), tries=2, wait=0.3)
        got_out = outside.find(lambda p: p.dport == 7000)
        return not got_out and udp_ask(internet, (EXTERNAL, first), (HOME, 0), tries=1, wait=0.4) is None

    def goes_on():
        udp_ask(one, (HOME, 7000), tries=2, wait=0.3)
        got_out = outside.find(lambda p: p.dport == 7000)
        answer = udp_ask(internet, (EXTERNAL, first), (HOME, 0))
        return got_out and got_out.source == EXTERNAL and answer and answer[0].startswith(b"console 1")

    if lab.data_plane == "ebpf":
        story.step("While it is dead its programs in the kernel go on: console 1 is reached, what leaves is translated.", goes_on)
    else:
        story.step("While it is dead nothing gets out past it, or in: it fails closed.", shut_both_ways)
    story.step("Started again: every lease is back, and console 1 answers at its port.",
               lambda: daemon.start() and len(lab.leases(daemon)) == len(rows) - 1 and
               udp_ask(internet, (EXTERNAL, first), (HOME, 0))[0].startswith(b"console 1"))
    stack.close()


def tell_what_is_left():
    left = [name for name in os.listdir("/run/netns") if f"-{os.getpid()}-" in name] if os.path.isdir("/run/netns") else []
    print(f"Left behind: {' '.join(left)}" if left else "Cleaned up: the namespaces, the daemon and its files are gone.",
          flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-plane", default="tun")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    Lab.daemon_path, Lab.cli_path = os.path.join(ROOT, "build/bin/sallyportd"), os.path.join(ROOT, "build/bin/sallyport")
    Lab.data_plane = args.data_plane
    lab_module.guard()
    lab_module.at_end(tell_what_is_left)  # the first to be asked for is the last to run
    story = Story()
    print("\n" + paint("1", "Sallyport, shown on a small internet inside this machine") + PICTURE, end="", flush=True)
    began = time.monotonic()
    try:
        lab = Lab()
        tell(story, lab)
        print("\n" + paint("1;32", f"All of it worked, in {time.monotonic() - began:.0f} s.") +
              " Next: README.md, then sallyportd on your own router.")
        return 0
    except SystemExit:
        print("\n" + paint("1;31", "A step failed; the lines above say what to look at."))
        return 1
    finally:
        lab_module.clean_up()


if __name__ == "__main__":
    sys.exit(main())
