"""SSDP, descriptions, SOAP and GENA as bytes, written from UDA 1.1 and WANIPConnection and independent of the C++ codecs.

Also a program, for scripts that need to know where a gateway's control URL is:
    upnp.py ADDRESS    searches from this own address and prints the gateway it finds as JSON
"""

import contextlib
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree as xml
from types import SimpleNamespace
from xml.sax.saxutils import escape

from lab import LAN, PATIENCE

GROUP = ("239.255.255.250", 1900)
GROUP6 = ("ff02::c", 1900)
DEVICE_NS = "urn:schemas-upnp-org:device-1-0"
SERVICE_NS = "urn:schemas-upnp-org:service-1-0"
CONTROL_NS = "urn:schemas-upnp-org:control-1-0"
EVENT_NS = "urn:schemas-upnp-org:event-1-0"
SOAP_NS = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"

ROOT_DEVICE = "upnp:rootdevice"
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
WAN_DEVICE = "urn:schemas-upnp-org:device:WANDevice:"
WAN_CONNECTION_DEVICE = "urn:schemas-upnp-org:device:WANConnectionDevice:"
WANIP = "urn:schemas-upnp-org:service:WANIPConnection:"
WAN_COMMON = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:"
LAYER3 = "urn:schemas-upnp-org:service:Layer3Forwarding:"
FIREWALL = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:"


class Here:
    """The host this program itself runs in, with the sockets of a lab host."""

    def socket(self, *args):
        return socket.socket(*args)

    def connect(self, to, source=("0.0.0.0", 0), timeout=None):
        return socket.create_connection(to, PATIENCE if timeout is None else timeout, source)


# -- messages: a start line, fields, a body

class Message:
    """`start` is the first line; field names of `fields` are lower case, in the order sent, doubles kept."""

    def __init__(self, head, body=b"", raw=b""):
        lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
        self.start, self.fields, self.body, self.raw = lines[0], [], body, raw
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.fields.append((name.strip().lower(), value.strip()))

    def get(self, name, default=None):
        return next((value for field, value in self.fields if field == name.lower()), default)

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise AssertionError(f"no field {name} in {self.start!r}: {self.fields}")
        return value

    def __contains__(self, name):
        return self.get(name) is not None

    @property
    def status(self):
        match = re.match(r"HTTP/1\.[01] (\d{3})", self.start)
        return int(match[1]) if match else None

    def __repr__(self):
        return f"<{self.start!r} {self.fields} {self.body[:300]!r}>"


def fields(pairs):
    return "".join(f"{name}: {value}\r\n" for name, value in pairs if value is not None)


class Reader:
    """Takes HTTP messages off a connection; whatever follows one stays for the next."""

    def __init__(self, sock):
        self.sock, self.kept = sock, b""

    def _more(self):
        data = self.sock.recv(65536)
        self.kept += data
        return bool(data)

    def _take(self, size):
        out, self.kept = self.kept[:size], self.kept[size:]
        return out

    def _exactly(self, size):
        while len(self.kept) < size:
            if not self._more():
                raise ConnectionError(f"the connection ended {size - len(self.kept)} octets early")
        return self._take(size)

    def _line(self):
        while b"\n" not in self.kept:
            if not self._more():
                raise ConnectionError("the connection ended within a line")
        return self._take(self.kept.index(b"\n") + 1)

    def message(self, request=False, bodiless=False):
        """The next message, or None when the connection ended before one began."""
        while b"\r\n\r\n" not in self.kept:
            if not self._more():
                if self.kept:
                    raise ConnectionError(f"the connection ended within a head: {self.kept[:200]!r}")
                return None
        head = self._take(self.kept.index(b"\r\n\r\n") + 4)
        out = Message(head)
        body, raw = b"", head
        if bodiless or out.status in (204, 304) or (out.status and out.status < 200):
            pass
        elif "chunked" in (out.get("transfer-encoding") or "").lower():
            parts, lines = [], [head]  # joined at the end: lists may be long
            while True:
                lines.append(self._line())
                size = int(lines[-1].split(b";")[0], 16)
                if size == 0:
                    while lines.append(self._line()) or lines[-1].strip():
                        pass
                    break
                lines.append(self._exactly(size + 2))
                parts.append(lines[-1][:-2])
            body, raw = b"".join(parts), b"".join(lines)
        elif "content-length" in out:
            body = self._exactly(int(out["content-length"]))
            raw += body
        elif not request:  # ends with the connection
            while self._more():
                pass
            body = self._take(len(self.kept))
            raw += body
        out.body, out.raw = body, raw
        return out


