"""Results as text, and the tables and sentences that text and page share: pure functions to strings.

Everything is ASCII apart from names and labels of the caller's; `cdrop.experiments.page` puts typographic signs in.
"""

from __future__ import annotations

import html
import math
import shutil
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cdrop.experiments.metrics import METRICS
from cdrop.experiments.statistics import mean, standard_deviation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdrop.experiments.results import Arm, Claim, Contrast, ExperimentResult
    from cdrop.experiments.statistics import Evidence
    from cdrop.experiments.trials import Trial

__all__ = [
    "heading",
    "how_to_resume",
    "html_table",
    "incomplete",
    "kept",
    "repeat_line",
    "run_line",
    "text",
]

WIDTH = 100  # columns at most
LONGEST_NAME = 28  # in the first column; a longer name has its own line
MOST_POINTS, MOST_CURVES = 12, 4  # rows and arms of the table of learning curves in text
MOST_SENTENCES = 3  # contrasts that are concluded one by one; more are sorted by verdict
MOST_CHOICES = 4  # candidates that are named
SPREADS = {"better": "spreads less", "worse": "spreads more"}
BASELINES = {
    "classification": "always the commonest class, with the shares of the classes as probabilities",
    "multilabel": "for each label its share of the training rows",
    "regression": "always the mean of the training rows",
}
CURVES = {"loss": "Training loss", "test_loss": "Test loss", "test_score": "Test score"}


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading, an empty cell has no value."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())

    def __str__(self) -> str:
        first, *others = zip(self.head, *self.rows, strict=True)
        widths = [max(len(name) for name in first if name == first[0] or len(name) <= LONGEST_NAME)]
        widths += [max(map(len, cells)) for cells in others]
        # Names and words to the left, numbers to the right.
        sides = ["<", *("<" if any(c[:1].isalpha() for c in cs[1:]) else ">" for cs in others)]
        lines = textwrap.wrap(self.caption, _width())
        for name, *cells in (self.head, *self.rows):
            long = len(name) > widths[0]
            lines += [f"  {name}"] * long
            row = zip(["" if long else name, *cells], sides, widths, strict=True)
            lines.append("  " + "   ".join(f"{c:{side}{width}}" for c, side, width in row).rstrip())
        return "\n".join([*lines, *map(_wrapped, self.notes)])


def _width() -> int:
    """Return the columns of the terminal, within bounds; `WIDTH` where there is none."""
    return max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns))


def _wrapped(line: str, indent: str = "  ", more: str = "") -> str:
    wrapper = textwrap.TextWrapper(_width(), indent, indent + more)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.fill(line)


# ---- Whole views ------------------------------------------------------------------------------------------------


def text(result: ExperimentResult, *, with_heading: bool = True) -> str:
    """Return a result as text for a terminal.

    Parameters
    ----------
    result : ExperimentResult
        Finished or not.
    with_heading : bool, default True
        Whether `heading` comes first, with the preset's warnings. A command that printed these before the work
        leaves them out.

    Returns
    -------
    str
        Some paragraphs without a final newline.
    """
    cut = [] if result.complete else [incomplete(result)]
    parts = ["\n".join(warnings(result) if with_heading else cut)]
    if with_heading:
        parts.append(heading(result))
    if result.repeats:
        parts += map(str, _findings(result))
    return "\n\n".join(filter(None, parts))


def _findings(result: ExperimentResult) -> list[Table | str]:
    contrasts = result.contrasts()
    parts: list[Table | str] = [score_table(result), "\n".join(map(_wrapped, remarks(result)))]
    if contrasts:
        parts += [contrast_table(result, contrasts), spread_table(result, contrasts)]
    parts.append(_claims(result.claims()))
    parts += filter(None, [_curves(result), sweep_table(result), needed_table(result, contrasts)])
    parts += [*(_wrapped(note, "") for note in result.preset.notes), timing(result)]
    answers = (f"{c.question} {c.answer}" for c in conclusions(result, contrasts))
    return [*parts, "\n".join(_wrapped(answer, "", "  ") for answer in answers)]


def heading(result: ExperimentResult) -> str:
    """Return what is known before the work begins: data, splits, arms and machine, a line each."""
    lines = (f"{name:<10}{fact}" for name, fact in facts(result).items())
    return "\n".join(_wrapped(line, "", " " * 10) for line in lines)


