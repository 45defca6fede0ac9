"""Plain words: the habits of tests/data/habits.toml are counted in all text of the repository, code included.

``python tests/test_language.py`` prints each line.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = {
    ".c",
    ".css",
    ".h",
    ".html",
    ".ipynb",
    ".js",
    ".md",
    ".py",
    ".pyi",
    ".pxd",
    ".pyx",
    ".rst",
    ".toml",
    ".txt",
}
NAMES = {"Makefile", "MANIFEST.in", "run", "CITATION.cff"}
HOLDS_TEXT = (
    "*",
    ".ci/*",
    "benchmarks/**/*",
    "cdrop/**/*",
    "docs/**/*",
    "examples/*",
    "src_c/**/*",
    "tests/**/*",
)
NOT_OURS = (
    "docs/gallery",
    "tests/data/habits.toml",
    "LICENSE",
)  # made; the list itself; the license's own words


def settings():
    """Return the tables of habits and of places where they are meant."""
    path = ROOT / "tests" / "data" / "habits.toml"
    if not path.exists() or not (ROOT / "src_c").exists():
        pytest.skip("the sources are not next to these tests")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def files():
    """Return the paths of all files of text, relative to the repository."""
    found = {path for pattern in HOLDS_TEXT for path in ROOT.glob(pattern) if path.is_file()}
    names = {str(p.relative_to(ROOT)) for p in found if p.suffix in TEXT or p.name in NAMES}
    return sorted(name for name in names if not name.startswith(NOT_OURS))


def lines_with_habits(habits):
    """Yield file, number, line and what to write instead, once for each habit that a line has."""
    known = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in habits.items()]
    for name in files():
        text = (ROOT / name).read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            for pattern, better in known:
                if pattern.search(line.replace("_", " ") if line.startswith("def test_") else line):
                    yield name, number, line.strip(), better


def unexpected(known):
    """Return what is not meant."""
    meant = known["meant"]
    return [
        f"{name}:{number}: {line}  ->  {better}"
        for name, number, line, better in lines_with_habits(known["habits"])
        if not any(name == entry["file"] and entry["line"] in line for entry in meant)
    ]


def test_text_has_none_of_the_habits():
    found = unexpected(settings())
    assert not found, "\n".join(found)


def test_places_that_are_meant_are_few_and_exist():
    meant = settings()["meant"]
    assert len(meant) <= 10
    for entry in meant:
        assert entry["reason"]
        assert entry["line"] in (ROOT / entry["file"]).read_text(encoding="utf-8")


def test_each_example_is_seen():
    known = settings()
    for line in known["seen"]:
        assert any(re.search(habit, line, re.IGNORECASE) for habit in known["habits"]), line


if __name__ == "__main__":
    print(*unexpected(settings()), sep="\n")
