"""The article's comparison and the question of own data: presets of the paired experiment."""

import json
import math

import numpy as np
import pytest
from comparisons import FakeTrainer, fake_result, made_up, small_dataset, timeless

from cdrop import Network
from cdrop.datasets import Table
from cdrop.experiments import Settings, arms_for, article, compare, does_dropout_help
from cdrop.experiments.article import PUBLISHED

TINY = {"iterations": 30, "hidden": 16, "batch_size": 32}


# ---- The article -------------------------------------------------------------------------------


def test_the_published_figures_are_the_articles():
    # From the text of the article, rounded to 4 decimals.
    without, dropped = (PUBLISHED.loss[name] for name in ("without", "with"))
    assert without[1][0] == round(0.7141623845363005, 4)
    assert without[1][-1] == round(0.21936521877677104, 4)
    assert dropped[1][3] == round(0.4277826704557144, 4)
    assert dropped[1][-1] == round(0.3182353552441539, 4)
    for iterations, loss in (without, dropped):
        assert iterations == tuple(range(100, 1001, 100))
        assert len(loss) == 10
    assert PUBLISHED.score == {"without": (0.9640, 0.0071), "with": (0.9692, 0.0006)}


def test_the_defaults_are_the_articles():
    settings = Settings()
    assert (settings.repeats, settings.iterations, settings.batch_size) == (5, 1000, 256)
    assert (settings.hidden, settings.dropout, settings.optimizer) == (256, 0.5, "rmsprop")
    assert Settings(seed=3, repeats=50, threads=1, sweep=(0.1,), margin=0.1).differences() == []
    assert Settings(l2=0.0).differences() == ["l2 0.0 instead of 0.001"]
    arms = Settings(sweep=(0.1, 0.5, 0.0, 0.7)).arms()
    assert list(arms) == ["without", "with", "dropout 0.1", "dropout 0.7"]
    assert [arm["dropout"] for arm in arms.values()] == [0.0, 0.5, 0.1, 0.7]
    assert arms["with"]["hidden"] == (256, 256)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("repeats", 0, "repeats is 0"),
        ("iterations", 1.5, "iterations is 1.5"),
        ("hidden", "9", "hidden is '9'"),
        ("seed", 2**64, "seed is 18446744073709551616"),
        ("margin", -1, "margin is -1"),
        ("sweep", 0.1, "sweep is 0.1; expected probabilities"),
        ("sweep", (0.1, 1.0), r"sweep\[1\] is 1.0; expected a number of at least 0 and below 1"),
        ("sweep", ("a",), r"sweep\[0\] is 'a'"),
    ],
)
def test_settings_are_checked(setting, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Settings(**{setting: value})


def claims(without, dropped, losses, **options):
    result = made_up(**{"without": without, "with": dropped}, loss=losses, **options)
    result.preset = article.preset(small_dataset("MNIST"), Settings())
    return {claim.name: claim for claim in result.claims()}


def test_claims_point_where_the_article_points():
    pytest.importorskip("scipy")
    # The article's world: dropout better, steadier, slower in training loss.
    accuracies = 2 * [0.95, 0.97, 0.96, 0.94, 0.95], 2 * [0.98, 0.981, 0.9805, 0.98, 0.9801]
    losses = [[0.5, 0.4, 0.3]] * 9 + [[0.52, 0.41, 0.3]], [[0.9, 0.6, 0.29]] * 9 + [[0.9, 0.6, 0.3]]
    found = claims(*accuracies, losses)
    assert list(found) == ["accuracy", "consistency", "convergence"]
    assert [claim.verdict for claim in found.values()] == ["supported"] * 3
    assert found["accuracy"].evidence.estimate == pytest.approx(0.02632)
    assert found["consistency"].evidence.estimate > 10
    assert found["convergence"].evidence.estimate == pytest.approx((0.59 * 9 + 0.57) / 30)
    assert "lower at 2 of 3 points" in found["convergence"].note
    opposite = claims(*accuracies[::-1], losses[::-1])
    assert [claim.verdict for claim in opposite.values()] == ["contradicted"] * 3
    for claim in found.values():
        assert claim.verdict in claim.conclusions


def test_a_margin_can_make_the_accuracies_equal():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    scores = [0.96 + 0.001 * rng.standard_normal(8) for _ in range(2)]
    losses = rng.random((2, 8, 3)).tolist()
    claim = claims(*scores, losses, margin=0.05)["accuracy"]
    assert claim.verdict == "no difference that matters"
    assert claim.conclusions[claim.verdict].startswith("The mean test accuracies differ by no more")


def test_published_estimates_stand_next_to_the_same_setting_only():
    result = fake_result()
    assert [claim.published for claim in result.claims()] == pytest.approx(
        [0.0052, 0.0071 / 0.0006, 0.48473 - 0.3436], abs=1e-4
    )
    assert result.preset.published is PUBLISHED
    for other, words in (
        (fake_result(name="KMNIST"), "KMNIST instead of MNIST"),
        (fake_result(hidden=8), "hidden 8 instead of 256"),
        (
            compare(
                small_dataset("MNIST"), Settings(repeats=2), splits=True, network=FakeTrainer()
            ),
            "other splits",
        ),
    ):
        assert other.preset.published is None
        assert [claim.published for claim in other.claims()] == [None] * 3
        assert words in other.preset.notes[0]


# ---- The comparison ----------------------------------------------------------------------------


def test_pairs_share_seed_and_data_and_differ_in_dropout():
    trainer, dataset = FakeTrainer(), small_dataset()
    runs = []
    settings = Settings(repeats=3, seed=40, hidden=7, threads=2, dropout=0.25)
    result = compare(dataset, settings, network=trainer, on_trial=runs.append)
    assert [(c["seed"], c["dropout"]) for c in trainer.calls] == [
        (40, 0.0), (40, 0.25), (41, 0.0), (41, 0.25), (42, 0.0), (42, 0.25)
    ]  # fmt: skip
    assert all(c["units"] == [784, 7, 7, 10] for c in trainer.calls)
    assert all(c["threads"] == 2 and c["iterations"] == 1000 for c in trainer.calls)
    features = dataset.to_features("float32")
    for call in trainer.calls:
        np.testing.assert_array_equal(call["X"], features.X_train)
        np.testing.assert_array_equal(call["X_test"], features.X_test)
        np.testing.assert_array_equal(call["y_test"], dataset.y_test)
    assert [(run.repeat, run.arm) for run in runs[:3]] == [
        (0, "without"),
        (0, "with"),
        (1, "without"),
    ]
    assert result.complete
    # Entry t of the history is iteration t + 1: the loss printed at 100 is the 100th.
    assert result.arms["without"].curves("loss")[0][:2] == pytest.approx(
        [100 / 200 + 0.4, 100 / 300 + 0.4]
    )
    assert result.arms["with"].curve("loss")[0][0] == pytest.approx(1.25 * (0.5 + 0.41))
    assert result.arms["without"].iterations == list(range(100, 1001, 100))


def test_settings_reach_fit():
    trainer = FakeTrainer()
    settings = Settings(
        repeats=1, optimizer="adam", learning_rate=0.01, l2=0.5, batch_size=32, iterations=250
    )
    result = compare(small_dataset(), settings, network=trainer)
    call = trainer.calls[1]
    assert (call["optimizer"], call["learning_rate"]) == ("adam", 0.01)
    assert (call["l2"], call["batch_size"], call["iterations"]) == (0.5, 32, 250)
    assert result.arms["with"].iterations == [100, 200, 250]


def test_accuracies_are_those_of_network_and_fit():
    """The protocol on few digits: standardized inputs, seeds 0 and 1, the article's training."""
    dataset, settings = small_dataset(), Settings(repeats=2, **TINY)
    result = compare(dataset, settings)
    features = dataset.to_features("float32")
    for name, rate in (("without", 0.0), ("with", 0.5)):
        for repeat in range(2):
            net = Network([784, 16, 16, 10], dropout=rate, seed=repeat)
            net.fit(
                features.X_train, dataset.y_train,
                optimizer="rmsprop", learning_rate=1e-3, l2=1e-3, batch_size=32, iterations=30,
            )  # fmt: skip
            assert (
                result.arms[name].score[repeat]
                == net.evaluate(features.X_test, dataset.y_test).score
            )
            assert result.arms[name].curves("loss")[repeat][-1] == net.history.loss[-1]


def test_runs_repeat_and_do_not_depend_on_threads():
    first, again = (
        compare(small_dataset(), Settings(repeats=2, threads=n, **TINY)) for n in (1, 2)
    )
    for arm in ("without", "with"):
        assert first.arms[arm].curves("loss") == again.arms[arm].curves("loss")
        assert first.arms[arm].score == again.arms[arm].score
    losses = first.arms["with"].curves("loss")
    assert losses != first.arms["without"].curves("loss")
    assert losses[0] != losses[1]


def test_training_learns():
    settings = Settings(repeats=1, iterations=300, hidden=64, batch_size=64)
    result = compare(small_dataset(train=2000, test=500), settings)
    for arm in result.arms.values():
        assert arm.score[0] > 0.7 > result.baseline["accuracy"][0]
    loss = result.arms["without"].curves("loss")[0]
    assert loss[-1] < loss[0]


def test_splits_pool_all_rows_into_parts_of_the_same_sizes():
    trainer, dataset = FakeTrainer(), small_dataset()
    result = compare(dataset, Settings(repeats=3), splits=True, network=trainer)
    tests = set()
    for call in trainer.calls:
        assert (len(call["X"]), len(call["X_test"])) == (300, 100)
        tests.add(call["X_test"].tobytes())
    assert len(tests) == 3
    assert result.condition == "over 3 splits of these data"
    assert result.sampling.ratio == pytest.approx(100 / 300)
    fixed = compare(dataset, Settings(repeats=2), network=FakeTrainer())
    assert fixed.sampling.ratio is None
    assert fixed.condition == "for this training set, over seeds and test rows"


def test_a_table_is_split_in_each_repeat():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 4))
    table = Table("t", "made here", X, (X[:, 0] > 0).astype(int), "classification", ("no", "yes"))
    result = compare(table, Settings(repeats=2, **TINY))
    assert (result.metric.name, result.condition) == ("accuracy", "over 2 splits of these data")
    assert [claim.name for claim in result.claims()] == ["accuracy", "consistency", "convergence"]
    numbers = Table("t", "made here", X, X[:, 0], "regression")
    result = compare(numbers, Settings(repeats=2, **TINY))
    assert (result.metric.name, result.claims()) == ("rmse", [])


