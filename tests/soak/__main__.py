"""Long campaigns, each reporting its figures of docs/reliability.md, a line each.

Fails if a figure falls short, if a tool is missing, or at the first wrong result.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from campaign import CAMPAIGNS, Run

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
for file in sorted(HERE.glob("[a-z]*.py")):
    importlib.import_module(file.stem)


def parse() -> argparse.Namespace:
    """Read the command line."""
    rows = (
        f"  {name:<12} rows {', '.join(map(str, c.rows))}: {c.about}"
        for name, c in CAMPAIGNS.items()
    )
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=...",
        description=__doc__,
        epilog="campaigns:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("campaign", nargs="*", metavar="CAMPAIGN", help="which (all)")
    add("--seed", type=int, default=0, metavar="N", help="of the trials (0)")
    add("--share", type=float, default=1.0, metavar="X", help="of each campaign's trials (1)")
    options = parser.parse_args()
    for name in options.campaign:
        if name not in CAMPAIGNS:
            parser.error(f"expected campaigns among {', '.join(CAMPAIGNS)}; got {name!r}")
    return options


def run_one(name: str, options: argparse.Namespace) -> int:
    """Run a campaign here; return how many figures fell short."""
    print(f"== {name}: {CAMPAIGNS[name].about}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        run = Run(options.seed, options.share, Path(directory))
        CAMPAIGNS[name].run(run)
    print(f"== {name}: {time.monotonic() - start:.0f} s, seed {options.seed}", flush=True)
    return run.failures


def main() -> int:
    """Run the campaigns named, or all, each in a separate process; the exit code says whether every figure holds."""
    options = parse()
    if len(options.campaign) == 1:
        return bool(run_one(options.campaign[0], options))
    with_options = [sys.executable, str(HERE), f"--seed={options.seed}", f"--share={options.share}"]
    names = options.campaign or list(CAMPAIGNS)
    return max([subprocess.run([*with_options, name], check=False).returncode for name in names])


if __name__ == "__main__":
    sys.exit(main())
