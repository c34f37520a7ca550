"""UPnP with other people's programs: each finds the gateway, opens its port, is reached from the internet, closes it.

Only UPnP is spoken here, so that a program that also knows NAT-PMP or PCP has no other way. What a program says it
did is checked by SOAP of our own (upnp.py) and by a TCP connection from the internet.
"""

import os
import re
import shutil
import subprocess
import threading
import time
import unittest
import urllib.parse

import lab as lab_module
import labcase
import upnp
from lab import DEVICE1, EXTERNAL, FAR, LAN, wait_until

SECONDS = 60  # the runner begins with what takes longest


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


class Lines:
    """A program of a device that goes on, and its lines as they come. `prefix` is put before the command: `stdbuf` for
    one that would keep its lines to itself as long as it writes to a pipe."""

    def __init__(self, host, *command, prefix=(), **kw):
        self.lines, self.changed, self.name = [], threading.Condition(), os.path.basename(command[0])
        self.process = host.popen(*prefix, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, errors="replace", **kw)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, pattern, after=0, seconds=None):
        """The match of the first line that fits, not counting the first `after` lines."""
        end = time.monotonic() + (lab_module.PATIENCE if seconds is None else seconds)
        with self.changed:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no line {pattern!r} from {self.name}:\n" + "\n".join(self.lines[-40:]))
                self.changed.wait(min(left, 0.2))

    def close(self, seconds=10):
        lab_module.end_process(self.process, seconds)
        self.thread.join(5)
        self.process.stdin.close()
        self.process.stdout.close()


