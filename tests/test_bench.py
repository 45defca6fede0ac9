"""How long a step takes: `cdrop bench`, and the benchmarks beside the package."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cdrop import cli
from cdrop.experiments import bench


def test_the_command_says_where_the_time_goes(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--rounds", "1", "--threads", "2", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    for word in ("\ndropout 0.5, 2 threads", "\nno dropout, 1 thread", "products", "waiting"):
        assert word in printed
    saved = json.loads(path.read_text())
    assert saved["size"] == "small"
    assert [(s["dropout"], s["threads"]) for s in saved["steps"]] == [
        (0.5, 2),
        (0.0, 2),
        (0.5, 1),
        (0.0, 1),
    ]


def test_measured_parts_are_shares_of_the_whole():
    rounds = []
    times = bench.measure(threads=1, rounds=2, steps=2, on_round=rounds.append)
    assert rounds == [1, 2]
    for t in times:
        assert len(t.seconds) == 2
        assert min(t.seconds) > 0
        assert sum(t.parts.values()) == pytest.approx(1)
        assert all(share >= 0 for share in t.parts.values())
    assert times[0].parts["masks"] > 0


def test_a_path_that_cannot_be_written_is_refused_first(capsys):
    assert cli.main(["bench", "--json", "/no/such/folder/b.json"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.skipif(not find_spec("benchmarks"), reason="the benchmarks are not beside these tests")
def test_the_benchmarks_run_with_cdrop_alone(tmp_path):
    path = tmp_path / "all.json"
    only = ["--only", "masks", "prediction", "fits"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--peers", *only]
    folder = Path(__file__).parents[1]
    run = subprocess.run(
        [*command, "--json", str(path)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(path.read_text())["results"]
    assert {r["group"] for r in results} == {"masks", "prediction", "fits"}
    assert all(min(r["seconds"]["cdrop"]) > 0 for r in results)
