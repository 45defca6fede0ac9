"""Rows of the paper's table: what is trained on what, where it goes on, and what it tells."""

import dataclasses
import io
import json
import sys

import numpy as np
import pytest
from comparisons import FakeTrainer, small_dataset

from cdrop import cli, progress, report
from cdrop.experiments import paper
from cdrop.experiments.paper import ROWS, Recipe, inputs, outcomes, plan, train_rows
from cdrop.optimizers import Adam, Momentum

WHOLE = small_dataset(validation=0)
WITH_HELD_OUT = small_dataset(train=250, validation=50)


def test_rows_are_the_papers():
    assert {name: row.error for name, row in ROWS.items()} == {
        "standard": 1.60,
        "logistic": 1.35,
        "relu": 1.25,
        "max-norm": 1.06,
        "3x2048": 1.04,
        "2x4096": 1.01,
    }
    assert list(plan()) == ["standard", "logistic", "relu", "max-norm"]
    for name, planned in plan(list(ROWS)).items():
        made = planned.configuration()
        assert made["dropout"] == (0.0 if name == "standard" else 0.5)
        assert made["input_dropout"] == (0.0 if name == "standard" else 0.2)
        assert made["activation"] == ("sigmoid" if name in ("standard", "logistic") else "relu")
        assert (made["max_norm"] is not None) == ("max-norm" in ROWS[name].about)
        assert planned.recipe is ROWS[name].candidates[0]
        assert made["batch_size"] == planned.recipe.batch_size
        assert (made["learning_rate"].epochs, made["epochs"]) == (planned.recipe.epochs,) * 2
    names = [f"relu: {recipe}" for recipe in ROWS["relu"].candidates]
    assert list(plan(["relu"], candidates=True)) == names
    assert plan(["relu"], 7)["relu"].configuration()["epochs"] == 7


@pytest.mark.parametrize("bad", [["lstm"], [3], [None]])
def test_other_rows_are_refused(bad):
    with pytest.raises(
        (TypeError, ValueError), match="expected one of 'standard', 'logistic', 'relu'"
    ):
        plan(bad)


def test_a_search_never_sees_a_test_image():
    trainer = FakeTrainer()
    planned = plan(["relu"], 1, candidates=True)
    train_rows(WITH_HELD_OUT, planned, search=True, repeats=1, network=trainer)
    assert len(trainer.calls) == len(ROWS["relu"].candidates)
    for call in trainer.calls:
        np.testing.assert_array_equal(
            call["X"], WITH_HELD_OUT.X_train.reshape(250, -1) / np.float32(255)
        )
        np.testing.assert_array_equal(call["y_test"], WITH_HELD_OUT.y_val)
        assert call["X_test"].shape == (50, 784)


def test_the_table_is_of_test_images():
    trainer = FakeTrainer()
    result = train_rows(WHOLE, plan(["standard", "relu"], 1), repeats=2, network=trainer)
    assert [call["units"] for call in trainer.calls[:2]] == [
        [784, 800, 800, 10],
        [784, *(1024,) * 3, 10],
    ]
    np.testing.assert_array_equal(trainer.calls[0]["y_test"], WHOLE.y_test)
    assert len(trainer.calls[0]["X"]) == 300
    standard, relu = outcomes(result, plan(["standard", "relu"], 1))
    assert standard.errors == pytest.approx([10.0, 9.9])
    assert relu.errors == pytest.approx([9.5, 9.4])
    text = report.paper(result, [standard, relu], search=False)
    expected = "dropout, ReLU, 3 x 1024 1.25 % 9.450 % 9.50 % 9.40 %"
    assert text.splitlines()[2].split() == expected.split()


def test_pixels_are_not_centred_and_tables_are():
    train, held_out, tested = inputs(WITH_HELD_OUT)
    assert (train.dtype, train.min(), held_out.shape, tested.shape) == (
        np.float32, 0.0, (50, 784), (100, 784)
    )  # fmt: skip
    assert train.max() <= 1


# ---- The command -------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Rows of nets that train in no time, on few digits."""
    small = {
        name: dataclasses.replace(row, hidden=(8,) * len(row.hidden)) for name, row in ROWS.items()
    }
    monkeypatch.setattr(paper, "ROWS", small)
    monkeypatch.setattr(
        "cdrop.datasets.sources.drawn_digits",
        lambda seed, validation: small_dataset(validation=validation and 50),
    )


def run(*arguments):
    return cli.main(["paper", *map(str, arguments), "--data", "digits"])


def test_the_command_prints_and_saves_every_training(quick, capsys, tmp_path):
    assert (
        run("standard", "max-norm", "--epochs", 2, "--repeats", 2, "--json", tmp_path / "out") == 0
    )
    told = capsys.readouterr()
    assert told.out.startswith("NOT MNIST")
    assert told.out.rstrip().splitlines()[-1].startswith("NOT MNIST")
    assert told.err.count(" error (") == 4
    saved = json.loads((tmp_path / "out").read_text())
    for row in saved["rows"]:
        for error in row["error_percent"]:
            assert f"{error:.2f} %" in told.out
    assert [row["paper_error_percent"] for row in saved["rows"]] == [1.60, 1.06]
    assert saved["arms"]["max-norm"]["configuration"]["max_norm"] == 0.9


