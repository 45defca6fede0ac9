"""The command line: options, exit codes, what is printed and what is saved."""

import contextlib
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from comparisons import FakeTrainer, small_dataset, timeless, write_idx_directory

import cdrop
from cdrop import cli, datasets
from cdrop.cli import compare as compare_command
from cdrop.cli import options as cli_options
from cdrop.cli import progress
from cdrop.datasets import columns, sources
from cdrop.experiments import compare as compare_arms
from cdrop.experiments import does_dropout_help, paper
from cdrop.experiments.problem import Problem
from cdrop.optimizers import get_optimizer

NOT_MNIST = "NOT MNIST: the data are "
ARTICLE = ["--iterations", "20", "--hidden", "8", "--batch-size", "32", "--threads", "1"]
TUNED = ["--hidden", "4", "--epochs", "1", "--rates", "0.5", "--l2", "0", "--jobs", "1"]


def python(*arguments):
    """The command `python -m cdrop ...` for a separate process."""
    return [sys.executable, "-m", "cdrop", *map(str, arguments)]


def run(*arguments, **options):
    return subprocess.run(
        python(*arguments), capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture(scope="module")
def idx_directory(tmp_path_factory):
    """A directory with the four IDX files."""
    return write_idx_directory(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def fake(monkeypatch):
    """Let the article's comparison train nothing: small data, numbers from a `FakeTrainer`."""
    trainer = FakeTrainer()
    digits = small_dataset("drawn digits (not MNIST)")
    monkeypatch.setattr(sources, "drawn_digits", lambda seed, **_: digits)
    monkeypatch.setattr(sources, "load_mnist", lambda directory, **_: small_dataset("MNIST"))
    monkeypatch.setattr(
        "cdrop.experiments.compare",
        lambda *args, **options: compare_arms(*args, network=trainer, **options),
    )
    return trainer


@pytest.fixture
def no_mnist(fake, monkeypatch):
    def fail(directory, **_):
        raise datasets.DataNotFoundError("MNIST was not found. Tried: everything")

    monkeypatch.setattr(sources, "load_mnist", fail)
    return fake


@pytest.fixture
def spy(monkeypatch):
    """Record the data and the options of each comparison on a table."""
    calls = []

    def record(data, **options):
        calls.append({"data": data, **options})
        return does_dropout_help(data, **options)

    monkeypatch.setattr("cdrop.experiments.does_dropout_help", record)
    return calls


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a directory with numbers.csv, a table of numbers with classes a and b."""
    monkeypatch.chdir(tmp_path)
    write_table(
        "numbers.csv",
        "x,y,time,patient,kind",
        lambda i: f"{(7 * i) % 31},{i * i % 5}.5,{i * i},{i // 4},{'ab'[i % 2]}",
    )
    return tmp_path


def write_table(path, header, row, rows=60):
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([header, *map(row, range(rows))]) + "\n")


def compare(line, *more):
    return cli.main(["compare", *shlex.split(line), *map(str, more)])


# --- options ---


def test_help_version_and_no_command(capsys):
    for arguments, code in (
        (["--help"], 0),
        (["compare", "--help"], 0),
        (["--version"], 0),
        ([], 2),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == code
    out = capsys.readouterr().out
    assert f"cdrop {cdrop.__version__}\n" in out
    for text in ("--repeats", "--label COLUMN", "--json FILE", "examples:", "exit codes:"):
        assert text in out


@pytest.mark.parametrize("command", [[], ["compare"], ["paper"], ["bench"], ["info"]])
def test_help_fits_a_terminal_of_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_each_example_of_the_help_is_a_command_that_parses():
    examples = re.findall(
        r"^  (cdrop .*)$", cli_options.COMPARE_EXAMPLES + cli_options.PAPER_EXAMPLES, re.MULTILINE
    )
    assert len(examples) == 13
    for example in examples:
        cli.build_parser().parse_args(shlex.split(example)[1:])


def test_help_imports_nothing_heavy():
    code = (
        "import sys, cdrop.cli\n"
        "try: cdrop.cli.main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = 'scipy', 'sklearn', 'pandas', 'joblib', 'matplotlib', 'tqdm', 'pooch'\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


INTEGER, NUMBER = "an integer of at least", "a finite number"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *(("--repeats", v, f"{INTEGER} 1") for v in ("0", "2.5", "1_0", "\u0661\u0662", "\uff15")),
        ("--splits", "1", f"{INTEGER} 2"),
        ("--iterations", "-3", f"{INTEGER} 1"),
        ("--epochs", "0", f"{INTEGER} 1"),
        ("--hidden", "many", f"{INTEGER} 1"),
        ("--batch-size", "0", f"{INTEGER} 1"),
        *(("--threads", value, "an integer from 1 to") for value in ("0", "100000")),
        ("--jobs", "0", f"{INTEGER} 1"),
        ("--seed", "-1", f"{INTEGER} 0"),
        *(("--dropout", v, f"{NUMBER} of at least 0 and below 1") for v in ("1", "nan", "-0.1")),
        *(("--sweep", value, f"{NUMBER} of at least 0 and below 1") for value in ("1", "")),
        *(("--rates", value, f"{NUMBER} above 0 and below 1") for value in ("0", "1", "")),
        *(("--learning-rate", value, f"{NUMBER} above 0") for value in ("0", "inf")),
        *(("--l2", v, f"{NUMBER} of at least 0") for v in ("-1e-3", "x", "1_0.5", "\u0661")),
        *(("--margin", value, f"{NUMBER} of at least 0") for value in ("-1", "inf", "x")),
        ("--train-size", "0", f"{INTEGER} 1"),
        *(("--test-share", value, f"{NUMBER} above 0 and below 1") for value in ("0", "1")),
    ],
)
def test_bad_values_name_option_value_and_what_is_expected(option, value, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", f"{option}={value}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"argument {option}: expected {expected}" in error
    assert f"got '{value}'" in error
    assert len(error.splitlines()) == 2


def test_of_a_list_the_bad_value_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare", "--sweep", "0.1,1.5"])
    assert "argument --sweep: expected a finite number" in (error := capsys.readouterr().err)
    assert "got '1.5'" in error


TABLE = "--data numbers.csv --label kind"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--optimizer adamw", "--optimizer adamw has its own weight decay; expected --l2 0"),
        (f"--seed {2**64 - 4}", f"--seed {2**64 - 4}: expected a smaller one"),
        ("--resume", "--resume needs --checkpoint DIR"),
        ("--checkpoint absent/kept", "--checkpoint: absent/kept: there is no directory absent"),
        ("--json absent/out.json", "--json: absent/out.json: there is no directory"),
        ("--json .", "--json: . is a directory"),
        ("--plot out.docx", "--plot out.docx: suffix is 'docx'; expected one of "),
        ("--plot absent/out.png", "--plot: absent/out.png: there is no directory"),
        ("--json out.png --plot ./out.png", "--json and --plot name the same file, out.png"),
        ("--report absent/out.html", "--report: absent/out.html: there is no directory"),
        ("--json out --report ./out", "--json and --report name the same file, out"),
        # What the command reads, and what it keeps.
        (f"{TABLE} --json ./numbers.csv", "--data and --json name the same file, numbers.csv"),
        (f"{TABLE} --test x.csv --report x.csv", "--test and --report name the same file, x.csv"),
        ("--checkpoint kept --json ./kept", "--checkpoint and --json name the same file, kept"),
        ("--json experiment.jsonl", "experiment.jsonl has the name of a file of kept runs; expect"),
        ("--json repeat-1-with.cdrop", "repeat-1-with.cdrop has the name of a file of kept runs"),
        ("--json train-images-idx3-ubyte.gz", "ubyte.gz has the name of an IDX data file; expect"),
        ("--train-size 301", "--train-size: train_size is 301; expected "),
        ("--train-size 1", "--train-size: train_size is 1; expected an integer between 10 and 300"),
        (f"{TABLE} --train-size 1", "--train-size: train_size is 1; expected an integer between 2"),
        ("--splits 3 --repeats 3", "--splits and --repeats are given; expected one of them"),
        ("--test-share 0.3 --time when", "--test-share is given with --time; expected one"),
        ("--test-share 0.5", "expected it with --protocol tuned --splits N"),
        ("--splits 2 --test-share 0.5", "expected it with --protocol tuned --splits N"),
        # Options of the other protocol.
        ("--rates 0.1", "--rates is given with the protocol article; expected it with --protocol"),
        ("--epochs 2", "--epochs is given with the protocol article"),
        ("--protocol tuned --sweep 0.1", "--sweep is given with the protocol tuned; expected it"),
        *(
            (f"{TABLE} --{name} {value}", f"--{name} is given with the protocol tuned")
            for name, value in (
                ("iterations", 9),
                ("batch-size", 9),
                ("dropout", 0.5),
                ("optimizer", "sgd"),
                ("sweep", 0.1),
            )
        ),
        ("--hidden 8,8", "--hidden has several values; expected one with the protocol article"),
        ("--l2 0,1", "--l2 has several values; expected one with the protocol article"),
        # Options that the data have no meaning for.
        ("--label kind", "has no meaning for mnist. A table is named with --data FILE"),
        ("--data digits --group x", "--group: group is 'x'; expected None: it has no meaning"),
        ("--no-header", "--no-header: header is False; expected True: it has no meaning for mnist"),
        ("--data numbers.csv", "--label: label is None; expected the name of the column of num"),
        (f"{TABLE} --test numbers.csv", "--test: test is 'numbers.csv', the file of the training "),
        (f"{TABLE} --sep ab", "--sep: sep is 'ab'; expected one character"),
        (f"{TABLE} --encoding none", "--encoding: encoding is 'none'; expected one that Python"),
        (f"{TABLE} --train-size 49", "--train-size: train_size is 49; expected "),
        (f"{TABLE} --test-share 0.99", "--test-share: X has 60 rows, of which test_size hol"),
        (
            f"{TABLE} --time time --splits 5 --until-decided",
            "--until-decided: until_decided is True; expect",
        ),
        # Metrics.
        ("--metric none", "--metric: metric is 'none'; expected one of 'log_loss', 'accuracy', "),
        ("--metric r2", "--metric: metric is 'r2'; expected one of 'log_loss', 'accuracy', "),
        (
            "--data numbers.csv --label x --metric accuracy",
            "--metric: metric is 'accuracy'; expected one of 'rmse', 'mae', 'r2'",
        ),
    ],
)
def test_refused_before_any_work(arguments, message, fake, capsys, here):
    if "--plot" in arguments or "--report" in arguments:
        pytest.importorskip("matplotlib")
    if "--report" in arguments:
        pytest.importorskip("jinja2")
    assert compare(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("cdrop compare: error: --")
    assert message in captured.err
    assert captured.out == ""
    assert fake.calls == []
    assert os.listdir(here) == ["numbers.csv"]


@pytest.mark.parametrize("option", ["splits 2", "test-share 0.3"])
def test_given_test_rows_are_not_split(option, here, capsys):
    (here / "more.csv").write_bytes((here / "numbers.csv").read_bytes())
    assert compare(f"{TABLE} --test more.csv --{option}") == 2
    expected = f"--{option.split()[0]}: numbers.csv has its own test rows"
    assert expected in capsys.readouterr().err


@pytest.mark.posix
@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_an_output_is_not_the_data_under_another_name(make, here, capsys):
    before = (here / "numbers.csv").read_bytes()
    make("numbers.csv", "out.json")
    assert compare(f"{TABLE} --splits 2 --json out.json", *TUNED) == 2
    assert "--data and --json name the same file, out.json" in capsys.readouterr().err
    assert (here / "numbers.csv").read_bytes() == before


@pytest.mark.posix
def test_an_output_is_not_a_link_to_kept_runs(fake, here, capsys):
    (here / "kept").mkdir()
    (here / "out.json").symlink_to("kept/experiment.jsonl")
    assert compare("--json out.json") == 2
    assert "out.json has the name of a file of kept runs" in capsys.readouterr().err


@pytest.mark.posix
def test_a_link_that_leads_to_itself_is_refused(fake, here, capsys):
    (here / "out.json").symlink_to("out.json")
    assert compare("--json out.json") == 2
    assert "--json: out.json is a link that leads to itself" in capsys.readouterr().err


def test_plot_without_matplotlib_is_refused_and_names_the_extra(fake, capsys, monkeypatch):
    for module in ("matplotlib", "matplotlib.backends", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    assert compare("--plot out.png") == 2
    assert "pip install 'cdrop[plot]'" in capsys.readouterr().err
    assert fake.calls == []


@pytest.mark.parametrize("absent", ["jinja2", "matplotlib"])
def test_a_report_without_its_extra_is_refused(absent, fake, capsys, monkeypatch):
    for package in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None if package == absent else object())
    assert compare("--report out.html") == 2
    assert f"--report needs {absent}: pip install 'cdrop[report]'" in capsys.readouterr().err
    assert fake.calls == []


def test_jobs_without_joblib_are_refused_and_one_is_the_default(fake, capsys, monkeypatch):
    monkeypatch.setattr("cdrop.experiments.machine.package_version", lambda package: None)
    assert compare("--jobs 2") == 2
    assert "--jobs needs joblib: pip install 'cdrop[parallel]'" in capsys.readouterr().err
    assert compare("--repeats 20 --iterations 1") == 0
    assert "runs at a time" not in capsys.readouterr().out


def test_all_rules_are_offered():
    for name in cli_options.OPTIMIZERS:
        assert get_optimizer(name).name == name
    with pytest.raises(ValueError, match="expected one of") as error:
        get_optimizer("none such")
    assert all(repr(name) in str(error.value) for name in cli_options.OPTIMIZERS)


def test_options_of_the_article_reach_its_runs(fake):
    options = "--repeats 2 --iterations 30 --hidden 9 --dropout 0.25 --optimizer adam"
    options += " --learning-rate 0.01 --batch-size 16 --l2 0.5 --seed 7 --threads 1"
    assert compare(options) == 0
    last = fake.calls[-1]
    expected = {
        "units": [784, 9, 9, 10],
        "dropout": 0.25,
        "seed": 8,
        "threads": 1,
        "iterations": 30,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "batch_size": 16,
        "l2": 0.5,
    }
    assert {key: last[key] for key in expected} == expected
    assert len(fake.calls) == 4


def test_each_rate_of_a_sweep_has_an_arm(fake, capsys):
    assert compare("--repeats 2 --sweep 0.1,0.5,0.7") == 0
    assert [call.get("dropout", 0.0) for call in fake.calls] == 2 * [0.0, 0.5, 0.1, 0.7]
    out = capsys.readouterr().out
    assert "arms      without dropout, with dropout, dropout 0.1, dropout 0.7;" in out
    assert "accuracy by dropout" in out


def test_the_report_names_the_command(fake, capsys, tmp_path):
    for extra in ("matplotlib", "jinja2"):
        pytest.importorskip(extra)
    page = tmp_path / "a page.html"
    assert cli.main(["compare", "--repeats", "2", "--report", str(page)]) == 0
    assert f"Written: {page}" in capsys.readouterr().out
    command = f"cdrop compare --repeats 2 --report &#39;{page}&#39;"
    assert command in re.sub("<[^>]*>", "", page.read_text(encoding="utf-8"))  # each word is a span


# --- images ---


def test_results_on_mnist_are_next_to_the_articles(fake, capsys):
    assert compare("--repeats 2") == 0
    out = capsys.readouterr().out
    assert out.startswith("data      MNIST\n")
    assert "0.9640 +- 0.0071" in out
    assert "NOT MNIST" not in out


def test_another_metric_is_not_next_to_the_articles_accuracies(fake, capsys):
    assert compare("--repeats 2 --metric log_loss") == 0
    out = capsys.readouterr().out
    assert "0.9640" not in out
    assert "(here another metric instead of accuracy)" in out
    assert "Published claims" not in out


def test_without_mnist_the_first_and_last_line_say_so(no_mnist, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert compare("--repeats 2 --json", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(f"{NOT_MNIST}drawn digits;")
    assert "MNIST was not found. Tried: everything" in lines[1]
    assert lines[2] == "Drawn digits take MNIST's place."
    assert json.loads(path.read_text())["data"]["is_mnist"] is False


def test_explicit_mnist_is_never_replaced(no_mnist, capsys):
    assert compare("--data mnist") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--data mnist: MNIST was not found" in captured.err
    assert "cdrop compare --data digits" in captured.err
    assert no_mnist.calls == []


@pytest.mark.parametrize("given", ["", "--data mnist"])
def test_damaged_mnist_is_reported_and_never_replaced(given, fake, capsys, monkeypatch):
    def fail(directory, **_):
        raise datasets.DataError("train-images: expected 60000 images, found 59999")

    monkeypatch.setattr(sources, "load_mnist", fail)
    assert compare(given) == 2
    captured = capsys.readouterr()
    assert "--data mnist: train-images: expected 60000 images, found 59999" in captured.err
    assert "digits" not in captured.err
    assert captured.out == ""
    assert fake.calls == []


@pytest.mark.parametrize(
    "given",
    [
        "--repeats 1",
        "--repeats 1 --train-size 50",
        "--splits 2",
        f"--protocol tuned --repeats 1 {' '.join(TUNED)}",
    ],
)
def test_drawn_digits_are_never_taken_for_mnist(given, fake, capsys):
    assert compare(f"--data digits {given}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1]
    subset = ", 50 training images" if "train-size" in given else ""
    assert lines[0].startswith(f"{NOT_MNIST}drawn digits{subset};")


def test_a_subset_of_mnist_is_mnist_but_not_the_articles(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert compare("--repeats 2 --train-size 50 --json", path) == 0
    out = capsys.readouterr().out
    assert out.startswith("data      MNIST, 50 training images\n")
    assert "NOT MNIST" not in out
    assert "0.9640" not in out
    assert "(here MNIST, 50 training images instead of all of MNIST)" in " ".join(out.split())
    plain = json.loads(path.read_text())
    assert plain["data"]["is_mnist"] is True
    assert plain["data"]["train"] == 50
    assert fake.calls[0]["X"].shape == (50, 784)


def test_splits_of_images_are_drawn_from_all_rows(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert compare("--splits 3 --iterations 2 --json", path) == 0
    first, second = fake.calls[0]["X_test"], fake.calls[2]["X_test"]
    assert first.shape == second.shape == (100, 784)
    assert not np.array_equal(first, second)
    assert fake.calls[0]["X"].shape == (300, 784)
    out = capsys.readouterr().out
    assert "each repeat has its own split" in out
    assert "other splits instead of the official one" in out
    assert json.loads(path.read_text())["condition"] == "over 3 splits of these data"


def test_early_stopping_on_images(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert compare("--protocol tuned --repeats 1 --json", path, *TUNED) == 0
    plain = json.loads(path.read_text())
    assert list(plain["arms"]) == ["no dropout", "dropout"]
    assert plain["arms"]["dropout"]["candidates"][0]["patience"] > 0
    assert fake.calls == []


# --- tables ---


def test_a_table_of_ones_own(here, capsys):
    assert compare(f"{TABLE} --splits 2 --json out.json", *TUNED) == 0
    out = capsys.readouterr().out
    assert out.startswith("data      numbers.csv\nsource    the file numbers.csv\n")
    for line in (
        "task      classification: kind, 2 classes (a: 30; b: 30); always a has accuracy 0.500",
        "columns   4 numbers (x, y, time, patient); none left out",
        "rows      48 rows for training and choices, 12 for testing; each repeat has its own split",
        "Written: out.json",
    ):
        assert f"{line}\n" in out
    assert "Does dropout help on numbers.csv? log loss " in out
    assert "NOT MNIST" not in out
    plain = json.loads((here / "out.json").read_text())
    assert (plain["data"]["name"], plain["data"]["train"]) == ("numbers.csv", 48)
    assert plain["repeats_done"] == 2


def read(line, spy):
    """Return the data and the options of a short comparison."""
    assert compare(line, "--splits", 2, *TUNED) == 0
    data = spy[-1].pop("data")
    return data, spy[-1]


def test_options_of_a_table_reach_its_loader(here, spy):
    pytest.importorskip("pandas")
    write_table(
        "euro.csv",
        "gr\xf6\xdfe;code;who;old;label",
        lambda i: f"{i},5;{i % 3};{i // 4};{'none' if i % 9 else i};{i % 2}",
    )
    text = (here / "euro.csv").read_text("utf-8")
    (here / "euro.csv").write_text(text, "latin-1")
    data, _ = read(
        "--data euro.csv --label label --task classification --drop who --categories code"
        " --sep ';' --decimal , --encoding latin-1 --missing none,-",
        spy,
    )
    by_name = {column.name: column for column in data.columns}
    assert data.task == "classification"
    assert by_name["who"].reason == "dropped"
    assert by_name["code"].kind == "text"
    assert by_name["gr\xf6\xdfe"].kind == "number"
    assert by_name["old"].missing == sum(1 for i in range(60) if i % 9)


def test_each_option_of_a_table_is_passed_on(monkeypatch):
    seen = {}

    def record(source, **options):
        seen.update(source=source, **options)
        raise datasets.DataError("enough")

    monkeypatch.setattr("cdrop.datasets.load", record)
    line = (
        "--data d --label l --task regression --drop a,b --categories c --test t --group g --time w"
    )
    assert compare(f"{line} --sep '|' --decimal , --encoding e --missing=-9,x --no-header") == 2
    assert seen == {
        "source": "d",
        "label": "l",
        "task": "regression",
        "drop": ("a", "b"),
        "categories": ("c",),
        "test": "t",
        "group": "g",
        "time": "w",
        "sep": "|",
        "decimal": ",",
        "encoding": "e",
        "missing": ("-9", "x"),
        "header": False,
        "progress": True,
    }


def test_task_overrides_what_the_labels_look_like(here, spy):
    data, _ = read("--data numbers.csv --label patient", spy)
    assert data.task == "classification"
    data, _ = read("--data numbers.csv --label patient --task regression", spy)
    assert data.task == "regression"


def test_a_group_stays_together_and_later_rows_are_tested(here, spy):
    data, _ = read(f"{TABLE} --group patient", spy)
    assert len(np.unique(data.groups)) == 15
    assert data.times is None
    data, _ = read(f"{TABLE} --time time", spy)
    assert data.times.tolist() == [i * i for i in range(60)]
    assert {column.name for column in data.columns if column.used} == {"x", "y", "patient"}


def test_a_file_of_test_rows(here, spy, capsys):
    write_table(
        "later.csv", "x,y,time,patient,kind", lambda i: f"{i % 3},0.5,{i * i},{i},a", rows=5
    )
    assert compare(f"{TABLE} --test later.csv --repeats 2", *TUNED) == 0
    assert len(spy[0]["data"].test[1]) == 5
    assert "60 rows for training and choices, 5 for testing; one test" in capsys.readouterr().out


@pytest.mark.parametrize("sep", ["tab", r"'\t'"])
def test_tabs_can_be_typed(sep, here, spy):
    write_table("tabs.txt", "a,b\tkind", lambda i: f'"{i},5"\t{i % 2}')
    data, _ = read(f"--data tabs.txt --label kind --decimal , --sep {sep}", spy)
    assert [column.name for column in data.columns] == ["a,b"]


def test_a_file_without_header_has_columns_by_number(here, spy, capsys):
    write_table("bare.csv", "60,0.5,1", lambda i: f"{i},{i % 7}.5,{i % 2}")
    data, _ = read("--data bare.csv --label 2 --no-header", spy)
    assert data.target == "2"
    assert len(data.y) == 61
    read("--data bare.csv --label last", spy)
    assert "none found; columns are numbered from 0" in capsys.readouterr().out


def test_options_of_the_experiment_reach_it(here, spy):
    line = f"{TABLE} --repeats 3 --metric accuracy --margin 0.02 --seed 5 --threads 1 --jobs 1"
    line += " --test-share 0.25 --train-size 40 --rates 0.2,0.4 --l2 0,0.1 --hidden 3,2 --epochs 2"
    assert compare(f"{line} --learning-rate 0.02") == 0
    options = spy[0]
    expected = {
        "repeats": 3,
        "metric": "accuracy",
        "margin": 0.02,
        "seed": 5,
        "threads": 1,
        "n_jobs": 1,
        "test_size": 0.25,
        "train_size": 40,
        "until_decided": False,
    }
    assert {key: options[key] for key in expected} == expected
    plain, dropped = options["arms"].values()
    assert [one["l2"] for one in plain] == [0.0, 0.1]
    assert [(one["dropout"], one["l2"]) for one in dropped] == [
        (0.2, 0.0), (0.2, 0.1), (0.4, 0.0), (0.4, 0.1)
    ]  # fmt: skip
    for one in (*plain, *dropped):
        assert (one["hidden"], one["epochs"], one["learning_rate"]) == ((3, 2), 2, 0.02)


def test_until_decided_makes_at_most_100_repeats(fake, tmp_path):
    path = tmp_path / "out.json"
    assert compare("--until-decided --iterations 1 --jobs 1 --json", path) == 0
    plain = json.loads(path.read_text())
    assert plain["repeats_asked"] == 100
    assert plain["repeats_done"] == (plain["decided_at"] or 100)


def test_until_decided_stops_at_a_look(here, spy, capsys):
    options = ["--splits", 4, "--margin", 100, "--until-decided", "--json", "out.json"]
    assert compare(TABLE, *options, *TUNED) == 0
    assert spy[0]["until_decided"] is True
    plain = json.loads((here / "out.json").read_text())
    assert plain["repeats_done"] == (plain["decided_at"] or 4)


def test_numbers_as_target_and_a_metric_of_them(here, capsys):
    assert compare("--data numbers.csv --label x --metric r2 --splits 2", *TUNED) == 0
    out = capsys.readouterr().out
    assert "task      regression: x, 0 to 30; always" in out
    assert "Does dropout help on numbers.csv? R2 " in out


def test_the_articles_protocol_on_a_table(here, capsys):
    line = f"{TABLE} --protocol article --splits 3 --test-share 0.3 --json out.json"
    assert compare(line, *ARTICLE) == 0
    out = capsys.readouterr().out
    assert "(here numbers.csv instead of MNIST; " in out
    assert "Published claims" in out
    arms = json.loads((here / "out.json").read_text())["arms"]
    for name in ("without", "with"):
        assert len(arms[name]["test_accuracy"]) == 3
        assert [len(row) for row in arms[name]["loss"]] == [1, 1, 1]
        assert len(arms[name]["candidates"]) == 1


def test_the_articles_protocol_on_numbers_has_no_claims_of_accuracy(here, capsys):
    line = "--data numbers.csv --label x --protocol article --splits 2"
    assert compare(line, *ARTICLE) == 0
    assert "Published claims" not in capsys.readouterr().out


def test_excluded_columns_and_imputed_cells_are_printed(here, capsys):
    pytest.importorskip("pandas")
    write_table(
        "people.csv",
        "id,age,when,sex,name,kind",
        lambda i: (
            f"{i + 1},{i if i % 6 else ''},2024-{i % 12 + 1:02}-01,{'mf'[i % 2]},"
            f"person {i},{'ab'[i % 3 // 2]}"
        ),
    )
    assert compare("--data people.csv --label kind --splits 2", *TUNED) == 0
    out = capsys.readouterr().out
    assert "columns   1 number (age), 1 of text (sex 2), 1 date (when); 2 left out\n" in out
    assert "left out  id (numbers the rows), name (text, 60 values in 60 rows)\n" in out
    assert "cells     10 missing (age 10); numbers take the median of the training rows" in out


def test_a_refusal_names_all_unfit_columns_and_a_command_that_works(here, capsys, monkeypatch):
    monkeypatch.setattr(columns, "has_extra", lambda: False)
    monkeypatch.setattr("cdrop.datasets.assemble.has_extra", lambda: False)
    write_table(
        "mixed.csv",
        "x,home town,it's,when,kind",
        lambda i: f"{i * i % 50},{'AB'[i % 2]},{'CD'[i % 4 // 2]},2024-{i % 9 + 1:02}-01,{i % 2}",
    )
    line = "--data mixed.csv --label kind"
    assert compare(line) == 2
    error = capsys.readouterr().err
    for name in ("home town", "it's", "when"):
        assert repr(name) in error
    assert 'pip install "cdrop[table]"' in error
    option = re.search(r", or (--drop .*)\)$", error, re.MULTILINE)[1]
    assert compare(f"{line} {option} --splits 2", *TUNED) == 0
    assert "1 number (x); 3 left out" in capsys.readouterr().out


def test_a_bad_table_is_an_error(here, capsys):
    (here / "own.csv").write_text("x,kind\n1,a\n2,b,c\n3,a\n")
    assert compare("--data", here / "own.csv", "--label", "kind") == 2
    captured = capsys.readouterr()
    assert f"--data {here / 'own.csv'}: line 3: expected 2 values between ','" in captured.err
    assert captured.err.count("own.csv") == 1
    assert captured.out == ""


@pytest.mark.parametrize("protocol", ["tuned", "article"])
def test_numbers_too_large_to_standardize_are_an_error_of_the_data(protocol, here, capsys):
    write_table("large.csv", "x,kind", lambda i: f"{(-1) ** i}e308,{i % 2}")
    options = f"--label kind --protocol {protocol} --splits 2 --jobs 1 --checkpoint kept"
    assert compare(f"--data large.csv {options}") == 1
    error = capsys.readouterr().err
    assert error.startswith("cdrop compare: error: --data large.csv: column x cannot be standard")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data numbers.csv --label knd", "--label: label is 'knd'; expected a column among 'x',"),
        (f"{TABLE} --drop z", "--drop: drop is 'z'; expected a column among 'x', 'y', 'time'"),
        (f"{TABLE} --test absent.csv", "--test absent.csv: expected a file, found none"),
        ("--data absent.csv --label x", "--data absent.csv: expected 'mnist', 'digits', a directo"),
    ],
)
def test_what_is_not_there_is_named_by_its_option(line, message, here, capsys):
    assert compare(line) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cdrop compare: error: {message}")
    assert "cdrop compare --data digits" not in error


def test_an_empty_directory_is_an_error(tmp_path):
    done = run("compare", "--data", tmp_path, *ARTICLE)
    assert done.returncode == 2
    assert done.stderr.count(str(tmp_path)) == 1
    assert "Traceback" not in done.stderr


def test_memory_of_large_data_is_printed_before_the_work(here, capsys, monkeypatch):
    monkeypatch.setattr(Problem, "memory", lambda self, *sizes: 1_234_567_890)
    monkeypatch.setattr("cdrop.experiments.paired.run", lambda *_: 1 / 0)  # as if training diverged
    assert compare(f"{TABLE} --splits 2 --jobs 1") == 1
    out = capsys.readouterr().out
    heading = out[: out.index("INCOMPLETE: division by zero")]
    assert "memory    about 1.2 GB for the rows and their copies\n" in heading


def test_too_little_memory_is_an_error_without_traceback(here, capsys, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(sources, "load_csv", fail)
    assert compare(TABLE) == 1
    assert "--data numbers.csv: Unable to allocate 9 TiB" in capsys.readouterr().err


# --- whole runs ---


def test_a_directory_from_end_to_end(idx_directory, tmp_path):
    pytest.importorskip("matplotlib")
    saved, picture = tmp_path / "out.json", tmp_path / "out.png"
    done = run(
        "compare", "--data", idx_directory, "--repeats", 3, *ARTICLE, "--json", saved,
        "--plot", picture,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(f"{NOT_MNIST}shapes")
    assert "repeat 3 of 3" in done.stderr
    plain = json.loads(saved.read_text())
    for arm in ("without", "with"):
        accuracy = plain["arms"][arm]["test_accuracy"]
        assert len(accuracy) == 3
        assert all(0 <= a <= 1 for a in accuracy)
        assert [len(row) for row in plain["arms"][arm]["loss"]] == [1, 1, 1]
        assert f"{plain['arms'][arm]['mean_test_accuracy']:.4f} +- " in done.stdout
    assert plain["complete"] is True
    assert plain["data"]["train"] == 400
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.png"]


def test_several_jobs_print_progress_and_the_same_numbers(here, capsys):
    pytest.importorskip("joblib")
    texts = []
    for jobs in ("1", "2"):
        assert compare(f"{TABLE} --splits 3 --json", f"{jobs}.json", *TUNED[:-1], jobs) == 0
        captured = capsys.readouterr()
        assert ("2 runs at a time, 1 thread each" in captured.out) == (jobs == "2")
        assert len(lines := captured.err.splitlines()) == 3
        assert "100% done, about 0:00 min left" in lines[-1]
        texts.append(timeless(json.loads((here / f"{jobs}.json").read_text())))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("longest", [compare_command.SHORT, 0])
def test_short_runs_take_place_in_threads_with_the_same_numbers(
    longest, here, idx_directory, capsys, monkeypatch
):
    pytest.importorskip("joblib")
    monkeypatch.setattr(cdrop, "get_num_threads", lambda: 2)
    monkeypatch.setattr(compare_command, "SHORT", longest)
    line = f"--data '{idx_directory}' --repeats 2 --iterations 20 --hidden 8"
    texts = []
    for jobs in ("", "--jobs 1"):
        assert compare(f"{line} --batch-size 32 --json saved.json {jobs}") == 0
        several = "2 runs at a time, 1 thread each" in capsys.readouterr().out
        assert several == (jobs == "" and longest > 0)
        texts.append(timeless(json.loads((here / "saved.json").read_text())))
        (here / "saved.json").unlink()
    assert texts[0] == texts[1]


@pytest.mark.posix
def test_ctrl_c_reports_and_saves_the_finished_repeats(idx_directory, tmp_path):
    saved = tmp_path / "out.json"
    with subprocess.Popen(
        python(
            "compare", "--data", idx_directory, "--repeats", 40, "--iterations", 4000, "--hidden",
            8, "--batch-size", 32, "--threads", 1, "--json", saved,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells have their background jobs ignore it, and these tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stderr.readline().startswith("repeat 2 of 40")
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    plain = json.loads(saved.read_text())
    done = plain["repeats_done"]
    assert 2 <= done < 40
    assert plain["complete"] is False
    assert len(plain["arms"]["with"]["test_accuracy"]) == done
    assert f"INCOMPLETE: interrupted after {done} of 40 repeats." in out
    assert out.splitlines()[-1].startswith(NOT_MNIST)
    assert "Traceback" not in error


@pytest.mark.posix
def test_ctrl_c_while_results_are_saved_is_ignored(fake, capsys, tmp_path, monkeypatch):
    from cdrop import _files

    path, write = tmp_path / "out.json", _files.write_atomically

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(_files, "write_atomically", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert compare("--repeats 2 --json", path) == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads(path.read_text())["repeats_done"] == 2


def test_ctrl_c_before_the_experiment(fake, capsys, monkeypatch):
    def interrupt(directory, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "load_mnist", interrupt)
    assert compare("") == 130
    assert capsys.readouterr().err == "cdrop compare: interrupted\n"


def test_a_killed_comparison_resumes_to_the_same_json(idx_directory, tmp_path, capsys):
    kept, saved = tmp_path / "kept", [tmp_path / "whole.json", tmp_path / "resumed.json"]
    line = f"--data '{idx_directory}' --repeats 3 --iterations 1000 --hidden 8 --threads 1"
    assert compare(line, "--json", saved[0]) == 0
    line += f" --checkpoint '{kept}'"
    command = python("compare", *shlex.split(line))
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr.readline().startswith(b"repeat 1 of 3")
        process.kill()
    capsys.readouterr()
    assert compare(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"--checkpoint: {kept} is not empty; expected" in captured.err
    assert compare(f"{line} --l2 1 --resume") == 2
    error = capsys.readouterr().err
    assert "error: --checkpoint: " in error
    assert re.search(r"l2 .*0\.001.*1\.0", error)
    assert compare(f"{line} --resume --json", saved[1]) == 0
    captured = capsys.readouterr()
    assert re.search(rf"record    {kept}: [2-5] runs finished before\n", captured.out)
    lines = [text.split(":")[0] for text in captured.err.splitlines()]
    assert lines == [f"repeat {number} of 3" for number in (2, 3)][-len(lines) :]  # what was left
    whole, resumed = (json.loads(path.read_text()) for path in saved)
    assert timeless(resumed) == timeless(whole)


@pytest.mark.linux
@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_comparison_that_is_killed_leaves_no_workers(end, here):
    pytest.importorskip("joblib")
    mark = f"CDROP_TEST_MARK={os.getpid()}-{end}"
    line = python("compare", "--data", "digits", *ARTICLE[:-2], "--repeats", 500, "--jobs", 2)
    env = dict(os.environ, **dict([mark.split("=")]))
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env) as run:
        run.stderr.readline()  # of a finished repeat
        assert len(processes_with(mark)) > 2
        run.send_signal(getattr(signal, end))
        run.wait()
        for _ in range(300):
            if not processes_with(mark):
                break
            time.sleep(0.1)
        assert processes_with(mark) == []


def processes_with(mark):
    """Return the processes that have this in their environment."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{number}/environ", "rb") as stream:
            if mark.encode() in stream.read().split(b"\0"):
                found.append(number)
    return found


@pytest.mark.posix
def test_no_more_workers_are_started_than_there_are_runs(fake, monkeypatch):
    pytest.importorskip("joblib")
    asked = []
    monkeypatch.setattr(
        "joblib.Parallel", lambda n_jobs, **_: asked.append(n_jobs) or (lambda tasks: [])
    )
    compare("--repeats 3 --jobs 1000")
    assert asked == [6]


def test_a_single_run_that_is_left_takes_place_here(fake, here, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.setattr("joblib.Parallel", lambda **_: 1 / 0)
    fake.fault, fake.fault_at = KeyboardInterrupt, 1
    assert compare("--repeats 1 --jobs 1 --checkpoint kept") == 130
    fake.fault_at = None
    assert compare("--repeats 1 --jobs 1000 --checkpoint kept --resume") == 0


def test_a_billion_repeats_are_not_listed_beforehand(fake, capsys):
    fake.fault, fake.fault_at = KeyboardInterrupt, 4
    for option in ("", "--until-decided"):
        del fake.calls[:]
        tracemalloc.start()
        assert compare(f"--repeats {10**9} --jobs 1 {option}") == 130
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
    assert "at most 1,000,000,000 repeats" in capsys.readouterr().out


def test_ctrl_c_says_how_to_resume(fake, capsys, tmp_path):
    kept = tmp_path / "kept"
    fake.fault, fake.fault_at = KeyboardInterrupt, 3
    assert compare("--jobs 1 --checkpoint", kept) == 130
    out = capsys.readouterr().out
    assert f"record    {kept}\n" in out
    assert f"3 finished runs in {kept}; the same command with --resume continues." in out
    assert compare("--jobs 1 --resume --checkpoint", kept) == 0
    assert f"record    {kept}: 3 runs finished before" in capsys.readouterr().out
    assert [call["seed"] for call in fake.calls] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]


def test_ctrl_c_before_the_first_pair_leaves_an_older_file_alone(fake, capsys, tmp_path):
    path = tmp_path / "out.png"
    path.write_text("older results")
    pytest.importorskip("matplotlib")
    fake.fault, fake.fault_at = KeyboardInterrupt, 1
    assert compare("--plot", path) == 130
    assert path.read_text() == "older results"
    assert f"{path} was not written: no repeat was finished." in capsys.readouterr().out


def test_training_that_diverges_fails_and_keeps_the_rest(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    fake.fault, fake.fault_at = FloatingPointError("the loss of step 9 is not finite"), 4
    assert compare("--jobs 1 --json", path) == 1
    out = capsys.readouterr().out
    assert "with seed 2: the loss of step 9 is not finite after 2 of 5" in out
    assert json.loads(path.read_text())["repeats_done"] == 2


def test_a_file_that_fails_after_the_work_loses_nothing(fake, capsys, tmp_path, monkeypatch):
    def fail(path, write):
        raise OSError("no space left on device")

    monkeypatch.setattr("cdrop._files.write_atomically", fail)
    assert compare("--repeats 2 --json", tmp_path / "out.json") == 1
    captured = capsys.readouterr()
    assert "was not written: no space left on device" in captured.err
    start = captured.out.index('{\n  "format"')
    plain, _ = json.JSONDecoder().raw_decode(captured.out[start:])
    assert len(plain["arms"]["with"]["test_accuracy"]) == 2
    assert "Test scores" in captured.out


@pytest.mark.parametrize("view", ["plot", "report"])
def test_a_view_that_fails_costs_no_other_file(view, fake, capsys, tmp_path, monkeypatch):
    for extra in ("matplotlib", "jinja2"):
        pytest.importorskip(extra)

    def fail(*_, **__):
        raise RuntimeError("a bug in a writer")

    name = {"plot": "plot", "report": "write_report"}[view]
    monkeypatch.setattr(f"cdrop.experiments.ExperimentResult.{name}", fail)
    options = ["--json", tmp_path / "out.json", f"--{view}", tmp_path / "out.svg"]
    assert compare("--repeats 2", *options) == 1
    captured = capsys.readouterr()
    assert f"cdrop compare: error: {tmp_path / 'out.svg'} was not written: a bug" in captured.err
    assert json.loads((tmp_path / "out.json").read_text())["repeats_done"] == 2
    assert "Test scores" in captured.out


def test_refused_by_the_network_is_an_error_without_traceback(fake, capsys):
    fake.fault, fake.fault_at = ValueError("the batch is odd"), 0
    assert compare("") == 1
    assert "cdrop compare: error: the batch is odd" in capsys.readouterr().err


# --- streams ---

QUICK = ["compare", "--data", "numbers.csv", "--label", "kind", *TUNED[:-2], "--json", "out.json"]


def in_shell(redirected, *arguments):
    """Run a command in a shell that redirects or closes some of its streams."""
    line = f"{shlex.join(python(*arguments))} {redirected}"
    return subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)


@pytest.mark.posix
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("options", [["--splits", 2], ["--splits", 4, "--jobs", 2]])
def test_without_standard_streams_the_work_is_done(closed, options, here):
    if "--jobs" in options:
        pytest.importorskip("joblib")
    done = in_shell(closed, *QUICK, *options)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert json.loads((here / "out.json").read_text())["repeats_done"] == options[1]
    assert bool(done.stdout) == (closed == "2>&-")


@pytest.mark.posix
def test_without_standard_error_no_error_goes_to_standard_output():
    for line in (["info", "--bad"], ["compare", "--data", "absent.csv", "--label", "x"]):
        done = in_shell("2>&-", *line)
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.posix
@pytest.mark.parametrize("line", [["--help"], ["--version"], ["info"], QUICK])
def test_a_full_standard_output_is_an_error_before_the_work(line, here):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    done = in_shell("> /dev/full", *line)
    assert done.returncode == 1
    assert done.stderr.endswith("error: standard output: No space left on device\n")
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(here) == ["numbers.csv"]


def test_a_full_standard_output_after_the_work_costs_no_file(fake, here, capsys, monkeypatch):
    class Filling(io.StringIO):
        def flush(self):
            if "Test scores" in self.getvalue():
                raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self):
            return stand_in.fileno()

    with open(here / "stand-in", "w") as stand_in:
        monkeypatch.setattr(sys, "stdout", Filling())
        assert compare("--repeats 2 --json out.json") == 1
    assert "standard output: No space left on device" in capsys.readouterr().err
    assert json.loads((here / "out.json").read_text())["repeats_done"] == 2


