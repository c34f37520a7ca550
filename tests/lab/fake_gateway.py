"""A gateway that speaks PCP, NAT-PMP and UPnP and does as it is told: lies, drops, repeats, restarts.

It translates nothing. What it would answer honestly is made first; a vice gets that and says what is sent instead.
"""

import contextlib
import re
import socket
import struct
import threading
import time

import upnp
import wire
from lab import EXTERNAL, LAN

SERVICE = upnp.WANIP + "1"
ROOT = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>Fake</friendlyName>
<manufacturer>m</manufacturer><modelName>n</modelName><UDN>uuid:%(name)s-0</UDN><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><UDN>uuid:%(name)s-1</UDN><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><UDN>uuid:%(name)s-2</UDN><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<SCPDURL>/scpd.xml</SCPDURL><controlURL>%(control)s</controlURL><eventSubURL>/events</eventSubURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>
"""


def http_answer(body, status="200 OK", fields=()):
    body = body if isinstance(body, bytes) else body.encode()
    return (f"HTTP/1.1 {status}\r\n{upnp.fields(fields)}Content-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def soap_answer(action, arguments=()):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in arguments)
    return http_answer(f'<?xml version="1.0"?><s:Envelope xmlns:s="{upnp.SOAP_NS}" s:encodingStyle="{upnp.SOAP_ENCODING}">'
                       f'<s:Body><u:{action}Response xmlns:u="{SERVICE}">{inner}</u:{action}Response></s:Body></s:Envelope>')


def soap_fault(code, text="no"):
    return http_answer(f'<s:Envelope xmlns:s="{upnp.SOAP_NS}"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>'
                       f'UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}'
                       f'</errorCode><errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>',
                       "500 Internal Server Error")


class FakeGateway:
    """`vices` are by internal port: vice(honest) gives what is sent in its place, a list of octets, each perhaps with
    a delay before it: (seconds, octets). `descriptions` are by the name that a searcher was given as LOCATION."""

    def __init__(self, host, speaks=("pcp", "natpmp", "upnp"), address=LAN, external=EXTERNAL):
        self.host, self.speaks, self.address, self.external = host, speaks, address, external
        self.vices, self.descriptions, self.locations = {}, {}, {}
        self.impostor = None  # is told each answer and who gets it, before it goes out
        self.expected, self.searchers = "fake", {}
        self.leases, self.asked, self.lock = {}, [], threading.RLock()
        self.longest = 86400
        self.since, self.boot, self.control = time.monotonic() - 1000, 1, "/control/1"
        self.open = True
        self.socks, self.threads = [], []
        if {"pcp", "natpmp"} & set(speaks):
            self.port5351 = host.udp(address, 5351, timeout=0.2)
            self._run(self.port5351, self._on_5351)
        if "upnp" in speaks:
            self.port1900 = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.port1900.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.port1900.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                                     socket.inet_aton(upnp.GROUP[0]) + socket.inet_aton(address))
            self.port1900.bind(upnp.GROUP)
            self.port1900.settimeout(0.2)
            self.from1900 = host.udp(address, 0)
            self._run(self.port1900, self._on_search)
            self.http = host.listen(address, 5000)
            self.http.settimeout(0.2)
            self._thread(self._accept)
            self.socks += [self.http, self.from1900]

    def _run(self, sock, handle):
        def serve():
            while self.open:
                try:
                    data, sender = sock.recvfrom(4096)
                except (TimeoutError, ConnectionError):
                    continue
                except OSError:
                    return
                handle(data, sender)

        self.socks.append(sock)
        self._thread(serve)

    def _thread(self, function):
        self.threads.append(threading.Thread(target=function, daemon=True))
        self.threads[-1].start()

    def close(self):
        self.open = False
        for thread in self.threads:
            thread.join()
        for sock in self.socks:
            sock.close()

    def epoch(self):
        return int(time.monotonic() - self.since)

    def restart(self, external=None, control=None):
        """Everything is forgotten, and said so as the standards want it."""
        with self.lock:
            self.leases.clear()
            self.since, self.boot = time.monotonic(), self.boot + 1
            self.external, self.control = external or self.external, control or self.control
        if "pcp" in self.speaks:
            self.port5351.sendto(struct.pack("!BBBBII", 2, 128, 0, 0, 0, self.epoch()) + bytes(12), ("224.0.0.1", 5350))
        if "natpmp" in self.speaks:
            self.port5351.sendto(self.natpmp_address(), ("224.0.0.1", 5350))
        if "upnp" in self.speaks:
            target = upnp.IGD + "1"
            self.from1900.sendto((f"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCACHE-CONTROL: max-age=1800\r\n"
                                  f"LOCATION: {self.location('fake')}\r\nNT: {target}\r\nNTS: ssdp:alive\r\nSERVER: fake\r\n"
                                  f"USN: uuid:fake-0::{target}\r\nBOOTID.UPNP.ORG: {self.boot}\r\n\r\n").encode(), upnp.GROUP)

    # -- who has what

    def grant(self, protocol, client, internal, wish, lifetime, name=None):
        with self.lock:
            key = (protocol, client, internal)
            if lifetime == 0:
                self.leases.pop(key, None)
                return wish
            taken = {external for k, (external, _) in self.leases.items() if k[0] == protocol and k != key}
            external = self.leases[key][0] if key in self.leases else next(
                port for port in range(wish or internal, 65536) if port not in taken)
            self.leases[key] = external, name
            return external

    def held(self, protocol, internal):
        with self.lock:
            return [external for (p, _, i), (external, _) in self.leases.items() if (p, i) == (protocol, internal)]

    # -- PCP and NAT-PMP

    def natpmp_address(self):
        return struct.pack("!BBHI", 0, 128, 0, self.epoch()) + socket.inet_aton(self.external)

    def _on_5351(self, data, sender):
        honest, port = self.honest_5351(data, sender)
        self.asked.append((time.monotonic(), sender, data))
        if honest is None:
            return
        if self.impostor:
            self.impostor(honest, sender)
        for part in self.vices.get(port, lambda it: [it])(honest):
            delay, octets = part if isinstance(part, tuple) else (0, part)
            if delay:
                threading.Timer(delay, self._send_5351, (octets, sender)).start()
            else:
                self._send_5351(octets, sender)

    def _send_5351(self, octets, sender):
        with contextlib.suppress(OSError):
            self.port5351.sendto(octets, sender)

    def honest_5351(self, data, sender):
        version = data[0] if data else None
        if version == 2 and "pcp" in self.speaks and len(data) >= 24:
            opcode, lifetime = data[1], min(struct.unpack_from("!I", data, 4)[0], self.longest)
            head = lambda result, left: struct.pack("!BBBBII", 2, 128 | opcode, 0, result, left, self.epoch()) + bytes(12)
            if opcode == wire.ANNOUNCE:
                return head(0, 0), None
            if opcode != wire.MAP or len(data) < 60:
                return head(wire.UNSUPP_OPCODE, 60) + data[24:], None
            protocol, internal, wish = struct.unpack_from("!BxxxHH", data, 36)
            protocol = {6: "tcp", 17: "udp"}[protocol]
            external = self.grant(protocol, sender[0], internal, wish, lifetime, data[24:36])
            return (head(0, lifetime) + data[24:36] + struct.pack("!BxxxHH", data[36], internal, external) +
                    wire.v6(self.external)), internal
        if version == 0 and "natpmp" in self.speaks and len(data) >= 2:
            if data[1] == 0:
                return self.natpmp_address(), None
            if data[1] in (1, 2) and len(data) >= 12:
                internal, wish, lifetime = struct.unpack_from("!HHI", data, 4)
                external = self.grant("udp" if data[1] == 1 else "tcp", sender[0], internal, wish, lifetime)
                return struct.pack("!BBHIHHI", 0, 128 | data[1], 0, self.epoch(), internal, external if lifetime else 0,
                                   min(lifetime, self.longest)), internal
        if "natpmp" in self.speaks and version:
            return struct.pack("!BBHI", 0, 0, 1, self.epoch()), None  # RFC 6886, 3.5
        if "pcp" in self.speaks and version is not None:
            return struct.pack("!BBBBII", 2, 128 | (data[1] if len(data) > 1 else 0), 0, 1, 60, self.epoch()) + bytes(12), None
        return None, None

    # -- UPnP

    def location(self, name):
        return self.locations.get(name, f"http://{self.address}:5000/{name}.xml")

    def _on_search(self, data, sender):
        text = data.decode("latin-1")
        target = re.search(r"^ST: *(.*?)\r?$", text, re.M | re.I)
        if not text.startswith("M-SEARCH") or not target or target[1] not in (upnp.IGD + "1", SERVICE):
            return
        name = self.searchers.setdefault(sender, self.expected)
        self.from1900.sendto((f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nEXT:\r\nLOCATION: {self.location(name)}\r\n"
                              f"SERVER: fake\r\nST: {target[1]}\r\nUSN: uuid:{name}-{'0' if 'device' in target[1] else '2'}::{target[1]}\r\n"
                              f"BOOTID.UPNP.ORG: {self.boot}\r\n\r\n").encode(), sender)

    def _accept(self):
        while self.open:
            try:
                conn, sender = self.http.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn, sender), daemon=True).start()

    def _serve(self, conn, sender):
        with conn, contextlib.suppress(OSError, ConnectionError):
            conn.settimeout(20)
            reader = upnp.Reader(conn)
            while self.open and (message := reader.message(request=True)):
                self.asked.append((time.monotonic(), sender, message))
                honest, vice = self.honest_http(message, sender)
                for part in (vice or (lambda it: [it]))(honest):
                    delay, octets = part if isinstance(part, tuple) else (0, part)
                    time.sleep(delay)
                    if octets is None:
                        return  # closes
                    conn.sendall(octets)

    def honest_http(self, message, sender):
        path = message.start.split()[1]
        if message.start.startswith("GET"):
            name = path.strip("/").removesuffix(".xml")
            return http_answer(ROOT % {"name": name, "control": self.control}), self.descriptions.get(name)
        if path != self.control:
            return http_answer("", "404 Not Found"), None
        action = message["soapaction"].strip('"').split("#")[1]
        body = message.body.decode()
        value = lambda name: (re.search(f"<{name}>(.*?)</{name}>", body) or [None, ""])[1]
        if action == "GetStatusInfo":
            return soap_answer(action, [("NewConnectionStatus", "Connected"), ("NewLastConnectionError", "ERROR_NONE"),
                                        ("NewUptime", 1000)]), None
        if action == "GetExternalIPAddress":
            return soap_answer(action, [("NewExternalIPAddress", self.external)]), None
        protocol = value("NewProtocol").lower()
        if action == "AddPortMapping":
            internal, wish = int(value("NewInternalPort")), int(value("NewExternalPort"))
            with self.lock:
                if any(k[0] == protocol and external == wish and k[2] != internal for k, (external, _) in self.leases.items()):
                    return soap_fault(718, "ConflictInMappingEntry"), None
            self.grant(protocol, value("NewInternalClient"), internal, wish, 1, value("NewPortMappingDescription"))
            return soap_answer(action), self.vices.get(internal)
        external = int(value("NewExternalPort") or 0)
        with self.lock:
            found = next((k for k, (e, _) in self.leases.items() if k[0] == protocol and e == external), None)
            if found is None:
                return soap_fault(714, "NoSuchEntryInArray"), None
            if action == "DeletePortMapping":
                del self.leases[found]
                return soap_answer(action), None
            if action == "GetSpecificPortMappingEntry":
                return soap_answer(action, [("NewInternalPort", found[2]), ("NewInternalClient", found[1]), ("NewEnabled", 1),
                                            ("NewPortMappingDescription", "x"), ("NewLeaseDuration", 600)]), None
        return soap_fault(401, "Invalid Action"), None
