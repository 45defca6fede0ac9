"""Pictures of results. Needs matplotlib: ``pip install 'cdrop[plot]'``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop.experiments import article
from cdrop.experiments.compare import ARMS
from cdrop.experiments.statistics import half_width, mean, standard_deviation

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from cdrop.experiments.compare import ComparisonResult
    from cdrop.experiments.paired import Arm

__all__ = [
    "LossCurveDisplay",
    "check_format",
    "draw_accuracy",
    "draw_curve",
    "draw_differences",
    "draw_sweep",
    "plot_comparison",
    "tidy",
]

# Blue and vermilion of Okabe and Ito's palette: apart for every kind of colour vision, and in grey.
COLOURS = {"without": "#0072B2", "with": "#D55E00"}
MARKERS = {"without": "o", "with": "s"}
LABELS = {"without": "without dropout", "with": "with dropout"}
GREY = "0.35"
CURVES = {
    "test_score": ("Test accuracy, mean over repeats", "test accuracy"),
    "test_loss": ("Test loss, mean over repeats", "test loss"),
    "loss": ("Training loss, mean over repeats", "training loss with its L2 term"),
}
MOST_MARKERS = 20  # on a curve
# Repeats: the intervals of two are 18 standard deviations wide, beside which nothing else is seen; a histogram of a few
# says less than they do themselves; hundreds of pairs are a black surface.
FEWEST_FOR_INTERVALS, FEWEST_FOR_HISTOGRAM, MOST_PAIRS = 3, 30, 200


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the picture format that the name of a file asks for.

    Parameters
    ----------
    path : path
        Name of the picture to be written.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If matplotlib writes no such format.
    """
    from pathlib import Path

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    suffix = Path(path).suffix.lower().lstrip(".")
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if suffix not in known:
        raise ValueError(f"expected a name that ends in one of {', '.join(known)}")
    return suffix


def plot_comparison(
    result: ComparisonResult,
    file: str | os.PathLike[str] | BinaryIO | None = None,
    *,
    format: str | None = None,
) -> tuple[Figure, tuple[Axes, Axes]]:
    """Draw loss curves and test accuracies of both arms.

    Parameters
    ----------
    result : ComparisonResult
        At least one finished repeat.
    file : path or binary stream, optional
        Where to save the picture; it is not saved by default.
    format : str, optional
        Such as "png"; by default the ending of `file` decides.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Never shown, and unknown to pyplot.
    axes : tuple of matplotlib.axes.Axes
        Loss on the left; accuracy on the right.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If no repeat was finished.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if result.repeats == 0:
        raise ValueError("no repeat was finished, so there is nothing to draw")
    figure = Figure(figsize=(10.5, 4.6), layout=ConstrainedLayoutEngine(wspace=0.06))
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_curve(loss, result, "loss")
    draw_accuracy(accuracy, result)
    figure.suptitle(_title(result), fontsize=12)
    if file is not None:
        figure.savefig(file, dpi=150, format=format)
    return figure, (loss, accuracy)


class LossCurveDisplay:
    """Loss over the epochs of a training.

    Parameters
    ----------
    loss : sequence of float
        Training loss of each epoch.
    validation_loss : sequence of float, optional
        Loss of the validation rows after each; epochs where it is NaN are left out.
    name : str, optional
        Title of the picture.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Once it is drawn.
    lines_ : list of matplotlib.lines.Line2D
        Training, then validation if there is one.

    See Also
    --------
    LossCurveDisplay.from_estimator : Make and draw one.
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

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> LossCurveDisplay:
        """Draw the loss curves of a fitted estimator.

        Parameters
        ----------
        estimator : DropoutMLPClassifier or DropoutMLPRegressor
            Or anything that has `loss_curve_`, and perhaps `validation_loss_curve_`.
        ax : matplotlib.axes.Axes, optional
            Where to draw; in a new figure of pyplot by default.

        Returns
        -------
        LossCurveDisplay
            Drawn, but not shown.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `loss_curve_`, perhaps because it is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from cdrop import DropoutMLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> net = DropoutMLPClassifier(early_stopping=True, random_state=0).fit(X, y)
        >>> display = LossCurveDisplay.from_estimator(net)  # doctest: +SKIP
        >>> display.ax_.figure.savefig("loss.png")  # doctest: +SKIP
        """
        loss = getattr(estimator, "loss_curve_", None)
        if loss is None:
            raise TypeError(f"estimator is {estimator!r}; expected one that is fitted by epochs")
        validation = getattr(estimator, "validation_loss_curve_", None)
        return cls(loss, validation, name=type(estimator).__name__).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> LossCurveDisplay:
        """Draw the curves; parameters, result and errors are those of `from_estimator`."""
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(layout="constrained")
        curves = {"training": ("without", self.loss)}
        if self.validation_loss is not None:
            curves["validation"] = ("with", self.validation_loss)
        self.ax_, self.lines_ = ax, []
        for label, (style, losses) in curves.items():
            self.lines_ += self._draw(ax, label, style, np.asarray(losses))
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.name is not None:
            ax.set_title(self.name, fontsize=11)
        ax.legend(frameon=False)
        tidy(ax)
        return self

    @staticmethod
    def _draw(ax: Axes, label: str, style: str, losses: NDArray[Any]) -> list[Line2D]:
        epochs = np.arange(1, len(losses) + 1)
        there = np.isfinite(losses)
        return ax.plot(
            epochs[there],
            losses[there],
            label=label,
            color=COLOURS[style],
            lw=2,
            ls="-" if label == "training" else "--",
            marker=MARKERS[style] if there.sum() == 1 else None,  # a line needs two points
        )


