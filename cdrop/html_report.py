"""A comparison as one page of HTML. Needs matplotlib and Jinja: ``pip install 'cdrop[report]'``.

The page needs nothing from elsewhere: the pictures are SVG within it, there is no script, and fonts are the system's.
"""

from __future__ import annotations

import io
import math
import os
import re
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cdrop import report
from cdrop._files import write_atomically
from cdrop.experiments import article
from cdrop.experiments.compare import ARMS
from cdrop.experiments.statistics import mean, standard_deviation
from cdrop.plotting import COLOURS, draw_accuracy, draw_curve, draw_differences, draw_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from matplotlib.axes import Axes

    from cdrop.experiments.claims import Claim
    from cdrop.experiments.compare import ComparisonResult
    from cdrop.experiments.paired import Arm
    from cdrop.experiments.statistics import Evidence

__all__ = ["write_report"]

# What a verdict on each of the article's claims means.
CONCLUSIONS = {
    "accuracy": {
        "supported": "Dropout gives the better mean test accuracy",
        "contradicted": "Dropout gives the worse mean test accuracy",
        "not decided": "Which arm has the better mean test accuracy is not decided",
    },
    "consistency": {
        "supported": "Dropout is more consistent between repeats",
        "contradicted": "Dropout is less consistent between repeats",
        "not decided": "Which arm is more consistent between repeats is not decided",
    },
    "convergence": {
        "supported": "Without dropout the training loss falls faster",
        "contradicted": "With dropout the training loss falls faster",
        "not decided": "In which arm the training loss falls faster is not decided",
    },
}

# Inches: on a phone, where a picture is as wide as the screen, a point is then a pixel or more.
FIGURE = (4.4, 3.9)
INK = "#1a1a1a"  # of text and axes; black itself is not written into an SVG, and could not be replaced
# The colours of the pictures as names that the page has a light and a dark value for.
NAMES = {
    COLOURS["without"].lower(): "var(--without)",
    COLOURS["with"].lower(): "var(--with)",
    INK: "currentColor",
    "#595959": "var(--muted)",
    "#8c8c8c": "var(--muted)",
    "#e6e6e6": "var(--grid)",
    "#ffffff": "var(--paper)",
}
STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    "axes.prop_cycle": f"cycler(color=['{INK}'])",  # what no function here chose a colour for
    "svg.fonttype": "none",
    "svg.hashsalt": "cdrop",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    box : str
        Its coordinates, as SVG's ``viewBox`` has them.
    svg : str
        What is drawn.
    label : str
        For those who cannot see it.
    caption : str
    """

    box: str
    svg: str
    label: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of the page; the first cell of a row is its heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(
    result: ComparisonResult,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    command: str | None = None,
) -> None:
    """Write a comparison as one page of HTML that needs nothing from elsewhere.

    Parameters
    ----------
    result : ComparisonResult
        At least one finished repeat.
    file : path or binary stream
        A path is written whole or not at all.
    command : str, optional
        The command line that gave the result, for the page to say how to repeat it; by default it has a call of
        `cdrop.experiments.compare`.

    Raises
    ------
    ImportError
        If matplotlib or Jinja is not installed.
    ValueError
        If no repeat was finished.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from cdrop.datasets import load_mnist
    >>> from cdrop.experiments import Settings, compare
    >>> result = compare(load_mnist(), Settings(repeats=20))  # doctest: +SKIP
    >>> write_report(result, "out.html")  # doctest: +SKIP
    """
    if result.repeats == 0:
        raise ValueError("result has no finished repeat, so there is nothing to report")
    page = _render(result, command).encode(errors="replace")  # paths need not be Unicode
    if isinstance(file, (str, os.PathLike)):
        write_atomically(file, lambda stream: stream.write(page))
    else:
        file.write(page)


def _render(result: ComparisonResult, command: str | None) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("cdrop").joinpath("report.html").read_text(encoding="utf-8")
    theirs = article.estimates() if result.beside_article else {}
    page: str = environment.from_string(source).render(
        title=f"Dropout or none: {result.data['name']}",
        warnings=_warnings(result),
        repeats=report.repeats(result.repeats),
        beside=None if result.beside_article else report.why_not_beside(result),
        claims=[_verdict(claim, theirs.get(claim.name)) for claim in result.claims()],
        accuracies=_accuracies(result),
        learning=_learning_curves(result),
        curves=_curves(result),
        pairs=_pairs(result),
        sweep=_sweep(result),
        differences=_differences(result),
        spreads=_spreads(result),
        needed=report.repeats_for_a_difference(result),
        every_repeat=_every_repeat(result),
        command=command or _call(result),
        facts=report.facts(result) | _particulars(result),
    )
    return page


def _warnings(result: ComparisonResult) -> list[str]:
    """Return what must be known before anything else."""
    foreign = None if result.data["is_mnist"] else report.not_mnist(result.data["name"])
    cut = None if result.complete else report.incomplete(result)
    return [line for line in (cut, foreign) if line is not None]


def _verdict(claim: Claim, theirs: float | None) -> dict[str, Any]:
    """Return a claim, its verdict in words and what that rests on."""
    evidence = claim.evidence
    return {
        "conclusion": CONCLUSIONS[claim.name][evidence.verdict],
        "verdict": evidence.verdict,
        "text": claim.text,
        "grounds": [*filter(None, [evidence.reason]), *report.grounds(claim, theirs)],
    }


def _accuracies(result: ComparisonResult) -> Table:
    """Return mean and standard deviation of every arm's test accuracy, the article's beside them where they compare."""
    head = ["arm", "mean", "standard deviation", "time of a training"]
    if result.beside_article:
        head += ["article's mean", "article's deviation"]
    rows = []
    for name, arm in result.arms.items():
        seconds = sum(arm.seconds) / result.repeats
        row = [_arm(name, result), f"{arm.mean_score:.4f}", _std(arm), f"{seconds:.2f} s"]
        theirs = article.RESULTS.get(name)
        if theirs is not None:
            row += [f"{theirs.mean_accuracy:.4f}", f"{theirs.std_accuracy:.4f}"]
        rows.append([*row, "", ""][: len(head)])
    return Table(f"Test accuracy over {report.repeats(result.repeats)}", head, rows)


def _differences(result: ComparisonResult) -> Table:
    """Return each arm's difference of the mean accuracy from the one without dropout, and the repeats that need it."""
    contrasts = result.experiment.contrasts()
    sizes = [f"repeats for {100 * size:g} points" for size in contrasts[0].repeats_needed]
    head = ["arm", "difference", "95 % interval", "p", "p by Holm's method", *sizes]
    rows = []
    for contrast in contrasts:
        needed = ["" if n is None else f"{n:,}" for n in contrast.repeats_needed.values()]
        row = _evidence(contrast.second, contrast.score, result)
        rows.append([*row, _bare(contrast.p_holm), *needed])
    return Table("Mean test accuracy, each arm minus none", head, rows)


