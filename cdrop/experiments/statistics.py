"""Estimates, intervals and tests for repeats of two paired arms.

The numbers need NumPy alone. Intervals and p-values need SciPy (extra ``stats``); without it an
`Evidence` carries its estimate and says how to get the rest. Too few repeats, no spread or values
that are not finite end in a verdict that says so, never in a warning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cdrop._checks import finite_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Values = Sequence[float] | NDArray[np.float64]

__all__ = [
    "Evidence",
    "Verdict",
    "half_width",
    "mean",
    "paired_difference",
    "repeats_needed",
    "spread_ratio",
    "standard_deviation",
]

Verdict = Literal["supported", "contradicted", "not decided"]

LEVEL = 0.95
POWER = 0.8
NEEDS_SCIPY = "the test needs SciPy: pip install 'cdrop[stats]'"


@dataclass(frozen=True)
class Evidence:
    """What repeats say about a claim of the form "this quantity is above its null value".

    Attributes
    ----------
    estimate : float
        The quantity as these repeats show it; NaN when they cannot.
    null : float
        Its value if the claim were empty: 0 for a difference, 1 for a ratio.
    interval : tuple of float or None
        95 % confidence interval; None where there is none.
    p_value : float or None
        Two-sided p-value of `test`; None without a test.
    test : str
        Name of the test and of the interval's method.
    verdict : {"supported", "contradicted", "not decided"}
        Decided when the p-value is below 5 % and the interval does not hold `null`.
    reason : str
        Why the verdict is "not decided"; empty otherwise.
    """

    estimate: float
    null: float
    interval: tuple[float, float] | None
    p_value: float | None
    test: str
    verdict: Verdict
    reason: str = ""


def mean(values: Values) -> float:
    """Return the mean of `values`; NaN for none and where one is not finite.

    Examples
    --------
    >>> mean([0.96, 0.97]), mean([])
    (0.965, nan)
    """
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size and np.isfinite(array).all() else math.nan


def standard_deviation(values: Values) -> float:
    """Return the standard deviation, divisor n - 1; NaN for fewer than two values.

    Examples
    --------
    >>> standard_deviation([1.0, 3.0]) == 2**0.5, standard_deviation([1.0])
    (True, nan)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all():
        return math.nan
    # Equal values have no spread; their computed mean may differ from them in the last bit.
    return 0.0 if np.ptp(array) == 0 else float(array.std(ddof=1))


def half_width(deviation: float, n: int) -> float | None:
    """Return half the width of Student's 95 % interval for a mean.

    Parameters
    ----------
    deviation : float
        Standard deviation of the values, divisor n - 1.
    n : int
        Their number.

    Returns
    -------
    float or None
        None for fewer than two values, and without SciPy.

    Examples
    --------
    >>> round(half_width(0.01, 5), 4)
    0.0124
    """
    stats = _scipy_stats()
    if stats is None or n < 2:
        return None
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * deviation / math.sqrt(n)


def paired_difference(first: Values, second: Values, *, of: str = "means") -> Evidence:
    """Judge the claim that `second` is above `first` in the mean.

    Parameters
    ----------
    first, second : sequence of float, shape (n,)
        Values of the two arms; entry r of both comes from the same repeat.
    of : str, default="means"
        What the repeats fail to separate, for the reason of an undecided verdict.

    Returns
    -------
    Evidence
        Mean of ``second - first`` with Student's interval and the paired t-test.

    Raises
    ------
    ValueError
        If the arms differ in length.

    Examples
    --------
    >>> evidence = paired_difference([1.0, 2.0, 3.0], [2.0, 3.0, 5.0])
    >>> round(evidence.estimate, 3), evidence.test
    (1.333, 'paired t-test')
    """
    a, b = _paired(first, second)
    test = "paired t-test"
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = b - a
    estimate = mean(difference)
    obstacle = _obstacle(a, b, least=2)
    if not obstacle and _constant(difference, a, b):
        obstacle = f"all {a.size} differences are equal, so the test has no scale"
    if obstacle:
        return Evidence(estimate, 0.0, None, None, test, "not decided", obstacle)
    stats, half = _scipy_stats(), half_width(standard_deviation(difference), a.size)
    if stats is None or half is None:
        return Evidence(estimate, 0.0, None, None, test, "not decided", NEEDS_SCIPY)
    p_value = float(stats.ttest_rel(b, a).pvalue)
    interval = (estimate - half, estimate + half)
    return _judge(estimate, 0.0, interval, p_value, test, a.size, of)