def test_a_recipe_tells_what_is_not_default():
    rule = Momentum(0.95, start=0.6, ramp=200)
    told = "momentum(momentum=0.95, start=0.6, ramp=200) 0.03, max-norm 1, batch 128, 7 epochs"
    assert str(Recipe(rule, 0.03, 1.0, epochs=7)) == told
    assert str(Recipe(Adam(), 5e-4)) == "adam 0.0005, batch 128, 100 epochs"


def test_out_of_time_goes_on_to_the_same_numbers(quick, capsys, tmp_path):
    pytest.importorskip("safetensors")
    options = ["relu", "--repeats", 3, "--epochs", 40, "--json"]
    assert run(*options, tmp_path / "whole") == 0
    kept = ["--checkpoint", tmp_path / "kept", "--resume"]
    assert run(*options, tmp_path / "cut", *kept, "--time-limit", 1e-5) == 0
    told = capsys.readouterr().out
    assert "INCOMPLETE: stopped by the time limit." in told
    assert "The same command with --resume goes on." in told
    assert run(*options, tmp_path / "resumed", *kept) == 0
    whole, resumed = (
        json.loads((tmp_path / name).read_text())["rows"][0]["error_percent"]
        for name in ("whole", "resumed")
    )
    assert whole == resumed


def test_what_is_finished_is_no_work_to_come(quick, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    seen = []

    class Recorded(progress.TrainingWork):
        def __init__(self, left, done):
            seen.append((left, done))
            super().__init__(left, done)

    monkeypatch.setattr(progress, "TrainingWork", Recorded)
    options = ["standard", "logistic", "--epochs", 1, "--checkpoint", tmp_path / "kept", "--resume"]
    for repeats in (1, 2):
        assert run(*options, "--repeats", repeats) == 0
    (both, nothing), again = seen
    assert (len(both), nothing) == (2, 0)
    assert again == (both, sum(both))


def test_a_search_lists_its_candidates(quick, capsys):
    assert run("relu", "--search", "--epochs", 1) == 0
    told = capsys.readouterr().out
    assert "error on images held out" in told
    for recipe in ROWS["relu"].candidates:
        assert f"relu: {dataclasses.replace(recipe, epochs=1)}" in told


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("epochs", value) for value in ("0", "-1", "1.5", "a", "")),
        *(("repeats", value) for value in ("0", "a")),
        *(("time-limit", value) for value in ("0", "-1", "nan", "inf", "a", "")),
        ("seed", "-1"),
    ],
)
def test_bad_options_are_told(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        run(f"--{option}={value}")
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert f"argument --{option}: expected" in told
    assert f"got {value!r}" in told


def test_other_rows_are_refused_by_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        run("lstm")
    assert stop.value.code == 2
    assert (
        "expected one of standard, logistic, relu, max-norm, 3x2048, 2x4096, got 'lstm'"
        in capsys.readouterr().err
    )


# ---- Progress ----------------------------------------------------------------------------------


class Net:
    def __init__(self, iterations):
        self.history = type("History", (), {"iterations": iterations})


def test_work_is_counted_with_what_a_checkpoint_has(monkeypatch):
    shown = progress.TrainingWork([10, 6], done=4)
    shown.on_fit_begin(Net(3), 2)  # three of its five steps were made before
    for _ in range(2):
        shown.on_iteration(None, 1, 0.5)
    assert shown.share == pytest.approx(14 / 20)
    monkeypatch.setattr(shown, "_begun", shown._begun - 10)
    assert shown.seconds_left == pytest.approx(15, rel=0.01)
    shown.on_fit_begin(Net(0), 2)
    shown.on_iteration(None, 1, 0.5)
    assert shown.share == pytest.approx(17 / 20)


def test_work_grows_with_images_weights_epochs_and_logistic_units():
    work = {name: planned.work(WHOLE) for name, planned in plan(epochs=3).items()}
    assert work["relu"] == work["max-norm"] == 3 * 300 * (784 * 1024 + 2 * 1024**2 + 1024 * 10)
    assert work["logistic"] == 2 * work["relu"]
    assert work["standard"] < work["relu"] == plan(["relu"], 6)["relu"].work(WHOLE) / 2


def test_long_trainings_tell_of_themselves(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown = progress.TrainingWork([500], done=500)
    shown.on_fit_begin(Net(0), 2)
    shown.on_iteration(None, 1, 0.5)
    shown.on_epoch_end(None, None)
    assert capsys.readouterr().err.startswith("  75% done, about")


def test_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = progress.TrainingWork([750], done=250)
    shown.on_fit_begin(Net(0), 2)
    shown.tell("a line")
    shown.close()
    assert "25%" in sys.stderr.getvalue()
    assert "a line\n" in sys.stderr.getvalue()
