"""Progress of experiments: what is counted, lines where there is no terminal, a bar where there is one."""

import io
import sys
from types import SimpleNamespace

import pytest
from made_results import made_result

from cdrop import cli
from cdrop.cli import progress

RESULT = made_result(repeats=0, asked=4)


def Progress(left, done=0.0):
    """The display of these runs."""
    return progress.Progress(iter(left), done, done + sum(map(sum, left)))


def net(iterations):
    return SimpleNamespace(history=SimpleNamespace(iterations=iterations))


def trials(repeats):
    """The runs of some repeats, arm by arm."""
    done = made_result(repeats=repeats).trials
    return sorted(done, key=lambda trial: trial.repeat)


def make_terminal(monkeypatch, *names):
    """Let standard error, and other streams named, be a terminal; return it."""
    pytest.importorskip("tqdm")
    stream = io.StringIO()
    stream.isatty = lambda: True
    for name in ("stderr", *names):
        monkeypatch.setattr(sys, name, stream)
    return stream


def test_iterations_count_as_parts_of_a_run_also_those_of_a_checkpoint(monkeypatch):
    shown = Progress([[10], [6]], done=4)
    assert shown.share == pytest.approx(4 / 20)
    shown.on_fit_begin(net(3), 2)  # three of its five iterations were made before
    assert shown.share == pytest.approx(10 / 20)
    for done in (4, 5):
        shown.on_iteration(net(done), done, 0.5)
    assert shown.share == pytest.approx(14 / 20)
    monkeypatch.setattr(shown, "_begun", shown._begun - 10)
    assert shown.seconds_left == pytest.approx(6, rel=0.01)
    shown.on_trial(trials(1)[0])
    shown.on_fit_begin(net(0), 2)
    shown.on_iteration(net(1), 1, 0.5)
    assert shown.share == pytest.approx(17 / 20)


def test_candidates_are_fits_of_one_run():
    shown, seen = Progress([[1, 1], [1, 1, 1]]), []
    for fits, trial in zip((2, 3), trials(1), strict=True):
        for _ in range(fits):
            shown.on_fit_begin(net(0), 10)
            shown.on_iteration(net(5), 5, 0.5)  # early stopping ends each fit half-way
            seen.append(shown.share)
        shown.on_trial(trial)
        seen.append(shown.share)
    assert seen == pytest.approx([0.1, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0])


def test_before_anything_is_done_the_time_left_is_unknown():
    shown = Progress([[1.0]])
    assert shown.seconds_left == float("inf")
    assert progress.clock(shown.seconds_left) == "?"
    assert Progress([], done=3).share == 1


def test_an_experiment_has_begun_when_its_result_is_known():
    shown = Progress([[1.0]])
    assert not shown.begun
    shown.on_begin(RESULT)
    assert shown.begun


@pytest.mark.parametrize(("repeats", "lines"), [(4, 4), (100, 20), (1000, 20)])
def test_a_line_for_each_of_few_repeats_and_for_some_of_many(repeats, lines, capsys):
    shown = Progress([[1.0]] * 2 * repeats)
    shown.on_begin(made_result(repeats=0, asked=repeats))
    for trial in trials(repeats):
        shown.on_trial(trial)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == lines
    assert f"; {1 / lines:.0%} done, about " in printed[0]
    assert printed[-1].startswith(f"repeat {repeats:,} of {repeats:,}: accuracy ")
    assert printed[-1].endswith("; 100% done, about 0:00 min left")


def test_runs_of_several_jobs_may_end_in_any_order(capsys):
    shown = Progress([[1.0]] * 8)
    shown.on_begin(RESULT)
    for trial in reversed(trials(4)):
        shown.on_trial(trial)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"repeat {r} of 4" for r in (4, 3, 2, 1)]
    first, second = (f" {name}" for name in RESULT.arms)
    assert all(line.index(first) < line.index(second) for line in lines)
    assert shown.share == 1


def test_long_runs_report_within_and_after_each_run(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown = Progress([[500]], done=500)
    shown.on_begin(made_result(repeats=0, asked=1))
    shown.on_fit_begin(net(0), 2)
    shown.on_iteration(net(1), 1, 0.5)
    shown.on_trial(trials(1)[0])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  50% done, about ?")
    assert lines[1].startswith("  75% done, about 0:00 min")
    assert lines[2].startswith("repeat 1 of 1, none: accuracy")


def test_a_reader_that_left_does_not_end_the_run(monkeypatch):
    stream = io.StringIO()

    def gone(text):
        raise BrokenPipeError

    stream.write = gone
    monkeypatch.setattr(sys, "stderr", stream)
    Progress([[1.0]]).print("a line")


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = make_terminal(monkeypatch)
    shown = Progress([[750]], done=250)
    assert terminal.getvalue() == ""
    shown.on_begin(RESULT)
    assert "25%" in terminal.getvalue()
    shown.on_fit_begin(net(0), 2)
    shown.on_trial(trials(1)[0])
    shown.print("a line")
    shown.close()
    assert "a line\n" in terminal.getvalue()
    assert "repeat" not in terminal.getvalue()
    assert terminal.getvalue().splitlines()[-1].strip() == ""  # the bar is gone


def test_the_bar_is_below_the_heading(monkeypatch, tmp_path):
    terminal = make_terminal(monkeypatch, "stdout")
    rows = "".join(f"{i % 7},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"x,kind\n{rows}")
    line = "--label kind --splits 2 --hidden 4 --epochs 1 --rates 0.5 --l2 0 --jobs 1"
    assert cli.main(["compare", "--data", str(tmp_path / "t.csv"), *line.split()]) == 0
    heading, bar = terminal.getvalue().split("\r", 1)
    assert heading.startswith("data      t.csv\n")
    assert heading.endswith("\n\n")
    assert bar.lstrip().startswith("0%")