def test_json_keeps_the_articles_keys():
    result = fake_result(repeats=4, name="small (not MNIST)", iterations=250)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["arms"]["without"]["test_accuracy"] == result.arms["without"].score
    assert plain["arms"]["with"]["loss"] == result.arms["with"].curves("loss")
    assert np.shape(plain["arms"]["with"]["loss"]) == (4, 3)
    assert plain["arms"]["with"]["iterations"] == [100, 200, 250]
    assert plain["arms"]["with"]["std_test_accuracy"] == result.arms["with"].std_score
    assert plain["seeds"] == [0, 1, 2, 3]
    assert plain["data"]["settings"]["iterations"] == 250
    assert (plain["data"]["name"], plain["data"]["train"]) == ("small (not MNIST)", 300)
    assert plain["machine"]["simd"]
    assert plain["machine"]["threads"] >= 1
    assert [claim["name"] for claim in plain["claims"]] == [
        "accuracy",
        "consistency",
        "convergence",
    ]


def test_the_digest_identifies_the_data():
    def digest(**options):
        return compare(small_dataset(**options), Settings(repeats=1), network=FakeTrainer()).data[
            "sha256"
        ]

    assert digest() == digest() != digest(test=101)
    assert len(digest()) == 64


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.eye(3), {}, "data is a ndarray; expected a Dataset or a Table"),
        (small_dataset(), {"settings": {}}, "settings is {}; expected Settings"),
        (small_dataset(), {"splits": 1}, "splits is 1"),
    ],
)
def test_other_arguments_are_refused(data, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        compare(data, **options)


# ---- Own data ----------------------------------------------------------------------------------


def table(n=120, **fields):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
    return Table("own", "own.csv", X, y, "classification", ("no", "yes"), **fields)


QUICK = {"hidden": (8,), "epochs": 4, "patience": 2}


def test_both_arms_choose_among_the_same_l2():
    arms = arms_for(1000)
    assert [one["l2"] for one in arms["no dropout"]] == [0.0, 1e-4, 1e-3]
    assert {(one["dropout"], one["l2"]) for one in arms["dropout"]} == {
        (rate, l2) for rate in (0.1, 0.2, 0.3, 0.5) for l2 in (0.0, 1e-4, 1e-3)
    }
    assert all("dropout" not in one for one in arms["no dropout"])
    shared = ("hidden", "optimizer", "learning_rate", "batch_size", "epochs", "patience")
    for key in shared:
        assert len({one[key] for several in arms.values() for one in several}) == 1
    assert [arms_for(rows)["dropout"][0]["batch_size"] for rows in (10, 1000, 10**6)] == [
        16,
        20,
        512,
    ]


def test_dropout_at_its_best_against_none_at_its_best():
    arms = arms_for(96, rates=(0.2, 0.5), l2=(0.0, 1e-3), **QUICK)
    result = does_dropout_help(table(), arms=arms, repeats=2)
    assert list(result.arms) == ["no dropout", "dropout"]
    assert [len(arm.candidates) for arm in result.arms.values()] == [2, 4]
    assert (result.metric.name, result.condition) == ("log_loss", "over 2 splits of these data")
    assert result.data["name"] == "own"
    assert result.preset.title == "Does dropout help on own?"
    assert "dropout 0.2 or 0.5" in result.preset.facts["arms"]
    assert timeless(result) == timeless(does_dropout_help(table(), arms=arms, repeats=2))


def test_the_batch_size_follows_from_the_rows_that_train():
    trainer = FakeTrainer()
    for test_size in (0.5, 500):
        result = does_dropout_help(table(2000), test_size=test_size, repeats=1, network=trainer)
        # A network that does not train has no validation loss.
        assert result.stopped.startswith("every candidate of arms['no dropout'] diverged")
    assert [call["batch_size"] for call in trainer.calls] == [20, 20, 20, 30, 30, 30]


def test_arms_of_ones_own_need_not_be_like_the_default_ones():
    arms = {"a": {"hidden": 4, "iterations": 5}, "b": [{"hidden": 4, "epochs": 2, "dropout": 0.5}]}
    result = does_dropout_help(table(), arms=arms, repeats=1)
    assert result.complete
    one = {
        "no dropout": [{"hidden": 4, "epochs": 2}],
        "dropout": [{"hidden": 4, "epochs": 2, "dropout": 0.5}],
    }
    assert does_dropout_help(table(), arms=one, repeats=1).complete
    assert does_dropout_help(table(), arms=iter_free(one), repeats=1).complete
    with pytest.raises((TypeError, ValueError), match="arms is 3; expected a mapping"):
        does_dropout_help(table(), arms=3)
    with pytest.raises(TypeError, match="data is a ndarray; expected a Dataset or a Table"):
        does_dropout_help(np.eye(3))
    assert math.isfinite(result.arms["a"].mean_score)


def iter_free(arms):
    """The same arms, each of one candidate without a list."""
    return {name: several[0] for name, several in arms.items()}


def test_a_dataset_is_tested_on_its_test_rows():
    arms = arms_for(300, rates=(0.5,), l2=(0.0,), **QUICK)
    result = does_dropout_help(small_dataset(), arms=arms, repeats=2)
    assert result.condition == "for this training set, over seeds and test rows"
    assert result.data["train"] == 300
