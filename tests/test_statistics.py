"""Statistics of paired arms: against SciPy, brute force and closed forms, and by simulation."""

import math
import sys
import time
import warnings

import numpy as np
import pytest

from cdrop.experiments.statistics import (
    Evidence,
    Look,
    Sampling,
    Scores,
    difference,
    holm,
    mean,
    mean_interval,
    plan_looks,
    probability_better,
    repeats_needed,
    spread_ratio,
    standard_deviation,
    verdict,
)

SPLITS, SEEDS = Sampling(ratio=0.25), Sampling()
QUANTITIES = (difference, probability_better, spread_ratio)
needs_scipy = pytest.mark.usefixtures("scipy_stats")


@pytest.fixture
def scipy_stats():
    return pytest.importorskip("scipy.stats")


def scores(values):
    return Scores(np.asarray(values, dtype=np.float64))


def rows(cells):
    return Scores(np.mean(cells, axis=1, dtype=np.float64), np.asarray(cells, dtype=np.float32))


def normal(n, scale=1.0, shift=0.0, seed=0):
    return shift + scale * np.random.default_rng([seed, n]).standard_normal(n)


def crossed(rng, n, m, seed=1.0, row=1.0, cell=1.0):
    """Draw n repeats x m rows around 0; the parts are standard deviations of a mean of one repeat."""
    parts = seed * rng.standard_normal((n, 1)), row * rng.standard_normal(m) * m**0.5
    return rows(sum(parts) + cell * m**0.5 * rng.standard_normal((n, m)))


def nothing(like):
    return Scores(np.zeros_like(like.values), None if like.rows is None else 0 * like.rows)


# --- one arm ---


def test_mean_and_standard_deviation_by_hand():
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert standard_deviation([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(mean([]))
    assert math.isnan(standard_deviation([5.0]))
    assert standard_deviation([0.1, 0.1, 0.1]) == 0.0
    assert math.isnan(mean([1.0, math.inf, -math.inf]))


def test_mean_interval(scipy_stats):
    values = normal(7)
    half = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9).high - values.mean()
    assert mean_interval(values, level=0.9) == pytest.approx(half)
    assert mean_interval(values, SPLITS, level=0.9) == pytest.approx(half * (1 + 7 / 4) ** 0.5)
    assert mean_interval([0.5]) is None
    assert mean_interval([0.5, math.nan]) is None


# --- difference ---


@needs_scipy
def test_difference_by_hand():
    # Differences 1, 2, 3: mean 2, SD 1, so t = 2 * sqrt(3) with 2 degrees of freedom.
    evidence = difference(scores([1.0, 5.0, 2.0]), scores([2.0, 7.0, 5.0]), SEEDS)
    assert (evidence.estimate, evidence.df) == (2.0, 2.0)
    t = 2 * math.sqrt(3)
    assert evidence.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))  # closed form for 2
    assert evidence.interval == pytest.approx((2 - 4.302652730 / math.sqrt(3), 2 + 2.484137704))
    assert evidence.verdict == "not decided"
    assert evidence.reason == "3 repeats cannot separate the arms"


@pytest.mark.parametrize("n", [2, 5, 50])
def test_difference_over_seeds_is_the_paired_t_test(scipy_stats, n):
    a, b = normal(n, seed=1), normal(n, seed=2)
    expected = scipy_stats.ttest_rel(b, a)
    for sampling in (SEEDS, Sampling(ratio=0.0)):
        evidence = difference(scores(a), scores(b), sampling)
        assert evidence.p_value == pytest.approx(expected.pvalue)
        assert evidence.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert difference(scores(a), scores(b), SEEDS).test.endswith("(test rows not covered)")


def test_splits_are_corrected_as_nadeau_and_bengio(scipy_stats):
    a, b = normal(20, seed=1), normal(20, seed=2)
    evidence = difference(scores(a), scores(b), SPLITS, level=0.9)
    error = math.sqrt((1 / 20 + 0.25) * (b - a).var(ddof=1))
    assert evidence.standard_error == pytest.approx(error)
    assert evidence.p_value == pytest.approx(2 * scipy_stats.t.sf(abs((b - a).mean()) / error, 19))
    expected = (b - a).mean() + error * np.array([-1, 1]) * scipy_stats.t.ppf(0.95, 19)
    assert evidence.interval == pytest.approx(tuple(expected))


