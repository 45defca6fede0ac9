"""The comparison: statistics, verdicts, the experiment, its result, its report and its files."""

import json
import math
import warnings

import numpy as np
import pytest
from comparisons import FakeTrainer, fake_result, small_dataset

from cdrop import report
from cdrop.experiments import Settings, article, compare
from cdrop.experiments.claims import judge
from cdrop.experiments.paired import Arm
from cdrop.experiments.statistics import mean, paired_difference, spread_ratio, standard_deviation

needs_scipy = pytest.mark.usefixtures("scipy_stats")


@pytest.fixture
def scipy_stats():
    return pytest.importorskip("scipy.stats")


@pytest.fixture
def without_scipy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)


def normal(n, scale=1.0, shift=0.0, seed=0):
    return shift + scale * np.random.default_rng([seed, n]).standard_normal(n)


# --- statistics ---


def test_mean_and_standard_deviation_by_hand():
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert standard_deviation([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(mean([]))
    assert math.isnan(standard_deviation([5.0]))
    assert standard_deviation([0.1, 0.1, 0.1]) == 0.0
    assert math.isnan(mean([1.0, math.inf, -math.inf]))


def test_paired_difference_by_hand(scipy_stats):
    # Differences 1, 2, 3: mean 2, std 1, so t = 2 * sqrt(3) with 2 degrees of freedom.
    evidence = paired_difference([1.0, 5.0, 2.0], [2.0, 7.0, 5.0])
    assert evidence.estimate == 2.0
    t = 2 * math.sqrt(3)
    assert evidence.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))  # closed form for 2
    assert evidence.interval == pytest.approx((2 - 4.302652730 / math.sqrt(3), 2 + 2.484137704))
    assert evidence.verdict == "not decided"
    assert evidence.reason == "3 repeats cannot separate the means"


@pytest.mark.parametrize("n", [2, 5, 50])
def test_paired_difference_is_scipys(scipy_stats, n):
    a, b = normal(n, seed=1), normal(n, seed=2)
    evidence = paired_difference(a, b)
    expected = scipy_stats.ttest_rel(b, a)
    assert evidence.p_value == pytest.approx(expected.pvalue)
    assert evidence.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


@needs_scipy
@pytest.mark.parametrize(
    ("shift", "verdict"), [(1.0, "supported"), (-1.0, "contradicted"), (0.01, "not decided")]
)
def test_paired_verdicts(shift, verdict):
    a = normal(20)
    evidence = paired_difference(a, a + shift + 0.2 * normal(20, seed=3))
    assert evidence.verdict == verdict
    assert bool(evidence.reason) == (verdict == "not decided")


def test_spread_ratio_is_levenes_test_and_bonetts_interval(scipy_stats):
    a, b = normal(12, 3.0, seed=4), normal(12, 1.0, seed=5)
    evidence = spread_ratio(a, b)
    assert evidence.estimate == pytest.approx(a.std(ddof=1) / b.std(ddof=1))
    assert evidence.p_value == pytest.approx(scipy_stats.levene(a, b, center="median").pvalue)
    # Bonett (2006), written out: half of log(s_a^2 / s_b^2) +- t * se.
    error = 0.0
    for x in (a, b):
        kurtosis = 12 * sum((x - np.median(x)) ** 4) / sum((x - x.mean()) ** 2) ** 2
        error += (kurtosis - 9 / 12) / 11
    centre = math.log(a.var(ddof=1) / b.var(ddof=1))
    half = scipy_stats.t.ppf(0.975, 11) * math.sqrt(error)
    expected = math.exp((centre - half) / 2), math.exp((centre + half) / 2)
    assert evidence.interval == pytest.approx(expected)


@needs_scipy
def test_swapping_the_arms_inverts_the_ratio():
    a, b = normal(9, 3.0, seed=6), normal(9, seed=7)
    there, back = spread_ratio(a, b), spread_ratio(b, a)
    assert back.estimate == pytest.approx(1 / there.estimate)
    assert back.interval == pytest.approx(tuple(1 / end for end in reversed(there.interval)))
    assert back.p_value == pytest.approx(there.p_value)


@needs_scipy
@pytest.mark.parametrize(
    ("scale", "verdict"), [(6.0, "supported"), (1 / 6, "contradicted"), (1.0, "not decided")]
)
def test_spread_verdicts(scale, verdict):
    assert spread_ratio(normal(20, scale, seed=8), normal(20, seed=9)).verdict == verdict


@needs_scipy
def test_the_interval_of_the_ratio_covers_it_as_promised():
    # Long lower tail in one arm only, as test accuracies have it; 92 to 99 % is promised at 10.
    rng, ratio, draws = np.random.default_rng(10), 2.8, 400
    hits = 0
    for _ in range(draws):
        tail = -rng.gumbel(size=10) * math.sqrt(6) / math.pi
        low, high = spread_ratio(ratio * tail, rng.standard_normal(10)).interval
        hits += low <= ratio <= high
    assert 0.91 < hits / draws < 0.995


DEGENERATE = {
    "no repeat": ([], [], "0 repeats"),
    "one repeat": ([0.9], [0.8], "1 repeat cannot"),
    "NaN": ([0.9, math.nan, 0.7, 0.8], [0.8, 0.9, 0.7, 0.6], "1 of 4 repeats gave"),
    "infinity": ([0.9, math.inf, 0.7], [0.8, math.inf, 0.5], "1 of 3 repeats gave"),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("judge_pair", [paired_difference, spread_ratio])
def test_degenerate_input_is_undecided_without_a_warning(case, judge_pair):
    a, b, reason = DEGENERATE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evidence = judge_pair(a, b)
    assert evidence.verdict == "not decided"
    assert evidence.reason.startswith(reason)
    assert evidence.interval is None
    assert evidence.p_value is None


def test_equal_differences_have_no_test():
    evidence = paired_difference([0.1, 0.2, 0.4], [0.4, 0.5, 0.7])
    assert evidence.estimate == pytest.approx(0.3)
    assert evidence.verdict == "not decided"
    assert evidence.reason.startswith("all 3 differences are equal")


@needs_scipy
def test_spread_of_two_repeats_or_of_none():
    assert spread_ratio([0.1, 0.5], [0.2, 0.3]).reason.startswith("2 repeats cannot")
    assert spread_ratio([0.1] * 4, [0.2] * 4).reason == "neither arm varies between repeats"
    both_ways = spread_ratio([1.0, 2.0, 1.0, 2.0], [1.0, 4.0, 4.0, 1.0])
    assert both_ways.reason.startswith("all deviations within an arm are equal")
    one = spread_ratio(normal(20), [0.5] * 20)
    assert one.estimate == math.inf
    assert (one.verdict, one.interval) == ("supported", None)
    assert spread_ratio([0.5] * 20, normal(20)).verdict == "contradicted"


def test_arms_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.usefixtures("without_scipy")
def test_without_scipy_the_numbers_stay_and_the_extra_is_named():
    for evidence in (
        paired_difference([1.0, 2.0, 4.0], [2.0, 4.0, 9.0]),
        spread_ratio([1, 2, 9], [1, 2, 3]),
    ):
        assert math.isfinite(evidence.estimate)
        assert evidence.p_value is None
        assert evidence.verdict == "not decided"
        assert "pip install 'cdrop[stats]'" in evidence.reason


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
