"""Examples of a page of the docs, run with other packages in a separate environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

from campaign import ROOT


def examples(page: Path):
    """Return the first Python block under each heading of a page, by heading; those without one are left out."""
    sections = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {
        name: block[1]
        for name, body in pairs
        if (block := re.search(r"^```py\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
    }


def environment(directory: Path, *packages):
    """Make a virtual environment with the newest releases of some packages; return its Python."""
    python = directory / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--upgrade", "pip"], check=True)
    subprocess.run([*install, *packages], check=True)
    return python


def run_script(python: Path, script: str, directory: Path, **variables: str):
    """Run a script in a new directory, with cdrop as it is here; return its exit code and the last line it printed."""
    directory.mkdir()
    (directory / "example.py").write_text(script, encoding="utf-8")  # workers may import it again
    done = subprocess.run(
        [python, "example.py"],
        cwd=directory,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    printed = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, printed[-1][:100] if printed else "no output"
