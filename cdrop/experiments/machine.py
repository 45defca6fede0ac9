"""The machine a result was made on: processor, SIMD path, threads, versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["EXTRAS", "describe", "package_version", "processor_name", "thread_source", "tuning"]

# The extras of pyproject.toml, and the package each one brings.
EXTRAS = {
    "sklearn": "scikit-learn",
    "table": "pandas",
    "io": "safetensors",
    "onnx": "skl2onnx",
    "stats": "scipy",
    "plot": "matplotlib",
    "report": "jinja2",
    "progress": "tqdm",
    "parallel": "joblib",
    "data": "pooch",
}

# Designs by vendor and family: first and last model, and the name. Sources, in Linux: arch/x86/kernel/cpu/amd.c, and
# arch/x86/include/asm/intel-family.h (servers, and the clients that are widespread).
_DESIGNS = {
    ("AuthenticAMD", 23): [
        (0x00, 0x2F, "Zen"),
        (0x30, 0x4F, "Zen 2"),
        (0x50, 0x5F, "Zen"),
        (0x60, 0x7F, "Zen 2"),
        (0x90, 0x91, "Zen 2"),
        (0xA0, 0xAF, "Zen 2"),
    ],
    ("AuthenticAMD", 25): [
        (0x00, 0x0F, "Zen 3"),
        (0x10, 0x1F, "Zen 4"),
        (0x20, 0x5F, "Zen 3"),
        (0x60, 0xAF, "Zen 4"),
    ],
    ("AuthenticAMD", 26): [
        (0x00, 0x2F, "Zen 5"),
        (0x40, 0x4F, "Zen 5"),
        (0x60, 0x7F, "Zen 5"),
    ],
    ("GenuineIntel", 6): [
        (0x3F, 0x3F, "Haswell"),
        (0x4F, 0x4F, "Broadwell"),
        (0x55, 0x55, "Skylake or Cascade Lake"),
        (0x6A, 0x6A, "Ice Lake"),
        (0x6C, 0x6C, "Ice Lake"),
        (0x8F, 0x8F, "Sapphire Rapids"),
        (0x97, 0x97, "Alder Lake"),
        (0x9A, 0x9A, "Alder Lake"),
        (0xAD, 0xAE, "Granite Rapids"),
        (0xAF, 0xAF, "Sierra Forest"),
        (0xB7, 0xB7, "Raptor Lake"),
        (0xBA, 0xBA, "Raptor Lake"),
        (0xBF, 0xBF, "Raptor Lake"),
        (0xCF, 0xCF, "Emerald Rapids"),
    ],
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
        ``cpu``, ``simd``, ``parameters`` (of the SIMD path, by dtype), ``threads``, ``threads_from``, ``platform``
        and ``versions``.
    """
    import cdrop
    from cdrop import kernels

    return {
        "cpu": processor_name(),
        "simd": kernels.simd(),
        "parameters": kernels.simd_parameters(),
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


def tuning(about: dict[str, Any]) -> str:
    """Return the SIMD path in use and its parameters for float32 in words.

    Parameters
    ----------
    about : dict
        What `describe` returned.

    Returns
    -------
    str
    """
    chosen = dict(about["parameters"]["float32"])
    words = [f"panels of {chosen.pop('panel'):g} columns"]
    words.append(f"dense products above {chosen.pop('dense_above'):.0%} live")
    words += [f"{name} {value:g}" for name, value in chosen.items()]
    return f"{about['simd']}: {', '.join(words)}"


def processor_name(source: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name with family and model, or its architecture where the system does not report them.

    Virtual machines often shorten the name to that of the brand; family and model still identify the design.

    Parameters
    ----------
    source : pathlib.Path
        Where Linux describes the processors.

    Returns
    -------
    str
        For example ``"AMD EPYC (family 25, model 1, Zen 3)"``.
    """
    try:
        text = source.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first = text.strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown"
    try:
        family, model = int(facts["cpu family"]), int(facts["model"])
    except (KeyError, ValueError):
        return name
    design = _design(facts.get("vendor_id", ""), family, model)
    return f"{name} (family {family}, model {model}{f', {design}' if design else ''})"


def _design(vendor: str, family: int, model: int) -> str | None:
    """Return the name of a processor's design, where it is one of `_DESIGNS`."""
    for (of, number), designs in _DESIGNS.items():
        if (of, number) == (vendor, family):
            return next((name for first, last, name in designs if first <= model <= last), None)
    return None


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
