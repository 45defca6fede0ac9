"""Ledgers: runs are on disk one by one, whatever stops an experiment, and resuming gives the same numbers."""

import copy
import errno
import json
import math
import os
import random
import sys

import numpy as np
import pytest
from comparisons import timeless
from killed_fits import Victims, comparison, data, kill_comparison

from cdrop import Network
from cdrop.callbacks import Callback
from cdrop.experiments import (
    OtherExperimentError,
    Settings,
    Trial,
    compare,
    ledger,
    open_ledger,
    paired_experiment,
)

FILE = "experiment.jsonl"
TINY = Settings(repeats=3, iterations=30, hidden=4, batch_size=32)
IDENTITY, ARMS = {"seed": 2}, {"a": [{"hidden": [2]}], "b": [{"hidden": [3]}, {"hidden": [4]}]}


def trial(repeat=0, arm="a", rows=None, **changes):
    columns = {
        "iterations": [1, 2],
        "loss": [1.5, 0.1],
        "test_loss": [1.25, 1 / 3],
        "test_score": [0.5, 0.7],
    }
    fields = {
        "candidate": 0,
        "scores": {"accuracy": 0.7},
        "baseline": {"accuracy": 0.5},
        "train": 8,
        "test": 4,
    }
    return Trial(
        **{
            "repeat": repeat,
            "arm": arm,
            "rows": rows,
            **fields,
            **columns,
            "seconds": 0.125,
            **changes,
        }
    )


def kept(directory, *trials):
    """A ledger of some runs; return the path of its file."""
    made = open_ledger(directory)
    made.claim(IDENTITY, ARMS, "2026-01-01")
    for one in trials:
        made.add(one)
    return directory / FILE


def stopped_comparison(directory, after, settings=TINY):
    """Keep a comparison, and stop it by an error when run number `after` has been reported."""
    seen = []

    def stop(run):
        seen.append(run)
        if len(seen) == after:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        compare(data(), settings, ledger=open_ledger(directory, resume=True), on_trial=stop)


# ---- What is recorded --------------------------------------------------------------------------

ROWS = {
    "none": None,
    "bits": np.arange(13) % 3 == 0,
    "no bits": np.zeros(0, bool),
    "float32": np.array([0.1, 1e-45, 3e38, math.inf, -0.0, math.nan], np.float32),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_values_per_row_return_bit_for_bit(tmp_path, rows):
    given = trial(rows=rows, scores={"accuracy": 1 / 3, "roc_auc": math.nan})
    kept(tmp_path, given)
    (back,) = open_ledger(tmp_path, resume=True).trials
    for name, value in vars(given).items():
        if name != "rows":
            assert repr(getattr(back, name)) == repr(value)
    if rows is None:
        assert back.rows is None
    else:
        assert back.rows.dtype == rows.dtype
        assert back.rows.tobytes() == rows.tobytes()


def test_bits_are_packed(tmp_path):
    path = kept(tmp_path, trial(rows=np.ones(100_000, bool)))
    assert path.stat().st_size < 20_000


def test_a_run_costs_its_own_line_however_many_there_are(tmp_path, monkeypatch):
    written = []

    def counting(path, mode, buffering=-1):
        file = open(path, mode, buffering)  # noqa: SIM115 - the caller closes it
        write = file.write

        class File:
            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, content):
                written.append(len(content))
                return write(content)

        return File()

    monkeypatch.setattr(ledger, "open", counting, raising=False)
    monkeypatch.setattr(ledger.os, "fsync", lambda _: None)
    path = kept(tmp_path)
    before, inode = path.stat().st_size, path.stat().st_ino
    del written[:]
    made = open_ledger(tmp_path, resume=True)
    for repeat in range(1000):
        made.add(trial(repeat))
    assert sum(written) == path.stat().st_size - before
    assert max(written) - min(written) <= 3  # digits of the repeat
    assert path.stat().st_ino == inode
    assert len(open_ledger(tmp_path, resume=True).trials) == 1000


def test_every_line_is_synced_before_it_counts(tmp_path, monkeypatch):
    events = []
    sync = os.fsync
    monkeypatch.setattr(ledger.os, "fsync", lambda number: events.append("sync") or sync(number))
    path = kept(tmp_path)
    made = open_ledger(tmp_path, resume=True)
    del events[:]
    made.add(trial())
    assert events == ["sync"]
    assert path.read_bytes().count(b"\n") == 4  # the experiment, two arms, a run


def test_lines_are_json_that_others_can_read(tmp_path):
    path = kept(tmp_path, trial(arm="a"))
    entries = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
    assert [next(iter(entry)) for entry in entries] == ["experiment", "arm", "arm", "run"]
    assert entries[3]["run"]["scores"] == {"accuracy": 0.7}


