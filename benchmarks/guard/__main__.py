"""Count the instructions of every kernel with callgrind, and fail where one needs 10 % more than is on record.

Counts do not depend on how busy a machine is, only on the text and the compiler, so the record has an entry for each
compiler. Valgrind knows no AVX-512: that path is the same text with wider vectors, and counted on AVX2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("kernels.c")
RECORD = Path(__file__).with_name("record.json")
PATHS = ("scalar", "avx2")
TOLERANCE = 0.10

Counts = dict[str, int]


def compiler() -> list[str]:
    """Return the C compiler's command: `CC`, or gcc."""
    return shlex.split(os.environ.get("CC") or "gcc")


def machine() -> str:
    """Return what counts depend on in addition to the text: the processor's kind, the compiler and its version."""
    # gcc's -dumpversion is the first number only, and clang does not know -dumpfullversion.
    command = [*compiler(), "-E", "-P", "-"]
    text = subprocess.run(
        command, input="__VERSION__", capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"\d+(\.\d+)+", text)
    if version is None:
        raise SystemExit(f"{shlex.join(command)} prints no version: {text.strip()!r}")
    return f"{platform.machine()}, {Path(compiler()[0]).name} {version[0]}"


def build(program: Path) -> None:
    """Compile the workloads with the library, with the flags that users get."""
    flags = re.search(r'^POSIX_FLAGS = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    if flags is None:
        raise SystemExit('setup.py has no line POSIX_FLAGS = "..."')
    library = sorted((ROOT / "src_c").rglob("*.c"))
    command = [*compiler(), *flags[1].split(), f"-I{ROOT / 'src_c'}", "-pthread", str(PROGRAM)]
    subprocess.run([*command, *map(str, library), "-lm", "-o", str(program)], check=True)


def count(program: Path, path: str, directory: Path) -> Counts:
    """Run the workloads on one SIMD path; callgrind writes a file each time that `measured` returns."""
    out = directory / path
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    command += ["--toggle-collect=measured", "--dump-after=measured", str(program), path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    names = run.stdout.splitlines()
    return {name: total(Path(f"{out}.{i}")) for i, name in enumerate(names, start=1)}


def total(profile: Path) -> int:
    """Return the instructions that a profile sums up."""
    summary = re.search(r"^(?:summary|totals): (\d+)$", profile.read_text(), re.MULTILINE)
    if summary is None or int(summary[1]) == 0:
        raise SystemExit(f"{profile.name}: nothing was counted")
    return int(summary[1])


def compare(counts: Counts, record: Counts, path: str) -> list[str]:
    """Print each count next to that on record; return what is too slow, or not on record."""
    faults = []
    for name in sorted(counts.keys() | record.keys()):
        now, then = counts.get(name), record.get(name)
        if now is None or then is None:
            print(f"  {path:<8} {name:<24} {now or '':>10} {then or '':>10}")
            faults.append(f"{path}: {name} is {'gone' if now is None else 'not on record'}")
            continue
        change = now / then - 1
        print(f"  {path:<8} {name:<24} {now:>10} {then:>10} {change:+8.1%}")
        if change > TOLERANCE:
            faults.append(f"{path}: {name} needs {change:.1%} more instructions")
    return faults


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument(
        "--record", action="store_true", help="put these counts on record for this compiler"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Count and compare, or record."""
    options = parse(arguments)
    if shutil.which("valgrind") is None:
        raise SystemExit("the guard needs valgrind. Debian: apt install valgrind")
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    here = machine()
    if here not in records and not options.record:
        known = "; ".join(records) or "nothing"
        raise SystemExit(
            f"no counts on record for {here} (only for {known}). Choose another CC, or record "
            "them at a commit that is known to be fast: make guard ARGS=--record"
        )
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "kernels"
        build(program)
        counts = {path: count(program, path, Path(directory)) for path in PATHS}
    if options.record:
        records[here] = counts
        RECORD.write_text(json.dumps(records, indent=1) + "\n")
        print(f"on record for {here}: {sum(map(len, counts.values()))} counts")
        return 0
    print(f"instructions on {here}: now, on record, change")
    faults = [f for path in PATHS for f in compare(counts[path], records[here].get(path, {}), path)]
    for fault in faults:
        print(f"cdrop: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
