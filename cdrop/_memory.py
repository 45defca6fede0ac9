"""How much memory is free, to refuse what would take more: Linux grants it, and ends the process when it is used."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

__all__ = ["check_memory", "free_memory"]

_GIB = 2**30


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes that this process may still take, in its cgroup as well; infinity where that is unknown."""
    free = math.inf
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        free = 1024.0 * int(line.split()[1])
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no limit is the word "max"
            most = int((cgroup / limit).read_text())
            free = min(free, max(0, most - int((cgroup / used).read_text())))
    return free


def check_memory(size: int, what: str, instead: str) -> None:
    """Raise MemoryError if `size` bytes are not free; the message says for what, and what to do instead."""
    free = free_memory()
    if size > free:
        raise MemoryError(
            f"{what} take {size / _GIB:.3g} GiB; expected at most the {free / _GIB:.3g} GiB that are free: {instead}"
        )
