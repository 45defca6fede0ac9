"""Paired experiments: what they share, what they tell, and where their trainings may run."""

import json
import math
import os
import signal
import sys
import time

import numpy as np
import pytest
from comparisons import FakeTrainer, small_dataset

from cdrop import Network, optimizers, schedules
from cdrop.callbacks import Callback
from cdrop.experiments import Arm, ExperimentResult, open_ledger, paired_experiment
from cdrop.experiments.statistics import repeats_needed

FEATURES = small_dataset().to_features()
TRAIN, TEST = (FEATURES.X_train, FEATURES.y_train), (FEATURES.X_test, FEATURES.y_test)
SHARED = {"hidden": (12, 8), "batch_size": 32, "iterations": 25}
ARMS = {
    "plain": SHARED,
    "light": {**SHARED, "dropout": 0.2},
    "wide": {**SHARED, "hidden": 20, "dropout": 0.5, "optimizer": "adam", "max_norm": 2.0},
}


def experiment(arms=ARMS, **options):
    return paired_experiment(arms, TRAIN, TEST, **{"repeats": 3, "seed": 5, **options})


def timeless(result):
    """Return a result as JSON, without what the clock and the machine said."""
    plain = result.to_dict()
    del plain["time"], plain["machine"]
    for arm in plain["arms"].values():
        del arm["seconds"]
    return json.dumps(plain)


@pytest.fixture(scope="module")
def alone():
    """What the trainings give one after the other, in this process."""
    return timeless(experiment(note_every=10))


# ---- What is trained ---------------------------------------------------------------------------


def test_a_trial_is_what_network_and_fit_do():
    arm = experiment(note_every=10).arms["wide"]
    for repeat, seed in enumerate((5, 6, 7)):
        net = Network([784, 20, 10], dropout=0.5, seed=seed)
        for iterations in (10, 10, 5):
            net.fit(*TRAIN, optimizer="adam", max_norm=2.0, batch_size=32, iterations=iterations)
            number = arm.iterations.index(net.history.iterations)
            seen = net.evaluate(*TEST)
            assert arm.test_score[repeat][number] == seen.score
            assert arm.test_loss[repeat][number] == seen.loss
            assert arm.loss[repeat][number] == net.history.loss[-1]
    assert arm.iterations == [10, 20, 25]
    assert arm.score == [scores[-1] for scores in arm.test_score]


def test_arms_share_weights_and_minibatches():
    trainer = FakeTrainer()
    experiment(repeats=2, network=trainer)
    assert [(call["seed"], call["units"]) for call in trainer.calls] == [
        (seed, [784, *hidden, 10]) for seed in (5, 6) for hidden in ((12, 8), (12, 8), (20,))
    ]
    same = experiment({"a": SHARED, "b": {**SHARED, "dropout": 0.0}})
    assert same.arms["a"].loss == same.arms["b"].loss


def test_epochs_rules_and_schedules_are_settings_too():
    rule = optimizers.Momentum(momentum=0.9, start=0.5, ramp=10)
    arm = {"hidden": 8, "epochs": 3, "batch_size": 100, "optimizer": rule}
    result = experiment(
        {"fixed": arm, "cosine": {**arm, "learning_rate": schedules.Cosine(0.1, 3)}},
        note_every=3,
        repeats=1,
    )
    assert result.arms["fixed"].iterations == [3, 6, 9]
    told = json.loads(json.dumps(result.to_dict()))["arms"]["cosine"]["configuration"]
    assert told["optimizer"]["name"] == "momentum"
    assert told["learning_rate"]["name"] == "cosine"
    assert result.arms["fixed"].loss != result.arms["cosine"].loss


def test_numbers_are_learnt_too():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5))
    y = X @ rng.standard_normal((5, 2))
    arm = {"hidden": 16, "loss": "squared_error", "iterations": 200, "learning_rate": 0.01}
    result = paired_experiment({"a": arm, "b": {**arm, "dropout": 0.5}}, (X, y), (X, y), repeats=2)
    assert min(result.arms["a"].score) > 0.9 > max(result.arms["b"].score)


# ---- What it tells -----------------------------------------------------------------------------


def told(**scores):
    """A result of made-up scores."""
    arms = {name: Arm({}, [1], test_score=[[s] for s in some]) for name, some in scores.items()}
    return ExperimentResult(arms, 4, 0, {}, {}, "", list(range(4)))


def test_contrasts_are_paired_and_corrected_by_holm():
    pytest.importorskip("scipy.stats")
    base = [0.1, 0.5, 0.3, 0.9]
    result = told(
        base=base,
        near=[b + d for b, d in zip(base, (0.01, 0.0, 0.02, 0.02), strict=True)],
        far=[b + d for b, d in zip(base, (0.1, 0.11, 0.1, 0.09), strict=True)],
    )
    near, far = result.contrasts()
    assert (near.first, near.second, far.second) == ("base", "near", "far")
    assert near.score.estimate == pytest.approx(0.0125)
    assert far.p_holm == pytest.approx(2 * far.score.p_value)
    assert near.p_holm == pytest.approx(max(near.score.p_value, far.p_holm))
    assert [c.first for c in result.contrasts("far")] == ["far", "far"]
    with pytest.raises(
        ValueError, match="baseline is 'none'; expected one of 'base', 'near', 'far'"
    ):
        result.contrasts("none")


