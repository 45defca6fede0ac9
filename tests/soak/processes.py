"""Forks, spawned processes, threads of Python, PyTorch and scikit-learn in the same process: nothing may hang."""

import subprocess
import time

from campaign import Run, campaign, need_module
from conftest import run_python
from test_threads import FORK, HANGING_CHILD

# From Python 3.12 a fork while threads run warns, which is what is tried here; PyTorch and scikit-learn warn, too.
FLAGS = ("-W", "error", "-W", "ignore::DeprecationWarning")


def outcomes(code, trials, limit, **environment):
    """Run code again and again, each time in a new process; return how often it hung, and the time of the slowest."""
    hung, slowest = 0, 0.0
    for trial in range(trials):
        start = time.monotonic()
        try:
            process = run_python(f"trial = {trial}\n{code}", limit, FLAGS, **environment)
        except subprocess.TimeoutExpired:
            hung += 1
            continue
        if process.returncode or process.stdout != "done\n":
            raise SystemExit(f"trial {trial} of\n{code}\nwent wrong:\n{process.stderr}")
        slowest = max(slowest, time.monotonic() - start)
    return hung, slowest


def report(run, what, code, *, limit=60):
    """Report how often 50 processes hung."""
    trials = run.trials(50)
    hung, slowest = outcomes(code, trials, limit)
    run.figure(
        15, f"{what}: {hung} of {trials} hung; slowest {slowest:.1f} s of {limit} s", hung == 0
    )


def tell_control(run, what, code, trials):
    """Report whether code that must hang is seen to."""
    hung, _ = outcomes(code, run.trials(trials), 10)
    run.figure(
        15,
        f"control, {what}: {hung} of {run.trials(trials)} hung, as they must",
        hung == run.trials(trials),
    )


# ---- Alone -------------------------------------------------------------------------------------

AFTER_THREADS = """
for threads in (2, 4, 8):
    assert train(threads) == expected
    assert fork(depth=trial % 3) in (expected, (expected, expected), (expected, (expected, expected)))
assert train() == expected
print("done")
"""

NEXT_TO_A_THREAD = """
running = True
def busy():
    while running:
        assert train() == expected
workers = [threading.Thread(target=busy) for _ in range(1 + trial % 3)]
for worker in workers:
    worker.start()
try:
    for _ in range(4):
        assert fork() == expected
finally:
    running = False
    for worker in workers:
        worker.join()
print("done")
"""

# A child whose fork fell into a call on the network gets an error; all others must answer.
WITHIN_A_STEP = """
net, running = Network([70, 300, 10], dropout=0.5, threads=1 + trial % 3), True
def busy():
    while running:
        net.train_step(x, y)
def answer(queue, depth=0):
    try:
        net.train_step(x, y)
        queue.put("trained")
    except RuntimeError as error:
        assert "half updated" in str(error)
        queue.put("raised")
worker = threading.Thread(target=busy)
worker.start()
try:
    said = [fork() for _ in range(10)]
finally:
    running = False
    worker.join()
assert "raised" in said, said
print("done")
"""

SPAWN = """
import multiprocessing
from test_threads import train_alone
if __name__ == "__main__":
    expected = train_alone(0, threads=4)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(train_alone, [0, 0, 0]) == [expected] * 3
    print("done")
"""

THREADS = """
from conftest import digest, problem
from cdrop import Network
from test_threads import in_threads, train_alone

threads = 1 + trial % 4
expected = [train_alone(seed) for seed in range(4)]
assert in_threads([lambda seed=seed: train_alone(seed, threads) for seed in range(4)]) == expected
x, y = problem([70, 10], rows=200)
shared, alone = (Network([70, 65, 10], dropout=0.5, threads=threads) for _ in range(2))
def steps(net, n):
    return lambda: [net.train_step(x, y) for _ in range(n)]
in_threads([steps(shared, 25) for _ in range(4)])
steps(alone, 100)()
assert digest(shared) == digest(alone)
print("done")
"""


@campaign(15)
def processes(run: Run):
    """Forks after and next to threads, spawned processes, threads of Python in one network and in many."""
    report(run, "3 forks after threads, of children of children too", FORK + AFTER_THREADS)
    report(run, "4 forks next to 1 to 3 threads that train", FORK + NEXT_TO_A_THREAD)
    report(run, "10 forks within steps of the child's network", FORK + WITHIN_A_STEP)
    report(run, "4 runs in spawned processes", SPAWN)
    report(run, "4 threads in one network, then in four", THREADS)
    tell_control(run, "a fork while a thread holds a lock", HANGING_CHILD, 2)


# ---- Next to other libraries --------------------------------------------------------------------

TOGETHER = """
import warnings
import torch
warnings.simplefilter("ignore")  # scikit-learn's, of fits that have not converged
from sklearn.neural_network import MLPClassifier
from test_threads import in_threads

def train_torch():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(70, 65), torch.nn.ReLU(), torch.nn.Linear(65, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
    assert loss.isfinite()

def train_sklearn():
    MLPClassifier((65,), max_iter=5, random_state=0).fit(x, y)

x, y = x.astype("f4"), y.astype("i8")
torch.set_num_threads(1 + trial % 4)
"""

IN_TURN_AND_AT_ONCE = """
turns = [train, train_torch, train_sklearn]
for i in range(6):
    turns[(trial + i) % 3]()
assert fork() == expected
for _ in range(2):
    assert in_threads([train, train_torch, train_sklearn, train])[::3] == [expected, expected]
    assert fork() == expected
assert train() == expected
print("done")
"""

# What cdrop must not do: PyTorch's child waits for threads of OpenMP that the fork has left behind.
TORCH_IN_THE_CHILD = """
import os
import torch
torch.set_num_threads(4)
def multiply():
    return float((torch.ones(512, 512) @ torch.ones(512, 512)).sum() + torch.ones(1 << 20).exp().sum())
multiply()
child = os.fork()
if not child:
    multiply()
    os._exit(0)
os.waitpid(child, 0)
print("done")
"""


@campaign(15)
def together(run: Run):
    """Training next to PyTorch and scikit-learn in one process: in turn, at once from threads, in forked children."""
    need_module("torch", pip="torch==2.13.0")
    need_module("sklearn", pip="scikit-learn")
    report(
        run,
        "in turn, at once in 4 threads, 3 forks, next to PyTorch and scikit-learn",
        FORK + TOGETHER + IN_TURN_AND_AT_ONCE,
        limit=120,
    )
    tell_control(run, "PyTorch in a child of a fork after its threads", TORCH_IN_THE_CHILD, 4)
