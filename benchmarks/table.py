"""Write a machine's results into its column of the table in docs/speed.md: ``python -m benchmarks.table --help``.

make bench ARGS="--json zen3.json"
python -m benchmarks.table zen3.json                                  shows the column
python -m benchmarks.table zen3.json --into docs/speed.md --column "Zen 3"    replaces it
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.timing import Result
from cdrop._files import write_atomically

MARK = "<!-- measured: CDROP_DATA=... make bench -->"
DATE = "date, commit"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))

# The rows below the heading: what is shown, and the workload and name of the result, as far as they are long.
ROWS = {
    "step, 784-256-256-10, batch 256, dropout 0.5 (A)": ("steps", "A with dropout"),
    "the same without dropout": ("steps", "A without dropout"),
    "step, 784-1024-1024-1024-10, batch 128, dropout 0.5 (B)": ("steps", "B with dropout"),
    "B without dropout": ("steps", "B without dropout"),
    "step, 784-2048-2048-2048-10, batch 128, dropout 0.5": ("wide", "3 x 2048 with dropout"),
    "step, 30-256-256-256-2, batch 256, AdamW, dropout 0.15, 1 thread": (
        "tabular",
        "dropout 0.15, 1 thread",
    ),
    "the same without dropout, 1 thread": ("tabular", "no dropout, 1 thread"),
    "epoch of 10,000 rows, 4-32-16-4, tanh, Adam, full batch": ("small", "4-32-16-4"),
    "A on 2 threads": ("threads", "A on 2 threads"),
    "B on 2 threads": ("threads", "B on 2 threads"),
    "whole fit, 20,000 x 100, 128-64, batch 200, 3 epochs, Adam": ("fits", "tabular"),
    "whole fit, 150 x 4, 10, 100 epochs, Adam": ("fits", "tiny"),
    "`DropoutMLPClassifier((100,))` on digits, 60 epochs": (
        "estimators",
        "digits: 1,797 x 64, 100",
    ),
    "`DropoutMLPClassifier((100,))` on 60,000 images of MNIST, 4 epochs": (
        "estimators",
        "MNIST: 60,000 x 784, 100",
    ),
    "probabilities of one row, 784-256-256-10": ("prediction", "A, 1 rows"),
    "probabilities of 10,000 rows": ("prediction", "A, 10,000 rows"),
    "one iteration on 55,000 x 784: what `fit` costs once": ("overhead", "one iteration"),
    "`cdrop compare --data mnist`, process to process": ("job", "5 repeats"),
}


def time_of(seconds: float) -> str:
    """Return a time with two or three digits."""
    scale, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / scale:.{2 if seconds / scale < 9.95 else 3}g} {unit}"


def cell(result: Result) -> str:
    """Return cdrop's time, and how many times as long each peer takes."""
    peers = [who for who in result.seconds if who != "cdrop"]
    ratios = ", ".join(f"{who} {result.ratio(who):.2g}x" for who in peers)
    return f"{time_of(result.median())}{'; ' if ratios else ''}{ratios}"


def column(record: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a record that `benchmarks --json` saved, by the names of their rows."""
    results = [Result(**fields) for fields in record["results"]]
    cells = {DATE: f"{record['date']}, {record['commit']}"}
    for row, (group, name) in ROWS.items():
        found = next((r for r in results if r.group == group and r.name.startswith(name)), None)
        if found is not None:
            cells[row] = cell(found)
    return cells


def replaced(text: str, heading: str, cells: dict[str, str]) -> str:
    """Return the page with new cells in the one column of the table whose heading contains some words."""
    before, mark, after = text.partition(MARK)
    if not mark:
        raise SystemExit(f"no line {MARK}; expected one above the table")
    lines = after.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    at = [i for i, words in enumerate(_cells(lines[start])) if heading in words]
    if len(at) != 1:
        raise SystemExit(f"--column {heading!r} is in {len(at)} headings; expected exactly one")
    return before + mark + "\n".join(_replaced_lines(lines, start, at[0], cells))


def _cells(line: str) -> list[str]:
    return [words.strip() for words in line.strip().strip("|").split("|")]


def _replaced_lines(lines: list[str], start: int, at: int, cells: dict[str, str]) -> Iterator[str]:
    """Yield the lines; those of the table that begins at `start` with a new cell where there is one."""
    inside = True
    for i, line in enumerate(lines):
        inside = inside and (i < start or line.startswith("|"))
        words = _cells(line)
        if inside and i > start and words[0] in cells:
            words[at] = cells[words[0]]
            line = f"| {' | '.join(words)} |"
        yield line


def main(arguments: list[str] | None = None) -> int:
    """Show a column, or replace it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("record", type=Path, help="what `python -m benchmarks --json` saved")
    parser.add_argument("--into", type=Path, metavar="FILE", help="the file to change")
    parser.add_argument("--column", metavar="WORDS", help="words of the column's heading")
    options = parser.parse_args(arguments)
    record = json.loads(options.record.read_text(encoding="utf-8"))
    cells = column(record)
    print(record["cpu"])
    for row in (DATE, *ROWS):
        print(f"| {row} | {cells.get(row, '')} |")
    if options.into:
        text = replaced(options.into.read_text(encoding="utf-8"), options.column or "", cells)
        write_atomically(options.into, lambda f: f.write(text.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
