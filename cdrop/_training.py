"""The training loops behind `Network.fit`: what a fit is to do, its minibatches, and one engine call per step."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop import _batches, _kernels, checkpoints
from cdrop._background import find_background
from cdrop._checks import finite_number, truth_value, whole_number
from cdrop._shared import PREDICTED_AT_ONCE, SharedRows
from cdrop._state import as_settings, check_ours
from cdrop.optimizers import Optimizer, get_optimizer
from cdrop.schedules import Epoch, Schedule

if TYPE_CHECKING:
    from cdrop.network import Network

__all__ = [
    "Cut",
    "Hyper",
    "Minibatch",
    "Plan",
    "check_no_epochs",
    "checked_hyper",
    "fit",
    "length",
    "step",
    "use",
]

_WORTH_LISTS = 3  # evaluations of the validation rows in a fit from which on their lists are kept
_TINY = np.finfo(np.float64).tiny  # the kernels treat smaller numbers as 0


@dataclass(frozen=True)
class Cut:
    """How n rows, all or the chosen ones, become minibatches."""

    n: int
    batch_size: int
    chosen: NDArray[np.int64] | None
    shuffle: bool

    @property
    def count(self) -> int:
        """Number of minibatches."""
        return -(-self.n // self.batch_size)

    def order(self, shuffled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the rows in the order of training, given a permutation of n."""
        if not self.shuffle:
            return _batches.in_order(self.n) if self.chosen is None else self.chosen
        return shuffled if self.chosen is None else self.chosen[shuffled]


class Minibatch(NamedTuple):
    """The rows of a step, None for all; and the kept lists of these rows, if there are any."""

    rows: NDArray[np.int64] | None = None
    kept: _kernels.KeptBatches | None = None
    number: int = 0


@dataclass(frozen=True)
class Hyper:
    """Checked hyperparameters of the update."""

    optimizer: Optimizer
    learning_rate: float  # with a schedule, that of its first epoch
    schedule: Schedule | None
    l2: float
    share_l2: bool
    max_norm: float  # 0 means no limit, as in the engine


@dataclass(frozen=True)
class Plan:
    """What a fit is to do: `passes` over the rows or, where that is None, `total` drawn minibatches."""

    data: _kernels.Rows
    hyper: Hyper
    cut: Cut
    passes: int | None
    total: int
    held_out: _kernels.Rows | None

    def left(self, place: checkpoints.Place) -> int:
        """Return the number of steps left."""
        if place.finished:
            return 0
        return self.total - place.epochs * self.cut.count - place.steps

    def arguments(self) -> dict[str, Any]:
        """Return all arguments that the result depends on, as `cdrop.checkpoints` compares them."""
        hyper, cut, rate = self.hyper, self.cut, self.hyper.learning_rate
        check_ours(hyper.optimizer, hyper.schedule)
        return {
            "X": _digest(self.data, "x"),
            "y": _digest(self.data, "labels", "targets"),
            "sample_weight": _digest(self.data, "weights"),
            "rows": None if cut.chosen is None else checkpoints.digest(cut.chosen),
            "shuffle": cut.shuffle,
            "batch_size": cut.batch_size,
            "iterations": self.total if self.passes is None else None,
            "epochs": self.passes,
            "optimizer": as_settings(hyper.optimizer),
            "learning_rate": rate if hyper.schedule is None else as_settings(hyper.schedule),
            "l2": hyper.l2,
            "share_l2": hyper.share_l2,
            "max_norm": hyper.max_norm,
            "validation": None
            if self.held_out is None
            else _digest(self.held_out, "x", "labels", "targets", "weights"),
        }


@dataclass(frozen=True)
class _Course:
    """A fit in progress: callbacks, the test for Ctrl-C, its place, and the writer of its checkpoints."""

    callbacks: Sequence[Any]
    interrupted: Callable[[], bool]
    place: checkpoints.Place
    keeper: checkpoints.Keeper | None


def _digest(rows: _kernels.Rows, *names: str) -> str:
    return checkpoints.digest([getattr(rows, name) for name in names])


# ---- Arguments of fit ------------------------------------------------------------------------------------------------


def checked_hyper(
    optimizer: str | Optimizer,
    learning_rate: float | Schedule,
    l2: float,
    max_norm: float | None,
    share_l2: bool,
) -> Hyper:
    """Check the hyperparameters, each alone and then together."""
    schedule = learning_rate if isinstance(learning_rate, Schedule) else None
    rate = learning_rate if schedule is None else schedule.begin()[0]
    hyper = Hyper(
        get_optimizer(optimizer),
        finite_number("learning_rate", rate, positive=True),
        schedule,
        finite_number("l2", l2),
        truth_value("share_l2", share_l2),
        0.0 if max_norm is None else finite_number("max_norm", max_norm, positive=True),
    )
    hyper.optimizer.constants(hyper.learning_rate, hyper.l2, 1)  # raises where they do not combine
    return hyper


