"""A result as one page of HTML. Needs matplotlib and Jinja: ``pip install 'cdrop[report]'``.

The page needs nothing from elsewhere: figures are SVG within it, there is no script, and fonts are the system's.
"""

from __future__ import annotations

import io
import os
import re
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from cdrop import plotting
from cdrop._files import write_atomically
from cdrop.experiments import report
from cdrop.experiments.report import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from matplotlib.axes import Axes

    from cdrop.experiments.results import Contrast, ExperimentResult

__all__ = ["write_report"]

WIDTH = 4.4  # inches: on a phone, where a figure is as wide as the screen, a point is then a pixel or more
INK = "#1a1a1a"  # of text and axes; black itself is not written into an SVG, and could not be replaced
# Colors of the figures as names that the page has a light and a dark value for.
NAMES = {
    **{color.lower(): f"var(--arm{i})" for i, color in enumerate(plotting.COLORS)},
    INK: "currentColor",
    **dict.fromkeys(("#595959", "#8c8c8c"), "var(--muted)"),
    **dict.fromkeys(("#e6e6e6", "#d9d9d9"), "var(--grid)"),
    "#ffffff": "var(--paper)",
}
STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    "axes.prop_cycle": f"cycler(color=['{INK}'])",  # for whatever has no color
    "svg.fonttype": "none",
    "svg.hashsalt": "cdrop",
}
CURVES = {
    "test_score": "On the test rows, after each number of iterations.",
    "test_loss": "On the test rows, without masks and without the L2 term.",
    "loss": "Of the minibatches trained on, under masks and with the L2 term.",
}
MOST_READ = 12  # rows of a table that are read out for a figure


class Picture(NamedTuple):
    """A figure of the page: coordinates, drawing, a text in place of it, and a caption."""

    box: str
    svg: str
    label: str
    caption: str


def write_report(
    result: ExperimentResult,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    command: str | None = None,
) -> None:
    """Write a result as one self-contained page of HTML.

    Parameters
    ----------
    result : ExperimentResult
        At least one finished repeat.
    file : path or binary stream
        A path is written completely or not at all.
    command : str, optional
        Command line that repeats the experiment; by default the preset's call.

    Raises
    ------
    ImportError
        If matplotlib or Jinja is not installed.
    ValueError
        If no repeat is finished.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from cdrop.experiments.page import write_report
    >>> write_report(result, "out.html")  # doctest: +SKIP
    """
    if not result.repeats:
        raise ValueError("result has 0 finished repeats; expected at least 1")
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"a report needs {error.name}: pip install 'cdrop[report]'", name=error.name
        ) from error
    page = _render(result, command).encode(errors="replace")  # paths need not be Unicode
    if isinstance(file, (str, os.PathLike)):
        write_atomically(file, lambda stream: stream.write(page))
    else:
        file.write(page)


def _render(result: ExperimentResult, command: str | None) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signs"] = signs
    source = files("cdrop.experiments").joinpath("page.html").read_text(encoding="utf-8")
    contrasts, facts = result.contrasts(), report.facts(result)
    tables = [report.score_table(result)]
    if contrasts:
        tables += [report.contrast_table(result, contrasts), report.spread_table(result, contrasts)]
    curves = {name: table for name in CURVES if (table := report.curve_table(result, name))}
    swept, needed = report.sweep_table(result), report.needed_table(result, contrasts)
    used = ("name", "source", "row")  # in `facts`, or as a noun
    data = {k: v for k, v in result.data.items() if isinstance(v, str) and k not in used}
    page: str = environment.from_string(source).render(
        title=report.title(result),
        warnings=report.warnings(result),
        conclusions=report.conclusions(result, contrasts),
        technical={name: facts.pop(name) for name in ("machine", "versions")}
        | {**data, "platform": result.machine["platform"], "started": result.started},
        facts=facts,
        claims=[(claim, report.grounds(claim)) for claim in result.claims()],
        tables=[*tables, *filter(None, [needed])],
        remarks=report.remarks(result),
        notes=result.preset.notes,
        repeats=_repeats(result, contrasts, tables, swept),
        numbers=[*filter(None, [swept]), _every_repeat(result)],
        learning=[_curve(result, name, table) for name, table in curves.items()],
        curves=curves.values(),
        command=command or result.preset.call,
    )
    return page


