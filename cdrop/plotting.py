"""Figures of results. Needs matplotlib: ``pip install 'cdrop[plot]'``."""

from __future__ import annotations

import math
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cdrop.experiments.report import number, plural, title
from cdrop.experiments.statistics import mean, mean_interval

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import BinaryIO

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cdrop.experiments.results import Contrast, ExperimentResult
    from cdrop.experiments.statistics import Evidence

__all__ = ["LossCurveDisplay", "check_format", "plot_result"]

# Okabe and Ito's palette without its black and yellow, then a gray: distinct for every kind of color vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
# The numbers of colors, markers and line styles have no common divisor, so 84 arms look different.
MARKERS = ("o", "s", "^", "D")
LINES = ("-", "--", "-.")
GRAY = "0.35"
NAME_WIDTH, NAME_LINES = 20, 3  # characters and lines of an arm's name
LEGEND_WIDTH = 24  # characters of a legend's other entries
MOST_MARKERS = 20  # on a curve
MOST_BANDS = 4  # more arms than that hide each other's
# The intervals of two repeats are 18 standard deviations wide, and hide everything else; a histogram of a few repeats
# says less than they do themselves; hundreds of lines are a black surface, and so are lines across many arms.
FEWEST_FOR_INTERVALS, FEWEST_FOR_HISTOGRAM, MOST_LINES, MOST_JOINED = 3, 30, 200, 6


def _check_matplotlib() -> None:
    """Raise an error that names the extra if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'cdrop[plot]'", name="matplotlib"
        ) from error


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the picture format that a file name's suffix selects.

    Parameters
    ----------
    path : path
        Name of the picture file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If matplotlib does not write this format.
    """
    from pathlib import Path

    _check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    suffix = Path(path).suffix.lower().lstrip(".")
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if suffix not in known:
        raise ValueError(f"suffix is {suffix!r}; expected one of {', '.join(known)}")
    return suffix


def plot_result(
    result: ExperimentResult,
    file: str | os.PathLike[str] | BinaryIO | None = None,
    *,
    format: str | None = None,
) -> Figure:
    """Draw an experiment: learning curves, scores, differences from the first arm, and a sweep, where there are such.

    Parameters
    ----------
    result : ExperimentResult
        At least one finished repeat.
    file : path or binary stream, optional
        Where to save the figure; by default it is not saved.
    format : str, optional
        Such as "png"; by default the suffix of `file` decides.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, and not registered with pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If no repeat is finished.
    """
    _check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = _panels(result)
    columns = (1, 1, 2, 3, 2, 3)[len(panels)]
    rows = math.ceil(len(panels) / columns)
    height = 3.9 + 0.22 * max(0, len(result.arms) - 4)
    spaces = ConstrainedLayoutEngine(wspace=0.06, hspace=0.08)
    figure = Figure(figsize=(5.0 * columns, height * rows + 0.5), layout=spaces)
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, draw in zip(places, panels, strict=False):
        draw(axes)
    for axes in places[len(panels) :]:
        axes.remove()
    figure.suptitle("\n".join(_title(result)), fontsize=12)
    if file is not None:
        figure.savefig(file, dpi=150, format=format)
    return figure


def _panels(result: ExperimentResult) -> list[partial[None]]:
    """Return what draws each part of the figure that this result has."""
    if not result.repeats:
        raise ValueError("result has 0 finished repeats; expected at least 1")
    curves = ("loss", "test_score") if any(a.has_curves for a in result.arms.values()) else ()
    panels = [partial(draw_curve, result=result, name=name) for name in curves]
    panels.append(partial(draw_scores, result=result))
    if contrasts := result.contrasts(sizes=()):
        panels.append(partial(draw_differences, result=result, contrasts=contrasts))
    return [*panels, partial(draw_sweep, result=result)] if result.sweep() else panels


def _title(result: ExperimentResult) -> list[str]:
    """Return the lines above all panels: title, data and number of repeats, and what must be known first."""
    done = plural(len(result.repeats), "repeat")
    cut = "" if result.complete else f" of {result.asked:,} (incomplete)"
    heading = title(result)
    between = "" if heading.endswith("?") else ","
    lines = [f"{heading}{between} {done}{cut}", *result.preset.warnings]
    return [_plain(line) for long in lines for line in textwrap.wrap(long, 90)]


# ---- Arms ---------------------------------------------------------------------------------------------------------


