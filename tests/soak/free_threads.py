"""Python without the GIL: threads that share a network or have one each, and the tests of threads and weights."""

import json
import os
import statistics
import subprocess
import time

from campaign import Run, campaign
from interpreters import copied, interpreter, tested

ROW = 24
VERSIONS = ("3.14t", "3.13t")
TESTS = ("determinism", "kernels", "network", "shared", "threads", "whole_steps")
NETWORKS = {  # units, rows of a minibatch, steps of a fit
    "784-256-256-10, batches of 256": ([784, 256, 256, 10], 256, 5),
    "4-10-3, batches of 50": ([4, 10, 3], 50, 300),
}
HAMMER = """
import sys, shared_network
made, refused = shared_network.hammer(rounds=200, seed=int(sys.argv[1]))
entered = shared_network.enter_fits(rounds=5000)
shared_network.read_changing_attributes(rounds=4000)
shared_network.take_turns(rounds=20000)
print(made, refused, entered)
"""
APART = """
from test_threads import in_threads, train_alone
seeds = range(16)
alone = [train_alone(seed, 1) for seed in seeds]
for threads in (1, 2):
    work = [lambda seed=seed: train_alone(seed, threads) for seed in seeds]
    assert in_threads(work) == alone
"""
# Prints the steps per second of threads that train a network each, from the moment on that is read when all are ready.
RATE = """
import json, sys, time
from conftest import problem
from cdrop import Network
from shared_network import in_threads
units, batch, steps, workers, seconds = json.loads(sys.argv[1])
x, y = problem(units, rows=1000)
nets = [Network(units, dropout=0.5, threads=1) for _ in range(workers)]
def train(net, until):
    made = 0
    while time.time() < until:
        net.fit(x, y, batch_size=batch, iterations=steps)
        made += steps
    return made
in_threads([lambda net=net: train(net, time.time() + 0.2) for net in nets])
print("ready", flush=True)
begin = float(sys.stdin.readline())
time.sleep(max(0, begin - time.time()))
made = sum(in_threads([lambda net=net: train(net, begin + seconds) for net in nets]))
print(made / (time.time() - begin))
"""
# How a fit was entered before: the GIL alone came between the question and the answer.
SAFE = """        entered = False
        while not entered:
            entered = self.state["_engine"].put(self.state, {"_fit": self}, {"_fit": Fitting.of(self.state)})
"""
RACY = """        Fitting.of(self.state)
        PyDict_SetItem(self.state, "_fit", self)
"""


def started(directory, code, *arguments):
    """Start code without the GIL in the environment that `make test` made in a copy."""
    command = [directory / ".venv/bin/python", "-X", "gil=0", "-W", "error", "-c", code, *arguments]
    path = f"{directory}:{directory / 'tests'}"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env={"PYTHONPATH": path}, cwd=directory, text=True, **pipes)


def finished(process, answer=""):
    """Return the exit code, and what was printed or, of an error, its last line."""
    out, error = process.communicate(answer, timeout=600)
    return process.returncode, (out if process.returncode == 0 else error).strip().splitlines()[-1:]


def hammered(run, directory, trials):
    """Run the hammer that many times; return how often it failed, and the totals of its counts."""
    failed, totals, said = 0, [0, 0, 0], []
    for trial in range(trials):
        code, said = finished(started(directory, HAMMER, str(run.seed + trial)))
        failed += code != 0
        if code == 0:
            totals = [a + int(b) for a, b in zip(totals, said[0].split(), strict=True)]
    return failed, totals, said


def rate(directory, network, processes, threads, seconds=3):
    """Return the steps per second of processes with that many threads each, each of which trains a network."""
    arguments = json.dumps([*network, threads, seconds])
    workers = [started(directory, RATE, arguments) for _ in range(processes)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n", worker.stderr.read()
    begin = f"{time.time() + 0.2}\n"
    found = [finished(worker, begin) for worker in workers]
    assert not any(code for code, _ in found), found
    return sum(float(said[0]) for _, said in found)


def report_scaling(run, directory):
    """Report how two threads train in comparison with two processes, and with one thread."""
    load = os.getloadavg()[0]
    for name, network in NETWORKS.items():
        ways = {"alone": (1, 1), "threads": (1, 2), "processes": (2, 1)}
        rates = {way: [] for way in ways}
        for _ in range(run.trials(7)):
            for way, (processes, threads) in ways.items():
                rates[way].append(rate(directory, network, processes, threads))
        middle = {way: statistics.median(found) for way, found in rates.items()}
        of_processes = middle["threads"] / middle["processes"]
        run.figure(
            ROW,
            f"{name}: two threads make {of_processes:.2f} of two processes' steps, "
            f"{middle['threads'] / middle['alone']:.2f} times those of one thread "
            f"({middle['alone']:.0f} a second); load {load:.1f} at the start",
            of_processes >= 0.9,
        )


@campaign(ROW)
def free_threads(run: Run):
    """Without the GIL: tests of threads, 20 hammers of 8 threads on one network, 16 networks in 16 threads, scaling."""
    version, python = next(((v, p) for v in VERSIONS if (p := interpreter(v))), (None, None))
    if python is None:
        raise SystemExit(
            "cdrop: this campaign needs a Python without the GIL, which is not here. uv python install 3.14t, "
            "pyenv install 3.14t, or CPython's sources: ./configure --disable-gil"
        )
    directory = copied(run.directory / "whole")
    code, said = tested(directory, python, [f"tests/test_{name}.py" for name in TESTS])
    run.figure(ROW, f"Python {version}: {said}", code == 0)
    trials = run.trials(20)
    failed, (made, refused, entered), said = hammered(run, directory, trials)
    run.figure(
        ROW,
        f"8 threads on one network, {trials} runs: {failed} failed{' ' * bool(failed)}{said if failed else ''}; "
        f"{made} steps made, {refused} calls refused as documented, {entered} fits entered",
        not failed,
    )
    code, said = finished(started(directory, APART))
    run.figure(ROW, f"16 networks in 16 threads: {'as alone' if code == 0 else said}", code == 0)
    report_scaling(run, directory)
    source = directory / "cdrop" / "_kernels.pyx"
    assert source.read_text().count(SAFE) == 1
    source.write_text(source.read_text().replace(SAFE, RACY))
    tested(directory, python, ["tests/test_determinism.py", "-k", "nothing"])  # builds
    failed, _, said = hammered(run, directory, 3)
    run.figure(ROW, f"control, fits entered without a lock: {failed} of 3 failed: {said}", failed)