@needs_scipy
@pytest.mark.parametrize(("n", "m"), [(2, 7), (4, 3), (9, 50)])
def test_crossed_variance_by_brute_force(n, m, monkeypatch):
    first, second = (crossed(np.random.default_rng([n, m, i]), n, m) for i in range(2))
    cells = second.rows.astype(float) - first.rows
    grand, repeat, row = cells.mean(), cells.mean(axis=1), cells.mean(axis=0)
    squares = [
        [(cells[r, i] - repeat[r] - row[i] + grand) ** 2 for i in range(m)] for r in range(n)
    ]
    v_seed, v_row = repeat.var(ddof=1) / n, row.var(ddof=1) / m
    v_int = np.sum(squares) / ((n - 1) * (m - 1)) / (n * m)
    v = max(v_seed + v_row - v_int, v_seed, v_row)
    evidence = difference(first, second, SEEDS)
    assert evidence.standard_error == pytest.approx(math.sqrt(v), rel=1e-6)
    df = v**2 / (v_seed**2 / (n - 1) + (v - v_seed) ** 2 / (m - 1)) if n > 2 else 1
    assert evidence.df == pytest.approx(df, rel=1e-5)
    monkeypatch.setattr("cdrop.experiments.statistics.CHUNK", 2 * m)  # 2 repeats at a time
    assert difference(first, second, SEEDS).standard_error == pytest.approx(evidence.standard_error)


def test_test_rows_make_the_interval_wider():
    rng = np.random.default_rng(1)
    cells = crossed(rng, 50, 100, seed=0.1, row=1.0, cell=0.1)
    with_rows, without = (difference(nothing(x), x, SEEDS) for x in (cells, scores(cells.values)))
    assert with_rows.standard_error > 5 * without.standard_error
    assert "test rows not covered" not in with_rows.test


@needs_scipy
@pytest.mark.parametrize("sampling", [SEEDS, SPLITS])
@pytest.mark.parametrize("greater", [True, False])
def test_verdict_of_a_difference(sampling, greater):
    a = normal(20)
    noise = 0.2 * normal(20, seed=3)
    good, bad = (1.0, -1.0) if greater else (-1.0, 1.0)
    for shift, expected in ((good, "better"), (bad, "worse"), (0.01, "not decided")):
        evidence = difference(
            scores(a), scores(a + shift + noise), sampling, greater_is_better=greater
        )
        assert evidence.verdict == expected
        assert bool(evidence.reason) == (expected == "not decided")
        assert evidence.p_equivalence is None


@needs_scipy
def test_p_equivalence_is_the_level_at_which_the_interval_touches_the_margin():
    a = normal(20)
    b = a + 0.1 + 0.2 * normal(20, seed=3)
    evidence = difference(scores(a), scores(b), SPLITS, margin=0.5)
    low, high = difference(scores(a), scores(b), SPLITS, level=1 - evidence.p_equivalence).interval
    assert max(-low, high) == pytest.approx(0.5)
    assert evidence.verdict == "no difference that matters"
    assert difference(scores(a), scores(b), SPLITS, margin=1e-9).p_equivalence == 1
    assert difference(scores(a), scores(b), SPLITS, margin=1e300).p_equivalence == 0


@needs_scipy
def test_a_small_certain_difference_does_not_matter():
    a = normal(50)
    b = a + 0.01 + 0.001 * normal(50, seed=3)
    assert difference(scores(a), scores(b), SPLITS).verdict == "better"
    evidence = difference(scores(a), scores(b), SPLITS, margin=0.1)
    assert evidence.verdict == "no difference that matters"


# --- probability ---


@needs_scipy
def test_probability_over_independent_seeds_is_wilsons(scipy_stats):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal(400), rng.standard_normal(400) + 0.5
    wins = int((b > a).sum())
    evidence = probability_better(scores(a), scores(b), SEEDS)
    wilson = scipy_stats.binomtest(wins, 400).proportion_ci(0.95, method="wilson")
    assert evidence.estimate == wins / 400
    assert evidence.interval == pytest.approx(tuple(wilson), abs=2e-4)  # Student's for 399, normal
    losses = probability_better(scores(a), scores(b), SEEDS, greater_is_better=False)
    assert losses.estimate == 1 - evidence.estimate
    assert (evidence.verdict, losses.verdict) == ("better", "worse")


