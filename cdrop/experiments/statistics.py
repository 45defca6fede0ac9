"""Estimates, intervals and verdicts for two paired arms, over splits of the data or on one test set.

Estimates need NumPy only. Intervals and p-values need SciPy (extra ``stats``); without it an
`Evidence` carries its estimate and says what to install. Too few repeats, no spread or values that
are not finite give "not decided" and a reason, never a warning.

The model behind every interval: the result of a repeat is the sum of what is drawn for this repeat
(variance ``repeat``) and what all repeats share (variance ``shared``): overlapping training sets,
or the rows of one test set. The mean of n repeats has variance ``repeat / n + shared``, so more
repeats alone do not make an interval arbitrarily short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cdrop._checks import finite_number, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Evidence",
    "Look",
    "Sampling",
    "Scores",
    "Verdict",
    "difference",
    "holm",
    "mean",
    "mean_interval",
    "plan_looks",
    "probability_better",
    "repeats_needed",
    "spread_ratio",
    "standard_deviation",
    "verdict",
]

Verdict = Literal["better", "worse", "no difference that matters", "not decided"]

LEVEL = 0.95
POWER = 0.8
NEEDS_SCIPY = 'the test needs SciPy: pip install "cdrop[stats]"'
CHUNK = 1 << 20  # cells of repeats x test rows converted to float64 at a time, 8 MiB
MOST_REPEATS = 10**7
LARGEST = 1e150  # score whose square is finite


@dataclass(frozen=True)
class Sampling:
    """Where chance comes from.

    Attributes
    ----------
    ratio : float or None
        Mean of n_test / n_train over the repeats when each repeat has its own split of the data;
        None where one test set is given.
    """

    ratio: float | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """Results of one arm in one metric.

    Attributes
    ----------
    values : ndarray of float64, shape (n,)
        Score of each repeat.
    rows : ndarray of float32, shape (n, m), or None
        Value of each test row, whose mean over the m rows is the score. None where the score is
        not such a mean, or where each repeat has its own split.
    """

    values: NDArray[np.float64]
    rows: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Evidence:
    """What the repeats say about one quantity of two arms.

    Attributes
    ----------
    estimate : float
        The quantity as these repeats show it; NaN when they cannot.
    null : float
        Its value if the arms do not differ: 0 for a difference, 0.5 for a probability, 1 for a
        ratio.
    interval : tuple of float or None
        Confidence interval at the level asked for; None where there is none.
    p_value : float or None
        Two-sided p-value of `test`, below alpha if and only if the 1 - alpha interval excludes
        `null`; None without a test.
    p_equivalence : float or None
        Smallest alpha whose 1 - alpha interval lies within plus or minus the margin; None without
        a margin.
    standard_error : float
        Standard error of the estimate (of a ratio: of its logarithm); NaN where there is none.
    df : float
        Degrees of freedom of Student's t; NaN where there is no test.
    test : str
        Name of the test, and of what it does not cover.
    verdict : {"better", "worse", "no difference that matters", "not decided"}
        About the second arm, see `verdict`.
    reason : str
        Why the verdict is "not decided"; empty otherwise.
    """

    estimate: float
    null: float
    interval: tuple[float, float] | None
    p_value: float | None
    p_equivalence: float | None
    standard_error: float
    df: float
    test: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Look:
    """A planned look at the results so far.

    Attributes
    ----------
    repeats : int
        Number of finished repeats at which to look.
    alpha : float
        Level of the tests at this look.
    """

    repeats: int
    alpha: float


def mean(values: ArrayLike) -> float:
    """Return the mean of `values`; NaN for none and where one is not finite.

    Examples
    --------
    >>> mean([0.96, 0.97]), mean([])
    (0.965, nan)
    """
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size and np.isfinite(array).all() else math.nan


def standard_deviation(values: ArrayLike) -> float:
    """Return the standard deviation, divisor n - 1; NaN for fewer than two values.

    Examples
    --------
    >>> standard_deviation([1.0, 3.0]) == 2**0.5, standard_deviation([1.0])
    (True, nan)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all():
        return math.nan
    # Equal values have no spread, though their mean, or they themselves, may be rounded.
    with np.errstate(over="ignore"):
        return 0.0 if _constant(array, array) else float(array.std(ddof=1))


