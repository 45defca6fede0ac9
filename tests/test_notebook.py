"""What a notebook shows: bars, and short representations."""

import importlib.metadata
import inspect
import io
import pkgutil
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
from made_results import made_result
from sklearn.utils.fixes import parse_version

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop.callbacks import EpochPrinter, LossPrinter, ProgressBar, Validation
from cdrop.checkpoints import Place
from cdrop.datasets import ImageScaler, Standardizer, TableEncoder
from cdrop.experiments import open_ledger, paired_experiment
from cdrop.experiments.statistics import Sampling
from cdrop.experiments.uncertainty import UncertaintyResult
from cdrop.plotting import LossCurveDisplay

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)
BOTH = pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])


def test_history_is_short():
    net = Network([4, 6, 2], seed=0)
    assert repr(net.history) == "<History: 0 iterations>"
    history = net.fit(X, Y, iterations=3000)
    assert re.fullmatch(r"<History: 3000 iterations, loss \S+>", repr(history))
    net.fit(X, Y, epochs=2, batch_size=60, validation=(X, Y))
    shown = (
        r"<History: 3002 iterations, 2 epochs, loss \S+, validation loss \S+, validation score \S+>"
    )
    assert re.fullmatch(shown, repr(history))
    history.interrupted = True
    assert repr(history).endswith(", interrupted>")


def test_networks_of_many_layers_are_short():
    assert repr(Network([4, *[3] * 15, 2], dropout=0.5)).startswith("Network([4, 3, 3, 3, 3, 3, 3")
    rates = [i / 500 for i in range(1, 301)]
    shown = repr(Network([4, *[3] * 300, 2], dropout=rates))
    assert shown.startswith("Network([4, 3, 3, 3, 3, ..., 3, 3, 3, 3, 2], dropout=[0.002, ")
    assert len(shown) < 200


LONG = list(map(str, range(10_000)))


def scored():
    validation = Validation(X, Y, every=50)
    Network([4, 6, 2], seed=0).fit(X, Y, iterations=100, callbacks=[validation])
    return validation


def checkpoint(tmp_path, **length):
    Network([4, 6, 2], seed=1).fit(X, Y, batch_size=60, checkpoint=tmp_path / "run", **length)
    return load(tmp_path / "run")


