"""Progress of experiments: lines and bars."""

import io
import math
import sys

import pytest
from made_results import made_result

from cdrop.cli import progress
from cdrop.cli.progress import Progress


class Net:
    def __init__(self, iterations=0):
        self.history = type("History", (), {"iterations": iterations})()


def run(shown, iterations, before=0):
    """Let a run report its iterations."""
    net = Net(before)
    shown.on_fit_begin(net, iterations - before)
    for net.history.iterations in range(before + 1, iterations + 1):
        shown.on_iteration(net, net.history.iterations, 0.5)


def finish(shown, result):
    """Finish all runs, repeat by repeat."""
    shown.on_begin(result)
    for trials in zip(*(arm.trials for arm in result.arms.values()), strict=True):
        for trial in trials:
            shown.on_trial(trial)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("repeats", "lines"), [(5, 5), (100, 20), (1000, 20)])
def test_lines_are_sparse(repeats, lines, capsys):
    finish(Progress([1.0] * 3 * repeats), made_result(("a", "b", "c"), repeats))
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == lines
    assert printed[-1].startswith(f"repeat {repeats:,} of {repeats:,}: accuracy ")
    assert printed[-1].endswith("; 100% done, about 0:00 min left")


def test_long_runs_have_a_line_each_and_one_within(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown = Progress([500.0], done=500.0)
    run(shown, 2)
    assert capsys.readouterr().err.splitlines()[-2].startswith("  75% done, about ")
    finish(Progress([1.0] * 4), made_result(repeats=2))
    assert "repeat 1 of 2, none: accuracy" in capsys.readouterr().err


def test_work_is_counted_with_what_a_checkpoint_has(monkeypatch):
    shown = Progress([10.0, 6.0], done=4.0)
    assert math.isinf(shown.seconds_left)
    run(shown, 5, before=3)
    assert shown.share == pytest.approx(14 / 20)
    monkeypatch.setattr(shown, "_begun", shown._begun - 10)
    assert shown.seconds_left == pytest.approx(6, rel=0.01)


def test_share_never_falls_where_a_run_has_several_candidates():
    shown = Progress([1.0, 1.0])
    shares = []
    for _ in range(3):
        run(shown, 4)
        shown.on_fit_begin(Net(), 4)
        shares.append(shown.share)
    assert shares == [0.5, 0.5, 0.5]
    shown.on_trial(made_result().arms["none"].trials[0])
    assert shown.share == 0.5


def test_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress([1.0] * 6, done=2.0)
    finish(shown, made_result(("a", "b"), 3))
    shown.print("a line")
    shown.close()
    drawn = sys.stderr.getvalue()
    assert "25%" in drawn
    assert "100%" in drawn
    assert "a line\n" in drawn
    assert "repeat 1" not in drawn  # the bar says enough
