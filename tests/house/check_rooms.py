#!/usr/bin/env python3
"""Fails when a room includes what it may not. The table is the one in README.md, "Who may include whom".

Usage: check_rooms.py [ROOT]. Prints one line per check and, last, `N passed, N failed, N skipped`.
"""
import pathlib
import re
import sys

# Libraries, by how their headers begin.
LIBRARIES = {
    "asio": ("boost/asio", "boost/asio.hpp"),
    "beast": ("boost/beast",),
    "spdlog": ("spdlog/",),
    "json": ("nlohmann/",),
    "sqlite": ("SQLiteCpp/", "sqlite3.h"),
    "toml": ("toml++/", "toml.hpp"),
    "cli11": ("CLI/",),
    "pugixml": ("pugixml",),
    "mnl": ("libmnl/",),
    "libbpf": ("bpf/",),
    "linux": ("linux/",),
    "capng": ("cap-ng.h",),
}

VALUES = ("include/sallyport/values/",)
# room -> (own rooms it may include from, libraries it may use). The longest room name that fits a file counts.
ROOMS = {
    "include/sallyport/values": (VALUES, ()),
    "include/sallyport": (VALUES + ("include/sallyport/",), ()),  # for C
    "include/sallyport/admin": (VALUES + ("include/sallyport/admin/",), ()),
    "include/sallyport/client": (VALUES + ("include/sallyport/client/",), ("asio",)),
    "src/values": (VALUES, ()),
    "protocols/wire": (VALUES + ("protocols/wire/",), ()),
    "protocols/pcp": (VALUES + ("protocols/wire/", "protocols/pcp/"), ()),
    "protocols/natpmp": (VALUES + ("protocols/wire/", "protocols/natpmp/"), ()),
    "protocols/stun": (VALUES + ("protocols/wire/", "protocols/stun/"), ()),
    "protocols/upnp": (VALUES + ("protocols/wire/", "protocols/upnp/"), ()),
    "protocols/upnp/xml": (VALUES + ("protocols/wire/", "protocols/upnp/xml/"), ("pugixml",)),
    "nat/packet": (VALUES + ("nat/packet/",), ()),
    # the engine implements the seam, so it may see its values
    "nat/engine": (VALUES + ("nat/packet/", "nat/engine/", "nat/plane/data_plane.hpp"), ()),
    "nat/plane": (VALUES + ("nat/plane/data_plane", "nat/packet/", "nat/engine/"), ()),
    "nat/plane/memory": (VALUES + ("nat/packet/", "nat/engine/", "nat/plane/data_plane.hpp", "nat/plane/memory/"), ()),
    "nat/plane/host": (VALUES + ("nat/packet/", "nat/engine/", "nat/plane/data_plane.hpp", "nat/plane/host/"), ("mnl", "linux")),
    "nat/plane/tun": (VALUES + ("nat/packet/", "nat/engine/", "nat/plane/data_plane.hpp", "nat/plane/host/", "nat/plane/tun/"),
                      ("mnl", "linux")),
    "nat/plane/ebpf": (VALUES + ("nat/packet/", "nat/engine/", "nat/plane/data_plane.hpp", "nat/plane/host/", "nat/plane/ebpf/"),
                       ("mnl", "linux", "libbpf")),
    "src/lease": (VALUES + ("nat/plane/data_plane.hpp", "src/lease/"), ()),
    "src/lease/store": (VALUES + ("nat/plane/data_plane.hpp", "src/lease/"), ("sqlite",)),
    "src/transport": (VALUES + ("protocols/wire/", "protocols/upnp/http/", "nat/plane/data_plane.hpp",
                                "src/transport/"), ("asio", "beast", "spdlog", "mnl", "linux")),
    "src/admin": (VALUES + ("include/sallyport/admin/", "src/lease/", "nat/plane/data_plane.hpp", "src/transport/",
                            "src/admin/"), ("asio", "beast", "json", "spdlog")),
    "src/client": (VALUES + ("include/sallyport/", "protocols/", "src/transport/", "src/client/"),
                   ("asio", "beast", "json")),
    # the client library is Asio's to run, as for any user of it
    "src/cli": (VALUES + ("include/sallyport/", "src/cli/"), ("cli11", "json", "asio")),
    "src/daemon": (("",), tuple(LIBRARIES)),
}
NOBODY_INCLUDES = "src/daemon/"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path):
    fits = [room for room in ROOMS if path.startswith(room + "/")]
    return max(fits, key=len) if fits else None


def judge(path, bracket, header):
    """None when the include is allowed, else why it is not."""
    room = room_of(path)
    if room is None:
        return f"{path} lies in no known room"
    own_rooms, libraries = ROOMS[room]
    target = "include/" + header if header.startswith("sallyport/") else header
    ours = target.startswith(("include/", "protocols/", "nat/", "src/", "tests/", "examples/"))
    if ours:
        if target.startswith(NOBODY_INCLUDES) and room != "src/daemon":
            return f"{room} includes {header}: nobody includes the daemon"
        if target.startswith(room + "/") or any(target.startswith(allowed) for allowed in own_rooms):
            return None
        return f"{room} may not include {header}"
    for library, begins in LIBRARIES.items():
        if header.startswith(begins):
            return None if library in libraries else f"{room} may not use {library} ({header})"
    return None


def check(root):
    failures = []
    files = 0
    for top in ("include", "protocols", "nat", "src"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in (".hpp", ".cpp", ".h", ".c"):
                continue
            files += 1
            name = path.relative_to(root).as_posix()
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found = INCLUDE.match(line)
                why = judge(name, found[1], found[2]) if found else None
                if why:
                    failures.append(f"{name}:{number}: {why}")
    return files, failures


FORBIDDEN = (  # this test has been seen to fail: each of these must be refused
    ("protocols/pcp/server.cpp", "protocols/natpmp/codec.hpp"),
    ("protocols/pcp/server.cpp", "src/lease/lease_service.hpp"),
    ("protocols/pcp/server.cpp", "boost/asio.hpp"),
    ("nat/engine/engine.cpp", "protocols/pcp/codec.hpp"),
    ("nat/engine/engine.cpp", "nat/plane/tun/tun_plane.hpp"),
    ("src/lease/quota.cpp", "nat/engine/engine.hpp"),
    ("src/lease/quota.cpp", "SQLiteCpp/SQLiteCpp.h"),
    ("src/cli/list.cpp", "src/lease/lease_service.hpp"),
    ("src/admin/api.cpp", "src/daemon/config.hpp"),
    ("include/sallyport/values/port.hpp", "nat/plane/data_plane.hpp"),
)


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    if root.is_file():
        root = root.parents[2]
    passed = failed = 0
    files, failures = check(root)
    for failure in failures:
        print(f"FAILED  {failure}")
    failed += len(failures)
    if not failures:
        passed += 1
        print(f"ok      {files} files include only what their room may")
    for path, header in FORBIDDEN:
        if judge(path, '"', header):
            passed += 1
        else:
            failed += 1
            print(f"FAILED  {path} including {header} was let through")
    top = {p.name for p in root.iterdir() if not p.name.startswith(".") and not p.name.startswith("build")}
    extra = top - {"CMakeLists.txt", "CMakePresets.json", "src", "include", "protocols", "nat", "tests", "examples",
                   "README.md", "LICENSE"}
    if extra:
        failed += 1
        print(f"FAILED  the top level is fixed; remove or move {', '.join(sorted(extra))}")
    else:
        passed += 1
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
