"""How long a step takes: `cdrop bench`, and the benchmarks next to the package."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import cdrop
from cdrop import cli, kernels
from cdrop.experiments import bench, machine


def test_the_command_says_where_the_time_goes(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--rounds", "1", "--threads", "2", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "2 threads       2 threads        1 thread        1 thread\n",
        "dropout 0.5      no dropout     dropout 0.5      no dropout\n",
        "\nproducts  ",
        "\n  gradient by weight  ",
        "\nwaiting  ",
        "\n  forward, layer 3  ",
        "\noutside C  ",
        f"\n{kernels.simd()}: panels of ",
    ):
        assert words in printed
    assert max(map(len, printed.splitlines()[4:])) <= 100
    saved = json.loads(path.read_text())
    assert saved["size"] == "small"
    assert saved["parameters"] == kernels.simd_parameters()
    assert [(s["dropout"], s["threads"]) for s in saved["steps"]] == [
        (0.5, 2),
        (0.0, 2),
        (0.5, 1),
        (0.0, 1),
    ]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    def full(path, write):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("cdrop._files.write_atomically", full)
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--rounds", "1", "--threads", "1", "--json", str(path)]) == 1
    printed = capsys.readouterr()
    assert "microseconds a step" in printed.out
    assert "Written" not in printed.out
    assert printed.err.startswith(f"cdrop bench: error: {path} was not written: [Errno 28]")
    assert printed.err.count("\n") == 1


def test_measured_parts_are_shares_of_the_whole():
    rounds = []
    times = bench.measure(threads=1, rounds=2, steps=2, on_round=rounds.append)
    assert rounds == [1, 2]
    for t in times:
        assert len(t.seconds) == len(t.fit_seconds) == 2
        assert min(t.seconds) > 0
        assert sum(map(sum, t.parts.values())) == pytest.approx(1)
        assert all(share >= 0 for shares in t.parts.values() for share in shares)
        assert t.parts[bench.OUTSIDE][0] > 0
        assert min(t.parts["products: forward"]) > 0


def test_masks_take_time_only_with_dropout():
    def more_with_dropout():
        dropout, none = bench.measure(threads=1, rounds=1, steps=20)
        return dropout.parts["masks"][0] > none.parts["masks"][0]

    assert any(more_with_dropout() for _ in range(3))  # another process may take the CPU meanwhile


CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: {model}
model name\t: {name}

processor\t: 1
model name\t: another
"""


@pytest.mark.parametrize(
    ("vendor", "name", "family", "model", "expected"),
    [
        ("AuthenticAMD", "AMD EPYC", 25, 1, "AMD EPYC (family 25, model 1, Zen 3)"),
        ("AuthenticAMD", "AMD EPYC 9R14", 25, 17, "AMD EPYC 9R14 (family 25, model 17, Zen 4)"),
        ("GenuineIntel", "Xeon", 6, 143, "Xeon (family 6, model 143, Sapphire Rapids)"),
        ("GenuineIntel", "Xeon", 6, 1, "Xeon (family 6, model 1)"),
        ("Another", "One", 25, 1, "One (family 25, model 1)"),
    ],
)
def test_processor_name_identifies_the_design(tmp_path, vendor, name, family, model, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO.format(vendor=vendor, name=name, family=family, model=model))
    assert machine.processor_name(path) == expected


def test_processor_name_without_family_or_file(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Cortex\n")
    assert machine.processor_name(path) == "Cortex"
    assert machine.processor_name(tmp_path / "none")


def test_simd_parameters_describe_the_path_in_use():
    found = kernels.simd_parameters()
    assert list(found) == ["float32", "float64"]
    for parameters in found.values():
        assert parameters["panel"] % 64 == 0
        assert 0 < parameters["dense_above"] <= 1


def test_a_path_that_cannot_be_written_is_refused_first(capsys):
    assert cli.main(["bench", "--json", "/no/such/directory/b.json"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.skipif(
    not find_spec("benchmarks"), reason="the benchmarks are not next to these tests"
)
def test_the_benchmarks_run_with_cdrop_alone(tmp_path):
    path = tmp_path / "all.json"
    names = {"masks", "prediction", "fits", "tabular", "small", "overhead"} | (
        {"busy"} if cdrop.get_num_threads() > 1 else set()
    )
    only = ["--only", *sorted(names)]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--peers", *only]
    directory = Path(__file__).parents[1]
    run = subprocess.run(
        [*command, "--json", str(path)], cwd=directory, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{machine.processor_name()}, ")
    record = json.loads(path.read_text())
    assert {r["group"] for r in record["results"]} == names
    assert all(min(r["seconds"]["cdrop"]) > 0 for r in record["results"])
    from benchmarks import table

    assert table.column(record)["whole fit, 150 x 4, 10, 100 epochs, Adam"]


@pytest.mark.skipif(
    not find_spec("benchmarks"), reason="the benchmarks are not next to these tests"
)
def test_results_go_into_their_column_of_the_page(tmp_path):
    from benchmarks import table

    text = (Path(__file__).parents[1] / "docs" / "speed.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].strip("| ") for line in text.split(table.MARK)[1].splitlines()]
    assert [row for row in rows if row in table.ROWS] == list(
        table.ROWS
    )  # each workload has its row
    seconds = {"cdrop": [0.5e-3, 1e-3, 9.0], "PyTorch": [7.34e-3] * 3}
    step = {"group": "steps", "name": "A with dropout", "per": "step", "seconds": seconds}
    record = {"cpu": "a processor", "date": "2026-12-01", "commit": "abc", "results": [step]}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record))
    page = tmp_path / "page.md"
    page.write_text(text)
    assert table.main([str(path), "--into", str(page), "--column", "Zen 3"]) == 0
    changed = dict(enumerate(zip(text.splitlines(), page.read_text().splitlines(), strict=True)))
    new = [line for old, line in changed.values() if old != line]
    assert [line.split(" | ")[-1] for line in new] == ["2026-12-01, abc |", "1 ms; PyTorch 7.3x |"]
    with pytest.raises(SystemExit, match="expected exactly one"):
        table.main([str(path), "--into", str(page), "--column", "AMD"])