def length(iterations: int | None, epochs: int | None, minibatches: int) -> tuple[int | None, int]:
    """Return the number of passes, None where minibatches are drawn, and the total number of steps."""
    if iterations is not None and epochs is not None:
        raise ValueError(
            f"iterations is {iterations} and epochs {epochs}; expected only one of them"
        )
    if epochs is None:
        drawn = 1000 if iterations is None else iterations
        return None, whole_number("iterations", drawn, 0, 2**62)
    passes = whole_number("epochs", epochs, 0, 2**62)
    return passes, passes * minibatches


def check_no_epochs(hyper: Hyper, held_out: _kernels.Rows | None) -> None:
    """Raise if there is a schedule or validation: both happen once per epoch, and there are no epochs."""
    if hyper.schedule is not None:
        raise ValueError(
            f"learning_rate is {hyper.schedule!r}; expected a number, or a fit with epochs"
        )
    if held_out is not None:
        raise ValueError("validation is given without epochs; expected a fit with epochs")


# ---- A fit -----------------------------------------------------------------------------------------------------------


def fit(
    net: Network,
    plan: Plan,
    callbacks: Sequence[Any],
    path: str | os.PathLike[str] | None,
    every: int | None,
) -> None:
    """Carry out a plan. Whatever can fail before the first step fails before the network has changed."""
    keeper = _keeper(net, plan, callbacks, path, every)
    place = checkpoints.Place() if keeper is None else keeper.place
    net._engine.reserve(min(plan.cut.batch_size, plan.cut.n), net.threads or 0)
    if keeper is not None:
        keeper.restore_network(net)
    net._under_way = None if keeper is None else keeper.identity
    if net._background is None:
        x = plan.data.x
        net._set_background(find_background(x) if isinstance(x, np.ndarray) else None)
    use(net, plan.hyper)
    net.history.interrupted = False
    for callback in callbacks:
        callback.on_fit_begin(net, plan.left(place))
    try:
        with _deferred_interrupt() as interrupted:
            _go(net, plan, _Course(callbacks, interrupted, place, keeper))
    finally:
        for callback in callbacks:
            callback.on_fit_end(net)


def _keeper(
    net: Network,
    plan: Plan,
    callbacks: Sequence[Any],
    path: str | os.PathLike[str] | None,
    every: int | None,
) -> checkpoints.Keeper | None:
    if path is None:
        if every is not None:
            raise ValueError(f"checkpoint_every is {every!r} without checkpoint; expected both")
        return None
    return checkpoints.Keeper(path, every, net, callbacks, plan.arguments())


def use(net: Network, hyper: Hyper) -> None:
    """Set optimizer and schedule; each starts from a fresh state if it differs from the last one."""
    old = net._optimizer
    if old is not None and type(old) is not type(hyper.optimizer):
        for i, (fan_in, fan_out) in enumerate(net._engine.shapes):
            for part in (1, 2):
                net._engine.set(i, part, np.zeros((fan_in, fan_out)), np.zeros(fan_out))
        net._updates = 0
    net._optimizer = hyper.optimizer
    if hyper.schedule != net._schedule:
        net._schedule = hyper.schedule
        net._schedule_state = () if hyper.schedule is None else _floats(hyper.schedule.begin())


def _floats(state: Sequence[float]) -> tuple[float, ...]:
    """Return a schedule's state as a file holds it: a rate may have been given as an int."""
    return tuple(map(float, state))


def _go(net: Network, plan: Plan, course: _Course) -> None:
    """Do the rest of a fit, from wherever its checkpoint was made."""
    place, keeper = course.place, course.keeper
    if keeper is not None:
        keeper.begin(net)
    if not place.finished:
        if plan.passes is None:
            minibatches = _draws(net, plan.data, plan.cut, plan.left(place))
            completed = _steps(net, plan.data, minibatches, plan.hyper, course)
        else:
            completed = _epochs(net, plan, plan.passes, course)
        place.finished |= completed
    if keeper is not None:
        keeper.write(net)


def _draws(net: Network, data: _kernels.Rows, cut: Cut, total: int) -> Iterator[Minibatch]:
    """Draw fixed minibatches. Their lists are kept where an average minibatch comes at least twice."""
    order, size = cut.order(_batches.fixed(cut.n, net.seed)), cut.batch_size
    kept = None
    if total >= 2 * cut.count:
        kept = (net._shared or SharedRows()).minibatches(net, data, order, size)
    for number in _batches.drawn(cut.count, net.seed, net.history.iterations, total):
        yield Minibatch(order[number * size : (number + 1) * size], kept, number)


def _epochs(net: Network, plan: Plan, passes: int, course: _Course) -> bool:
    """Make passes over the rows; return whether all are completed, without a request to stop."""
    cut, hyper, place = plan.cut, plan.hyper, course.place
    if net._shared is None and passes - place.epochs >= _WORTH_LISTS:
        _keep_lists(net, plan.held_out)
    for _ in range(place.epochs, passes):
        if not place.steps:  # else a checkpoint was made within this epoch
            net._epoch += 1
        if net._schedule is not None:
            hyper = dataclasses.replace(hyper, learning_rate=net._schedule_state[0])
        order = cut.order(_batches.epoch(cut.n, net.seed, net._epoch))
        rest = _batches.cut(order[place.steps * cut.batch_size :], cut.batch_size)
        if not _steps(net, plan.data, map(Minibatch, rest), hyper, course):
            return False
        _end_epoch(net, plan, hyper.learning_rate, course)
        if place.finished:
            return False
    return True