def test_no_extra_is_needed(tmp_path, monkeypatch):
    for name in ("safetensors", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(ledger, "find_spec", lambda name: None)
    monkeypatch.setattr(ledger, "_LONG", 9)
    whole = compare(data(), TINY)
    stopped_comparison(tmp_path, 3)
    assert timeless(compare(data(), TINY, ledger=open_ledger(tmp_path, resume=True))) == timeless(
        whole
    )


# ---- Crashes -----------------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped(tmp_path):
    path = kept(tmp_path, trial(0), trial(1))
    content = path.read_bytes()
    last = content[:-1].rindex(b"\n") + 1
    for cut in (last + 1, (last + len(content)) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        made = open_ledger(tmp_path, resume=True)
        assert [t.repeat for t in made.trials] == [0]
        assert path.read_bytes() == content[:last]
        made.add(trial(1))
        assert path.read_bytes() == content


def test_a_crash_before_the_first_line_leaves_a_new_ledger(tmp_path):
    for content in (b"", b'{"sha256": "12'):
        (tmp_path / FILE).write_bytes(content)
        made = open_ledger(tmp_path, resume=True)
        assert (made.trials, made.identity) == ([], None)
        assert (tmp_path / FILE).read_bytes() == b""
    assert made.claim(IDENTITY, ARMS, "2026-01-01") == "2026-01-01"


def test_a_damaged_line_is_named(tmp_path):
    path = kept(tmp_path, trial(0), trial(1))
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        for at in range(0, len(line) - 1, 7):
            changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
            path.write_bytes(b"".join([*lines[:number], changed, *lines[number + 1 :]]))
            with pytest.raises(ValueError, match=f"{FILE}, line {number + 1}, is damaged: "):
                open_ledger(tmp_path, resume=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(
        ValueError, match="line 3, is damaged: a run of 'a', which is not one of its arms"
    ):
        open_ledger(tmp_path, resume=True)


def test_lines_with_a_right_checksum_are_checked_too(tmp_path):
    path = kept(tmp_path, trial(rows=np.ones(4, bool)))
    lines = path.read_bytes().splitlines(keepends=True)
    run = json.loads(lines[3])["entry"]["run"]
    bad = [None, [], [None], "x", {}, -1, 0.5, True]
    hostile = [
        None,
        [],
        3,
        {},
        {"experiment": 3},
        {"experiment": {}},
        {"arm": "c"},
        {"run": None},
        {"run": {}},
    ]
    hostile += [{"arm": "c", "candidates": value} for value in (None, 3, [3], "x")]
    hostile += [{"run": {**run, "extra": 1}}]
    for name, right in run.items():
        for value in bad:
            fine = type(value) is type(right) or (value is None and name == "rows")
            fine |= name in ("iterations", "loss", "test_loss", "test_score") and value == []
            if not fine or value in (-1, [None]):
                hostile.append({"run": {**run, name: value}})
    for n, kind in ((5000, "bits"), (-1, "bits"), (4, "float32"), (2**62, "float32")):
        hostile.append({"run": {**run, "rows": {kind: "8A==", "n": n}}})
    for entry in hostile:
        path.write_bytes(b"".join(lines[:3]) + ledger._line(entry))
        with pytest.raises(ValueError, match="line 4, is damaged"):
            open_ledger(tmp_path, resume=True)


@pytest.mark.posix
@pytest.mark.parametrize("rows", [400, 4000])  # lines below and above the size of a buffer
def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path, rows):
    import resource

    path = kept(tmp_path, trial(0))
    made = open_ledger(tmp_path, resume=True)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 300, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            made.add(trial(1, rows=np.arange(rows, dtype=np.float32)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert len(made.trials) == 1
    made.add(trial(1))
    assert [t.repeat for t in open_ledger(tmp_path, resume=True).trials] == [0, 1]


def test_a_failed_sync_is_an_error_of_the_experiment(tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        compare(data(), TINY, ledger=open_ledger(tmp_path / "kept"))
    monkeypatch.undo()
    resumed = open_ledger(tmp_path / "kept", resume=True)
    assert 0 < len(resumed.trials) < 6
    assert timeless(compare(data(), TINY, ledger=resumed)) == timeless(compare(data(), TINY))


# ---- Directories -------------------------------------------------------------------------------


def test_directories_are_checked(tmp_path):
    for name in ("file", f"damaged/{FILE}", "other/notes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"notes\n")
    for name, resume, error, message in (
        ("file", True, NotADirectoryError, "is a file; expected a directory"),
        ("absent/kept", True, FileNotFoundError, "there is no directory"),
        ("other", False, ValueError, "is not empty; expected a new or empty directory, or resume"),
        ("other", True, ValueError, "holds notes and no experiment; expected a new or empty"),
        ("damaged", True, ValueError, "line 1, is damaged"),
    ):
        with pytest.raises(error, match=message):
            open_ledger(tmp_path / name, resume=resume)
    assert (tmp_path / "other" / "notes").read_bytes() == b"notes\n"
    assert os.listdir(tmp_path / "other") == ["notes"]
    assert open_ledger(tmp_path / "new").trials == []
    assert os.listdir(tmp_path / "new") == []


# ---- Resuming ----------------------------------------------------------------------------------


def test_a_comparison_stopped_anywhere_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.setattr(ledger, "_LONG", 9)  # so that runs have their own checkpoints
    whole = compare(data(), TINY)
    for after in (1, 2, 5):
        directory = tmp_path / f"{after}"
        stopped_comparison(directory, after)
        assert len(open_ledger(directory, resume=True).trials) == after
        (directory / "repeat-1-without.cdrop").write_bytes(b"left by a kill")
        seen, resumed = [], open_ledger(directory, resume=True)
        result = compare(data(), TINY, ledger=resumed, on_trial=seen.append)
        assert [run.repeat for run in seen] == [0, 0, 1, 1, 2, 2][after:]
        assert timeless(result) == timeless(whole)
        assert os.listdir(directory) == [FILE]
        assert result.started == resumed.started
        assert result.seconds >= sum(one.seconds for one in resumed.trials)


class Break(Callback):
    """Ends the experiment by an error in iteration `at` of run number `run`."""

    def __init__(self, run, at):
        self.run, self.at, self.runs = run, at, 0

    def on_fit_begin(self, net, total):
        self.runs += 1

    def on_iteration(self, net, iteration, loss):
        if (self.runs, iteration) == (self.run, self.at):
            raise RuntimeError("stopped")

    def state_dict(self):
        return None


@pytest.mark.parametrize("patience", [None, 3])
def test_a_run_resumes_from_its_own_checkpoint(tmp_path, monkeypatch, patience):
    pytest.importorskip("safetensors")
    monkeypatch.setattr(ledger, "_LONG", 5)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 4)).astype(np.float32)
    y = (X[:, 0] + rng.standard_normal(90) > 0).astype(int)
    arm = {"hidden": 8, "epochs": 12, "batch_size": 16, "learning_rate": 0.01}
    arm |= {} if patience is None else {"patience": patience}
    arms, options = {"a b": arm, "other": {**arm, "dropout": 0.5}}, {"repeats": 2, "curve_every": 7}
    whole = paired_experiment(arms, X, y, **options)
    first = open_ledger(tmp_path / "kept")
    with pytest.raises(RuntimeError, match="stopped"):
        paired_experiment(arms, X, y, ledger=first, callbacks=[Break(2, 13)], **options)
    (checkpoint,) = (name for name in os.listdir(tmp_path / "kept") if name != FILE)
    assert checkpoint == "repeat-1-other.cdrop"
    begun = []

    class Begins(Callback):
        def on_fit_begin(self, net, total):
            begun.append(net.history.iterations)

        def state_dict(self):
            return None

    resumed = open_ledger(tmp_path / "kept", resume=True)
    result = paired_experiment(arms, X, y, ledger=resumed, callbacks=[Begins()], **options)
    assert timeless(result) == timeless(whole)
    assert begun == [10, 0, 0]
    assert os.listdir(tmp_path / "kept") == [FILE]


def test_names_of_arms_may_be_anything(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.setattr(ledger, "_LONG", 5)
    arms = {name: {"hidden": 3, "iterations": 12} for name in ("../up", "a/b", "é\n", "", ".")}
    X, y = np.eye(20, dtype=np.float32), np.arange(20) % 2
    result = paired_experiment(arms, X, y, repeats=1, ledger=open_ledger(tmp_path / "kept"))
    assert os.listdir(tmp_path) == ["kept"]
    again = paired_experiment(
        arms, X, y, repeats=1, ledger=open_ledger(tmp_path / "kept", resume=True)
    )
    assert timeless(again) == timeless(result)


def test_more_repeats_and_threads_resume_with_what_is_kept(tmp_path):
    stopped_comparison(tmp_path, 4, Settings(**{**vars(TINY), "repeats": 2}))
    calls = []
    resumed = open_ledger(tmp_path, resume=True)
    two_threads = Settings(**{**vars(TINY), "threads": 2})
    result = compare(
        data(),
        two_threads,
        ledger=resumed,
        network=lambda *args, **options: calls.append(options["seed"]) or Network(*args, **options),
    )
    assert calls == [2, 2]
    assert timeless(result) == timeless(compare(data(), two_threads))
    fewer = compare(data(), Settings(**{**vars(TINY), "repeats": 1}), ledger=resumed)
    assert fewer.repeats == [0]


def test_two_more_arms_join_later(tmp_path):
    arms = {
        name: {"hidden": 4, "iterations": 9, "dropout": rate}
        for name, rate in zip("abc", (0, 0.2, 0.5), strict=True)
    }
    X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 3
    paired_experiment({"a": arms["a"]}, X, y, repeats=2, ledger=open_ledger(tmp_path / "kept"))
    seen, resumed = [], open_ledger(tmp_path / "kept", resume=True)
    result = paired_experiment(arms, X, y, repeats=3, ledger=resumed, on_trial=seen.append)
    assert [(run.repeat, run.arm) for run in seen] == [
        *((0, "b"), (0, "c"), (1, "b"), (1, "c"), (2, "a"), (2, "b"), (2, "c"))
    ]
    assert timeless(result) == timeless(paired_experiment(arms, X, y, repeats=3))
    changed = {**arms, "b": {**arms["b"], "dropout": 0.3}}
    with pytest.raises(OtherExperimentError, match="dropout of 'b' is 0.2 there and 0.3 here"):
        paired_experiment(changed, X, y, repeats=3, ledger=resumed)
    with pytest.raises(OtherExperimentError, match="curve every is None there and 10 here"):
        paired_experiment(arms, X, y, repeats=3, ledger=resumed, curve_every=10)
    with pytest.raises(OtherExperimentError, match="metric is log_loss there and accuracy here"):
        paired_experiment(arms, X, y, repeats=3, ledger=resumed, metric="accuracy")


def test_another_experiment_is_refused_with_what_differs(tmp_path):
    stopped_comparison(tmp_path, 2)
    before = (tmp_path / FILE).read_bytes()
    other = copy.deepcopy(data())
    other.y_train[0] = (other.y_train[0] + 1) % 10
    for change, message in (
        ({"iterations": 31}, "iterations of 'without' is 30 there and 31 here"),
        ({"l2": 0.5}, "l2 of 'without' is 0.001 there and 0.5 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"dropout": 0.25}, "dropout of 'with' is 0.5 there and 0.25 here"),
        ({"hidden": 5}, r"hidden of 'without' is \[4, 4\] there and \[5, 5\] here"),
    ):
        settings = Settings(**{**vars(TINY), **change})
        with pytest.raises(OtherExperimentError, match=f"holds another experiment: {message}"):
            compare(data(), settings, ledger=open_ledger(tmp_path, resume=True))
    with pytest.raises(OtherExperimentError, match="another experiment: data is "):
        compare(other, TINY, ledger=open_ledger(tmp_path, resume=True))
    assert (tmp_path / FILE).read_bytes() == before


def test_candidates_that_differ_are_named(tmp_path):
    X, y = np.eye(20), np.arange(20) % 2
    some = [{"hidden": 3, "iterations": 3, "l2": l2} for l2 in (0.0, 0.1)]
    paired_experiment({"a": some}, X, y, repeats=1, ledger=open_ledger(tmp_path / "kept"))
    for other, message in (
        ([some[0], {**some[1], "l2": 0.2}], r"l2 of 'a'\[1\] is 0.1 there and 0.2 here"),
        (some[:1], "candidates of 'a' is 2 there and 1 here"),
    ):
        resumed = open_ledger(tmp_path / "kept", resume=True)
        with pytest.raises(OtherExperimentError, match=message):
            paired_experiment({"a": other}, X, y, repeats=1, ledger=resumed)


def doubled(X):
    return 2 * X


def test_estimators_are_recognized_whatever_their_parameters(tmp_path):
    pytest.importorskip("sklearn")
    from sklearn.dummy import DummyClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    X, y = np.eye(20), np.arange(20) % 2

    def run(strategy, resume, function=doubled):
        # The imputer has a parameter that is NaN, the function one whose text has an address.
        parts = SimpleImputer(), FunctionTransformer(function), DummyClassifier(strategy=strategy)
        kept = open_ledger(tmp_path / "kept", resume=resume)
        return paired_experiment({"a": make_pipeline(*parts)}, X, y, repeats=1, ledger=kept)

    first = run("prior", False)
    another = type(doubled)(doubled.__code__, globals(), "doubled")
    assert timeless(run("prior", True, another)) == timeless(first)
    with pytest.raises(OtherExperimentError, match=r"is DummyClassifier\(\) there and .*'uniform'"):
        run("uniform", True)


# ---- Kills -------------------------------------------------------------------------------------


@pytest.mark.posix
def test_kills_of_a_comparison_lose_nothing(tmp_path):
    pytest.importorskip("safetensors")
    kills, draw, expected = 0, random.Random(0), comparison()
    with Victims() as victims:
        while kills < 3:
            kills += kill_comparison(victims, tmp_path, draw, expected)[0]
