"""``cdrop info``: this machine and this installation."""

from __future__ import annotations

import argparse
from typing import Any

from cdrop.cli.common import say

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print what this machine and this installation are."""
    del args
    from cdrop import kernels
    from cdrop.experiments import machine

    about, usable = machine.describe(), kernels.simd_paths()
    say(_text(about, list(usable), list(kernels.simd_paths(built=True)), _cache()))
    return 0


def _cache() -> str:
    """Return where downloads are kept, or why there is no such place."""
    from cdrop.datasets import DataNotFoundError, cache_folder

    try:
        return str(cache_folder())
    except DataNotFoundError as error:
        return f"none: {error}"


def _text(about: dict[str, Any], usable: list[str], built: list[str], cache: str) -> str:
    """Describe the machine and the installation."""
    from cdrop.experiments import machine

    versions = about["versions"]
    lines = [
        f"cdrop     {versions['cdrop']}, Python {versions['python']}, NumPy {versions['numpy']}",
        f"platform  {about['platform']}",
        f"cpu       {about['cpu']}",
        f"SIMD      {about['simd']} is in use (CDROP_SIMD forces another)",
        f"          {machine.tuning(about).partition(': ')[2]} (float32)",
        f"          usable here: {', '.join(usable)}; built in: {', '.join(built)}",
        f"threads   {about['threads']} ({about['threads_from']})",
        f"cache     {cache}",
    ]
    for i, (extra, package) in enumerate(machine.EXTRAS.items()):
        version = machine.package_version(package)
        state = f"{package} {version}" if version else f"absent: pip install 'cdrop[{extra}]'"
        lines.append(f"{'' if i else 'extras':<9} {extra:<9} {state}")
    return "\n".join(lines)
