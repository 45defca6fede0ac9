"""Time cdrop next to PyTorch, JAX, scikit-learn and NumPy, as far as they are installed: all in one run, in turn."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Result
from benchmarks.workloads import WORKLOADS, Plan
from cdrop._files import check_writable, write_atomically
from cdrop.experiments import machine

PEERS = {"PyTorch": "torch", "JAX": "jax", "scikit-learn": "scikit-learn"}
INSTALL = "pip install torch==2.13.0 jax scikit-learn threadpoolctl"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"), (1e-12, "ps"))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"of {', '.join(WORKLOADS)}")
    add(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="NAME",
        help="who takes part",
    )
    add("--rounds", type=int, default=7, metavar="N", help="rounds; medians are shown (7)")
    add("--quick", action="store_true", help="few and small: does it run?")
    add("--json", type=Path, metavar="FILE", help="save every sample")
    add("--plots", type=Path, metavar="DIR", help="save pictures; needs matplotlib")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"argument --rounds: expected at least 1, got {options.rounds}")
    return options


def images() -> tuple[Any, Any, str, bool]:
    """Return 10,000 training images minus the article's mean, their labels, their name, and whether it is MNIST."""
    from cdrop.datasets import DataError, DataNotFoundError, drawn_digits, load_mnist

    mnist = True
    try:
        data = load_mnist(download=False)
    except (DataError, DataNotFoundError):
        data, mnist = drawn_digits(), False
    X = data.X_train[:10_000].reshape(10_000, 784).astype(np.float32) / np.float32(255)
    return X - X.mean(), data.y_train[:10_000], data.name, mnist


def describe(data: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a result depends on."""
    about = machine.describe()
    about["versions"] |= {name: machine.package_version(package) for name, package in PEERS.items()}
    git = ["git", "describe", "--always", "--dirty"]
    run = subprocess.run(git, capture_output=True, text=True, check=False)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    about |= {"commit": run.stdout.strip() or None, "data": data, "date": date}
    return about | {"rounds": options.rounds, "quick": options.quick}


def header(about: dict[str, Any]) -> str:
    """Return the lines above the tables."""
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    missing = [name for name in PEERS if not about["versions"][name]]
    lines = [
        f"{about['cpu']}, {os.cpu_count()} CPUs, {about['threads']} threads",
        machine.tuning(about),
        f"{versions}; commit {about['commit']}, {about['date']}",
        f"data: {about['data']}; medians of {about['rounds']} rounds, the best in brackets",
        "2x after a peer's time: cdrop takes half of it",
    ]
    if missing:
        lines.append(f"not installed: {', '.join(missing)} ({INSTALL})")
    return "\n".join(lines)


def show(seconds: float) -> str:
    """Return a time in the unit that leaves one to three digits before the point."""
    scale, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def line(result: Result) -> str:
    """Return one workload as a line of a table."""
    cells = [f"{show(result.median())} [{show(min(result.seconds['cdrop']))}]"]
    peers = [who for who in result.seconds if who != "cdrop"]
    cells += [f"{who} {show(result.median(who))} = {result.ratio(who):.2f}x" for who in peers]
    others = "   ".join(f"{c:<28}" for c in cells[1:])
    return f"  {result.name:<38} {cells[0]:<22} {others}".rstrip()


def run(plan: Plan, names: list[str]) -> list[Result]:
    """Run workloads, each result printed as soon as it is there."""
    results = []
    for name in names:
        print(f"\n{name}: {(WORKLOADS[name].__doc__ or '').strip()}", flush=True)
        for result in WORKLOADS[name](plan):
            results.append(result)
            print(line(result), flush=True)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks."""
    options = parse(arguments)
    if options.json:
        check_writable(options.json)
    X, y, data, mnist = images()
    about = describe(data, options)
    print(header(about))
    plan = Plan(
        X, y, rounds=options.rounds, quick=options.quick, peers=set(options.peers), mnist=mnist
    )
    results = run(plan, options.only or list(WORKLOADS))
    record = about | {"results": [vars(r) for r in results]}
    if options.json:
        write_atomically(options.json, lambda f: f.write(json.dumps(record, indent=1).encode()))
    if options.plots:
        from benchmarks.pictures import draw

        options.plots.mkdir(parents=True, exist_ok=True)
        for path in draw(results, about, options.plots):
            print(f"saved {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