def ledger(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, arms = open_ledger("runs"), {"none": {"hidden": (4,), "iterations": 2}}
    paired_experiment(arms, X, Y, repeats=3, ledger=kept)
    return kept


def unfinished(tmp_path):
    found = checkpoint(tmp_path, epochs=2)
    found.place = Place(epochs=1, steps=3)
    return found


SHORT = {
    "Checkpoint": (
        lambda tmp_path, _: checkpoint(tmp_path, iterations=30),
        r"<Checkpoint: Network\(\[4, 6, 2\], seed=1\), 30 iterations, finished>",
    ),
    "Checkpoint-unfinished": (
        lambda tmp_path, _: unfinished(tmp_path),
        r"<Checkpoint: Network\(.*\), 1 epochs and 3 iterations, unfinished>",
    ),
    "LossPrinter": (lambda *_: LossPrinter(every=7), r"LossPrinter\(every=7\)"),
    "EpochPrinter": (lambda *_: EpochPrinter(), r"EpochPrinter\(\)"),
    "ProgressBar": (lambda *_: ProgressBar(total=9), r"ProgressBar\(total=9\)"),
    "Validation": (
        lambda *_: Validation(X, Y),
        "<Validation: every 100 iterations, 0 scores>",
    ),
    "Validation-scored": (
        lambda *_: scored(),
        r"<Validation: every 50 iterations, 2 scores, last [\d.]+>",
    ),
    "Standardizer": (lambda *_: Standardizer(), r"Standardizer\(\)"),
    "Standardizer-long": (
        lambda *_: Standardizer("float64", LONG),
        r"Standardizer\(dtype='float64', names=\['0', '1', .*, \.\.\.\]\)",
    ),
    "ImageScaler": (lambda *_: ImageScaler("float64"), r"ImageScaler\(dtype='float64'\)"),
    "TableEncoder": (
        lambda *_: TableEncoder({**dict.fromkeys(LONG, "number"), "color": "text"}),
        r"<TableEncoder: 10001 columns \(10000 number, 1 text\)>",
    ),
    "Ledger": (ledger, "<Ledger 'runs': 3 runs>"),
    "LossCurveDisplay": (
        lambda *_: LossCurveDisplay([1.0] * 1000, name="mine"),
        "<LossCurveDisplay 'mine': 1000 epochs>",
    ),
    "Arm": (lambda *_: made_result().arms["none"], r"<Arm 'none': 5 repeats, accuracy 0\.\d+>"),
    "Trial": (
        lambda *_: made_result().arms["none"].trials[1],
        r"<Trial: arm 'none', repeat 1, accuracy 0\.\d+, log_loss 0\.\d+>",
    ),
    "UncertaintyResult": (
        lambda *_: UncertaintyResult("regression", 20, 0, Sampling(), {"rmse": {"plain": X}}),
        "<UncertaintyResult: regression, 1 methods, 20 repeats>",
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_objects_are_one_short_line(name, tmp_path, monkeypatch):
    make, expected = SHORT[name]
    shown = repr(make(tmp_path, monkeypatch))
    assert re.fullmatch(expected, shown), shown
    assert len(shown) < 100


# Classes that users derive from or never hold.
WITHOUT = {"Callback", "Candidate", "Keeper", "Part", "Transformer"}


def test_no_public_class_has_the_representation_of_object():
    names = [
        info.name
        for info in pkgutil.walk_packages(cdrop.__path__, "cdrop.")
        if not re.search(r"\._|\.cli|\.estimators\.", info.name)
    ]
    modules = map(importlib.import_module, names)
    public = [
        getattr(module, name) for module in modules for name in getattr(module, "__all__", ())
    ]
    classes = {value for value in public if inspect.isclass(value)}
    assert len(classes) > 60
    assert {c.__name__ for c in classes if c.__repr__ is object.__repr__} == WITHOUT


@pytest.fixture
def kernel(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_bar_is_visible_in_a_kernel_and_silent_in_pipes(kernel, monkeypatch):
    pytest.importorskip("tqdm")
    assert ProgressBar().visible
    assert not ProgressBar(file=io.StringIO()).visible
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not ProgressBar().visible


def test_bar_stays_in_a_notebook_and_is_not_red_after_an_early_stop(kernel):
    pytest.importorskip("tqdm")
    bar = ProgressBar()
    bar.on_fit_begin(Network([2, 2]), 10)
    bar.advance(4)
    inner = bar._bar
    assert inner.leave
    bar.on_fit_end(Network([2, 2]))
    assert inner.total == inner.n == 4


NEWER = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="needs scikit-learn 1.9"
)


@NEWER
@BOTH
def test_html_describes_each_parameter(kind):
    model = kind()
    html = model._repr_html_()
    described = set(re.findall(r'anchor-name: --doc-link-(\w+);"', html))
    assert described >= set(model.get_params())
    assert "Probability of dropping a hidden unit" in html


def test_shared_parameters_have_the_same_description():
    def described(kind):
        text = inspect.getdoc(kind).split("----------\n")[1].split("\nAttributes")[0]
        found = re.findall(r"^(\w+) : (.*?)(?=^\w+ : |\Z)", text, re.M | re.S)
        return {name: about.strip() for name, about in found}

    classifier, regressor = map(described, (DropoutMLPClassifier, DropoutMLPRegressor))
    assert set(classifier) == set(DropoutMLPClassifier().get_params())
    assert set(regressor) == set(DropoutMLPRegressor().get_params())
    for name in classifier.keys() & regressor.keys() - {"validation_fraction", "scoring"}:
        assert classifier[name].replace("MLPClassifier", "MLPRegressor") == regressor[name], name


@BOTH
def test_link_to_the_documentation(kind, monkeypatch):
    address = "https://docs.example/cdrop"
    monkeypatch.setattr(
        importlib.metadata,
        "metadata",
        lambda name: SimpleNamespace(
            get_all=lambda key: ["Source, https://x.example", f"Documentation, {address}/"]
        ),
    )
    page = f"{address}/api/estimators.html#cdrop.estimators.{kind.__name__}"
    assert kind()._get_doc_link() == page
    assert page in kind()._repr_html_()


CELLS = """
import numpy as np, warnings
warnings.simplefilter("ignore")
from cdrop import DropoutMLPClassifier, Network
from cdrop.callbacks import ProgressBar
X = np.random.default_rng(0).normal(size=(60, 4)); y = (X[:, 0] > 0).astype(int)
####
Network([4, 6, 2]).fit(X, y, iterations=500, callbacks=[ProgressBar()])
####
DropoutMLPClassifier(max_iter=5, verbose=True, random_state=0).fit(X, y)
####
from cdrop.experiments import paired_experiment
arms = {name: {"hidden": (4,), "iterations": 20, "dropout": p} for name, p in (("a", 0.0), ("b", 0.5))}
paired_experiment(arms, X, y, repeats=3)
####
Network([4, 6, 2], dropout=0.5)
"""


def test_run_as_a_notebook():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS.split("####\n")]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    _, net, model, result, last = (cell.outputs for cell in notebook.cells)
    bar, history = net
    assert "application/vnd.jupyter.widget-view+json" in bar["data"] or "500/500" in bar["text"]
    assert history["data"]["text/plain"].startswith("<History: 500 iterations")
    assert [output["output_type"] for output in model] == ["display_data", "execute_result"]
    assert "Parameters" in model[1]["data"]["text/html"]
    assert len(result[-1]["data"]["text/plain"]) < 100
    assert last[0]["data"]["text/plain"] == "Network([4, 6, 2], dropout=0.5)"
