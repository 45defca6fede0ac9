"""The command line: options, exit codes, what is printed and what is saved."""

import json
import os
import signal
import subprocess
import sys

import pytest
from comparisons import FakeTrainer, small_dataset, timeless, write_idx_folder

import cdrop
from cdrop import cli, datasets, progress
from cdrop.datasets import sources
from cdrop.experiments import compare as compare_arms
from cdrop.optimizers import get_optimizer

NOT_MNIST = "NOT MNIST: the data are "
TINY = ["--iterations", "20", "--hidden", "8", "--batch-size", "32"]


def run(*arguments, **options):
    """`python -m cdrop ...` in a process of its own."""
    command = [sys.executable, "-m", "cdrop", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory):
    """A folder with the four IDX files."""
    return write_idx_folder(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def fake(monkeypatch):
    """Let `cdrop compare` train nothing: data at once, numbers from a `FakeTrainer`."""
    trainer = FakeTrainer()
    digits = small_dataset("drawn digits (not MNIST)")
    monkeypatch.setattr(sources, "drawn_digits", lambda seed, **_: digits)
    monkeypatch.setattr(sources, "load_mnist", lambda folder, **_: small_dataset("MNIST"))
    monkeypatch.setattr(
        "cdrop.experiments.compare",
        lambda *args, **options: compare_arms(*args, network=trainer, **options),
    )
    return trainer


@pytest.fixture
def no_mnist(fake, monkeypatch):
    def fail(folder, **_):
        raise datasets.DataNotFoundError("MNIST was not found. Tried: everything")

    monkeypatch.setattr(sources, "load_mnist", fail)
    return fake


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
    for text in ("--repeats", "--json FILE", "examples:", "exit codes:"):
        assert text in out


def test_help_is_quick_to_import():
    code = (
        "import sys, cdrop.cli\n"
        "try: cdrop.cli.main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('scipy', 'matplotlib', 'tqdm', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--repeats", "0", "a whole number of at least 1"),
        ("--repeats", "2.5", "a whole number of at least 1"),
        ("--iterations", "-3", "a whole number of at least 1"),
        ("--hidden", "many", "a whole number of at least 1"),
        ("--batch-size", "0", "a whole number of at least 1"),
        ("--threads", "0", "a whole number from 1 to"),
        ("--threads", "100000", "a whole number from 1 to"),
        ("--seed", "-1", "a whole number of at least 0"),
        ("--dropout", "1", "a finite number of at least 0 and below 1"),
        ("--dropout", "nan", "a finite number of at least 0 and below 1"),
        ("--dropout", "-0.1", "a finite number of at least 0 and below 1"),
        ("--sweep", "1", "a finite number of at least 0 and below 1"),
        ("--sweep", "", "a finite number of at least 0 and below 1"),
        ("--learning-rate", "0", "a finite number above 0"),
        ("--learning-rate", "inf", "a finite number above 0"),
        ("--l2", "-1e-3", "a finite number of at least 0"),
        ("--l2", "x", "a finite number of at least 0"),
        ("--train-size", "0", "a whole number of at least 1"),
        ("--test-share", "0", "a finite number above 0 and below 1"),
        ("--test-share", "1", "a finite number above 0 and below 1"),
    ],
)
def test_bad_values_name_option_value_and_what_is_expected(option, value, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", f"{option}={value}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"argument {option}: expected {expected}" in error
    assert f"got '{value}'" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adamw"], "expected --l2 0, got 0.001"),
        (["--seed", str(2**64 - 4)], "expected at most 2**64 - 5"),
        (["--resume"], "--resume needs --checkpoint DIR"),
        (["--checkpoint", "absent/kept"], "--checkpoint: absent/kept: there is no directory"),
        (["--json", "absent/out.json"], "--json: absent/out.json: there is no directory"),
        (["--json", "."], "--json: . is a directory"),
        (["--plot", "out.docx"], "--plot out.docx: expected a name that ends in"),
        (["--plot", "absent/out.png"], "--plot: absent/out.png: there is no directory"),
        (["--json", "out.png", "--plot", "./out.png"], "name the same file"),
        (["--report", "absent/out.html"], "--report: absent/out.html: there is no directory"),
        (["--json", "out", "--report", "./out"], "--json and --report name the same file, out"),
        (
            ["--train-size", "301"],
            "--train-size: train_size is 301; expected an integer between 1",
        ),
        (["--label", "kind"], "--data mnist: label is 'kind'; expected None"),
        (["--test-share", "0.5"], "--data mnist: test_share is 0.5; expected None"),
        (["--data", "own.csv"], "--data own.csv: label is None; expected the name of the column"),
    ],
)
def test_refused_before_any_work(arguments, message, fake, capsys, tmp_path, monkeypatch):
    if {"--plot", "--report"} & set(arguments):
        pytest.importorskip("matplotlib")
    if "--report" in arguments:
        pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert fake.calls == []
    assert list(tmp_path.iterdir()) == []