def _title(result: ComparisonResult) -> str:
    """Return the line above both panels: data and number of repeats."""
    repeats = f"{result.repeats:,} repeat" + ("s" if result.repeats != 1 else "")
    cut = "" if result.complete else f" of {result.settings.repeats:,} (incomplete)"
    return f"{result.data['name']}, {repeats}{cut} per arm"


def draw_curve(axes: Axes, result: ComparisonResult, name: str) -> None:
    """Draw both arms' learning curves: means, a band of one standard deviation, bars for the means' 95 % intervals.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    result : ComparisonResult
        At least one finished repeat.
    name : {"test_score", "test_loss", "loss"}
        Of the training loss the article's points are drawn too, where they compare.
    """
    iterations = result.settings.printed_iterations
    every = math.ceil(len(iterations) / MOST_MARKERS)
    for arm in ARMS:
        style: dict[str, Any] = {"color": COLOURS[arm], "marker": MARKERS[arm]}
        means, stds = map(np.array, result.arms[arm].curve(name))
        axes.plot(iterations, means, label=LABELS[arm], lw=2, ms=4.5, markevery=every, **style)
        if result.repeats > 1:
            axes.fill_between(
                iterations, means - stds, means + stds, color=COLOURS[arm], alpha=0.18, lw=0
            )
        if (halves := _half_widths(stds, result.repeats)) is not None:
            where = slice(None, None, every)
            bars: dict[str, Any] = {"fmt": "none", "ecolor": COLOURS[arm], "capsize": 3, "lw": 1.2}
            axes.errorbar(iterations[where], means[where], halves[where], **bars)
        if name == "loss" and result.beside_article:
            style |= {"mfc": "white", "ls": "none", "ms": 6.5, "mew": 1.3}
            axes.plot(
                article.ITERATIONS, article.RESULTS[arm].loss, label="the article's run", **style
            )
    title, label = CURVES[name]
    axes.set(xlabel="iteration", ylabel=label, xlim=(0, iterations[-1] * 1.03))
    axes.set_title(title, fontsize=11)
    if name == "test_score":
        axes.ticklabel_format(axis="y", useOffset=False)
    else:
        axes.set_ylim(0, None)
    _explain_curves(axes, result, name)
    tidy(axes)


