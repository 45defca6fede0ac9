"""Checkpoints: fits and comparisons that are killed, by kill -9 at any moment, and what a checkpoint costs."""

import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from campaign import Run, campaign
from comparisons import timeless, write_idx_directory
from conftest import problem
from killed_fits import (
    Fit,
    Victims,
    careless_losses,
    comparison,
    kill_comparison,
    kill_fit,
)

from cdrop import Network


def report(run: Run, what, kill, kills, torn, seconds, expected, victims):
    """Run the control, and report both figures."""
    trials = run.trials(25)
    lost = careless_losses(victims, run.directory, kill, expected, trials, run.seed)
    for row in (18, 21):
        run.figure(
            row,
            f"{kills} kills of {what}, {torn} of them within a write: 0 lost, 0 behind what was acknowledged, 0 stale "
            f"files, every resumed one byte for byte as if never stopped ({seconds:.0f} s); control: a careless writer "
            f"lost {lost} of {trials}",
            lost > 0,
        )


@campaign(18, 21)
def fit_kills(run: Run):
    """Kill fits with checkpoints, by iterations and by epochs, on every SIMD path; all must end with the same bytes."""
    draw, start, kills, torn = random.Random(run.seed), time.monotonic(), 0, 0
    expected = {kind: Fit(kind).run() for kind in ("iterations", "epochs")}
    with Victims() as victims:
        while kills < run.trials(500):
            kind = draw.choice(list(expected))
            more = kill_fit(victims, run.directory, draw, kind, expected[kind])
            kills, torn = kills + more[0], torn + more[1]
        seconds, kill = time.monotonic() - start, functools.partial(kill_fit, kind="epochs")
        report(run, "fits", kill, kills, torn, seconds, expected["epochs"], victims)


@campaign(18, 21)
def compare_kills(run: Run):
    """Kill comparisons whose runs are kept; all must end with the same numbers."""
    draw, expected, kills, torn = random.Random(run.seed), comparison(), 0, 0
    start = time.monotonic()
    with Victims() as victims:
        while kills < run.trials(500):
            more = kill_comparison(victims, run.directory, draw, expected)
            kills, torn = kills + more[0], torn + more[1]
        seconds = time.monotonic() - start
        report(run, "comparisons", kill_comparison, kills, torn, seconds, expected, victims)


def command(data, *arguments):
    """`cdrop compare`, in a separate process."""
    sizes = "--repeats 3 --iterations 2500 --hidden 16 --batch-size 64"
    whole = [sys.executable, "-m", "cdrop", "compare", "--data", data, *sizes.split(), *arguments]
    return subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def result(path: Path):
    return timeless(json.loads(path.read_text()))


@campaign(18, 21)
def command_kills(run: Run):
    """Kill `cdrop compare --checkpoint DIR --resume` again and again; its JSON must be that of one never stopped."""
    draw, kills, out, kept = (
        random.Random(run.seed),
        0,
        run.directory / "out",
        run.directory / "kept",
    )
    data = run.directory / "data"
    data.mkdir()
    write_idx_directory(data)
    start = time.monotonic()
    assert command(data, "--json", out).wait() == 0
    once, expected = time.monotonic() - start, result(out)
    for _ in range(run.trials(20)):
        out.unlink()
        ended = None
        while ended is None:
            process = command(data, "--checkpoint", kept, "--resume", "--json", out)
            try:
                ended = process.wait(draw.uniform(0.2, 0.8) * once)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        assert ended == 0
        assert result(out) == expected
        assert os.listdir(kept) == ["experiment.jsonl"]
        (kept / "experiment.jsonl").unlink()
    run.figure(
        21,
        f"{kills} kills of cdrop compare --resume: every JSON as of one never stopped, times apart",
        kills > 0,
    )


@campaign(21)
def checkpoint_time(run: Run):
    """Time checkpoints of the article's network against its training steps."""
    x, y = problem([784, 10], rows=5000)
    net, rounds = Network([784, 256, 256, 10], dropout=0.5), run.trials(11)

    def seconds(**options):
        start = time.perf_counter()
        net.fit(x, y, iterations=1000, **options)
        return time.perf_counter() - start

    seconds()
    plain, kept = [], []
    for number in range(rounds):
        plain.append(seconds())
        path = run.directory / f"{number}"
        kept.append(seconds(checkpoint=path, checkpoint_every=100))
    size = path.stat().st_size / 2**20
    begin, end = (statistics.median(times) for times in (plain, kept))
    run.figure(
        21,
        f"784-256-256-10: a checkpoint of {size:.1f} MiB takes {(end - begin) / 12 * 1e3:.0f} ms, against "
        f"{begin:.3f} s for 1,000 steps (medians of {rounds})",
    )