class UpnpCase(labcase.UpnpCase):
    config = {"listen": {"protocols": ["upnp"]}}

    def mapping(self, external, protocol="tcp"):
        return self.wan().mapping(external, protocol)

    def mapped_to_device1(self, external, internal=None, protocol="tcp"):
        entry = wait_until(f"{protocol} {external} is mapped", lambda: self.mapping(external, protocol))
        self.assertEqual((entry["NewInternalClient"], int(entry["NewInternalPort"]), entry["NewEnabled"]),
                         (DEVICE1, external if internal is None else internal, "1"))
        return entry

    def shut(self, external, protocol="tcp"):
        wait_until(f"{protocol} {external} is no longer mapped", lambda: self.mapping(external, protocol) is None)
        super().shut(external)

    def directory(self, name):
        path = os.path.join(self.lab.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def lines(self, *command, device=1, **kw):
        out = Lines(self.lab.devices[device], *command, **kw)
        self.addCleanup(out.close)
        return out

    def peer(self, name):
        path = os.path.join(self.lab.build, "tests-lab", name)
        if not os.access(path, os.X_OK):
            self.skipTest(f"{path} is not built (its library was missing)")
        return path


@needs("upnpc")
class Upnpc(UpnpCase):
    def upnpc(self, *words, code=0):
        done = self.lab.device1.call("upnpc", "-m", "eth0", *words)
        if code is not None:
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_status_is_a_connected_gateway_with_its_external_address(self):
        text = self.upnpc("-s")
        self.assertRegex(text, rf"Found valid IGD : http://{re.escape(LAN)}:\d+/")
        self.assertIn(f"Local LAN ip address : {DEVICE1}", text)
        self.assertRegex(text, r"Connection Type : IP_Routed")
        self.assertRegex(text, r"Status : Connected, uptime=\d+s")
        self.assertIn(f"ExternalIPAddress = {EXTERNAL}", text)

    def test_add_list_and_delete_with_and_without_a_lease(self):
        for lease in (0, 60):
            with self.subTest(lease=lease):
                port, wanted = self.port(), self.port()
                service = self.tcp_service(port, name=b"upnpc:")
                text = self.upnpc("-e", "a service of the lab", "-a", DEVICE1, str(port), str(wanted), "tcp", str(lease))
                told = rf"external {EXTERNAL}:{wanted} TCP is redirected to internal {DEVICE1}:{port} \(duration=(\d+)\)"
                self.assertRegex(text, told)
                granted = int(re.search(told, text)[1])
                self.assertTrue(lease - 5 < granted <= lease if lease else granted in (0, 604800), text)  # WIC-ADD-11, 12
                entry = self.mapped_to_device1(wanted, port)
                self.assertEqual(entry["NewPortMappingDescription"], "a service of the lab")
                if lease:
                    self.assertTrue(0 < int(entry["NewLeaseDuration"]) <= lease, entry)
                self.reached(service, wanted)
                listed = self.upnpc("-l")
                self.assertRegex(listed, rf"TCP\s+{wanted}->{re.escape(DEVICE1)}:{port}\s+'a service of the lab' ''")
                gone = self.upnpc("-d", str(wanted), "tcp")
                self.assertIn("UPNP_DeletePortMapping() returned : 0", gone)
                self.shut(wanted)
                self.assertNotIn(f"{wanted}->", self.upnpc("-l"))

    def test_the_daemon_lists_what_upnpc_made_as_upnp(self):
        port = self.port()
        self.upnpc("-a", DEVICE1, str(port), str(port), "udp", "600")
        row = self.lease("udp", port)
        self.assertEqual((row["via"], row["internal"]), ("upnp", {"address": DEVICE1, "port": port}))
        self.upnpc("-d", str(port), "udp")
        self.assertEqual([x for x in self.leases() if x["external"]["port"] == port], [])

    def test_several_ports_at_once_by_r(self):
        tcp, udp, wanted = self.port(), self.port(), self.port()
        service = self.tcp_service(tcp, name=b"r:")
        self.upnpc("-r", str(tcp), str(wanted), "tcp", str(udp), "udp")
        self.mapped_to_device1(wanted, tcp)
        self.mapped_to_device1(udp, protocol="udp")
        self.reached(service, wanted)
        self.upnpc("-d", str(wanted), "tcp")
        self.upnpc("-d", str(udp), "udp")
        self.shut(wanted)

    def test_the_list_by_range_is_that_by_index(self):
        ports = [self.port() for _ in range(3)]
        for port in ports:
            self.upnpc("-a", DEVICE1, str(port), str(port), "tcp")
        by_range = self.upnpc("-L")
        for port in ports:
            self.assertRegex(by_range, rf"TCP\s+{port}->{re.escape(DEVICE1)}:{port}\s")

    def test_any_free_port_when_another_device_has_it(self):
        port = self.port()
        self.wan(2).add(port)
        text = self.upnpc("-n", DEVICE1, str(port), str(port), "tcp", "300")
        match = re.search(rf"external {EXTERNAL}:(\d+) TCP is redirected to internal {DEVICE1}:{port}", text)
        self.assertIsNotNone(match, text)
        self.assertNotEqual(int(match[1]), port)
        self.reached(self.tcp_service(port, name=b"n:"), int(match[1]))
        self.upnpc("-d", match[1], "tcp")
        self.shut(int(match[1]))

    def test_the_port_of_another_device_is_refused_and_stays(self):
        port = self.port()
        self.wan(2).add(port)
        text = self.upnpc("-a", DEVICE1, str(port), str(port), "tcp", code=None)
        self.assertRegex(text, r"AddPortMapping\([^)]*\) failed with code 718")
        self.assertEqual(self.mapping(port)["NewInternalClient"], "192.168.50.12")
        self.assertRegex(self.upnpc("-d", str(port), "tcp", code=None),
                         r"UPNP_DeletePortMapping\(\) (failed with code|returned) :? ?(606|714)")
        self.assertIsNotNone(self.mapping(port))

    def test_a_pinhole_is_refused_where_there_is_no_ipv6(self):
        """upnpc sends AddPinhole whatever the description says: it is told no, and the gateway goes on."""
        text = self.upnpc("-A", "", "0", "2001:db8::11", str(self.port()), "6", "60", code=None)
        self.assertRegex(text, r"AddPinhole\(.*\) failed with code -?\d+")
        self.upnpc("-D", "1", code=None)
        self.assertRegex(self.upnpc("-s"), "Status : Connected")


@needs("gssdp-discover")
class GssdpDiscover(UpnpCase):
    def discovered(self, *words, seconds=3):
        return self.lab.device1.call("gssdp-discover", "-i", "eth0", "-n", str(seconds), *words).stdout

    def test_all_that_the_gateway_is(self):
        text = self.discovered("-t", "ssdp:all")
        for wanted in ("upnp:rootdevice", upnp.IGD, upnp.WAN_DEVICE, upnp.WAN_CONNECTION_DEVICE, upnp.WANIP, upnp.WAN_COMMON):
            self.assertIn(wanted, text)
        self.assertEqual(set(re.findall(r"Location:\s*http://([^:/\s]+)", text)), {LAN}, text)

    def test_a_search_for_version_1_finds_it(self):
        for target in (upnp.ROOT_DEVICE, upnp.IGD + "1", upnp.WANIP + "1"):
            self.assertRegex(self.discovered("-t", target), rf"(?s){re.escape(target)}.*Location:\s*http://{LAN}:", target)

    def test_nothing_is_found_for_a_kind_it_is_not(self):
        self.assertIn("Location", self.discovered("-t", upnp.IGD + "1"))
        self.assertNotIn("Location", self.discovered("-t", "urn:schemas-upnp-org:device:MediaServer:1"))


@needs("gupnp-event-dumper")
class GupnpEventDumper(UpnpCase):
    def test_is_told_the_default_connection_L3F_03(self):
        """The dumper subscribes to what the root device holds: Layer3Forwarding."""
        dumper = self.lines("gupnp-event-dumper", prefix=("stdbuf", "-oL"))
        told = dumper.wait(r"\|(uuid:[^|]+)\|urn:upnp-org:serviceId:L3Forwarding1\|DefaultConnectionService\|(.*)", seconds=20)
        self.assertEqual(told[1], self.gateway().description.root.udn)
        connection = self.wan().about
        self.assertEqual(told[2], f"{connection.device.udn}:{connection.device.type.rsplit(':device:')[1]},{connection.id}")


class LibupnpControlPoint(UpnpCase):
    def start_point(self):
        point = self.lines(self.peer("libupnp_control_point"), "eth0")
        point.wait(rf"^found http://{re.escape(LAN)}:\d+/", seconds=30)
        return point, int(point.wait(r"^subscribed uuid:\S+ (\d+)$")[1])

    def test_subscribes_and_is_told_all_that_is_evented_first_UDA_4_13(self):
        point, granted = self.start_point()
        self.assertTrue(0 < granted <= 86400)
        self.assertEqual(point.wait(r"^event 0 ExternalIPAddress=(.*)")[1], EXTERNAL)
        self.assertEqual(point.wait(r"^event 0 ConnectionStatus=(.*)")[1], "Connected")
        self.assertRegex(point.wait(r"^event 0 PortMappingNumberOfEntries=(.*)")[1], r"^\d+$")
        self.assertIn("IP_Routed", point.wait(r"^event 0 PossibleConnectionTypes=(.*)")[1])
        point.say("quit")
        point.wait("^unsubscribed$")

    def test_a_mapping_of_its_own_is_opened_evented_reached_and_closed_UDA_4_16(self):
        point, _ = self.start_point()
        before = int(point.wait(r"^event 0 PortMappingNumberOfEntries=(\d+)")[1])
        port = self.port()
        service = self.tcp_service(port, name=b"libupnp:")
        point.say(f"add tcp {port} {DEVICE1}")
        point.wait(f"^added {port}$")
        self.mapped_to_device1(port)
        point.wait(rf"^event [1-9]\d* PortMappingNumberOfEntries={before + 1}$")
        self.reached(service, port)
        told = len(point.lines)
        point.say(f"delete tcp {port}")
        point.wait(f"^deleted {port}$")
        point.wait(rf"^event [1-9]\d* PortMappingNumberOfEntries={before}$", told - 1)
        self.shut(port)
        point.say(f"delete tcp {port}")
        point.wait("^error 714 ")

    def test_what_another_device_does_is_told_too(self):
        point, _ = self.start_point()
        before = int(point.wait(r"^event 0 PortMappingNumberOfEntries=(\d+)")[1])
        port = self.port()
        self.wan(2).add(port, "UDP")
        point.wait(rf"^event [1-9]\d* PortMappingNumberOfEntries={before + 1}$")
        self.wan(2).delete(port, "UDP")

    def test_a_renewal_keeps_the_subscription_UDA_4_09(self):
        point, _ = self.start_point()
        sid = point.wait(r"^subscribed (\S+) ")[1]
        told = len(point.lines)
        point.say("renew")
        self.assertEqual(point.wait(r"^(?:subscribed|error) (\S+)", told)[1], sid)

    def test_status_is_asked_and_another_devices_address_is_refused_WIC_ADD_04(self):
        point, _ = self.start_point()
        point.say("ask GetExternalIPAddress")
        self.assertEqual(point.wait(r"^answer NewExternalIPAddress=(.*)")[1], EXTERNAL)
        point.say(f"add tcp {self.port()} 192.168.50.12")
        self.assertEqual(point.wait(r"^(?:added|error) (\d+)")[1], "606")


class Libminiupnpc(UpnpCase):
    def program(self, *words, code=0):
        done = self.lab.device1.call(self.peer("libminiupnpc_map"), "eth0", *map(str, words))
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def test_finds_adds_lists_and_deletes(self):
        self.assertRegex(self.program("find"), rf"^gateway http://{LAN}:\d+/\S* own {DEVICE1} external {EXTERNAL}$")
        port, wanted = self.port(), self.port()
        service = self.tcp_service(port, name=b"miniupnpc:")
        self.assertIn(f"mapped {wanted}\n", self.program("add", "tcp", wanted, port, 600))
        self.mapped_to_device1(wanted, port)
        self.reached(service, wanted)
        for way in ("list", "range"):
            match = re.search(rf"^entry tcp {wanted} {DEVICE1}:{port} (\d+) libminiupnpc program$", self.program(way), re.M)
            self.assertIsNotNone(match, way)
            self.assertTrue(0 < int(match[1]) <= 600)
        self.assertIn(f"deleted {wanted}\n", self.program("delete", "tcp", wanted))
        self.shut(wanted)
        self.assertIn("error 714", self.program("delete", "tcp", wanted, code=3))

    def test_any_port_it_is_given_works_WIC_ANY_02(self):
        port = self.port()
        self.wan(2).add(port)
        service = self.tcp_service(port, name=b"any:")
        given = int(re.search(r"^mapped (\d+)$", self.program("any", "tcp", port, port, 600), re.M)[1])
        self.assertNotEqual(given, port)
        self.reached(service, given)
        self.program("delete", "tcp", given)
        self.shut(given)

    def test_what_another_device_has_is_refused_WIC_ADD_03(self):
        port = self.port()
        self.wan(2).add(port)
        self.assertIn("error 718", self.program("add", "tcp", port, port, 600, code=3))


@needs("transmission-daemon")
class Transmission(UpnpCase):
    def test_maps_its_peer_port_and_unmaps_it_when_it_ends(self):
        home, port = self.directory("transmission"), self.port()
        with open(os.path.join(home, "settings.json"), "w") as out:
            out.write(f"""{{"peer-port": {port}, "peer-port-random-on-start": false, "port-forwarding-enabled": true,
 "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "rpc-enabled": false,
 "blocklist-enabled": false, "bind-address-ipv4": "0.0.0.0", "download-dir": "{home}"}}""")
        program = self.lines("transmission-daemon", "--foreground", "--config-dir", home, "--log-debug",
                             env={**os.environ, "HOME": home})
        program.wait(r"(?i)found internet gateway device|port forwarding successful", seconds=40)
        entry = self.mapped_to_device1(port)
        self.assertIn("Transmission", entry["NewPortMappingDescription"])
        self.lab.internet.connect((EXTERNAL, port), (FAR, 0)).close()  # it hangs up on strangers, after accepting them
        program.close(20)
        self.shut(port)
        wait_until("its UDP port is no longer mapped", lambda: self.mapping(port, "udp") is None)


@needs("qbittorrent-nox")
class Qbittorrent(UpnpCase):
    def page(self, path, form=b""):
        """What its page on loopback answers."""
        answer = upnp.exchange(self.lab.device1, ("127.0.0.1", 18080), upnp.request(
            "POST", f"http://127.0.0.1:18080/api/v2/{path}",
            [("Content-Type", "application/x-www-form-urlencoded"), ("Connection", "close")], form))
        self.assertEqual(answer.status, 200, answer)
        return answer.body.decode()

    def test_maps_its_port_and_unmaps_it_when_told_to(self):
        """It forgets to unmap when it ends, so it is told before, by its page on loopback."""
        home, port = self.directory("qbittorrent"), self.port()
        os.makedirs(os.path.join(home, "qBittorrent", "config"), exist_ok=True)
        with open(os.path.join(home, "qBittorrent", "config", "qBittorrent.conf"), "w") as out:
            out.write(f"""[LegalNotice]
Accepted=true

[BitTorrent]
Session\\Port={port}
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\Interface=eth0
Session\\InterfaceName=eth0
Session\\InterfaceAddress={DEVICE1}

[Network]
PortForwardingEnabled=true

[Preferences]
WebUI\\Enabled=true
WebUI\\Address=127.0.0.1
WebUI\\Port=18080
WebUI\\UseUPnP=false
WebUI\\LocalHostAuth=false
WebUI\\HostHeaderValidation=false
General\\Locale=C
""")
        self.lines("qbittorrent-nox", f"--profile={home}", env={**os.environ, "HOME": home, "LC_ALL": "C.UTF-8"})
        entry = wait_until("qbittorrent's port is mapped", lambda: self.mapping(port), 40)
        self.assertEqual((entry["NewInternalClient"], int(entry["NewInternalPort"])), (DEVICE1, port))
        self.lab.internet.connect((EXTERNAL, port), (FAR, 0)).close()
        wait_until("its UDP port is mapped", lambda: self.mapping(port, "udp"))
        # it drops a wish to unmap that comes while it still waits for an answer of the gateway
        wait_until("qbittorrent knows that both are", lambda: set(re.findall(
            rf"port mapping succeeded[^}}]*(TCP|UDP)/{port}", self.page("log/main"))) == {"TCP", "UDP"})
        self.page("app/setPreferences", b"json=" + urllib.parse.quote('{"upnp": false}').encode())
        self.shut(port)