def mean_interval(
    values: ArrayLike, sampling: Sampling = Sampling(), *, level: float = LEVEL
) -> float | None:
    """Return half the width of the interval for the mean of one arm.

    Parameters
    ----------
    values : array_like of float, shape (n,)
        Score of each repeat.
    sampling : Sampling, default ``Sampling()``
        With a ratio the interval covers splits and seeds; without one seeds only, not test rows.
    level : float, default 0.95
        Confidence level.

    Returns
    -------
    float or None
        None for fewer than two values, values that are not finite, and without SciPy.

    Raises
    ------
    TypeError, ValueError
        If `level` is not a number between 0 and 1.

    Examples
    --------
    >>> round(mean_interval([0.96, 0.97, 0.98]), 4)
    0.0248
    """
    array, special = np.asarray(values, dtype=np.float64), _scipy_special()
    quantile = (1 + _between_0_and_1("level", level)) / 2
    deviation = standard_deviation(array)
    if special is None or math.isnan(deviation):
        return None
    error = deviation * math.sqrt(1 / array.size + (sampling.ratio or 0.0))
    return float(special.stdtrit(array.size - 1, quantile)) * error


def difference(
    first: Scores,
    second: Scores,
    sampling: Sampling,
    *,
    level: float = LEVEL,
    margin: float = 0.0,
    greater_is_better: bool = True,
) -> Evidence:
    """Estimate the difference of the means, second minus first.

    Parameters
    ----------
    first, second : Scores
        Results of the two arms; entry r of both comes from the same repeat.
    sampling : Sampling
        Whether each repeat has its own split, or all share a test set.
    level : float, default 0.95
        Confidence level of the interval and of the verdict.
    margin : float, default 0.0
        Differences up to this size do not matter, in units of the score.
    greater_is_better : bool, default True
        False for losses: then the second arm is better when the difference is below 0.

    Returns
    -------
    Evidence
        Over splits: the corrected resampled t-test [1]_ [2]_. On a given test set with `rows`: a
        two-way random-effects analysis of repeats x test rows [3]_ [4]_, which covers both, for
        this training set. Without `rows`: the paired t-test over repeats, which does not cover the
        choice of test rows.

    Raises
    ------
    TypeError, ValueError
        If the arms differ in shape, or a number is out of range.

    Notes
    -----
    Over splits the variance is ``s**2 * (1 / n + ratio)`` with n - 1 degrees of freedom. With
    rows, let V_seed and V_row be the variance of the means over rows (repeats) divided by n (m),
    and V_int the residual mean square divided by n * m. Both contain the residual noise once, so
    the variance is ``V_seed + V_row - V_int``, at least the larger of the two. Its degrees of
    freedom are Satterthwaite's, ``V**2 / (V_seed**2 / (n - 1) + (V - V_seed)**2 / (m - 1))``, which
    is never below the smaller of n - 1 and m - 1; with 2 repeats there is 1.

    References
    ----------
    .. [1] Nadeau, Bengio: Inference for the generalization error. Machine Learning 52 (2003).
    .. [2] Bouckaert, Frank: Evaluating the replicability of significance tests for comparing
       learning algorithms. PAKDD (2004).
    .. [3] Gallas: One-shot estimate of MRMC variance: AUC. Academic Radiology 13 (2006).
    .. [4] Owen: The pigeonhole bootstrap. Annals of Applied Statistics 1 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> first, second = Scores(np.array([0.8, 0.7, 0.9])), Scores(np.array([0.9, 0.9, 0.9]))
    >>> evidence = difference(first, second, Sampling(ratio=0.25))
    >>> round(evidence.estimate, 3), evidence.verdict, evidence.test
    (0.1, 'not decided', 'corrected resampled t-test')
    """
    level, margin = _between_0_and_1("level", level), finite_number("margin", margin)
    a, b = _paired(first, second)
    test = _name(first, second, sampling, "corrected resampled t-test", "t-test")
    with np.errstate(over="ignore", invalid="ignore"):  # see `_obstacle`
        unknown = _unknown(mean(b - a), 0.0, test)
    if obstacle := _obstacle(first, second, least=2):
        return replace(unknown, reason=obstacle)
    parts, n = _parts(first, second, sampling), a.size
    if parts.variance(n) == 0:
        return replace(unknown, reason=f"all {n} differences are equal: the test has no scale")
    error, df = math.sqrt(parts.variance(n)), parts.df(n)
    unknown = replace(unknown, standard_error=error, df=df)
    special = _scipy_special()
    if special is None:
        return replace(unknown, reason=NEEDS_SCIPY)
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    size = abs(unknown.estimate)
    evidence = replace(
        unknown,
        interval=(unknown.estimate - half, unknown.estimate + half),
        p_value=_two_sided(special, df, size / error),
        p_equivalence=_two_sided(special, df, (margin - size) / error) if margin else None,
    )
    return _concluded(evidence, n, level, greater_is_better)