def html_table(result: ExperimentResult) -> str:
    """Return scores and verdicts as HTML, for a notebook."""
    table, contrasts = score_table(result), result.contrasts() if result.repeats else []
    lines = [*warnings(result), *remarks(result)]
    lines += [f"{c.question} {c.answer}" for c in conclusions(result, contrasts)]
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in (table.head, *table.rows)
    )
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f"<table><caption>{html.escape(table.caption)}</caption>{rows}</table>{notes}"


def title(result: ExperimentResult) -> str:
    """Return the heading of figures and page: the preset's, with the name of the data."""
    name, known = result.data.get("name", ""), result.preset.title
    return known if name in known else f"{known}: {name}"


def warnings(result: ExperimentResult) -> list[str]:
    """Return what must be known before anything else."""
    return [*([] if result.complete else [incomplete(result)]), *result.preset.warnings]


def facts(result: ExperimentResult) -> dict[str, str]:
    """Return the lines of `heading` by their names, those of the preset first."""
    machine, data, first = result.machine, result.data, result.label(next(iter(result.arms)))
    versions, splits = machine["versions"], result.sampling.ratio is not None
    choose = any(
        len(a.candidates) > 1 or "patience" in a.candidates[0] for a in result.arms.values()
    )
    purpose = "training and choices" if choose else "training"
    seeds = f"seed {result.seed}"
    if result.asked > 1:
        seeds = f"seeds {result.seed} to {result.seed + result.asked - 1}"
    names = [_arm_with_candidates(result, name) for name in result.arms]
    compared = f"; all compared with {first}" if len(names) > 2 else ""
    lines = {
        "data": data.get("name"),
        "source": data.get("source"),
        "rows": f"{plural(data['train'], data.get('row', 'row'))} for {purpose}, {data['test']:,} for testing;"
        f" {'each repeat has its own split' if splits else 'one test set for all repeats'}",
        "repeats": f"{'at most ' * result.until_decided}{result.asked:,}, {seeds};"
        f" arms share {'splits, ' if splits else ''}initial weights and minibatches",
        "arms": ", ".join(names) + compared,
        "memory": _memory(data.get("memory_bytes", 0)),
        "machine": f"{machine['cpu']}; SIMD {machine['simd']}; {_workers(machine)}",
        "versions": f"cdrop {versions['cdrop']}, Python {versions['python']}, NumPy {versions['numpy']},"
        f" SciPy {versions['scipy'] or 'absent'}",
    }
    first_lines = {name: lines[name] for name in ("data", "source")}
    merged = {**first_lines, **result.preset.facts, **lines, **result.preset.facts}
    return {name: str(line) for name, line in merged.items() if line}


def _memory(needed: int) -> str | None:
    """Return how much memory an experiment takes, if that is worth a line."""
    return f"about {needed / 1e9:.1f} GB for the rows and their copies" if needed >= 1e8 else None


def _arm_with_candidates(result: ExperimentResult, name: str) -> str:
    number_of = len(result.arms[name].candidates)
    return result.label(name) + (f" (best of {number_of} candidates)" if number_of > 1 else "")


def _workers(machine: dict[str, Any]) -> str:
    if machine.get("jobs", 1) > 1:
        return f"{machine['jobs']} runs at a time, {plural(machine['threads'], 'thread')} each"
    return f"{plural(machine['threads'], 'thread')} ({machine['threads_from']})"


# ---- Progress ---------------------------------------------------------------------------------------------------


def run_line(trial: Trial, result: ExperimentResult) -> str:
    """Return the progress line of one finished run."""
    arm, score = result.arms[trial.arm], f"{result.metric.label} {_score(trial, result)}"
    choice = f", chose {candidate(arm, trial.candidate)}" if len(arm.candidates) > 1 else ""
    return (
        f"{_of(trial, result)}, {result.label(arm.name)}: {score}{choice} ({trial.seconds:.1f} s)"
    )


def repeat_line(trials: Sequence[Trial], result: ExperimentResult) -> str:
    """Return the progress line of a repeat whose runs are all finished."""
    shown = [f"{_score(t, result)} {result.label(t.arm)}" for t in trials]
    if len(shown) > MOST_CURVES:
        shown[MOST_CURVES - 1 :] = [f"{len(shown) - MOST_CURVES + 1} others"]
    seconds = sum(trial.seconds for trial in trials)
    return f"{_of(trials[0], result)}: {result.metric.label} {', '.join(shown)} ({seconds:.1f} s)"