def test_plot_without_matplotlib_is_refused_and_names_the_extra(fake, capsys, monkeypatch):
    for module in ("matplotlib", "matplotlib.backends", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["compare", "--plot", "out.png"]) == 2
    assert "pip install 'cdrop[plot]'" in capsys.readouterr().err
    assert fake.calls == []


@pytest.mark.parametrize("absent", ["jinja2", "matplotlib"])
def test_a_report_without_its_extra_is_refused(absent, fake, capsys, monkeypatch):
    for package in ("jinja2", "matplotlib"):
        found = None if package == absent else object()
        monkeypatch.setitem(sys.modules, package, found)
    assert cli.main(["compare", "--report", "out.html"]) == 2
    assert f"--report needs {absent}: pip install 'cdrop[report]'" in capsys.readouterr().err
    assert fake.calls == []


def test_all_rules_are_offered():
    for name in cli.OPTIMIZERS:
        assert get_optimizer(name).name == name
    with pytest.raises(ValueError, match="expected one of") as error:
        get_optimizer("none such")
    assert all(repr(name) in str(error.value) for name in cli.OPTIMIZERS)


def test_options_reach_the_trainings(fake):
    options = "--repeats 2 --iterations 30 --hidden 9 --dropout 0.25 --optimizer adam"
    options += " --learning-rate 0.01 --batch-size 16 --l2 0.5 --seed 7 --threads 1"
    assert cli.main(["compare", *options.split()]) == 0
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
    assert cli.main(["compare", "--repeats", "2", "--sweep", "0.1,0.5,0.7"]) == 0
    assert [call["dropout"] for call in fake.calls] == 2 * [0.0, 0.5, 0.1, 0.7]
    assert "Test accuracy by the probability of dropping" in capsys.readouterr().out


def test_a_bad_rate_of_a_sweep_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare", "--sweep", "0.1,1.5"])
    assert "argument --sweep: expected a finite number" in (error := capsys.readouterr().err)
    assert "got '1.5'" in error


def test_the_report_names_the_command(fake, capsys, tmp_path):
    for extra in ("matplotlib", "jinja2"):
        pytest.importorskip(extra)
    page = tmp_path / "a page.html"
    assert cli.main(["compare", "--repeats", "2", "--report", str(page)]) == 0
    assert f"Written: {page}" in capsys.readouterr().out
    command = f"cdrop compare --repeats 2 --report &#39;{page}&#39;"
    assert command in page.read_text(encoding="utf-8")


# --- data ---


