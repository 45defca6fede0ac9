"""The training loops behind `Network.fit`: what a fit is to do, its minibatches, and one engine call per step."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cdrop import _batches, _kernels, _losses, checkpoints
from cdrop._background import find_background
from cdrop._checks import finite_number, norm_limit, truth_value, whole_number
from cdrop._shared import PREDICTED_AT_ONCE, SharedRows
from cdrop._state import LAST, as_settings, check_ours
from cdrop.optimizers import Optimizer, get_optimizer
from cdrop.rates import Moment, Rate, encoded, now, number_or_rate
from cdrop.schedules import Epoch, Plateau, Schedule

if TYPE_CHECKING:
    from cdrop.network import Network

__all__ = [
    "Cut",
    "Hyper",
    "Minibatch",
    "Plan",
    "ScoredRows",
    "check_no_epochs",
    "checked_hyper",
    "fit",
    "length",
    "rows_with_weight",
    "step",
    "use",
]

MOST_SAMPLES = 1024  # masks of a row
_WORTH_LISTS = 3  # evaluations of the validation rows in a fit from which on their lists are kept
_FIRST = Moment(0, 0, 1)
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
    """The rows of a step, None for all; the kept lists of these rows and the epoch's number, if there are any."""

    rows: NDArray[np.int64] | None = None
    kept: _kernels.KeptBatches | None = None
    number: int = 0
    epoch: int | None = None


class Hyper(NamedTuple):
    """Checked hyperparameters of the update."""

    optimizer: Optimizer
    learning_rate: float | Rate  # with a schedule, that of its first epoch
    schedule: Schedule | None
    l2: float | Rate
    share_l2: bool
    varies: bool  # whether any of these numbers is a rate
    max_norm: float  # 0 means no limit, as in the engine
    mask_samples: int
    consistency: float

    def at(self, moment: Moment) -> tuple[Optimizer, float, float]:
        """Return optimizer, learning rate and L2 of a step, whose rates are numbers."""
        if not self.varies:
            return self.optimizer, cast(float, self.learning_rate), cast(float, self.l2)
        return (
            self.optimizer._in(moment),
            now("learning_rate", self.learning_rate, moment, finite_number),
            now("l2", self.l2, moment, finite_number),
        )


class ScoredRows(tuple[Any, ...]):
    """Validation rows, (X, y) or (X, y, sample_weight), with a scorer in place of the network's own score.

    Attributes
    ----------
    name : str
        Name of the scorer, which checkpoints compare.
    scorer : callable
        Returns the score, given the result of `Network.evaluate`.
    """

    name: str
    scorer: Callable[[Any], float]


class Plan(NamedTuple):
    """What a fit is to do: `passes` over the rows or, where that is None, `total` drawn minibatches."""

    data: _kernels.Rows
    hyper: Hyper
    cut: Cut
    passes: int | None
    total: int
    held_out: _kernels.Rows | None
    scored: ScoredRows | None = None

    def left(self, place: checkpoints.Place) -> int:
        """Return the number of steps left."""
        return 0 if place.finished else self.total - self.done(place)

    def done(self, place: checkpoints.Place) -> int:
        """Return the number of steps done."""
        return place.epochs * self.cut.count + place.steps

    def check_place(self, place: checkpoints.Place, path: str) -> None:
        """Raise unless a fit by this plan can be there: a file may hold any place."""
        most = (0, self.total) if self.passes is None else (self.passes, self.cut.count)
        if place.epochs > most[0] or place.steps > most[1] or self.left(place) < 0:
            raise ValueError(
                f"checkpoint is {path!r}, whose place is {place.epochs} epochs and {place.steps} steps; expected one "
                f"within the {self.total} steps of this fit"
            )

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
            "learning_rate": encoded(rate)
            if hyper.schedule is None
            else as_settings(hyper.schedule),
            "l2": encoded(hyper.l2),
            "share_l2": hyper.share_l2,
            "max_norm": hyper.max_norm,
            "mask_samples": None if hyper.mask_samples == 1 else hyper.mask_samples,
            "consistency": hyper.consistency or None,
            "validation": None
            if self.held_out is None
            else _digest(self.held_out, "x", "labels", "targets", "weights"),
            "scoring": None if self.scored is None else self.scored.name,
        }