def arm_style(place: int) -> dict[str, Any]:
    """Return color, marker and line style of the arm with this number, the same in all figures."""
    return {
        "color": COLORS[place % len(COLORS)],
        "marker": MARKERS[place % len(MARKERS)],
        "ls": LINES[place % len(LINES)],
    }


def _points(result: ExperimentResult, arm: str) -> dict[str, Any]:
    """Return the style of an arm's points."""
    return arm_style(list(result.arms).index(arm)) | {"ls": "none"}


def _name(result: ExperimentResult, arm: str) -> str:
    """Return an arm's label in short lines."""
    lines = textwrap.wrap(result.label(arm), NAME_WIDTH, max_lines=NAME_LINES, placeholder=" ...")
    # Matplotlib does not show labels that begin with an underscore.
    shown = "\n".join(lines) or " "
    return _plain(f" {shown}" if shown.startswith("_") else shown)


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for a formula, and can draw: names of files need not be Unicode."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def _rows(axes: Axes, result: ExperimentResult, values: dict[str, Any]) -> None:
    """Give each arm a row, the first on top, with its name on the left; say so where no value is defined."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yticks(range(len(values)), [_name(result, arm) for arm in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for place, row in enumerate(values.values()):
        if not np.isfinite(row).any():
            middle = axes.get_yaxis_transform()
            axes.text(0.5, place, "undefined", transform=middle, ha="center", color=GRAY)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(axis="x", useOffset=False)


def _first(result: ExperimentResult, contrasts: Sequence[Contrast]) -> str:
    """Return the name of the arm that the others are compared with, in one short line."""
    label = textwrap.shorten(result.label(contrasts[0].first), NAME_WIDTH, placeholder=" ...")
    return _plain(label)


# ---- Learning curves ----------------------------------------------------------------------------------------------


def draw_curve(axes: Axes, result: ExperimentResult, name: str) -> None:
    """Draw ``loss``, ``test_loss`` or ``test_score`` of the arms that have curves: means, and few arms' deviations."""
    published = result.preset.published.loss if result.preset.published and name == "loss" else {}
    curved = {key: arm for key, arm in result.arms.items() if arm.has_curves}
    bands = len(result.repeats) > 1 and len(curved) <= MOST_BANDS
    for key, arm in curved.items():
        style, label = arm_style(list(result.arms).index(key)), _name(result, key)
        x, (means, stds) = arm.iterations, map(np.array, arm.curve(name))
        every = math.ceil(len(x) / MOST_MARKERS)
        axes.plot(x, means, label=label, lw=1.8, ms=4.5, markevery=every, **style)
        if bands:
            band: dict[str, Any] = {"color": style["color"], "alpha": 0.18, "lw": 0}
            axes.fill_between(x, means - stds, means + stds, **band)
        if key in published:
            hollow = style | {"mfc": "white", "ls": "none", "ms": 6.5, "mew": 1.3}
            axes.plot(*published[key], label=f"{label}, published", **hollow)
    score = "R2" if result.task == "regression" else "accuracy"
    label = {"loss": "training loss", "test_loss": "test loss"}.get(name, f"test {score}")
    axes.set(xlabel="iteration", ylabel=label, xlim=(0, None))
    axes.ticklabel_format(axis="y", useOffset=False)
    if name != "test_score":
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), None)
    explained = [_patch("1 SD between repeats")] if bands else []
    handles = [*axes.get_legend_handles_labels()[0], *explained]
    _finish(axes, f"{label[0].upper()}{label[1:]}, mean over repeats", handles)


# ---- Scores and differences ---------------------------------------------------------------------------------------


def draw_scores(axes: Axes, result: ExperimentResult) -> None:
    """Draw the scores of every repeat, a row for each arm, with mean and standard deviation above them.

    Few repeats are points, which lines connect from arm to arm; of many, each arm has a histogram.
    """
    arms, repeats = list(result.arms), len(result.repeats)
    scores = np.array([result.arms[arm].score for arm in arms])
    handles: list[Artist] = []
    if repeats > MOST_LINES:
        _histograms(axes, result, dict(zip(arms, scores, strict=True)))
    else:
        # Many lines drawn over each other must not turn into a black surface.
        fade = float(np.clip(8 / repeats, 0.06, 0.7))
        if 1 < len(arms) <= MOST_JOINED:
            lines = axes.plot(scores, range(len(arms)), color="0.55", lw=0.9, alpha=fade, zorder=1)
            lines[0].set_label("a line per repeat")
            handles.append(lines[0])
        for place, arm in enumerate(arms):
            style = _points(result, arm) | {"ms": 5, "alpha": max(fade, 0.3)}
            axes.plot(scores[place], [place] * repeats, zorder=2, **style)
    if repeats > 1:
        means = {name: (arm.mean_score, arm.std_score) for name, arm in result.arms.items()}
        handles.append(_centers(axes, result, means, -0.2, "mean ± SD"))
    if published := result.preset.published:
        theirs = {arm: published.score.get(arm, (math.nan, math.nan)) for arm in arms}
        label = f"mean ± SD of {published.source}"
        handles.append(_centers(axes, result, theirs, 0.2, label, mfc="white"))
    handles += _baseline(axes, result, scores)
    _rows(axes, result, dict(zip(arms, scores, strict=True)))
    axes.set_xlabel(f"{result.metric.label} ({_better(result)})")
    _finish(axes, f"Test {result.metric.label} of each repeat", handles, "x")


def _baseline(axes: Axes, result: ExperimentResult, scores: NDArray[np.float64]) -> list[Artist]:
    """Draw the baseline where it is near the scores; far away it would squeeze them, and is in the legend only."""
    value = mean(result.baseline.get(result.metric.name, []))
    finite = scores[np.isfinite(scores)]
    if not math.isfinite(value) or not finite.size:
        return []
    low, high = axes.get_xlim()
    if low - (high - low) < value < high + (high - low):
        return [_line_at(axes, value, f"baseline {number(value)}")]
    return [_mark(f"baseline {number(value)}, outside", marker="")]


def draw_differences(axes: Axes, result: ExperimentResult, contrasts: Sequence[Contrast]) -> None:
    """Draw each repeat's difference from the first arm, a row for each other arm, with mean and interval above."""
    first = result.arms[contrasts[0].first].score
    differences = {c.second: np.subtract(result.arms[c.second].score, first) for c in contrasts}
    if len(result.repeats) >= FEWEST_FOR_HISTOGRAM:
        _histograms(axes, result, differences)
    else:
        # Five heights only keep the points apart.
        heights = 0.07 * (np.arange(len(result.repeats)) % 5)
        for place, (arm, values) in enumerate(differences.items()):
            axes.plot(values, place + heights, alpha=0.5, **_points(result, arm) | {"ms": 5})
    estimates = {c.second: c.score for c in contrasts}
    handles = [_intervals(axes, result, estimates, -0.22, "mean")]
    handles.append(_line_at(axes, 0, "no difference"))
    if width := result.margin:
        handles.append(axes.axvspan(-width, width, color="0.85", zorder=0, label="margin"))
    _rows(axes, result, differences)
    first_name = _first(result, contrasts)
    axes.set_xlabel(f"{result.metric.label} minus that of {first_name} ({_better(result)})")
    _finish(axes, "Difference in each repeat", handles, "x")


def draw_spread(axes: Axes, result: ExperimentResult, contrasts: Sequence[Contrast]) -> None:
    """Draw the first arm's standard deviation over that of each other arm, with its interval, on a log axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    ratios = {c.second: c.spread for c in contrasts}
    handles = [_intervals(axes, result, ratios, 0.0, "ratio"), _line_at(axes, 1, "equal spread")]
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.45), max(high, 2.2))
    # Powers of ten alone are too few for ratios near 1.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    _rows(axes, result, {arm: ratio.estimate for arm, ratio in ratios.items()})
    axes.set_xlabel(
        f"SD of {_first(result, contrasts)} / SD of arm (less spread \N{RIGHTWARDS ARROW})"
    )
    _finish(axes, "Standard deviations between repeats", handles, "x")


def _intervals(
    axes: Axes, result: ExperimentResult, values: dict[str, Evidence], offset: float, noun: str
) -> Artist:
    """Draw estimates with their intervals, where there are enough repeats; return the legend's entry."""
    shown = len(result.repeats) >= FEWEST_FOR_INTERVALS and any(e.interval for e in values.values())
    sides = {
        arm: np.abs(np.subtract((shown and e.interval) or math.nan, e.estimate)) * np.ones(2)
        for arm, e in values.items()
    }
    centers = {arm: (e.estimate, sides[arm][:, None]) for arm, e in values.items()}
    label = f"{noun}, {100 * (1 - result.alpha):.4g} % interval" if shown else noun
    return _centers(axes, result, centers, offset, label, mec="white")


