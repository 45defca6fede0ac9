"""``cdrop bench``: how long a training step takes here, and what it is spent on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cdrop.cli.common import check_outputs, say

if TYPE_CHECKING:
    from cdrop.experiments.bench import StepTime

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Time training steps."""
    from dataclasses import asdict

    from cdrop._files import write_atomically
    from cdrop.experiments import bench, machine

    check_outputs(args)
    about = machine.describe(args.threads)
    say(_heading(about, args.size, args.rounds))
    times = bench.measure(args.size, threads=args.threads, rounds=args.rounds)
    say(_table(times))
    if args.json:
        result = about | {"size": args.size, "steps": [asdict(t) for t in times]}
        write_atomically(args.json, lambda f: f.write(json.dumps(result, indent=1).encode()))
        say(f"Written: {args.json}")
    return 0


def _heading(machine: dict[str, Any], size: str, rounds: int) -> str:
    """Describe what is timed, and on what."""
    from cdrop.experiments.bench import SIZES

    units, batch = SIZES[size]
    return (
        f"{'-'.join(map(str, units))}, batch {batch}, float32, RMSprop, drawn digits; "
        f"medians of {rounds} rounds, best in brackets\n"
        f"{machine['cpu']}, {machine['simd']}, cdrop {machine['versions']['cdrop']}\n"
    )


def _table(times: Sequence[StepTime]) -> str:
    """Return a table of step times and of what they are spent on."""
    parts = list(times[0].parts)
    lines = [f"{'':<26}{'us a step':>18}   " + "".join(f"{part:>10}" for part in parts)]
    for t in times:
        threads = f"{t.threads} thread{'s' * (t.threads > 1)}"
        name = f"{f'dropout {t.dropout:g}' if t.dropout else 'no dropout'}, {threads}"
        step = f"{t.median * 1e6:.0f} [{min(t.seconds) * 1e6:.0f}]"
        lines.append(f"{name:<26}{step:>18}   " + "".join(f"{t.parts[p]:>10.1%}" for p in parts))
    lines += [
        "",
        f"A step with dropout takes {times[0].median / times[1].median:.2f} of one without.",
    ]
    if len(times) > 2:
        gain = times[2].median / times[0].median
        lines.append(f"{times[0].threads} threads are {gain:.2f} times as fast as one.")
    return "\n".join(lines)
