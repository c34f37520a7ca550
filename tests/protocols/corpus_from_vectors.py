#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets from the golden vectors beside them. Run it after adding a vector.

The server targets take a first octet that chooses what the service says; each vector is written with every kind.
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