def _of(trial: Trial, result: ExperimentResult) -> str:
    return f"repeat {trial.repeat + 1:,} of {result.asked:,}"


def _score(trial: Trial, result: ExperimentResult) -> str:
    return number(trial.scores.get(result.metric.name, math.nan))


def incomplete(result: ExperimentResult) -> str:
    """Return why and after how many repeats the experiment ended."""
    return f"INCOMPLETE: {result.stopped} after {len(result.repeats):,} of {plural(result.asked, 'repeat')}."


def kept(directory: Path | None, finished: int) -> str | None:
    """Return the heading's line on the directory that records the runs, if there is one."""
    if directory is None:
        return None
    before = f": {plural(finished, 'run')} finished before" if finished else ""
    return f"{'record':<10}{directory}{before}"


def how_to_resume(directory: Path, finished: int) -> str:
    """Return how an incomplete experiment is resumed."""
    return f"{plural(finished, 'finished run')} in {directory}; the same command with --resume continues."


# ---- Tables -----------------------------------------------------------------------------------------------------


def score_table(result: ExperimentResult) -> Table:
    """Return mean and spread of each arm's scores, the baseline's, and published ones."""
    metric, published = result.metric, result.preset.published
    lines: list[tuple[str, Callable[[str], list[float]]]] = [
        *((n, a.scores) for n, a in result.arms.items())
    ]
    notes = []
    if metric.name in result.baseline:
        lines.append(("(baseline)", lambda name: result.baseline.get(name, [])))
        notes.append(f"Baseline: ignores the inputs; {BASELINES[result.task]}.")
    head = ["arm", metric.label]
    rows = [
        [result.label(n), spread(mean(of(metric.name)), standard_deviation(of(metric.name)))]
        for n, of in lines
    ]
    if published:
        head.append(published.source)
        for row, (n, _) in zip(rows, lines, strict=True):
            row.append(spread(*published.score[n]) if n in published.score else "")
    for other in result.metrics[1:]:
        column = [number(mean(of(other))) for _, of in lines]
        if set(column[: len(result.arms)]) != {"-"}:
            head.append(METRICS[other].label if other in METRICS else other)
            rows = [[*row, cell] for row, cell in zip(rows, column, strict=True)]
    better = "higher" if metric.greater_is_better else "lower"
    caption = f"Test scores {result.condition}: mean +- standard deviation between repeats"
    return Table(f"{caption} ({metric.label}: {better} is better)", head, rows, notes)


def remarks(result: ExperimentResult) -> list[str]:
    """Return which arms do not beat the baseline, and what was chosen among candidates."""
    floor = mean(result.baseline.get(result.metric.name, []))
    sign = 1 if result.metric.greater_is_better else -1
    losers = [n for n, arm in result.arms.items() if sign * arm.mean_score <= sign * floor]
    lines = []
    if losers and len(losers) == len(result.arms):
        lines.append("No arm beats the baseline, which ignores the inputs.")
    elif losers:
        names = ", ".join(map(result.label, losers))
        lines.append(f"Not better than the baseline, which ignores the inputs: {names}.")
    choices = ((result.label(name), chosen(arm)) for name, arm in result.arms.items())
    return lines + [f"{name}: chose {choice}." for name, choice in choices if choice]


def chosen(arm: Arm) -> str:
    """Return how often the validation rows chose which candidate; empty for an arm without a choice."""
    if len(arm.candidates) < 2 or not arm.chosen:
        return ""
    counts = Counter(arm.chosen).most_common()
    shown = [f"{candidate(arm, i)}: {n:,} of {len(arm.chosen):,}" for i, n in counts[:MOST_CHOICES]]
    rest = len(counts) - len(shown)
    return "; ".join(shown) + (f"; {rest} other{'s' * (rest > 1)} less often" if rest else "")


def candidate(arm: Arm, index: int) -> str:
    """Return the settings in which a candidate differs from the arm's others."""
    one, some = arm.candidates[index], arm.candidates
    keys = dict.fromkeys(key for settings in some for key in settings)
    differ = [k for k in keys if any(s.get(k) != some[0].get(k) for s in some) and k in one]
    shown = (
        _value(one[key]) if key == "estimator" else f"{key} {_value(one[key])}" for key in differ
    )
    return ", ".join(shown) or f"candidate {index + 1}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "-".join(map(_value, value))
    shown = str(value)
    return shown.rpartition(".")[2] if shown.replace(".", "").isidentifier() else shown


