"""Figures of results: any number of arms, each by its name, color and marker."""

import io
import math
import sys

import numpy as np
import pytest
from made_results import made_result

from cdrop.experiments.results import Preset, Published

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from cdrop.plotting import (  # noqa: E402
    COLORS,
    LossCurveDisplay,
    arm_style,
    check_format,
    draw_curve,
    draw_differences,
    draw_scores,
    draw_spread,
    draw_sweep,
    plot_result,
)

NINE = [*(f"rate {rate}" for rate in range(8)), "a name that fills two lines"]
PUBLISHED = Published(
    "the paper",
    {"none": (0.91, 0.01), "dropout": (0.92, math.nan)},
    {"none": ((100, 200), (0.7, 0.6))},
)


def drawn(draw, *arguments):
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    draw(axes, *arguments)
    figure.draw_without_rendering()
    return axes


def words(artist):
    """All texts of a figure or axes, on one line."""
    texts = [text.get_text() for text in artist.findobj(Text)]
    return " | ".join(" ".join(text.split()) for text in texts if text)


def legend_of(axes):
    return " | ".join(" ".join(t.get_text().split()) for t in axes.get_legend().get_texts())


def intervals(axes):
    """Ends of the error bars, a row each."""
    found = []
    for container in axes.containers:
        if hasattr(container, "has_xerr"):
            axis = 1 if container.has_yerr else 0
            segments = (s for bars in container.lines[2] for s in bars.get_segments())
            found += [s[:, axis] for s in segments if len(s)]  # none for NaN
    return np.array(found)


# ---- Whole figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "panels"),
    [
        ({"arms": ("only",), "repeats": 1}, 3),
        ({"arms": ("none", "dropout")}, 4),
        (
            {
                "arms": ("none", "dropout", "forest"),
                "estimators": ("forest",),
                "metric": "log_loss",
            },
            5,
        ),
        ({"arms": NINE, "repeats": 300, "splits": False}, 5),
        ({"arms": ("a", "b"), "estimators": ("a", "b"), "repeats": 2, "metric": "rmse"}, 2),
        ({"arms": ("a", "b"), "scores": {"a": math.nan}}, 4),
        ({"arms": ("a", "b"), "repeats": 1000, "scores": {"a": 0.9, "b": 0.9}}, 4),
        ({"arms": ("_a", "$x^$")}, 4),
    ],
)
def test_every_arm_is_named_in_every_panel(arguments, panels):
    result = made_result(**arguments)
    figure = plot_result(result)
    figure.draw_without_rendering()
    assert len(figure.axes) == panels
    rows = [axes for axes in figure.axes if "repeat" in axes.get_title()]
    curves = [axes for axes in figure.axes if axes.get_xlabel() == "iteration"]
    for name, arm in result.arms.items():
        shown = name.replace("$", r"\$")
        assert all(shown in words(axes) for axes in rows if "of each" in axes.get_title())
        assert all((shown in words(axes)) == arm.has_curves for axes in curves)
    for name in list(result.arms)[1:]:
        assert all(
            name.replace("$", r"\$") in words(axes) for axes in rows if "each" in axes.get_title()
        )


def test_without_matplotlib_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (made_result(repeats=2).plot, LossCurveDisplay([1.0]).plot):
        with pytest.raises(
            ImportError, match=r"figures need matplotlib: pip install 'cdrop\[plot\]'"
        ):
            draw()


def test_a_question_as_title_keeps_its_mark():
    preset = Preset(title="Does dropout help on wine.csv?")
    figure = plot_result(made_result(repeats=3, preset=preset))
    assert figure.get_suptitle() == "Does dropout help on wine.csv? 3 repeats"


def test_axes_and_titles_say_what_is_drawn():
    preset = Preset(title="A title", warnings=("NOT MNIST: made up",))
    figure = plot_result(made_result(repeats=3, preset=preset, stopped="time limit", asked=10))
    assert (
        figure.get_suptitle()
        == "A title: wine.csv, 3 repeats of 10 (incomplete)\nNOT MNIST: made up"
    )
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_title()
    lower = plot_result(made_result(metric="log_loss", estimators=("none", "dropout")))
    assert [axes.get_xlabel() for axes in lower.axes] == [
        "log loss (\N{LEFTWARDS ARROW} better)",
        "log loss minus that of none (\N{LEFTWARDS ARROW} better)",
    ]


@pytest.mark.parametrize("format", ["png", "svg", "pdf"])
def test_figures_are_written_in_every_format(format):
    out = io.BytesIO()
    plot_result(made_result(repeats=2), out, format=format)
    assert out.getvalue()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_result_without_repeats_is_an_error():
    with pytest.raises(ValueError, match="result has 0 finished repeats; expected at least 1"):
        plot_result(made_result(repeats=0))