@dataclass
class _Interrupt:
    """Whether Ctrl-C was pressed in a fit, and whether it is to leave at once what changes nothing."""

    pressed: bool = False
    at_once: bool = False


class _Course(NamedTuple):
    """A fit in progress: plan, what holds the network, callbacks, Ctrl-C, place, and the writer of its checkpoints."""

    plan: Plan
    fit: _kernels.Fitting
    callbacks: Sequence[Any]
    interrupt: _Interrupt
    place: checkpoints.Place
    keeper: checkpoints.Keeper | None

    def moment(self, net: Network) -> Moment:
        """Return which step is the next."""
        return Moment(net.history.iterations, self.plan.done(self.place), self.plan.total)

    def stops(self, answers: list[Any]) -> bool:
        """Return whether a callback has asked to stop, for which it returns True, Python's or NumPy's."""
        return any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers)


def _digest(rows: _kernels.Rows, *names: str) -> str:
    return checkpoints.digest([getattr(rows, name) for name in names])


# ---- Arguments of fit ------------------------------------------------------------------------------------------------


def checked_hyper(
    optimizer: str | Optimizer,
    learning_rate: float | Rate | Schedule,
    l2: float | Rate,
    max_norm: float | None,
    share_l2: bool,
    mask_samples: int = 1,
    consistency: float = 0.0,
) -> Hyper:
    """Check the hyperparameters, each alone and then together."""
    schedule = learning_rate if isinstance(learning_rate, Schedule) else None
    rate = learning_rate if schedule is None else _begun(schedule)[0]
    rule = get_optimizer(optimizer)
    hyper = Hyper(
        rule,
        number_or_rate("learning_rate", rate, finite_number)
        if isinstance(rate, Rate)
        else finite_number("learning_rate", rate, positive=True),
        schedule,
        number_or_rate("l2", l2, finite_number),
        truth_value("share_l2", share_l2),
        any(isinstance(value, Rate) for value in (rate, l2, *vars(rule).values())),
        0.0 if max_norm is None else norm_limit("max_norm", max_norm),
        whole_number("mask_samples", mask_samples, 1, MOST_SAMPLES + 1),
        finite_number("consistency", consistency),
    )
    some_l2 = 1.0 if isinstance(hyper.l2, Rate) else hyper.l2
    hyper.optimizer._in(_FIRST).constants(1.0, some_l2, 1)  # raises where they do not combine
    return hyper


def check_masks(net: Network, hyper: Hyper) -> None:
    """Raise if a network cannot be trained with several masks per row, or with their consistency."""
    samples, consistency = hyper.mask_samples, hyper.consistency
    if consistency and samples != 2:
        raise ValueError(
            f"consistency is {consistency} with mask_samples {samples}; expected mask_samples=2, whose two predictions "
            "of each row it compares"
        )
    if consistency and _losses.is_regression(net.loss):
        raise ValueError(
            f"consistency is {consistency}, and the loss is {net.loss!r}; expected consistency=0, or a cross-entropy "
            "loss, whose predictions are probabilities"
        )
    if samples == 1:
        return
    used = [
        kind
        for kind, rate in zip(net._kinds(), (net.input_dropout, *net.dropout), strict=True)
        if isinstance(rate, Rate) or rate
    ]
    if not used:
        raise ValueError(
            f"mask_samples is {samples}, and the network has no dropout, so that all masks of a row would be the same; "
            "expected dropout or input_dropout above 0, or mask_samples=1"
        )
    if "shared" in used:
        raise ValueError(
            f"mask_samples is {samples}, and a kind of dropout is 'shared', by which all rows of a minibatch have one "
            "mask; expected another kind, such as 'bernoulli', or mask_samples=1"
        )


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