def contrast_table(result: ExperimentResult, contrasts: Sequence[Contrast]) -> Table:
    """Return each arm's difference from the first, the probability that it is better, and the verdict."""
    percent = _percent(result)
    rows = [
        [
            result.label(c.second),
            *map(estimate, (c.score, c.p_better)),
            p_value(c.p_holm),
            c.verdict,
        ]
        for c in contrasts
    ]
    many = len(contrasts) > 1
    notes = [f"{n}: {r}." for r, n in _reasons(result, contrasts).items()]
    notes += [f"{n}: {r}." for r, n in _not_within(result, contrasts).items()]
    if result.margin:
        notes.append(f"A difference of at most {result.margin:g} does not matter (margin).")
    head = f"difference [{percent}]", f"P(better) [{percent}]", "p (Holm)" if many else "p"
    caption = (
        f'Difference of the mean {result.metric.label} from "{result.label(contrasts[0].first)}",'
        f" {result.condition}{level(result)}: {contrasts[0].score.test}"
        + (f", Holm's method for {len(contrasts)} contrasts" if many else "")
    )
    return Table(caption, ["arm", *head, "verdict"], rows, notes)


def _reasons(result: ExperimentResult, contrasts: Sequence[Contrast]) -> dict[str, str]:
    """Return the arms that nothing is decided about, by the reason."""
    reasons: dict[str, list[str]] = {}
    for c in contrasts:
        if c.verdict == "not decided":
            reason = c.score.reason or f"after Holm's method, p is above {result.alpha:.3g}"
            if c.score.verdict == "no difference that matters":
                reason = (
                    f"the interval of this contrast alone lies within the margin of {result.margin:g}, but corrected "
                    f"for {len(contrasts)} contrasts by Holm's method nothing is decided: neither that the difference "
                    "is at most the margin, nor that there is a difference"
                )
            reasons.setdefault(reason, []).append(result.label(c.second))
    return {reason: ", ".join(names) for reason, names in reasons.items()}


def _not_within(result: ExperimentResult, contrasts: Sequence[Contrast]) -> dict[str, str]:
    """Return the arms that are better or worse although their intervals lie within the margin, by what that means."""
    arms: dict[str, list[str]] = {}
    for c in contrasts:
        if c.verdict in ("better", "worse") and c.score.verdict == "no difference that matters":
            arms.setdefault(c.verdict, []).append(result.label(c.second))
    return {
        f"{verdict} is decided; that the difference is at most the margin of {result.margin:g}, within which the "
        f"interval of this contrast alone lies, is not, corrected for {len(contrasts)} contrasts by Holm's "
        "method": ", ".join(names)
        for verdict, names in arms.items()
    }


def spread_table(result: ExperimentResult, contrasts: Sequence[Contrast]) -> Table:
    """Return the first arm's standard deviation between repeats over that of each other."""
    rows = []
    for c in contrasts:
        words = SPREADS.get(c.spread.verdict, c.spread.verdict)
        rows.append([result.label(c.second), estimate(c.spread), p_value(c.spread.p_value), words])
    first = result.label(contrasts[0].first)
    corrected = ", p for each arm alone" if len(contrasts) > 1 else ""
    caption = (
        f'Standard deviation between repeats of "{first}" over that of each arm,'
        f" {result.condition}{level(result)}: {contrasts[0].spread.test}"
    )
    head = ["arm", f"ratio [{_percent(result)}]", "p", "verdict"]
    return Table(caption + corrected, head, rows)


def needed_table(result: ExperimentResult, contrasts: Sequence[Contrast]) -> Table | None:
    """Return how many repeats detect differences of some sizes; None where that is unknown."""
    rows, counts = [], [n for c in contrasts for n in c.repeats_needed.values()]
    for c in contrasts:
        sizes = c.repeats_needed.items()
        cells = (f"{size:g}: {'never' if n is None else f'{n:,}'}" for size, n in sizes)
        rows.append([result.label(c.second), ", ".join(cells)])
    return (
        None
        if not counts
        else Table(
            f"Repeats that detect a true difference of the mean {result.metric.label} with a probability of 80 %",
            ["arm", "difference: repeats"],
            rows,
            ["never: no number of repeats on these data detects it."] if None in counts else (),
        )
    )


