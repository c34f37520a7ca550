"""Copies the nftables rules that miniupnpd made for two leases, so that it has as many as one likes at once.

miniupnpd keeps its leases as rules in the kernel and walks them at each request; filling it with 5,000 by its own
protocols takes minutes. The copies differ from what it makes itself in port and address alone.

usage, inside the gateway's namespace: miniupnpd_fill.py TABLE CHAIN,CHAIN < lines
first line of input: PORT ADDRESS of the UDP lease to copy, then of the TCP lease; the others: udp|tcp PORT ADDRESS
"""

import os
import socket
import struct
import sys

NFTABLES = 10
GET_RULE, NEW_RULE = NFTABLES << 8 | 7, NFTABLES << 8 | 6
REQUEST, DUMP, CREATE, APPEND, ACK = 0x1, 0x300, 0x400, 0x800, 0x4
INET = 1
TABLE, CHAIN, EXPRESSIONS, USERDATA = 1, 2, 4, 7


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def message(kind, flags, number, family, resource, attributes=b""):
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def messages(link):
    while True:
        data = link.recv(1 << 18)
        while data:
            size, kind = struct.unpack_from("=IH", data)
            yield kind, data[16:size]
            data = data[(size + 3) & ~3:]


def rules(link, table, chain):
    """EXPRESSIONS and USERDATA of each rule of a chain, as octets."""
    link.send(message(GET_RULE, REQUEST | DUMP, 1, INET, 0, attribute(TABLE, table + b"\0") + attribute(CHAIN, chain + b"\0")))
    for kind, body in messages(link):
        if kind == 3:  # done
            return
        if kind == 2:
            raise SystemExit(f"miniupnpd_fill: {os.strerror(-struct.unpack_from('=i', body)[0])}")
        found, body = {}, body[4:]
        while len(body) >= 4:
            size, number = struct.unpack_from("=HH", body)
            found[number & 0x3FFF] = body[4:size]
            body = body[(size + 3) & ~3:]
        yield found[EXPRESSIONS], found.get(USERDATA)


def main():
    table, chains = sys.argv[1].encode(), [c.encode() for c in sys.argv[2].split(",")]
    lines = sys.stdin.read().split("\n")
    first = lines[0].split()
    models = {"udp": (int(first[0]), first[1]), "tcp": (int(first[2]), first[3])}
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    link.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    link.setsockopt(socket.SOL_SOCKET, 32, 32 << 20)  # SO_SNDBUFFORCE
    link.bind((0, 0))
    model = {}
    for chain in chains:
        for expressions, userdata in rules(link, table, chain):
            for name, (port, address) in models.items():
                if struct.pack(">H", port) in expressions and socket.inet_aton(address) in expressions:
                    model[name, chain] = expressions, userdata
    if len(model) != 2 * len(chains):
        raise SystemExit(f"miniupnpd_fill: found {len(model)} of {2 * len(chains)} rules to copy")
    wanted = [line.split() for line in lines[1:] if line]
    for begin in range(0, len(wanted), 500):
        batch = [message(0x10, REQUEST, 1, 0, NFTABLES)]
        for name, port, address in wanted[begin:begin + 500]:
            old_port, old_address = models[name]
            for chain in chains:
                expressions, userdata = model[name, chain]
                expressions = expressions.replace(struct.pack(">H", old_port), struct.pack(">H", int(port)))
                expressions = expressions.replace(socket.inet_aton(old_address), socket.inet_aton(address))
                batch.append(message(NEW_RULE, REQUEST | CREATE | APPEND, len(batch), INET, 0,
                                     attribute(TABLE, table + b"\0") + attribute(CHAIN, chain + b"\0") +
                                     attribute(EXPRESSIONS | 0x8000, expressions) +
                                     (attribute(USERDATA, userdata) if userdata else b"")))
        batch[-1] = batch[-1][:6] + struct.pack("=H", REQUEST | CREATE | APPEND | ACK) + batch[-1][8:]
        batch.append(message(0x11, REQUEST, 9999, 0, NFTABLES))
        link.send(b"".join(batch))
        for kind, body in messages(link):
            if kind == 2:
                error = struct.unpack_from("=i", body)[0]
                if error:
                    raise SystemExit(f"miniupnpd_fill: {os.strerror(-error)}")
                break


if __name__ == "__main__":
    main()
