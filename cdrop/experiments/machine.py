"""The machine a result was made on: processor, SIMD path, threads, versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["EXTRAS", "describe", "package_version", "processor_name", "thread_source"]

# The extras of pyproject.toml that a command of `cdrop` can use, and the package each one brings.
EXTRAS = {
    "stats": "scipy",
    "plot": "matplotlib",
    "report": "jinja2",
    "table": "pandas",
    "data": "pooch",
    "progress": "tqdm",
    "io": "safetensors",
    "parallel": "joblib",
}


def describe(threads: int | None = None) -> dict[str, Any]:
    """Describe this machine as far as it bears on a result.

    Parameters
    ----------
    threads : int, optional
        Threads that were asked for; by default what cdrop uses on its own.

    Returns
    -------
    dict
        ``cpu``, ``simd``, ``threads``, ``threads_from``, ``platform`` and ``versions``.
    """
    import cdrop
    from cdrop import kernels

    return {
        "cpu": processor_name(),
        "simd": kernels.simd(),
        "threads": cdrop.get_num_threads() if threads is None else threads,
        "threads_from": thread_source() if threads is None else "asked for",
        "platform": platform.platform(),
        "versions": {
            "cdrop": cdrop.__version__,
            "python": platform.python_version(),
            "numpy": package_version("numpy"),
            "scipy": package_version("scipy"),
        },
    }


def processor_name() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def thread_source() -> str:
    """Say where the number of threads that cdrop uses on its own comes from."""
    import cdrop
    from cdrop._threads import default_threads

    number, source = default_threads()
    return source if number == cdrop.get_num_threads() else "cdrop.set_num_threads"


def package_version(name: str) -> str | None:
    """Return the version of an installed package without importing it; None if absent.

    Examples
    --------
    >>> package_version("no-such-package") is None
    True
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