def check_watched(hyper: Hyper, held_out: _kernels.Rows | None) -> None:
    """Raise if a schedule watches validation rows that are not given: the rate would fall whatever training does."""
    schedule = hyper.schedule
    if isinstance(schedule, Plateau) and schedule.monitor != "loss" and held_out is None:
        raise ValueError(
            f"learning_rate is {schedule!r}; expected validation rows, which it watches, or monitor='loss'"
        )


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
    new: dict[str, Any],
) -> None:
    """Carry out a plan, and set what is in `new`.

    Whatever can fail before the first step fails before the network has changed.
    """
    with _kernels.Fitting(vars(net)) as this:
        keeper = _keeper(net, plan, callbacks, path, every)
        place = checkpoints.Place() if keeper is None else keeper.place
        if keeper is not None:
            plan.check_place(place, keeper.given)
        rows = min(plan.cut.batch_size, plan.cut.n)
        net._engine.reserve(rows, net.threads or 0, plan.hyper.mask_samples)
        if keeper is not None:
            keeper.restore_network(net, this)
        if net._background is None:
            x = plan.data.x
            net._set_background(find_background(x) if isinstance(x, np.ndarray) else None, this)
        use(net, plan.hyper, {**new, "_under_way": keeper and keeper.identity}, this)
        net.history.interrupted = False
        with _called(net, callbacks, plan.left(place)), _deferred_interrupt(net, this) as interrupt:
            _go(net, plan, _Course(plan, this, callbacks, interrupt, place, keeper))


@contextmanager
def _called(net: Network, callbacks: Sequence[Any], total: int) -> Iterator[None]:
    """Notify callbacks of the beginning and end of a fit: those that were notified of its beginning, of its end too."""
    begun: list[Any] = []
    try:
        for callback in callbacks:
            callback.on_fit_begin(net, total)
            begun.append(callback)
        yield
    except BaseException as error:
        _end(net, begun, error)
        raise
    _end(net, begun, None)


def _end(net: Network, callbacks: Sequence[Any], error: BaseException | None) -> None:
    """Notify all callbacks of the end. The fit's error stays what is raised; those of callbacks become notes on it.

    Without one, the first error of a callback is raised; Ctrl-C and the like come before errors.
    """
    shown = error
    try:
        for callback in callbacks:
            try:
                callback.on_fit_end(net)
            except BaseException as raised:
                if shown is None or isinstance(shown, Exception) > isinstance(raised, Exception):
                    shown = raised
                else:
                    shown.add_note(f"{callback!r} failed in on_fit_end: {raised!r}")
        if shown is not None and shown is not error:
            raise shown
    finally:
        del shown, error  # which would keep the frames of their tracebacks alive


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


def use(net: Network, hyper: Hyper, new: dict[str, Any], fit: _kernels.Fitting | None) -> None:
    """Set optimizer, schedule, and `new`; the first two start from a fresh state if they differ from the last one.

    `fit` is the fit that does so; None outside of one.
    """
    state, changed = vars(net), False
    while not changed:
        was = {
            "_fit": net._free(fit),
            **{name: state[name] for name in ("_optimizer", "_schedule")},
        }
        now = {**new, "_optimizer": hyper.optimizer}
        parts: list[tuple[int, int, NDArray[Any], NDArray[Any]]] = []
        if was["_optimizer"] is not None and type(was["_optimizer"]) is not type(hyper.optimizer):
            for i, (fan_in, fan_out) in enumerate(net._engine.shapes):
                zeros = np.zeros((fan_in, fan_out), net.dtype), np.zeros(fan_out, net.dtype)
                parts += [(i, 1, *zeros), (i, 2, *zeros)]
            now["_updates"] = 0
        if hyper.schedule != was["_schedule"]:
            now["_schedule"] = hyper.schedule
            now["_schedule_state"] = () if hyper.schedule is None else _begun(hyper.schedule)
        changed = net._engine.put(state, now, was, parts)


def _begun(schedule: Schedule) -> tuple[float, ...]:
    """Return a schedule's state before its first epoch."""
    state = _state(schedule, schedule.begin())
    if isinstance(state, str):
        raise ValueError(state)
    return state


def _advanced(schedule: Schedule, state: tuple[float, ...], epoch: Epoch) -> tuple[float, ...]:
    """Return a schedule's state after an epoch."""
    new = _state(schedule, schedule.after(state, epoch))
    if isinstance(new, str):  # no mistake of the call's arguments by now: the network has changed
        raise RuntimeError(f"after epoch {epoch.number}, {new}")
    return new


def _state(schedule: Schedule, state: Any) -> tuple[float, ...] | str:
    """Return a schedule's state as a file holds it, or what is wrong with it: a schedule may be a user's own."""
    try:
        numbers = tuple(map(float, state))
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if numbers and 0 <= numbers[0] < math.inf:
        return numbers
    return (
        f"learning_rate is {schedule!r}, whose state is {state!r}; expected a tuple of numbers, first the rate of the "
        "next epoch, finite and at least 0"
    )


def _go(net: Network, plan: Plan, course: _Course) -> None:
    """Do the rest of a fit, from wherever its checkpoint was made."""
    place, keeper = course.place, course.keeper
    if keeper is not None:
        keeper.begin(net, course.fit)
    if not place.finished:
        if plan.passes is None:
            minibatches = _draws(net, plan.data, plan.cut, plan.left(place))
            completed = _steps(net, plan.data, minibatches, plan.hyper, course)
        else:
            completed = _epochs(net, plan, plan.passes, course)
        place.finished |= completed
    net.history.interrupted = course.interrupt.pressed
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
        within = place.steps > 0  # the checkpoint may be from within an epoch
        number = net._epoch if within else min(net._epoch + 1, LAST)
        if net._schedule is not None:
            hyper = hyper._replace(learning_rate=net._schedule_state[0])
        order = cut.order(_batches.epoch(cut.n, net.seed, number))
        rest = _batches.cut(order[place.steps * cut.batch_size :], cut.batch_size)
        minibatches = (Minibatch(rows, epoch=number) for rows in rest)
        if not _steps(net, plan.data, minibatches, hyper, course):
            return False
        last = Moment(net.history.iterations - 1, plan.done(place) - 1, plan.total)
        if not _end_epoch(net, plan, hyper.at(last)[1], course):
            return False
    return True


def _keep_lists(net: Network, held_out: _kernels.Rows | None) -> None:
    """Make the lists of the validation rows, which every epoch predicts."""
    if held_out is not None:
        threads = net.threads or 0
        held_out.kept = net._engine.keep_batches(held_out, None, PREDICTED_AT_ONCE, threads)


def _end_epoch(net: Network, plan: Plan, rate: float, course: _Course) -> bool:
    """Record an epoch, advance the schedule, and notify the callbacks; return whether to continue.

    Ctrl-C during the validation leaves the epoch unrecorded: the checkpoint resumes with the validation.
    """
    place, held_out = course.place, plan.held_out
    seen = (math.nan, math.nan)
    if held_out is not None:
        try:
            with _left_at_once(course.interrupt):
                result = net._evaluated(held_out)
                score = result.score if plan.scored is None else plan.scored.scorer(result)
                seen = result.loss, score
        except _Left:
            return False
    epoch = Epoch(net._epoch, plan.cut.n, place.total / plan.cut.n, rate, *seen)
    new = {}
    if net._schedule is not None:
        new["_schedule_state"] = _advanced(net._schedule, net._schedule_state, epoch)
    net._engine.end_epoch(vars(net), new, (epoch.loss, *seen))
    place.epochs, place.steps, place.total = place.epochs + 1, 0, 0.0
    answers = [callback.on_epoch_end(net, epoch) for callback in course.callbacks]
    place.finished = course.stops(answers)
    return not (place.finished or course.interrupt.pressed)


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
        moment, n = course.moment(net), course.plan.cut.n
        loss = step(net, data, minibatch, hyper, moment, course.fit, n)
        assert minibatch.rows is not None
        place.steps += 1
        place.total += loss * len(minibatch.rows)
        done = net.history.iterations
        answers = [callback.on_iteration(net, done, loss) for callback in course.callbacks]
        place.finished = course.stops(answers)
        if course.interrupt.pressed or place.finished:
            return False
        if course.keeper is not None:
            course.keeper.after_step(net)
    return True


# ---- A step ----------------------------------------------------------------------------------------------------------


