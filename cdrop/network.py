"""A fully connected network trained with dropout, one C call a step."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop import _kernels, batches
from cdrop._checks import (
    choice,
    finite_number,
    label_vector,
    row_weights,
    target_matrix,
    whole_number,
)
from cdrop._features import checked_rows, feature_matrix
from cdrop.background import find_background
from cdrop.initializers import INITIALIZERS, initial_weight
from cdrop.optimizers import Optimizer, get_optimizer

__all__ = ["History", "Network", "make_network"]

_KEEP_UNITS = 2**32  # the kernels take probabilities in units of 2**-32
_PARTS = ("weight", "state1", "state2")
_SCALINGS = ("train", "test")
_DTYPES = ("float32", "float64")
_MOMENTS = ("fit_begin", "iteration", "fit_end")  # that callbacks are told of
_PIECE = 2**22  # entries of the input that a prediction checks and converts at once
_TINY = np.finfo(np.float64).tiny  # the kernels take smaller numbers for 0


@dataclass
class History:
    """What training has recorded, over all calls of `Network.fit` and `Network.train_step`.

    Attributes
    ----------
    loss : list of float
        One entry an iteration: the minibatch's mean loss before the update, with its L2 term.
    interrupted : bool
        Whether Ctrl-C ended the last `fit`.
    """

    loss: list[float] = field(default_factory=list)
    interrupted: bool = False

    @property
    def iterations(self) -> int:
        """Number of updates so far."""
        return len(self.loss)


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
        self._epoch = 0
        self._background: NDArray[Any] | None = None  # by the first fit; zeros where there is none
        self._turn = threading.Lock()  # threads that share a network take whole steps in turn
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
        learning_rate: float = 1e-3,
        l2: float = 0.0,
        max_norm: float | None = None,
        batch_size: int = 256,
        iterations: int | None = None,
        epochs: int | None = None,
        callbacks: Sequence[Any] = (),
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
        learning_rate : float, default 1e-3
        l2 : float, default 0.0
            Adds l2 / 2 times the sum of squares of the weights (not of the biases) to the loss.
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
        callbacks : sequence of cdrop.callbacks.Callback
            Told of every iteration; one that returns True ends the fit.

        Returns
        -------
        History
            The network's `history`, which goes on over calls.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above; nothing has changed then.
        FloatingPointError
            If the loss is NaN or infinite; the weights are those before that step.

        Notes
        -----
        Ctrl-C ends the fit after the current step: ``history.interrupted`` says so, and the network can be used and
        trained further. A second Ctrl-C is raised at once.

        References
        ----------
        Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1: training, and max-norm.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _hyper(optimizer, learning_rate, l2, max_norm)
        batch_size = whole_number("batch_size", batch_size, 1, 2**48)
        callbacks = _check_callbacks(callbacks)
        if iterations is not None and epochs is not None:
            raise ValueError(
                f"iterations is {iterations} and epochs {epochs}; expected only one of them"
            )
        if epochs is None:
            total = whole_number("iterations", 1000 if iterations is None else iterations, 0, 2**62)
            order = self._draws(data, batch_size, total)
        else:
            passes = whole_number("epochs", epochs, 0, 2**62)
            total = passes * -(-len(data.x) // batch_size)
            order = self._epochs(len(data.x), batch_size, passes)
        if self._background is None:
            dense = isinstance(data.x, np.ndarray)
            self._set_background(find_background(data.x) if dense else None)
        return self._run(data, order, hyper, total, callbacks)

    def _set_background(self, background: NDArray[Any] | None) -> None:
        """Tell the engine; none with input dropout, where the background would differ from row to row."""
        if background is None or self.input_dropout:
            background = np.zeros(self.units[0], self.dtype)
        self._background = background
        self._engine.set_background(background)

    def _draws(self, data: _kernels.Rows, batch_size: int, total: int) -> Iterator[_Minibatch]:
        """Draw fixed minibatches, whose lists are worth keeping if they come more than once."""
        order, count = batches.fixed(len(data.x), self.seed), -(-len(data.x) // batch_size)
        kept = None
        if total >= 2 * count:
            kept = self._engine.keep_batches(data, order, batch_size, self.threads or 0)
        for number in batches.drawn(count, self.seed, self.history.iterations, total):
            yield _Minibatch(order[number * batch_size : (number + 1) * batch_size], kept, number)

    def _epochs(self, n: int, batch_size: int, passes: int) -> Iterator[_Minibatch]:
        for _ in range(passes):
            self._epoch += 1
            yield from map(_Minibatch, batches.epoch(n, batch_size, self.seed, self._epoch))

    def _run(
        self,
        data: _kernels.Rows,
        order: Iterator[_Minibatch],
        hyper: _Hyper,
        total: int,
        callbacks: Sequence[Any],
    ) -> History:
        self._use(hyper.optimizer)
        self.history.interrupted = False
        for callback in callbacks:
            callback.on_fit_begin(self, total)
        try:
            with _deferred_interrupt() as interrupted:
                for minibatch in order:
                    loss = self._step(data, minibatch, hyper)
                    done = self.history.iterations
                    answers = [c.on_iteration(self, done, loss) for c in callbacks]
                    self.history.interrupted = interrupted()
                    if self.history.interrupted or any(answers):
                        break
        finally:
            for callback in callbacks:
                callback.on_fit_end(self)
        return self.history

    def train_step(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        optimizer: str | Optimizer = "rmsprop",
        learning_rate: float = 1e-3,
        l2: float = 0.0,
        max_norm: float | None = None,
    ) -> float:
        """Make one update on the given rows as one minibatch.

        Parameters are those of `fit`.

        Returns
        -------
        float
            The loss before the update, with its L2 term.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _hyper(optimizer, learning_rate, l2, max_norm)
        self._use(hyper.optimizer)
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

    def _use(self, optimizer: Optimizer) -> None:
        """Begin with a fresh optimiser state if the rule is another one than before."""
        if self._optimizer is not None and type(self._optimizer) is not type(optimizer):
            for i, (fan_in, fan_out) in enumerate(self._engine.shapes):
                for part in (1, 2):
                    self._engine.set(i, part, np.zeros((fan_in, fan_out)), np.zeros(fan_out))
            self._updates = 0
        self._optimizer = optimizer

    def _step(self, data: _kernels.Rows, minibatch: _Minibatch, hyper: _Hyper) -> float:
        with self._turn:
            return self._step_alone(data, minibatch, hyper)

    def _step_alone(self, data: _kernels.Rows, minibatch: _Minibatch, hyper: _Hyper) -> float:
        step, rows = self.history.iterations + 1, minibatch.rows
        if data.weights is not None and rows is not None and not data.weights[rows].sum() >= _TINY:
            raise ValueError(
                f"sample_weight is 0 for all rows of the minibatch of step {step}; expected a larger batch_size, or "
                "the rows without weight left out"
            )
        constants = hyper.optimizer.constants(hyper.learning_rate, hyper.l2, self._updates + 1)
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
        except FloatingPointError:
            raise FloatingPointError(
                f"the loss of step {step} is not finite; the weights are those before it. A smaller learning_rate "
                f"(it is {hyper.learning_rate:g}) or inputs of unit scale usually help"
            ) from None
        self._updates += 1
        self.history.loss.append(loss)
        return loss

    # ---- Prediction --------------------------------------------------------------------------------------------------

    def _predicted(self, X: ArrayLike, answer: str) -> NDArray[Any]:
        """Piece by piece: only a piece is ever copied, where X is not of the kind that the engine takes."""
        x, piece = feature_matrix("X", X, self.units[0]), max(256, _PIECE // self.units[0])
        rows = x.shape[0]
        if rows <= piece:
            return self._answers(x, 0, answer)
        first = self._answers(x[:piece], 0, answer)
        out = np.empty((rows, *first.shape[1:]), first.dtype)
        out[:piece] = first
        for i in range(piece, rows, piece):
            out[i : i + piece] = self._answers(x[i : i + piece], i, answer)
        return out

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

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Predict probabilities, without dropout.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])

        Returns
        -------
        ndarray of the network's dtype, shape (n, units[-1])

        Raises
        ------
        ValueError
            If the loss is the squared error, whose outputs are no probabilities.
        """
        if self.loss == "squared_error":
            raise ValueError(
                "predict_proba needs a cross-entropy loss; this network's is 'squared_error'"
            )
        return self._predicted(X, "probabilities")

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Accuracy (all labels of a row right, if there are several), or R^2 for the squared error.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        y : array_like
            As for `fit`.

        Returns
        -------
        float
        """
        data = self._training_data(X, y, None)
        predicted = self._engine.predict(data, "labels", self.threads or 0)
        if data.labels is not None:
            return float(np.mean(predicted == data.labels))
        assert data.targets is not None
        if self.loss == "sigmoid_cross_entropy":
            return float(np.mean((predicted == (data.targets > 0.5)).all(axis=1)))
        truth = data.targets.astype(np.float64)
        residual = ((truth - predicted) ** 2).sum(axis=0)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
        if not spread.all():
            raise ValueError("y is constant in a column; R^2 needs targets that vary")
        return float(np.mean(1 - residual / spread))

    # ---- State -------------------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Copies of the weights, layer by layer, each of shape (units[l], units[l + 1])."""
        return [self._engine.get(i, 0)[0] for i in range(len(self.units) - 1)]

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Copies of the biases, layer by layer, each of shape (units[l + 1],)."""
        return [self._engine.get(i, 0)[1] for i in range(len(self.units) - 1)]

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

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from, as copies: weights, optimiser, counters, history.

        Returns
        -------
        dict
            ``settings`` (what `Network` was made with), ``arrays`` (ndarrays by name: ``weight.0``, ``bias.0``,
            ``state1.weight.0``, ...), ``background`` (what the first `fit` found its inputs to be mostly, shape
            (units[0],), or None before), ``optimizer`` (name and settings, or None), ``updates``, ``epoch``,
            ``losses``.
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
            "optimizer": None if rule is None else {"name": rule.name, **dataclasses.asdict(rule)},
            "updates": self._updates,
            "epoch": self._epoch,
            "losses": list(self.history.loss),
        }

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
        losses = _state_losses(state["losses"])
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
        self._optimizer = optimizer
        self._updates = updates
        self._epoch = epoch
        self.history = History(loss=losses)

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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy through `state_dict`."""
        return {"state": self.state_dict(), "threads": self.threads}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Make the network anew, then load its state."""
        Network.__init__(self, **saved["state"]["settings"], threads=saved["threads"])
        self.load_state_dict(saved["state"])


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
    return Network([D, H, H, C], **settings)


class _Minibatch(NamedTuple):
    """Which rows a step takes: None for all; and where its lists are kept, if they are."""

    rows: NDArray[np.int64] | None = None
    kept: _kernels.KeptBatches | None = None
    number: int = 0


@dataclass(frozen=True)
class _Hyper:
    optimizer: Optimizer
    learning_rate: float
    l2: float
    max_norm: float  # 0 for none, as the engine takes it


def _hyper(
    optimizer: str | Optimizer, learning_rate: float, l2: float, max_norm: float | None
) -> _Hyper:
    hyper = _Hyper(
        get_optimizer(optimizer),
        finite_number("learning_rate", learning_rate, positive=True),
        finite_number("l2", l2),
        0.0 if max_norm is None else finite_number("max_norm", max_norm, positive=True),
    )
    hyper.optimizer.constants(hyper.learning_rate, hyper.l2, 1)  # tells what does not go together
    return hyper


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


def _state_losses(losses: Sequence[float]) -> list[float]:
    array = np.asarray(losses)
    if array.ndim != 1 or (array.size and array.dtype.kind != "f"):
        raise TypeError("the state's losses are no list of floats")
    return [float(loss) for loss in array]


def _check_callbacks(callbacks: Sequence[Any]) -> tuple[Any, ...]:
    expected = "expected a sequence of cdrop.callbacks.Callback objects"
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks is {callbacks!r}; {expected}")
    for i, callback in enumerate(callbacks):
        methods = [getattr(callback, f"on_{when}", None) for when in _MOMENTS]
        if isinstance(callback, type) or not all(map(callable, methods)):
            raise TypeError(f"callbacks[{i}] is {callback!r}; {expected}")
    return tuple(callbacks)


def _dtype_name(dtype: Any) -> Any:
    if dtype is None:  # NumPy's word for float64
        return dtype
    try:
        return np.dtype(dtype).name
    except TypeError:
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
