"""A fully connected network trained with dropout, one C call a step."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop import _concrete, _kernels, _losses, _state, _training, storage, uncertainty
from cdrop._checks import (
    KEEP_UNITS,
    choice,
    choice_by_layer,
    drop_rate,
    float_dtype,
    keep_units,
    layer_widths,
    parameter_array,
    row_numbers,
    row_weights,
    thread_count,
    truth_value,
    whole_number,
)
from cdrop._features import checked_rows, feature_matrix
from cdrop._parts import decode, encode
from cdrop._shared import SharedRows
from cdrop._training import Cut, Minibatch, Plan, ScoredRows
from cdrop.callbacks import check_callbacks
from cdrop.initializers import INITIALIZERS, initial_weight
from cdrop.optimizers import Optimizer
from cdrop.rates import Moment, Rate, dropping, dropping_by_layer, now, sigmoid
from cdrop.schedules import Schedule
from cdrop.subnetworks import Subnetworks

__all__ = ["Evaluation", "History", "Network", "make_network"]

_SCALINGS = ("train", "test")
_PIECE = 2**22  # entries of the input that a prediction checks and converts at once
_FIRST = Moment(0, 0, 1)
_SHOWN = 20  # layers in a network's repr
_PASSED_ROWS = 2**20  # rows times masks of a piece under dropout
INTERRUPTS = ("keep", "raise")
_SETTINGS = frozenset(  # the attributes that the engine is made with
    {
        "units",
        "dropout",
        "input_dropout",
        "dropout_kind",
        "input_dropout_kind",
        "members",
        "activation",
        "loss",
        "label_smoothing",
        "huber_delta",
        "quantiles",
        "initializer",
        "scaling",
        "seed",
        "dtype",
    }
)
_LOADED = (  # the attributes that a state sets
    "_background",
    "_optimizer",
    "_updates",
    "_schedule",
    "_schedule_state",
    "_epoch",
    "_one_column",
    "_dropping",
    "_learned",
    "history",
)
_Masks = Sequence[NDArray[np.uint64] | None] | None  # of each layer's input; None: drawn


@dataclass(repr=False)
class History:
    """Losses and scores recorded over all calls of `Network.fit` and `Network.train_step`.

    Attributes
    ----------
    loss : list of float
        One entry per iteration: the mean loss of the minibatch before the update, with the L2 term.
    epoch_loss : list of float
        One entry per epoch of ``fit(epochs=...)``: the mean of `loss` over its rows.
    validation_loss, validation_score : list of float
        One entry per epoch: the result of `Network.evaluate` on the validation rows; NaN without such rows.
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

    def __repr__(self) -> str:
        """Return lengths and last values, on one line: the lists may be long."""
        counts = [f"{len(self.loss)} iterations"]
        if self.epoch_loss:
            counts.append(f"{len(self.epoch_loss)} epochs")
        for name in (
            "epoch_loss" if self.epoch_loss else "loss",
            "validation_loss",
            "validation_score",
        ):
            last = getattr(self, name)[-1:]
            if last and not math.isnan(last[0]):
                counts.append(f"{name.removeprefix('epoch_').replace('_', ' ')} {last[0]:.4g}")
        return f"<History: {', '.join(counts)}{', interrupted' * self.interrupted}>"


class Evaluation(NamedTuple):
    """Loss and score, the result of `Network.evaluate`.

    Attributes
    ----------
    loss : float
        Weighted mean over the rows, without an L2 term.
    score : float
        See `Network.score`; NaN if the loss is not finite.
    """

    loss: float
    score: float


