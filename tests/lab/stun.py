"""STUN, written from RFC 8489 and RFC 5780 and independent of the C++ codec: a server, and what a client asks it."""

import contextlib
import os
import select
import socket
import struct
import threading
import time
import zlib

from lab import FAR, OTHER_FAR, PATIENCE

COOKIE = 0x2112A442
REQUEST, SUCCESS, ERROR = 0x0001, 0x0101, 0x0111
MAPPED_ADDRESS, CHANGE_REQUEST, ERROR_CODE, UNKNOWN_ATTRIBUTES = 0x0001, 0x0003, 0x0009, 0x000A
XOR_MAPPED_ADDRESS, RESPONSE_PORT = 0x0020, 0x0027
SOFTWARE, FINGERPRINT, RESPONSE_ORIGIN, OTHER_ADDRESS = 0x8022, 0x8028, 0x802B, 0x802C


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def address(endpoint, xored=b""):
    six = ":" in endpoint[0]
    number, port = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, endpoint[0]), endpoint[1]
    if xored:  # of IPv6 with the request's number after the cookie
        number, port = bytes(a ^ b for a, b in zip(number, struct.pack("!I", COOKIE) + xored)), port ^ COOKIE >> 16
    return struct.pack("!BBH", 0, 2 if six else 1, port) + number


def read_address(value, xored=False):
    _, family, port, number = struct.unpack("!BBHI", value)
    if family != 1:
        return None
    if xored:
        number, port = number ^ COOKIE, port ^ COOKIE >> 16
    return socket.inet_ntoa(struct.pack("!I", number)), port


def message(kind, number, attributes):
    body = b"".join(attribute(*one) for one in attributes)
    head = struct.pack("!HHI", kind, len(body) + 8, COOKIE) + number + body
    return head + attribute(FINGERPRINT, struct.pack("!I", zlib.crc32(head) ^ 0x5354554E))


def parse(data):
    """(type, id, attributes), or None."""
    if len(data) < 20:
        return None
    kind, length, cookie = struct.unpack_from("!HHI", data)
    if cookie != COOKIE or length != len(data) - 20:
        return None
    attributes, rest = {}, data[20:]
    while len(rest) >= 4:
        one, size = struct.unpack_from("!HH", rest)
        attributes.setdefault(one, rest[4:4 + size])
        rest = rest[4 + size + -size % 4:]
    return kind, data[8:20], attributes


class Server:
    """On two addresses and two ports of a host; `probes` False: it knows nothing of RFC 5780."""

    def __init__(self, host, addresses=(FAR, OTHER_FAR), port=3478, probes=True):
        self.endpoints = [(a, port + p) for a in addresses for p in (0, 1)]
        self.sockets = [host.udp(*endpoint) for endpoint in self.endpoints]
        self.address, self.probes = self.endpoints[0], probes
        self.sent = []  # (from, to) of each answer
        self.open = True
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while self.open:
            for sock in select.select(self.sockets, [], [], 0.1)[0]:
                with contextlib.suppress(OSError, struct.error):
                    data, sender = sock.recvfrom(2048)
                    self._answer(self.sockets.index(sock), data, sender)

    def _answer(self, at, data, sender):
        request = parse(data)
        if not request or request[0] != REQUEST:
            return
        _, number, asked = request
        change = struct.unpack("!I", asked[CHANGE_REQUEST])[0] if CHANGE_REQUEST in asked else 0
        unknown = [a for a in asked if a < 0x8000 and not (self.probes and a in (CHANGE_REQUEST, RESPONSE_PORT))]
        by, to = at, sender
        if unknown:
            answer = message(ERROR, number, [(ERROR_CODE, b"\0\0\4\x14Unknown Attribute"),
                                             (UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(unknown)}H", *unknown))])
        else:
            by = at ^ (2 if change & 4 else 0) ^ (1 if change & 2 else 0)
            if RESPONSE_PORT in asked:
                to = (sender[0], struct.unpack_from("!H", asked[RESPONSE_PORT])[0])
            attributes = [(SOFTWARE, b"lab"), (XOR_MAPPED_ADDRESS, address(sender, number)),
                          (MAPPED_ADDRESS, address(sender))]
            if self.probes:
                attributes += [(RESPONSE_ORIGIN, address(self.endpoints[by])),
                               (OTHER_ADDRESS, address(self.endpoints[at ^ 3]))]
            answer = message(SUCCESS, number, attributes)
        self.sockets[by].sendto(answer, to)
        self.sent.append((self.endpoints[by], to))

    def close(self):
        self.open = False
        self.thread.join()
        for sock in self.sockets:
            sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def seen(sock, server, tries=4):
    """The endpoint that the server sees, or None when it does not answer."""
    number = os.urandom(12)
    for _ in range(tries):
        sock.sendto(message(REQUEST, number, []), server)
        answer = hear(sock, number, PATIENCE / tries)
        if answer:
            return read_address(answer[0][XOR_MAPPED_ADDRESS], True)
    return None


def hear(sock, number, seconds):
    """(attributes, sender) of the answer to request `number`, or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sock.settimeout(max(0.01, end - time.monotonic()))
        try:
            data, sender = sock.recvfrom(2048)
        except (TimeoutError, ConnectionError):
            continue
        answer = parse(data)
        if answer and answer[1] == number:
            return answer[2], sender
    return None


def probe(asking, listening, server, port):
    """Asks for a packet from the server's other address to `port` of the address it sees. The sender of what arrived at
    `listening`, or None when the answer to a later request came and it had not."""
    number = os.urandom(12)
    for _ in range(3):
        asking.sendto(message(REQUEST, number, [(CHANGE_REQUEST, struct.pack("!I", 6)),
                                                (RESPONSE_PORT, struct.pack("!H", port))]), server)
        assert seen(asking, server), "the server answers no more"
        arrived = hear(listening, number, 0.1)
        if arrived:
            return arrived[1]
    return None
