"""Pictures of results. Needs matplotlib: ``pip install 'cdrop[plot]'``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop.experiments import article
from cdrop.experiments.compare import ARMS

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import BinaryIO

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from cdrop.experiments.compare import ComparisonResult
    from cdrop.experiments.paired import Arm

__all__ = ["LossCurveDisplay", "check_format", "plot_comparison", "tidy"]

# Blue and vermilion of Okabe and Ito's palette: apart for every kind of colour vision, and in grey.
COLOURS = {"without": "#0072B2", "with": "#D55E00"}
MARKERS = {"without": "o", "with": "s"}
LABELS = {"without": "without dropout", "with": "with dropout"}


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
    _draw_loss(loss, result)
    _draw_accuracy(accuracy, result)
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
    repeats = f"{result.repeats} repeat" + ("s" if result.repeats != 1 else "")
    cut = "" if result.complete else f" of {result.settings.repeats} (incomplete)"
    return f"{result.data['name']}, {repeats}{cut} per arm"


def _draw_loss(axes: Axes, result: ComparisonResult) -> None:
    """Draw each arm's mean loss, a band of one standard deviation, and the article's points."""
    iterations = result.settings.printed_iterations
    for arm in ARMS:
        style: dict[str, Any] = {"color": COLOURS[arm], "marker": MARKERS[arm]}
        mean, std = map(np.array, result.arms[arm].curve("loss"))
        axes.plot(iterations, mean, label=LABELS[arm], lw=2, ms=4.5, **style)
        if result.repeats > 1:
            axes.fill_between(
                iterations, mean - std, mean + std, color=COLOURS[arm], alpha=0.18, lw=0
            )
        if result.beside_article:
            style |= {"mfc": "white", "ls": "none", "ms": 6.5, "mew": 1.3}
            axes.plot(
                article.ITERATIONS, article.RESULTS[arm].loss, label="the article's run", **style
            )
    band = ", band: 1 std between repeats" if result.repeats > 1 else ""
    axes.set(xlabel="iteration", ylabel="training loss with its L2 term")
    axes.set(xlim=(0, iterations[-1] * 1.03), ylim=(0, None))
    axes.set_title(f"Training loss (mean{band})", fontsize=11)
    axes.legend(frameon=False, ncols=2 if result.beside_article else 1)
    tidy(axes)


def _draw_accuracy(axes: Axes, result: ComparisonResult) -> None:
    """Draw each repeat as a pair of points with a line, and each arm's mean and spread beside."""
    pairs = np.array([result.arms[arm].score for arm in ARMS])
    # Many lines drawn over each other must not turn into a black surface.
    fade = float(np.clip(8 / result.repeats, 0.06, 0.7))
    axes.plot([0, 1], pairs, color="0.55", lw=0.9, alpha=fade, zorder=1)
    for place, arm in enumerate(ARMS):
        _draw_arm(axes, place, arm, result.arms[arm], fade)
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
    axes.set_title("Test accuracy (a line per repeat, mean ± std)", fontsize=11)
    axes.ticklabel_format(axis="y", useOffset=False)
    if result.beside_article:
        _explain_markers(axes)
    tidy(axes)


def _draw_arm(axes: Axes, place: int, arm: str, values: Arm, fade: float) -> None:
    """Draw one arm's accuracies in their column, mean and standard deviation outside of it."""
    accuracy = values.score
    style: dict[str, Any] = {"color": COLOURS[arm], "marker": MARKERS[arm]}
    axes.plot(
        [place] * len(accuracy), accuracy, ls="none", ms=5, alpha=max(fade, 0.25), zorder=2, **style
    )
    if len(accuracy) > 1:
        axes.errorbar(
            place + (0.18 if place else -0.18),
            values.mean_score,
            values.std_score,
            ms=7,
            lw=2,
            capsize=5,
            zorder=3,
            **style,
        )


def _explain_markers(axes: Axes) -> None:
    """Add a legend, in neutral grey, for filled and open markers."""
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": "0.35", "marker": "o", "ls": "none", "ms": 7}
    handles = [
        Line2D([], [], label="mean ± std here", **grey),
        Line2D([], [], label="mean ± std in the article", mfc="white", **grey),
    ]
    axes.legend(handles=handles, frameon=False, loc="lower right")


def tidy(axes: Axes) -> None:
    """Leave only the lines that carry information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
