"""The comparison: verdicts, the experiment, its result, its report and its files."""

import json
import math

import numpy as np
import pytest
from comparisons import FakeTrainer, fake_result, small_dataset

from cdrop import report
from cdrop.experiments import Settings, article, compare
from cdrop.experiments.claims import judge
from cdrop.experiments.paired import Arm

needs_scipy = pytest.mark.usefixtures("scipy_stats")


@pytest.fixture
def scipy_stats():
    return pytest.importorskip("scipy.stats")


# --- claims ---


@needs_scipy
def test_claims_point_where_the_article_points():
    # The article's world: dropout better, steadier, slower in training loss.
    accuracies = [0.95, 0.97, 0.96, 0.94, 0.95], [0.98, 0.981, 0.9805, 0.98, 0.9801]
    losses = [[0.5, 0.4, 0.3]] * 9 + [[0.52, 0.41, 0.3]], [[0.9, 0.6, 0.29]] * 9 + [[0.9, 0.6, 0.3]]
    without, dropped = (
        Arm({}, loss=loss, test_score=[[score] for score in 2 * scores])
        for scores, loss in zip(accuracies, losses, strict=True)
    )
    claims = {claim.name: claim for claim in judge(without, dropped)}
    assert list(claims) == ["accuracy", "consistency", "convergence"]
    assert [c.evidence.verdict for c in claims.values()] == ["supported"] * 3
    assert claims["accuracy"].evidence.estimate == pytest.approx(0.02632)
    assert claims["consistency"].evidence.estimate > 10
    assert claims["convergence"].evidence.estimate == pytest.approx((0.59 * 9 + 0.57) / 30)
    assert "at 2 of 3 printed iterations" in claims["convergence"].note
    opposite = [claim.evidence.verdict for claim in judge(dropped, without)]
    assert opposite == ["contradicted"] * 3


def test_the_articles_numbers_are_the_articles():
    # From the text of the article, rounded to 4 decimals.
    assert article.RESULTS["without"].loss[0] == round(0.7141623845363005, 4)
    assert article.RESULTS["without"].loss[-1] == round(0.21936521877677104, 4)
    assert article.RESULTS["with"].loss[3] == round(0.4277826704557144, 4)
    assert article.RESULTS["with"].loss[-1] == round(0.3182353552441539, 4)
    for arm in article.RESULTS.values():
        assert len(arm.loss) == len(article.ITERATIONS) == 10
    assert article.estimates()["consistency"] == pytest.approx(0.0071 / 0.0006)


# --- the experiment ---


def test_settings_of_the_article_are_the_defaults():
    assert Settings().printed_iterations == list(article.ITERATIONS)
    assert Settings(seed=3, repeats=50, threads=1).differences() == []
    assert Settings(l2=0.0).differences() == ["l2 0.0 instead of 0.001"]
    assert Settings(iterations=250).printed_iterations == [100, 200, 250]
    assert Settings(iterations=7).printed_iterations == [7]


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
    assert all(c["X"] is trainer.calls[0]["X"] for c in trainer.calls)
    features = dataset.to_features("float32")
    np.testing.assert_array_equal(trainer.calls[0]["X"], features.X_train)
    np.testing.assert_array_equal(trainer.calls[3]["X_test"], features.X_test)
    np.testing.assert_array_equal(trainer.calls[3]["y_test"], dataset.y_test)
    assert [(run.repeat, run.configuration) for run in runs[:3]] == [
        (0, "without"),
        (0, "with"),
        (1, "without"),
    ]
    assert result.complete
    assert result.arms["without"].score == pytest.approx([0.94, 0.941, 0.942])
    assert result.arms["with"].score == pytest.approx([0.9425, 0.9435, 0.9445])
    # Entry t of the history is iteration t + 1: the loss printed at 100 is the 100th.
    assert result.arms["without"].loss[0][:2] == pytest.approx([100 / 200 + 0.4, 100 / 300 + 0.4])
    assert result.arms["with"].curve("loss")[0][0] == pytest.approx(1.25 * (0.5 + 0.41))


def test_settings_reach_fit():
    trainer = FakeTrainer()
    settings = Settings(repeats=1, optimizer="adam", learning_rate=0.01, l2=0.5, batch_size=32)
    compare(small_dataset(), settings, network=trainer)
    given = trainer.calls[1]
    assert (given["optimizer"], given["learning_rate"]) == ("adam", 0.01)
    assert (given["l2"], given["batch_size"]) == (0.5, 32)


@pytest.mark.parametrize(("number", "finished"), [(0, 0), (1, 0), (2, 1), (5, 2)])
def test_ctrl_c_keeps_the_finished_pairs(number, finished):
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=number)
    result = compare(small_dataset(), Settings(repeats=4), network=trainer)
    assert (result.interrupted, result.complete, result.repeats) == (True, False, finished)
    for arm in result.arms.values():
        assert len(arm.score) == len(arm.loss) == len(arm.seconds) == finished
    plain = result.to_dict()
    assert (plain["complete"], plain["stopped"]) == (False, "interrupted")
    assert plain["seeds"] == list(range(finished))
    assert f"INCOMPLETE: interrupted after {finished} of 4" in report.comparison(result)


def test_ctrl_c_while_a_repeat_is_told_keeps_that_repeat():
    def interrupt(run):
        if (run.repeat, run.configuration) == (1, "with"):
            raise KeyboardInterrupt

    settings = Settings(repeats=4)
    result = compare(small_dataset(), settings, network=FakeTrainer(), on_trial=interrupt)
    assert (result.interrupted, result.repeats) == (True, 2)


