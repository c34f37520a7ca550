"""The programs of examples/, each on a device, reached from the internet: the shared library in other people's programs."""

import os
import re
import signal
import subprocess
import threading

from lab import EXTERNAL, FAR, LAN, end_process, wait_until
from labcase import LabCase

ECHO = """
import os, signal, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", int(sys.argv[1])))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(os.environ.get("SALLYPORT_EXTERNAL_ADDRESS"), os.environ.get("SALLYPORT_EXTERNAL_PORT"), flush=True)
while True:
    data, peer = sock.recvfrom(2000)
    sock.sendto(b"game " + data, peer)
"""


class Examples(LabCase):
    config = {"listen": {"protocols": ["pcp", "natpmp", "upnp"]}}

    def example(self, name, *words):
        """It runs on device1; its lines as they come."""
        path = os.path.join(self.lab.build, "examples", name)
        child = self.lab.device1.popen(path, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        child.lines = []

        def read():
            for line in child.stdout:
                child.lines.append(line.rstrip("\n"))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        self.addCleanup(reader.join, 10)
        self.addCleanup(end_process, child)
        return child

    def says(self, child, pattern):
        def found():
            for line in list(child.lines):
                match = re.search(pattern, line)
                if match:
                    return match
            self.assertIsNone(child.poll(), f"it ended: {child.lines}")
            return None

        try:
            return wait_until(f"a line like {pattern}", found)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said {child.lines}") from None

    def ends(self, child, number=signal.SIGTERM):
        """Its exit code after a signal; its leases have gone with it."""
        wait_until("there is one lease", lambda: len(self.leases("kind=explicit")) == 1)
        child.send_signal(number)
        code = child.wait(10)
        wait_until("the lease is given back", lambda: not self.leases("kind=explicit"))
        return code

    def answered(self, to, text):
        with self.lab.internet.connect(to) as sock:
            sock.sendall(text)
            return sock.recv(100)

    def test_echo_coroutine_on_the_programs_own_executor(self):
        port = self.port()
        echo = self.example("echo_coroutine", str(port))
        external = int(self.says(echo, re.escape(EXTERNAL) + r":(\d+)")[1])
        self.assertEqual(self.answered((EXTERNAL, external), b"hello"), b"hello")
        self.assertEqual(self.ends(echo), 0)
        self.shut_soon(external)

    def shut_soon(self, external):
        def shut():
            try:
                self.lab.internet.connect((EXTERNAL, external), timeout=0.3).close()
                return False
            except OSError:
                return True

        wait_until(f"tcp {external} is shut", shut)

    def test_file_server_tells_its_address_and_serves(self):
        directory = os.path.join(self.lab.directory, "files")
        os.makedirs(directory)
        with open(os.path.join(directory, "greeting"), "w") as file:
            file.write("good morning\n" * 1000)
        server = self.example("file_server", directory, str(self.port()))
        url = self.says(server, r"^http://([0-9.]+):(\d+)/$")
        self.assertEqual(url[1], EXTERNAL)

        def get(name):
            with self.lab.internet.connect((url[1], int(url[2]))) as sock:
                sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: {url[1]}\r\n\r\n".encode())
                whole = b""
                while part := sock.recv(65536):
                    whole += part
            head, _, body = whole.partition(b"\r\n\r\n")
            return int(head.split()[1]), body

        self.assertEqual(get("greeting"), (200, b"good morning\n" * 1000))
        self.assertEqual(get(""), (200, b"greeting\n"))
        self.assertEqual(get("../daemon")[0], 404)
        self.assertEqual(self.ends(server), 0)

    def test_open_port_wraps_a_game_server(self):
        port = self.port()
        game = self.example("open-port", "--protocol", "udp", str(port), "--", "python3", "-c", ECHO, str(port))
        external = int(self.says(game, "^" + re.escape(EXTERNAL) + r" (\d+)$")[1])
        with self.lab.internet.udp(FAR) as sock:
            sock.settimeout(0.5)

            def echoed():
                sock.sendto(b"move", (EXTERNAL, external))
                try:
                    return sock.recv(100) == b"game move"
                except TimeoutError:
                    return False

            wait_until("the game answers", echoed)
        self.assertEqual(self.ends(game), 7, "the exit code of the game, to which the signal went")

    def test_open_port_ends_with_its_program(self):
        done = self.example("open-port", str(self.port()), "--", "sh", "-c", "exit 3")
        self.assertEqual(done.wait(15), 3)
        wait_until("the lease is given back", lambda: not self.leases("kind=explicit"))

    def test_open_port_in_c(self):
        port = self.port()
        program = self.example("open_port_c", "udp", str(port))
        service = self.udp_service(port)
        external = int(self.says(program, "^open at " + re.escape(EXTERNAL) + r" port (\d+)$")[1])
        self.arrives(service, external)
        self.assertEqual(self.ends(program), 0)
        self.assertIn("closed", program.lines)

    def test_more_arrives_than_anybody_waits_for(self):
        """Descriptors of the library wake the program's reactor with nothing to do, from code that has Asio in headers."""
        echo = self.example("echo_coroutine", str(self.port()))
        external = int(self.says(echo, re.escape(EXTERNAL) + r":(\d+)")[1])
        with self.lab.gateway.udp(LAN) as sock:
            for _ in range(3000):
                sock.sendto(b"\x00\x80\x00\x00", ("224.0.0.1", 5350))
        for _ in range(50):
            self.lab.device1.ip("addr", "add", "192.168.50.77/24", "dev", "eth0")
            self.lab.device1.ip("addr", "del", "192.168.50.77/24", "dev", "eth0")
        self.assertEqual(self.answered((EXTERNAL, external), b"still here"), b"still here")
        self.assertEqual(self.ends(echo), 0)
