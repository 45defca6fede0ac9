"""Pictures of the results, in the style of the comparison's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import Result
from cdrop.plotting import tidy

__all__ = ["draw"]

# Okabe and Ito's palette, as in cdrop.plotting: cdrop stands out, its peers stay the same everywhere.
COLORS = {"cdrop": "#D55E00", "PyTorch": "#0072B2", "JAX": "#009E73", "NumPy": "#777777"}


def draw(results: Sequence[Result], about: dict[str, Any], directory: Path) -> Iterator[Path]:
    """Save a picture of each group that was run and has one."""
    for group, (name, picture) in PICTURES.items():
        chosen = [r for r in results if r.group == group]
        if not chosen:
            continue
        figure = _figure()
        picture(figure, chosen)
        figure.supxlabel(
            f"{about['cpu']}, {about['threads']} threads, {about['simd']}; {about['data']}; medians",
            fontsize=8,
            color="0.4",
        )
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=150)
        yield path


def _figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _lines(axes: Any, x: Sequence[float], y: dict[str, list[float]]) -> None:
    """Draw a line for each contestant, its name at the right end: above it where the next line is close below."""
    for who, values in y.items():
        crowded = any(0.75 < v[-1] / values[-1] < 1 for v in y.values())
        style = {"lw": 2.6, "zorder": 3} if who == "cdrop" else {"lw": 1.8}
        axes.plot(x, values, color=COLORS[who], marker="o", ms=4.5, **style)
        axes.annotate(
            who, (x[-1], values[-1]), (8, 3 if crowded else 0), textcoords="offset points",
            va="bottom" if crowded else "center",
            color=COLORS[who], weight="bold" if who == "cdrop" else "normal",
        )  # fmt: skip
    tidy(axes)


def _keep(figure: Any, results: Sequence[Result]) -> None:
    axes = figure.subplots()
    x = [float(r.name) for r in results]
    y = {who: [r.median(who) * 1e3 for r in results] for who in results[0].seconds}
    _lines(axes, x, y)
    axes.set(xlim=(0.05, 1.12), ylim=(0, None), xticks=x)
    axes.set(xlabel="keep probability (1: no dropout)", ylabel="milliseconds per training step")
    axes.set_title("A training step: 784-256-256-10, batch 256, RMSprop", fontsize=11)


def _products(figure: Any, results: Sequence[Result]) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    for axes, size in zip(panels, (256, 1024), strict=True):
        start, end = f"forward {size}^3, density ", ", 1 thread"
        chosen = [r for r in results if r.name.startswith(start) and r.name.endswith(end)]
        if not chosen:
            continue
        x = [float(r.name[len(start) : -len(end)]) for r in chosen]
        y = {who: [2e-9 * size**3 / r.median(who) for r in chosen] for who in chosen[0].seconds}
        _lines(axes, x, y)
        axes.set(
            xlabel="share of live entries on the left",
            xlim=(0, 1.3),
            xticks=(0, 0.25, 0.5, 0.75, 1),
        )
        axes.set_title(f"{size} x {size} x {size}, one thread", fontsize=11)
    panels[0].set(ylabel="GF/s of a dense product of that size", ylim=(0, None))


def _shape(figure: Any, results: Sequence[Result]) -> None:
    for axes, what in zip(figure.subplots(1, 2), ("width", "batch"), strict=True):
        chosen = [r for r in results if r.name.startswith(what)]
        x = [float(r.name.split()[1]) for r in chosen]
        y = {who: [r.median(who) * 1e3 for r in chosen] for who in chosen[0].seconds}
        axes.set(xscale="log", yscale="log")
        _lines(axes, x, y)
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.minorticks_off()
        axes.set(xlabel=what, ylabel="milliseconds per training step", xlim=(x[0] / 1.3, x[-1] * 4))


PICTURES: dict[str, tuple[str, Callable[[Any, Sequence[Result]], None]]] = {
    "keep": ("step-time", _keep),
    "products": ("products", _products),
    "shape": ("shape", _shape),
}
