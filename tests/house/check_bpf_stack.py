#!/usr/bin/env python3
"""Checks that the programs of the ebpf plane fit into the kernel's stack on every kernel that we name.

A chain of calls may have 512 octets. Linux 6.1 rounds each function's frame up to 32 octets, newer ones to 16: an object
that loads here may be refused there. Usage: check_bpf_stack.py OBJECT; prints, last, `N passed, N failed, N skipped`.
"""
import os
import re
import struct
import sys

MOST, ROUNDING, MOST_CALLS = 512, 32, 8
SHT_SYMTAB, SHT_REL, STT_FUNC, STT_SECTION = 2, 9, 2, 3
LDX, ST, STX, JMP32 = 1, 2, 3, 6
LOAD_64, CALL, MOVE, ADD_NUMBER, PSEUDO_CALL, FRAME = 0x18, 0x85, 0xbf, 0x07, 1, 10


class Object:
    """As much of ELF as functions need: their names, instructions and whom they call."""

    def __init__(self, data):
        if data[:4] != b"\x7fELF" or data[4] != 2 or struct.unpack_from("<H", data, 18)[0] != 247:
            raise ValueError("no 64-bit BPF object")
        at, = struct.unpack_from("<Q", data, 40)
        size, count, _ = struct.unpack_from("<HHH", data, 58)
        # name, type, flags, address, offset, size, link, info, alignment, size of an entry
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * size) for i in range(count)]
        self.bodies = [data[s[4]:s[4] + s[5]] if s[1] != 8 else b"" for s in self.sections]
        table = next(i for i, s in enumerate(self.sections) if s[1] == SHT_SYMTAB)
        names = self.bodies[self.sections[table][6]]
        self.symbols = []  # name, kind, section, offset, size
        for name, info, _, section, value, length in struct.iter_unpack("<IBBHQQ", self.bodies[table]):
            self.symbols.append((names[name:names.index(b"\0", name)].decode(), info & 15, section, value, length))
        self.functions = {(s[2], s[3]): s for s in self.symbols if s[1] == STT_FUNC and s[4]}
        self.relocations = {}  # by section and offset: the symbol
        for section, body in zip(self.sections, self.bodies):
            if section[1] == SHT_REL:
                for offset, info in struct.iter_unpack("<QQ", body):
                    self.relocations[section[7], offset] = self.symbols[info >> 32]

    def look_at(self, function):
        """The octets of its frame, and the places of those that it calls, or lets be called."""
        _, _, section, start, size = function
        depth, called, points = 0, set(), {FRAME: 0}  # registers that point into the frame
        at = start
        while at < start + size:
            code, registers, offset, number = struct.unpack_from("<BBhi", self.bodies[section], at)
            to, of, kind = registers & 15, registers >> 4, code & 7
            symbol = self.relocations.get((section, at))
            base = of if kind == LDX else to if kind in (ST, STX) else None
            if base in points:
                depth = max(depth, -(points[base] + offset))
            if code == CALL and of == PSEUDO_CALL:
                if symbol is None:
                    called.add((section, at + (number + 1) * 8))
                else:
                    called.add((symbol[2], symbol[3] + ((number + 1) * 8 if symbol[1] == STT_SECTION else 0)))
            elif code == LOAD_64 and symbol and (symbol[2], symbol[3] + number) in self.functions:
                called.add((symbol[2], symbol[3] + number))  # of bpf_loop
            if code == MOVE and of in points:
                points[to] = points[of]
            elif code == ADD_NUMBER and to in points:
                points[to] += number
                depth = max(depth, -points[to])
            elif code == CALL:
                points = {r: p for r, p in points.items() if r > 5}
            elif kind not in (ST, STX, JMP32) and kind != 5:
                points.pop(to, None)
            at += 16 if code == LOAD_64 else 8
        return depth, called


def chains(obj):
    """For each program, the deepest chain of calls: octets, and the functions with their frames."""
    looked = {place: obj.look_at(function) for place, function in obj.functions.items()}

    def deepest(place, above):
        if place in above:
            raise ValueError(f"{obj.functions[place][0]} calls itself")
        frame, called = looked[place]
        rounded = max(1, -(-frame // ROUNDING)) * ROUNDING
        below = max((deepest(other, (*above, place)) for other in called), default=(0, []), key=lambda chain: chain[0])
        return rounded + below[0], [(obj.functions[place][0], frame), *below[1]]

    by_others = {other for _, called in looked.values() for other in called}
    return [deepest(place, ()) for place in looked if place not in by_others]


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else ""
    if not re.search(r"\.o$", path):
        print("usage: check_bpf_stack.py OBJECT")
        return 2
    if not os.path.exists(path):
        print(f"{path} is not there: built without the ebpf plane")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    with open(path, "rb") as file:
        found = sorted(chains(Object(file.read())), reverse=True)
    failed = 0
    for octets, chain in found:
        bad = octets > MOST or len(chain) > MOST_CALLS
        failed += bad
        text = " > ".join(f"{name} {frame}" for name, frame in chain)
        print(f"{octets} of {MOST} octets: {text}{': too deep for Linux 6.1' if bad else ''}")
    if not found:
        print(f"{path} has no programs")
        failed = 1
    print(f"{len(found) - failed if found else 0} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
