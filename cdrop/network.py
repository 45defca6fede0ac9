"""A fully connected network trained with dropout, one C call a step."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop import _batches, _kernels, checkpoints, storage, uncertainty
from cdrop._background import find_background
from cdrop._checks import (
    choice,
    finite_number,
    label_vector,
    parameter_array,
    row_numbers,
    row_weights,
    target_matrix,
    truth_value,
    whole_number,
)
from cdrop._features import checked_rows, feature_matrix
from cdrop.callbacks import check_callbacks
from cdrop.initializers import INITIALIZERS, initial_weight
from cdrop.optimizers import Optimizer, get_optimizer
from cdrop.schedules import Epoch, Schedule, get_schedule
from cdrop.subnetworks import Subnetworks

__all__ = ["Evaluation", "History", "Network", "make_network"]

_KEEP_UNITS = 2**32  # the kernels take probabilities in units of 2**-32
_PARTS = ("weight", "state1", "state2")
_SCALINGS = ("train", "test")
_DTYPES = ("float32", "float64")
_PIECE = 2**22  # entries of the input that a prediction checks and converts at once
_PASSED_ROWS = 2**20  # rows times masks between two moments when Ctrl-C is heard
_Masks = Sequence[NDArray[np.uint64] | None] | None  # of each layer's input; None: drawn
_TINY = np.finfo(np.float64).tiny  # the kernels take smaller numbers for 0
_CURVES = ("epoch_loss", "validation_loss", "validation_score")


@dataclass
class History:
    """What training has recorded, over all calls of `Network.fit` and `Network.train_step`.

    Attributes
    ----------
    loss : list of float
        One entry an iteration: the minibatch's mean loss before the update, with its L2 term.
    epoch_loss : list of float
        One entry an epoch of ``fit(epochs=...)``: the mean over its rows of `loss`.
    validation_loss, validation_score : list of float
        One entry an epoch: what `Network.evaluate` gave for the validation rows after it; NaN without such rows.
    interrupted : bool
        Whether Ctrl-C ended the last `fit`.
    """

    loss: list[float] = field(default_factory=list)
    epoch_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    interrupted: bool = False

    @property
    def iterations(self) -> int:
        """Number of updates so far."""
        return len(self.loss)


class Evaluation(NamedTuple):
    """What `Network.evaluate` gives.

    Attributes
    ----------
    loss : float
        Weighted mean over the rows, without an L2 term.
    score : float
        As `Network.score`; NaN if the loss is not finite.
    """

    loss: float
    score: float


class Network:
    """A fully connected network with dropout.

    Parameters
    ----------
    units : sequence of int
        Widths from input to output, at least two: ``[784, 256, 256, 10]`` is the article's.
    dropout : float or sequence of float, default 0.0
        Probability of *dropping* a hidden unit, 0 to below 1, for all hidden layers or for each.
    input_dropout : float, default 0.0
        The same for the input.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid", "identity"}, default "relu"
        Of the hidden layers. The last layer is linear; the loss knows what it means.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"}
        Classes (the default), several labels at once, or numbers.
    initializer : {"he", "glorot"}, default "he"
        See `cdrop.initializers`.
    scaling : {"train", "test"}, default "train"
        ``"train"`` divides kept units by the keep probability in training (inverted dropout) and leaves prediction
        alone; ``"test"`` leaves training alone and multiplies by the keep probability in prediction (the classic form).
    seed : int, default 0
        0 to 2**64 - 1. Same seed, same weights, byte for byte, at any number of threads and on every SIMD path.
    dtype : {"float32", "float64"}, default "float32"
    threads : int, optional
        Default: what `cdrop.get_num_threads` says at each call.

    Attributes
    ----------
    history : History
    coefs_, intercepts_ : list of ndarray

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014), sections 4 and 10.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop import Network
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> y = np.array([0, 1, 1, 0])
    >>> net = Network([2, 32, 2], dropout=0.1, seed=1)
    >>> history = net.fit(X, y, learning_rate=0.01, batch_size=4, iterations=300)
    >>> history.iterations, net.score(X, y)
    (300, 1.0)
    """

    def __init__(
        self,
        units: Sequence[int],
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
        activation: str = "relu",
        loss: str = "softmax_cross_entropy",
        initializer: str = "he",
        scaling: str = "train",
        seed: int = 0,
        dtype: str = "float32",
        threads: int | None = None,
    ) -> None:
        self.units = _check_units(units)
        self.dropout = _check_dropout(dropout, len(self.units) - 2)
        self.input_dropout = _check_rate("input_dropout", input_dropout)
        self.activation = choice("activation", activation, _kernels.ACTIVATIONS)
        self.loss = choice("loss", loss, _kernels.LOSSES)
        self.initializer = choice("initializer", initializer, tuple(INITIALIZERS))
        self.scaling = choice("scaling", scaling, _SCALINGS)
        self.seed = whole_number("seed", seed, 0, 2**64)
        self.dtype = np.dtype(choice("dtype", _dtype_name(dtype), _DTYPES))
        if threads is not None:
            threads = whole_number("threads", threads, 1, _kernels.MAX_THREADS + 1)
        self.threads = threads
        self.history = History()
        self._optimizer: Optimizer | None = None
        self._updates = 0  # made with the optimiser's state
        self._schedule: Schedule | None = None  # of the last fit; None where its rate was a number
        self._schedule_state: tuple[float, ...] = ()
        self._epoch = 0
        self._background: NDArray[Any] | None = None  # by the first fit; zeros where there is none
        self._under_way: str | None = None  # the fit with checkpoints that was the last to train it
        self._turn = _kernels.Turn()  # threads that share a network take whole steps in turn
        self._engine = self._make_engine()
        for i, (fan_in, fan_out) in enumerate(self._engine.shapes):
            weight = initial_weight(
                fan_in, fan_out, initializer=self.initializer, seed=self.seed, layer=i
            )
            self._engine.set(i, 0, weight, np.zeros(fan_out))

    def _make_engine(self) -> _kernels.Engine:
        rates = (self.input_dropout, *self.dropout)
        return _kernels.Engine(
            self.units,
            [_keep_units(rate) for rate in rates],
            self.dtype,
            self.activation,
            self.loss,
            self.scaling == "train",
            self.seed,
        )

    def __repr__(self) -> str:
        """Return the settings that are not the defaults, as a call."""
        shown = [repr(list(self.units))]
        if any(self.dropout):
            same = len(set(self.dropout)) == 1
            shown.append(f"dropout={self.dropout[0] if same else list(self.dropout)!r}")
        for name, default in (
            ("input_dropout", 0.0),
            ("activation", "relu"),
            ("loss", "softmax_cross_entropy"),
            ("initializer", "he"),
            ("scaling", "train"),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value != default:
                shown.append(f"{name}={value!r}")
        if self.dtype != np.float32:
            shown.append(f"dtype={self.dtype.name!r}")
        return f"Network({', '.join(shown)})"

    # ---- Training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        optimizer: str | Optimizer = "rmsprop",
        learning_rate: float | Schedule = 1e-3,
        l2: float = 0.0,
        share_l2: bool = False,
        max_norm: float | None = None,
        batch_size: int = 256,
        iterations: int | None = None,
        epochs: int | None = None,
        rows: ArrayLike | None = None,
        shuffle: bool = True,
        validation: Sequence[Any] | None = None,
        callbacks: Sequence[Any] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
    ) -> History:
        """Train, going on from where the last call ended.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
            Numbers, none NaN or infinite. Not copied if it is C-contiguous and of the network's dtype. A sparse one is
            converted to CSR form, and trains to the same weights as its dense form does without a background.
        y : array_like
            For softmax cross-entropy labels, shape (n,), integers from 0 to units[-1] - 1; for sigmoid cross-entropy
            probabilities, shape (n, units[-1]); for squared error numbers, shape (n, units[-1]), or (n,) if that is 1.
        sample_weight : array_like, shape (n,), optional
            At least 0. A minibatch's loss is the weighted mean over its rows.
        optimizer : str or Optimizer, default "rmsprop"
            See `cdrop.optimizers`. Its state is kept between calls unless another rule is given.
        learning_rate : float or Schedule, default 1e-3
            A schedule (see `cdrop.schedules`) needs `epochs`; it goes on over calls unless another one is given.
        l2 : float, default 0.0
            Adds l2 / 2 times the sum of squares of the weights (not of the biases) to the loss.
        share_l2 : bool, default False
            Divide `l2` by the minibatch's sum of sample weights, or its number of rows, as scikit-learn does with its
            ``alpha``: the sum over all rows is then penalised, not their mean.
        max_norm : float, optional
            Above 0: the largest Euclidean norm of a hidden unit's incoming weights. After each update the weights of a
            hidden unit above it are scaled to it (max-norm, often 3 to 4 beside dropout); outputs and biases have no
            limit. Default: none.
        batch_size : int, default 256
        iterations : int, optional
            Number of minibatches: the rows are shuffled once and cut into fixed minibatches, and each iteration draws
            one of them with replacement, as in the article. 1,000 if `epochs` is not given either.
        epochs : int, optional
            Instead of `iterations`: passes over the rows, each in a new order.
        rows : array_like of int, optional
            Numbers of the rows to train on, without copying them. Default: all.
        shuffle : bool, default True
            Without it the rows are cut into minibatches in the order they have.
        validation : tuple (X, y) or (X, y, sample_weight), optional
            Rows to evaluate after each epoch; needs `epochs`. The history has the results.
        callbacks : sequence of cdrop.callbacks.Callback
            Told of every iteration and epoch; one that returns True ends the fit.
        checkpoint : path, optional
            A file to keep the fit in, for the case that it is killed. If it is there already, the fit goes on from it:
            after a crash make the same call again, on a network made in the same way. It ends with the same bytes as if
            it had never stopped. Needs the extra ``io``.
        checkpoint_every : int, optional
            Write it after every step whose number in the network's life is a multiple of this. Default: 1,000. It is
            also written when the fit begins and ends, by Ctrl-C as well, and is on the disk before the next step.

        Returns
        -------
        History
            The network's `history`, which goes on over calls.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or `checkpoint` is the file of another fit; nothing has changed then.
        ImportError, OSError
            If checkpoints cannot be written; the last one is still there.
        FloatingPointError
            If the loss is NaN or infinite: the weights are those before that step. If an update leaves a weight or bias
            that is. The step and the layer are named.

        Notes
        -----
        Ctrl-C ends the fit after the current step: ``history.interrupted`` says so, and the network can be used and
        trained further. A second Ctrl-C is raised at once.

        There is no switch for going on from a checkpoint, because it gives what a new beginning would give: the file
        knows data, network, callbacks and arguments of its fit, and the call must have the same (`checkpoint_every` and
        the number of threads are free). So a file is overwritten by later moments of its own fit alone, and a script
        with several fits, each with its path, can be run again as it is: those that are finished return at once.
        Callbacks hear again of the steps after the checkpoint; see `cdrop.callbacks.Callback.state_dict`. `cdrop.load`
        reads the network out of the file.

        References
        ----------
        Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1: training, and max-norm.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _hyper(optimizer, learning_rate, l2, max_norm, share_l2)
        batch_size = whole_number("batch_size", batch_size, 1, 2**48)
        callbacks = check_callbacks(callbacks)
        chosen = None if rows is None else row_numbers("rows", rows, len(data.x))
        shuffle = truth_value("shuffle", shuffle)
        held_out = None if validation is None else self._validation_data(validation)
        n = len(data.x) if chosen is None else len(chosen)
        cut = _Cut(n, batch_size, chosen, shuffle)
        passes, total = _length(iterations, epochs, cut.count)
        if passes is None:
            _check_no_epochs(hyper, held_out)
        plan = _Plan(data, hyper, cut, passes, total, held_out)
        keeper = self._keeper(checkpoint, checkpoint_every, plan, callbacks)
        place = checkpoints.Place() if keeper is None else keeper.place
        self._engine.reserve(min(batch_size, n), self.threads or 0)  # or nothing has changed
        if keeper is not None:
            keeper.restore_network(self)
        self._under_way = None if keeper is None else keeper.identity
        if self._background is None:
            dense = isinstance(data.x, np.ndarray)
            self._set_background(find_background(data.x) if dense else None)
        self._use(hyper)
        self.history.interrupted = False
        for callback in callbacks:
            callback.on_fit_begin(self, plan.left(place))
        try:
            with _deferred_interrupt() as interrupted:
                self._go(plan, _Course(callbacks, interrupted, place, keeper))
        finally:
            for callback in callbacks:
                callback.on_fit_end(self)
        return self.history

    def _keeper(
        self,
        path: str | os.PathLike[str] | None,
        every: int | None,
        plan: _Plan,
        callbacks: Sequence[Any],
    ) -> checkpoints.Keeper | None:
        if path is None:
            if every is not None:
                raise ValueError(f"checkpoint_every is {every!r} without checkpoint; expected both")
            return None
        return checkpoints.Keeper(path, every, self, callbacks, plan.arguments())

    def _go(self, plan: _Plan, course: _Course) -> None:
        """Do what is left of a fit."""
        place, keeper = course.place, course.keeper
        if keeper is not None:
            keeper.begin(self)
        if not place.finished:
            if plan.passes is None:
                minibatches = self._draws(plan.data, plan.cut, plan.left(place))
                through = self._steps(plan.data, minibatches, plan.hyper, course)
            else:
                through = self._epochs(plan, plan.passes, course)
            place.finished |= through
        if keeper is not None:
            keeper.write(self)

    def _set_background(self, background: NDArray[Any] | None) -> None:
        """Tell the engine; none with input dropout, where the background would differ from row to row."""
        if background is None or self.input_dropout:
            background = np.zeros(self.units[0], self.dtype)
        self._background = background
        self._engine.set_background(background)

    def _draws(self, data: _kernels.Rows, cut: _Cut, total: int) -> Iterator[_Minibatch]:
        """Draw fixed minibatches, whose lists are worth keeping if they come more than once."""
        order, size = cut.order(_batches.fixed(cut.n, self.seed)), cut.batch_size
        kept = None
        if total >= 2 * cut.count:
            kept = self._engine.keep_batches(data, order, size, self.threads or 0)
        for number in _batches.drawn(cut.count, self.seed, self.history.iterations, total):
            yield _Minibatch(order[number * size : (number + 1) * size], kept, number)

    def _epochs(self, plan: _Plan, passes: int, course: _Course) -> bool:
        """Make passes over the rows; after each record it, tell of it, and move the schedule on.

        Returns whether all are made, and nobody has asked to stop before.
        """
        cut, hyper, place = plan.cut, plan.hyper, course.place
        for _ in range(place.epochs, passes):
            if not place.steps:
                self._epoch += 1
            if self._schedule is not None:
                hyper = dataclasses.replace(hyper, learning_rate=self._schedule_state[0])
            order = cut.order(_batches.epoch(cut.n, self.seed, self._epoch))
            rest = _batches.cut(order[place.steps * cut.batch_size :], cut.batch_size)
            if not self._steps(plan.data, map(_Minibatch, rest), hyper, course):
                return False
            held_out = plan.held_out
            seen = (math.nan, math.nan) if held_out is None else self._evaluated(held_out)
            epoch = Epoch(self._epoch, cut.n, place.total / cut.n, hyper.learning_rate, *seen)
            self.history.epoch_loss.append(epoch.loss)
            self.history.validation_loss.append(epoch.validation_loss)
            self.history.validation_score.append(epoch.validation_score)
            answers = [c.on_epoch_end(self, epoch) for c in course.callbacks]
            if self._schedule is not None:
                self._schedule_state = self._schedule.after(self._schedule_state, epoch)
            place.epochs, place.steps, place.total = place.epochs + 1, 0, 0.0
            place.finished = any(answers)
            if place.finished:
                return False
        return True

    def _steps(
        self,
        data: _kernels.Rows,
        minibatches: Iterator[_Minibatch],
        hyper: _Hyper,
        course: _Course,
    ) -> bool:
        """Train on each minibatch; whether all are done, and nobody has asked to stop before."""
        place = course.place
        for minibatch in minibatches:
            loss = self._step(data, minibatch, hyper)
            assert minibatch.rows is not None
            place.steps += 1
            place.total += loss * len(minibatch.rows)
            done = self.history.iterations
            answers = [c.on_iteration(self, done, loss) for c in course.callbacks]
            self.history.interrupted = course.interrupted()
            place.finished = any(answers)
            if self.history.interrupted or place.finished:
                return False
            if course.keeper is not None:
                course.keeper.after_step(self)
        return True

    def train_step(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        optimizer: str | Optimizer = "rmsprop",
        learning_rate: float = 1e-3,
        l2: float = 0.0,
        share_l2: bool = False,
        max_norm: float | None = None,
    ) -> float:
        """Make one update on the given rows as one minibatch.

        Parameters are those of `fit`; the learning rate is a number.

        Returns
        -------
        float
            The loss before the update, with its L2 term.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As `fit`.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _hyper(optimizer, learning_rate, l2, max_norm, share_l2)
        _check_no_epochs(hyper, None)
        self._engine.reserve(len(data.x), self.threads or 0)
        self._under_way = None
        self._use(hyper)
        return self._step(data, _Minibatch(), hyper)

    def _training_data(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> _kernels.Rows:
        x = checked_rows("X", feature_matrix("X", X, self.units[0]), self.dtype)
        if not len(x):
            raise ValueError("X has 0 rows; expected at least 1")
        labels = targets = None
        if self.loss == "softmax_cross_entropy":
            labels = label_vector("y", y, len(x), self.units[-1])
        else:
            unit_interval = self.loss == "sigmoid_cross_entropy"
            targets = target_matrix("y", y, (len(x), self.units[-1]), self.dtype, unit_interval)
        weights = row_weights("sample_weight", sample_weight, len(x))
        return _kernels.Rows(x, labels, targets, weights)

    def _validation_data(self, validation: Sequence[Any]) -> _kernels.Rows:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise TypeError(
                f"validation is {type(validation).__name__}; expected a tuple (X, y) or (X, y, sample_weight)"
            )
        x, y, *weight = validation
        try:
            return self._training_data(x, y, weight[0] if weight else None)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation: {error}") from None

    def _use(self, hyper: _Hyper) -> None:
        """Begin with a fresh state of optimiser and schedule if it is another one than before."""
        old = self._optimizer
        if old is not None and type(old) is not type(hyper.optimizer):
            for i, (fan_in, fan_out) in enumerate(self._engine.shapes):
                for part in (1, 2):
                    self._engine.set(i, part, np.zeros((fan_in, fan_out)), np.zeros(fan_out))
            self._updates = 0
        self._optimizer = hyper.optimizer
        if hyper.schedule != self._schedule:
            self._schedule = hyper.schedule
            self._schedule_state = () if hyper.schedule is None else hyper.schedule.begin()

    def _step(self, data: _kernels.Rows, minibatch: _Minibatch, hyper: _Hyper) -> float:
        with self._turn:
            return self._step_alone(data, minibatch, hyper)

    def _step_alone(self, data: _kernels.Rows, minibatch: _Minibatch, hyper: _Hyper) -> float:
        step, rows = self.history.iterations + 1, minibatch.rows
        weight = len(data.x if rows is None else rows)
        if data.weights is not None:
            weight = data.weights.sum() if rows is None else data.weights[rows].sum()
        if not weight >= _TINY:
            raise ValueError(
                f"sample_weight is 0 for all rows of the minibatch of step {step}; expected a larger batch_size, or "
                "the rows without weight left out"
            )
        l2 = hyper.l2 / float(weight) if hyper.share_l2 else hyper.l2
        constants = hyper.optimizer.constants(hyper.learning_rate, l2, self._updates + 1)
        fault = None
        try:
            loss = self._engine.step(
                data,
                rows,
                constants,
                hyper.max_norm,
                step,
                self.threads or 0,
                minibatch.kept,
                minibatch.number,
            )
        except FloatingPointError as error:
            loss, fault = error.args[0], self._not_finite(step, hyper, *error.args)
            if not math.isfinite(loss):
                raise fault from None
        self._updates += 1
        self.history.loss.append(loss)
        if fault is not None:
            raise fault
        return loss

    def _not_finite(
        self, step: int, hyper: _Hyper, loss: float, layer: int, in_weights: bool
    ) -> FloatingPointError:
        """Say where numbers first were not finite, counting from the input, as the engine has found it."""
        last = len(self.units) - 1
        where = f"layer {layer + 1} of {last}"
        weights = f"the weights of {where} (coefs_[{layer}] and intercepts_[{layer}])"
        if math.isfinite(loss):
            told = f"the update of step {step} left numbers that are not finite in {weights}"
        elif in_weights:
            told = f"the loss of step {step} is not finite, because {weights} were not before it"
        else:
            told = f"the loss of step {step} is not finite, " + (
                f"nor are the outputs of {where}" if layer < last else "though all outputs are"
            )
            told += "; the weights are those before it"
        return FloatingPointError(
            f"{told}. A smaller learning_rate (it is {hyper.learning_rate:g}) or inputs of unit scale usually help"
        )

    # ---- Prediction --------------------------------------------------------------------------------------------------

    def _predicted(self, X: ArrayLike, answer: str) -> NDArray[Any]:
        """Piece by piece: only a piece is ever copied, where X is not of the kind that the engine takes."""
        x = feature_matrix("X", X, self.units[0])
        rows, piece = x.shape[0], self._piece()
        if rows <= piece:
            return self._answers(x, 0, answer)
        first = self._answers(x[:piece], 0, answer)
        out = np.empty((rows, *first.shape[1:]), first.dtype)
        out[:piece] = first
        for i in range(piece, rows, piece):
            out[i : i + piece] = self._answers(x[i : i + piece], i, answer)
        return out

    def _piece(self) -> int:
        """Rows at once: whole blocks of masks."""
        return max(256, _PIECE // self.units[0] // 64 * 64)

    def _answers(self, x: Any, first_row: int, answer: str) -> NDArray[Any]:
        data = _kernels.Rows(checked_rows("X", x, self.dtype, first_row))
        return self._engine.predict(data, answer, self.threads or 0)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict without dropout.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])

        Returns
        -------
        ndarray
            Softmax: labels, int64, shape (n,). Sigmoid: 0 or 1 for each label, int64, shape (n, units[-1]). Squared
            error: the outputs, shape (n, units[-1]).
        """
        return self._predicted(X, "labels")

    def predict_proba(
        self, X: ArrayLike, mc_samples: int | None = None, *, seed: int | None = None
    ) -> NDArray[Any]:
        """Predict probabilities, without dropout or as the mean over many masks of it.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        mc_samples : int, optional
            How many masks to average over, as in `predict_uncertainty`. Default: no dropout.
        seed : int, optional
            Of those masks, 0 to 2**64 - 1. Default: the network's.

        Returns
        -------
        ndarray of the network's dtype, shape (n, units[-1])

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above; if the loss is the squared error, whose outputs are no probabilities; with
            `mc_samples`, if all dropout rates are 0.
        """
        self._check_probabilities("predict_proba")
        if mc_samples is None:
            return self._predicted(X, "probabilities")
        return self._sampled(X, mc_samples, seed, ("mean",))["mean"]

    def _check_probabilities(self, caller: str) -> None:
        if self.loss == "squared_error":
            raise ValueError(
                f"{caller} needs a cross-entropy loss; this network's is 'squared_error'"
            )

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy (all labels of a row right, if there are several), or R^2 for the squared error.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        y : array_like
            As for `fit`.
        sample_weight : array_like, shape (n,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or targets are constant in a column, so that there is no R^2.
        """
        data = self._training_data(X, y, sample_weight)
        if self.loss == "squared_error":
            assert data.targets is not None
            if not np.ptp(data.targets, axis=0).all():
                raise ValueError("y is constant in a column; R^2 needs targets that vary")
        return self._scored(data, self._engine.predict(data, "labels", self.threads or 0))

    def evaluate(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Loss and score without dropout.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        y : array_like
            As for `fit`.
        sample_weight : array_like, shape (n,), optional

        Returns
        -------
        Evaluation
            A tuple of loss and score. R^2 is 0 in a column of constant targets, or 1 where all are met.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above.

        Examples
        --------
        >>> net = Network([2, 8, 2])
        >>> loss, score = net.evaluate([[0.0, 1.0]], [1])
        """
        return self._evaluated(self._training_data(X, y, sample_weight))

    def _evaluated(self, data: _kernels.Rows) -> Evaluation:
        outputs = self._engine.predict(data, "outputs", self.threads or 0)
        truth = data.labels if data.labels is not None else data.targets
        with np.errstate(all="ignore"):  # a diverged network's numbers
            loss, _ = getattr(_kernels, self.loss)(outputs, truth, data.weights)
            if not math.isfinite(loss):
                return Evaluation(loss, math.nan)
            if self.loss == "softmax_cross_entropy":
                outputs = outputs.argmax(axis=1)
            elif self.loss == "sigmoid_cross_entropy":
                outputs = outputs > 0
            return Evaluation(loss, self._scored(data, outputs))

    def _scored(self, data: _kernels.Rows, predicted: NDArray[Any]) -> float:
        if data.labels is not None:
            return float(np.average(predicted == data.labels, weights=data.weights))
        assert data.targets is not None
        if self.loss == "sigmoid_cross_entropy":
            right = (predicted == (data.targets > 0.5)).all(axis=1)
            return float(np.average(right, weights=data.weights))
        return _r2(data.targets.astype(np.float64), predicted, data.weights)

    # ---- Prediction under dropout ------------------------------------------------------------------------------------

    def predict_uncertainty(
        self, X: ArrayLike, mc_samples: int = 50, *, seed: int | None = None
    ) -> uncertainty.Uncertainty:
        """Predict under many masks of dropout, and tell how far the predictions agree (Monte Carlo dropout).

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        mc_samples : int, default 50
            At least 1: how many masks to draw for each row, as in training. Time grows with it, memory does not. What
            lies below the first dropped-out layer is computed once for all.
        seed : int, optional
            Of the masks, 0 to 2**64 - 1. Default: the network's; they never meet those of training. The same seed gives
            the same bytes, at any number of threads and on every SIMD path. Masks go by a row's place in `X`.

        Returns
        -------
        ClassificationUncertainty or RegressionUncertainty
            For the cross-entropy losses mean probabilities, entropies and mutual information; for the squared error
            mean and standard deviation.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or if all dropout rates are 0: all passes would agree, right or wrong.

        References
        ----------
        Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep learning", ICML
        2016.

        Examples
        --------
        >>> import numpy as np
        >>> from cdrop import Network
        >>> X = np.linspace(-1.0, 1.0, 40)[:, None]
        >>> net = Network([1, 64, 64, 1], dropout=0.1, loss="squared_error", seed=1)
        >>> history = net.fit(X, X**2, learning_rate=0.003, iterations=2000)
        >>> told = net.predict_uncertainty([[0.5], [4.0]])  # the second is far from all that it has seen
        >>> told.std.shape, bool(told.std[1] > 10 * told.std[0])
        ((2, 1), True)
        """
        return self._uncertainty(X, mc_samples, seed)

    def subnetworks(self, count: int, *, seed: int | None = None) -> Subnetworks:
        """Draw thinned networks: fixed masks over the units, to be used again and again.

        Parameters
        ----------
        count : int
            At least 1.
        seed : int, optional
            Of the masks, 0 to 2**64 - 1. Default: the network's. More of them begin with the same ones.

        Returns
        -------
        Subnetworks

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or if all dropout rates are 0.
        """
        self._check_dropped_out("subnetworks")
        count = whole_number("count", count, 1, 2**32)
        return Subnetworks(self, count, self._mask_seed(seed))

    def _check_dropped_out(self, what: str) -> None:
        if min(self._keeps()) == 1:
            raise ValueError(
                f"{what} needs dropout, and all rates of this network are 0: every pass would give the same, and "
                "nothing would ever look uncertain; expected a network with dropout or input_dropout above 0"
            )

    def _keeps(self) -> list[float]:
        """Probabilities of keeping, as masks are drawn: of the input, then of the hidden layers."""
        return [_keep_units(rate) / _KEEP_UNITS for rate in (self.input_dropout, *self.dropout)]

    def _mask_seed(self, seed: int | None) -> int:
        return self.seed if seed is None else whole_number("seed", seed, 0, 2**64)

    def _uncertainty(
        self, X: ArrayLike, passes: int, seed: int | None, masks: _Masks = None
    ) -> uncertainty.Uncertainty:
        names = tuple(uncertainty.shapes(self.loss, 0, 0))
        return uncertainty.kind_of(self.loss)(**self._sampled(X, passes, seed, names, masks))

    def _sampled(
        self,
        X: ArrayLike,
        passes: int,
        seed: int | None,
        names: Sequence[str],
        masks: _Masks = None,
    ) -> dict[str, NDArray[Any]]:
        """Predict under masks, drawn or given, and return the arrays that `names` ask for; piece by piece."""
        self._check_dropped_out("mc_samples")
        passes = whole_number("mc_samples", passes, 1, 2**32)
        seed, x = self._mask_seed(seed), feature_matrix("X", X, self.units[0])
        rows, shapes = x.shape[0], uncertainty.shapes(self.loss, x.shape[0], self.units[-1])
        out = {name: np.empty(shapes[name], self.dtype) for name in names}
        piece = min(self._piece(), max(256, _PASSED_ROWS // passes // 64 * 64))
        for i in range(0, max(rows, 1), piece):
            data = _kernels.Rows(checked_rows("X", x[i : i + piece], self.dtype, i))
            part = {name: array[i : i + piece] for name, array in out.items()}
            self._engine.sample(data, part, passes, seed, i, masks, self.threads or 0)
        return out

    # ---- State -------------------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Copies of the weights, layer by layer, each of shape (units[l], units[l + 1])."""
        return [self._engine.get(i, 0)[0] for i in range(len(self.units) - 1)]

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Copies of the biases, layer by layer, each of shape (units[l + 1],)."""
        return [self._engine.get(i, 0)[1] for i in range(len(self.units) - 1)]

    @property
    def learning_rate(self) -> float | None:
        """Of the next epoch, by the schedule of the last fit; None where that was given a number."""
        return self._schedule_state[0] if self._schedule_state else None

    def set_weights(self, coefs: Sequence[ArrayLike], intercepts: Sequence[ArrayLike]) -> None:
        """Exchange weights and biases; optimiser, counters and history stay.

        Parameters
        ----------
        coefs, intercepts : sequence of array_like
            Layer by layer, of the shapes that `coefs_` and `intercepts_` have. Not looked at for NaN or infinity.

        Raises
        ------
        TypeError, ValueError
            If a number or shape does not fit; nothing has changed then.
        """
        shapes = self._engine.shapes
        weights = self._parameters("coefs", coefs, shapes)
        biases = self._parameters("intercepts", intercepts, [shape[1:] for shape in shapes])
        self._under_way = None
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            self._engine.set(i, 0, weight, bias)

    def _parameters(
        self, name: str, given: Sequence[ArrayLike], shapes: Sequence[tuple[int, ...]]
    ) -> list[NDArray[Any]]:
        if not isinstance(given, (list, tuple)) or len(given) != len(shapes):
            raise TypeError(f"{name} is {given!r}; expected a list of {len(shapes)}, one a layer")
        return [
            parameter_array(f"{name}[{i}]", array, shape, self.dtype)
            for i, (array, shape) in enumerate(zip(given, shapes, strict=True))
        ]

    def _settings(self) -> dict[str, Any]:
        return {
            "units": list(self.units),
            "dropout": list(self.dropout),
            "input_dropout": self.input_dropout,
            "activation": self.activation,
            "loss": self.loss,
            "initializer": self.initializer,
            "scaling": self.scaling,
            "seed": self.seed,
            "dtype": self.dtype.name,
        }

    def _resized(self, units: list[int]) -> Network:
        """Make a network of these widths with the same settings, except that nothing is dropped."""
        changed = {"units": units, "dropout": 0.0, "input_dropout": 0.0}
        return Network(**{**self._settings(), **changed}, threads=self.threads)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from, as copies: weights, optimiser, counters, history.

        Returns
        -------
        dict
            ``settings`` (what `Network` was made with), ``arrays`` (ndarrays by name: ``weight.0``, ``bias.0``,
            ``state1.weight.0``, ...), ``background`` (what the first `fit` found its inputs to be mostly, shape
            (units[0],), or None before), ``optimizer`` (name and settings, or None), ``updates``, ``schedule`` (name,
            settings and ``state``, or None), ``epoch``, ``losses``, ``curves`` (the history's lists of an entry an
            epoch, by name).
        """
        arrays = {}
        for i in range(len(self.units) - 1):
            for number, part in enumerate(_PARTS):
                weight, bias = self._engine.get(i, number)
                prefix = "" if number == 0 else f"{part}."
                arrays[f"{prefix}weight.{i}"], arrays[f"{prefix}bias.{i}"] = weight, bias
        rule = self._optimizer
        return {
            "settings": self._settings(),
            "arrays": arrays,
            "background": None if self._background is None else self._background.copy(),
            "optimizer": None if rule is None else _as_settings(rule),
            "updates": self._updates,
            "schedule": self._schedule_settings(),
            "epoch": self._epoch,
            "losses": list(self.history.loss),
            "curves": {name: list(getattr(self.history, name)) for name in _CURVES},
        }

    def _schedule_settings(self) -> dict[str, Any] | None:
        schedule = self._schedule
        if schedule is None:
            return None
        return {**_as_settings(schedule), "state": list(self._schedule_state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; the network must have been made with the same settings.

        Parameters
        ----------
        state : mapping

        Raises
        ------
        TypeError, ValueError
            If a part is missing, or does not fit this network; nothing has changed then.
        """
        arrays = self._check_state(state)
        optimizer = _state_optimizer(state["optimizer"])
        updates = whole_number("the state's updates", state["updates"], 0, 2**62)
        epoch = whole_number("the state's epoch", state["epoch"], 0, 2**62)
        losses = _state_losses("losses", state["losses"])
        curves = _state_curves(state["curves"])
        schedule, schedule_state = _state_schedule(state["schedule"])
        background = self._state_background(state["background"])
        for i in range(len(self.units) - 1):
            for number, part in enumerate(_PARTS):
                prefix = "" if number == 0 else f"{part}."
                self._engine.set(
                    i, number, arrays[f"{prefix}weight.{i}"], arrays[f"{prefix}bias.{i}"]
                )
        if background is not None:
            self._set_background(background)
        elif self._background is not None:
            self._set_background(None)
            self._background = None
        self._under_way = None
        self._optimizer = optimizer
        self._updates = updates
        self._schedule, self._schedule_state = schedule, schedule_state
        self._epoch = epoch
        self.history = History(losses, *curves, interrupted=False)

    def _check_state(self, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        expected = self.state_dict()
        _state_mapping("the state", state)
        missing = [name for name in expected if name not in state]
        if missing:
            raise ValueError(
                f"the state lacks {', '.join(missing)}; expected what state_dict gives"
            )
        _state_mapping("the state's settings", state["settings"])
        _state_mapping("the state's arrays", state["arrays"])
        for name, value in expected["settings"].items():
            given = state["settings"].get(name)
            if given != value:
                raise ValueError(
                    f"the state's {name} is {given!r}; expected {value!r}, as of this network"
                )
        arrays = {}
        for name, own in expected["arrays"].items():
            array = np.asarray(state["arrays"].get(name))
            if array.shape != own.shape or array.dtype != own.dtype:
                raise ValueError(
                    f"the state's array {name} has shape {array.shape} and dtype {array.dtype}; expected {own.shape} "
                    f"and {own.dtype}"
                )
            arrays[name] = array
        return arrays

    def _state_background(self, background: Any) -> NDArray[Any] | None:
        if background is None:
            return None
        array = np.asarray(background)
        if (
            array.shape != (self.units[0],)
            or array.dtype != self.dtype
            or not np.isfinite(array).all()
        ):
            raise ValueError(
                f"the state's background has shape {array.shape} and dtype {array.dtype}; expected "
                f"({self.units[0]},) finite numbers of {self.dtype}, or None"
            )
        return array.copy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, whole or not at all, from which `cdrop.load` goes on bit for bit.

        Parameters
        ----------
        path : path
            An existing file is replaced. It is a safetensors file, whatever its name; see `cdrop.storage`.

        Raises
        ------
        ImportError
            If safetensors is not installed: ``pip install 'cdrop[io]'``.
        TypeError
            If it was trained with an optimiser or schedule of a class of your own.
        OSError
            If the file cannot be written; what was there before is still there.

        Notes
        -----
        A file of a callback's making, in the middle of ``fit(iterations=...)``, goes on where it was made. In the
        middle of an epoch it goes on with the next one, since ``fit(epochs=...)`` begins with a whole epoch;
        ``fit(checkpoint=...)`` goes on in the middle.
        """
        storage.save(self, path)

    def _to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what `cdrop.storage` writes."""
        _check_ours(self._optimizer, self._schedule)
        with self._turn:  # between the steps of other threads
            state, interrupted = self.state_dict(), self.history.interrupted
        arrays = {"losses": np.array(state.pop("losses"), np.float64), **state.pop("arrays")}
        for name, curve in state.pop("curves").items():
            arrays[f"curve.{name}"] = np.array(curve, np.float64)
        background = state.pop("background")
        if background is not None:
            arrays["background"] = background
        return {**state, "interrupted": interrupted, "threads": self.threads}, arrays

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Network:
        """Take what `cdrop.storage` has read, which may be anything; see there."""
        state, arrays = dict(settings), dict(arrays)
        state["losses"], state["background"] = arrays.pop("losses"), arrays.pop("background", None)
        state["curves"] = {name: arrays.pop(f"curve.{name}") for name in _CURVES}
        state["arrays"] = arrays
        if not isinstance(state["interrupted"], bool):
            raise TypeError(f"interrupted is {state['interrupted']!r}; expected a bool")
        _state_mapping("the state's settings", state["settings"])
        _check_sizes(state["settings"]["units"], arrays)
        net = cls(**state["settings"], threads=state["threads"])
        net.load_state_dict(state)
        net.history.interrupted = state["interrupted"]
        return net

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy through `state_dict`."""
        return {"state": self.state_dict(), "threads": self.threads}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Make the network anew, then load its state."""
        Network.__init__(self, **saved["state"]["settings"], threads=saved["threads"])
        self.load_state_dict(saved["state"])


def _r2(
    truth: NDArray[np.float64], predicted: NDArray[Any], weights: NDArray[np.float64] | None
) -> float:
    """Mean over the columns of R^2; 1 or 0 in one of constant truth, as it is met or not."""
    residual = np.average((truth - predicted) ** 2, axis=0, weights=weights)
    middle = np.average(truth, axis=0, weights=weights)
    spread = np.average((truth - middle) ** 2, axis=0, weights=weights)
    constant = spread == 0
    r2 = np.where(constant, residual == 0, 1 - residual / np.where(constant, 1, spread))
    return float(np.mean(r2))


def make_network(D: int, C: int, H: int = 100, **settings: Any) -> Network:
    """Make the article's three-layer network, D-H-H-C.

    Parameters
    ----------
    D, C, H : int
        Inputs, classes, units of each hidden layer (default 100).
    **settings
        Passed to `Network`.

    Returns
    -------
    Network

    Examples
    --------
    >>> from cdrop import make_network
    >>> make_network(784, 10, H=256, dropout=0.5)
    Network([784, 256, 256, 10], dropout=0.5)
    """
    for name, width in (("D", D), ("C", C), ("H", H)):
        whole_number(name, width, 1, 2**32)
    return Network([D, H, H, C], **settings)


@dataclass(frozen=True)
class _Cut:
    """How n rows, all or those chosen, become minibatches."""

    n: int
    batch_size: int
    chosen: NDArray[np.int64] | None
    shuffle: bool

    @property
    def count(self) -> int:
        return -(-self.n // self.batch_size)

    def order(self, shuffled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows' numbers one after the other, given an order of n."""
        if not self.shuffle:
            return _batches.in_order(self.n) if self.chosen is None else self.chosen
        return shuffled if self.chosen is None else self.chosen[shuffled]


class _Minibatch(NamedTuple):
    """Which rows a step takes: None for all; and where its lists are kept, if they are."""

    rows: NDArray[np.int64] | None = None
    kept: _kernels.KeptBatches | None = None
    number: int = 0


@dataclass(frozen=True)
class _Hyper:
    optimizer: Optimizer
    learning_rate: float  # of a schedule's first epoch
    schedule: Schedule | None
    l2: float
    share_l2: bool
    max_norm: float  # 0 for none, as the engine takes it


@dataclass(frozen=True)
class _Plan:
    """What a fit is to do: `passes` over the rows, or where that is None `total` minibatches drawn."""

    data: _kernels.Rows
    hyper: _Hyper
    cut: _Cut
    passes: int | None
    total: int
    held_out: _kernels.Rows | None

    def left(self, place: checkpoints.Place) -> int:
        """Return how many steps are left."""
        if place.finished:
            return 0
        return self.total - place.epochs * self.cut.count - place.steps

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that decide what comes out, as `cdrop.checkpoints` compares them."""
        hyper, cut, rate = self.hyper, self.cut, self.hyper.learning_rate
        _check_ours(hyper.optimizer, hyper.schedule)
        return {
            "X": _rows_digest(self.data, "x"),
            "y": _rows_digest(self.data, "labels", "targets"),
            "sample_weight": _rows_digest(self.data, "weights"),
            "rows": None if cut.chosen is None else checkpoints.digest(cut.chosen),
            "shuffle": cut.shuffle,
            "batch_size": cut.batch_size,
            "iterations": self.total if self.passes is None else None,
            "epochs": self.passes,
            "optimizer": _as_settings(hyper.optimizer),
            "learning_rate": rate if hyper.schedule is None else _as_settings(hyper.schedule),
            "l2": hyper.l2,
            "share_l2": hyper.share_l2,
            "max_norm": hyper.max_norm,
            "validation": None
            if self.held_out is None
            else _rows_digest(self.held_out, "x", "labels", "targets", "weights"),
        }


@dataclass(frozen=True)
class _Course:
    """A fit on its way: whom to tell, whom to ask whether to stop, where it is, and who keeps it."""

    callbacks: tuple[Any, ...]
    interrupted: Callable[[], bool]
    place: checkpoints.Place
    keeper: checkpoints.Keeper | None


def _rows_digest(rows: _kernels.Rows, *names: str) -> str:
    return checkpoints.digest([getattr(rows, name) for name in names])


def _hyper(
    optimizer: str | Optimizer,
    learning_rate: float | Schedule,
    l2: float,
    max_norm: float | None,
    share_l2: bool,
) -> _Hyper:
    schedule = learning_rate if isinstance(learning_rate, Schedule) else None
    rate = learning_rate if schedule is None else schedule.begin()[0]
    hyper = _Hyper(
        get_optimizer(optimizer),
        finite_number("learning_rate", rate, positive=True),
        schedule,
        finite_number("l2", l2),
        truth_value("share_l2", share_l2),
        0.0 if max_norm is None else finite_number("max_norm", max_norm, positive=True),
    )
    hyper.optimizer.constants(hyper.learning_rate, hyper.l2, 1)  # tells what does not go together
    return hyper


def _length(iterations: int | None, epochs: int | None, minibatches: int) -> tuple[int | None, int]:
    """Return the passes, or None where minibatches are drawn, and the iterations in all."""
    if iterations is not None and epochs is not None:
        raise ValueError(
            f"iterations is {iterations} and epochs {epochs}; expected only one of them"
        )
    if epochs is None:
        return None, whole_number(
            "iterations", 1000 if iterations is None else iterations, 0, 2**62
        )
    passes = whole_number("epochs", epochs, 0, 2**62)
    return passes, passes * minibatches


def _check_no_epochs(hyper: _Hyper, held_out: _kernels.Rows | None) -> None:
    """Schedules and validation go by epochs, and there are none."""
    if hyper.schedule is not None:
        raise ValueError(
            f"learning_rate is {hyper.schedule!r}; expected a number, or epochs for it to go by"
        )
    if held_out is not None:
        raise ValueError("validation is given without epochs; expected epochs to go by")


def _as_settings(made: Optimizer | Schedule) -> dict[str, Any]:
    """Take it apart for a state or a file; settings added since the first files only where they are set."""
    settings = {"name": made.name, **dataclasses.asdict(made)}
    for field_ in dataclasses.fields(made):
        if "added" in field_.metadata and settings[field_.name] == field_.default:
            del settings[field_.name]
    return settings


def _check_ours(optimizer: Optimizer | None, schedule: Schedule | None) -> None:
    """Raise if a file could not be read again: only classes of cdrop's own are made by name."""
    for name, made, ours in (
        ("optimizer", optimizer, "cdrop.optimizers"),
        ("learning_rate", schedule, "cdrop.schedules"),
    ):
        if made is not None and type(made).__module__ != ours:
            raise TypeError(
                f"{name} is {made!r}; expected one of {ours}, because a file holds no other"
            )


def _state_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}; expected a mapping, as in what state_dict gives")


def _state_optimizer(settings: Mapping[str, Any] | None) -> Optimizer | None:
    if settings is None:
        return None
    _state_mapping("the state's optimizer", settings)
    if "name" not in settings:
        raise ValueError("the state's optimizer lacks its name")
    return get_optimizer(
        **{"optimizer" if name == "name" else name: value for name, value in settings.items()}
    )


def _state_schedule(
    settings: Mapping[str, Any] | None,
) -> tuple[Schedule | None, tuple[float, ...]]:
    if settings is None:
        return None, ()
    _state_mapping("the state's schedule", settings)
    known = dict(settings)
    if "name" not in known or "state" not in known:
        raise ValueError("the state's schedule lacks its name or its state")
    name, state = known.pop("name"), _state_losses("schedule", known.pop("state"))
    schedule = get_schedule(name, **known)
    if len(state) != len(schedule.begin()) or not state[0] > 0:
        raise ValueError(f"the state's schedule remembers {state}; that is no state of {schedule}")
    return schedule, tuple(state)


def _state_curves(curves: Mapping[str, Any]) -> tuple[list[float], list[float], list[float]]:
    _state_mapping("the state's curves", curves)
    if set(curves) != set(_CURVES):
        raise ValueError(f"the state's curves are {list(curves)}; expected {list(_CURVES)}")
    lists = [_state_losses("curves", curves[name]) for name in _CURVES]
    if len(set(map(len, lists))) > 1:
        raise ValueError("the state's curves are of different lengths; expected an entry an epoch")
    return lists[0], lists[1], lists[2]


def _state_losses(name: str, losses: Sequence[float]) -> list[float]:
    array = np.asarray(losses)
    if array.ndim != 1 or (array.size and array.dtype.kind != "f"):
        raise TypeError(f"the state's {name} are no list of floats")
    return [float(loss) for loss in array]


def _dtype_name(dtype: Any) -> Any:
    if dtype is None:  # NumPy's word for float64
        return dtype
    try:
        return np.dtype(dtype).name
    except (TypeError, ValueError):
        return dtype


def _check_units(units: Sequence[int]) -> tuple[int, ...]:
    units = units.tolist() if isinstance(units, np.ndarray) else units
    if isinstance(units, (str, bytes)) or not isinstance(units, Sequence):
        raise TypeError(
            f"units is {units!r}; expected a sequence of widths such as [784, 256, 256, 10]"
        )
    if len(units) < 2:
        raise ValueError(f"units is {units!r}; expected at least an input and an output width")
    return tuple(whole_number(f"units[{i}]", width, 1, 2**32) for i, width in enumerate(units))


def _check_sizes(units: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Compare the widths with what is there, before a network of these widths takes memory."""
    layers = pairwise(_check_units(units))
    expected = len(_PARTS) * sum((fan_in + 1) * fan_out for fan_in, fan_out in layers)
    there = sum(array.size for array in arrays.values())
    if there != expected:
        raise ValueError(f"there are {there} numbers; expected {expected} for these units")


def _keep_units(rate: float) -> int:
    return round((1 - rate) * _KEEP_UNITS)


def _check_rate(name: str, rate: float) -> float:
    rate = finite_number(name, rate)
    if not rate < 1 or _keep_units(rate) == 0:
        raise ValueError(
            f"{name} is {rate!r}; expected a probability of dropping from 0 to below 1 (to within 2**-32)"
        )
    return rate


def _check_dropout(dropout: float | Sequence[float], hidden: int) -> tuple[float, ...]:
    dropout = dropout.tolist() if isinstance(dropout, np.ndarray) else dropout
    if isinstance(dropout, (int, float, np.number)):
        return (_check_rate("dropout", dropout),) * hidden
    if isinstance(dropout, (str, bytes)) or not isinstance(dropout, Sequence):
        raise TypeError(f"dropout is {dropout!r}; expected a number, or one for each hidden layer")
    if len(dropout) != hidden:
        raise ValueError(
            f"dropout has {len(dropout)} entries; expected {hidden}, one for each hidden layer"
        )
    return tuple(_check_rate(f"dropout[{i}]", rate) for i, rate in enumerate(dropout))


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into an answer to ask for between steps, so that no step is torn; a second one is raised at once.

    Only the main thread receives signals, and only Python's own handler is replaced: a program that handles Ctrl-C
    itself keeps doing so.
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
