"""Bytes of PCP, NAT-PMP and IPv4, written from the RFCs and independent of the C++ codecs."""

import os
import socket
import struct
import time
from types import SimpleNamespace

from lab import LAN, PATIENCE, SILENCE

TCP, UDP, ICMP = 6, 17, 1
PROTOCOLS = {"tcp": TCP, "udp": UDP}

# -- PCP (RFC 6887)

ANNOUNCE, MAP, PEER = 0, 1, 2
(SUCCESS, UNSUPP_VERSION, NOT_AUTHORIZED, MALFORMED_REQUEST, UNSUPP_OPCODE, UNSUPP_OPTION, MALFORMED_OPTION,
 NETWORK_FAILURE, NO_RESOURCES, UNSUPP_PROTOCOL, USER_EX_QUOTA, CANNOT_PROVIDE_EXTERNAL, ADDRESS_MISMATCH,
 EXCESSIVE_REMOTE_PEERS) = range(14)
THIRD_PARTY, PREFER_FAILURE, FILTER, DESCRIPTION, PORT_SET = 1, 2, 3, 128, 130


def v6(address):
    """The 128-bit field: an IPv4 address mapped."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(address)


def v4(field):
    if field[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntoa(field[12:16])
    return socket.inet_ntop(socket.AF_INET6, field)


def option(code, data=b"", length=None):
    return struct.pack("!BBH", code, 0, len(data) if length is None else length) + data + b"\0" * (-len(data) % 4)


def filter_option(address, bits, port=0):
    """`bits` of the address, as /n is written."""
    return option(FILTER, struct.pack("!BBH", 0, bits if ":" in address else 96 + bits, port) + v6(address))


def port_set_option(size, first, parity=False):
    return option(PORT_SET, struct.pack("!HHB", size, first, parity))


def pcp_header(opcode, lifetime, client, version=2):
    return struct.pack("!BBHI", version, opcode, 0, lifetime) + v6(client)


def map_body(nonce, protocol, internal, external=0, external_address="0.0.0.0"):
    return nonce + struct.pack("!BxxxHH", protocol, internal, external) + v6(external_address)


def pcp_map(client, nonce, protocol, internal, external=0, lifetime=3600, external_address="0.0.0.0", options=b""):
    return (pcp_header(MAP, lifetime, client) +
            map_body(nonce, PROTOCOLS.get(protocol, protocol), internal, external, external_address) + options)


def pcp_peer(client, nonce, protocol, internal, remote, external=0, lifetime=3600, external_address="0.0.0.0", options=b""):
    """`remote` is (address, port)."""
    return (pcp_header(PEER, lifetime, client) +
            map_body(nonce, PROTOCOLS.get(protocol, protocol), internal, external, external_address) +
            struct.pack("!Hxx", remote[1]) + v6(remote[0]) + options)


def parse_options(data):
    out = []
    while len(data) >= 4:
        code, _, size = struct.unpack_from("!BBH", data)
        out.append((code, data[4:4 + size]))
        data = data[4 + size + (-size % 4):]
    return out


def parse_pcp(data):
    if len(data) < 24:
        return None
    version, op, zero, result, lifetime, epoch = struct.unpack_from("!BBBBII", data)
    out = SimpleNamespace(version=version, response=bool(op & 128), opcode=op & 127, reserved=zero, result=result,
                          lifetime=lifetime, epoch=epoch, tail=data[12:24], raw=data, options=[], set_size=None)
    if out.opcode == MAP and len(data) >= 60:
        out.nonce = data[24:36]
        out.protocol, out.internal, out.external = struct.unpack_from("!BxxxHH", data, 36)
        out.external_address = v4(data[44:60])
        out.options = parse_options(data[60:])
        for code, value in out.options:
            if code == PORT_SET:
                out.set_size, out.set_first, out.set_bits = struct.unpack("!HHB", value)
    elif out.opcode == PEER and len(data) >= 80:
        out.nonce = data[24:36]
        out.protocol, out.internal, out.external = struct.unpack_from("!BxxxHH", data, 36)
        out.external_address = v4(data[44:60])
        out.remote = (v4(data[64:80]), struct.unpack_from("!H", data, 60)[0])
        out.options = parse_options(data[80:])
    elif out.opcode == ANNOUNCE:
        out.options = parse_options(data[24:])
    return out


# -- NAT-PMP (RFC 6886)

def natpmp_map(protocol, internal, external=0, lifetime=3600):
    return struct.pack("!BBHHHI", 0, {"udp": 1, "tcp": 2}[protocol], 0, internal, external, lifetime)


def parse_natpmp(data):
    if len(data) < 8 or data[0] != 0:
        return None
    version, op, result, epoch = struct.unpack_from("!BBHI", data)
    out = SimpleNamespace(version=version, op=op, result=result, epoch=epoch, raw=data)
    if op == 128 and len(data) >= 12:
        out.address = socket.inet_ntoa(data[8:12])
    elif op in (129, 130) and len(data) >= 16:
        out.internal, out.external, out.lifetime = struct.unpack_from("!HHI", data, 8)
    return out


class Client:
    """One device's control client: a socket that asks the gateway, by either protocol."""

    def __init__(self, host, address, gateway=LAN, port=0):
        self.address, self.gateway = address, (gateway, 5351)
        self.sock = host.udp(address, port)

    def ask(self, datagram, tries=2, timeout=None):
        """The next answer, or None. A retransmission is the same datagram."""
        for attempt in range(tries):
            self.sock.sendto(datagram, self.gateway)
            answer = self.hear(PATIENCE / tries if timeout is None else timeout)
            if answer is not None:
                return answer
        return None

    def hear(self, timeout=PATIENCE):
        self.sock.settimeout(timeout)
        try:
            data, sender = self.sock.recvfrom(2048)
        except (TimeoutError, ConnectionError):
            return None
        return data if sender[:2] == self.gateway else None

    def silent(self, datagram):
        """True when no answer comes; whatever was waiting before is thrown away."""
        while self.hear(0.001) is not None:
            pass
        self.sock.sendto(datagram, self.gateway)
        return self.hear(SILENCE) is None

    def map(self, protocol, internal, external=0, lifetime=3600, nonce=None, options=b"", external_address="0.0.0.0",
            client=None):
        nonce = os.urandom(12) if nonce is None else nonce
        request = pcp_map(client or self.address, nonce, protocol, internal, external, lifetime, external_address, options)
        return self._matching(request, lambda data: (p := parse_pcp(data)) and p.version == 2 and p.opcode == MAP
                              and getattr(p, "nonce", nonce) == nonce and p)

    def peer(self, protocol, internal, remote, nonce=None, **kw):
        nonce = os.urandom(12) if nonce is None else nonce
        return self._matching(pcp_peer(self.address, nonce, protocol, internal, remote, **kw),
                              lambda data: (p := parse_pcp(data)) and p.version == 2 and p.opcode == PEER
                              and getattr(p, "nonce", nonce) == nonce and p)

    def unmap(self, protocol, internal, nonce):
        return self.map(protocol, internal, 0, 0, nonce)

    def announce(self, options=b""):
        return self._matching(pcp_header(ANNOUNCE, 0, self.address) + options,
                              lambda data: (p := parse_pcp(data)) and p.opcode == ANNOUNCE and p)

    def natpmp(self, protocol, internal, external=0, lifetime=3600):
        return self._matching(natpmp_map(protocol, internal, external, lifetime),
                              lambda data: (p := parse_natpmp(data)) and p.op in (129, 130)
                              and getattr(p, "internal", internal) == internal and p)

    def natpmp_address(self):
        return self._matching(b"\0\0", lambda data: (p := parse_natpmp(data)) and p.op == 128 and p)

    def _matching(self, request, parsed):
        for _ in range(3):
            self.sock.sendto(request, self.gateway)
            end = time.monotonic() + PATIENCE / 3
            while (left := end - time.monotonic()) > 0:
                data = self.hear(left)
                answer = data is not None and parsed(data)
                if answer:
                    return answer
        raise AssertionError(f"no answer to {request.hex()}")

    def close(self):
        self.sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def listen_for_announcements(host, address):
    """A socket on 224.0.0.1:5350 of this device."""
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("224.0.0.1", 5350))
    sock.settimeout(0.1)
    return sock


