"""Tests that need POSIX say so: elsewhere they are skipped, and the others can run."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# What Windows does not have, or does otherwise: os.kill ends the process, links and pipes need rights.
POSIX_ONLY = re.compile(
    r"\bfcntl\.|\bresource\.|\bos\.(fork|kill|killpg|mkfifo|symlink|sysconf|wait)\w*\b|\bSIGKILL\b|[\"']fork[\"']"
    r"|symlink_to|\.chmod\(|/proc/self|\bfork_child\b|\bVictims\b|\bkill_\w+\("
)


def needing_posix(path):
    """Return the tests of a file, and the names in it that need POSIX: by themselves, or by those that they use."""
    text = path.read_text(encoding="utf-8")
    tests, source = {}, {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            tests[node.name] = [ast.unparse(line) for line in node.decorator_list]
            source[node.name] = "\n".join([*tests[node.name], ast.get_source_segment(text, node)])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            source[node.targets[0].id] = ast.get_source_segment(text, node)
    needing, pattern = set(), POSIX_ONLY
    while more := {name for name in source.keys() - needing if pattern.search(source[name])}:
        needing |= more
        pattern = re.compile(rf"""(?<![.\w"'])({"|".join(needing)})\b""")
    return tests, needing


FILES = sorted(HERE.glob("test_*.py"))


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != Path(__file__).name], ids=lambda p: p.stem
)
def test_what_needs_posix_is_marked(path):
    tests, needing = needing_posix(path)
    names = sorted(name for name in tests.keys() & needing if name.startswith("test_"))
    marked = re.compile(r"mark\.(posix|linux)\b")
    assert [name for name in names if not any(map(marked.search, tests[name]))] == []