@needs_scipy
def test_probability_counts_ties_half_and_stays_within_0_and_1():
    a = np.arange(20.0)
    evidence = probability_better(scores(a), scores(a + (a > 9)), SPLITS)
    assert evidence.estimate == 0.75
    every = probability_better(scores(a), scores(a + 1 + a / 100), SPLITS)
    assert every.estimate == 1
    assert 0 < every.interval[0] < every.interval[1] == 1
    assert every.verdict == "better"


@needs_scipy
def test_interval_and_p_value_agree():
    rng = np.random.default_rng(3)
    for n, ratio in ((8, None), (30, 0.25), (100, 0.1)):
        for _ in range(50):
            a, b = (scores(x) for x in (rng.standard_normal(n), rng.standard_normal(n) + 0.4))
            for quantity in QUANTITIES:
                evidence = quantity(a, b, Sampling(ratio))
                low, high = evidence.interval
                assert (evidence.p_value < 0.05) == (not low <= evidence.null <= high)
                assert (evidence.verdict == "not decided") == (evidence.p_value >= 0.05)


# --- spread ---


def test_spread_ratio_is_bonetts_interval(scipy_stats):
    a, b = normal(12, 3.0, seed=4), normal(12, 1.0, seed=5)
    evidence = spread_ratio(scores(a), scores(b), SEEDS)
    assert evidence.estimate == pytest.approx(a.std(ddof=1) / b.std(ddof=1))
    # Bonett (2006), in full: half of log(s_a^2 / s_b^2) +- t * se.
    error = 0.0
    for x in (a, b):
        kurtosis = 12 * sum((x - np.median(x)) ** 4) / sum((x - x.mean()) ** 2) ** 2
        error += (kurtosis - 9 / 12) / 11
    center = math.log(a.var(ddof=1) / b.var(ddof=1))
    half = scipy_stats.t.ppf(0.975, 11) * math.sqrt(error)
    expected = math.exp((center - half) / 2), math.exp((center + half) / 2)
    assert evidence.interval == pytest.approx(expected)
    over_splits = spread_ratio(scores(a), scores(b), SPLITS)
    assert over_splits.standard_error == pytest.approx(2 * evidence.standard_error)  # 1 + 12 / 4


@needs_scipy
def test_swapping_the_arms_inverts_the_ratio():
    rng = np.random.default_rng(6)
    a, b = crossed(rng, 9, 40), crossed(rng, 9, 40, seed=3.0)
    there, back = spread_ratio(a, b, SEEDS), spread_ratio(b, a, SEEDS)
    assert back.estimate == pytest.approx(1 / there.estimate)
    assert back.interval == pytest.approx(tuple(1 / end for end in reversed(there.interval)))
    assert back.p_value == pytest.approx(there.p_value)


@needs_scipy
@pytest.mark.parametrize(
    ("scale", "expected"), [(6.0, "better"), (1 / 6, "worse"), (1.0, "not decided")]
)
def test_verdict_of_a_spread(scale, expected):
    arms = scores(normal(20, scale, seed=8)), scores(normal(20, seed=9))
    assert spread_ratio(*arms, SEEDS).verdict == expected


@needs_scipy
def test_row_part_of_the_spread_is_the_delete_one_jackknife():
    # An independent way to the same variance: leave out each test row.
    rng = np.random.default_rng(7)
    n, m = 60, 300
    strength = rng.standard_normal((n, 1)) * (1 + np.abs(rng.standard_normal(m)))
    a, b = rows(strength * 3), rows(rng.standard_normal((n, 1)) + 0.0 * strength)
    log_ratios = []
    for i in range(m):
        left = (np.delete(x.rows.astype(float), i, axis=1).mean(axis=1).std(ddof=1) for x in (a, b))
        log_ratios.append(math.log(next(left) / next(left)))
    jackknife = (m - 1) ** 2 / m * np.var(log_ratios, ddof=1)
    with_rows = spread_ratio(a, b, SEEDS).standard_error
    without = spread_ratio(scores(a.values), scores(b.values), SEEDS).standard_error
    # The jackknife holds V_row; V_int, which is subtracted, is about 2 / n of it here.
    assert 0.9 * jackknife < with_rows**2 - without**2 < jackknife