def _spreads(result: ComparisonResult) -> Table:
    """Return how much the arm without dropout spreads more than each other."""
    rows = [_evidence(c.second, c.spread, result) for c in result.experiment.contrasts()]
    caption = "Standard deviation of test accuracy between repeats, none over each arm"
    return Table(caption, ["arm", "ratio", "95 % interval", "p"], rows)


def _evidence(name: str, evidence: Evidence, result: ComparisonResult) -> list[str]:
    """Return estimate, interval and p-value of an arm, as cells."""
    estimate = report.quantity(evidence.estimate, evidence)
    return [_arm(name, result), estimate, report.interval(evidence), _bare(evidence.p_value)]


def _curves(result: ComparisonResult) -> Table:
    """Return the means that the learning curves show."""
    names = {"test_score": "test accuracy", "test_loss": "test loss", "loss": "training loss"}
    columns = [result.arms[arm].curve(name)[0] for name in names for arm in ARMS]
    rows = [
        [
            f"{t:,}",
            *[f"{value:.4f}" for value in values[:2]],
            *[report.loss(value) for value in values[2:]],
        ]
        for t, *values in zip(result.settings.printed_iterations, *columns, strict=True)
    ]
    head = ["iteration", *[f"{label}, {arm}" for label in names.values() for arm in ARMS]]
    return Table("Means over the repeats, without and with dropout", head, rows)


def _every_repeat(result: ComparisonResult) -> Table:
    """Return every repeat's test accuracies."""
    scores = zip(*[arm.score for arm in result.arms.values()], strict=True)
    rows = [
        [f"{result.settings.seed + repeat}", *[f"{score:.4f}" for score in row]]
        for repeat, row in zip(result.experiment.repeats, scores, strict=True)
    ]
    head = ["seed", *[_arm(name, result) for name in result.arms]]
    return Table("Test accuracy of every repeat", head, rows)