def _curve(result: ExperimentResult, name: str, table: Table) -> Picture:
    """Draw learning curves; the last row of their table is read out."""
    draw = partial(plotting.draw_curve, result=result, name=name)
    last = Table("", table.head, table.rows[-1:])
    return _picture(name, draw, 3.4 + 0.11 * (len(table.head) - 1), last, CURVES[name])


def _repeats(
    result: ExperimentResult,
    contrasts: Sequence[Contrast],
    tables: Sequence[Table],
    swept: Table | None,
) -> list[Picture]:
    """Draw scores, differences and spreads, a row for each row of their tables, and the sweep."""
    split = "split, " if result.sampling.ratio is not None else ""
    shared = f"The arms of a repeat share {split}initial weights and minibatches."
    both: dict[str, Any] = {"result": result, "contrasts": contrasts}
    parts = [
        ("scores", partial(plotting.draw_scores, result=result), shared),
        ("differences", partial(plotting.draw_differences, **both), ""),
        ("spread", partial(plotting.draw_spread, **both), ""),
    ]
    pictures = [
        _picture(name, draw, 1.7 + 0.42 * max(2, len(table.rows)), table, caption)
        for (name, draw, caption), table in zip(parts, tables, strict=False)
    ]
    if swept is not None:
        draw = partial(plotting.draw_sweep, result=result)
        pictures.append(_picture("sweep", draw, 3.4, swept, ""))
    return pictures


def _every_repeat(result: ExperimentResult) -> Table:
    """Return the scores of every repeat."""
    columns = [(result.label(name), arm.score) for name, arm in result.arms.items()]
    if result.metric.name in result.baseline:
        columns.append(("(baseline)", result.baseline[result.metric.name]))
    rows = [
        [str(result.seed + repeat), *(report.number(scores[i]) for _, scores in columns)]
        for i, repeat in enumerate(result.repeats)
    ]
    head = ["seed", *(label for label, _ in columns)]
    return Table(f"Test {result.metric.label} of each repeat", head, rows)


def _picture(
    name: str, draw: Callable[[Axes], None], height: float, table: Table, caption: str
) -> Picture:
    """Draw a figure as SVG that is a part of the page: in its colors and font, with its own ids."""
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        figure.savefig(out, format="svg", transparent=True)
    # What comes before has the date, and rules that would apply to the whole page.
    head, _, content = out.getvalue().partition("</defs>")
    for color, variable in NAMES.items():
        content = content.replace(color, variable)
    content = re.sub(r"font-family: [^;\"]*;? ?", "", content)
    content = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", content)
    box = head.partition('viewBox="')[2].partition('"')[0]
    svg = content.removesuffix("\n").removesuffix("</svg>")
    cells = (zip(table.head, row, strict=True) for row in table.rows[:MOST_READ])
    spoken = ("; ".join(f"{h} {cell}".strip() for h, cell in row if cell) for row in cells)
    return Picture(box, svg, signs(f"{axes.get_title()}. {'. '.join(spoken)}"), caption)


def signs(text: str) -> str:
    """Replace the ASCII signs of numbers by typographic ones.

    Examples
    --------
    >>> signs("-0.0120 +- 0.0031, p = 2e-05, early-stopping")
    '\N{MINUS SIGN}0.0120 \N{PLUS-MINUS SIGN} 0.0031, p = 2e-05, early-stopping'
    """
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text.replace("+-", "\N{PLUS-MINUS SIGN}"))
