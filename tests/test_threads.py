"""Threads and SIMD paths: what chooses them, and training with forks, other threads and libraries."""

import os
import subprocess
import time

import pytest
from conftest import digest, problem, run_python
from shared_network import (
    enter_fits,
    hammer,
    in_threads,
    read_changing_attributes,
    take_turns,
)

import cdrop
from cdrop import Network, _kernels, kernels
from cdrop._threads import _cgroup_cpus, available_cpus, default_threads

CHOSEN = "import cdrop; print(cdrop.get_num_threads(), cdrop.kernels.simd())"


def chosen(**environment):
    process = run_python(CHOSEN, **environment)
    assert process.returncode == 0, process.stderr
    threads, path = process.stdout.split()
    return int(threads), path


# ---- The environment -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"CDROP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"CDROP_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"CDROP_NUM_THREADS": "", "OMP_NUM_THREADS": "5,2"}, 5),
        ({"CDROP_NUM_THREADS": " 4 "}, 4),
        ({"CDROP_NUM_THREADS": "100000"}, 256),
        ({"OMP_NUM_THREADS": "many"}, available_cpus()),  # not ours to judge
        ({"OMP_NUM_THREADS": "0"}, available_cpus()),
        ({}, available_cpus()),
    ],
    ids=str,
)
def test_the_environment_sets_the_number_of_threads(variables, threads, monkeypatch):
    for name in ("CDROP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_threads()[0] == threads


@pytest.mark.parametrize(
    "variables", [{"CDROP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "5"}], ids=str
)
def test_an_import_takes_the_number_from_the_environment(variables):
    assert str(chosen(**variables)[0]) in variables.values()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1e2", "0x2"])
def test_a_bad_number_of_threads_is_an_error_at_import(value, monkeypatch):
    monkeypatch.setenv("CDROP_NUM_THREADS", value)
    with pytest.raises(ImportError, match=f"CDROP_NUM_THREADS is '{value}'; expected an integer"):
        default_threads()


def test_bad_environments_stop_the_import():
    process = run_python("import cdrop", CDROP_NUM_THREADS="two")
    assert process.returncode == 1
    assert "ImportError: CDROP_NUM_THREADS is 'two'" in process.stderr
    for value in ("nonsense", "AVX2", "neon" if "avx2" in kernels.simd_paths() else "avx2"):
        process = run_python("import cdrop", CDROP_SIMD=value)
        assert process.returncode == 1
        message = process.stderr.splitlines()[-1]
        assert message.startswith(f"ImportError: CDROP_SIMD is {value!r}; expected one of ")
        assert all(path in message for path in kernels.simd_paths())


@pytest.mark.isa
def test_the_environment_chooses_the_path():
    assert [chosen(CDROP_SIMD=path)[1] for path in kernels.simd_paths()] == kernels.simd_paths()
    default = run_python(f"import os; os.environ.pop('CDROP_SIMD', None); {CHOSEN}")
    assert default.stdout.split()[1] == kernels.simd_paths()[-1]  # the best one


def test_paths_of_this_machine(simd):
    assert kernels.simd() == simd
    assert kernels.simd_paths()[0] == "scalar"
    assert set(kernels.simd_paths()) <= set(kernels.simd_paths(built=True))
    with pytest.raises(ImportError, match="nonsense"):
        _kernels._select_simd("nonsense")
    assert kernels.simd() == simd


def test_cpus_are_those_of_affinity_and_cgroup(tmp_path):
    assert 1 <= available_cpus() <= os.cpu_count()
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert _cgroup_cpus(tmp_path) == 2.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _cgroup_cpus(tmp_path) == float("inf")
    one = tmp_path / "v1" / "cpu"
    one.mkdir(parents=True)
    (one / "cpu.cfs_quota_us").write_text("300000\n")
    (one / "cpu.cfs_period_us").write_text("100000\n")
    assert _cgroup_cpus(tmp_path / "v1") == 3
    assert _cgroup_cpus(tmp_path / "none") == float("inf")


def test_setting_the_number_of_threads(threads):
    assert cdrop.get_num_threads() == threads
    for bad in (0, -1, 257, 1.5, "2", None, True):
        with pytest.raises((TypeError, ValueError), match="threads"):
            cdrop.set_num_threads(bad)
    assert cdrop.get_num_threads() == threads


def test_threadpoolctl_sees_and_limits_cdrop():
    threadpoolctl = pytest.importorskip("threadpoolctl", exc_type=ImportError)
    before = cdrop.get_num_threads()
    (info,) = (i for i in threadpoolctl.threadpool_info() if i["user_api"] == "cdrop")
    assert info["num_threads"] == before
    assert info["simd"] == kernels.simd()
    assert os.path.samefile(info["filepath"], _kernels.__file__)
    with threadpoolctl.threadpool_limits(limits=1):
        assert cdrop.get_num_threads() == 1
        with threadpoolctl.threadpool_limits(limits={"cdrop": 3}):
            assert cdrop.get_num_threads() == 3
    assert cdrop.get_num_threads() == before


# ---- Fork ----------------------------------------------------------------------------------

FORK = """
import multiprocessing, os, threading
from conftest import digest, problem
from cdrop import Network

context = multiprocessing.get_context("fork")
x, y = problem([70, 10], rows=200)

def train(threads=4):
    net = Network([70, 65, 10], dropout=0.5, threads=threads)
    net.fit(x, y, batch_size=128, iterations=20)
    return digest(net)

def answer(queue, depth=0):
    if depth:
        child = fork(depth - 1)
        queue.put((train(), child))
    else:
        queue.put(train())

def fork(depth=0):
    queue = context.SimpleQueue()
    child = context.Process(target=answer, args=(queue, depth))
    child.start()
    result = queue.get()
    child.join(30)
    assert child.exitcode == 0, child.exitcode
    return result

expected = train()
"""


HANGING_CHILD = """
import os, threading
lock = threading.Lock()
with lock:
    child = os.fork()
    if not child:
        lock.acquire()
os.waitpid(child, 0)
"""


def forked(code):
    # From Python 3.12 a fork while threads run warns, which is what is tested here.
    process = run_python(FORK + code, flags=("-W", "error", "-W", "ignore::DeprecationWarning"))
    assert process.returncode == 0, process.stderr
    assert process.stdout == "done\n"


@pytest.mark.posix
def test_children_of_a_fork_train_after_their_parent_has():
    forked("""
for _ in range(15):
    assert fork() == expected
    assert train() == expected
print("done")
""")


@pytest.mark.posix
def test_children_of_children_train():
    forked("""
assert fork(depth=2) == (expected, (expected, expected))
assert train() == expected
print("done")
""")


@pytest.mark.posix
def test_a_fork_while_another_thread_trains():
    forked("""
running = True
def busy():
    while running:
        assert train() == expected
worker = threading.Thread(target=busy)
worker.start()
try:
    for _ in range(15):
        assert fork() == expected
finally:
    running = False
    worker.join()
print("done")
""")


@pytest.mark.posix
def test_a_child_continues_with_its_parents_network():
    forked("""
net, whole = (Network([70, 65, 10], dropout=0.5, threads=3) for _ in range(2))
net.fit(x, y, batch_size=128, iterations=10)
whole.fit(x, y, batch_size=128, iterations=20)
def answer(queue, depth=0):
    net.fit(x, y, batch_size=128, iterations=10)
    queue.put(digest(net))
for _ in range(3):
    assert fork() == digest(whole)
assert net.history.iterations == 10
print("done")
""")


@pytest.mark.posix
def test_a_child_is_reported_when_the_fork_fell_into_a_call_on_its_network():
    """Nobody there would ever end the call, and the weights may be half updated."""
    forked("""
net, running = Network([70, 300, 10], dropout=0.5, threads=2), True
calls = {
    "train_step": lambda: net.train_step(x, y),
    "predict": lambda: net.predict(x),
    "state_dict": net.state_dict,
}
def busy():
    while running:
        net.train_step(x, y)
def answer(queue, depth=0):
    said = {}
    for name, call in calls.items():
        try:
            call()
        except RuntimeError as error:
            assert "half updated" in str(error)
            said[name] = "raised"
    queue.put(said)
worker = threading.Thread(target=busy)
worker.start()
try:
    results = [fork() for _ in range(30)]
finally:
    running = False
    worker.join()
assert dict.fromkeys(calls, "raised") in results, results
net.train_step(x, y)
assert fork() == {}
print("done")
""")


@pytest.mark.posix
def test_threads_of_a_child_use_its_parents_network_at_once():
    """The first of them finds out that the fork left no holder behind; the others must wait for that."""
    forked("""
from shared_network import in_threads
net = Network([70, 65, 10], threads=1)
net.train_step(x, y)
expected = net.predict(x).tobytes()
def answer(queue, depth=0):
    queue.put(set(in_threads([lambda: net.predict(x).tobytes()] * 8)))
for _ in range(15):
    assert fork() == {expected}
print("done")
""")


@pytest.mark.posix
def test_a_process_that_hangs_is_noticed_with_its_children():
    """The control of the tests above: the child waits for a lock whose holder the fork left behind."""
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_python(HANGING_CHILD, timeout=2, flags=())
    assert time.monotonic() - start < 20


def test_spawned_processes_train():
    process = run_python(
        """
import multiprocessing
from test_threads import train_alone
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len({train_alone(0), *pool.map(train_alone, [0, 0, 0])}) == 1
    print("done")
"""
    )
    assert (process.stdout, process.returncode) == ("done\n", 0), process.stderr


# ---- Several Python threads ----------------------------------------------------------------


def train_alone(seed, threads=2, iterations=40):
    net = Network([70, 65, 10], dropout=0.5, seed=seed, threads=threads)
    net.fit(*problem([70, 10], rows=200, seed=seed), batch_size=128, iterations=iterations)
    return digest(net)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_that_train_separate_networks(threads):
    expected = [train_alone(seed) for seed in range(6)]
    functions = [lambda seed=seed: train_alone(seed, threads) for seed in range(6)]
    for _ in range(3):
        assert in_threads(functions) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_that_share_a_network_take_whole_steps(threads):
    x, y = problem([70, 10], rows=200)
    shared, alone = (Network([70, 65, 10], dropout=0.5, threads=threads) for _ in range(2))

    def train(net, steps):
        return lambda: [net.train_step(x, y, optimizer="adam") for _ in range(steps)]

    losses = in_threads([train(shared, 25) for _ in range(4)])
    train(alone, 100)()
    assert shared.history.loss == alone.history.loss
    assert sorted(loss for part in losses for loss in part) == sorted(alone.history.loss)
    assert digest(shared) == digest(alone)


def test_a_network_predicts_while_it_trains():
    x, y = problem([70, 10], rows=600)
    shared, alone = (Network([70, 65, 10], dropout=0.5, threads=2) for _ in range(2))

    def predict():
        for _ in range(50):
            assert abs(shared.predict_proba(x).sum(axis=1) - 1).max() < 1e-5
            shared.state_dict()

    in_threads([lambda: shared.fit(x, y, batch_size=64, iterations=100), predict, predict])
    alone.fit(x, y, batch_size=64, iterations=100)
    assert digest(shared) == digest(alone)


def test_threads_that_share_a_network_get_no_error_but_the_documented_one():
    made, refused = hammer()
    assert made > 0 < refused


def test_of_many_threads_one_enters_a_fit():
    assert enter_fits() > 0


def test_a_state_is_taken_while_attributes_come_and_go():
    read_changing_attributes()


def test_no_thread_takes_a_busy_network_for_one_that_a_fork_left_locked():
    take_turns()


def test_kernels_in_many_threads():
    weight = kernels.random_normal(200 * 130, seed=1).reshape(200, 130)
    x = kernels.random_normal(100 * 200, seed=2).reshape(100, 200)

    def product(threads):
        return kernels.masked_gemm(x, weight, activation="tanh", threads=threads).tobytes()

    expected = product(1)
    counts = [1, 2, 3, 8] * 2
    functions = [lambda n=n: {product(n) for _ in range(30)} for n in counts]
    assert in_threads(functions) == [{expected}] * len(counts)


def test_more_threads_than_work_or_cpus():
    x, y = problem([3, 2], rows=3)
    nets = [Network([3, 1, 2], dropout=0.5, threads=threads) for threads in (1, 64, 256)]
    for net in nets:
        net.fit(x, y, batch_size=2, iterations=5)
        net.predict(x[:1])
    assert len({digest(net) for net in nets}) == 1