# -- SSDP (UDA 1.3)

def msearch(st, mx=1, man='"ssdp:discover"', host="239.255.255.250:1900", extra=()):
    """A field that is None is left out."""
    return ("M-SEARCH * HTTP/1.1\r\n" + fields([("HOST", host), ("MAN", man), ("MX", mx), ("ST", st), *extra]) + "\r\n").encode()


def ssdp_socket(host, address, port=0):
    """A socket that multicasts from this own address and hears what answers it."""
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
    sock.bind((address, port))
    return sock


def heard(sock, seconds, enough=None):
    """(Message, sender) of each datagram until the time is over or there are enough."""
    out, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and (enough is None or len(out) < enough):
        sock.settimeout(left)
        with contextlib.suppress(TimeoutError, ConnectionError):
            data, sender = sock.recvfrom(8192)
            out.append((Message(data.split(b"\r\n\r\n")[0], raw=data), sender))
    return out


def search(host, address, st, mx=1, to=GROUP, seconds=None, enough=None, **kw):
    """What answers one M-SEARCH; by unicast when `to` names a device."""
    with ssdp_socket(host, address) as sock:
        sock.sendto(msearch(st, mx, **kw), to)
        return heard(sock, (float(mx) + 0.5) if seconds is None else seconds, enough)


def search6(host, device, st, mx=1, to=GROUP6[0], seconds=None, enough=None):
    """The same by IPv6, out of a device."""
    number = host.number(device)
    with host.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
        sock.sendto(msearch(st, mx, host="[FF02::C]:1900"), (to, 1900, 0, number))
        return heard(sock, (float(mx or 1) + 0.5) if seconds is None else seconds, enough)


def notify_socket(host, address):
    """Hears the advertisements of the group on the link of this own address."""
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(GROUP)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP[0]) + socket.inet_aton(address))
    return sock


# -- HTTP

class Url:
    """`scope` is the number of the interface that a link-local IPv6 address is on."""

    def __init__(self, text, scope=0):
        parts = urllib.parse.urlsplit(text)
        self.text, self.host, self.port = text, parts.hostname, parts.port or 80
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        six = ":" in self.host
        self.to = (self.host, self.port, 0, scope) if six else (self.host, self.port)
        self.authority = f"[{self.host}]:{self.port}" if six else f"{self.host}:{self.port}"


def exchange(host, to, data, address="0.0.0.0", bodiless=False, timeout=None):
    """Bytes out, the answer in, over a connection of its own; None when it ends without an answer."""
    with host.connect(to, (address, 0), timeout) as sock:
        sock.sendall(data)
        return Reader(sock).message(bodiless=bodiless)


def request(method, url, pairs=(), body=b"", version="1.1", host_field=True, length=True):
    url = url if isinstance(url, Url) else Url(url)
    own = [("Host", url.authority)] if host_field else []
    if length and (body or method in ("POST", "M-POST")):
        own.append(("Content-Length", len(body)))
    return f"{method} {url.target} HTTP/{version}\r\n{fields([*own, *pairs])}\r\n".encode() + body


def get(host, url, address="0.0.0.0", pairs=(), method="GET", scope=0, **kw):
    url = Url(url, scope)
    return exchange(host, url.to, request(method, url, [("Connection", "close"), *pairs], **kw), address, method == "HEAD")


# -- descriptions (UDA 2)

def local(element):
    return element.tag.rpartition("}")[2]


def parse_description(text, location):
    """The tree of devices: each with its plain elements as attributes of `about`, its services and its devices."""
    root = xml.fromstring(text)
    assert root.tag == f"{{{DEVICE_NS}}}root", root.tag

    def device(node, parent):
        out = SimpleNamespace(about={}, services=[], devices=[], parent=parent)
        for child in node:
            if local(child) == "deviceList":
                out.devices = [device(inner, out) for inner in child]
            elif local(child) == "serviceList":
                for inner in child:
                    values = {local(e): (e.text or "").strip() for e in inner}
                    at = {k: urllib.parse.urljoin(base, values.get(k, "")) for k in ("SCPDURL", "controlURL", "eventSubURL")}
                    out.services.append(SimpleNamespace(
                        type=values.get("serviceType"), id=values.get("serviceId"), scpd=at["SCPDURL"],
                        control=at["controlURL"], events=at["eventSubURL"], device=out))
            else:
                out.about[local(child)] = (child.text or "").strip()
        out.type, out.udn = out.about.get("deviceType"), out.about.get("UDN")
        return out

    base = (root.findtext(f"{{{DEVICE_NS}}}URLBase") or location).strip()
    return SimpleNamespace(root=device(root.find(f"{{{DEVICE_NS}}}device"), None), config_id=root.get("configId"), xml=root)