def sweep_table(result: ExperimentResult) -> Table | None:
    """Return the scores by the one numeric setting in which the arms differ, if they do."""
    swept = result.sweep()
    if swept is None or not result.repeats:
        return None
    key, arms = swept
    means = {value: result.arms[name].mean_score for value, name in arms.items()}
    finite = [value for value in means if math.isfinite(means[value])]
    pick = max if result.metric.greater_is_better else min
    best = pick(finite, key=lambda value: means[value]) if finite else None
    rows = [
        [f"{value:g}", spread(means[value], result.arms[name].std_score), "best" * (value == best)]
        for value, name in arms.items()
    ]
    return Table(f"Mean {result.metric.label} by {key}", [key, result.metric.label, ""], rows)


def curve_table(result: ExperimentResult, name: str, most: int = 40) -> Table | None:
    """Return the means of ``loss``, ``test_loss`` or ``test_score`` over the iterations, published ones alongside.

    Of more than `most` iterations, some are shown, spread evenly; None if no arm has learning curves.
    """
    columns: list[tuple[str, dict[int, float]]] = []
    published = result.preset.published.loss if result.preset.published and name == "loss" else {}
    for key, arm in result.arms.items():
        if arm.has_curves:
            curve = zip(arm.iterations, arm.curve(name)[0], strict=True)
            columns.append((result.label(key), dict(curve)))
        if key in published:
            theirs = dict(zip(*published[key], strict=True))
            columns.append((f"{result.label(key)}, published", theirs))
    if not columns:
        return None
    iterations = sorted(set().union(*(values for _, values in columns)))
    step = math.ceil(len(iterations) / most)
    shown = iterations[::-1][::step][::-1]  # the last is always among them
    rows = [[f"{t:,}", *(number(c[t]) if t in c else "" for _, c in columns)] for t in shown]
    head = ["iteration", *(label for label, _ in columns)]
    return Table(f"{CURVES[name]}, mean over repeats", head, rows)


def _curves(result: ExperimentResult) -> Table | None:
    """Return the training losses, where they are few or have published ones to compare with."""
    curved = [arm for arm in result.arms.values() if arm.has_curves]
    published = result.preset.published
    few = len(curved) <= MOST_CURVES and all(len(arm.iterations) <= MOST_POINTS for arm in curved)
    return curve_table(result, "loss") if few or (published and published.loss) else None


# ---- Sentences --------------------------------------------------------------------------------------------------


class Conclusion(NamedTuple):
    """A question with its answer, and the verdict that this is, if it is one."""

    verdict: str
    question: str
    answer: str


def conclusions(result: ExperimentResult, contrasts: Sequence[Contrast]) -> list[Conclusion]:
    """Return what the experiment found; every verdict names its condition."""
    on = f" on {result.data['name']}" if "name" in result.data else ""
    metric, condition = result.metric.label, f"{result.condition}{level(result)}"
    asks = len(contrasts) == 1 and result.preset.title.endswith("?")
    question = result.preset.title if asks else ""
    if len(contrasts) <= MOST_SENTENCES:
        return [
            Conclusion(
                c.verdict,
                question
                or f'Is "{result.label(c.second)}" better than "{result.label(c.first)}"{on}?',
                f"{metric} {estimate(c.score)}: {_verdict(c, result)}, {condition}.",
            )
            for c in contrasts
        ]
    groups: dict[str, list[Contrast]] = {}
    for c in contrasts:
        groups.setdefault(_verdict(c, result), []).append(c)
    first = result.label(contrasts[0].first)
    question = f"Which arms are better than {first}{on}, by {metric}, {condition}?"
    return [Conclusion("", question, "")] + [
        Conclusion(
            some[0].verdict,
            f"{verdict[0].upper()}{verdict[1:]}:",
            f"{', '.join(result.label(c.second) for c in some)}.",
        )
        for verdict, some in groups.items()
    ]


def _verdict(contrast: Contrast, result: ExperimentResult) -> str:
    """Return a verdict, with the margin where that is what it is about."""
    if contrast.verdict == "no difference that matters":
        return f"{contrast.verdict} (more than {result.margin:g})"
    return contrast.verdict


def level(result: ExperimentResult) -> str:
    """Return at what level and look verdicts were reached, where that is not the usual 5 %."""
    if math.isclose(result.alpha, 0.05):
        return ""
    return (
        f" (planned look at {len(result.repeats):,} of at most {plural(result.asked, 'repeat')},"
        f" level {result.alpha:.3g})"
    )