def announcements(sock, seconds=0.0):
    """Everything announced until the time is over: (sender, NAT-PMP or PCP answer) each."""
    out, end = [], time.monotonic() + seconds
    while True:
        try:
            data, sender = sock.recvfrom(2048)
            out.append((sender, parse_natpmp(data) if data[0] == 0 else parse_pcp(data)))
        except TimeoutError:
            if time.monotonic() >= end:
                return out


# -- IPv4

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def _pseudo(source, destination, protocol, data):
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, len(data)) + data


def ip(source, destination, protocol, payload, ttl=64, ident=None, df=False, mf=False, offset=0, tos=0, options=b"",
       header_sum=None):
    ident = int.from_bytes(os.urandom(2), "big") if ident is None else ident
    head = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, tos, 20 + len(options) + len(payload), ident,
                                 (0x4000 if df else 0) | (0x2000 if mf else 0) | offset // 8, ttl, protocol, 0,
                                 socket.inet_aton(source), socket.inet_aton(destination)) + options)
    struct.pack_into("!H", head, 10, checksum(bytes(head)) if header_sum is None else header_sum)
    return bytes(head) + payload


def udp_segment(source, sport, destination, dport, data, zero_sum=False):
    bare = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    total = 0 if zero_sum else checksum(_pseudo(source, destination, UDP, bare)) or 0xffff
    return bare[:6] + struct.pack("!H", total) + bare[8:]