def spread_ratio(first: Values, second: Values, *, of: str = "spreads") -> Evidence:
    """Judge the claim that `first` spreads more than `second`.

    Parameters
    ----------
    first, second : sequence of float, shape (n,)
        Values of the two arms over the same repeats.
    of : str, default="spreads"
        What the repeats fail to separate, for the reason of an undecided verdict.

    Returns
    -------
    Evidence
        Ratio of the standard deviations, ``first`` over ``second``, with Levene's test about the
        medians (Brown and Forsythe) and Bonett's interval. A verdict needs both to agree.

    Raises
    ------
    ValueError
        If the arms differ in length.

    Notes
    -----
    Test accuracies have a long lower tail, longer in one arm than in the other. Bonett's interval
    allows for that through the kurtosis, here each arm's own and with Student's quantile instead of
    the normal one. In simulations (ratio 2.8; arms normal, Gumbel, exponential, t5, uniform and
    mixed; 20,000 draws each) it covered the ratio 96 to 99 % of the time at 5 repeats, 92 to 99 %
    at 10, 93 to 98 % at 50 and 94 to 97 % at 200. A percentile bootstrap covers 87 to 94 % at 5
    repeats, the F interval 70 to 100 % at 50. Neither test nor interval uses the pairs: where
    the arms of a pair do well or badly together, both are too cautious rather than too bold.

    References
    ----------
    Brown, Forsythe: Robust tests for the equality of variances. JASA 69 (1974) 364-367.
    Bonett: Robust confidence interval for a ratio of standard deviations. Applied Psychological
    Measurement 30 (2006) 432-439.

    Examples
    --------
    >>> evidence = spread_ratio([1.0, 5.0, 9.0, 13.0], [1.0, 2.0, 3.0, 4.0])
    >>> round(evidence.estimate, 12)
    4.0
    """
    a, b = _paired(first, second)
    test = "Levene's test about the medians"
    estimate = _ratio(standard_deviation(a), standard_deviation(b))
    # Of two values both are equally far from their median: the test would divide by zero.
    obstacle = _obstacle(a, b, least=3)
    if not obstacle and math.isnan(estimate):
        obstacle = "neither arm varies between repeats"
    if not obstacle and _constant(_deviations(a), a) and _constant(_deviations(b), b):
        obstacle = "all deviations within an arm are equal, so the test has no scale"
    if obstacle:
        return Evidence(estimate, 1.0, None, None, test, "not decided", obstacle)
    stats = _scipy_stats()
    if stats is None:
        return Evidence(estimate, 1.0, None, None, test, "not decided", NEEDS_SCIPY)
    p_value = float(stats.levene(a, b, center="median").pvalue)
    interval = _bonett_interval(a, b, float(stats.t.ppf(0.5 + LEVEL / 2, a.size - 1)))
    return _judge(estimate, 1.0, interval, p_value, test, a.size, of)


def repeats_needed(
    first: Values, second: Values, size: float, *, power: float = POWER
) -> int | None:
    """Return how many repeats see a difference of the means.

    Parameters
    ----------
    first, second : sequence of float, shape (n,)
        Values of the two arms over the same repeats: their differences' spread is what counts.
    size : float
        The difference to be seen, above 0.
    power : float, default 0.8
        Probability that the paired t-test at 5 % sees it.

    Returns
    -------
    int or None
        None without SciPy, or where the differences have no spread.

    Raises
    ------
    ValueError
        If the arms differ in length, or a number is out of range.

    References
    ----------
    Cohen: Statistical power analysis for the behavioral sciences (1988), chapter 2.

    Examples
    --------
    >>> repeats_needed([0.96, 0.97, 0.95], [0.97, 0.96, 0.96], size=0.01)
    13
    """
    size = finite_number("size", size, positive=True)
    if not 0 < power < 1:
        raise ValueError(f"power is {power!r}; expected a number between 0 and 1")
    a, b = _paired(first, second)
    stats = _scipy_stats()
    if _obstacle(a, b, least=2) or _constant(b - a, a, b) or stats is None:
        return None
    effect = size / standard_deviation(b - a)
    normal = float(stats.norm.ppf([0.5 + LEVEL / 2, power]).sum())
    n = max(2, math.ceil((normal / effect) ** 2))  # Student's needs no fewer than the normal test
    if n > 10**4:  # where the two are the same, but for rounding
        return n
    while True:
        critical, offset = stats.t.ppf(0.5 + LEVEL / 2, n - 1), effect * math.sqrt(n)
        seen = stats.nct.sf(critical, n - 1, offset) + stats.nct.cdf(-critical, n - 1, offset)
        if not seen < power:  # NaN where the noncentral t is beyond SciPy, and the power 1
            return n
        n += 1