@needs_scipy
def test_the_interval_of_the_ratio_covers_it():
    # Long lower tail in one arm only, as test accuracies have it.
    rng, ratio, draws = np.random.default_rng(10), 2.8, 400
    hits = 0
    for _ in range(draws):
        tail = scores(-rng.gumbel(size=10) * math.sqrt(6) / math.pi * ratio)
        low, high = spread_ratio(tail, scores(rng.standard_normal(10)), SEEDS).interval
        hits += low <= ratio <= high
    assert 0.91 < hits / draws < 0.995


# --- degenerate input ---


DEGENERATE = {
    "no repeat": ([], [], "0 repeats"),
    "one repeat": ([0.9], [0.8], "1 repeat cannot"),
    "NaN": ([0.9, math.nan, 0.7, 0.8], [0.8, 0.9, 0.7, 0.6], "1 of 4 repeats gave"),
    "huge": ([0.9, -1e300, 0.7], [0.8, 1e300, 0.5], "1 of 3 repeats gave"),
    "infinity": ([0.9, math.inf, 0.7], [0.8, math.inf, 0.5], "1 of 3 repeats gave"),
}


@pytest.mark.parametrize("with_rows", [False, True])
@pytest.mark.parametrize("sampling", [SEEDS, SPLITS])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_degenerate_input_is_undecided_without_a_warning(case, quantity, sampling, with_rows):
    a, b, reason = DEGENERATE[case]
    first, second = (
        Scores(np.array(x), np.tile(np.array(x)[:, None], 5) if with_rows else None) for x in (a, b)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evidence = quantity(first, second, sampling)
        assert repeats_needed(first, second, 0.1, sampling) is None
    assert evidence.verdict == "not decided"
    assert evidence.reason.startswith(reason)
    assert evidence.interval is None
    assert evidence.p_value is None
    assert math.isnan(evidence.standard_error)


@needs_scipy
def test_equal_differences_have_no_scale_unless_the_rows_differ():
    a, b = scores([0.1, 0.2, 0.4]), scores([0.4, 0.5, 0.7])
    for quantity, estimate in ((difference, 0.3), (probability_better, 1.0)):
        for sampling in (SEEDS, SPLITS):
            evidence = quantity(a, b, sampling)
            assert evidence.estimate == pytest.approx(estimate)
            assert evidence.verdict == "not decided"
            assert evidence.reason.startswith("all 3 differences are equal")
    for quantity in QUANTITIES:
        tiny = quantity(scores([1e-200, 2e-200, 4e-200]), scores([2e-200, 1e-200, 1e-200]), SPLITS)
        assert tiny.reason.endswith("the test has no scale")
    cells = np.tile(normal(40, shift=2.0), (3, 1))
    assert difference(nothing(rows(cells)), rows(cells), SEEDS).verdict == "better"
    assert probability_better(nothing(rows(cells)), rows(cells), SEEDS).verdict == "not decided"


@needs_scipy
def test_spread_of_two_repeats_or_of_none():
    two = spread_ratio(scores([0.1, 0.5]), scores([0.2, 0.3]), SEEDS)
    assert two.reason.startswith("2 repeats cannot")
    neither = spread_ratio(scores([0.1] * 4), scores([0.2] * 4), SEEDS)
    assert neither.reason == "neither arm varies between repeats: the test has no scale"
    one = spread_ratio(scores(normal(20)), scores([0.5] * 20), SEEDS)
    assert (one.estimate, one.verdict, one.interval) == (math.inf, "not decided", None)
    assert one.reason == "one arm does not vary between repeats: the test has no scale"


@needs_scipy
def test_one_test_row_decides_nothing():
    a, b = rows([[0.0]] * 5), rows([[1.0], [2.0], [1.0], [2.0], [1.0]])
    for quantity in QUANTITIES:
        assert quantity(a, b, SEEDS).reason.startswith("1 test row cannot separate")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_arms_of_different_shape_are_refused(quantity):
    with pytest.raises(ValueError, match=r"values are \(2,\) and \(3,\)"):
        quantity(scores([1.0, 2.0]), scores([1.0, 2.0, 3.0]), SEEDS)
    with pytest.raises(ValueError, match=r"rows are \(2, 3\) and \(2, 4\); expected \(2, m\)"):
        quantity(rows(np.ones((2, 3))), rows(np.ones((2, 4))), SEEDS)


def test_numbers_out_of_range_are_refused():
    a, b = scores(normal(5)), scores(normal(5, seed=1))
    with pytest.raises(ValueError, match="level is 1; expected a number between 0 and 1"):
        difference(a, b, SEEDS, level=1)
    with pytest.raises(ValueError, match="margin is -1"):
        difference(a, b, SEEDS, margin=-1)
    with pytest.raises(ValueError, match="size is 0"):
        repeats_needed(a, b, 0, SEEDS)
    with pytest.raises(ValueError, match="max_repeats is 0"):
        plan_looks(0)


def test_without_scipy_the_numbers_stay_and_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    a, b = scores([1.0, 2.0, 4.0]), scores([2.0, 4.0, 9.0])
    for quantity in QUANTITIES:
        evidence = quantity(a, b, SPLITS)
        assert math.isfinite(evidence.estimate + evidence.standard_error)
        assert evidence.p_value is None
        assert evidence.verdict == "not decided"
        assert 'pip install "cdrop[stats]"' in evidence.reason
    assert repeats_needed(a, b, 1.0, SPLITS) is None
    assert mean_interval(a.values) is None


@needs_scipy
def test_equal_input_gives_equal_evidence():
    rng = np.random.default_rng(12)
    a, b = crossed(rng, 5, 30), crossed(rng, 5, 30)
    for quantity in QUANTITIES:
        assert quantity(a, b, SEEDS) == quantity(a, b, SEEDS)


@needs_scipy
def test_a_thousand_repeats_on_ten_thousand_rows_take_seconds():
    rng = np.random.default_rng(13)
    a, b = (rows(rng.random((1000, 10_000), dtype="f4") < 0.97) for _ in range(2))
    begin = time.process_time()
    assert difference(a, b, SEEDS).interval is not None
    assert time.process_time() - begin < 2


# --- repeats needed ---


@needs_scipy
@pytest.mark.parametrize("sampling", [SEEDS, Sampling(ratio=0.01)])
def test_repeats_needed_reach_the_power(sampling):
    rng, size = np.random.default_rng(14), 0.5
    # Spread 1 exactly, so that the number is about the true spread.
    pilot = np.array([-1.0, 1.0] * 8) * math.sqrt(15 / 16)
    n = repeats_needed(scores(np.zeros(16)), scores(pilot), size, sampling)
    shared = math.sqrt(sampling.ratio or 0.0)
    hits = 0
    for _ in range(1000):
        drawn = size + shared * rng.standard_normal() + rng.standard_normal(n)
        hits += difference(scores(np.zeros(n)), scores(drawn), sampling).p_value < 0.05
    assert 0.76 < hits / 1000 < 0.84


@needs_scipy
def test_repeats_needed_is_none_where_rows_or_splits_limit_the_power():
    rng = np.random.default_rng(15)
    cells = crossed(rng, 20, 100, seed=1.0, row=1.0)
    assert repeats_needed(nothing(cells), cells, 0.5, SEEDS) is None
    assert repeats_needed(nothing(cells), scores(cells.values), 0.5, SEEDS) < 200
    assert repeats_needed(nothing(cells), scores(cells.values), 0.5, SPLITS) is None
    assert repeats_needed(nothing(cells), cells, 50.0, SEEDS) == 2
    assert repeats_needed(scores([0.0] * 4), scores([1.0] * 4), 0.5, SEEDS) is None


# --- several tests: contrasts and looks ---


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01, None]) == [0.02, None]
    assert holm([]) == []