def test_mnist_stands_beside_the_article(fake, capsys):
    assert cli.main(["compare", "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("data      MNIST: ")
    assert "0.9640 +- 0.0071" in out
    assert "NOT MNIST" not in out


def test_without_mnist_the_first_and_last_line_say_so(no_mnist, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert cli.main(["compare", "--repeats", "2", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(f"{NOT_MNIST}drawn digits;")
    assert "MNIST was not found. Tried: everything" in lines[1]
    assert json.loads(path.read_text())["data"]["is_mnist"] is False


def test_explicit_mnist_is_never_replaced(no_mnist, capsys):
    assert cli.main(["compare", "--data", "mnist"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "MNIST was not found" in captured.err
    assert "cdrop compare --data digits" in captured.err
    assert no_mnist.calls == []


def test_digits_are_not_mnist(fake, capsys):
    assert cli.main(["compare", "--data", "digits", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(NOT_MNIST)


def test_a_subset_of_mnist_is_mnists_but_stands_not_beside_the_article(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    arguments = ["compare", "--repeats", "2", "--train-size", "50", "--json", str(path)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("data      MNIST, 50 training images: ")
    assert "NOT MNIST" not in out
    assert "0.9640" not in out
    assert "(here MNIST, 50 training images instead of all of MNIST)" in out
    plain = json.loads(path.read_text())
    assert plain["data"]["is_mnist"] is True
    assert plain["data"]["train"] == 50
    assert plain["comparable_with_article"] is False
    assert fake.calls[0]["X"].shape == (50, 784)


def test_drawn_digits_may_be_few_too(no_mnist, capsys):
    assert cli.main(["compare", "--repeats", "1", "--train-size", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith(f"{NOT_MNIST}drawn digits, 50 training images;")


def test_a_table_of_ones_own(tmp_path, capsys):
    rows = [f"{i % 7},{i % 3 + i / 1000},{'abc'[i % 3]}" for i in range(90)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["x,y,kind", *rows]))
    arguments = ["compare", "--data", str(path), "--label", "kind", "--test-share", "0.3", *TINY]
    assert cli.main([*arguments, "--repeats", "2", "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{NOT_MNIST}own.csv;")
    assert "data      own.csv: 63 training, 27 test rows\n" in out
    data = json.loads((tmp_path / "out.json").read_text())["data"]
    assert (data["name"], data["train"], data["test"]) == ("own.csv", 63, 27)


def test_a_bad_table_is_an_error(tmp_path, capsys):
    (tmp_path / "own.csv").write_text("x,kind\n1,a\ntwo,b\n")
    assert cli.main(["compare", "--data", str(tmp_path / "own.csv"), "--label", "kind"]) == 1
    captured = capsys.readouterr()
    assert "own.csv: line 3, column 'x': expected a finite number, found 'two'" in captured.err
    assert captured.out == ""


def test_a_table_that_cannot_be_standardised_is_an_error_of_the_data(tmp_path, capsys):
    pytest.importorskip("safetensors")
    rows = [f"{(-1) ** i}e308,{'ab'[i % 2]}" for i in range(20)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["x,kind", *rows]))
    options = ["--data", str(path), "--label", "kind", "--checkpoint", str(tmp_path / "kept")]
    assert cli.main(["compare", *options]) == 1
    assert f"--data {path}: column 0 of own.csv cannot be" in capsys.readouterr().err


def test_an_empty_folder_is_an_error(tmp_path):
    done = run("compare", "--data", tmp_path, *TINY)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


# --- whole runs ---


def test_a_folder_from_end_to_end(idx_folder, tmp_path):
    pytest.importorskip("matplotlib")
    saved, picture = tmp_path / "out.json", tmp_path / "out.png"
    done = run(
        "compare", "--data", idx_folder, "--repeats", 3, *TINY, "--json", saved, "--plot", picture
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


def test_ctrl_c_reports_and_saves_the_finished_repeats(idx_folder, tmp_path):
    saved = tmp_path / "out.json"
    command = [sys.executable, "-m", "cdrop", "compare", "--data", idx_folder, "--repeats", "40"]
    command += ["--iterations", "4000", "--hidden", "8", "--batch-size", "32", "--json", saved]
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells have their background jobs ignore it, and these tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
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


def test_a_comparison_that_is_killed_goes_on_to_the_same_json(idx_folder, tmp_path):
    pytest.importorskip("safetensors")
    kept, saved = tmp_path / "kept", [tmp_path / "whole.json", tmp_path / "resumed.json"]
    options = ["--data", idx_folder, "--repeats", 3, "--iterations", 1500, "--hidden", 8]
    assert run("compare", *options, "--json", saved[0]).returncode == 0
    command = [sys.executable, "-m", "cdrop", "compare", *map(str, options), "--checkpoint", kept]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr.readline().startswith(b"repeat 1 of 3")
        process.kill()
    options += ["--checkpoint", kept]
    done = run("compare", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--checkpoint: {kept} is not empty; expected" in done.stderr
    done = run("compare", *options, "--l2", 1, "--resume")
    assert done.returncode == 2
    assert "has another experiment: l2 of 'without' is 0.001 there, and 1.0 here" in done.stderr
    done = run("compare", *options, "--resume", "--json", saved[1])
    assert done.returncode == 0, done.stderr
    assert f"kept      in {kept}: " in done.stdout
    assert "of 6 trainings are there already" in done.stdout
    told = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert told == [f"repeat {number} of 3" for number in (2, 3)][-len(told) :]  # what was left
    whole, resumed = (json.loads(path.read_text()) for path in saved)
    assert timeless(resumed) == timeless(whole)
    assert os.listdir(kept) == ["experiment.cdrop"]


def test_ctrl_c_says_how_to_go_on(fake, capsys, tmp_path):
    pytest.importorskip("safetensors")
    options = ["compare", "--checkpoint", str(tmp_path / "kept")]
    fake.fault, fake.fault_at = KeyboardInterrupt, 3
    assert cli.main(options) == 130
    out = capsys.readouterr().out
    assert f"kept      in {tmp_path / 'kept'}, each training as it is finished\n" in out
    assert (
        f"Kept in {tmp_path / 'kept'}: 3 finished trainings. The same command with --resume" in out
    )
    assert cli.main([*options, "--resume"]) == 0
    assert "3 of 10 trainings are there already" in capsys.readouterr().out
    assert [call["seed"] for call in fake.calls] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]


def test_ctrl_c_before_the_first_pair_leaves_an_older_file_alone(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("older results")
    fake.fault, fake.fault_at = KeyboardInterrupt, 1
    assert cli.main(["compare", "--json", str(path)]) == 130
    assert path.read_text() == "older results"
    assert "was not written, for want of a finished repeat" in capsys.readouterr().out


def test_a_training_that_breaks_down_fails_and_keeps_the_rest(fake, capsys, tmp_path):
    path = tmp_path / "out.json"
    fake.fault, fake.fault_at = FloatingPointError("the loss of step 9 is not finite"), 4
    assert cli.main(["compare", "--json", str(path)]) == 1
    assert "stopped (the loss of step 9 is not finite) after 2 of 5" in capsys.readouterr().out
    assert json.loads(path.read_text())["repeats_done"] == 2


def test_a_file_that_fails_after_the_work_loses_nothing(fake, capsys, tmp_path, monkeypatch):
    def fail(path, write):
        raise OSError("no space left on device")

    monkeypatch.setattr("cdrop._files.write_atomically", fail)
    assert cli.main(["compare", "--repeats", "2", "--json", str(tmp_path / "out.json")]) == 1
    captured = capsys.readouterr()
    assert "was not written: no space left on device" in captured.err
    start = captured.out.index('{\n  "format"')
    plain, _ = json.JSONDecoder().raw_decode(captured.out[start:])
    assert len(plain["arms"]["with"]["test_accuracy"]) == 2
    assert "Test accuracy" in captured.out


def test_refused_by_the_network_is_an_error_without_traceback(fake, capsys):
    fake.fault, fake.fault_at = ValueError("batch_size is odd"), 0
    assert cli.main(["compare"]) == 1
    assert "cdrop compare: error: batch_size is odd" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe that closes")
def test_a_reader_that_leaves_does_not_cost_the_results(idx_folder, tmp_path):
    saved = tmp_path / "out.json"
    command = [sys.executable, "-m", "cdrop", "compare", "--data", idx_folder, "--repeats", "2"]
    command += [*TINY, "--json", saved]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in error
    assert json.loads(saved.read_text())["repeats_done"] == 2


def test_progress_lines_are_sparse(fake, capsys):
    assert cli.main(["compare", "--repeats", "200", "--iterations", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == progress.MOST_LINES
    assert lines[-1].startswith("repeat 200 of 200")


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"cdrop     {cdrop.__version__}" in out
    assert f"SIMD      {cdrop.kernels.simd()} is in use" in out
    assert f"threads   {cdrop.get_num_threads()} (" in out
    for extra in ("stats", "plot", "data", "progress"):
        assert extra in out


def test_info_says_where_the_threads_come_from():
    done = run("info", env={**os.environ, "CDROP_NUM_THREADS": "1"})
    assert "threads   1 (CDROP_NUM_THREADS)" in done.stdout


def test_unknown_simd_path_is_an_error():
    done = run("info", env={**os.environ, "CDROP_SIMD": "mmx"})
    assert done.returncode != 0
    assert "CDROP_SIMD is 'mmx'" in done.stderr