@pytest.mark.posix
def test_names_that_the_encoding_lacks_or_a_terminal_obeys_are_escaped(here):
    write_table("odd.csv", "x,größe\x1b]0;,kind", lambda i: f"{i % 7},{i % 5},{'aж'[i % 2]}")
    line = python("compare", "--data", "odd.csv", "--label", "kind", *TUNED, "--splits", 2)
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0
    assert r"gr\xf6\xdfe\x1b]0;" in done.stdout
    assert r"\u0436: 30" in done.stdout


@pytest.mark.posix
def test_a_reader_that_leaves_does_not_cost_the_results(idx_directory, tmp_path):
    saved = tmp_path / "out.json"
    with subprocess.Popen(
        python(
            "compare", "--data", idx_directory, "--repeats", 2, *ARTICLE, "--json", saved
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in error
    assert json.loads(saved.read_text())["repeats_done"] == 2


def test_progress_lines_are_sparse(fake, capsys):
    assert compare("--repeats 200 --iterations 1 --jobs 1") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == progress.MOST_LINES
    assert lines[-1].startswith("repeat 200 of 200")
    assert "100% done, about 0:00 min left" in lines[-1]


# --- the other commands ---


@pytest.fixture
def tiny_rows(monkeypatch):
    """Let `cdrop paper` train rows of tiny nets on few drawn digits."""
    tiny = {n: replace(row, hidden=(4,) * len(row.hidden)) for n, row in paper.ROWS.items()}
    monkeypatch.setattr(paper, "ROWS", tiny)
    digits = small_dataset("drawn digits (not MNIST)", train=60, validation=0, test=50)
    monkeypatch.setattr(sources, "drawn_digits", lambda seed, validation: digits)


def test_rows_of_the_paper(tiny_rows, capsys, tmp_path):
    path = tmp_path / "out.json"
    line = f"relu max-norm --data digits --repeats 2 --epochs 1 --train-size 50 --json '{path}'"
    assert cli.main(["paper", *shlex.split(line)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(f"{NOT_MNIST}drawn digits, 50 training images;")
    assert f"Written: {path}" in lines
    assert "repeat 2 of 2: accuracy" in captured.err
    rows = json.loads(path.read_text())["rows"]
    assert [len(row["error_percent"]) for row in rows] == [2, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data own.csv", "--data own.csv: expected mnist, digits, or a directory of IDX files"),
        ("--data digits --train-size 61", "--train-size: train_size is 61; expected "),
        ("--data digits --resume", "--resume needs --checkpoint DIR"),
        ("--data digits --json absent/out.json", "--json: absent/out.json: there is no directory"),
    ],
)
def test_rows_of_the_paper_are_refused_before_the_work(line, message, tiny_rows, here, capsys):
    assert cli.main(["paper", *shlex.split(line)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"cdrop paper: error: {message}")
    assert captured.out == ""


def test_a_time_limit_excuses_only_what_it_stopped(tiny_rows, monkeypatch):
    line = shlex.split("paper relu --data digits --repeats 1 --epochs 1 --time-limit")
    assert cli.main([*line, "1e-9"]) == 0
    monkeypatch.setattr("cdrop.experiments.paired.run", lambda *_: 1 / 0)  # as if training diverged
    assert cli.main([*line, "60"]) == 1


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_text_fits_the_terminal(columns, here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert compare(f"{TABLE} --splits 2", *TUNED) == 0
    longest = max(map(len, capsys.readouterr().out.splitlines()))
    assert min(columns, 100) - 10 <= longest <= min(columns, 100)


def test_info(capsys, monkeypatch):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"cdrop     {cdrop.__version__}" in out
    assert f"SIMD      {cdrop.kernels.simd()} is in use" in out
    assert f"threads   {cdrop.get_num_threads()} (" in out
    names = "sklearn table io onnx stats plot report progress parallel data"
    for extra in names.split():
        assert re.search(rf"^(extras   |         ) {extra} ", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 100
    monkeypatch.setattr("cdrop.experiments.machine.package_version", lambda package: None)
    assert cli.main(["info"]) == 0
    assert "table     absent: pip install 'cdrop[table]'" in capsys.readouterr().out


def test_info_of_a_user_without_a_home(capsys, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    for name in ("CDROP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", fail)
    assert cli.main(["info"]) == 0
    assert (
        "cache     none: no home directory to keep data in: set CDROP_CACHE"
        in capsys.readouterr().out
    )


@pytest.mark.posix
def test_a_deleted_working_directory_is_an_error_before_the_work(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    run_there = f"cd {gone} && rmdir {gone} && {shlex.join(python('compare', '--data', 'digits'))}"
    for option in ("--json x.json", "--report x.html", "--checkpoint kept"):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            f"{run_there} {option}", shell=True, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"cdrop compare: error: {option.split()[0]}: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.posix
def test_a_full_disk_of_the_kept_runs_is_named(fake, here, capsys, monkeypatch):
    sync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr("cdrop.experiments.ledger.os.fsync", full)
    assert compare("--repeats 5 --checkpoint kept") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"cdrop compare: error: .*No space left on device: 'kept.experiment\.\w+'", error
    )


@pytest.mark.parametrize("width", [10**11, 10**15])
def test_too_wide_layers_are_refused_before_the_work(width, here, capsys):
    for protocol in ("article --repeats 2", "tuned --splits 2"):
        line = f"--data numbers.csv --label kind --protocol {protocol} --hidden {width}"
        assert compare(line) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith(f"cdrop compare: error: --hidden {width}: the weights of")
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("option", ["plot", "report"])
def test_a_name_with_signs_of_mathematics_or_odd_bytes_is_drawn(option, here):
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    name = os.fsdecode(b"$x_{$ \\frac\xff.csv")
    os.rename("numbers.csv", name)
    line = f"--data {shlex.quote(name)} --label kind {shlex.join(TUNED)} --splits 2"
    assert compare(f"{line} --{option}", f"out.{'png' if option == 'plot' else 'html'}") == 0


def test_info_says_where_the_threads_come_from():
    done = run("info", env={**os.environ, "CDROP_NUM_THREADS": "1"})
    assert "threads   1 (CDROP_NUM_THREADS)" in done.stdout


@pytest.mark.parametrize(
    "program", [["-m", "cdrop"], ["-mcdrop"], ["-W", "error", "cdrop"]], ids=str
)
@pytest.mark.parametrize("variable", ["CDROP_SIMD=mmx", "CDROP_NUM_THREADS=abc"])
def test_bad_variable_of_the_environment_is_one_line(variable, program, tmp_path):
    name, _, value = variable.partition("=")
    script = tmp_path / "cdrop"  # as pip writes it
    script.write_text("import sys\nfrom cdrop.cli import main\nsys.exit(main())\n")
    program = [str(script) if word == "cdrop" and "-m" not in program else word for word in program]
    done = subprocess.run(
        [sys.executable, *program, "info"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(rf"cdrop: error: {name} is {value!r}; expected .*\n", done.stderr)
    assert done.stdout == ""


def test_bad_variable_is_an_exception_of_the_import(tmp_path):
    for arguments in (["-c", "import cdrop", "-m", "cdrop"], [str(tmp_path / "own.py")]):
        (tmp_path / "own.py").write_text("import cdrop\n")
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "CDROP_SIMD": "mmx"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "ImportError: CDROP_SIMD is 'mmx'" in done.stderr


PARSER = cli.build_parser()
COMMANDS = next(action.choices for action in PARSER._actions if action.dest == "command")
LISTS = [
    option
    for action in COMMANDS["compare"]._actions
    for option in action.option_strings
    if str(action.metavar).endswith(",...")
]


def test_lists_are_the_options_whose_values_have_commas():
    expected = {"--categories", "--drop", "--hidden", "--l2", "--missing", "--rates", "--sweep"}
    assert set(LISTS) == expected


@pytest.mark.parametrize("equals", ["=", " "])
@pytest.mark.parametrize("option", LISTS)
def test_values_of_a_list_with_blanks_between_them_show_the_call(option, equals, fake, capsys):
    values = "64 32 16" if option == "--hidden" else "0.1 0.2 0.3"
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", *f"{option}{equals}{values} --seed 3".split()])
    error = capsys.readouterr().err
    assert error.startswith("usage: cdrop compare ")
    assert f"cdrop compare: error: unrecognized arguments: {values.partition(' ')[2]}; " in error
    assert error.rstrip().endswith(f"commas and no blanks: {option} {values.replace(' ', ',')}")
    assert fake.calls == []


@pytest.mark.parametrize("values", ["0.1,", "0.1,,0.2", "0.1, ,0.2"])
def test_a_list_with_an_empty_value_is_refused(values, fake, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", "--rates", values])
    error = capsys.readouterr().err
    assert f"one comma and no blanks between them, got {values!r}" in error


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("bench --data mnist", "--data mnist"),
        ("info all", "all"),
        ("compare --seed 1 2", "2"),
        ("compare --rates 0.1 --none 3", "--none 3"),
        ("paper --sweep 0.1", "--sweep"),
    ],
)
def test_unknown_arguments_show_the_usage_of_the_command(line, unknown, fake, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(line.split())
    command = line.split()[0]
    error = capsys.readouterr().err
    assert error.startswith(f"usage: cdrop {command} ")
    assert f"cdrop {command}: error: " in error
    if command != "paper":  # whose rows are checked first
        assert error.rstrip().endswith(f"error: unrecognized arguments: {unknown}")