def _centers(
    axes: Axes,
    result: ExperimentResult,
    values: dict[str, tuple[float, Any]],
    offset: float,
    label: str,
    **style: Any,
) -> Artist:
    """Draw a point with its error (NaN: none) on each row, or near it; return the legend's entry."""
    for place, (arm, (center, error)) in enumerate(values.items()):
        if math.isfinite(center):
            large = {"ms": 6.5, "lw": 2, "capsize": 4, "zorder": 3}
            axes.errorbar(
                center, place + offset, xerr=error, **_points(result, arm) | large | style
            )
    return _mark(label, mfc=style.get("mfc", GRAY))


def _histograms(
    axes: Axes, result: ExperimentResult, values: dict[str, NDArray[np.float64]]
) -> None:
    """Draw a histogram of each arm's values on its row, upside down under the mean; bins and scale are the same."""
    finite = {arm: v[np.isfinite(v)] for arm, v in values.items()}
    together = np.concatenate(list(finite.values()))
    if not together.size:
        return
    # Accuracies are multiples of 1 / n_test: a bin must hold equally many of the values possible.
    step = 1 / result.data["test"] if result.metric.name == "accuracy" else 0.0
    bins = _bins(together, step)
    counts = {arm: np.histogram(v, bins)[0] for arm, v in finite.items()}
    scale = 0.55 / max(c.max() for c in counts.values())
    for place, (arm, count) in enumerate(counts.items()):
        color, there = _points(result, arm)["color"], count > 0  # empty bins have no outline
        heights, widths = -scale * count[there], np.diff(bins)[there]
        # A single repeat of a thousand is visible by its outline.
        style: dict[str, Any] = {"fc": (color, 0.45), "ec": color, "lw": 0.6, "align": "edge"}
        axes.bar(bins[:-1][there], heights, widths, bottom=place + 0.35, **style)


