"""What classifier and regressor share: checked data, the training, and the decision when to stop."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from cdrop import storage
from cdrop._checks import (
    check_unmasked,
    row_weights,
    truth_value,
    whole_number,
)
from cdrop._kernels import all_finite
from cdrop._parts import decode, encode
from cdrop._training import ScoredRows
from cdrop.callbacks import Callback, EpochPrinter, ProgressBar, Validation, check_callbacks
from cdrop.estimators.options import (
    SMALLEST_RATE,
    Options,
    checked_options,
    design,
    diverged,
    network_changed,
    refused,
    schedule,
    seed,
    threads,
)
from cdrop.estimators.ranges import moved_features
from cdrop.estimators.scoring import Scoring, ValidationScorer
from cdrop.estimators.tasks import (
    CALLBACK_STATE,
    CallbackSupportMixin,
    EpochTasks,
    with_callbacks,
)
from cdrop.estimators.warn import warn
from cdrop.network import Evaluation, Network
from cdrop.rates import Rate, dropping, dropping_by_layer
from cdrop.schedules import Epoch, Plateau, Schedule

__all__ = ["BaseDropoutMLP", "named"]

_OUT_ACTIVATIONS = {
    "softmax_cross_entropy": "softmax",
    "sigmoid_cross_entropy": "logistic",
    "poisson": "exp",
}
_FLOATS = (np.float64, np.float32)
_KEPT = ("best", "last")  # weights that early stopping keeps
_OUTPUTS_AT_ONCE = 2**20
_FAR = 4  # warn where one of this many features has moved
_HELD = "_fit_under_way"  # an attribute during a fit
_PARTS = ("weight", "bias")
_WEIGHTS = {"coefs_", "intercepts_"}  # the attributes of the network that can be assigned
_Value = TypeVar("_Value")
_WATCHED = (  # changes from epoch to epoch
    "n_iter_",
    "t_",
    "best_loss_",
    "best_validation_score_",
    "best_validation_loss_",
    "_no_improvement_count",
    "_stopped",
)
_Pair = tuple[list[NDArray[Any]], list[NDArray[Any]]]  # weights and biases


@dataclass(frozen=True)
class _Data:
    """Checked rows with targets as the network takes them; weights may be None."""

    x: Any
    targets: NDArray[Any]
    weight: NDArray[np.float64] | None  # with the classes' weights, which validation does without
    given_weight: NDArray[np.float64] | None

    def rows(self, chosen: NDArray[np.int64]) -> tuple[Any, ...]:
        weight = None if self.given_weight is None else self.given_weight[chosen]
        return self.x[chosen], self.targets[chosen], weight


_OTHER_WAYS = "Change validation_fraction, give X_val and y_val, or turn early_stopping off"


class BaseDropoutMLP(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share."""

    # Parameters that pickles and files of earlier versions lack.
    _added: Mapping[str, Any] = {
        "interrupt": "keep",
        "scoring": None,
        "soft_labels": False,
        "label_smoothing": 0.0,
        "loss": "squared_error",
        "huber_delta": 1.0,
        "quantile": 0.5,
        "sort_quantiles": False,
        "dropout_kind": "bernoulli",
        "input_dropout_kind": "bernoulli",
        "members": 8,
        "mask_samples": 1,
        "consistency": 0.0,
    }
    interrupt = "keep"
    scoring: Scoring = None
    dropout_kind: str | Iterable[str] = "bernoulli"
    input_dropout_kind = "bernoulli"
    members = 8
    mask_samples = 1
    consistency = 0.0  # a parameter of the classifier alone
    _doc_link_module = "cdrop"
    _doc_link_template = "{page}"
    _numeric = False
    _remembered: tuple[str, ...] = ("n_features_in_", *_WATCHED, "_validated")

    def __init__(
        self,
        hidden_layer_sizes: int | Iterable[int] = (100,),
        activation: str = "relu",
        *,
        dropout: float | Rate | Iterable[float | Rate] = 0.0,
        input_dropout: float | Rate = 0.0,
        dropout_kind: str | Iterable[str] = "bernoulli",
        input_dropout_kind: str = "bernoulli",
        members: int = 8,
        solver: str = "adam",
        alpha: float | Rate = 0.0001,
        max_norm: float | None = None,
        mask_samples: int = 1,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule | Rate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float | Rate = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        scoring: Scoring = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        n_jobs: int | None = None,
        interrupt: str = "keep",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.dropout_kind = dropout_kind
        self.input_dropout_kind = input_dropout_kind
        self.members = members
        self.solver = solver
        self.alpha = alpha
        self.max_norm = max_norm
        self.mask_samples = mask_samples
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.n_jobs = n_jobs
        self.interrupt = interrupt

    def _doc_link_url_param_generator(self, *_: Any) -> dict[str, str]:
        """Return the estimator's page, which scikit-learn links in notebooks.

        It is on the site that the package's metadata call its documentation. Without one the link leads nowhere, but
        is needed: only with a link does scikit-learn show what each parameter means.
        """
        try:
            urls = metadata.metadata("cdrop").get_all("Project-URL") or []
        except metadata.PackageNotFoundError:  # a directory on the path
            urls = []
        sites = dict(url.split(", ", 1) for url in urls)
        if "Documentation" not in sites:
            return {"page": "#"}
        name = f"cdrop.estimators.{type(self).__name__}"
        return {"page": f"{sites['Documentation'].rstrip('/')}/api/estimators.html#{name}"}

    # ---- What the network knows ----------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Copies of the weights, layer by layer. Assigning a list replaces them."""
        return self._computed("coefs_", lambda net: net.coefs_)

    @coefs_.setter
    def coefs_(self, coefs: Sequence[ArrayLike]) -> None:
        self._assign("coefs_", coefs)

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Copies of the biases, layer by layer. Assigning a list replaces them."""
        return self._computed("intercepts_", lambda net: net.intercepts_)

    @intercepts_.setter
    def intercepts_(self, intercepts: Sequence[ArrayLike]) -> None:
        self._assign("intercepts_", intercepts)

    @property
    def n_layers_(self) -> int:
        """Number of layers, input and output included."""
        return self._computed("n_layers_", lambda net: len(net.units))

    @n_layers_.setter
    def n_layers_(self, value: int) -> None:
        self._assign("n_layers_", value)

    @property
    def n_outputs_(self) -> int:
        """Number of outputs."""
        return self._computed("n_outputs_", lambda net: net.units[-1])

    @n_outputs_.setter
    def n_outputs_(self, value: int) -> None:
        self._assign("n_outputs_", value)

    @property
    def out_activation_(self) -> str:
        """Name of the output's activation: "softmax", "logistic", "exp" or "identity"."""
        return self._computed(
            "out_activation_", lambda net: _OUT_ACTIVATIONS.get(net.loss, "identity")
        )

    @out_activation_.setter
    def out_activation_(self, value: str) -> None:
        self._assign("out_activation_", value)

    @property
    def loss_curve_(self) -> list[float]:
        """Training loss of each epoch, over all fits of a warm start."""
        return self._computed("loss_curve_", lambda net: list(net.history.epoch_loss))

    @loss_curve_.setter
    def loss_curve_(self, value: list[float]) -> None:
        self._assign("loss_curve_", value)

    @property
    def loss_(self) -> float:
        """Training loss of the last epoch."""
        return self._computed("loss_", lambda net: net.history.epoch_loss[-1])

    @property
    def validation_loss_curve_(self) -> list[float] | None:
        """Loss of the validation rows after each epoch, without dropout and penalty; None without such rows."""
        curve = self._computed("validation_loss_curve_", lambda net: net.history.validation_loss)
        return list(curve) if self._validated else None

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score of the validation rows after each epoch; None without such rows."""
        curve = self._computed("validation_scores_", lambda net: net.history.validation_score)
        return list(curve) if self._validated else None

    @property
    def learning_rate_(self) -> float:
        """Learning rate of the next epoch, or at the end of the last fit if the rate changes from step to step."""
        rate = self._computed("learning_rate_", self._rate_of)
        assert rate is not None
        return rate

    @learning_rate_.setter
    def learning_rate_(self, value: float) -> None:
        self._assign("learning_rate_", value)

    def _rate_of(self, net: Network) -> float | None:
        if isinstance(self.learning_rate, Rate):
            return self.learning_rate.of_step(net.history.iterations, 1, 1)
        return net.learning_rate

    def _computed(self, name: str, compute: Callable[[Network], _Value]) -> _Value:
        """Return an attribute of the network; before the first fit, what was assigned."""
        net, assigned = vars(self).get("network_"), vars(self).get("_assigned", {})
        if net is not None:
            return compute(net)
        if name in assigned:
            return assigned[name]  # type: ignore[no-any-return]
        raise AttributeError(f"{type(self).__name__} has {name} once it is fitted")

    def _assign(self, name: str, value: Any) -> None:
        """Replace the network's weights or biases, or keep the value for the first fit."""
        net = vars(self).get("network_")
        if net is None:
            self._assigned = {**vars(self).get("_assigned", {}), name: value}
        elif name in _WEIGHTS:
            setattr(net, name, value)
            # Early stopping must not return to weights from before.
            self.__dict__.update(_best_weights=None, _last_weights=None)
        else:
            raise AttributeError(
                f"{name} of a fitted {type(self).__name__} cannot be assigned: it is computed from network_; expected "
                "an assignment of coefs_ or intercepts_, or a new fit"
            )

    def _begin_with(self, assigned: Mapping[str, Any]) -> None:
        """Begin with the weights and biases that were assigned before the first fit, if any."""
        for name in _WEIGHTS & assigned.keys():
            setattr(self.network_, name, assigned[name])

    # ---- Training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        callbacks: Sequence[Any] = (),
    ) -> Self:
        """Train, from the beginning or with `warm_start` from where the last call ended.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
            Float32 is trained on as float32, all else as float64. CSR matrices are not densified.
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or targets.
        sample_weight : array_like, shape (n_samples,), optional
            At least 0; rows of weight 0 count as left out.
        X_val, y_val : as `X` and `y`, optional
            Validation rows, to be scored after each epoch, and used by early stopping.
        sample_weight_val : array_like, optional
            Their weights.
        checkpoint : path, optional
            Checkpoint file: after a crash the same call resumes from it, to the same bytes; see
            `cdrop.Network.fit`. Needs the extra ``io``, and a `random_state`.
        checkpoint_every : int, optional
            Steps from one checkpoint to the next; 1,000 by default.
        callbacks : sequence of cdrop.callbacks.Callback, default ()
            Called after each iteration and epoch with the estimator's `network_`; the fit ends when one returns True.
            `cdrop.callbacks.Validation` scores by the estimator's `score`, with labels as in `y`. An error in a
            callback ends the fit, and the estimator is fitted with what it has learned. With scikit-learn 1.9 or newer,
            `set_callbacks` sets its callbacks as well.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as above: nothing has changed then. If training has diverged: a new
            fit has changed nothing then; a warm start leaves the network where it diverged.
        KeyboardInterrupt
            After Ctrl-C, see `interrupt`.
        RuntimeError
            If the estimator is in another fit: of another thread, or this one was called by a signal handler or a
            finalizer.
        """
        given = (X, y, sample_weight, X_val, y_val, sample_weight_val)
        fitted: Self = self._fit_with_callbacks(
            given, check_callbacks(callbacks), checkpoint, checkpoint_every
        )
        return fitted

    def _fit(
        self, given: tuple[Any, ...], callbacks: tuple[Any, ...], checkpoint: Any, every: Any
    ) -> Self:
        X, y, sample_weight, X_val, y_val, sample_weight_val = given
        options = checked_options(self)
        fresh = not (truth_value("warm_start", self.warm_start) and "network_" in vars(self))
        if (X_val is None) != (y_val is None) or (X_val is None and sample_weight_val is not None):
            raise ValueError("X_val, y_val: expected both or none, and sample_weight_val with them")
        if checkpoint is not None and self.random_state is None:
            raise ValueError(
                "random_state is None; expected a seed, with checkpoint: a fit resumes from the same beginning"
            )
        watch = _Watch(self, options)
        with self._unchanged_if_refused(watch, fresh) as new:
            data = new._data(X, y, sample_weight, fresh)
            held_out = None
            if X_val is not None:
                held_out = new._held_out(X_val, y_val, sample_weight_val)
                _warn_if_far(data.x, held_out[0])
            about = new._prepared(data, watch, fresh, held_out)
            about |= {"checkpoint": checkpoint, "checkpoint_every": every}
            self.__dict__ = new.__dict__
            tasks = self._tasks(options, X, y, sample_weight)
            self._run(data, watch, [*tasks, *callbacks], **about)
            for task in tasks:
                task.finish()
        self._warn_of_end(watch)
        return self

    _fit_with_callbacks = with_callbacks(_fit)

    def _tasks(self, options: Options, X: Any, y: Any, sample_weight: Any) -> list[EpochTasks]:
        """Return what passes the fit on to the callbacks that scikit-learn's `set_callbacks` has set."""
        if not vars(self).get("_skl_callbacks"):
            return []
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        return [EpochTasks(self, options.max_iter, X=X, y=y, metadata=metadata)]

    def _warn_of_end(self, watch: _Watch) -> None:
        """Warn where a fit ended too early, or at `max_iter` without being one of a loop."""
        options = watch.options
        best = self.best_validation_loss_
        if watch.enough is not None and (not self._stopped or (best or 0.0) <= watch.enough):
            return  # all targets are equal: there is nothing to learn but one number
        if self._stopped:
            self._warn_if_untrained(watch)
        elif self.n_iter_ == options.max_iter and not self._is_in_a_loop(options.max_iter):
            warn(
                f"Stochastic Optimizer: Maximum iterations ({options.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
            )

    def _is_in_a_loop(self, max_iter: int) -> bool:
        """Return whether the fit is one of many short ones: of one epoch, or as long as the last that warned."""
        if not self.warm_start:
            return False
        last, self._warned_at = vars(self).get("_warned_at"), max_iter
        return max_iter in (1, last)

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: Any, classes: Any, callbacks: Sequence[Any]
    ) -> None:
        callbacks = check_callbacks(callbacks)
        options, fresh = checked_options(self), "network_" not in vars(self)
        if options.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        watch = _Watch(self, options)
        with self._unchanged_if_refused(watch, fresh) as new:
            data = new._data(X, y, sample_weight, fresh, True, classes)
            about = new._prepared(data, watch, fresh, None, partial=True)
            self.__dict__ = new.__dict__
            self._run(data, watch, callbacks, **about)

    @contextmanager
    def _unchanged_if_refused(self, watch: _Watch, fresh: bool) -> Iterator[BaseDropoutMLP]:
        """Undo everything where a fit is refused before its first step, or where a new network has diverged.

        Yields an estimator to prepare the fit in. Then its attributes become this one's, all at once, so that signal
        handlers and other threads never find parts of two fits.
        """
        this, draws = [os.getpid()], self.random_state
        drawn = draws.get_state() if isinstance(draws, np.random.RandomState) else None
        try:
            self._hold(this)
            before, new = self.__dict__, object.__new__(type(self))
            new.__dict__ = before.copy()
            try:
                yield new
            except BaseException:
                if not watch.begun or (
                    fresh and (watch.diverged or not self.network_.history.loss)
                ):
                    self.__dict__ = before
                    if drawn is not None:
                        draws.set_state(drawn)
                    if watch.network is not None:
                        watch.restore_network()
                raise
        finally:
            if vars(self).get(_HELD) is this:
                del self.__dict__[_HELD]

    def _hold(self, fit: list[int]) -> None:
        """Let no other fit change the estimator. `fit` has the number of its process: a fork may leave fits behind."""
        holder = self.__dict__.setdefault(_HELD, fit)
        if holder is not fit and holder == fit:
            raise RuntimeError(
                f"this {type(self).__name__} is in a fit; expected one fit at a time: fit a copy (sklearn.base.clone)"
            )
        self.__dict__[_HELD] = fit

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy without a fit that is under way."""
        state = dict(super().__getstate__())
        for name in (_HELD, *CALLBACK_STATE):
            state.pop(name, None)
        return state

    def _data(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        fresh: bool,
        partial: bool = False,
        classes: NDArray[Any] | None = None,
    ) -> _Data:
        """Check the rows and encode their targets, as those of a first fit if `fresh`."""
        _check_kind("X", X)
        check_unmasked("y", y)
        x, y = validate_data(
            self,
            X,
            self._label_array("y", y),
            accept_sparse="csr",
            dtype=_FLOATS,
            order="C",
            multi_output=True,
            y_numeric=self._numeric,
            reset=fresh,
        )
        y = _flat(y)
        given = weight = row_weights("sample_weight", sample_weight, x.shape[0])
        self._learn(y, fresh, partial, classes)
        by_class = self._class_weights(y, weight, partial)
        if by_class is not None:
            weight = by_class if weight is None else weight * by_class
            weight = row_weights("class_weight, with sample_weight,", weight, x.shape[0])
        return _Data(x, self._encoded("y", y, x.dtype), weight, given)

    def _held_out(self, X: Any, y: Any, weight: Any) -> tuple[Any, ...]:
        with named("X_val"):
            x = self._features(X)
        y = self._checked_labels("y_val", y)
        if len(y) != x.shape[0]:
            raise ValueError(f"y_val has {len(y)} rows; expected {x.shape[0]}, as X_val has")
        weight = row_weights("sample_weight_val", weight, x.shape[0])
        return x, self._encoded("y_val", y, x.dtype), weight

    def _checked_labels(self, name: str, y: Any) -> NDArray[Any]:
        check_unmasked(name, y)
        labels = self._label_array(name, y)
        with named(name):
            return _flat(check_array(labels, accept_sparse="csr", ensure_2d=False, dtype=None))

    def _label_array(self, name: str, y: Any) -> Any:
        """Return targets without a loss where they are labels."""
        return y

    def _prepared(
        self,
        data: _Data,
        watch: _Watch,
        fresh: bool,
        held_out: tuple[Any, ...] | None,
        partial: bool = False,
    ) -> dict[str, Any]:
        """Make or check the network, begin the fit, and return what else the training needs."""
        options, width, kind = watch.options, self._width(data.targets), data.x.dtype.name
        settings = design(self, data.x.shape[1], width, self._loss_settings(width), kind)
        rows = None if data.weight is None else _rows_with_weight(data.weight)
        if fresh:
            assigned = self.__dict__.pop("_assigned", {})
            self._begin(settings)
            if partial or self.warm_start:
                self._begin_with(assigned)
        else:
            self._adopt(settings)
        if options.early_stopping and held_out is None:
            rows, held_out = self._split(data, rows, options)
        n = data.x.shape[0] if rows is None else len(rows)
        size = _batch_size(options, n, partial)
        if options.early_stopping and held_out is not None:
            equal = self._all_equal(*held_out[1:])
            watch.by_loss = options.scoring == "loss" or (options.scoring is None and equal)
            if watch.by_loss and equal and self._all_equal(data.targets, data.weight):
                watch.enough = self._enough(data.targets) + options.tol
            watch.guessed = self._guess_score(*held_out[1:])
        rate = schedule(self, options, held_out is not None, watch.by_loss)
        if held_out is not None and options.scoring is not None:
            held_out = self._scored_rows(watch, held_out)
        self._begin_fit(watch, held_out)
        return {
            "validation": held_out,
            "learning_rate": rate,
            "rows": rows,
            "batch_size": size,
            "epochs": 1 if partial else options.max_iter,
        }

    def _scored_rows(self, watch: _Watch, held_out: tuple[Any, ...]) -> ScoredRows:
        """Return validation rows that the parameter `scoring` scores, once it has scored them here."""
        x, targets, weight = held_out
        scorer = ValidationScorer(self, x, self._decoded(targets), weight)
        watch.scorer = scorer
        scorer.try_out(self, self._evaluation(held_out))
        rows = ScoredRows(held_out)
        rows.name, rows.scorer = scorer.name, lambda seen: scorer(watch.estimator, seen)
        return rows

    def _all_equal(self, targets: NDArray[Any], weight: NDArray[np.float64] | None) -> bool:
        """Whether all targets with weight are equal, so that a score of them says little or nothing."""
        counted = targets if weight is None else targets[weight > 0]
        return bool((counted == counted[:1]).all())

    def _evaluation(self, held_out: tuple[Any, ...]) -> Evaluation:
        return self.network_._evaluated(self.network_._validation_data(held_out))

    def _begin(self, settings: dict[str, Any]) -> None:
        """Make a new network, and forget the last training."""
        self.network_ = Network(**settings, seed=seed(self.random_state))
        self.t_ = 0
        self._stopped = False
        self._count_afresh()

    def _count_afresh(self) -> None:
        """Forget the best epochs and the number of those without progress."""
        self.best_loss_: float | None = None
        self.best_validation_score_: float | None = None
        self.best_validation_loss_: float | None = None
        self._no_improvement_count = 0
        self._best_weights: _Pair | None = None
        self._last_weights: _Pair | None = None  # of the last epoch, where the best are shown

    def _begin_fit(self, watch: _Watch, held_out: tuple[Any, ...] | None) -> None:
        """Continue from the last epoch; after a stop, continue from the weights that were kept, and count afresh."""
        net, early = self.network_, watch.options.early_stopping
        count = threads(self.n_jobs)
        watch.remember_network(net, self._best_weights if self._last_weights else None)
        afresh = self._stopped or (
            early and held_out is not None and self._is_new_to(held_out, watch)
        )
        if early and not self._stopped and self._last_weights is not None:
            net.set_weights(*self._last_weights)
        if afresh:
            self._count_afresh()
            if isinstance(net._schedule, Plateau):  # it counts epochs without progress, too
                net._schedule = None
        if held_out and None in (self.best_validation_score_, self.best_validation_loss_):
            self.best_validation_score_, self.best_validation_loss_ = -math.inf, math.inf
        if not early:
            self._best_weights = None
            if self.best_loss_ is None:
                self.best_loss_ = math.inf
        net.threads = count
        self._last_weights, self._stopped, self._validated = None, False, held_out is not None
        self.n_iter_ = 0

    def _is_new_to(self, held_out: tuple[Any, ...], watch: _Watch) -> bool:
        """Whether the best score is of other rows or another scoring, or its weights were not kept."""
        best = self.best_validation_score_, self.best_validation_loss_
        if best[0] is None or best[1] is None or best[0] == -math.inf:
            return False
        if self._last_weights is None:  # else the network shows the best ones
            return True
        seen = self._evaluation(held_out)
        score = seen.score if watch.scorer is None else watch.scorer(self, seen)
        return not (math.isclose(score, best[0]) and math.isclose(seen.loss, best[1]))

    def _adopt(self, settings: dict[str, Any]) -> None:
        """Check that the network is the one that the parameters describe.

        Rates and kinds of dropout and what the loss is set to may have changed.
        """
        old = self.network_
        for name in ("units", "activation", "loss"):
            fitted, now = getattr(old, name), settings[name]
            if fitted != now:
                raise ValueError(network_changed(name, fitted, now))
        now = {
            "dropout": dropping_by_layer("dropout", settings["dropout"], len(old.dropout)),
            "input_dropout": dropping("input_dropout", settings["input_dropout"]),
            "dropout_kind": settings["dropout_kind"],
            "input_dropout_kind": settings["input_dropout_kind"],
            "members": settings["members"],
            **{name: settings[name] for name in old._loss_settings},
        }
        if any(getattr(old, name) != value for name, value in now.items()):
            new = Network(**settings, seed=old.seed, threads=old.threads)
            new.load_state_dict({**old.state_dict(), "settings": new._settings()})
            self.network_ = new

    def _run(self, data: _Data, watch: _Watch, callbacks: Sequence[Any], **settings: Any) -> None:
        net, options = self.network_, watch.options
        scoring = [c for c in callbacks if isinstance(c, Validation)]
        try:
            for callback in scoring:
                callback._estimator = self
                with named("callbacks"):
                    self.score(callback.X, callback.y)
            net.fit(
                data.x,
                data.targets,
                data.weight,
                optimizer=options.optimizer,
                l2=options.l2,
                share_l2=True,
                max_norm=options.max_norm,
                mask_samples=options.mask_samples,
                consistency=options.consistency,
                shuffle=options.shuffle,
                callbacks=[watch, *_shown(options.verbose), *callbacks],
                interrupt=options.interrupt,
                **settings,
            )
        except FloatingPointError as error:
            watch.diverged = True
            self._diverged(error)
        except (TypeError, ValueError) as error:
            text = refused(error)
            if watch.begun or text == str(error):  # from then on callbacks raise their own errors
                raise
            raise type(error)(text) from None
        finally:
            for callback in scoring:
                callback._estimator = None
            if watch.begun:
                self._end_run(options)

    def _end_run(self, options: Options) -> None:
        """Note an interruption, and show the best weights; also where an exception has ended the run."""
        net = self.network_
        if net.history.interrupted:
            self._stopped = True
        if options.early_stopping and self._best_weights is not None:
            self._last_weights = net.coefs_, net.intercepts_
            net.set_weights(*self._best_weights)

    def _split(
        self, data: _Data, rows: NDArray[np.int64] | None, options: Options
    ) -> tuple[NDArray[np.int64], tuple[Any, ...]]:
        """Hold a part of the rows out: the same ones in each fit of a warm start."""
        if rows is None:
            rows = np.arange(data.x.shape[0])
        fraction, strata = options.validation_fraction, self._strata(data.targets)
        held = math.ceil(fraction * len(rows))  # as train_test_split counts
        if not 0 < held < len(rows):
            raise ValueError(
                f"validation_fraction is {fraction!r}, so that {held} of {len(rows)} rows would be held out; expected "
                f"at least 2, and one to train on. {_OTHER_WAYS}"
            )
        how = {"test_size": fraction, "random_state": self.network_.seed % 2**32}
        try:
            train, held_out = train_test_split(
                rows, **how, stratify=None if strata is None else strata[rows]
            )
        except ValueError as error:
            if strata is not None and strata.dtype == bool:  # two classes, as MLPClassifier
                raise ValueError(  # scikit-learn's text begins it, which its own tests look for
                    f"{error} The classes are {self.classes_}, of which {held} of {len(rows)} rows would be held out; "
                    f"expected at least 2 rows of each, and one of each held out. {_OTHER_WAYS}"
                ) from error
            train, held_out = train_test_split(rows, **how)
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return train, data.rows(held_out)

    def _end_epoch(self, epoch: Epoch, watch: _Watch) -> bool:
        """Count epochs without progress, as scikit-learn does; whether to stop."""
        options = watch.options
        noted = self._noted(epoch, watch)
        message = None
        if noted["_no_improvement_count"] > options.patience:
            stopped = self.learning_rate != "adaptive" or epoch.learning_rate <= SMALLEST_RATE
            noted["_stopped"] = stopped
            if not stopped:
                noted["_no_improvement_count"] = 0
            message = (
                f"{watch.watched} did not improve more than tol={options.tol:f} for {options.patience} consecutive "
                f"epochs. {'Stopping.' if stopped else 'The learning rate falls.'}"
            )
        self.__dict__.update(noted)  # at once
        if message and options.verbose and sys.stdout and not sys.stdout.closed:
            print(message)
        return self._stopped

    def _noted(self, epoch: Epoch, watch: _Watch) -> dict[str, Any]:
        """Return what an epoch changes: the counts, and the best so far. A value that is NaN is never progress."""
        noted: dict[str, Any] = {"n_iter_": self.n_iter_ + 1, "t_": self.t_ + epoch.rows}
        improved, early = True, watch.options.early_stopping
        if self.best_validation_score_ is not None:
            value, best = epoch.validation_score, self.best_validation_score_
            if watch.by_loss:
                assert self.best_validation_loss_ is not None
                value, best = -epoch.validation_loss, -self.best_validation_loss_
            improved = math.isfinite(value) and value >= best + watch.options.tol
            if value > best and value < math.inf:
                noted["best_validation_score_"] = epoch.validation_score
                noted["best_validation_loss_"] = epoch.validation_loss
                if early:
                    noted["_best_weights"] = self.network_.coefs_, self.network_.intercepts_
        if self.best_loss_ is not None:
            if not early:
                improved = epoch.loss <= self.best_loss_ - watch.options.tol
            noted["best_loss_"] = min(self.best_loss_, epoch.loss)
        noted["_no_improvement_count"] = 0 if improved else self._no_improvement_count + 1
        return noted

    def _warn_if_untrained(self, watch: _Watch) -> None:
        """Warn where the rule ended a fit that had hardly begun, or kept what is no better than a guess."""
        options, history = watch.options, self.network_.history
        if history.interrupted or not self._no_improvement_count > options.patience:
            return  # by Ctrl-C, or diverged: there was a warning
        problem, best = None, self.best_validation_score_
        if options.early_stopping and best == -math.inf:
            problem = f"no {watch.watched.lower()} was a finite number"
        elif options.early_stopping and not watch.by_loss and options.scoring is None:
            if best is not None and best <= watch.guessed:
                problem = (
                    f"the best validation score, {best:.6g}, is not above the {watch.guessed:.6g} of the best constant "
                    "prediction"
                )
        elif len(history.epoch_loss) == self.n_iter_ == options.patience + 2:
            moved = "rose" if watch.watched == "Validation score" else "fell"
            problem = (
                f"the {watch.watched.lower()} never {moved} by more than tol={options.tol:g} after the first "
                "epoch"
            )
        if problem:
            warn(
                f"Training stopped after {self.n_iter_} epochs, perhaps too early: {problem}. Expected a smaller tol, "
                "a larger n_iter_no_change or learning_rate_init, inputs and targets of unit variance, or more "
                "validation rows.",
                ConvergenceWarning,
            )

    def _diverged(self, error: FloatingPointError) -> None:
        """Go back to the best weights if early stopping has kept some; an error otherwise."""
        if self._best_weights is None:
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                f"preprocessed. ({diverged(error, self)})"
            ) from error
        history = self.network_.history
        for curve in (history.epoch_loss, history.validation_loss, history.validation_score):
            curve.append(math.nan)
        self.n_iter_ += 1
        self._stopped = True
        warn(
            f"Training has diverged: {diverged(error, self)}. The best weights before are kept.",
            ConvergenceWarning,
        )

    # ---- Prediction ----------------------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if "network_" not in vars(self):  # else scikit-learn's check only takes time
            check_is_fitted(self, "network_")

    def _checked(self, X: Any) -> Any:
        self._check_fitted()
        return self._features(X)

    def _outputs(self, X: Any, answer: str = "outputs") -> Iterator[NDArray[Any]]:
        """Yield the network's outputs, or another answer of its engine, for some rows at a time; raise on overflow."""
        x, net = self._checked(X), self.network_
        piece = min(net._piece(), max(256, _OUTPUTS_AT_ONCE // net.units[-1]))
        for first in range(0, x.shape[0], piece):
            outputs = net._answers(x[first : first + piece], first, answer)
            yield self._finite(outputs, first)

    def _checked_finite(self, X: Any) -> Any:
        """Return checked rows; raise where an output overflows, which a mean of probabilities would not show."""
        for _ in self._outputs(X):
            pass
        return self._checked(X)

    def _finite(self, outputs: NDArray[Any], first: int = 0) -> NDArray[Any]:
        """Return outputs of rows that are counted from `first`; raise where a row has one that is not finite."""
        if all_finite(np.ascontiguousarray(outputs)):
            return outputs
        good = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
        if not good.all():
            raise ValueError(
                f"X[{first + int(good.argmin())}] makes outputs that are not finite in {outputs.dtype}; expected rows "
                "on the scale of those trained on: scale the inputs, or train in float64"
            )
        return outputs

    def _features(self, X: Any) -> Any:
        if self._is_plain(X):
            return X
        _check_kind("X", X)
        return validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=False)

    def _is_plain(self, X: Any) -> bool:
        """Return whether scikit-learn's checks would return X as it is: they take longer than predicting a row."""
        return (
            type(X) is np.ndarray
            and X.dtype in _FLOATS
            and X.shape[1:] == (self.n_features_in_,)
            and len(X) > 0
            and X.flags.c_contiguous
            and X.flags.aligned
            and "feature_names_in_" not in vars(self)
            and all_finite(X)
        )

    # ---- Files ---------------------------------------------------------------------------------------------------

    def save(self, path: storage.File) -> None:
        """Write everything to one file, whole or not at all, from which `cdrop.load` restores it bit for bit.

        Parameters
        ----------
        path : path or binary file object
            An existing file is replaced. It is a safetensors file, whatever its name; see `cdrop.storage`.

        Raises
        ------
        ImportError
            If safetensors is not installed: ``pip install 'cdrop[io]'``.
        TypeError, ValueError
            If a parameter is of a kind that a file does not hold, or `path` is invalid.
        OSError
            If the file cannot be written; what was there before is still there.
        """
        storage.save(self, path)

    def _to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what `cdrop.storage` writes."""
        parameters = {
            name: encode(name, value) for name, value in self.get_params(deep=False).items()
        }
        if "network_" not in vars(self):
            if _WEIGHTS & vars(self).get("_assigned", {}).keys():
                raise TypeError(
                    "coefs_ or intercepts_ were assigned before the first fit; expected a fit before save"
                )
            return {"parameters": parameters}, {}
        network, arrays = self.network_._to_parts()
        arrays = {f"network.{name}": array for name, array in arrays.items()}
        for which in _KEPT:
            kept = getattr(self, f"_{which}_weights")
            for part, layers in zip(_PARTS, kept or (), strict=bool(kept)):
                arrays |= {f"{which}.{part}.{i}": array for i, array in enumerate(layers)}
        names = [name for name in (*self._remembered, "feature_names_in_") if hasattr(self, name)]
        fitted = {name: encode(name, getattr(self, name)) for name in names}
        return {"parameters": parameters, "fitted": fitted, "network": network}, arrays

    @classmethod
    def _completed(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a file's settings with the parameters that were added since it was written."""
        given = settings.get("parameters")
        if not isinstance(given, dict):
            return settings
        names = cls._get_param_names()
        added = {k: encode(k, v) for k, v in cls._added.items() if k in names}
        return {**settings, "parameters": {**added, **given}}

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
        """Take what `cdrop.storage` has read, which may be anything; see there."""
        model = cls(**{k: decode(k, v) for k, v in dict(settings["parameters"]).items()})
        if "network" not in settings:
            return model
        prefix = "network."
        own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        model.network_ = Network._from_parts(settings["network"], own)
        fitted = dict(settings["fitted"])
        for name in {*cls._remembered, *fitted} - {"feature_names_in_"}:
            if name not in cls._remembered:
                raise ValueError(f"a fitted {cls.__name__} has no {name}")
            if name not in fitted:
                raise KeyError(name)
        for name, value in fitted.items():
            setattr(model, name, decode(name, value))
        for which in _KEPT:
            setattr(model, f"_{which}_weights", model._kept_weights(which, arrays))
        model._check_remembered()
        return model

    def _kept_weights(self, which: str, arrays: Mapping[str, NDArray[Any]]) -> _Pair | None:
        if f"{which}.weight.0" not in arrays:
            return None
        pair = []
        for part, own in zip(
            _PARTS, (self.network_.coefs_, self.network_.intercepts_), strict=True
        ):
            layers = [arrays[f"{which}.{part}.{i}"] for i in range(len(own))]
            if [(a.shape, a.dtype) for a in layers] != [(a.shape, a.dtype) for a in own]:
                raise ValueError(f"the {which} weights are not of the network's shapes and dtype")
            pair.append(layers)
        return pair[0], pair[1]

    def _check_remembered(self) -> None:
        """Validate what a file says was remembered."""
        whole_number("n_features_in_", self.n_features_in_, 1, 2**32)
        for name in ("n_iter_", "t_", "_no_improvement_count"):
            whole_number(name, getattr(self, name), 0, 2**62)
        for name in ("_stopped", "_validated"):
            truth_value(name, getattr(self, name))
        for name in ("best_loss_", "best_validation_score_", "best_validation_loss_"):
            if not isinstance(getattr(self, name), (float, type(None))):
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected a float or None")
        if self.n_features_in_ != self.network_.units[0]:
            raise ValueError(f"n_features_in_ is {self.n_features_in_}; that is not the network's")
        names = getattr(self, "feature_names_in_", None)
        if names is not None and np.shape(names) != (self.n_features_in_,):
            raise ValueError(f"feature_names_in_ is {names!r}; expected a name for each feature")

    def __sklearn_tags__(self) -> Any:
        """Sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _Watch(Callback):
    """Notifies an estimator of its epochs, and knows by which rule they count."""

    def __init__(self, estimator: BaseDropoutMLP, options: Options) -> None:
        self.estimator = estimator
        self.options = options
        self.begun = False
        self.diverged = False
        self.by_loss = False  # whether early stopping goes by the validation loss
        self.enough: float | None = (
            None  # the validation loss that is enough where all targets are equal
        )
        self.scorer: ValidationScorer | None = None  # None: the network's own score
        self.guessed = 0.0  # the score of the best constant prediction
        self.network: Network | None = None
        self._before: tuple[Any, ...] = ()

    @property
    def watched(self) -> str:
        """Name of what must improve."""
        if not self.options.early_stopping:
            return "Training loss"
        return "Validation loss" if self.by_loss else "Validation score"

    def remember_network(self, net: Network, shown: _Pair | None) -> None:
        """Note what the beginning of a fit may change of a network, which may show other weights than its last ones."""
        self.network = net
        self._before = net.threads, net._schedule, net._under_way, shown

    def restore_network(self) -> None:
        """Undo what the beginning of a fit has changed."""
        net = self.network
        assert net is not None
        threads, schedule, under_way, shown = self._before
        if shown is not None:
            net.set_weights(*shown)
        net.threads, net._schedule, net._under_way = threads, schedule, under_way

    def on_fit_begin(self, net: Network, total: int) -> None:
        """Note that nothing was refused."""
        self.begun = True

    def on_epoch_end(self, net: Network, epoch: Epoch) -> bool:
        """Ask the estimator whether to stop."""
        return self.estimator._end_epoch(epoch, self)

    def state_dict(self) -> dict[str, Any]:
        """As `Callback.state_dict`: what the estimator has noted of its epochs."""
        best = self.estimator._best_weights
        noted = {name: getattr(self.estimator, name) for name in _WATCHED}
        return {**noted, "best": None if best is None else list(best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Callback.load_state_dict`."""
        best = state["best"]
        for name in _WATCHED:
            setattr(self.estimator, name, state[name])
        self.estimator._best_weights = None if best is None else (best[0], best[1])


def _shown(verbose: bool) -> list[Callback]:
    """Return a bar on a terminal, a printer of lines elsewhere."""
    if not verbose:
        return []
    bar = ProgressBar()
    return [bar] if bar.visible else [EpochPrinter()]


def _rows_with_weight(weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows whose weight a minibatch can be divided by, so that no minibatch is without."""
    rows = np.flatnonzero(weight >= np.finfo(np.float64).tiny)
    if not len(rows):
        raise ValueError("sample_weight is below 2.3e-308 in each row; expected larger weights")
    return rows


def _warn_if_far(x: Any, held_out: Any) -> None:
    """Warn where validation rows look as if they had not been transformed as the training rows."""
    moved, compared = moved_features(x, held_out)
    if moved and _FAR * moved >= compared:
        warn(
            f"X_val lies far outside X: in {moved} of {compared} features, most of its values are beyond the range of "
            "the training rows. Expected rows that were transformed as X was; a Pipeline does so with "
            "transform_input=['X_val'] (see docs/scikit-learn.md)"
        )


def _batch_size(options: Options, n: int, partial: bool) -> int:
    if options.batch_size is None:
        return min(200, n)
    if options.batch_size > n and not partial:
        warn(
            f"Got `batch_size` {options.batch_size}, larger than the {n} rows. It is going to be clipped"
        )
    return min(options.batch_size, n)


def _check_kind(name: str, X: Any) -> None:
    """Refuse masked entries, and times, which scikit-learn takes for numbers of their units."""
    check_unmasked(name, X)
    kinds: Any = getattr(X, "dtypes", getattr(X, "dtype", None))
    for kind in np.ravel(kinds):
        if getattr(kind, "kind", "") in ("M", "m"):
            raise TypeError(f"{name} has dtype {kind}; expected real numbers")


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let an error of scikit-learn, which knows the argument by another name or none, begin with its own."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    except OverflowError as error:
        raise ValueError(f"{name}: {error}") from error


def _flat(y: Any) -> NDArray[Any]:
    """Return a column as a vector, with scikit-learn's warning; a sparse matrix of labels as a dense one."""
    dense: NDArray[Any] = y.toarray() if hasattr(y, "toarray") else y
    if dense.ndim == 2 and dense.shape[1] == 1:
        dense = column_or_1d(dense, warn=True)
    return dense