def all_devices(device):
    yield device
    for inner in device.devices:
        yield from all_devices(inner)


def parse_scpd(text):
    """Actions: name -> [(argument, direction, variable)]; variables: name -> type, evented, allowed values, range."""
    root = xml.fromstring(text)
    assert root.tag == f"{{{SERVICE_NS}}}scpd", root.tag
    ns = {"s": SERVICE_NS}
    actions = {a.findtext("s:name", namespaces=ns): [
        (g.findtext("s:name", namespaces=ns), g.findtext("s:direction", namespaces=ns),
         g.findtext("s:relatedStateVariable", namespaces=ns)) for g in a.iterfind("s:argumentList/s:argument", ns)]
        for a in root.iterfind("s:actionList/s:action", ns)}
    variables = {}
    for v in root.iterfind("s:serviceStateTable/s:stateVariable", ns):
        bounds = v.find("s:allowedValueRange", ns)
        variables[v.findtext("s:name", namespaces=ns)] = SimpleNamespace(
            type=v.findtext("s:dataType", namespaces=ns), evented=v.get("sendEvents", "yes") == "yes",
            allowed=[e.text for e in v.iterfind("s:allowedValueList/s:allowedValue", ns)],
            range=None if bounds is None else tuple(int(bounds.findtext(f"s:{k}", namespaces=ns)) for k in ("minimum", "maximum")))
    return SimpleNamespace(actions=actions, variables=variables, xml=root)


# -- control (UDA 3)

class UpnpError(Exception):
    def __init__(self, code, description, answer):
        super().__init__(f"{code} {description}")
        self.code, self.description, self.answer = code, description, answer


def arguments_xml(args):
    pairs = args.items() if isinstance(args, dict) else args
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in pairs)


def envelope(service_type, action, args=(), inner=None, soap="s", prefix="u", declaration='<?xml version="1.0"?>'):
    """The body of a request. `inner` replaces the arguments as written; an empty prefix is a default namespace."""
    inner = arguments_xml(args) if inner is None else inner
    s, u = f"{soap}:" if soap else "", f"{prefix}:" if prefix else ""
    xs, xu = f"xmlns:{soap}" if soap else "xmlns", f"xmlns:{prefix}" if prefix else "xmlns"
    return (f'{declaration}<{s}Envelope {xs}="{SOAP_NS}" {s}encodingStyle="{SOAP_ENCODING}"><{s}Body>'
            f'<{u}{action} {xu}="{service_type}">{inner}</{u}{action}></{s}Body></{s}Envelope>').encode()


def soap_request(url, service_type, action, args=(), body=None, soap_action=None, pairs=None, **kw):
    """The bytes of an action. `soap_action` and `pairs` (all fields but HOST and CONTENT-LENGTH) replace what is sent
    otherwise; what `envelope` takes is passed on."""
    shape = {k: kw.pop(k) for k in ("inner", "soap", "prefix", "declaration") if k in kw}
    body = envelope(service_type, action, args, **shape) if body is None else body
    soap_action = f'"{service_type}#{action}"' if soap_action is None else soap_action
    if pairs is None:
        pairs = [("Content-Type", 'text/xml; charset="utf-8"'), ("SOAPAction", soap_action), ("Connection", "close")]
    return request("POST", url, pairs, body, **kw)