def probability_better(
    first: Scores,
    second: Scores,
    sampling: Sampling,
    *,
    level: float = LEVEL,
    greater_is_better: bool = True,
) -> Evidence:
    """Estimate the probability that one run of the second arm beats its paired run of the first.

    Parameters
    ----------
    first, second : Scores
        Results of the two arms; entry r of both comes from the same repeat.
    sampling : Sampling
        Whether each repeat has its own split, or all share a test set.
    level : float, default 0.95
        Confidence level of the interval and of the verdict.
    greater_is_better : bool, default True
        False for losses.

    Returns
    -------
    Evidence
        Share of the repeats that the second arm wins, ties half [1]_; null value 0.5. Always within
        0 and 1. The probability includes what test rows add: it is about one run, tested on as many
        fresh rows as here.

    Raises
    ------
    TypeError, ValueError
        If the arms differ in shape, or `level` is out of range.

    Notes
    -----
    Wilson's score interval with Student's quantile and an effective number of repeats
    ``1 / (1 / n + (1 - 1 / n) * c)``, where c is the correlation of two repeats' wins. If the
    differences of two repeats have the correlation rho, which is shared / (repeat + shared) and
    over splits ratio / (1 + ratio), normal differences give c = 2 / pi * asin(rho) for a
    probability of 0.5 [2]_ and less for any other.

    A bootstrap over seeds and test rows (Owen's pigeonhole) is not used: each draw repeats the
    noise of the rows that is already in each difference, which pulls the probability to 0.5, so
    with many repeats its interval misses every probability far from 0.5.

    References
    ----------
    .. [1] Bouthillier et al.: Accounting for variance in machine learning benchmarks. MLSys (2021).
    .. [2] Sheppard: On the application of the theory of error to cases of normal distribution and
       normal correlation. Philosophical Transactions of the Royal Society A 192 (1899).

    Examples
    --------
    >>> import numpy as np
    >>> first, second = Scores(np.array([0.8, 0.7, 0.9])), Scores(np.array([0.9, 0.8, 0.9]))
    >>> round(probability_better(first, second, Sampling(ratio=0.25)).estimate, 3)
    0.833
    """
    level = _between_0_and_1("level", level)
    a, b = _paired(first, second)
    wins = np.where(b == a, 0.5, (b > a) == greater_is_better)
    wins[~(np.isfinite(a) & np.isfinite(b))] = math.nan
    test = _name(first, second, sampling, "score test, corrected for splits", "score test")
    n, share = a.size, mean(wins)
    if obstacle := _obstacle(first, second, least=2):
        return _unknown(share, 0.5, test, obstacle)
    parts = _parts(first, second, sampling)
    if parts.variance(n) == 0:
        equal = f"all {n} differences are equal: the test has no scale"
        return _unknown(share, 0.5, test, equal)
    rho = parts.shared / (parts.repeat + parts.shared)
    square = 1 / n + (1 - 1 / n) * 2 / math.pi * math.asin(rho)  # 1 / effective repeats
    error = math.sqrt(share * (1 - share) * square)
    unknown = replace(_unknown(share, 0.5, test), standard_error=error, df=n - 1.0)
    special = _scipy_special()
    if special is None:
        return replace(unknown, reason=NEEDS_SCIPY)
    quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
    shrink = 1 + quantile**2 * square
    center = (share + quantile**2 * square / 2) / shrink
    half = quantile / shrink * math.sqrt(error**2 + (quantile * square / 2) ** 2)
    evidence = replace(
        unknown,
        # Exact at the ends, where rounding would leave 1e-17 of a bound that is 0.
        interval=(
            max(0.0, center - half) if share > 0 else 0.0,
            min(1.0, center + half) if share < 1 else 1.0,
        ),
        p_value=_two_sided(special, n - 1, abs(share - 0.5) * 2 / math.sqrt(square)),
    )
    return _concluded(evidence, n, level)