def test_the_repeats_needed_have_the_power_they_promise():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 40))
    n = repeats_needed(a, b, 0.7)
    spread = float((b - a).std(ddof=1))
    draws = 0.7 + spread * rng.standard_normal((4000, n))
    seen = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert 0.77 < seen < 0.84
    assert repeats_needed(a, b, 0.07) == pytest.approx(100 * n, rel=0.2)
    assert repeats_needed(a, b, 1e-4) > 10**8
    assert repeats_needed([1.0, 2.0], [2.0, 3.0], 0.1) is None  # no spread
    assert repeats_needed([1.0], [2.0], 0.1) is None


def test_results_are_plain(alone):
    plain = json.loads(alone)
    assert plain["repeats"] == [0, 1, 2]
    assert plain["seeds"] == [5, 6, 7]
    assert np.shape(plain["arms"]["light"]["test_loss"]) == (3, 3)
    assert plain["arms"]["wide"]["configuration"]["hidden"] == [20]
    assert [c["second"] for c in plain["contrasts"]] == ["light", "wide"]
    assert plain["data"] == {"train": 300, "test": 100}


# ---- Where it stops and goes on ----------------------------------------------------------------


class Slow(Callback):
    def on_iteration(self, net, iteration, loss):
        time.sleep(0.02)


def test_the_time_limit_stops_within_a_training():
    begin = time.monotonic()
    result = experiment(repeats=50, time_limit=1.0, callbacks=[Slow()])
    assert result.stopped == "the time limit"
    assert time.monotonic() - begin < 4
    assert len(result.repeats) < 50
    assert experiment(repeats=1, time_limit=60).complete


def test_only_repeats_whose_trainings_are_all_done_count():
    trainer = FakeTrainer(fault=KeyboardInterrupt, fault_at=5)
    result = experiment(network=trainer)
    assert (result.stopped, result.repeats) == ("interrupted", [0])
    assert [len(arm.score) for arm in result.arms.values()] == [1, 1, 1]


def test_more_arms_and_repeats_join_a_folder(tmp_path, alone):
    pytest.importorskip("safetensors")
    two = {name: ARMS[name] for name in ("plain", "light")}
    experiment(two, repeats=2, note_every=10, ledger=open_ledger(tmp_path / "kept"))
    trials = []
    kept = open_ledger(tmp_path / "kept", resume=True)
    result = experiment(note_every=10, ledger=kept, on_trial=trials.append)
    assert [(t.repeat, t.configuration) for t in trials] == [
        *((0, "wide"), (1, "wide"), (2, "plain"), (2, "light"), (2, "wide"))
    ]
    assert timeless(result) == alone
    with pytest.raises(ValueError, match="dropout of 'light' is 0.2 there, and 0.3 here"):
        experiment({**two, "light": {**SHARED, "dropout": 0.3}}, note_every=10, ledger=kept)
    with pytest.raises(ValueError, match="note every is 10 there, and None here"):
        experiment(two, ledger=kept)


# ---- Where it runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_other_processes_and_threads_give_the_same(backend, alone, tmp_path):
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("safetensors")
    kept = open_ledger(tmp_path / "kept")
    with joblib.parallel_config(backend=backend, n_jobs=2):
        result = experiment(note_every=10, ledger=kept)
    assert timeless(result) == alone
    assert result.machine["jobs"] == 2
    assert result.machine["threads"] == 1
    assert len(kept.trials) == 9


def test_callbacks_stay_here():
    pytest.importorskip("joblib")
    with pytest.raises(ValueError, match="callbacks is not empty, and 2 trainings run at a time"):
        experiment(n_jobs=2, callbacks=[Slow()])


def test_a_training_that_breaks_down_elsewhere_is_told():
    pytest.importorskip("joblib")
    result = experiment({"a": SHARED, "b": {**SHARED, "learning_rate": 1e30}}, n_jobs=2)
    assert "is not finite" in result.stopped or "NaN" in result.stopped, result.stopped


def test_without_joblib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'cdrop\[parallel\]'"):
        experiment(n_jobs=2)


class KillsItsWorker:
    """Stands for `Network`: the first to be made kills its process in the middle of an experiment."""

    def __init__(self, flag):
        self.flag = flag

    def __call__(self, units, **options):
        if options["seed"] == 6:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return Network(units, **options)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("killed", [False, True])
def test_a_cluster_gives_the_same_also_when_a_worker_is_killed(killed, alone, tmp_path):
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed")
    flag = tmp_path / "killed"
    network = KillsItsWorker(flag) if killed else None
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=50,
        local_directory=tmp_path,
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        result = experiment(note_every=10, network=network)
    assert timeless(result) == alone
    assert result.machine["jobs"] == 2
    assert flag.exists() == killed
    assert math.isfinite(result.seconds)