def draw_differences(axes: Axes, result: ComparisonResult) -> None:
    """Draw the repeats' differences of test accuracy, with their mean and its 95 % interval above.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    result : ComparisonResult
        At least one finished repeat; below `FEWEST_FOR_HISTOGRAM` each is a point, from there on they are a histogram.
    """
    without, dropped = (np.array(result.arms[arm].score) for arm in ARMS)
    points = 100 * (dropped - without)
    points = points[np.isfinite(points)]
    if len(points) < FEWEST_FOR_HISTOGRAM:
        # Rows only keep the points apart; every other axis of the picture is free.
        rows = np.arange(len(points)) % 5
        axes.plot(points, rows, ls="none", marker="o", ms=6, color=GREY, alpha=0.6)
        axes.set(ylim=(-1, 7), yticks=[])
        axes.spines["left"].set_visible(False)
    else:
        axes.hist(points, bins=_bins(points, 100 / result.data["test"]), color=GREY, alpha=0.5)
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the mean
        axes.set_ylabel("repeats")
    half = half_width(standard_deviation(points), len(points))
    axes.errorbar(
        mean(points),
        0.9,
        xerr=half,
        transform=axes.get_xaxis_transform(),
        fmt="D",
        color=COLOURS["with"],
        ms=7,
        lw=2,
        capsize=5,
        label="mean" if half is None else "mean, 95 % interval",
    )
    axes.axvline(0, color=GREY, lw=1.2, ls="--", label="no difference", zorder=1)
    axes.set_xlabel("with minus without dropout, percentage points")
    axes.set_title("Difference of test accuracy in each repeat", fontsize=11)
    _legend(axes, axes.get_legend_handles_labels()[0])
    tidy(axes)


def draw_sweep(axes: Axes, result: ComparisonResult) -> None:
    """Draw mean test accuracy, with its 95 % interval, against the probability of dropping.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    result : ComparisonResult
        At least one finished repeat.
    """
    arms = result.sweep()
    means = [arm.mean_score for arm in arms.values()]
    halves = _half_widths([arm.std_score for arm in arms.values()], result.repeats)
    axes.errorbar(
        list(arms), means, halves, fmt="s-", color=COLOURS["with"], ms=5.5, lw=2, capsize=4
    )
    bars = "" if halves is None else ", bars: its 95 % interval"
    axes.set(xlabel="probability of dropping a hidden unit", ylabel="test accuracy")
    axes.set_title(f"Mean test accuracy{bars}", fontsize=11)
    axes.ticklabel_format(axis="y", useOffset=False)
    tidy(axes)


def _half_widths(deviations: Iterable[float], repeats: int) -> list[float] | None:
    """Return half of each mean's 95 % interval; None where there is none to be drawn: few repeats, or no SciPy."""
    if repeats < FEWEST_FOR_INTERVALS:
        return None
    halves = [half_width(deviation, repeats) for deviation in deviations]
    there = [half for half in halves if half is not None]
    return there if len(there) == len(halves) else None


def _bins(points: NDArray[np.float64], step: float) -> list[float]:
    """Return edges of bins that each hold equally many of the values possible, which are multiples of `step`."""
    auto = np.histogram_bin_edges(points, "auto")
    width = step * max(1, round((auto[1] - auto[0]) / step))
    low, high = points.min() - step / 2, points.max() + step / 2
    number = math.ceil((high - low) / width - 1e-9)
    return [float(low + width * edge) for edge in range(number + 1)]


