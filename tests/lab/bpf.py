"""Programs at interfaces and their tables, asked of the kernel itself: bpf(2) without a library.

    python3 tests/lab/bpf.py --without-tcx COMMAND...     as on a kernel before 6.6
    python3 tests/lab/bpf.py --without-programs COMMAND...  as on one that lets nobody load any
"""

import ctypes
import errno
import json
import os
import platform
import struct
import sys

OURS = ("wan_egress", "wan_ingress", "lan_ingress", "tap_ingress", "other_egress")
LOOKUP, UPDATE, LOAD, ATTACH, DETACH, PROGRAM_BY_NUMBER, MAP_BY_NUMBER, INFO, QUERY = 1, 2, 5, 8, 9, 13, 14, 15, 16
TCX = {"ingress": 46, "egress": 47}
NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_libc = ctypes.CDLL(None, use_errno=True)


def call(what, attributes):
    """`attributes` is a bytearray, which the kernel may write to."""
    memory = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = _libc.syscall(NUMBER, what, memory, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf {what}")
    return result


def _info(fd, size):
    buffer = ctypes.create_string_buffer(size)
    call(INFO, bytearray(struct.pack("IIQ", fd, size, ctypes.addressof(buffer))))
    return buffer


def name_of(program):
    fd = call(PROGRAM_BY_NUMBER, bytearray(struct.pack("II", program, 0)))
    try:
        return _info(fd, 128).raw[64:80].split(b"\0")[0].decode()
    finally:
        os.close(fd)


def tcx(host, device, direction):
    """Numbers of all programs there."""
    numbers = (ctypes.c_uint32 * 64)()
    query = bytearray(struct.pack("IIIIQIIQQQQ", host.number(device), TCX[direction], 0, 0, ctypes.addressof(numbers), 64, 0, 0, 0, 0, 0))
    with host.inside():
        call(QUERY, query)
    return list(numbers)[:struct.unpack_from("I", query, 24)[0]]


def filters(host, device, direction):
    """Numbers of our programs among the filters of clsact."""
    found = json.loads(host.run("tc", "-j", "filter", "show", "dev", device, direction) or "[]")
    return [f["options"]["prog"]["id"] for f in found if f.get("options", {}).get("handle") == "0x5350"]


def programs(host, device, direction):
    """Our programs there, by either way."""
    ours = [n for n in tcx(host, device, direction) if name_of(n) in OURS]
    return ours + filters(host, device, direction)


def detach(host, device, direction, program):
    fd = call(PROGRAM_BY_NUMBER, bytearray(struct.pack("II", program, 0)))
    try:
        with host.inside():
            call(DETACH, bytearray(struct.pack("IIIIIIQ", host.number(device), fd, TCX[direction], 0, 0, 0, 0)))
    finally:
        os.close(fd)


class Table:
    """A map of a program, of one entry with key 0."""

    def __init__(self, program, name):
        fd = call(PROGRAM_BY_NUMBER, bytearray(struct.pack("II", program, 0)))
        numbers = (ctypes.c_uint32 * 64)()
        info = bytearray(128)
        struct.pack_into("I", info, 52, 64)
        struct.pack_into("Q", info, 56, ctypes.addressof(numbers))
        memory = (ctypes.c_char * 128).from_buffer(info)
        call(INFO, bytearray(struct.pack("IIQ", fd, 128, ctypes.addressof(memory))))
        os.close(fd)
        for number in list(numbers)[:struct.unpack_from("I", info, 52)[0]]:
            self.fd = call(MAP_BY_NUMBER, bytearray(struct.pack("II", number, 0)))
            about = _info(self.fd, 64).raw
            if about[24:40].split(b"\0")[0].decode() == name:
                self.number, self.size = number, struct.unpack_from("I", about, 12)[0]
                return
            os.close(self.fd)
        raise LookupError(f"program {program} has no table {name}")

    def read(self):
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(self.size)
        call(LOOKUP, bytearray(struct.pack("IIQQQ", self.fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)))
        return bytearray(value.raw)

    def write(self, data):
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(bytes(data), self.size)
        call(UPDATE, bytearray(struct.pack("IIQQQ", self.fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)))

    def close(self):
        os.close(self.fd)

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def refuse(error, *calls):
    """From now on the kernel answers these calls of bpf(2) of this process and its children by an error."""
    load, jump, answer = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0), (jump, 0, len(calls) + 1, NUMBER), (load, 0, 0, 16)]
    code += [(jump, len(calls) - i, 0, number) for i, number in enumerate(calls)]
    code += [(answer, 0, 0, 0x7fff0000), (answer, 0, 0, 0x00050000 | error)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(packed)))
    if _libc.prctl(38, 1, 0, 0, 0) != 0 or _libc.prctl(22, 2, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse(*{"--without-tcx": (errno.EINVAL, ATTACH, DETACH, QUERY), "--without-programs": (errno.EPERM, LOAD)}[sys.argv[1]])
    os.execvp(sys.argv[2], sys.argv[2:])