def _keep_lists(net: Network, held_out: _kernels.Rows | None) -> None:
    """Make the lists of the validation rows, which every epoch predicts."""
    if held_out is not None:
        threads = net.threads or 0
        held_out.kept = net._engine.keep_batches(held_out, None, PREDICTED_AT_ONCE, threads)


def _end_epoch(net: Network, plan: Plan, rate: float, course: _Course) -> None:
    """Record an epoch, notify the callbacks, and advance the schedule."""
    place, history, held_out = course.place, net.history, plan.held_out
    seen = (math.nan, math.nan) if held_out is None else net._evaluated(held_out)
    epoch = Epoch(net._epoch, plan.cut.n, place.total / plan.cut.n, rate, *seen)
    history.epoch_loss.append(epoch.loss)
    history.validation_loss.append(epoch.validation_loss)
    history.validation_score.append(epoch.validation_score)
    answers = [callback.on_epoch_end(net, epoch) for callback in course.callbacks]
    if net._schedule is not None:
        net._schedule_state = _floats(net._schedule.after(net._schedule_state, epoch))
    place.epochs, place.steps, place.total = place.epochs + 1, 0, 0.0
    place.finished = any(answers)


def _steps(
    net: Network,
    data: _kernels.Rows,
    minibatches: Iterator[Minibatch],
    hyper: Hyper,
    course: _Course,
) -> bool:
    """Train on each minibatch; return whether all are done, without a request to stop."""
    place = course.place
    for minibatch in minibatches:
        loss = step(net, data, minibatch, hyper)
        assert minibatch.rows is not None
        place.steps += 1
        place.total += loss * len(minibatch.rows)
        done = net.history.iterations
        answers = [callback.on_iteration(net, done, loss) for callback in course.callbacks]
        net.history.interrupted = course.interrupted()
        place.finished = any(answers)
        if net.history.interrupted or place.finished:
            return False
        if course.keeper is not None:
            course.keeper.after_step(net)
    return True


# ---- A step ----------------------------------------------------------------------------------------------------------


def step(net: Network, data: _kernels.Rows, minibatch: Minibatch, hyper: Hyper) -> float:
    """Make one update and return the loss before it; threads that share a network take turns."""
    with net._turn:
        return _step_alone(net, data, minibatch, hyper)


def _step_alone(net: Network, data: _kernels.Rows, minibatch: Minibatch, hyper: Hyper) -> float:
    number, rows = net.history.iterations + 1, minibatch.rows
    weight = len(data.x if rows is None else rows)
    if data.weights is not None:
        weight = data.weights.sum() if rows is None else data.weights[rows].sum()
    if not weight >= _TINY:
        raise ValueError(
            f"sample_weight is 0 for all rows of the minibatch of step {number}; expected a larger batch_size, or "
            "data without the rows of weight 0"
        )
    l2 = hyper.l2 / float(weight) if hyper.share_l2 else hyper.l2
    constants = hyper.optimizer.constants(hyper.learning_rate, l2, net._updates + 1)
    fault, threads = None, net.threads or 0
    try:
        loss = net._engine.step(
            data, rows, constants, hyper.max_norm, number, threads, minibatch.kept, minibatch.number
        )
    except FloatingPointError as error:
        loss, fault = error.args[0], _not_finite(net, number, hyper, *error.args)
        if not math.isfinite(loss):
            raise fault from None
    net._updates += 1
    net.history.loss.append(loss)
    if fault is not None:
        raise fault
    return loss


def _not_finite(
    net: Network, number: int, hyper: Hyper, loss: float, layer: int, in_weights: bool
) -> FloatingPointError:
    """Name the first layer, counted from the input, where the engine found numbers that are not finite."""
    last = len(net.units) - 1
    where = f"layer {layer + 1} of {last}"
    weights = f"the weights of {where} (coefs_[{layer}] and intercepts_[{layer}])"
    if math.isfinite(loss):
        message = f"the update of step {number} left numbers that are not finite in {weights}"
    else:
        message = f"the loss of step {number} is not finite, "
        if in_weights:
            message += f"because {weights} were not before it"
        elif layer < last:
            message += f"nor are the outputs of {where}; the weights are those before it"
        else:
            message += "though all outputs are; the weights are those before it"
    return FloatingPointError(
        f"{message}. A smaller learning_rate (it is {hyper.learning_rate:g}) or inputs of unit scale usually help"
    )


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C for a test between steps, so that no step is interrupted midway; a second one raises at once.

    Only the main thread receives signals. Only Python's own handler is replaced, so that a program's own handling of
    Ctrl-C keeps working.
    """
    pressed = False

    def note(signum: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