def test_pyplot_is_left_alone():
    plot_result(made_result(repeats=2))
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_an_arm_has_one_style_everywhere_and_84_differ():
    styles = [tuple(arm_style(i).values()) for i in range(84)]
    assert len(set(styles)) == 84
    result = made_result(("a", "b", "c"))
    contrasts = result.contrasts()
    for draw in (
        lambda axes: draw_curve(axes, result, "loss"),
        lambda axes: draw_scores(axes, result),
        lambda axes: draw_differences(axes, result, contrasts),
        lambda axes: draw_sweep(axes, result),
    ):
        lines = [x for x in drawn(draw).get_lines() if x.get_marker() not in ("None", "", "|", "_")]
        pairs = {(to_hex(x.get_color()).upper(), x.get_marker()) for x in lines}
        known = {(arm_style(i)["color"], arm_style(i)["marker"]) for i in range(3)}
        assert len(pairs & known) >= 2
        assert {pair for pair in pairs if pair[0] in COLORS} <= known


def test_long_names_are_cut_in_figures():
    name = "word " * 40
    result = made_result(("none", name))
    shown = words(drawn(draw_scores, result))
    assert "word ..." in shown
    assert max(part.count("word") for part in shown.split(" | ")) < 15
    assert "..." in legend_of(drawn(draw_curve, result, "loss"))


# ---- Learning curves -------------------------------------------------------------------------------


def test_curves_are_means_with_a_band_of_one_standard_deviation():
    result = made_result(repeats=6)
    axes = drawn(draw_curve, result, "loss")
    for line, arm in zip(axes.get_lines(), result.arms.values(), strict=True):
        assert list(line.get_ydata()) == arm.curve("loss")[0]
    means, stds = map(np.array, result.arms["none"].curve("loss"))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx((means + stds).max())
    assert "1 SD between repeats" in legend_of(axes)
    assert not drawn(
        draw_curve, made_result(NINE), "loss"
    ).collections  # they would hide each other
    assert not drawn(draw_curve, made_result(repeats=1), "loss").collections


def test_published_losses_are_points_of_the_training_loss_alone():
    result = made_result(preset=Preset(published=PUBLISHED))
    lines = {x.get_label(): x for x in drawn(draw_curve, result, "loss").get_lines()}
    assert list(lines["none, published"].get_ydata()) == [0.7, 0.6]
    assert "published" not in legend_of(drawn(draw_curve, result, "test_loss"))


# ---- Scores ----------------------------------------------------------------------------------------


def test_few_repeats_are_points_that_lines_connect():
    result = made_result(repeats=4)
    axes = drawn(draw_scores, result)
    joined = [tuple(x.get_xdata()) for x in axes.get_lines() if list(x.get_ydata()) == [0, 1]]
    assert joined == list(zip(*(arm.score for arm in result.arms.values()), strict=True))
    assert "a line per repeat" in legend_of(axes)
    assert "a line per repeat" not in legend_of(drawn(draw_scores, made_result(NINE)))
    ends = [
        [arm.mean_score - arm.std_score, arm.mean_score + arm.std_score]
        for arm in result.arms.values()
    ]
    np.testing.assert_allclose(intervals(axes), ends)


def test_many_repeats_are_a_histogram_for_each_arm():
    result = made_result(NINE, repeats=201)
    axes = drawn(draw_scores, result)
    assert len(axes.patches) > 20
    found = []
    for place, arm in enumerate(result.arms.values()):
        scores = np.array(arm.score)
        bars = [b for b in axes.patches if b.get_y() == pytest.approx(place + 0.35)]
        inside = [((scores > b.get_x()) & (scores < b.get_x() + b.get_width())).sum() for b in bars]
        assert sum(inside) == 201
        found += zip(inside, [-bar.get_height() for bar in bars], strict=True)
    counts, heights = np.array(found).T
    np.testing.assert_allclose(heights, 0.55 * counts / counts.max())


def test_bins_of_accuracies_hold_equally_many_values():
    rng = np.random.default_rng(1)
    scores = {
        "none": rng.integers(170, 199, 400) / 200,
        "dropout": rng.integers(170, 199, 400) / 200,
    }
    bars = drawn(draw_scores, made_result(repeats=400, scores=scores)).patches
    for bar in bars:
        assert 200 * bar.get_x() % 1 == pytest.approx(0.5)
        assert 200 * bar.get_width() == pytest.approx(round(200 * bar.get_width()))


def test_baseline_is_a_line_where_it_is_near():
    near = drawn(draw_scores, made_result(baseline=0.88))
    assert "baseline 0.8800" in legend_of(near)
    assert any(list(x.get_xdata()) == pytest.approx([0.88, 0.88]) for x in near.get_lines())
    far = drawn(draw_scores, made_result(baseline=0.1))
    assert "baseline 0.1000, outside" in legend_of(far)
    assert far.get_xlim()[0] > 0.8