def rows_with_weight(
    data: _kernels.Rows, rows: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Return the rows to train on without those of weight 0, None for all: no minibatch may be without weight."""
    if data.weights is None:
        return rows
    chosen = np.flatnonzero(data.weights >= _TINY)
    if rows is not None:
        chosen = rows[data.weights[rows] >= _TINY]
    if not len(chosen):
        raise ValueError("sample_weight is 0 for all rows to train on; expected one above 0")
    return None if rows is None and len(chosen) == len(data.x) else chosen


def step(
    net: Network,
    data: _kernels.Rows,
    minibatch: Minibatch,
    hyper: Hyper,
    moment: Moment,
    fit: _kernels.Fitting | None = None,
    trained_rows: int = 0,
) -> float:
    """Make one update with what `use` has set and the rates of the moment, and return the loss before it.

    Learned rates weigh the loss as one of `trained_rows` rows, the minibatch's by default.

    Threads that share a network take turns. Each step is made with the optimizer and the counters of its moment, so it
    is prepared again if another thread has been faster.
    """
    rows, threads, state = minibatch.rows, net.threads or 0, vars(net)
    new: dict[str, Any] = {} if minibatch.epoch is None else {"_epoch": minibatch.epoch}
    weight = len(data.x if rows is None else rows)
    if data.weights is not None:
        weight = data.weights.sum() if rows is None else data.weights[rows].sum()
    optimizer, rate, l2 = hyper.at(moment)
    l2 = l2 / float(weight) if hyper.share_l2 else l2
    entropy = 1 / (trained_rows or len(data.x if rows is None else rows))
    while True:
        updates, history = net._updates, net.history
        learned = net._learned
        keep = net._dropping_in(moment, new)
        was: dict[str, Any] = {"_fit": net._free(fit), "_optimizer": hyper.optimizer}
        was |= {"_updates": updates, "history": history, "_learned": learned}
        new["_updates"] = min(updates + 1, LAST)
        constants = optimizer.constants(rate, l2, updates + 1)
        try:
            loss = net._engine.step(
                data,
                rows,
                constants,
                hyper.max_norm,
                state,
                was,
                new,
                threads,
                minibatch.kept,
                minibatch.number,
                keep,
                new.get("_learned"),
                entropy,
                hyper.mask_samples,
                hyper.consistency,
            )
        except FloatingPointError as error:
            raise _not_finite(net, hyper, rate, *error.args) from None
        if loss is not None:
            return loss
        if net._optimizer is not hyper.optimizer:
            use(net, hyper, {}, fit)


def _not_finite(
    net: Network,
    hyper: Hyper,
    rate: float,
    number: int,
    loss: float,
    layer: int,
    in_weights: bool,
) -> FloatingPointError:
    """Name the first layer, counted from the input, where the engine found numbers that are not finite."""
    last = len(net.units) - 1
    where = f"layer {layer + 1} of {last}"
    weights = f"the weights of {where} (coefs_[{layer}] and intercepts_[{layer}])"
    if math.isfinite(loss):
        too_large = ", or too large for max_norm," if hyper.max_norm else ""
        message = (
            f"the update of step {number} left numbers that are not finite{too_large} in {weights}"
        )
    else:
        message = f"the loss of step {number} is not finite, "
        if in_weights:
            message += f"because {weights} were not before it"
        elif layer < last:
            message += f"nor are the outputs of {where}; the weights are those before it"
        else:
            message += "though all outputs are; the weights are those before it"
    return FloatingPointError(
        f"{message}. A smaller learning_rate (it is {rate:g}) or inputs of unit scale usually help"
    )


class _Left(BaseException):
    """Raised by Ctrl-C to leave what changes nothing."""


@contextmanager
def _left_at_once(interrupt: _Interrupt) -> Iterator[None]:
    """Raise `_Left` within as soon as Ctrl-C is pressed, or has been."""
    try:
        interrupt.at_once = True
        if interrupt.pressed:
            raise _Left
        yield
    finally:
        interrupt.at_once = False


@contextmanager
def _deferred_interrupt(net: Network, fit: _kernels.Fitting) -> Iterator[_Interrupt]:
    """Record Ctrl-C for a test between steps, so that no step is interrupted midway; a second one raises at once.

    Only the main thread receives signals. Only Python's own handler is replaced, so that a program's own handling of
    Ctrl-C keeps working; so does a handler that a callback has set.
    """
    interrupt = _Interrupt()

    def note(signum: int, frame: Any) -> None:
        if (
            interrupt.pressed or net._fit is not fit
        ):  # the fit may have been left without the code below
            raise KeyboardInterrupt
        interrupt.pressed = True
        if interrupt.at_once:
            raise _Left

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    try:
        if ours:
            signal.signal(signal.SIGINT, note)
        yield interrupt
    finally:
        if ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)
