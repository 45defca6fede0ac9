"""``cdrop bench``: how long a training step takes here, and what it is spent on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from cdrop.cli.common import CommandError, check_outputs, say

if TYPE_CHECKING:
    from cdrop.experiments.bench import StepTime

__all__ = ["run"]

_SHOWN = 0.0005  # parts that round to more than nothing somewhere


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
        try:
            write_atomically(args.json, lambda f: f.write(json.dumps(result, indent=1).encode()))
        except OSError as error:
            raise CommandError(f"{args.json} was not written: {error}") from error
        say(f"Written: {args.json}")
    return 0


def _heading(about: dict[str, Any], size: str, rounds: int) -> str:
    """Describe what is timed, and on what."""
    from cdrop.experiments import machine
    from cdrop.experiments.bench import SIZES

    units, batch = SIZES[size]
    return (
        f"{'-'.join(map(str, units))}, batch {batch}, float32, RMSprop, drawn digits; "
        f"medians of {rounds} rounds, best in brackets\n"
        f"{about['cpu']}; cdrop {about['versions']['cdrop']}\n"
        f"{machine.tuning(about)}\n"
    )


def _table(times: Sequence[StepTime]) -> str:
    """Return a table of step times and of what they are spent on, a column for each `StepTime`."""
    lines = [
        _line("", [f"{t.threads} thread{'s' * (t.threads > 1)}" for t in times]),
        _line("", [f"dropout {t.dropout:g}" if t.dropout else "no dropout" for t in times]),
        _line(
            "microseconds a step",
            [f"{t.median * 1e6:.0f} [{min(t.seconds) * 1e6:.0f}]" for t in times],
        ),
    ]
    for name, shares in _rows(times):
        if max(shares) >= _SHOWN:
            pairs = zip(times, shares, strict=True)
            lines.append(_line(name, [f"{t.median * 1e6 * s:.1f} {s:6.1%}" for t, s in pairs]))
    fits = [f"{median(t.fit_seconds) * 1e6:.0f}" for t in times]
    lines += ["", _line("once a fit, in addition to its steps", fits), "", *_ratios(times)]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<36}" + "".join(f"{cell:>16}" for cell in cells)


def _rows(times: Sequence[StepTime]) -> Iterator[tuple[str, list[float]]]:
    """Yield each group of parts, then its parts, with their share in each column."""
    for group in dict.fromkeys(part.partition(": ")[0] for part in times[0].parts):
        details = list(_details(times, group))
        yield group, [sum(shares) for shares in zip(*(s for _, s in details), strict=True)]
        if len(details) > 1:
            yield from ((f"  {name}", shares) for name, shares in details)


def _details(times: Sequence[StepTime], group: str) -> Iterator[tuple[str, list[float]]]:
    """Yield the parts of a group, barriers layer by layer: each of them is one place in the step."""
    for part, first in times[0].parts.items():
        of, _, detail = part.partition(": ")
        columns = [t.parts[part] for t in times]
        if of == group == "waiting" and len(first) > 1:
            for i in range(len(first)):
                yield f"{detail}, layer {i + 1}", [c[i] for c in columns]
        elif of == group:
            yield detail, [sum(c) for c in columns]


def _ratios(times: Sequence[StepTime]) -> list[str]:
    """Return what the times have to do with each other."""
    ratio = times[0].median / times[1].median
    lines = [f"A step with dropout takes {ratio:.2f} of one without."]
    if len(times) > 2:
        gain = times[2].median / times[0].median
        lines.append(f"{times[0].threads} threads are {gain:.2f} times as fast as one.")
    return lines
