#!/usr/bin/env python3
"""Checks every CONFORMANCE.md: one row per ID, a known state, and every test that a row names exists.

A row is `| ID | state | test or reason |`; tests stand in backquotes: `Suite.Name` (GoogleTest) or `lab:name`
(tests/lab). Usage: check_conformance.py [ROOT]; prints, last, `N passed, N failed, N skipped`.
"""
import pathlib
import re
import sys

STATES = ("done", "partly", "not yet", "n/a")
GTEST = re.compile(r"\b(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(\s*(\w+)\s*,\s*(\w+)\s*\)")
PYTEST = re.compile(r"^\s*def (?:test_)?(\w+)\(", re.M)
LAB_NAME = re.compile(r"""(?:lab_test|test)\(\s*["']([\w-]+)["']""")
ROW = re.compile(r"^\|\s*([A-Z0-9][\w.]*(?:-[\w.]+)+)\s*\|\s*([^|]*?)\s*\|\s*(.*?)\s*\|\s*$")
TICKED = re.compile(r"`([^`]+)`")


def known_tests(root):
    gtests, labs = set(), set()
    for path in (root / "tests").rglob("*.cpp"):
        for suite, name in GTEST.findall(path.read_text(encoding="utf-8")):
            gtests.add(f"{suite}.{name}")
    for path in (root / "tests" / "lab").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        labs.update(PYTEST.findall(text))
        labs.update(LAB_NAME.findall(text))
    return gtests, labs


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    if root.is_file():
        root = root.parents[2]
    gtests, labs = known_tests(root)
    passed = failed = 0
    for path in sorted(root.rglob("CONFORMANCE.md")):
        name = path.relative_to(root).as_posix()
        if name.startswith("build"):
            continue
        problems, seen, count = [], set(), {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            row = ROW.match(line)
            if not row:
                continue
            identifier, state, shown = row[1], row[2], row[3]
            where = f"{name}:{number}: {identifier}"
            word = next((s for s in STATES if state == s or state.startswith(s + ":")), None)
            if word is None:
                problems.append(f"{where}: state '{state}' is none of {', '.join(STATES)}")
                continue
            count[word] = count.get(word, 0) + 1
            if identifier in seen:
                problems.append(f"{where}: a second row")
            seen.add(identifier)
            named = [t for t in TICKED.findall(shown) if re.fullmatch(r"\w+\.\w+|lab:[\w-]+", t)]
            for test in named:
                exists = test[4:] in labs or test[4:].replace("-", "_") in labs if test.startswith("lab:") else test in gtests
                if not exists:
                    problems.append(f"{where}: names {test}, which does not exist")
            if word == "done" and not named:
                problems.append(f"{where}: done, but names no test")
            if word != "done" and not shown:
                problems.append(f"{where}: {state}, but says nothing of why")
        if not seen:
            problems.append(f"{name}: no row found")
        for problem in problems:
            print(f"FAILED  {problem}")
        failed += len(problems)
        passed += len(seen)
        print(f"{name}: " + ", ".join(f"{count[s]} {s}" for s in STATES if s in count))
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
