"""The report of a comparison: the page of HTML, its pictures, and what text and page both say."""

import io
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from comparisons import FakeTrainer, fake_result, small_dataset

from cdrop import report
from cdrop.experiments import Settings, article, compare

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from matplotlib.figure import Figure  # noqa: E402

from cdrop.html_report import Picture, write_report  # noqa: E402
from cdrop.plotting import draw_curve, draw_differences, draw_sweep  # noqa: E402

SWEEP = (0.1, 0.25, 0.5, 0.75)
VOID = {"meta"}


class Page(HTMLParser):
    """Text and tags of a page, and whether every tag is closed where it should be."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(result, **options):
    out = io.BytesIO()
    write_report(result, out, **options)
    return out.getvalue().decode()


def rising(seed, dropout):
    """Accuracies whose best rate is a quarter."""
    return 0.95 + 0.01 * dropout - 0.02 * dropout**2 + 1e-4 * (seed * int(1 + 16 * dropout) % 7)


def swept(repeats=4, name="MNIST", **settings):
    return fake_result(repeats, name, trainer=FakeTrainer(rising), sweep=SWEEP, **settings)


def curved(without, dropped, repeats=3):
    """A result whose test accuracies follow two curves, by hundreds of iterations."""
    result = fake_result(repeats, iterations=100 * len(without))
    for arm, curve in (("without", without), ("with", dropped)):
        result.arms[arm].test_score[:] = [list(curve) for _ in range(repeats)]
    return result


@pytest.fixture(scope="module")
def page():
    """A page of all that there may be."""
    return page_of(swept())


@pytest.fixture
def undrawn(monkeypatch):
    """Let pages be made without their pictures, which take most of the time."""
    monkeypatch.setattr(
        "cdrop.html_report._picture", lambda *told: Picture("", "", *reversed(told[2:]))
    )


def cut_off(repeats=5, at=4):
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=at)
    return compare(small_dataset(), Settings(repeats=repeats), network=trainer)


# ---- The page ----------------------------------------------------------------------------------


def test_the_page_holds_every_number(page):
    result = swept()
    text = " ".join(Page(page).text)
    for claim in result.claims():
        assert claim.text in text
        for line in report.grounds(claim, article.estimates()[claim.name]):
            assert line in text
    for name, arm in result.arms.items():
        assert f"{arm.mean_score:.4f}" in text, name
        assert f"{arm.std_score:.4f}" in text
        assert all(f"{score:.4f}" in text for score in arm.score)
    for contrast in result.experiment.contrasts():
        for evidence in (contrast.score, contrast.spread):
            assert report.quantity(evidence.estimate, evidence) in text
            assert report.interval(evidence) in text
        assert report.p_value(contrast.p_holm).removeprefix("p = ") in text
        assert all(f"{n:,}" in text for n in contrast.repeats_needed.values())
    assert report.overtaking(result) in text
    for arm in ("without", "with"):
        for name in ("test_score", "test_loss", "loss"):
            numbers = [f"{value:.3f}" for value in result.arms[arm].curve(name)[0]]
            assert [n for n in numbers if n not in text] == []
    assert f"{article.RESULTS['with'].std_accuracy:.4f}" in text


@pytest.mark.parametrize(
    ("without", "dropped", "expected"),
    [
        ((0.90, 0.91, 0.92), (0.95, 0.95, 0.96), "Dropout gives the better mean test accuracy"),
        ((0.95, 0.95, 0.96), (0.90, 0.91, 0.92), "Dropout gives the worse mean test accuracy"),
        ((0.90, 0.95, 0.92), (0.95, 0.90, 0.93), "mean test accuracy is not decided"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_verdicts_are_told_in_words(without, dropped, expected):
    result = fake_result(3)
    for arm, scores in (("without", without), ("with", dropped)):
        result.arms[arm].test_score[:] = [[0.5] * 9 + [score] for score in scores]
    assert f"{expected}</h3>" in page_of(result)


def test_the_page_is_well_formed_and_readable_by_all(page):
    named = re.findall(r'(?:url\(#|href="#)([^)"]+)', page)
    page = Page(page)
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    pictures = page.all("svg")
    assert len(pictures) == 6
    assert all(p["role"] == "img" and re.search(r"\d\.\d{4}", p["aria-label"]) for p in pictures)
    assert {"col", "row"} == {head["scope"] for head in page.all("th")}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert named
    assert set(named) <= set(ids)


def test_nothing_comes_from_elsewhere(page):
    assert [tag for tag, _ in Page(page).tags if tag in ("script", "link", "img", "iframe")] == []
    for word in ("://", "@import", "src=", "url(h", "font-family: '"):
        assert word not in page


def test_colours_are_the_pages(page):
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall("#[0-9a-f]{6}", pictures) == []
    assert {"var(--with)", "var(--without)", "currentColor"} <= set(
        re.findall(r"(?:fill|stroke): ([^;\"]+)", pictures)
    )


@pytest.mark.usefixtures("undrawn")
def test_what_comes_from_outside_is_escaped():
    evil = "<script>alert('&amp;')</script>"
    text = page_of(fake_result(2, name=evil), command=f"cdrop compare --data {evil}")
    assert "<script" not in text
    assert Page(text).open == []
    assert "".join(Page(text).text).count(evil) >= 4  # title, heading, warning, command


def test_one_result_is_one_page(tmp_path, monkeypatch):
    result = fake_result(2)
    with monkeypatch.context() as context:
        context.setenv("SOURCE_DATE_EPOCH", "1000")  # a date that a picture had would be this one
        write_report(result, tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page_of(result)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.usefixtures("undrawn")
def test_other_data_and_a_cut_are_told_at_the_top():
    text = page_of(cut_off())
    warnings = re.findall('<p class="warning">(.*)</p>', text)
    assert warnings[0] == "INCOMPLETE: interrupted after 2 of 5 repeats."
    assert warnings[1].startswith("NOT MNIST: the data are small;")
    assert "article&#39;s mean" not in text
    assert "small instead of MNIST" in text
    assert 'class="warning"' not in page_of(swept())


@pytest.mark.usefixtures("undrawn")
def test_how_to_repeat_it():
    result = swept(seed=3, learning_rate=0.01)
    assert "<code>cdrop compare --seed 3</code>" in page_of(
        result, command="cdrop compare --seed 3"
    )
    text = "".join(Page(page_of(result)).text)
    assert all(f'<th scope="row">{seed}</th>' in page_of(result) for seed in (3, 4, 5, 6))
    for part in ("seeds 3 to 6", result.data["sha256"], *report.facts(result).values()):
        assert part in text
    call = re.search(r"compare\(dataset, (Settings\(.*\))\)\n", text)[1]
    assert eval(call) == result.settings


@pytest.mark.parametrize("scores", [[0.9], [0.9, 0.9], [0.9, math.nan, 0.8]])
def test_results_without_intervals_are_told(scores):
    result = fake_result(len(scores))
    for arm in result.arms.values():
        arm.test_score[:] = [[0.5] * 9 + [score] for score in scores]
    assert "not decided" in page_of(result)


def test_without_scipy_the_page_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    text = page_of(fake_result(3))
    assert "the test needs SciPy" in text
    assert "95 % interval of the mean" not in text
    assert "1 std between repeats" in text


@pytest.mark.usefixtures("undrawn")
def test_a_path_in_the_command_need_not_be_unicode():
    assert "<code>cdrop compare --data ?</code>" in page_of(
        fake_result(2), command="cdrop compare --data \udcff"
    )


def test_nothing_to_report_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no finished repeat"):
        write_report(cut_off(at=0), tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []


# ---- The pictures ------------------------------------------------------------------------------


def drawn(draw, *arguments):
    axes = Figure().subplots()
    draw(axes, *arguments)
    return axes


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def ends_of_bars(axes):
    """Lower and upper ends of the error bars, container by container."""
    return [
        np.array([segment[:, axis] for segment in container.lines[2][0].get_segments()])
        for container in axes.containers
        for axis in (1 if container.has_yerr else 0,)
    ]


def test_bands_and_bars_are_those_that_the_legend_names():
    result = fake_result(5)
    axes = drawn(draw_curve, result, "loss")
    without, std = map(np.array, result.arms["without"].curve("loss"))
    (band, *_) = [c for c in axes.collections if hasattr(c, "get_paths") and c.get_alpha() == 0.18]
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx((without + std).max())
    half = 2.7764 * std / math.sqrt(5)  # Student's quantile at 4 degrees of freedom
    expected = np.stack([without - half, without + half], axis=1)
    np.testing.assert_allclose(ends_of_bars(axes)[0], expected, rtol=1e-4)
    assert {"1 std between repeats", "95 % interval of the mean"} <= set(legend_of(axes))
    assert legend_of(drawn(draw_curve, fake_result(1), "test_loss")) == [
        "without dropout",
        "with dropout",
    ]


@pytest.mark.parametrize(
    ("dropped", "iteration", "sentence"),
    [
        ((0.7, 0.7, 0.9, 0.95), 300, "From iteration 300 on the mean"),
        ((0.9, 0.7, 0.7, 0.95), 400, "From iteration 400 on the mean"),
        ((0.9, 0.9, 0.9, 0.95), 100, "From iteration 100, the first noted, on the mean"),
        ((0.9, 0.9, 0.9, 0.90), None, "Dropout does not overtake: at iteration 400, the last,"),
    ],
)
def test_where_dropout_overtakes_is_marked_and_told(dropped, iteration, sentence):
    result = curved((0.8, 0.85, 0.88, 0.9), dropped)
    axes = drawn(draw_curve, result, "test_score")
    marks = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in marks] == ([] if iteration is None else [iteration])
    told = (
        "dropout does not overtake" if iteration is None else f"dropout ahead from {iteration} on"
    )
    assert told in legend_of(axes)
    assert sentence in report.comparison(result)


def test_few_differences_are_points():
    result = fake_result(6)
    axes = drawn(draw_differences, result)
    points = axes.get_lines()[0].get_xdata()
    a, b = (np.array(result.arms[arm].score) for arm in ("without", "with"))
    np.testing.assert_allclose(points, 100 * (b - a))
    low, high = result.claims()[0].evidence.interval
    np.testing.assert_allclose(ends_of_bars(axes)[0], [[100 * low, 100 * high]])


def test_many_differences_are_counted_in_bins_of_equally_many_values():
    result = fake_result(200)
    rng = np.random.default_rng(1)
    for arm in result.arms.values():  # 100 test images: accuracies are hundredths
        arm.test_score[:] = [[n / 100] for n in rng.integers(85, 99, 200)]
    bars = drawn(draw_differences, result).patches
    assert sum(bar.get_height() for bar in bars) == 200
    for bar in bars:
        first, width = bar.get_x(), bar.get_width()
        assert first % 1 == pytest.approx(0.5)
        assert width == pytest.approx(round(width))


def test_the_sweep_shows_every_rate():
    result = swept()
    line = drawn(draw_sweep, result).get_lines()[0]
    assert list(line.get_xdata()) == [0, *SWEEP]
    assert list(line.get_ydata()) == [arm.mean_score for arm in result.sweep().values()]


# ---- The text ----------------------------------------------------------------------------------


def test_the_text_tells_the_sweep_and_the_repeats_needed():
    result = swept()
    text = report.comparison(result)
    table = text[text.index("Test accuracy by the probability") :].split("\n\n")[0].splitlines()
    assert "Holm's method for 4 tests" in table[0]
    assert [line.split()[0] for line in table[2:]] == ["0", "0.1", "0.25", "0.5", "0.75"]
    for contrast in result.experiment.contrasts():
        rate = result.arms[contrast.second].configuration["dropout"]
        (line,) = [line for line in table[2:] if line.split()[0] == f"{rate:g}"]
        assert f"{result.arms[contrast.second].mean_score:.4f} +- " in line
        assert report.interval(contrast.score) in line
        assert line.endswith(report.p_value(contrast.p_holm))
    needed = result.experiment.contrasts(sizes=[0.001])[0].repeats_needed[0.001]
    assert f"80 %, {needed} repeats are needed" in text
    assert "sweep     dropout 0.1, 0.25, 0.5, 0.75 as well" in report.heading(result)
    assert "probability of dropping" not in report.comparison(fake_result())


def test_rates_near_each_other_have_arms_of_their_own():
    settings = replace(Settings(), sweep=(0.1, 0.1 + 1e-9))
    rates = [arm["dropout"] for arm in settings.configurations().values()]
    assert rates == [0.0, 0.5, *settings.sweep]