def spread_ratio(
    first: Scores, second: Scores, sampling: Sampling, *, level: float = LEVEL
) -> Evidence:
    """Estimate how much more the first arm spreads between repeats than the second.

    Parameters
    ----------
    first, second : Scores
        Results of the two arms over the same repeats, at least 3.
    sampling : Sampling
        Whether each repeat has its own split, or all share a test set.
    level : float, default 0.95
        Confidence level of the interval and of the verdict.

    Returns
    -------
    Evidence
        Ratio of the standard deviations, first over second; null value 1, and "better" means that
        the second arm spreads less. `standard_error` is that of the ratio's logarithm.

    Raises
    ------
    TypeError, ValueError
        If the arms differ in shape, or `level` is out of range.

    Notes
    -----
    Test accuracies have a long lower tail, longer in one arm than in the other. Bonett's variance
    of log(SD) allows for that through the kurtosis [1]_, here each arm's own and with Student's
    quantile. It does not use the pairs: where the arms of a pair do well or badly together, it is
    too cautious rather than too bold.

    Over splits this variance is multiplied by ``1 + n * ratio``, as the variance of a mean is. On a
    given test set with `rows` the variance from the choice of rows is added. By linearization, row
    i changes log(SD) by ``sum_r (a_r - mean(a)) * a_ri / ((n - 1) * SD**2) - 1``, which is a mean
    over r; so its variance is that of `difference`, V_row - V_int, for cells multiplied by
    ``n * (a_r - mean(a)) / ((n - 1) * SD**2)``.

    References
    ----------
    .. [1] Bonett: Robust confidence interval for a ratio of standard deviations. Applied
       Psychological Measurement 30 (2006) 432-439.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.array([1.0, 5.0, 9.0, 13.0]), np.array([1.0, 2.0, 3.0, 4.0])
    >>> round(spread_ratio(Scores(first), Scores(second), Sampling()).estimate, 12)
    4.0
    """
    level = _between_0_and_1("level", level)
    a, b = _paired(first, second)
    test = _name(first, second, sampling, "corrected Bonett's test", "Bonett's test")
    n, estimate = a.size, _ratio(standard_deviation(a), standard_deviation(b))
    obstacle = _obstacle(first, second, least=3)
    if not obstacle and (fixed := [_constant(values, values) for values in (a, b)]).count(True):
        who = "neither arm varies" if all(fixed) else "one arm does not vary"
        obstacle = f"{who} between repeats: the test has no scale"
    if obstacle:
        return _unknown(estimate, 1.0, test, obstacle)
    error = math.sqrt(_variance_of_log_ratio(first, second, sampling))
    unknown = replace(_unknown(estimate, 1.0, test), standard_error=error, df=n - 1.0)
    special = _scipy_special()
    if special is None:
        return replace(unknown, reason=NEEDS_SCIPY)
    # exp(700) is finite: an interval that wide is as good as infinite.
    factor = math.exp(min(float(special.stdtrit(n - 1, (1 + level) / 2)) * error, 700.0))
    evidence = replace(
        unknown,
        interval=(estimate / factor, estimate * factor),
        p_value=_two_sided(special, n - 1, abs(math.log(estimate)) / error),
    )
    return _concluded(evidence, n, level)


