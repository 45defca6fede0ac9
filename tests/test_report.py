"""The text and the page of a result: both are views of `ExperimentResult` and know no arm's name."""

import html
import io
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_results import made_result

from cdrop.experiments import report
from cdrop.experiments.results import Claim, Preset, Published

NINE = [*(f"rate {rate}" for rate in range(8)), "an arm with a name" + 3 * " that is far too long"]
RATES = [{"dropout": rate, "l2": 1e-4} for rate in (0.1, 0.2, 0.5)]


def claim_of(result):
    evidence = result.contrasts()[0].score
    words = {"supported": "The second is better", "not decided": "Nobody knows"}
    return [
        Claim("better", "the second is better", "difference", evidence, words, 0.0123, "a note")
    ]


PRESET = Preset(
    title="Two nets",
    facts={"network": "two hidden layers"},
    warnings=("NOT MNIST: made up",),
    labels={"none": "no dropout"},
    published=Published(
        "the article",
        {"none": (0.964, 0.0071), "dropout": (0.9692, math.nan)},
        {"none": ((100, 200), (0.7654, 0.6543))},
    ),
    notes=("A closing note.",),
    claims=claim_of,
    call="compare(dataset)",
)
KINDS = {
    "one arm, one repeat": {"arms": ("only",), "repeats": 1},
    "two": {"arms": ("none", "dropout"), "preset": PRESET, "repeats": 10},
    "three, an estimator": {
        "arms": ("none", "dropout", "forest"),
        "estimators": ("forest",),
        "metric": "log_loss",
        "margin": 0.002,
        "candidates": {"dropout": RATES},
    },
    "nine": {"arms": NINE, "repeats": 6, "splits": False},
    "estimators alone": {"arms": ("a", "b"), "estimators": ("a", "b"), "metric": "rmse"},
    "undefined scores": {"arms": ("a", "b"), "scores": {"a": math.nan}},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def result(request):
    return made_result(**request.param)


def paragraph(result, start):
    """The paragraph of the text that starts so, its lines joined."""
    (found,) = [part for part in report.text(result).split("\n\n") if part.startswith(start)]
    return " ".join(found.split())


# ---- Text ------------------------------------------------------------------------------------------


def test_every_arm_and_its_scores_are_in_the_text(result):
    text = report.text(result)
    assert str(result) == text
    joined = " ".join(text.split())
    for name, arm in result.arms.items():
        assert result.label(name) in joined
        assert report.spread(arm.mean_score, arm.std_score) in text
    assert report.number(result.baseline[result.metric.name][0]) in text
    assert all(len(line) <= report.WIDTH for line in text.splitlines())
    assert text.isascii()


def test_every_contrast_has_difference_interval_probability_and_verdict(result):
    contrasts = result.contrasts()
    if not contrasts:
        pytest.skip("one arm")
    table = str(report.contrast_table(result, contrasts))
    sentences = [f"{c.question} {c.answer}" for c in report.conclusions(result, contrasts)]
    conclusion = " ".join(" ".join(sentences).split())
    for c in contrasts:
        assert report.estimate(c.score) in table
        assert report.estimate(c.p_better) in table
        assert c.verdict in table
        assert result.label(c.second) in conclusion
        assert re.search(c.verdict, conclusion, flags=re.IGNORECASE)
    assert result.condition in conclusion
    assert conclusion in " ".join(report.text(result).split())


def test_published_figures_stand_next_to_the_arms():
    text = report.text(made_result(preset=PRESET))
    row = next(line for line in text.splitlines() if line.startswith("  no dropout "))
    assert "0.9640 +- 0.0071" in row
    assert "0.9692   " in next(x for x in text.splitlines() if x.startswith("  dropout "))
    curve = paragraph(made_result(preset=PRESET), "Training loss")
    assert "no dropout, published" in curve
    assert "0.7654" in curve
    assert "published" not in report.text(made_result())


def test_a_claim_has_its_verdict_and_grounds():
    result = made_result(preset=PRESET, repeats=10, step=0.05)
    claims = paragraph(result, "Published claims")
    (claim,) = result.claims()
    assert f'"{claim.text}" supported' in claims
    assert report.estimate(claim.evidence) in claims
    assert "(published: +0.0123)" in claims
    assert "a note" in claims


def test_warnings_facts_and_notes_have_their_places():
    result = made_result(preset=PRESET, stopped="interrupted", asked=20)
    text = report.text(result)
    assert text.startswith("INCOMPLETE: interrupted after 5 of 20 repeats.\nNOT MNIST: made up\n\n")
    assert "network   two hidden layers" in report.heading(result)
    assert report.heading(result) in text
    assert report.heading(result) not in report.text(result, with_heading=False)
    assert "A closing note." in text


def test_heading_is_known_before_the_work():
    result = made_result(("a", "b", "c"), 0, asked=20)
    assert report.text(result) == report.heading(result)
    lines = report.heading(result)
    for part in (
        "wine.csv",
        "800 rows",
        "200 for testing",
        "20, seeds 3 to 22",
        "a, b, c; all compared with a",
    ):
        assert part in lines
    assert "its own split" in lines
    assert "one test set" in report.heading(made_result(splits=False))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
@pytest.mark.parametrize("baseline", [0.5, 0.9025, 0.99])
def test_arms_that_do_not_beat_the_baseline_are_named(metric, baseline):
    scores = {"a": 0.9, "b": 0.905}
    lines = report.remarks(made_result(("a", "b"), metric=metric, scores=scores, baseline=baseline))
    good = (baseline < 0.9) == (metric == "accuracy")
    if baseline == 0.9025:
        loser = "a" if metric == "accuracy" else "b"
        assert lines == [f"Not better than the baseline, which ignores the inputs: {loser}."]
    else:
        assert lines == ([] if good else ["No arm beats the baseline, which ignores the inputs."])


def test_choices_among_candidates_are_counted():
    result = made_result(("none", "dropout"), 7, candidates={"dropout": RATES})
    assert "dropout: chose dropout 0.1: 3 of 7; dropout 0.2: 2 of 7; dropout 0.5: 2 of 7." in (
        report.remarks(result)
    )
    assert "dropout (best of 3 candidates)" in report.heading(result)


def test_verdict_after_a_planned_look_names_it():
    result = made_result(repeats=20, alpha=0.0125, asked=100, decided_at=20)
    text = " ".join(report.text(result).split())
    assert text.count("planned look at 20 of at most 100 repeats, level 0.0125") == 3
    assert "[98.75 %]" in text
    assert "planned look" not in report.text(made_result())


def test_margin_is_named_with_its_verdict():
    scores = {"none": [0.9, 0.91, 0.92, 0.9], "dropout": [0.901, 0.911, 0.919, 0.9]}
    text = " ".join(report.text(made_result(repeats=4, scores=scores, margin=0.05)).split())
    assert ": no difference that matters (more than 0.05), over 4 splits" in text
    assert "difference of at most 0.05 does not matter" in text


DEVIATIONS = np.array([0.9, -1.2, 0.3, 1.4, -0.7, 0.1, -1.6, 0.8, 0.5, -0.5])


def arms_around(margin, **differences):
    base = 0.9 + 0.01 * np.cos(np.arange(10))
    scores = {name: base + d + 0.003 * DEVIATIONS for name, d in differences.items()}
    return made_result(("none", *scores), 10, scores={"none": base, **scores}, margin=margin)


def test_an_interval_within_the_margin_that_holm_undoes_is_explained():
    result = arms_around(0.0055, a=0.001, b=-0.001)
    contrasts = result.contrasts()
    for c in contrasts:
        assert max(map(abs, c.score.interval)) < 0.0055
        assert c.verdict == "not decided"
    assert report.contrast_table(result, contrasts).notes[0] == (
        "a, b: the interval of this contrast alone lies within the margin of 0.0055, but corrected for 2 contrasts by "
        "Holm's method nothing is decided: neither that the difference is at most the margin, nor that there is a "
        "difference."
    )


def test_a_difference_whose_interval_lies_within_the_margin_is_explained():
    result = arms_around(0.0095, a=0.005, b=0.02, c=0.02)
    contrasts = result.contrasts()
    assert contrasts[0].verdict == "better"
    assert max(map(abs, contrasts[0].score.interval)) < 0.0095
    assert report.contrast_table(result, contrasts).notes[0] == (
        "a: better is decided; that the difference is at most the margin of 0.0095, within which the interval of this "
        "contrast alone lies, is not, corrected for 3 contrasts by Holm's method."
    )


def test_holm_can_undo_a_verdict_and_the_text_says_so():
    rng = [0.004, -0.002, 0.006, 0.001, 0.005, 0.003, 0.002, 0.004]
    scores = {"none": 0.9, "b": [0.9 + x for x in rng], "c": [0.9 - x for x in rng]}
    result = made_result(("none", "b", "c"), 8, scores=scores, splits=True)
    undone = [c for c in result.contrasts() if c.verdict != c.score.verdict]
    notes = report.contrast_table(result, result.contrasts()).notes
    assert bool(undone) == any("Holm" in note for note in notes)


def test_sweep_and_repeats_needed():
    result = made_result(("a", "b", "c"), 6, step=0.01)
    table = report.sweep_table(result)
    assert [row[0] for row in table.rows] == ["0", "0.1", "0.2"]
    assert [row[2] for row in table.rows] == ["", "", "best"]
    needed = report.needed_table(result, result.contrasts())
    sizes = result.contrasts()[0].repeats_needed
    assert needed.rows[0][1] == ", ".join(
        f"{size:g}: {'never' if n is None else f'{n:,}'}" for size, n in sizes.items()
    )
    assert report.sweep_table(made_result()) is None


def test_long_curves_are_thinned_and_keep_their_end():
    result = made_result(curves=1000)
    table = report.curve_table(result, "loss", most=30)
    assert len(table.rows) <= 30
    assert table.rows[-1][0] == "100,000"
    assert "Training loss" not in report.text(result)


def test_progress_lines():
    result = made_result(("none", "dropout"), 3, candidates={"dropout": RATES}, asked=10)
    trial = result.arms["dropout"].trials[1]
    score = report.number(trial.scores["accuracy"])
    assert report.run_line(trial, result) == (
        f"repeat 2 of 10, dropout: accuracy {score}, chose dropout 0.2 (1.5 s)"
    )
    line = report.repeat_line([arm.trials[1] for arm in result.arms.values()], result)
    assert line.startswith("repeat 2 of 10: accuracy ")
    assert f"{score} dropout (2.0 s)" in line
    nine = made_result(NINE)
    assert "6 others" in report.repeat_line([a.trials[0] for a in nine.arms.values()], nine)


def test_record_directory_and_resuming():
    assert report.kept(None, 3) is None
    assert report.kept(Path("runs"), 0) == "record    runs"
    assert report.kept(Path("runs"), 3) == "record    runs: 3 runs finished before"
    assert "--resume" in report.how_to_resume(Path("runs"), 1)


def test_without_scipy_the_text_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    text = report.text(made_result())
    assert 'pip install "cdrop[stats]"' in text


def test_notebook_table_is_escaped_and_has_the_verdict():
    html = made_result(("<b>none", "a & b"), name="<i>")._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;none" in html
    assert "a &amp; b" in html
    assert "over 5 splits of these data" in html
    assert "<table>" in made_result(repeats=0)._repr_html_()


# ---- Page ------------------------------------------------------------------------------------------

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from cdrop.experiments import page as pages  # noqa: E402


class Page(HTMLParser):
    """Text and tags of a page, and whether every tag is closed where it should be."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.pieces, self.open = [], [], []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.pieces.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("absent", ["jinja2", "matplotlib"])
def test_without_a_package_an_error_names_the_extra(absent, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ImportError, match=rf"needs {absent}: pip install 'cdrop\[report\]'"):
        made_result(repeats=2).write_report(io.BytesIO())


def page_of(result, **options):
    out = io.BytesIO()
    result.write_report(out, **options)
    return out.getvalue().decode()


@pytest.fixture
def undrawn(monkeypatch):
    """Let pages be made without their figures, which take most of the time."""
    empty = pages.Picture("", "", "", "")
    monkeypatch.setattr("cdrop.experiments.page._picture", lambda *arguments: empty)


def test_page_shows_every_arm_in_tables_and_figures(result):
    source = page_of(result)
    page = Page(source)
    assert page.open == []
    svgs = re.findall(r"<svg role.*?</svg>", source, flags=re.DOTALL)
    kinds = 1 + 2 * (len(result.arms) > 1) + (result.sweep() is not None)
    curved = [name for name, arm in result.arms.items() if arm.has_curves]
    assert len(svgs) == kinds + 3 * bool(curved)
    for name, arm in result.arms.items():
        label = result.label(name)
        assert page.text.count(" ".join(label.split())) >= 2
        assert pages.signs(report.spread(arm.mean_score, arm.std_score)) in page.text
        start = " ".join(label.split()[:3])
        shown = [" ".join(" ".join(Page(svg).pieces).split()) for svg in svgs]
        assert start in shown[0]
        assert [start in text for text in shown[kinds:]] == 3 * [name in curved] * bool(curved)
    for c in result.contrasts():
        assert pages.signs(report.estimate(c.score)) in page.text
        assert c.verdict in page.text.lower()


@pytest.fixture(scope="module")
def nine():
    """The page of nine arms."""
    return page_of(made_result(**KINDS["nine"]))


def test_page_is_readable_by_all(nine):
    named = re.findall(r'(?:url\(#|href="#)([^)"]+)', nine)
    page = Page(nine)
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    labels = [svg["aria-label"] for svg in page.all("svg") if "role" in svg]
    assert len(labels) == 7
    assert all(re.search(r"\d\.\d", label) for label in labels)
    assert {"col", "row"} == {head["scope"] for head in page.all("th")}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert named
    assert set(named) <= set(ids)


def test_page_needs_nothing_from_elsewhere_and_has_its_own_colors(nine):
    source, page = nine, Page(nine)
    assert [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")] == []
    for word in ("://", "@import", "src=", "url(h", "font-family: '"):
        assert word not in source
    figures = "".join(re.findall(r"<svg role.*?</svg>", source, flags=re.DOTALL))
    assert re.findall("#[0-9a-f]{6}", figures) == []
    used = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", figures))
    assert {f"var(--arm{i})" for i in range(7)} | {"currentColor"} <= used
    defined = re.findall(r"(--\w+): #", source)
    assert set(re.findall(r"var\((--\w+)\)", source)) <= set(defined)
    assert all(defined.count(f"--arm{i}") == 2 for i in range(7))  # light and dark


@pytest.mark.usefixtures("undrawn")
def test_page_has_claims_published_figures_notes_and_command():
    result = made_result(preset=PRESET, repeats=10, step=0.05)
    page = Page(page_of(result))
    for part in ("Two nets: wine.csv", "NOT MNIST: made up", "The second is better", "the article"):
        assert part in page.text
    assert "0.9640 \N{PLUS-MINUS SIGN} 0.0071" in page.text
    assert "A closing note." in page.text
    assert "two hidden layers" in page.text
    assert {"class": "claim supported"} in page.all("div")
    assert "compare(dataset)" in page.text
    assert "cdrop compare --seed 3" in Page(page_of(result, command="cdrop compare --seed 3")).text
    assert all(f'<th scope="row">{seed}</th>' in page_of(result) for seed in range(3, 13))
    for fact in report.facts(result).values():
        assert fact in page.text


@pytest.mark.usefixtures("undrawn")
def test_page_escapes_what_comes_from_outside():
    evil = "<script>alert('&amp;')</script>"
    preset = Preset(
        facts={evil: evil}, warnings=(evil,), labels={"a": evil, "b": evil}, notes=(evil,)
    )
    source = page_of(made_result(("a", "b"), name=evil, preset=preset), command=evil)
    assert "<script" not in source
    assert Page(source).open == []
    assert "".join(Page(source).pieces).count(evil) >= 10


def test_names_in_figures_are_escaped():
    source = page_of(made_result(("a<b>", "$x^2$ & _y"), curves=2))
    assert "<b>" not in source
    assert "$x^2$ &amp; _y" in source


def test_one_result_is_one_page(tmp_path, monkeypatch):
    result = made_result(estimators=("none", "dropout"))
    with monkeypatch.context() as context:
        context.setenv("SOURCE_DATE_EPOCH", "1000")  # a date in a figure would be this one
        result.write_report(tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page_of(result)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.usefixtures("undrawn")
def test_a_path_in_the_command_need_not_be_unicode():
    assert "cdrop ?" in Page(page_of(made_result(), command="cdrop \udcff")).text


@pytest.mark.usefixtures("undrawn")
def test_the_command_breaks_between_words_only():
    command = "cdrop compare --data 'my own.csv' --margin 0.01  --until-decided"
    source = page_of(made_result(), command=command)
    shown = re.search("<pre><code>(.*?)</code></pre>", source, re.S)[1]
    assert html.unescape(re.sub("<[^>]*>", "", shown)) == command  # as it is copied
    words = map(html.unescape, re.findall("<span>(.*?)</span>", shown))
    assert list(words) == command.split(" ")
    assert re.search(r"pre span {[^}]*display: inline-block; max-width: 100%", source)


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_wider_than_a_narrow_window():
    source = page_of(made_result())
    assert source.count("<table>") == len(re.findall('<div class="scroll"[^>]*>\n<table>', source))
    assert re.search(r"\.scroll {[^}]*overflow-x: auto;", source)
    assert re.search(r"dl {[^}]*grid-template-columns: fit-content\(40%\) minmax\(0, 1fr\)", source)


def test_no_finished_repeat_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="result has 0 finished repeats; expected at least 1"):
        made_result(repeats=0).write_report(tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []
