"""Rows of the paper's table: recipes, the images each is trained and tested on, and the command."""

import dataclasses
import json

import numpy as np
import pytest
from comparisons import FakeTrainer, small_dataset

from cdrop import cli
from cdrop.cli.progress import Progress
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
        "2x1024": 1.08,
        "gaussian": 0.95,
    }
    assert list(plan()) == ["standard", "logistic", "relu", "max-norm"]
    for name, planned in plan(list(ROWS)).items():
        made = planned.configuration()
        assert made["dropout"] == (0.0 if name == "standard" else 0.5)
        assert made["input_dropout"] == (0.0 if name == "standard" else 0.2)
        assert made["activation"] == ("sigmoid" if name in ("standard", "logistic") else "relu")
        assert (made["max_norm"] is not None) == ("max-norm" in ROWS[name].about)
        kinds = made.get("dropout_kind", "bernoulli"), made.get("input_dropout_kind", "bernoulli")
        assert kinds == ("gaussian" if name == "gaussian" else "bernoulli",) * 2
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
    assert standard.errors == pytest.approx([10.0, 9.0])
    assert relu.errors == pytest.approx([12.0, 11.0])
    assert relu.to_dict()["mean_error_percent"] == pytest.approx(11.5)
    assert (relu.planned.row.error, relu.to_dict()["paper_error_percent"]) == (1.25, 1.25)
    assert result.preset.published.score["relu"][0] == pytest.approx(0.9875)
    assert result.condition == "for this training set, over seeds and test rows"


def test_outcomes_include_runs_of_unfinished_repeats():
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=3)
    planned = plan(["standard", "relu"], 1)
    result = train_rows(WHOLE, planned, repeats=2, network=trainer)
    assert (result.stopped, result.repeats) == ("interrupted", [0])
    standard, relu = outcomes(result, planned)
    assert (len(standard.errors), len(relu.errors)) == (2, 1)
    none = outcomes(
        train_rows(
            WHOLE, planned, repeats=1, network=FakeTrainer(fault=KeyboardInterrupt, fault_at=0)
        ),
        planned,
    )
    assert [outcome.to_dict()["mean_error_percent"] for outcome in none] == [None, None]


def test_pixels_are_not_centered():
    train, held_out, tested = inputs(WITH_HELD_OUT)
    assert (train.dtype, train.min(), held_out.shape, tested.shape) == (
        np.float32, 0.0, (50, 784), (100, 784)
    )  # fmt: skip
    assert train.max() <= 1


def test_work_grows_with_images_weights_epochs_and_logistic_units():
    work = {name: planned.work(WHOLE) for name, planned in plan(epochs=3).items()}
    assert work["relu"] == work["max-norm"] == 3 * 300 * (784 * 1024 + 2 * 1024**2 + 1024 * 10)
    assert work["logistic"] == 2 * work["relu"]
    assert work["standard"] < work["relu"] == plan(["relu"], 6)["relu"].work(WHOLE) / 2


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


def test_the_command_prints_and_saves_every_run(quick, capsys, tmp_path):
    assert (
        run("standard", "max-norm", "--epochs", 2, "--repeats", 2, "--json", tmp_path / "out") == 0
    )
    shown = capsys.readouterr().out
    assert shown.rstrip().splitlines()[-1].startswith("NOT MNIST")
    saved = json.loads((tmp_path / "out").read_text())
    for row in saved["rows"]:
        for error in row["error_percent"]:
            assert f"{error:.2f} %" in shown
    assert [row["paper_error_percent"] for row in saved["rows"]] == [1.60, 1.06]
    assert saved["arms"]["max-norm"]["candidates"][0]["max_norm"] == 0.9


def test_a_recipe_names_what_is_not_default():
    rule = Momentum(0.95, start=0.6, ramp=200)
    text = "momentum(momentum=0.95, start=0.6, ramp=200) 0.03, max-norm 1, batch 128, 7 epochs"
    assert str(Recipe(rule, 0.03, 1.0, epochs=7)) == text
    assert str(Recipe(Adam(), 5e-4)) == "adam 0.0005, batch 128, 100 epochs"


def test_out_of_time_resumes_to_the_same_numbers(quick, capsys, tmp_path):
    options = ["relu", "--repeats", 3, "--epochs", 40, "--json"]
    assert run(*options, tmp_path / "whole") == 0
    kept = ["--checkpoint", tmp_path / "kept", "--resume"]
    assert run(*options, tmp_path / "cut", *kept, "--time-limit", 1e-5) == 0
    shown = capsys.readouterr().out
    assert "INCOMPLETE: stopped by" in shown
    assert "time limit" in shown
    assert "--resume" in shown
    assert run(*options, tmp_path / "resumed", *kept) == 0
    whole, resumed = (
        json.loads((tmp_path / name).read_text())["rows"][0]["error_percent"]
        for name in ("whole", "resumed")
    )
    assert whole == resumed


def test_finished_runs_are_not_work_to_come(quick, tmp_path, monkeypatch):
    seen = []

    class Recorded(Progress):
        def __init__(self, left, done, total):
            seen.append((list(left), done, total))
            super().__init__(seen[-1][0], done, total)

    monkeypatch.setattr("cdrop.cli.progress.Progress", Recorded)
    options = ["standard", "logistic", "--epochs", 1, "--checkpoint", tmp_path / "kept", "--resume"]
    for repeats in (1, 2):
        assert run(*options, "--repeats", repeats) == 0
    (both, nothing, work), again = seen
    assert (len(both), nothing, work) == (2, 0, sum(map(sum, both)))
    assert again == (both, work, 2 * work)


def test_a_search_lists_its_candidates(quick, capsys):
    assert run("relu", "--search", "--epochs", 1) == 0
    shown = capsys.readouterr().out
    assert "error on images held out" in shown
    for recipe in ROWS["relu"].candidates:
        assert f"relu: {dataclasses.replace(recipe, epochs=1)}" in shown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("epochs", value) for value in ("0", "-1", "1.5", "a", "")),
        *(("repeats", value) for value in ("0", "a")),
        *(("time-limit", value) for value in ("0", "-1", "nan", "inf", "a", "")),
        ("seed", "-1"),
    ],
)
def test_bad_options_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        run(f"--{option}={value}")
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"argument --{option}: expected" in message
    assert f"got {value!r}" in message


def test_other_rows_are_refused_by_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        run("lstm")
    assert stop.value.code == 2
    assert (
        "expected one of standard, logistic, relu, max-norm, 3x2048, 2x4096, 2x1024, gaussian, got 'lstm'"
        in capsys.readouterr().err
    )