def _claims(claims: Sequence[Claim]) -> str:
    lines = ["Published claims"] if claims else []
    for i, claim in enumerate(claims, start=1):
        lines += [f'  {i}. "{claim.text}"', f"     {claim.verdict}"]
        lines += [_wrapped(line, "     ") for line in grounds(claim)]
    return "\n".join(lines)


def grounds(claim: Claim) -> list[str]:
    """Return what a claim's verdict rests on: the estimate, published and here, test, reason and note."""
    e = claim.evidence
    theirs = "" if claim.published is None else f" (published: {quantity(claim.published, e)})"
    test = f"{e.test}: p = {p_value(e.p_value)}" if e.p_value is not None else ""
    return [*filter(None, [f"{claim.quantity}: {estimate(e)}{theirs}", test, e.reason, claim.note])]


def timing(result: ExperimentResult) -> str:
    """Return how long the runs took."""
    means = [(mean(arm.seconds), result.label(name)) for name, arm in result.arms.items()]
    many = len(means) > MOST_CURVES
    shown = [f"{t:.2f} s {name}" for t, name in ([min(means), max(means)] if many else means)]
    runs = (" to " if many else ", ").join(shown)
    return _wrapped(f"Time: {result.seconds:.1f} s in all; one run, on average: {runs}.", "")


# ---- Numbers ----------------------------------------------------------------------------------------------------


def number(value: float, *, sign: bool = False) -> str:
    """Format a number: four decimals, or significant digits where these would show too few or too many.

    Examples
    --------
    >>> number(0.9706), number(-0.00002), number(1234.5678), number(0.0), number(float("nan"))
    ('0.9706', '-2e-05', '1234.6', '0.0000', '-')
    >>> number(0.0123, sign=True)
    '+0.0123'
    """
    if math.isnan(value):
        return "-"
    size = abs(value)
    form = ".4f" if size == 0 or 5e-5 <= size < 100 else ".2g" if size < 1 else ".5g"
    return f"{value:{'+' if sign else ''}{form}}"


def quantity(value: float, evidence: Evidence) -> str:
    """Format a value of what `evidence` estimates: a difference, a probability or a ratio."""
    if evidence.null == 0:
        return number(value, sign=True)
    return f"{value:.2f}" if evidence.null == 0.5 else f"{value:.3g}"


def estimate(evidence: Evidence) -> str:
    """Format an estimate with its interval.

    Examples
    --------
    >>> from cdrop.experiments.statistics import Evidence
    >>> nan = float("nan")
    >>> estimate(Evidence(-0.012, 0.0, (-0.02, -0.004), 0.003, None, nan, nan, "", "better"))
    '-0.0120 [-0.0200, -0.0040]'
    >>> estimate(Evidence(1e-17, 0.0, (-0.02, 0.02), 1.0, None, nan, nan, "", "not decided"))
    '+0.0000 [-0.0200, +0.0200]'
    """
    value, interval = evidence.estimate, evidence.interval or ()
    if math.isnan(value):
        return "-"
    if abs(value) < 1e-12 * max(map(abs, interval), default=0.0):
        value = 0.0  # equal but for the rounding of sums
    ends = ", ".join(quantity(end, evidence) for end in interval)
    return quantity(value, evidence) + (f" [{ends}]" if ends else "")


def spread(center: float, deviation: float) -> str:
    """Format mean and standard deviation, which a single value does not have.

    Examples
    --------
    >>> spread(0.9706, 0.0011), spread(0.97, float("nan"))
    ('0.9706 +- 0.0011', '0.9700')
    """
    return number(center) if math.isnan(deviation) else f"{number(center)} +- {number(deviation)}"


def p_value(p: float | None) -> str:
    """Format a p-value; empty where there is none.

    Examples
    --------
    >>> p_value(0.0312), p_value(2e-5), p_value(0.0), p_value(None)
    ('0.031', '2.0e-05', '0 (below 1e-300)', '')
    """
    if p is None:
        return ""
    return "0 (below 1e-300)" if p < 1e-300 else f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


def plural(count: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> plural(1, "repeat"), plural(1000, "repeat")
    ('1 repeat', '1,000 repeats')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _percent(result: ExperimentResult) -> str:
    return f"{100 * (1 - result.alpha):.4g} %"