def test_published_scores_are_hollow():
    result = made_result(preset=Preset(published=PUBLISHED))
    axes = drawn(draw_scores, result)
    hollow = [x for x in axes.get_lines() if x.get_markerfacecolor() == "white"]
    assert [x.get_xdata()[0] for x in hollow] == [0.91, 0.92]
    assert "of the paper" in legend_of(axes)


def test_undefined_scores_are_named_so():
    result = made_result(("a", "b"), scores={"a": math.nan})
    assert "undefined" in words(drawn(draw_scores, result))
    assert "undefined" in words(drawn(draw_differences, result, result.contrasts()))
    assert "undefined" not in words(drawn(draw_scores, made_result()))


# ---- Differences, spread, sweep --------------------------------------------------------------------


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("repeats", [8, 40])
def test_differences_have_the_contrasts_intervals(repeats, splits):
    result = made_result(("a", "b", "c"), repeats, splits=splits, alpha=0.01, margin=0.003)
    contrasts = result.contrasts()
    axes = drawn(draw_differences, result, contrasts)
    np.testing.assert_allclose(intervals(axes), [c.score.interval for c in contrasts])
    assert "mean, 99 % interval" in legend_of(axes)
    assert {"no difference", "margin"} <= set(legend_of(axes).split(" | "))
    b = np.subtract(result.arms["b"].score, result.arms["a"].score)
    if repeats == 8:
        np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), b)
    else:
        assert len(axes.patches) > 10


def test_two_repeats_have_no_interval():
    result = made_result(repeats=2)
    axes = drawn(draw_differences, result, result.contrasts())
    assert intervals(axes).size == 0
    assert legend_of(axes) == "mean | no difference"


def test_spread_is_the_ratio_with_its_interval():
    result = made_result(("a", "b", "c"), 12)
    contrasts = result.contrasts()
    axes = drawn(draw_spread, result, contrasts)
    np.testing.assert_allclose(intervals(axes), [c.spread.interval for c in contrasts])
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    ticks = [t for t in axes.get_xticks() if low < t < high]
    assert len(ticks) >= 2
    assert "SD of a / SD of arm" in axes.get_xlabel()


def test_sweep_shows_every_value():
    result = made_result(("a", "b", "c"), 6, splits=False)
    axes = drawn(draw_sweep, result)
    line = axes.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [0, 0.1, 0.2])
    assert list(line.get_ydata()) == [arm.mean_score for arm in result.arms.values()]
    assert "over seeds" in legend_of(axes)
    assert "over seeds" not in legend_of(drawn(draw_sweep, made_result(("a", "b", "c"), 6)))


def test_sweep_over_decades_is_spaced_evenly():
    values = {"a": 0.0, "b": 1e-4, "c": 1e-2}
    result = made_result(tuple(values), candidates={n: [{"l2": v}] for n, v in values.items()})
    axes = drawn(draw_sweep, result)
    assert list(axes.get_lines()[0].get_xdata()) == [0, 1, 2]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "0.0001", "0.01"]
    with pytest.raises(ValueError, match="expected arms that differ in one numeric setting"):
        draw_sweep(axes, made_result())


# ---- Formats ---------------------------------------------------------------------------------------


def test_format_comes_from_the_name():
    assert check_format("a/b.PNG") == "png"
    for name in ("no-suffix", "a.docx"):
        with pytest.raises(ValueError, match=r"suffix is '(docx)?'; expected one of .*png"):
            check_format(name)


# ---- Loss curves ---------------------------------------------------------------------------


class Fitted:
    """Has curves, like a fitted estimator."""

    loss_curve_ = (0.9, 0.5, 0.4)
    validation_loss_curve_ = (0.95, float("nan"), 0.6)


def test_loss_curves_are_drawn_on_the_axes_given():
    ax = Figure().subplots()
    display = LossCurveDisplay.from_estimator(Fitted(), ax=ax)
    assert display.ax_ is ax
    training, validation = display.lines_
    assert list(training.get_xdata()) == [1, 2, 3]
    assert list(training.get_ydata()) == [0.9, 0.5, 0.4]
    assert list(validation.get_xdata()) == [1, 3]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training", "validation"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("epoch", "loss", "Fitted")


def test_loss_curves_make_a_figure_without_showing_it(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("shown"))
    with matplotlib.rc_context({"backend": "agg"}):
        display = LossCurveDisplay([0.5]).plot()
        assert display.ax_.figure.number in pyplot.get_fignums()
        pyplot.close(display.ax_.figure)
    assert len(display.lines_) == 1
    assert display.lines_[0].get_marker() == "o"  # one epoch makes no line


def test_estimator_without_loss_curve_is_an_error():
    with pytest.raises(TypeError, match="estimator"):
        LossCurveDisplay.from_estimator(object())