def _bins(points: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return edges of bins; where values are multiples of `step`, each bin holds equally many of them."""
    auto = np.histogram_bin_edges(points, "auto")
    if not step or len(auto) < 2:
        return auto
    width = step * max(1, round((auto[1] - auto[0]) / step))
    low, high = points.min() - step / 2, points.max() + step / 2
    return np.asarray(low + width * np.arange(math.ceil((high - low) / width - 1e-9) + 1))


# ---- Sweep --------------------------------------------------------------------------------------------------------


def draw_sweep(axes: Axes, result: ExperimentResult) -> None:
    """Draw mean score, with its interval, against the one numeric setting in which the arms differ."""
    swept = result.sweep()
    if swept is None:
        raise ValueError("result.sweep() is None; expected arms that differ in one numeric setting")
    key, arms = swept
    values = np.array(list(arms), np.float64)
    gaps = np.diff(values)
    # Values such as 0, 1e-4 and 1e-3 are on no common scale.
    even = gaps.max() > 20 * gaps.min()
    places = np.arange(len(values)) if even else values
    if even or len(values) <= 8:
        axes.set_xticks(places, [f"{value:g}" for value in values])
    scores = [result.arms[name].score for name in arms.values()]
    axes.plot(places, [mean(s) for s in scores], color="0.55", lw=1.2, zorder=1)
    drawn = False
    for place, name, score in zip(places, arms.values(), scores, strict=True):
        half = mean_interval(score, result.sampling) if len(score) >= FEWEST_FOR_INTERVALS else None
        drawn |= half is not None
        axes.errorbar(place, mean(score), half, ms=6.5, lw=1.6, capsize=4, **_points(result, name))
    axes.set(xlabel=_plain(key), ylabel=f"{result.metric.label} ({_better(result, vertical=True)})")
    axes.ticklabel_format(axis="y", useOffset=False)
    covers = " over seeds" if result.sampling.ratio is None else ""
    handles = [_mark(f"mean, 95 % interval{covers}" if drawn else "mean")]
    _finish(axes, f"Mean test {result.metric.label} by {_plain(key)}", handles)


# ---- Details ------------------------------------------------------------------------------------------------------


def _better(result: ExperimentResult, *, vertical: bool = False) -> str:
    """Return the direction in which scores are better."""
    up = result.metric.greater_is_better
    if vertical:
        return f"{'higher' if up else 'lower'} is better"
    return "better \N{RIGHTWARDS ARROW}" if up else "\N{LEFTWARDS ARROW} better"


def _mark(label: str, **style: Any) -> Artist:
    """Return a gray legend entry."""
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {"color": GRAY, "marker": "o", "ls": "none", "ms": 6.5}
    return Line2D([], [], label=_plain(textwrap.fill(label, LEGEND_WIDTH)), **plain | style)


def _patch(label: str) -> Artist:
    from matplotlib.patches import Patch

    return Patch(color=GRAY, alpha=0.3, lw=0, label=label)


def _line_at(axes: Axes, value: float, label: str) -> Artist:
    line: Artist = axes.axvline(value, color=GRAY, lw=1.2, ls="--", label=label, zorder=1)
    return line


def _finish(
    axes: Axes, heading: str, handles: Sequence[Artist], grid: Literal["x", "y"] = "y"
) -> None:
    """Add the title, a legend below the axes, where it covers nothing, and a grid."""
    axes.set_title(heading, fontsize=11)
    size = 9.0
    below = 32 / size  # points: the height of tick labels and the axis' label
    place: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0),
        "borderaxespad": below,
    }
    axes.legend(handles=handles, frameon=False, fontsize=size, ncols=2, **place)
    tidy(axes, grid)


def tidy(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Leave only the lines that carry information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", lw=0.8)
    axes.set_axisbelow(True)


# ---- Loss of an estimator -----------------------------------------------------------------------------------------


class LossCurveDisplay:
    """Loss over the epochs of a fit.

    Parameters
    ----------
    loss : sequence of float
        Training loss of each epoch.
    validation_loss : sequence of float, optional
        Loss of the validation rows after each epoch; epochs where it is NaN are left out.
    name : str, optional
        Title of the picture.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Set by `plot`.
    lines_ : list of matplotlib.lines.Line2D
        Training, then validation if there is one.

    See Also
    --------
    LossCurveDisplay.from_estimator : Create a display and draw it.
    """

    def __init__(
        self,
        loss: Sequence[float],
        validation_loss: Sequence[float] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self.loss = loss
        self.validation_loss = validation_loss
        self.name = name

    def __repr__(self) -> str:
        """Return its name and the number of epochs, which may be many."""
        name = "" if self.name is None else f" {self.name!r}"
        return f"<LossCurveDisplay{name}: {len(self.loss)} epochs>"

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> LossCurveDisplay:
        """Draw the loss curves of a fitted estimator.

        Parameters
        ----------
        estimator : DropoutMLPClassifier or DropoutMLPRegressor
            Or any object with `loss_curve_`, and optionally `validation_loss_curve_`.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new pyplot figure.

        Returns
        -------
        LossCurveDisplay
            Drawn, but not shown.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `loss_curve_`, for example because it is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from cdrop import DropoutMLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> net = DropoutMLPClassifier(early_stopping=True, tol=0.01, random_state=0).fit(X, y)
        >>> display = LossCurveDisplay.from_estimator(net)  # doctest: +SKIP
        >>> display.ax_.figure.savefig("loss.png")  # doctest: +SKIP
        """
        loss = getattr(estimator, "loss_curve_", None)
        if loss is None:
            raise TypeError(
                f"estimator is {estimator!r}; expected a fitted estimator with loss_curve_"
            )
        validation = getattr(estimator, "validation_loss_curve_", None)
        return cls(loss, validation, name=type(estimator).__name__).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> LossCurveDisplay:
        """Draw the curves; parameters, result and errors are those of `from_estimator`."""
        _check_matplotlib()
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(layout="constrained")
        curves = {"training": self.loss}
        if self.validation_loss is not None:
            curves["validation"] = self.validation_loss
        self.ax_: Axes = ax
        self.lines_: list[Any] = []
        for place, (label, losses) in enumerate(curves.items()):
            epochs = np.flatnonzero(np.isfinite(losses)) + 1
            style = arm_style(place) | {"lw": 2, "label": label}
            if len(epochs) != 1:  # a line needs two points
                style["marker"] = None
            self.lines_ += ax.plot(epochs, np.asarray(losses)[epochs - 1], **style)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.name is not None:
            ax.set_title(self.name, fontsize=11)
        ax.legend(frameon=False)
        tidy(ax)
        return self