def parse_soap(answer, action=None, service_type=None):
    """The out arguments in order; UpnpError for a fault. What UDA-3-02 to 3-04 demand of either is asserted."""
    root = xml.fromstring(answer.body)
    assert root.tag == f"{{{SOAP_NS}}}Envelope", root.tag
    first = root.find(f"{{{SOAP_NS}}}Body")[0]
    if first.tag == f"{{{SOAP_NS}}}Fault":
        assert answer.status == 500, answer
        assert first.findtext("faultstring") == "UPnPError", answer
        error = first.find(f"detail/{{{CONTROL_NS}}}UPnPError")
        code = int(error.findtext(f"{{{CONTROL_NS}}}errorCode"))
        raise UpnpError(code, error.findtext(f"{{{CONTROL_NS}}}errorDescription"), answer)
    assert answer.status == 200, answer
    if action:
        assert first.tag == f"{{{service_type}}}{action}Response", first.tag
    return {child.tag: child.text or "" for child in first}


class Service:
    """One service of a gateway, as a device of the lab sees it."""

    def __init__(self, host, address, service, version=None, scope=0):
        self.host, self.address, self.about = host, address, service
        self.type = service.type if version is None else service.type.rpartition(":")[0] + f":{version}"
        self.control, self.events = Url(service.control, scope), Url(service.events, scope)

    def send(self, data, timeout=None):
        return exchange(self.host, self.control.to, data, self.address, timeout=timeout)

    def raw(self, action, args=(), **kw):
        """The answer as it comes, whatever it is."""
        return self.send(soap_request(self.control, kw.pop("service_type", self.type), action, args, **kw))

    def call(self, action, args=(), **kw):
        answer = self.raw(action, args, **kw)
        assert answer is not None, f"{action}: the connection ended without an answer"
        return parse_soap(answer, action, kw.get("service_type", self.type))

    def error(self, action, args=(), **kw):
        """The code of the fault, or None when the action succeeded."""
        try:
            self.call(action, args, **kw)
        except UpnpError as error:
            return error.code
        return None

    # WANIPConnection
    def mapping_args(self, external, protocol="TCP", internal=None, client=None, lease=3600, description="lab", remote="",
                     enabled=1):
        return [("NewRemoteHost", remote), ("NewExternalPort", external), ("NewProtocol", protocol.upper()),
                ("NewInternalPort", external if internal is None else internal),
                ("NewInternalClient", self.address if client is None else client), ("NewEnabled", enabled),
                ("NewPortMappingDescription", description), ("NewLeaseDuration", lease)]

    def add(self, external, protocol="TCP", *rest, **kw):
        return self.call("AddPortMapping", self.mapping_args(external, protocol, *rest, **kw))

    def add_any(self, external, protocol="TCP", *rest, **kw):
        return int(self.call("AddAnyPortMapping", self.mapping_args(external, protocol, *rest, **kw))["NewReservedPort"])

    @staticmethod
    def key(external, protocol="TCP", remote=""):
        return [("NewRemoteHost", remote), ("NewExternalPort", external), ("NewProtocol", protocol.upper())]

    def delete(self, external, protocol="TCP", remote=""):
        return self.call("DeletePortMapping", self.key(external, protocol, remote))

    def mapping(self, external, protocol="TCP", remote=""):
        """The entry, or None."""
        try:
            return self.call("GetSpecificPortMappingEntry", self.key(external, protocol, remote))
        except UpnpError as error:
            if error.code != 714:
                raise
            return None

    def mappings(self):
        """All entries, by index."""
        out = []
        while True:
            try:
                out.append(self.call("GetGenericPortMappingEntry", [("NewPortMappingIndex", len(out))]))
            except UpnpError as error:
                if error.code != 713:
                    raise
                return out

    # GENA
    def subscribe(self, listener, timeout="Second-1800", path="/", **kw):
        """The answer to a new subscription; `callback`, `nt` and `pairs` change what is asked."""
        callback = kw.pop("callback", f"<{listener.url(path)}>" if listener else None)
        pairs = [("CALLBACK", callback), ("NT", kw.pop("nt", "upnp:event")), ("TIMEOUT", timeout), *kw.pop("pairs", ())]
        return self._gena("SUBSCRIBE", pairs)

    def renew(self, sid, timeout="Second-1800", pairs=()):
        return self._gena("SUBSCRIBE", [("SID", sid), ("TIMEOUT", timeout), *pairs])

    def unsubscribe(self, sid, pairs=()):
        return self._gena("UNSUBSCRIBE", [("SID", sid), *pairs])

    def _gena(self, method, pairs):
        data = request(method, self.events, [("Connection", "close"), *pairs])
        return exchange(self.host, self.events.to, data, self.address)


# -- events (UDA 4)