def _bonett_interval(
    a: NDArray[np.float64], b: NDArray[np.float64], quantile: float
) -> tuple[float, float] | None:
    """Return an interval for the ratio of standard deviations; None where one is zero.

    The logarithm of a variance has the variance (kurtosis - (n - 3) / n) / (n - 1); fourth powers
    are taken about the median, because a mean follows the tail that they shall measure.
    """
    n = a.size
    variance = 0.0
    for values in (a, b):
        squares = float(np.square(values - values.mean()).sum())
        if standard_deviation(values) == 0 or squares == 0:
            return None
        kurtosis = n * float((_deviations(values) ** 4).sum()) / squares**2
        variance += (kurtosis - (n - 3) / n) / (n - 1)
    # Half of it: the standard deviation's logarithm is half the variance's.
    factor = math.exp(min(quantile * math.sqrt(variance) / 2, 700.0))
    ratio = standard_deviation(a) / standard_deviation(b)
    return ratio / factor, ratio * factor


def _judge(
    estimate: float,
    null: float,
    interval: tuple[float, float] | None,
    p_value: float,
    test: str,
    repeats: int,
    of: str,
) -> Evidence:
    """Return the verdict that interval and p-value give together."""
    if p_value < 1 - LEVEL and (interval is None or not interval[0] <= null <= interval[1]):
        verdict: Verdict = "supported" if estimate > null else "contradicted"
        return Evidence(estimate, null, interval, p_value, test, verdict)
    reason = f"{repeats} repeats cannot separate the {of}"
    return Evidence(estimate, null, interval, p_value, test, "not decided", reason)


def _obstacle(a: NDArray[np.float64], b: NDArray[np.float64], *, least: int) -> str:
    """Say what bars a test that needs `least` finite repeats; empty if nothing does."""
    if a.size < least:
        noun = "repeat" if a.size == 1 else "repeats"
        return f"{a.size} {noun} cannot separate anything; the test needs at least {least}"
    bad = int(np.count_nonzero(~(np.isfinite(a) & np.isfinite(b))))
    return f"{bad} of {a.size} repeats gave a value that is not finite" if bad else ""


def _constant(values: NDArray[np.float64], *computed_from: NDArray[np.float64]) -> bool:
    """Tell whether `values` are all equal, up to the rounding of what they were computed from."""
    # Differences of values near 1 differ by some 1e-16 when they should be equal. 64 units in the
    # last place also stay clear of SciPy's warning about cancellation, which begins at 10.
    scale = max(float(np.abs(source).max()) for source in computed_from)
    return bool(np.ptp(values) <= 64 * np.finfo(np.float64).eps * scale)


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return absolute deviations from the median."""
    return np.abs(values - np.median(values))


def _ratio(numerator: float, denominator: float) -> float:
    """Return the ratio of two standard deviations; infinite over 0, NaN for 0 over 0."""
    if denominator == 0:
        return math.inf if numerator > 0 else math.nan
    return numerator / denominator


def _paired(first: Values, second: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both arms as float64 vectors of one length."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"paired arms need one value per repeat each, got {a.shape} and {b.shape}")
    return a, b


def _scipy_stats() -> Any:
    """Return the module `scipy.stats`, or None where SciPy is not installed."""
    try:
        from scipy import stats
    except ImportError:
        return None
    return stats