def repeats_needed(
    first: Scores, second: Scores, size: float, sampling: Sampling, *, power: float = POWER
) -> int | None:
    """Return how many repeats detect a difference of the means.

    Parameters
    ----------
    first, second : Scores
        Results of the two arms so far; what counts is how their differences vary.
    size : float
        The true difference to detect, above 0.
    sampling : Sampling
        Whether each repeat has its own split, or all share a test set.
    power : float, default 0.8
        Probability that `difference` at 5 % detects it.

    Returns
    -------
    int or None
        None where no number of repeats on these data reaches the power (splits of one table overlap
        and a test set has a fixed number of rows, so the standard error does not go to 0), where
        the differences do not vary, and without SciPy.

    Raises
    ------
    TypeError, ValueError
        If the arms differ in shape, or a number is out of range.

    References
    ----------
    Cohen: Statistical power analysis for the behavioral sciences (1988), chapter 2.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.array([0.96, 0.97, 0.95]), np.array([0.97, 0.96, 0.96])
    >>> repeats_needed(Scores(first), Scores(second), 0.01, Sampling())
    13
    >>> print(repeats_needed(Scores(first), Scores(second), 0.01, Sampling(ratio=0.25)))
    None
    """
    size = finite_number("size", size, positive=True)
    power = _between_0_and_1("power", power)
    _paired(first, second)
    special = _scipy_special()
    if special is None or _obstacle(first, second, least=2):
        return None
    parts = _parts(first, second, sampling)
    low, high = 1, MOST_REPEATS  # too few, enough
    if parts.variance(2) == 0 or _power(special, parts, high, size) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _power(special, parts, middle, size) < power:
            low = middle
        else:
            high = middle
    return high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number by Holm's method.

    Parameters
    ----------
    p_values : sequence of float or None
        One for each contrast.

    Returns
    -------
    list of float or None
        None stays None, and counts as 1 for the others: what is never rejected cannot be rejected wrongly.

    References
    ----------
    Holm: A simple sequentially rejective multiple test procedure. Scandinavian Journal of
    Statistics 6 (1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    corrected: list[float | None] = [None] * len(p_values)
    there = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, index) in enumerate(there):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        corrected[index] = largest
    return corrected


def verdict(
    evidence: Evidence,
    p_holm: float | None,
    equivalence_holm: float | None,
    *,
    alpha: float = 1 - LEVEL,
    greater_is_better: bool = True,
) -> Verdict:
    """Return the verdict on the second arm.

    Parameters
    ----------
    evidence : Evidence
        The estimate and its null value.
    p_holm, equivalence_holm : float or None
        Its `p_value` and `p_equivalence`, corrected for the number of contrasts (see `holm`), or as
        they are for one contrast.
    alpha : float, default 0.05
        Level of the tests.
    greater_is_better : bool, default True
        Whether an estimate above the null value is good.

    Returns
    -------
    {"better", "worse", "no difference that matters", "not decided"}
        "no difference that matters" if the interval lies within the margin, also where it excludes
        the null value; else "better" or "worse" if it excludes the null value.

    Examples
    --------
    >>> nan = float("nan")
    >>> evidence = Evidence(0.2, 0.0, (0.1, 0.3), 0.001, None, nan, nan, "", "better")
    >>> verdict(evidence, 0.002, None), verdict(evidence, 0.08, None)
    ('better', 'not decided')
    """
    if equivalence_holm is not None and equivalence_holm <= alpha:
        return "no difference that matters"
    if p_holm is None or not p_holm < alpha:
        return "not decided"
    return "better" if (evidence.estimate > evidence.null) == greater_is_better else "worse"


def plan_looks(max_repeats: int, alpha: float = 1 - LEVEL) -> list[Look]:
    """Plan at how many repeats an experiment may be stopped, and the level of each test.

    Parameters
    ----------
    max_repeats : int
        Number of repeats at which the experiment ends in any case.
    alpha : float, default 0.05
        Probability of a wrong decision over all looks together.

    Returns
    -------
    list of Look
        At 5, 10, 20, 50, 100, 200, ... and at `max_repeats`.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Notes
    -----
    Each look spends alpha in proportion to the repeats since the one before, the spending function
    ``alpha * t`` [1]_. The levels sum to alpha, so by the union bound a wrong decision at any look
    has at most that probability. Sharper bounds of group-sequential tests need independent
    increments, which splits of one table and seeds on one test set do not have.

    References
    ----------
    .. [1] Lan, DeMets: Discrete sequential boundaries for clinical trials. Biometrika 70 (1983).

    Examples
    --------
    >>> [(look.repeats, round(look.alpha, 4)) for look in plan_looks(20)]
    [(5, 0.0125), (10, 0.0125), (20, 0.025)]
    """
    most = whole_number("max_repeats", max_repeats, 1, 2**62)
    alpha = _between_0_and_1("alpha", alpha)
    counts = (digit * 10**power for power in range(19) for digit in (1, 2, 5))
    looks = [*(count for count in counts if 5 <= count < most), most]
    steps = zip([0, *looks], looks, strict=False)
    return [Look(now, alpha * (now - before) / most) for before, now in steps]


