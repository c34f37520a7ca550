#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets from the golden vectors beside them. Run it after adding a vector.

The server targets take a first octet that chooses what the service says; each vector is written with every kind. The
client targets take one that chooses what is wished, then steps: see tests/support/fuzz_mapping_client.hpp.
"""
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = {  # target -> room, which vectors, first octets
    "pcp_codec_fuzz": ("pcp", "*.hex", [b""]),
    "pcp_server_fuzz": ("pcp", "*.request.hex", [b"\x08", b"\x0b", b"\x06"]),
    "stun_message_fuzz": ("stun", "*.hex", [b""]),
    "natpmp_server_fuzz": ("natpmp", "*.request.hex", [b"\x00", b"\x0f"]),
}


def octets(path):
    lines = (line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    return bytes.fromhex("".join("".join(lines).split()))


for target, (room, pattern, firsts) in TARGETS.items():
    corpus = HERE / room / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for vector in sorted((HERE / room / "vectors").glob(pattern)):
        for first in firsts:
            name = vector.name.removesuffix(".hex") + (f".{first[0]:02x}" if first else "")
            (corpus / name).write_bytes(first + octets(vector))


def answer(result, lifetime_s, port=8080, address=3, step=2):
    return bytes([step, result]) + lifetime_s.to_bytes(4, "big") + port.to_bytes(2, "big") + bytes([address])


WAKE, REFRESH, UNREACHABLE, RELEASE = b"\x06", b"\x04", b"\x05", b"\xff"
STEPS = {
    "silence": WAKE * 12,
    "renewals": answer(0, 3600) + (WAKE + answer(0, 3600)) * 3 + WAKE * 10,
    "another_port": answer(0, 3600) + WAKE + answer(0, 3600, 40000) + WAKE + RELEASE + answer(0, 0),
    "update": answer(0, 3600) + answer(0, 3600, 8080, 5) + answer(0, 3600, 8080, 7) + WAKE + answer(0, 0) + WAKE * 2,
    "unreachable": UNREACHABLE + WAKE + UNREACHABLE + WAKE + answer(0, 1) + WAKE * 3,
    "refresh": REFRESH + answer(0, 600) + REFRESH + WAKE + REFRESH + answer(2, 30) + REFRESH + WAKE,
    "released": answer(0, 600) + RELEASE + answer(0, 600) + WAKE * 2,
    "changed_octet": answer(0, 600, step=3) + bytes([24, 1]) + answer(0, 600) + WAKE + answer(0, 600, step=3) + bytes([7, 9]),
    "version": bytes.fromhex("0108 0000000100000064".replace(" ", "")) + WAKE,
    **{f"error_{code}": answer(code, 30) + WAKE + answer(0, 600) + WAKE + answer(code, 30) + WAKE * 9
       for code in (1, 2, 3, 4, 5, 7, 8, 11, 12, 200)},
}
for target, firsts in {"pcp_client_fuzz": [0, 5, 14], "natpmp_client_fuzz": [0, 1]}.items():
    corpus = HERE / target.split("_")[0] / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for name, steps in STEPS.items():
        for first in firsts:
            (corpus / f"{name}.{first:02x}").write_bytes(bytes([first]) + steps)