class Listener:
    """The callback side of subscriptions: keeps every NOTIFY as it came and answers it.

    `status` is what it answers with; `answers` False leaves the gateway waiting.
    """

    def __init__(self, host, address, port=0, status=200, answers=True):
        self.sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((address, port))
        self.sock.listen(64)
        self.sock.settimeout(0.1)
        self.address, self.port = self.sock.getsockname()
        self.status, self.answers, self.open = status, answers, True
        self.got, self.changed, self.threads = [], threading.Condition(), []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def url(self, path="/"):
        return f"http://{self.address}:{self.port}{path}"

    def _accept(self):
        while self.open:
            try:
                conn, peer = self.sock.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(conn, peer), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, conn, peer):
        with conn, contextlib.suppress(OSError, ConnectionError):
            conn.settimeout(PATIENCE)
            reader = Reader(conn)
            while self.open and (message := reader.message(request=True)):
                event = parse_event(message)
                event.peer, event.at = peer, time.monotonic()
                with self.changed:
                    self.got.append(event)
                    self.changed.notify_all()
                while self.open and not self.answers:
                    time.sleep(0.05)
                conn.sendall(f"HTTP/1.1 {self.status} {'OK' if self.status == 200 else 'No'}\r\nContent-Length: 0\r\n\r\n".encode())

    def events(self, sid=None):
        with self.changed:
            return [e for e in self.got if sid is None or e.sid == sid]

    def wait(self, what, wanted=lambda event: True, seconds=None):
        """The first event that is wanted, among those that came and those that will."""
        end = time.monotonic() + (PATIENCE if seconds is None else seconds)
        with self.changed:
            while True:
                for event in self.got:
                    if wanted(event):
                        return event
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"waited in vain for an event: {what}; came: {[e.values for e in self.got]}")
                self.changed.wait(left)

    def close(self):
        self.open = False
        self.thread.join()
        self.sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def parse_event(message):
    """`values` of the variables by name; None when the body is not a propertyset."""
    out = SimpleNamespace(message=message, sid=message.get("sid"), seq=None, values=None)
    with contextlib.suppress(TypeError, ValueError):
        out.seq = int(message.get("seq"))
    with contextlib.suppress(xml.ParseError):
        root = xml.fromstring(message.body)
        if root.tag == f"{{{EVENT_NS}}}propertyset":
            out.values = {v.tag: v.text or "" for p in root.iterfind(f"{{{EVENT_NS}}}property") for v in p}
    return out


# -- a gateway, found the way a stranger finds it

class Gateway:
    def __init__(self, host, address, location, scope=0):
        self.host, self.address, self.location, self.scope = host, address, location, scope
        answer = get(host, location, address, scope=scope)
        assert answer is not None and answer.status == 200, f"{location}: {answer}"
        self.answer, self.description = answer, parse_description(answer.body, location)
        self.services = [s for d in all_devices(self.description.root) for s in d.services]

    def service(self, prefix=WANIP, version=None):
        """The first service whose type begins so, asked as `version` of it."""
        found = [s for s in self.services if s.type.startswith(prefix)]
        assert found, f"no {prefix} among {[s.type for s in self.services]}"
        return Service(self.host, self.address, found[0], version, self.scope)

    def scpd(self, service):
        answer = get(self.host, service.scpd, self.address, scope=self.scope)
        assert answer is not None and answer.status == 200, f"{service.scpd}: {answer}"
        return parse_scpd(answer.body)


def find(host, address, gateway=None, st=IGD + "1", tries=3):
    """The gateway that answers a search for its kind; LOCATION must name the address that answered (UDA-1.3-19)."""
    for _ in range(tries):
        for answer, sender in search(host, address, st, enough=1):
            if answer.status == 200 and answer.get("st") == st and (gateway is None or sender[0] == gateway):
                location = answer["location"]
                assert Url(location).host == sender[0], f"{sender[0]} sends one to {location}"
                return Gateway(host, address, location)
    raise AssertionError(f"no answer to a search for {st}")


def find_in_lab(host, address):
    return find(host, address, LAN)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        found = find(Here(), sys.argv[1], tries=2)
    except (AssertionError, OSError) as error:
        sys.exit(f"upnp.py: {error}")
    print(json.dumps({"location": found.location, "services": [
        {"type": s.type, "control": s.control, "events": s.events, "scpd": s.scpd} for s in found.services]}))
