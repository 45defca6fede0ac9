"""The text of ``cdrop bench`` and ``cdrop info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdrop.experiments.report import plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cdrop.experiments.bench import StepTime

__all__ = ["bench", "bench_heading", "info"]


def bench_heading(machine: dict[str, Any], size: str, rounds: int) -> str:
    """Return what `bench` is going to time, and on what."""
    from cdrop.experiments.bench import SIZES

    units, batch = SIZES[size]
    return (
        f"{'-'.join(map(str, units))}, batch {batch}, float32, RMSprop, drawn digits; "
        f"medians of {rounds} rounds, best in brackets\n"
        f"{machine['cpu']}, {machine['simd']}, cdrop {machine['versions']['cdrop']}\n"
    )


def bench(times: Sequence[StepTime]) -> str:
    """Return a table of step times and of what they are spent on.

    Parameters
    ----------
    times : sequence of StepTime
        The return value of `cdrop.experiments.bench.measure`.

    Returns
    -------
    str
        Some lines without a final newline.
    """
    parts = list(times[0].parts)
    lines = [f"{'':<26}{'us a step':>18}   " + "".join(f"{part:>10}" for part in parts)]
    for t in times:
        name = f"{'with' if t.dropout else 'without'} dropout, {plural(t.threads, 'thread')}"
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


def info(
    machine: dict[str, Any],
    usable: Sequence[str],
    built: Sequence[str],
    extras: dict[str, tuple[str, str | None]],
    cache: Path,
) -> str:
    """Describe this machine and installation.

    Parameters
    ----------
    machine : dict
        The return value of `cdrop.experiments.machine.describe`.
    usable, built : sequence of str
        SIMD paths that this processor and system support, and all that were compiled in.
    extras : dict of str to tuple
        For each extra its package and that package's version, None where it is absent.
    cache : path
        Where downloaded data is kept.

    Returns
    -------
    str
        Some lines without a final newline.
    """
    versions = machine["versions"]
    lines = [
        f"cdrop     {versions['cdrop']}, Python {versions['python']}, NumPy {versions['numpy']}",
        f"platform  {machine['platform']}",
        f"cpu       {machine['cpu']}",
        f"SIMD      {machine['simd']} in use; usable here: {', '.join(usable)}; built in:"
        f" {', '.join(built)} (CDROP_SIMD forces one)",
        f"threads   {machine['threads']} ({machine['threads_from']})",
        f"cache     {cache}",
    ]
    for extra, (package, version) in extras.items():
        state = f"{package} {version}" if version else f"absent: pip install 'cdrop[{extra}]'"
        lines.append(f"{'extras' if extra == next(iter(extras)) else '':<9} {extra:<9} {state}")
    return "\n".join(lines)