def _explain_curves(axes: Axes, result: ComparisonResult, name: str) -> None:
    """Add a legend for the lines and, in neutral grey, for band, bars and where dropout overtakes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles, _ = axes.get_legend_handles_labels()
    if result.repeats > 1:
        handles.append(Patch(color=GREY, alpha=0.3, lw=0, label="1 std between repeats"))
    if _half_widths([1.0], result.repeats) is not None:
        bar: dict[str, Any] = {"color": GREY, "marker": "|", "ms": 9, "mew": 1.2, "ls": "none"}
        handles.append(Line2D([], [], label="95 % interval of the mean", **bar))
    if name == "test_score":
        iteration = result.overtakes()
        if iteration is None:
            handles.append(Line2D([], [], ls="none", label="dropout does not overtake"))
        else:
            label = f"dropout ahead from {iteration:,} on"
            handles.append(
                axes.axvline(iteration, color=GREY, lw=1.2, ls="--", zorder=1, label=label)
            )
    _legend(axes, handles)


def _legend(axes: Axes, handles: Sequence[Artist]) -> None:
    """Add a legend below the axes, where it covers nothing."""
    size = 9.0
    axes.legend(
        handles=handles,
        frameon=False,
        fontsize=size,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=32 / size,  # points: the height of tick labels and the axis' label
    )


def draw_accuracy(axes: Axes, result: ComparisonResult) -> None:
    """Draw each repeat as a pair of points with a line, and each arm's mean and spread beside.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    result : ComparisonResult
        At least one finished repeat; above `MOST_PAIRS` each arm has a histogram instead of points and lines.
    """
    if result.repeats > MOST_PAIRS:
        shown = "distribution"
        _draw_histograms(axes, result)
    else:
        shown = "a line per repeat"
        _draw_pairs(axes, result)
    for place, arm in enumerate(ARMS):
        _draw_mean(axes, place, arm, result.arms[arm])
        if result.beside_article:
            theirs = article.RESULTS[arm]
            axes.errorbar(
                1.36 if place else -0.36,
                theirs.mean_accuracy,
                theirs.std_accuracy,
                fmt=MARKERS[arm],
                color=COLOURS[arm],
                mfc="white",
                capsize=4,
            )
    axes.set_xticks([0, 1], [LABELS[arm] for arm in ARMS])
    axes.set(xlim=(-0.6, 1.6), ylabel="test accuracy")
    axes.set_title(f"Test accuracy ({shown}, mean ± std)", fontsize=11)
    axes.ticklabel_format(axis="y", useOffset=False)
    if result.beside_article:
        _explain_markers(axes)
    tidy(axes)


def _draw_pairs(axes: Axes, result: ComparisonResult) -> None:
    """Draw each repeat's two accuracies, a column for each arm, with a line between."""
    pairs = np.array([result.arms[arm].score for arm in ARMS])
    # Many lines drawn over each other must not turn into a black surface.
    fade = float(np.clip(8 / result.repeats, 0.06, 0.7))
    axes.plot([0, 1], pairs, color="0.55", lw=0.9, alpha=fade, zorder=1)
    for place, arm in enumerate(ARMS):
        style: dict[str, Any] = {"color": COLOURS[arm], "marker": MARKERS[arm], "ls": "none"}
        axes.plot(
            [place] * result.repeats, pairs[place], ms=5, alpha=max(fade, 0.25), zorder=2, **style
        )


def _draw_histograms(axes: Axes, result: ComparisonResult) -> None:
    """Draw a histogram of each arm's accuracies, which grows from its column inwards; bins and scale are the same."""
    accuracies = np.array([result.arms[arm].score for arm in ARMS])
    bins = _bins(accuracies.ravel(), 1 / result.data["test"])
    counts = np.array([np.histogram(values, bins)[0] for values in accuracies])
    lengths = 0.45 * counts / counts.max()
    for place, arm in enumerate(ARMS):
        there = counts[place] > 0
        axes.barh(
            np.array(bins[:-1])[there],
            (-lengths[place] if place else lengths[place])[there],
            np.diff(bins)[there],
            left=place,
            align="edge",
            fc=(COLOURS[arm], 0.45),
            ec=COLOURS[arm],
            lw=0.6,  # a single repeat of a thousand is seen
        )


def _draw_mean(axes: Axes, place: int, arm: str, values: Arm) -> None:
    """Draw one arm's mean and standard deviation, outside of its column."""
    if len(values.score) > 1:
        axes.errorbar(
            place + (0.18 if place else -0.18),
            values.mean_score,
            values.std_score,
            color=COLOURS[arm],
            marker=MARKERS[arm],
            ms=7,
            lw=2,
            capsize=5,
            zorder=3,
        )


def _explain_markers(axes: Axes) -> None:
    """Add a legend, in neutral grey, for filled and open markers."""
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": GREY, "marker": "o", "ls": "none", "ms": 7}
    handles = [
        Line2D([], [], label="mean ± std here", **grey),
        Line2D([], [], label="mean ± std in the article", mfc="white", **grey),
    ]
    _legend(axes, handles)


def tidy(axes: Axes) -> None:
    """Leave only the lines that carry information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