@dataclass(frozen=True)
class _Parts:
    """Parts of the variance of a difference: drawn for each repeat, and shared by all of them."""

    repeat: float
    shared: float
    shared_df: float | None = None  # None where `shared` is a known multiple of `repeat`

    def variance(self, n: int) -> float:
        """Return the variance of the mean of n repeats."""
        return self.repeat / n + self.shared

    def df(self, n: int) -> float:
        """Return Satterthwaite's degrees of freedom of that variance."""
        # Of 2 repeats the variance is too uncertain to show which part prevails: with Satterthwaite's
        # degrees a nominal 5 % would be up to 10 %; from 3 repeats it is 4 to 6 %.
        if self.shared_df is None or n == 2:
            return n - 1.0
        share = self.shared / self.variance(n)
        return 1 / ((1 - share) ** 2 / (n - 1) + share**2 / self.shared_df)


def _parts(first: Scores, second: Scores, sampling: Sampling) -> _Parts:
    """Return the parts of the variance of second - first."""
    a, b = first.values, second.values
    repeat = 0.0 if _constant(b - a, a, b) else float((b - a).var(ddof=1))
    if sampling.ratio is not None:
        return _Parts(repeat, sampling.ratio * repeat)
    if first.rows is None or second.rows is None:
        return _Parts(repeat, 0.0)
    n, ones = len(a), np.ones(len(a))
    by_row, interaction = _row_variances(first.rows, second.rows, ones, ones)
    shared = by_row - min(interaction, repeat / n)  # so that neither part exceeds the sum
    return _Parts(repeat, max(0.0, shared), first.rows.shape[1] - 1.0)


