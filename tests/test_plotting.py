"""Pictures of the comparison."""

import io
import sys

import numpy as np
import pytest
from comparisons import FakeTrainer, fake_result, small_dataset

from cdrop.experiments import Settings, article, compare

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.collections import PolyCollection  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from cdrop.plotting import LossCurveDisplay, check_format, plot_comparison  # noqa: E402


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_curves_are_the_mean_losses():
    result = fake_result()
    _, (loss, _) = plot_comparison(result)
    drawn = lines_of(loss)
    for arm in ("without", "with"):
        curve = drawn[f"{arm} dropout"]
        assert list(curve.get_xdata()) == list(range(100, 1001, 100))
        assert list(curve.get_ydata()) == result.arms[arm].curve("loss")[0]
    assert len([c for c in loss.collections if isinstance(c, PolyCollection)]) == 2  # bands


def test_the_articles_points_are_drawn_only_beside_mnist():
    points = [
        line.get_ydata()
        for line in plot_comparison(fake_result())[1][0].get_lines()
        if line.get_label() == "the article's run"
    ]
    assert [tuple(p) for p in points] == [article.RESULTS[arm].loss for arm in ("without", "with")]
    for other in (fake_result(name="KMNIST"), fake_result(hidden=8)):
        assert "the article's run" not in lines_of(plot_comparison(other)[1][0])


def test_every_repeat_is_a_line_between_the_arms():
    result = fake_result(repeats=4, name="small")
    _, (_, accuracy) = plot_comparison(result)
    pairs = [tuple(line.get_ydata()) for line in accuracy.get_lines() if len(line.get_xdata()) == 2]
    expected = list(zip(*(result.arms[a].score for a in ("without", "with")), strict=True))
    assert pairs[:4] == expected


def test_hundreds_of_repeats_are_two_histograms():
    result = fake_result(repeats=201)
    _, (_, axes) = plot_comparison(result)
    assert not [line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
    found = []  # for each bar, its arm's repeats in it and its length, inwards
    for place, arm in enumerate(("without", "with")):
        scores = np.array(result.arms[arm].score)
        bars = [bar for bar in axes.patches if bar.get_xy()[0] == place]
        inside = [
            int(((scores > bar.get_y()) & (scores < bar.get_y() + bar.get_height())).sum())
            for bar in bars
        ]
        assert sum(inside) == 201
        found += zip(inside, [(-1) ** place * bar.get_width() for bar in bars], strict=True)
    counts, lengths = np.array(found).T
    np.testing.assert_allclose(lengths, 0.45 * counts / counts.max())


def test_axes_are_labelled_and_the_title_says_what():
    figure, axes = plot_comparison(fake_result(repeats=3, name="small"))
    assert figure.get_suptitle() == "small, 3 repeats per arm"
    for ax in axes:
        assert ax.get_ylabel()
        assert ax.get_title()
    assert axes[0].get_xlabel() == "iteration"


@pytest.mark.parametrize("settings", [{"repeats": 1}, {"repeats": 2, "iterations": 5}])
@pytest.mark.parametrize("format", ["png", "svg", "pdf"])
def test_small_results_are_drawn_in_every_format(settings, format):
    out = io.BytesIO()
    plot_comparison(fake_result(**settings), out, format=format)
    assert out.getvalue()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_incomplete_results_say_so():
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=4)
    result = compare(small_dataset(), Settings(repeats=5), network=trainer)
    assert "2 repeats of 5 (incomplete)" in plot_comparison(result)[0].get_suptitle()


def test_nothing_to_draw_is_an_error():
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=0)
    result = compare(small_dataset(), Settings(repeats=5), network=trainer)
    with pytest.raises(ValueError, match="no repeat was finished"):
        plot_comparison(result)


def test_pyplot_is_left_alone():
    plot_comparison(fake_result(repeats=2))
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_format_comes_from_the_name():
    assert check_format("a/b.PNG") == "png"
    for name in ("noending", "a.docx"):
        with pytest.raises(ValueError, match="png"):
            check_format(name)


# ---- Loss curves ---------------------------------------------------------------------------


class Fitted:
    """Has curves, as a fitted estimator has."""

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


def test_loss_curves_make_a_figure_and_do_not_show_it(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("shown"))
    with matplotlib.rc_context({"backend": "agg"}):
        display = LossCurveDisplay([0.5]).plot()
        assert display.ax_.figure.number in pyplot.get_fignums()
        pyplot.close(display.ax_.figure)
    assert len(display.lines_) == 1
    assert display.lines_[0].get_marker() == "o"  # one epoch makes no line


def test_what_has_no_loss_curve_is_told():
    with pytest.raises(TypeError, match="estimator"):
        LossCurveDisplay.from_estimator(object())