def _particulars(result: ComparisonResult) -> dict[str, str]:
    """Return what a repetition needs to know, and no heading tells."""
    experiment = result.experiment
    return {
        "SHA-256": f"{result.data['sha256']} (images, then labels, of training, validation and test in turn)",
        "platform": experiment.machine["platform"],
        "started": f"{experiment.started}; {experiment.seconds:.1f} s in all",
    }


def _std(arm: Arm) -> str:
    """Format an arm's standard deviation, which one repeat has not."""
    return "" if math.isnan(arm.std_score) else f"{arm.std_score:.4f}"


def _bare(p: float | None) -> str:
    """Format a p-value under a heading that says what it is."""
    return report.p_value(p).removeprefix("p = ")


def _arm(name: str, result: ComparisonResult) -> str:
    """Return an arm's name with its probability of dropping."""
    rate = result.arms[name].configuration["dropout"]
    return name if name.startswith("dropout") else f"{name} dropout ({rate:g})"


def _call(result: ComparisonResult) -> str:
    """Return the Python call that repeats a comparison."""
    settings = result.settings
    defaults = type(settings)()
    changed = [
        f"{name}={value!r}"
        for name, value in vars(settings).items()
        if value != getattr(defaults, name)
    ]
    return f"cdrop.experiments.compare(dataset, Settings({', '.join(changed)}))"


def _learning_curves(result: ComparisonResult) -> list[Picture]:
    """Draw what both arms have learnt, over the iterations."""
    captions = {
        "test_score": f"{report.overtaking(result)} Whether that may be chance, the verdict above says.",
        "test_loss": "Over the test rows, without masks and without the L2 term.",
        "loss": "Of the minibatches trained on, under dropout's masks.",
    }
    return [
        _picture(name, partial(draw_curve, result=result, name=name), caption, _ends(result, name))
        for name, caption in captions.items()
    ]


def _pairs(result: ComparisonResult) -> list[Picture]:
    """Draw what became of each repeat in both arms."""
    scores = {arm: result.arms[arm].score for arm in ARMS}
    ahead = sum(dropped > without for without, dropped in zip(*scores.values(), strict=True))
    told = [
        f"{arm} dropout {report.spread(mean(values), standard_deviation(values))}"
        for arm, values in scores.items()
    ]
    accuracy, *_ = result.claims()
    return [
        _picture(
            "accuracy",
            partial(draw_accuracy, result=result),
            "Both trainings of a repeat have the same initial weights and minibatches.",
            "; ".join(told).replace("+-", "standard deviation"),
        ),
        _picture(
            "differences",
            partial(draw_differences, result=result),
            f"Dropout has the better test accuracy in {ahead} of {report.repeats(result.repeats)}.",
            "; ".join(report.grounds(accuracy, None)),
        ),
    ]


def _ends(result: ComparisonResult, name: str) -> str:
    """Say where both arms' learning curves begin and end."""
    noted = result.settings.printed_iterations
    means = {arm: result.arms[arm].curve(name)[0] for arm in ARMS}
    return "; ".join(
        f"{arm} dropout {curve[0]:.4f} at iteration {noted[0]:,}, {curve[-1]:.4f} at {noted[-1]:,}"
        for arm, curve in means.items()
    )


def _sweep(result: ComparisonResult) -> Picture | None:
    """Draw the sweep, if there is one."""
    if not result.settings.sweep:
        return None
    means = {rate: arm.mean_score for rate, arm in result.sweep().items()}
    best = max(means, key=lambda rate: means[rate])
    return _picture(
        "sweep",
        partial(draw_sweep, result=result),
        f"The best mean of these repeats is {means[best]:.4f}, at {best:g}.",
        "; ".join(f"{value:.4f} at {rate:g}" for rate, value in means.items()),
    )


def _picture(name: str, draw: Callable[[Axes], None], caption: str, told: str) -> Picture:
    """Draw a picture as SVG that is a part of the page: in its colours and its font, with ids of its own."""
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=FIGURE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        figure.savefig(out, format="svg", transparent=True)
    # What comes before has the date, and rules that would be the whole page's.
    head, _, content = out.getvalue().partition("</defs>")
    for colour, variable in NAMES.items():
        content = content.replace(colour, variable)
    content = re.sub(r"font-family: [^;\"]*;? ?", "", content)
    content = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", content)
    box = head.partition('viewBox="')[2].partition('"')[0]
    svg = content.removesuffix("\n").removesuffix("</svg>")
    return Picture(box, svg, f"{axes.get_title()}: {told}", caption)