@needs_scipy
def test_holm_keeps_the_level_over_contrasts():
    rng, wrong, wrong_alone, draws = np.random.default_rng(16), 0, 0, 500
    for _ in range(draws):
        base = scores(rng.standard_normal(10))
        found = [difference(base, scores(rng.standard_normal(10)), SEEDS) for _ in range(4)]
        p_values = [evidence.p_value for evidence in found]
        wrong += min(holm(p_values)) < 0.05
        wrong_alone += min(p_values) < 0.05
    assert wrong / draws < 0.07 < wrong_alone / draws


def test_verdict_uses_the_corrected_p_values():
    nan = math.nan
    evidence = Evidence(0.2, 0.0, (0.1, 0.3), 0.02, 0.02, nan, nan, "", "better")
    assert verdict(evidence, 0.04, 1.0, alpha=0.05, greater_is_better=True) == "better"
    assert verdict(evidence, 0.04, 1.0, alpha=0.05, greater_is_better=False) == "worse"
    assert verdict(evidence, 0.06, 1.0, alpha=0.05, greater_is_better=True) == "not decided"
    assert verdict(evidence, None, None, alpha=0.05, greater_is_better=True) == "not decided"
    same = verdict(evidence, 0.04, 0.04, alpha=0.05, greater_is_better=True)
    assert same == "no difference that matters"