def udp(source, sport, destination, dport, data=b"", **kw):
    return ip(source, destination, UDP, udp_segment(source, sport, destination, dport, data), **kw)


FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def tcp(source, sport, destination, dport, flags, seq=1000, ack=0, data=b"", window=65535, **kw):
    bare = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, window, 0, 0) + data
    total = checksum(_pseudo(source, destination, TCP, bare))
    return ip(source, destination, TCP, bare[:16] + struct.pack("!H", total) + bare[18:], **kw)


def icmp(source, destination, kind, code, rest=0, data=b"", **kw):
    bare = struct.pack("!BBHI", kind, code, 0, rest) + data
    return ip(source, destination, ICMP, bare[:2] + struct.pack("!H", checksum(bare)) + bare[4:], **kw)


def echo(source, destination, ident, seq=1, data=b"ping", reply=False, **kw):
    return icmp(source, destination, 0 if reply else 8, 0, ident << 16 | seq, data, **kw)


def parse(raw):
    """Fields of an IPv4 packet; `sums` tells whether every checksum that can be judged is right."""
    if len(raw) < 20 or raw[0] >> 4 != 4:
        return None
    size = (raw[0] & 15) * 4
    total, ident, fragment = struct.unpack_from("!HHH", raw, 2)
    out = SimpleNamespace(source=socket.inet_ntoa(raw[12:16]), destination=socket.inet_ntoa(raw[16:20]), ttl=raw[8],
                          protocol=raw[9], ident=ident, df=bool(fragment & 0x4000), mf=bool(fragment & 0x2000),
                          offset=(fragment & 0x1fff) * 8, tos=raw[1], raw=raw, payload=raw[size:total], sport=None,
                          dport=None, flags=0, data=b"", kind=None, code=None, inner=None,
                          sums=checksum(raw[:size]) == 0)
    body = out.payload
    if out.offset:
        out.data = body
        return out
    if out.protocol in (TCP, UDP) and len(body) >= 8:
        out.sport, out.dport = struct.unpack_from("!HH", body)
        if out.protocol == TCP and len(body) >= 20:
            out.seq, out.ack = struct.unpack_from("!II", body, 4)
            out.flags, out.data = body[13], body[(body[12] >> 4) * 4:]
        elif out.protocol == UDP:
            out.data = body[8:]
            if body[6:8] == b"\0\0":
                return out
        if not out.mf:
            out.sums = out.sums and checksum(_pseudo(out.source, out.destination, out.protocol, body)) in (0, 0xffff)
    elif out.protocol == ICMP and len(body) >= 8:
        out.kind, out.code = body[0], body[1]
        out.ident_icmp, out.mtu = struct.unpack_from("!HH", body, 4)
        out.data = body[8:]
        out.sums = out.sums and (out.mf or checksum(body) == 0)
        if out.kind in (3, 4, 5, 11, 12):
            out.inner = parse(body[8:])
    return out