def test_a_training_that_breaks_down_keeps_the_finished_pairs():
    trainer = FakeTrainer(fault=FloatingPointError("the loss of step 7 is not finite"), fault_at=3)
    result = compare(small_dataset(), Settings(repeats=4), network=trainer)
    assert (result.interrupted, result.complete, result.repeats) == (False, False, 1)
    assert "stopped (the loss of step 7 is not finite) after 1 of 4" in report.comparison(result)


def test_refused_settings_are_an_error():
    trainer = FakeTrainer(fault=ValueError("no such optimizer"), fault_at=0)
    with pytest.raises(ValueError, match="no such optimizer"):
        compare(small_dataset(), Settings(repeats=1), network=trainer)


def test_result_as_json_round_trip():
    result = fake_result(repeats=4, name="small (not MNIST)", iterations=250)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["arms"]["without"]["test_accuracy"] == result.arms["without"].score
    assert plain["arms"]["with"]["loss"] == result.arms["with"].loss
    assert np.shape(plain["arms"]["with"]["loss"]) == (4, 3)
    assert plain["printed_iterations"] == [100, 200, 250]
    assert plain["seeds"] == [0, 1, 2, 3]
    assert plain["settings"]["iterations"] == 250
    assert plain["data"]["name"] == "small (not MNIST)"
    assert plain["data"]["train"] == 300
    assert plain["machine"]["simd"]
    assert plain["machine"]["threads"] >= 1
    assert [claim["name"] for claim in plain["claims"]] == [
        "accuracy",
        "consistency",
        "convergence",
    ]
    assert plain["arms"]["with"]["std_test_accuracy"] == result.arms["with"].std_score


def test_numbers_that_json_lacks_become_null():
    trainer = FakeTrainer(accuracy=lambda seed, dropout: math.nan)
    plain = fake_result(repeats=3, trainer=trainer).to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["arms"]["with"]["test_accuracy"] == [None] * 3
    assert plain["claims"][0]["evidence"]["estimate"] is None


def test_fingerprint_tells_data_apart():
    first = compare(small_dataset(), Settings(repeats=1), network=FakeTrainer()).data
    same = compare(small_dataset(), Settings(repeats=1), network=FakeTrainer()).data
    other = compare(small_dataset(test=101), Settings(repeats=1), network=FakeTrainer()).data
    assert first["sha256"] == same["sha256"] != other["sha256"]
    assert len(first["sha256"]) == 64


# --- with the real network ---

TINY = {"iterations": 30, "hidden": 16, "batch_size": 32}


def test_arms_without_any_dropout_are_the_same_training():
    result = compare(small_dataset(), Settings(repeats=2, dropout=0.0, **TINY))
    assert result.arms["with"].loss == result.arms["without"].loss
    assert result.arms["with"].score == result.arms["without"].score
    assert result.claims()[0].evidence.estimate == 0.0
    assert result.claims()[0].evidence.verdict == "not decided"


def test_real_trainings_repeat_and_do_not_depend_on_threads():
    first = compare(small_dataset(), Settings(repeats=2, threads=1, **TINY))
    again = compare(small_dataset(), Settings(repeats=2, threads=2, **TINY))
    for arm in ("without", "with"):
        assert first.arms[arm].loss == again.arms[arm].loss
        assert first.arms[arm].score == again.arms[arm].score
    assert first.arms["with"].loss != first.arms["without"].loss
    assert first.arms["with"].loss[0] != first.arms["with"].loss[1]


def test_real_training_learns():
    settings = Settings(repeats=1, iterations=300, hidden=64, batch_size=64)
    result = compare(small_dataset(train=2000, test=500), settings)
    assert result.arms["without"].score[0] > 0.7
    assert result.arms["with"].score[0] > 0.7
    assert result.arms["without"].loss[0][-1] < result.arms["without"].loss[0][0]


# --- report ---


@needs_scipy
def test_report_sets_the_article_beside_only_where_it_compares():
    beside = report.comparison(fake_result())
    assert "0.9640 +- 0.0071" in beside
    assert "(article: +0.0052)" in beside
    for other in (fake_result(name="KMNIST"), fake_result(hidden=8)):
        text = report.comparison(other)
        assert "0.9640" not in text
        assert "(article:" not in text
        assert "The article's numbers are for another setting" in text


@needs_scipy
def test_report_has_each_number_where_it_belongs():
    result = fake_result()
    text = report.comparison(result)
    arm = result.arms["with"]
    assert f"with dropout      {arm.mean_score:.4f} +- {arm.std_score:.4f}" in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ["300"])
    ours = [result.arms[a].curve("loss")[0][2] for a in ("without", "with")]
    assert row.split() == ["300", f"{ours[0]:.3f}", "0.371", f"{ours[1]:.3f}", "0.647"]
    verdict = result.claims()[0].evidence
    assert f"95 % interval {verdict.interval[0]:+.4f} to {verdict.interval[1]:+.4f}" in text
    assert "not decided (5 repeats cannot separate the mean accuracies)" in text
    assert "supported" in text


def test_heading_names_settings_machine_and_seeds():
    text = report.heading(fake_result(repeats=3, seed=0, hidden=12, threads=2))
    for part in ("MNIST: 300 training, 100 test", "layers of 12 ReLU", "seeds 0 to 2", "threads 2"):
        assert part in text


@pytest.mark.parametrize("repeats", [1, 2])
def test_few_repeats_are_reported(repeats):
    text = report.comparison(fake_result(repeats=repeats))
    assert "nan +-" not in text
    assert f"{repeats} repeat" in text