def _row_variances(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    first_scale: NDArray[np.float64],
    second_scale: NDArray[np.float64],
) -> tuple[float, float]:
    """Return V_row and V_int of ``second_scale * second - first_scale * first`` (see `difference`).

    The cells are computed twice, some repeats at a time, instead of kept.
    """
    n, m = first.shape
    step = max(1, CHUNK // m)

    def cells() -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for start in range(0, n, step):
            cut = slice(start, start + step)
            block = second_scale[cut, None] * second[cut]
            block -= first_scale[cut, None] * first[cut]
            yield cut, block

    by_repeat, by_row = np.zeros(n), np.zeros(m)
    for cut, block in cells():
        by_repeat[cut] = block.mean(axis=1)
        by_row += block.sum(axis=0)
    by_row = by_row / n - by_repeat.mean()
    residual = 0.0
    for cut, block in cells():
        block -= by_repeat[cut, None]
        block -= by_row
        residual += float(np.vdot(block, block))
    return float(by_row @ by_row) / (m - 1) / m, residual / ((n - 1) * (m - 1)) / (n * m)


def _variance_of_log_ratio(first: Scores, second: Scores, sampling: Sampling) -> float:
    """Return the variance of log(SD first / SD second)."""
    arms = (first.values, second.values)
    n = arms[0].size
    seeds = sum(map(_bonett_variance, arms))
    if sampling.ratio is not None:
        return seeds * (1 + n * sampling.ratio)
    if first.rows is None or second.rows is None:
        return seeds
    scales = [n / (n - 1) * (x - x.mean()) / x.var(ddof=1) for x in arms]
    by_row, interaction = _row_variances(first.rows, second.rows, *scales)
    return seeds + max(0.0, by_row - interaction)


def _bonett_variance(values: NDArray[np.float64]) -> float:
    """Return Bonett's variance of log(SD), a quarter of that of the logarithm of the variance.

    Fourth powers are taken about the median, because a mean follows the tail to be measured.
    """
    n = values.size
    scaled = (values - np.median(values)) / standard_deviation(values)
    kurtosis = n * float((scaled**4).sum()) / (n - 1) ** 2
    return (kurtosis - (n - 3) / n) / (n - 1) / 4


def _power(special: Any, parts: _Parts, n: int, size: float) -> float:
    """Return the probability that n repeats detect a true difference of `size`."""
    if n < 2:
        return 0.0
    df, offset = parts.df(n), size / math.sqrt(parts.variance(n))
    critical = special.stdtrit(df, (1 + LEVEL) / 2)
    if df > 10**4:  # where Student's t is normal to 4 digits
        return float(special.ndtr(offset - critical) + special.ndtr(-critical - offset))
    below, above = (special.nctdtr(df, offset, x) for x in (-critical, critical))
    # NaN where the noncentral t is beyond SciPy, and the power 1.
    return 1.0 if math.isnan(below + above) else float(below + 1 - above)


def _concluded(
    evidence: Evidence, n: int, level: float, greater_is_better: bool = True
) -> Evidence:
    """Return the evidence with its verdict as the only contrast."""
    decided = verdict(
        evidence,
        evidence.p_value,
        evidence.p_equivalence,
        alpha=1 - level,
        greater_is_better=greater_is_better,
    )
    reason = f"{n} repeats cannot separate the arms" if decided == "not decided" else ""
    return replace(evidence, verdict=decided, reason=reason)


def _unknown(estimate: float, null: float, test: str, reason: str = "") -> Evidence:
    """Return an estimate about which nothing is decided."""
    nothing = None, None, None, math.nan, math.nan
    return Evidence(estimate, null, *nothing, test, "not decided", reason)


def _name(first: Scores, second: Scores, sampling: Sampling, split: str, other: str) -> str:
    """Return the name of a test, with what it covers."""
    if sampling.ratio is not None:
        return split
    without = first.rows is None or second.rows is None
    return f"{other} over seeds" + (" (test rows not covered)" if without else " and test rows")


def _two_sided(special: Any, df: float, t: float) -> float:
    """Return the two-sided p-value of Student's t; 1 for a negative one."""
    return float(2 * special.stdtr(df, -max(t, 0.0)))


def _obstacle(first: Scores, second: Scores, *, least: int) -> str:
    """Return what prevents a test that needs `least` finite repeats; empty if nothing does."""
    a, b = _paired(first, second)
    if a.size < least:
        noun = "repeat" if a.size == 1 else "repeats"
        return f"{a.size} {noun} cannot separate the arms; the test needs at least {least}"
    if bad := int(np.count_nonzero(~((np.abs(a) < LARGEST) & (np.abs(b) < LARGEST)))):
        return f"{bad} of {a.size} repeats gave a value that is not finite, or is too large"
    few = [s.rows.shape[1] for s in (first, second) if s.rows is not None and s.rows.shape[1] < 2]
    return "1 test row cannot separate the arms; the test needs at least 2" if few else ""


def _constant(values: NDArray[np.float64], *computed_from: NDArray[np.float64]) -> bool:
    """Return whether `values` are all equal, up to the rounding of what they were computed from."""
    # Differences of values near 1 differ by some 1e-16 when they should be equal; squares of
    # differences below 1 / LARGEST are 0.
    scale = max(float(np.abs(source).max()) for source in computed_from)
    limit = max(64 * np.finfo(np.float64).eps * scale, 1 / LARGEST)
    return bool(np.ptp(values) <= limit)


def _ratio(numerator: float, denominator: float) -> float:
    """Return the ratio of two standard deviations; infinite over 0, NaN for 0 over 0."""
    if denominator == 0:
        return math.inf if numerator > 0 else math.nan
    return numerator / denominator


def _paired(first: Scores, second: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of both arms after checking their shapes."""
    a, b = first.values, second.values
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"values are {a.shape} and {b.shape}; expected one score per repeat each")
    shapes = [s.rows.shape for s in (first, second) if s.rows is not None]
    if any(len(shape) != 2 or shape[0] != a.size or shape != shapes[0] for shape in shapes):
        raise ValueError(f"rows are {' and '.join(map(str, shapes))}; expected ({a.size}, m) each")
    return a, b


def _between_0_and_1(name: str, value: float) -> float:
    """Return `value`, a number between 0 and 1."""
    if not 0 < finite_number(name, value) < 1:
        raise ValueError(f"{name} is {value!r}; expected a number between 0 and 1")
    return float(value)


def _scipy_special() -> Any:
    """Return the module `scipy.special`, or None where SciPy is not installed."""
    try:
        from scipy import special
    except ImportError:
        return None
    return special