class Network:
    """A fully connected network with dropout.

    Parameters
    ----------
    units : sequence of int
        Widths from input to output, at least two, such as ``[784, 256, 256, 10]``.
    dropout : float or cdrop.rates.Rate, or a sequence of them, default 0.0
        Probability of *dropping* a hidden unit, at least 0 and below 1: one for all hidden layers, or one for each. A
        `Rate` changes from step to step; predictions under dropout then use that of the last step.
    input_dropout : float or cdrop.rates.Rate, default 0.0
        Probability of dropping an input.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid", "identity"}, default "relu"
        Activation of the hidden layers. The last layer is linear; the loss interprets its outputs.
    loss : str, default "softmax_cross_entropy"
        "softmax_cross_entropy" for classes, "sigmoid_cross_entropy" for several labels per row; for numbers
        "squared_error", "absolute_error", "huber", "poisson" (whose outputs are the logarithms of the means) or
        "quantile". The page "Losses" of the documentation defines them.
    initializer : {"he", "glorot"}, default "he"
        See `cdrop.initializers`.
    scaling : {"train", "test"}, default "train"
        ``"train"`` divides kept units by the keep probability in training (inverted dropout); ``"test"`` multiplies
        all units by the keep probability in prediction (the original form). Gaussian and uniform noise has mean 1 in
        both.
    seed : int, default 0
        0 to 2**64 - 1. The same seed gives the same weights, byte for byte, with any number of threads and on every
        SIMD path.
    dtype : {"float32", "float64"}, default "float32"
    threads : int, optional
        Default: at most the value of `cdrop.get_num_threads` at each call; training uses fewer where they are faster.
    label_smoothing : float, default 0.0
        At least 0 and below 1, for the cross-entropies: trains on this share of the uniform distribution and the rest
        of the target (Szegedy et al. 2016, section 7). `evaluate` and the validation loss do not smooth.
    huber_delta : float, default 1.0
        Above 0, for the Huber loss: errors up to this size are squared, larger ones are linear (Huber 1964).
    quantiles : float or sequence of float, default 0.5
        Above 0 and below 1, for the quantile loss: the quantile that each output predicts, or one number for all
        (Koenker and Bassett 1978).
    dropout_kind : str or sequence of str, default "bernoulli"
        What dropout does to hidden units, one for all hidden layers or one for each. With a rate p, all kinds multiply
        units by noise of mean 1 and variance p / (1 - p) (with scaling "train"):

        - ``"bernoulli"`` drops each unit of each row with probability p (Srivastava et al. 2014);
        - ``"gaussian"`` multiplies by normal noise (the same paper, section 10);
        - ``"uniform"`` multiplies by uniform noise (Shen et al. 2018);
        - ``"shared"`` drops the same units in all rows of a minibatch; on one thread that shortens wide steps;
        - ``"concrete"`` learns the rate of each hidden layer, starting from `dropout` (above 0), by the gradient of a
          smooth noise close to Bernoulli's (Gal et al. 2017). `dropout_` has the rates; L2 is divided by 1 - p;
        - ``"masksembles"`` has as many fixed masks as there are `members`, which rows take in turn: an ensemble whose
          members share weights, for the cost of one (Durasov et al. 2021). Member by member predict `subnetworks`, or
          ``predict_proba(X, mc_samples=members)``.
    input_dropout_kind : str, default "bernoulli"
        What `input_dropout` does to inputs: one of these except ``"concrete"``.
    members : int, default 8
        1 to 65,536: number of masks of ``"masksembles"``.

    Attributes
    ----------
    history : History
    coefs_, intercepts_ : list of ndarray
    dropout_ : tuple of float
    classes_ : ndarray or None
        Labels of the classes, of a network that ``cdrop.load(path, as_network=True)`` took from a classifier's file.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.
    AttributeError
        If a setting other than `threads` is assigned later: make another network, which can take over the weights by
        `set_weights`.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014), sections 4 and 10.

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016.

    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964).

    Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).

    Gal, Hron and Kendall, "Concrete dropout", NeurIPS 2017.

    Durasov, Bagautdinov, Baque and Fua, "Masksembles for uncertainty estimation", CVPR 2021.

    Shen, Tian, Liu, Xu and Tao, "Continuous dropout", IEEE Transactions on Neural Networks and Learning Systems 29
    (2018).

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
        dropout: float | Rate | Sequence[float | Rate] = 0.0,
        input_dropout: float | Rate = 0.0,
        activation: str = "relu",
        loss: str = "softmax_cross_entropy",
        initializer: str = "he",
        scaling: str = "train",
        seed: int = 0,
        dtype: str = "float32",
        threads: int | None = None,
        *,
        label_smoothing: float = 0.0,
        huber_delta: float = 1.0,
        quantiles: float | Sequence[float] = 0.5,
        dropout_kind: str | Sequence[str] = "bernoulli",
        input_dropout_kind: str = "bernoulli",
        members: int = 8,
    ) -> None:
        self.units = layer_widths("units", units)
        self.dropout = dropping_by_layer("dropout", dropout, len(self.units) - 2)
        self.input_dropout = dropping("input_dropout", input_dropout)
        self.dropout_kind = choice_by_layer(
            "dropout_kind", dropout_kind, _kernels.KINDS, len(self.units) - 2
        )
        self.input_dropout_kind = choice(
            "input_dropout_kind", input_dropout_kind, _kernels.INPUT_KINDS
        )
        self.members = whole_number("members", members, 1, 2**16 + 1)
        for i, (kind, rate) in enumerate(zip(self.dropout_kind, self.dropout, strict=True)):
            if kind == "concrete":
                _concrete.check(f"dropout[{i}]", rate)
        self._learned = _concrete.begin([self.input_dropout, *self.dropout], self._kinds())
        self._dropping = self._rates_in(
            _FIRST
        )  # of the input and the hidden layers, in the last step
        self.activation = choice("activation", activation, _kernels.ACTIVATIONS)
        self.loss = choice("loss", loss, _kernels.LOSSES)
        self._loss_settings = _losses.settings(
            self.loss,
            self.units[-1],
            label_smoothing=label_smoothing,
            huber_delta=huber_delta,
            quantiles=quantiles,
        )
        self.label_smoothing: float = self._loss_settings.get("label_smoothing", 0.0)
        self.huber_delta: float | None = self._loss_settings.get("huber_delta")
        self.quantiles: tuple[float, ...] | None = self._loss_settings.get("quantiles")
        self.initializer = choice("initializer", initializer, tuple(INITIALIZERS))
        self.scaling = choice("scaling", scaling, _SCALINGS)
        self.seed = whole_number("seed", seed, 0, 2**64)
        self.dtype = float_dtype("dtype", dtype)
        self.threads = thread_count("threads", threads)
        self.history = History()
        self._optimizer: Optimizer | None = None
        self._updates = 0  # made with the current state of the optimizer
        self._schedule: Schedule | None = None  # of the last fit; None if its rate was a number
        self._schedule_state: tuple[float, ...] = ()
        self._epoch = 0
        self._background: NDArray[Any] | None = None  # set by the first fit; zeros if there is none
        self._under_way: str | None = None  # the last fit, if it wrote checkpoints
        self._shared: SharedRows | None = None  # set by experiments
        self._fit: _kernels.Fitting | None = (
            None  # the fit under way, which alone may change the network
        )
        self._one_column = False  # whether targets came as a vector, and so predictions go
        self._classes: NDArray[Any] | None = None
        self._engine = self._make_engine()
        for i, (fan_in, fan_out) in enumerate(self._engine.shapes):
            weight = initial_weight(
                fan_in, fan_out, initializer=self.initializer, seed=self.seed, layer=i
            )
            self._engine.set(i, 0, weight, np.zeros(fan_out))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change the settings of a network: the engine, which is made with them, would not follow."""
        if name in _SETTINGS and name in vars(self):
            raise AttributeError(
                f"{name} of a network cannot be changed; expected a new Network(..., {name}={value!r}), which takes "
                + (
                    "over weights and optimizer by load_state_dict(net.state_dict())"
                    if name in _state.DROPOUT
                    else "over the weights by set_weights(net.coefs_, net.intercepts_)"
                )
            )
        super().__setattr__(name, thread_count(name, value) if name == "threads" else value)

    def _rates_in(self, moment: Moment) -> tuple[float, ...]:
        """Return the probabilities of dropping in a step: of the input, then of the hidden layers."""
        rates = [now("input_dropout", self.input_dropout, moment, drop_rate)]
        rates += [
            now(f"dropout[{i}]", rate, moment, drop_rate) for i, rate in enumerate(self.dropout)
        ]
        if self._learned is not None:
            for i, kind in enumerate(self._kinds()):
                rates[i] = sigmoid(float(self._learned[i, 0])) if kind == "concrete" else rates[i]
        return tuple(rates)

    def _kinds(self) -> list[str]:
        """Return the kinds of dropout: of the input, then of the hidden layers."""
        return [self.input_dropout_kind, *self.dropout_kind]

    def _varying(self) -> list[bool]:
        pairs = zip((self.input_dropout, *self.dropout), self._kinds(), strict=True)
        return [isinstance(rate, Rate) or kind == "concrete" for rate, kind in pairs]

    def _dropping_in(self, moment: Moment, new: dict[str, Any]) -> NDArray[np.uint64] | None:
        """Return what the engine keeps in a step, and add the rates to `new`; None where they do not change."""
        if self._learned is not None:
            new["_learned"] = self._learned.copy()  # which the step changes
        if not self._engine.varies:
            return None
        new["_dropping"] = self._rates_in(moment)
        return _kept(new["_dropping"])

    def _make_engine(self) -> _kernels.Engine:
        return _kernels.Engine(
            self.units,
            [keep_units(rate) for rate in self._dropping],
            self.dtype,
            self.activation,
            self.loss,
            _losses.parameters(self._loss_settings),
            self.scaling == "train",
            self.seed,
            self._varying(),
            self._kinds(),
            self.members if "masksembles" in self._kinds() else 0,
        )

    def __repr__(self) -> str:
        """Return the call that makes this network, without arguments that have their default.

        Of more than 20 layers the middle is left out.
        """
        shown = [_short(self.units)]
        if any(self.dropout):
            same = len(set(self.dropout)) == 1
            shown.append(f"dropout={self.dropout[0] if same else _short(self.dropout)}")
        shown += [f"{name}={value!r}" for name, value in self._shown_kinds().items()]
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
        shown += [f"{name}={value!r}" for name, value in self._shown_loss_settings().items()]
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
        learning_rate: float | Rate | Schedule = 1e-3,
        l2: float | Rate = 0.0,
        share_l2: bool = False,
        max_norm: float | None = None,
        mask_samples: int = 1,
        consistency: float = 0.0,
        batch_size: int = 256,
        iterations: int | None = None,
        epochs: int | None = None,
        rows: ArrayLike | None = None,
        shuffle: bool = True,
        validation: Sequence[Any] | None = None,
        callbacks: Sequence[Any] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        interrupt: str = "keep",
    ) -> History:
        """Train. Calling `fit` again continues training.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
            Finite numbers. Not copied if C-contiguous and of the network's dtype. A sparse matrix is converted to CSR.
        y : array_like
            For softmax cross-entropy: labels, shape (n,), integers from 0 to units[-1] - 1; or soft labels, the
            probabilities of the classes, shape (n, units[-1]), rows that sum to 1. For sigmoid cross-entropy:
            probabilities, shape (n, units[-1]). For the other losses: numbers, shape (n, units[-1]); of at least 0 for
            the Poisson loss. For the quantile loss, `y` of shape (n,) or (n, 1) is the target of all outputs. For one
            output, `y` may have shape (n,), and then predictions have it, too.
        sample_weight : array_like, shape (n,), optional
            At least 0. The loss of a minibatch is the weighted mean over its rows. Rows of weight 0 are left out.
        optimizer : str or Optimizer, default "rmsprop"
            See `cdrop.optimizers`. Its state is kept between calls unless the update rule changes.
        learning_rate : float, cdrop.rates.Rate or Schedule, default 1e-3
            A `Rate` changes from step to step. A schedule (see `cdrop.schedules`) changes after epochs, by what they
            brought, and needs `epochs`; later calls continue the same schedule.
        l2 : float or cdrop.rates.Rate, default 0.0
            Adds l2 / 2 times the sum of squares of the weights (not of the biases) to the loss.
        share_l2 : bool, default False
            Divide `l2` by the minibatch's sum of sample weights, or its number of rows, as scikit-learn does with
            ``alpha``: the penalty then applies to the sum over all rows, not to their mean.
        max_norm : float, optional
            At least 1e-150: limit of the Euclidean norm of a hidden unit's incoming weights (max-norm, often 3 to 4
            with dropout). After each update, weights with a larger norm are scaled to it. Default: no limit.
        mask_samples : int, default 1
            Number of masks for each row of a minibatch, up to 1,024: the loss is the mean over them (multi-sample
            dropout, Inoue 2019). The layers below the first one with dropout are computed once for all masks. Above 1,
            the network must have dropout, not of the kind "shared".
        consistency : float, default 0.0
            At least 0, for the cross-entropies and ``mask_samples=2``: weight of a term that makes the predictions
            under the two masks of a row agree (R-Drop, Liang et al. 2021). See Notes.
        batch_size : int, default 256
        iterations : int, optional
            Number of minibatches: the rows are shuffled once and cut into fixed minibatches, and each iteration draws
            one of them with replacement, as in the article. Default: 1,000, unless `epochs` is given.
        epochs : int, optional
            Instead of `iterations`: number of passes over the rows, each in a new order.
        rows : array_like of int, optional
            Numbers of the rows to train on; they are not copied. Default: all.
        shuffle : bool, default True
            If False, minibatches are cut from the rows in their given order.
        validation : tuple (X, y) or (X, y, sample_weight), optional
            Rows to evaluate after each epoch; needs `epochs`. The results are in the history.
        callbacks : sequence of cdrop.callbacks.Callback
            Called after each iteration and epoch; the fit ends when one returns True.
        checkpoint : path, optional
            Checkpoint file; if it exists, training resumes from it: after a crash, make the same call again on a
            network made in the same way. The result is the same, byte for byte, as without the crash. A fit that is
            finished makes no step, so each fit of a loop needs a separate path. A relative path is that of the moment
            of the call. Needs the extra ``io``.
        checkpoint_every : int, optional
            Write the checkpoint after every step whose number in the network's history is a multiple of this. Default:
            1,000. It is also written when the fit begins and ends, and is on disk before the next step starts.
        interrupt : {"keep", "raise"}, default "keep"
            What Ctrl-C does after the current step. ``"keep"``: the fit returns, with a warning and
            ``history.interrupted``. ``"raise"``: it raises KeyboardInterrupt, which ends a loop or search around it as
            well. In both cases the network and the checkpoint are those of the last step.

        Returns
        -------
        History
            The `history` of the network, over all calls.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or `checkpoint` is the file of another fit. The network has not changed then.
        ImportError, OSError
            If a checkpoint cannot be written. The previous one is still there.
        FloatingPointError
            If the loss is NaN or infinite: the network is then as it was before that step, which may be many steps
            after the fit began. Or if an update leaves a weight or bias that is, or weights above 1e154, which
            `max_norm` cannot limit: the network keeps that update. The message names the step and the layer.
        KeyboardInterrupt
            After Ctrl-C, see `interrupt`.
        RuntimeError
            If the network is in another fit: of another thread, or this one was called by a callback, a signal handler
            or a finalizer.

        Notes
        -----
        A second Ctrl-C raises KeyboardInterrupt at once. Ctrl-C during the validation of an epoch ends the fit before
        that epoch is in the history. Only Python's own handler of Ctrl-C is replaced during a fit.

        A step changes weights, counters and history together, so an exception from outside (a signal handler that
        raises, a second Ctrl-C, no memory) leaves the network after a step that was made. Other threads, callbacks,
        signal handlers and finalizers may predict with the network and save or copy it meanwhile: they find it between
        two steps. What would change it (`fit`, `train_step`, `set_weights`, `load_state_dict`) is a RuntimeError.

        Resuming from a checkpoint needs no switch, because the result is the same as that of a new start: the file
        identifies the data, network, callbacks and arguments of its fit, and the call must have the same ones
        (`checkpoint_every` and the number of threads may differ). A file is only ever overwritten by its own fit. A
        script with several fits, each with its own path, can be run again unchanged: finished fits return at once.
        Callbacks are called again for the steps after the checkpoint; see `cdrop.callbacks.Callback.state_dict`.
        `cdrop.load` reads the network from the file.

        With p and q the probabilities of a row under its two masks, `consistency` adds
        ``consistency * (KL(p || q) + KL(q || p)) / 2`` to the row's loss; with several labels, the sum over them. The
        other part of the loss is the mean over the two masks, as in the authors' code. In their paper's equation 4 it
        is the sum, so `consistency` is half of the paper's alpha.

        Do not fit with a checkpoint in a daemon thread that may still run when the interpreter exits: Python ends such
        threads wherever they are, and within safetensors that aborts the process (SIGABRT). The checkpoint stays whole.

        References
        ----------
        Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1: training, and max-norm.

        Inoue, "Multi-sample dropout for accelerated training and better generalization", arXiv:1905.09788 (2019).

        Liang et al., "R-Drop: regularized dropout for neural networks", NeurIPS 2021, section 2.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _training.checked_hyper(
            optimizer, learning_rate, l2, max_norm, share_l2, mask_samples, consistency
        )
        _training.check_masks(self, hyper)
        batch_size = whole_number("batch_size", batch_size, 1, 2**48)
        callbacks = check_callbacks(callbacks, self)
        chosen = None if rows is None else row_numbers("rows", rows, len(data.x))
        chosen = _training.rows_with_weight(data, chosen)
        shuffle = truth_value("shuffle", shuffle)
        held_out = None if validation is None else self._validation_data(validation)
        n = len(data.x) if chosen is None else len(chosen)
        cut = Cut(n, batch_size, chosen, shuffle)
        passes, total = _training.length(iterations, epochs, cut.count)
        if passes is None:
            _training.check_no_epochs(hyper, held_out)
        _training.check_watched(hyper, held_out)
        choice("interrupt", interrupt, INTERRUPTS)
        scored = validation if isinstance(validation, ScoredRows) else None
        plan = Plan(data, hyper, cut, passes, total, held_out, scored)
        new = {"_one_column": self._is_one_column(y)}
        _training.fit(self, plan, callbacks, checkpoint, checkpoint_every, new)
        if self.history.interrupted:
            if interrupt == "raise":
                raise KeyboardInterrupt
            warnings.warn("Training interrupted by user.", stacklevel=2)
        return self.history

    def _is_one_column(self, y: ArrayLike) -> bool:
        return self.loss != "softmax_cross_entropy" and self.units[-1] == 1 and np.ndim(y) == 1

    def _free(self, fit: _kernels.Fitting | None) -> _kernels.Fitting | None:
        """Return `_fit` as it must stay during a change by `fit`, None for none; raise if another fit is under way."""
        return fit if fit is not None else _kernels.Fitting.of(vars(self))

    def _change(
        self,
        new: dict[str, Any],
        parts: Sequence[tuple[int, int, NDArray[Any], NDArray[Any]]] = (),
        background: NDArray[Any] | None = None,
        fit: _kernels.Fitting | None = None,
    ) -> None:
        """Change attributes, arrays and background of the network at once; `fit` is the fit that does so."""
        changed = False
        while not changed:
            was = {"_fit": self._free(fit)}
            keep = _kept(new["_dropping"]) if "_dropping" in new else None
            changed = self._engine.put(vars(self), new, was, parts, background, keep)

    def _set_background(
        self, background: NDArray[Any] | None, fit: _kernels.Fitting | None = None
    ) -> None:
        """Set the background; none with input dropout, under which it would differ from row to row."""
        background = self._usable_background(background)
        self._change({"_background": background}, background=background, fit=fit)

    def _usable_background(self, background: NDArray[Any] | None) -> NDArray[Any]:
        if background is None or self.input_dropout:
            return np.zeros(self.units[0], self.dtype)
        return background

    def train_step(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        optimizer: str | Optimizer = "rmsprop",
        learning_rate: float | Rate = 1e-3,
        l2: float | Rate = 0.0,
        share_l2: bool = False,
        max_norm: float | None = None,
        mask_samples: int = 1,
        consistency: float = 0.0,
    ) -> float:
        """Make one update, with the given rows as the minibatch.

        Parameters are those of `fit`, except that the learning rate is no schedule, and that rates need `steps`.

        Returns
        -------
        float
            The loss before the update, with its L2 term.

        Raises
        ------
        TypeError, ValueError, FloatingPointError, RuntimeError
            See `fit`.
        """
        data = self._training_data(X, y, sample_weight)
        hyper = _training.checked_hyper(
            optimizer, learning_rate, l2, max_norm, share_l2, mask_samples, consistency
        )
        _training.check_masks(self, hyper)
        _training.check_no_epochs(hyper, None)
        moment = Moment(self.history.iterations)
        hyper.at(moment), self._rates_in(moment)  # raise before anything changes
        self._engine.reserve(len(data.x), self.threads or 0, hyper.mask_samples)
        new = {"_under_way": None, "_one_column": self._is_one_column(y)}
        _training.use(self, hyper, new, None)
        return _training.step(self, data, Minibatch(), hyper, moment)

    def _training_data(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> _kernels.Rows:
        matrix = feature_matrix("X", X, self.units[0])
        check = checked_rows if self._shared is None else self._shared.checked
        x = check("X", matrix, self.dtype)
        if not len(x):
            raise ValueError("X has 0 rows; expected at least 1")
        labels, targets = _losses.truth("y", y, self.loss, (len(x), self.units[-1]), self.dtype)
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

    # ---- Prediction --------------------------------------------------------------------------------------------------

    def _predicted(self, X: ArrayLike, answer: str) -> NDArray[Any]:
        """Predict rows; raise where an output is not finite, because such a row has no label or probability."""
        predicted = self._in_pieces(X, answer)
        good = np.isfinite(predicted) if predicted.dtype.kind == "f" else predicted >= 0
        if not good.all():
            row = int(good.reshape(len(good), -1).all(axis=1).argmin())
            raise ValueError(
                f"X[{row}] makes outputs that are not finite in {self.dtype}; expected rows on the scale of those "
                "trained on (scale the inputs, or train in float64), and finite weights"
            )
        return predicted

    def _in_pieces(self, X: ArrayLike, answer: str) -> NDArray[Any]:
        """Predict piece by piece, so that only a piece is copied if X has another dtype or layout than the engine's."""
        x = feature_matrix("X", X, self.units[0])
        if self._shared is not None and self._shared.has_checked(x, self.dtype):
            return self._outputs(_kernels.Rows(x), answer)
        rows, piece = x.shape[0], self._piece()
        if rows <= piece:
            return self._answers(x, 0, answer)
        first = self._answers(x[:piece], 0, answer)
        out = np.empty((rows, *first.shape[1:]), first.dtype)
        out[:piece] = first
        for i in range(piece, rows, piece):
            out[i : i + piece] = self._answers(x[i : i + piece], i, answer)
        return out

    def _outputs(self, data: _kernels.Rows, answer: str) -> NDArray[Any]:
        """Predict checked rows at once, from their lists if an experiment shares these."""
        if self._shared is not None:
            self._shared.keep_rows(self, data)
        return self._engine.predict(data, answer, self.threads or 0)

    def _piece(self) -> int:
        """Return the number of rows per piece: whole blocks of 64 rows, as masks are drawn."""
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
            Softmax: labels, int64, shape (n,). Sigmoid: 0 or 1 for each label, int64, shape (n, units[-1]). Losses of
            numbers: the outputs (with the Poisson loss, the means: their exponentials), of the network's dtype, shape
            (n, units[-1]). With one output, the shape is (n,) if the `y` of the last `fit` or `train_step` had it.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or the outputs of a row are not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from cdrop import Network
        >>> X = np.linspace(-1.0, 1.0, 40)[:, None]
        >>> y = X[:, 0] ** 2
        >>> net = Network([1, 64, 1], loss="squared_error", seed=1)
        >>> history = net.fit(X, y, learning_rate=0.003, epochs=200)
        >>> bool(((net.predict(X) - y) ** 2).mean() < 0.01)
        True
        """
        return self._shaped(self._predicted(X, "labels"))

    def _shaped(self, predicted: NDArray[Any]) -> NDArray[Any]:
        """Return predictions in the shape that targets had."""
        return predicted[..., 0] if self._one_column and predicted.ndim > 1 else predicted

    def predict_proba(
        self, X: ArrayLike, mc_samples: int | None = None, *, seed: int | None = None
    ) -> NDArray[Any]:
        """Predict probabilities, without dropout or averaged over many dropout masks.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        mc_samples : int, optional
            Number of masks to average over, as in `predict_uncertainty`. Default: no dropout.
        seed : int, optional
            Seed of the masks, 0 to 2**64 - 1. Default: the network's.

        Returns
        -------
        ndarray of the network's dtype, shape (n, units[-1])
            Or (n,), as in `predict`.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid; if the outputs of a row are not finite (with `mc_samples`, the result is NaN
            where they are NaN); if the loss is one of numbers, whose outputs are not probabilities; with `mc_samples`,
            if all dropout rates are 0.
        """
        self._check_probabilities("predict_proba")
        if mc_samples is None:
            return self._shaped(self._predicted(X, "probabilities"))
        return self._shaped(self._sampled(X, mc_samples, seed, ("mean",))["mean"])

    def _check_probabilities(self, caller: str) -> None:
        if _losses.is_regression(self.loss):
            raise ValueError(
                f"{caller} needs a cross-entropy loss; this network's is {self.loss!r}"
            )

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, or for losses of numbers R^2. With several labels per row, all must be right.

        Soft labels count as their most probable class. For the quantile loss the score is D^2, the share of the pinball
        loss of the best constant that is explained. A row whose outputs are not finite is not right.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        y : array_like
            See `fit`.
        sample_weight : array_like, shape (n,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or targets are constant in a column, where R^2 and D^2 are undefined.
        """
        data = self._scorable_data(X, y, sample_weight)
        return self._scored(data, self._outputs(data, "labels"))

    def _scorable_data(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> _kernels.Rows:
        data = self._training_data(X, y, sample_weight)
        regression = _losses.is_regression(self.loss)
        if regression and data.targets is not None and not np.ptp(data.targets, axis=0).all():
            raise ValueError("y is constant in a column; R^2 needs targets that vary")
        return data

    def evaluate(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Compute loss and score without dropout.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        y : array_like
            See `fit`.
        sample_weight : array_like, shape (n,), optional

        Returns
        -------
        Evaluation
            A tuple of loss, without label smoothing, and score. In a column of constant targets, R^2 and D^2 are 1 if
            all are predicted exactly, else 0.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid.

        Examples
        --------
        >>> net = Network([2, 8, 2])
        >>> loss, score = net.evaluate([[0.0, 1.0]], [1])
        """
        return self._evaluated(self._training_data(X, y, sample_weight))

    def _evaluated(self, data: _kernels.Rows) -> Evaluation:
        outputs = self._outputs(data, "outputs")
        with np.errstate(all="ignore"):  # a diverged network's numbers
            loss = self._mean_loss(outputs, data.labels, data.targets, data.weights)
            if not math.isfinite(loss):
                return Evaluation(loss, math.nan)
            if self.loss == "softmax_cross_entropy":
                outputs = outputs.argmax(axis=1)
            elif self.loss == "sigmoid_cross_entropy":
                outputs = outputs > 0
            elif self.loss == "poisson":
                outputs = _kernels.exponential(outputs)
            return Evaluation(loss, self._scored(data, outputs))

    def _mean_loss(
        self,
        outputs: NDArray[Any],
        labels: NDArray[np.int64] | None,
        targets: NDArray[Any] | None,
        weights: NDArray[np.float64] | None,
    ) -> float:
        """Return the loss of outputs without label smoothing."""
        own = {k: v for k, v in self._loss_settings.items() if k != "label_smoothing"}
        parameters = _losses.parameters(own)
        return _kernels.loss_and_gradient(self.loss, parameters, outputs, labels, targets, weights)[
            0
        ]

    def _scored(self, data: _kernels.Rows, predicted: NDArray[Any]) -> float:
        if self.loss == "softmax_cross_entropy":
            soft = data.targets
            labels = data.labels if soft is None else soft.argmax(axis=1)
            return float(np.average(predicted == labels, weights=data.weights))
        assert data.targets is not None
        if self.loss == "sigmoid_cross_entropy":
            right = (predicted == (data.targets > 0.5)).all(axis=1)
            return float(np.average(right, weights=data.weights))
        targets = data.targets.astype(np.float64)
        return _losses.score(self.quantiles, targets, predicted, data.weights)

    # ---- Prediction under dropout ------------------------------------------------------------------------------------

    def predict_uncertainty(
        self,
        X: ArrayLike,
        mc_samples: int = 50,
        *,
        seed: int | None = None,
        samples: bool = False,
    ) -> uncertainty.Uncertainty:
        """Predict under many dropout masks and measure how far the predictions agree (Monte Carlo dropout).

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        mc_samples : int, default 50
            At least 1: number of masks to draw for each row. Time grows with it, memory only with `samples`. The layers
            below the first one with dropout are computed once for all masks.
        seed : int, optional
            Seed of the masks, 0 to 2**64 - 1. Default: the network's; the masks differ from those of training. The same
            seed gives the same bytes, with any number of threads and on every SIMD path. A row's masks depend on its
            position in `X`. "masksembles" has the masks of its members, one after the other, whatever the seed.
        samples : bool, default False
            Whether to return the prediction under each mask too, as the attribute `samples`, of which ``quantile(q)``
            returns quantiles. They take ``mc_samples * n * units[-1]`` numbers of the network's dtype: 50 masks, 10,000
            rows and 10 classes take 20 MB in float32.

        Returns
        -------
        ClassificationUncertainty or RegressionUncertainty
            For the cross-entropy losses: mean probabilities, entropies and mutual information. For losses of numbers:
            mean and standard deviation of the predictions. With one output, arrays have shape (n,) where those of
            `predict` have it.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or if all dropout rates are 0: all predictions would agree, right or wrong.
        MemoryError
            If `samples` need more memory than is free.

        Notes
        -----
        What it is good for was measured on ten tables (docs/uncertainty.md). Mutual information, and the standard
        deviation of numbers, rank rows unlike the training data above others, a little less well than an ensemble of
        five networks. The mean probabilities were not shown to be better than those of `predict_proba`. The standard
        deviation leaves out the noise of the data: it is not an interval for targets.

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
        >>> result = net.predict_uncertainty([[0.5], [4.0]])  # the second is far from the training data
        >>> result.std.shape, bool(result.std[1] > 10 * result.std[0])
        ((2, 1), True)
        """
        return self._uncertainty(X, mc_samples, seed, samples=truth_value("samples", samples))

    def subnetworks(self, count: int, *, seed: int | None = None) -> Subnetworks:
        """Draw thinned networks: fixed masks over the units, for repeated use.

        Parameters
        ----------
        count : int
            At least 1.
        seed : int, optional
            Seed of the masks, 0 to 2**64 - 1. Default: the network's. The first masks do not depend on `count`.

        Returns
        -------
        Subnetworks

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, if all dropout rates are 0, or if dropout of a layer is noise that drops no unit.
        """
        self._check_dropped_out("subnetworks")
        for kind, keep in zip(self._kinds(), self._keeps(), strict=True):
            if keep < 1 and kind in _kernels.NOISE_KINDS:
                raise ValueError(
                    f"subnetworks need dropout that drops units, and this network has {kind} noise, which drops none; "
                    "expected dropout_kind 'bernoulli' or 'shared'"
                )
        count = whole_number("count", count, 1, 2**32)
        return Subnetworks(self, count, self._mask_seed(seed))

    def _check_dropped_out(self, what: str) -> None:
        if min(self._keeps()) == 1:
            when = " after its last step" if any(self._varying()) else ""
            raise ValueError(
                f"{what} needs dropout, and all rates of this network are 0{when}: "
                "all predictions would agree, right or wrong; expected a network with dropout or input_dropout above 0"
            )

    def _keeps(self) -> list[float]:
        """Return the probabilities of keeping that masks are drawn with: of the input, then of the hidden layers."""
        return [keep_units(rate) / KEEP_UNITS for rate in self._dropping]

    def _prediction_scales(self) -> list[float]:
        """Return what predictions multiply each layer's input by; noise has mean 1 in training already."""
        return [
            keep if self.scaling == "test" and kind not in _kernels.NOISE_KINDS else 1.0
            for keep, kind in zip(self._keeps(), self._kinds(), strict=True)
        ]

    def _mask_seed(self, seed: int | None) -> int:
        return self.seed if seed is None else whole_number("seed", seed, 0, 2**64)

    def _uncertainty(
        self,
        X: ArrayLike,
        passes: int,
        seed: int | None,
        masks: _Masks = None,
        samples: bool = False,
    ) -> uncertainty.Uncertainty:
        names = (*uncertainty.shapes(self.loss, 0, 0), *["samples"] * samples)
        sampled = self._sampled(X, passes, seed, names, masks)
        return uncertainty.kind_of(self.loss)(
            **{name: self._shaped(array) for name, array in sampled.items()}
        )

    def _sampled(
        self,
        X: ArrayLike,
        passes: int,
        seed: int | None,
        names: Sequence[str],
        masks: _Masks = None,
    ) -> dict[str, NDArray[Any]]:
        """Predict under drawn or given masks, piece by piece, and return the arrays in `names`."""
        self._check_dropped_out("mc_samples")
        passes = whole_number("mc_samples", passes, 1, 2**32)
        seed, x = self._mask_seed(seed), feature_matrix("X", X, self.units[0])
        rows, shapes = x.shape[0], uncertainty.shapes(self.loss, x.shape[0], self.units[-1])
        out = {name: np.empty(shapes[name], self.dtype) for name in names if name != "samples"}
        if "samples" in names:
            out["samples"] = uncertainty.room_for_samples(passes, rows, self.units[-1], self.dtype)
        piece = max(256, _PASSED_ROWS // passes // 64 * 64)
        piece = min(self._piece(), piece, self._engine.rows_at_once())
        for i in range(0, max(rows, 1), piece):
            data = _kernels.Rows(checked_rows("X", x[i : i + piece], self.dtype, i))
            part = {
                name: (array[0] if name == "samples" else array)[i : i + piece]
                for name, array in out.items()
            }
            self._engine.sample(data, part, passes, seed, i, masks, self.threads or 0, rows)
        return out

    # ---- State -------------------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Copies of the weights, layer by layer, each of shape (units[l], units[l + 1]).

        Assigning a list replaces them, as `set_weights` does.
        """
        return [weight for weight, _ in self._weights()]

    @coefs_.setter
    def coefs_(self, coefs: Sequence[ArrayLike]) -> None:
        weights = self._parameters("coefs_", coefs, self._engine.shapes)
        self._replace(weights, self.intercepts_)

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Copies of the biases, layer by layer, each of shape (units[l + 1],).

        Assigning a list replaces them, as `set_weights` does.
        """
        return [bias for _, bias in self._weights()]

    @intercepts_.setter
    def intercepts_(self, intercepts: Sequence[ArrayLike]) -> None:
        shapes = [shape[1:] for shape in self._engine.shapes]
        self._replace(self.coefs_, self._parameters("intercepts_", intercepts, shapes))

    def _weights(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return copies of weights and biases, layer by layer, all of one moment."""
        return self._engine.copy([(i, 0) for i in range(len(self.units) - 1)])

    @property
    def dropout_(self) -> tuple[float, ...]:
        """Rates of dropping of the hidden layers in the last step: scheduled, learned, or as given."""
        return self._dropping[1:]

    @property
    def classes_(self) -> NDArray[Any] | None:
        """Label of each class, such that ``net.classes_[net.predict(X)]`` are labels; None without labels."""
        return None if self._classes is None else self._classes.copy()

    def _set_classes(self, classes: Any) -> None:
        """Set the labels, which come from a file and may be anything; two classes have one output."""
        width = self.units[-1]
        number = width if self.loss == "softmax_cross_entropy" else 2
        one_output = self.loss == "sigmoid_cross_entropy" and width == 1
        is_vector = isinstance(classes, np.ndarray) and classes.shape == (number,)
        if not is_vector or not (one_output or self.loss == "softmax_cross_entropy"):
            raise ValueError(f"classes_ is {classes!r}; that does not fit the network")
        if len(np.unique(classes)) != number:
            raise ValueError(f"classes_ is {classes!r}; expected each class once")
        self._classes = classes

    @property
    def learning_rate(self) -> float | None:
        """Learning rate of the next epoch, by the schedule of the last fit; None without a schedule."""
        return self._schedule_state[0] if self._schedule_state else None

    def set_weights(self, coefs: Sequence[ArrayLike], intercepts: Sequence[ArrayLike]) -> None:
        """Replace weights and biases; optimizer, counters and history stay.

        Parameters
        ----------
        coefs, intercepts : sequence of array_like
            Layer by layer, with the shapes of `coefs_` and `intercepts_`. NaN and infinity are not detected.

        Raises
        ------
        TypeError, ValueError
            If a number or shape does not fit. The network has not changed then.
        RuntimeError
            If the network is in a fit.
        """
        shapes = self._engine.shapes
        weights = self._parameters("coefs", coefs, shapes)
        biases = self._parameters("intercepts", intercepts, [shape[1:] for shape in shapes])
        self._replace(weights, biases)

    def _replace(self, weights: list[NDArray[Any]], biases: list[NDArray[Any]]) -> None:
        pairs = enumerate(zip(weights, biases, strict=True))
        self._change({"_under_way": None}, [(i, 0, *pair) for i, pair in pairs])

    def _parameters(
        self, name: str, given: Sequence[ArrayLike], shapes: Sequence[tuple[int, ...]]
    ) -> list[NDArray[Any]]:
        if not isinstance(given, (list, tuple)) or len(given) != len(shapes):
            raise TypeError(
                f"{name} is {given!r}; expected a list of {len(shapes)} arrays, one per layer"
            )
        return [
            parameter_array(f"{name}[{i}]", array, shape, self.dtype)
            for i, (array, shape) in enumerate(zip(given, shapes, strict=True))
        ]

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of `Network`; those of losses and kinds only where they have a use."""
        return {
            **self._shown_loss_settings(),
            **self._shown_kinds(),
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

    def _settings_now(self) -> dict[str, Any]:
        """Return the arguments of a network whose dropout stays at the rates of this one's last step."""
        input_dropout, *dropout = self._dropping
        return {**self._settings(), "dropout": dropout, "input_dropout": input_dropout}

    def _shown_loss_settings(self) -> dict[str, Any]:
        """Return the loss's own settings, as JSON holds them, without label smoothing of 0."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._loss_settings.items()
            if value
        }

    def _shown_kinds(self) -> dict[str, Any]:
        """Return the kinds of dropout, as JSON holds them, without those that drop single units."""
        kinds: dict[str, Any] = {}
        if set(self.dropout_kind) != {"bernoulli"} and self.dropout_kind:
            same = len(set(self.dropout_kind)) == 1
            kinds["dropout_kind"] = self.dropout_kind[0] if same else list(self.dropout_kind)
        if self.input_dropout_kind != "bernoulli":
            kinds["input_dropout_kind"] = self.input_dropout_kind
        if "masksembles" in self._kinds():
            kinds["members"] = self.members
        return kinds

    def _resized(self, units: list[int]) -> Network:
        """Make a network of these widths with the same settings, except that nothing is dropped."""
        kept = {name: v for name, v in self._settings().items() if name not in _state.DROPOUT}
        return Network(**{**kept, "units": units}, threads=self.threads)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything that training depends on: weights, optimizer, counters, history.

        Returns
        -------
        dict
            ``settings`` (arguments of `Network`), ``arrays`` (ndarrays by name: ``weight.0``, ``bias.0``,
            ``state1.weight.0``, ...), ``background`` (the most common value of each input as found by the first `fit`,
            shape (units[0],), or None before), ``optimizer`` (name and settings, or None), ``updates``, ``schedule``
            (name, settings and ``state``, or None), ``epoch``, ``one_column`` (whether targets had shape (n,)),
            ``dropping`` (rates of the last step), ``learned_rates`` (an array, or None without concrete dropout),
            ``losses``, ``curves`` (the history's lists with one entry per epoch, by name). All of them are of one
            moment, between two steps, also while another thread trains.
        """
        return self._state()[0]

    def _state(self) -> tuple[dict[str, Any], bool]:
        """Return `state_dict` and whether the last fit was interrupted, all of one moment."""
        names = list(_state.array_names(len(self.units) - 1))
        parts = [(layer, part) for layer, part, _, _ in names]
        copies, now, (steps, *epochs) = self._engine.copy(parts, vars(self))
        arrays = {}
        for (_, _, weight, bias), pair in zip(names, copies, strict=True):
            arrays[weight], arrays[bias] = pair
        history, rule, background = now["history"], now["_optimizer"], now["_background"]
        lengths = dict(zip(_state.CURVES, epochs, strict=True))
        state = {
            "settings": self._settings(),
            "arrays": arrays,
            "background": None if background is None else background.copy(),
            "optimizer": None if rule is None else _state.as_settings(rule),
            "updates": now["_updates"],
            "schedule": _state.with_state(now["_schedule"], now["_schedule_state"]),
            "epoch": now["_epoch"],
            "one_column": now["_one_column"],
            "dropping": list(now["_dropping"]),
            "learned_rates": None if now["_learned"] is None else now["_learned"].copy(),
            "losses": history.loss[:steps],
            "curves": {name: getattr(history, name)[:n] for name, n in lengths.items()},
        }
        return state, history.interrupted

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; the network must have the same settings, except for its dropout.

        The network keeps its own `dropout` and `input_dropout`. So training continues with other rates, and with the
        optimizer's state, after ``new = Network(..., dropout=0.1); new.load_state_dict(old.state_dict())``.

        Parameters
        ----------
        state : mapping

        Raises
        ------
        TypeError, ValueError
            If a part is missing or does not fit this network. The network has not changed then.
        RuntimeError
            If the network is in a fit.
        """
        self._load(state, None)

    def _load(self, state: Mapping[str, Any], fit: _kernels.Fitting | None) -> None:
        new = _state.checked(state, self.state_dict())
        parts = [
            (layer, part, new.arrays[weight], new.arrays[bias])
            for layer, part, weight, bias in _state.array_names(len(self.units) - 1)
        ]
        background = self._usable_background(new.background)
        attributes = {
            "_background": None if new.background is None else background,
            "_under_way": None,
            "_optimizer": new.optimizer,
            "_updates": new.updates,
            "_schedule": new.schedule,
            "_schedule_state": new.schedule_state,
            "_epoch": new.epoch,
            "_one_column": new.one_column,
            "_dropping": self._loaded_dropping(new.dropping),
            "_learned": _concrete.checked(new.learned_rates, self._learned),
            "history": History(new.losses, *new.curves),
        }
        self._change(attributes, parts, background, fit)

    def _loaded_dropping(self, rates: Sequence[float] | None) -> tuple[float, ...]:
        """Return the rates of the last step: those of a state where the network's own change."""
        if rates is None:
            return self._dropping
        pairs = zip(rates, self._dropping, self._varying(), strict=True)
        return tuple(loaded if varies else own for loaded, own, varies in pairs)

    def _snapshot(self) -> tuple[dict[str, Any], list[Any]]:
        """Return what `_load` changes, for `_restore`."""
        names = list(_state.array_names(len(self.units) - 1))
        copies = self._engine.copy([(layer, part) for layer, part, _, _ in names])
        parts = [
            (layer, part, *pair) for (layer, part, _, _), pair in zip(names, copies, strict=True)
        ]
        return {name: vars(self)[name] for name in _LOADED}, parts

    def _restore(self, snapshot: tuple[dict[str, Any], list[Any]], fit: _kernels.Fitting) -> None:
        """Undo what changed the network since `_snapshot`, the same objects included."""
        attributes, parts = snapshot
        background = self._usable_background(attributes["_background"])
        self._change(attributes, parts, background, fit)

    def save(self, path: storage.File) -> None:
        """Store the complete network in one file, from which `cdrop.load` restores it bit for bit.

        Parameters
        ----------
        path : path or binary file object
            An existing file is replaced, atomically. The format is safetensors, whatever the name; see `cdrop.storage`.

        Raises
        ------
        ImportError
            If safetensors is not installed: ``pip install 'cdrop[io]'``.
        TypeError, ValueError
            If the network was trained with a custom optimizer or schedule class, or `path` is invalid.
        OSError
            If the file cannot be written. An existing file is still there.

        Notes
        -----
        A file that a callback saves in the middle of ``fit(iterations=...)`` resumes at that step. One saved in the
        middle of an epoch resumes with the next epoch, because ``fit(epochs=...)`` begins with a whole one;
        ``fit(checkpoint=...)`` resumes within the epoch.
        """
        storage.save(self, path)

    def _to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return settings and arrays for `cdrop.storage`."""
        _state.check_ours(self._optimizer, self._schedule)
        settings, arrays = _state.to_parts(*self._state(), self.threads)
        if self._classes is not None:
            settings["classes"] = encode("classes_", self._classes)
        return settings, arrays

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Network:
        """Make a network from what `cdrop.storage` has read, which may be anything; see there."""
        state = _state.from_parts(settings, arrays)
        net = cls(**state["settings"], threads=state["threads"])
        net.load_state_dict(state)
        net.history.interrupted = state["interrupted"]
        if "classes" in settings:
            net._set_classes(decode("classes_", settings["classes"]))
        return net

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy through `state_dict`."""
        _state.check_ours(self._optimizer, self._schedule)
        return {"state": self.state_dict(), "threads": self.threads, "classes": self._classes}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Make the network again, then load its state."""
        Network.__init__(self, **saved["state"]["settings"], threads=saved["threads"])
        self.load_state_dict(saved["state"])
        self._classes = saved.get("classes")


def _kept(rates: Sequence[float]) -> NDArray[np.uint64]:
    """Return probabilities of keeping, as the engine takes them."""
    return np.array([keep_units(rate) for rate in rates], np.uint64)


def _short(numbers: Sequence[float | Rate]) -> str:
    """Return a list as text, without its middle if it is long."""
    if len(numbers) <= _SHOWN:
        return repr(list(numbers))
    head, tail = (", ".join(map(repr, part)) for part in (numbers[:5], numbers[-5:]))
    return f"[{head}, ..., {tail}]"


def make_network(D: int, C: int, H: int = 100, **settings: Any) -> Network:
    """Make a network of three layers, D-H-H-C, as in the article.

    Parameters
    ----------
    D, C, H : int
        Number of inputs, of classes, and of units in each hidden layer (default: 100).
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