@pytest.mark.parametrize("most", [1, 4, 5, 12, 100, 1000])
def test_looks_spend_alpha_in_all(most):
    looks = plan_looks(most, alpha=0.05)
    assert sum(look.alpha for look in looks) == pytest.approx(0.05)
    assert [look.repeats for look in looks] == [
        *(n for n in (5, 10, 20, 50, 100, 200, 500) if n < most),
        most,
    ]
    assert looks[0] == Look(min(5, most), pytest.approx(0.05 * min(5, most) / most))


@needs_scipy
def test_looking_often_keeps_the_level_only_with_planned_looks():
    rng, planned, naive, draws = np.random.default_rng(17), 0, 0, 400
    for _ in range(draws):
        values = rng.standard_normal(100)
        found = [
            (difference(scores(np.zeros(n)), scores(values[:n]), SEEDS).p_value, alpha)
            for n, alpha in ((look.repeats, look.alpha) for look in plan_looks(100))
        ]
        planned += any(p < alpha for p, alpha in found)
        naive += any(p < 0.05 for p, _ in found)
    assert planned / draws < 0.07 < naive / draws


# --- size and coverage, where the t-test over seeds on one split fails ---


def over_splits(rng, effect=0.0, n=20, rho=0.2):
    """Differences of n repeats that correlate as 80 : 20 splits of one table do."""
    shared, own = math.sqrt(rho) * rng.standard_normal(), math.sqrt(1 - rho)
    return scores(effect + shared + own * rng.standard_normal(n))


@needs_scipy
@pytest.mark.parametrize("n", [5, 20, 100])
def test_size_over_splits(n):
    rng, draws = np.random.default_rng([18, n]), 500
    wrong, naive = np.zeros(2), 0
    for _ in range(draws):
        drawn = over_splits(rng, n=n)
        for k, quantity in enumerate((difference, probability_better)):
            wrong[k] += quantity(nothing(drawn), drawn, SPLITS).p_value < 0.05
        naive += difference(nothing(drawn), drawn, SEEDS).p_value < 0.05
    assert wrong[0] / draws == pytest.approx(0.05, abs=0.025)
    assert wrong[1] / draws < 0.06
    assert naive / draws > 0.12


@needs_scipy
@pytest.mark.parametrize("n", [2, 3, 5, 20, 100])
def test_size_and_coverage_on_a_given_test_set(n):
    rng, draws, effect = np.random.default_rng([19, n]), 400, 0.7
    held, wrong, naive = 0, 0, 0
    for _ in range(draws):
        drawn = crossed(rng, n, 60, seed=1.0, row=0.7, cell=0.5)
        found = difference(nothing(drawn), drawn, SEEDS)
        wrong += found.p_value < 0.05
        low, high = (end + effect for end in found.interval)
        held += low <= effect <= high
        naive += difference(nothing(drawn), scores(drawn.values), SEEDS).p_value < 0.05
    assert wrong / draws < 0.08
    assert held / draws > 0.92
    assert naive / draws > 0.12 or n < 5


@needs_scipy
@pytest.mark.parametrize("effect", [0.0, 0.8, 1.6])
def test_the_interval_of_the_probability_covers_it(scipy_stats, effect):
    rng, draws, m = np.random.default_rng(20), 400, 60
    cases = {
        "splits": (lambda: over_splits(rng, effect, n=50), SPLITS, 1.0),
        "rows": (lambda: crossed(rng, 50, m, seed=1.0, row=0.5, cell=0.5), SEEDS, 1.5**0.5),
    }
    for draw, sampling, spread in cases.values():
        held, shift = 0, effect if sampling is SEEDS else 0.0
        for _ in range(draws):
            drawn = draw()
            drawn = Scores(
                drawn.values + shift, None if drawn.rows is None else drawn.rows + np.float32(shift)
            )
            low, high = probability_better(nothing(drawn), drawn, sampling).interval
            held += low <= scipy_stats.norm.cdf(effect / spread) <= high
        assert held / draws > 0.93
