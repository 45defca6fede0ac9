"""How many threads to use by default, and how threadpoolctl sees and limits them."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

from cdrop import _kernels
from cdrop._checks import whole_number

__all__ = ["available_cpus", "default_threads", "get_num_threads", "install", "set_num_threads"]

_VARIABLES = ("CDROP_NUM_THREADS", "OMP_NUM_THREADS")


def _cgroup_cpus(directory: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that a container's quota allows; infinity where there is none."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (directory / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = (directory / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (directory / "cpu" / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:
            return int(quota) / int(period)
    return math.inf


def get_num_threads() -> int:
    """Return the number of threads that calls use by default.

    At import it is ``CDROP_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the number of CPUs that this process may use
    (affinity and cgroup).

    Returns
    -------
    int
    """
    return _kernels.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set the number that `get_num_threads` returns. Results do not depend on it, only speed.

    Parameters
    ----------
    threads : int
        1 to 256.

    Raises
    ------
    TypeError, ValueError
        If `threads` is not such an integer.
    """
    _kernels.set_num_threads(whole_number("threads", threads, 1, _kernels.MAX_THREADS + 1))


def available_cpus() -> int:
    """Return the number of CPUs this process may use: its affinity, within its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.floor(min(cpus, _cgroup_cpus())))


def default_threads() -> tuple[int, str]:
    """Return the initial number of threads, and where it comes from.

    Raises
    ------
    ImportError
        If `CDROP_NUM_THREADS` is not an integer of at least 1. An invalid `OMP_NUM_THREADS` is ignored: it is not ours.
    """
    for name in _VARIABLES:
        value = os.environ.get(name, "").split(",")[0].strip()
        if value.isdecimal() and int(value) >= 1:
            return min(int(value), _kernels.MAX_THREADS), name
        if value and name == _VARIABLES[0]:
            raise ImportError(f"{name} is {os.environ[name]!r}; expected an integer of at least 1")
    return min(available_cpus(), _kernels.MAX_THREADS), "the CPUs this process may use"


def _register_with_threadpoolctl() -> None:
    """Let `threadpoolctl.threadpool_limits` limit cdrop too, where that package is installed."""
    try:
        import threadpoolctl  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return

    class CdropController(threadpoolctl.LibController):  # type: ignore[misc,unused-ignore]
        user_api = "cdrop"
        internal_api = "cdrop"
        filename_prefixes = (Path(_kernels.__file__).name.split(".")[0] + ".",)
        check_symbols = ("cdrop_get_num_threads", "cdrop_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.cdrop_get_num_threads())

        def set_num_threads(self, num_threads: int) -> Any:
            return self.dynlib.cdrop_set_num_threads(num_threads)

        def get_version(self) -> None:
            return None

        def set_additional_attributes(self) -> None:
            self.simd = _kernels.simd()

    threadpoolctl.register(CdropController)


def install() -> None:
    """Set up the pool; called once, when cdrop is imported."""
    _kernels._set_cpus(available_cpus())
    _kernels.set_num_threads(default_threads()[0])
    _register_with_threadpoolctl()
