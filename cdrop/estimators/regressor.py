"""The regressor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array

from cdrop import _kernels, _losses
from cdrop._checks import (
    as_array,
    check_unmasked,
    choice,
    finite_number,
    nonnegative,
    quantile_levels,
    real_numbers,
    row_weights,
    truth_value,
)
from cdrop.estimators.base import BaseDropoutMLP, named
from cdrop.estimators.scoring import Scoring
from cdrop.rates import Rate
from cdrop.schedules import Schedule
from cdrop.uncertainty import RegressionUncertainty

__all__ = ["DropoutMLPRegressor"]

_LOSSES = tuple(filter(_losses.is_regression, _kernels.LOSSES))


class DropoutMLPRegressor(RegressorMixin, BaseDropoutMLP):  # type: ignore[misc]
    """Multilayer perceptron with dropout, for one target or several.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer.
    activation : {"relu", "logistic", "tanh", "identity", "leaky_relu"}, default "relu"
        Of the hidden layers.
    loss : {"squared_error", "absolute_error", "huber", "poisson", "quantile"}, default "squared_error"
        "squared_error" for means; "absolute_error" for medians; "huber" for means that outliers hardly move; "poisson"
        for the means of counts and other numbers of at least 0, which it models on a logarithmic scale, as
        MLPRegressor does; "quantile" for quantiles. The page "Losses" of the documentation defines them.
    huber_delta : float, default 1.0
        Above 0; only of loss "huber": errors up to this size are squared, larger ones are linear.
    quantile : float or sequence of float, default 0.5
        Above 0 and below 1; only of loss "quantile": the quantile to predict. With a sequence of different numbers,
        `predict` returns a column for each; there must be one target then.
    sort_quantiles : bool, default False
        Whether `predict` and `score` sort the quantiles of a row, so that none lies below one of a lower level
        (Chernozhukov, Fernandez-Val and Galichon 2010). Networks are trained, validated and sampled without sorting.
    dropout : float or cdrop.rates.Rate, or a sequence of them, default 0.0
        Probability of dropping a hidden unit in training, at least 0 and below 1, for all hidden layers or for each.
    input_dropout : float or Rate, default 0.0
        The same for the input.
    dropout_kind : str or sequence of str, default "bernoulli"
        "bernoulli", "gaussian", "uniform", "shared", "concrete" or "masksembles", for all hidden layers or for each:
        what dropout does, see `cdrop.Network`. With "concrete" the rates are learned, from `dropout` on;
        ``network_.dropout_`` has them.
    input_dropout_kind : str, default "bernoulli"
        The same for the input, without "concrete".
    members : int, default 8
        Number of masks of "masksembles".
    solver : {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"}, default "adam"
        Update rule. "sgd" has `momentum`, Nesterov's unless `nesterovs_momentum` is False, and none where `momentum` is
        0, all as in MLPRegressor; "momentum" and "nesterov" say which whatever `nesterovs_momentum` is. There is no
        "lbfgs", which has no minibatches.
    alpha : float or Rate, default 0.0001
        L2 penalty, divided by the sum of the minibatch's sample weights (its size without them) as in MLPRegressor;
        with "adamw" its weight decay, not divided.
    max_norm : float, optional
        Largest norm of a hidden unit's incoming weights, at least 1e-150. Default: no limit.
    mask_samples : int, default 1
        Dropout masks for each row of a minibatch, up to 1,024: the loss is the mean over them (multi-sample dropout).
        Above 1 there must be dropout, not of the kind "shared".
    batch_size : int or "auto", default "auto"
        "auto" is ``min(200, n_samples)``.
    learning_rate : {"constant", "invscaling", "adaptive", "step", "cosine", "plateau"}, Schedule or Rate
        How the rate continues from `learning_rate_init`, with every solver:

        - "invscaling": divided by ``(t + 1)**power_t`` after epochs of t rows in all;
        - "adaptive": a fifth of it whenever training would otherwise stop, which it does at 1e-6;
        - "step": a tenth of it after each third of `max_iter` epochs;
        - "cosine": down along half a cosine over `max_iter` epochs;
        - "plateau": a fifth of it after more than ``n_iter_no_change // 2`` epochs without progress of the validation
          loss, or of the training loss where there are no validation rows;
        - an object of `cdrop.schedules` or `cdrop.rates`: as it says. A `Rate` without `steps` changes over the steps
          of `max_iter` epochs.
    learning_rate_init : float, default 0.001
        Learning rate of the first epoch.
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Largest number of epochs.
    shuffle : bool, default True
        Whether to draw a new order of the rows in each epoch.
    random_state : int, RandomState instance or None, default None
        Seed of weights, order, masks and validation split. Same integer, same weights, byte for byte, at any number of
        threads.
    tol : float, default 1e-4
        Progress that counts: of the training loss, or with `early_stopping` of the validation score (see `scoring`).
    verbose : bool, default False
        Show a progress bar with loss and validation score; lines, where there is no terminal or no tqdm.
    warm_start : bool, default False
        Continue in `fit` from where the last call ended, with the state of optimizer and schedule: k fits of
        ``max_iter=1`` are one of ``max_iter=k``, bit for bit (but "step" and "cosine" go by `max_iter`). After a fit
        that had stopped, the next one continues from the weights that were kept, and counts its epochs without
        progress afresh; so does "adaptive" or "plateau", from the first rate. With `early_stopping` it counts afresh,
        too, where the best score was measured on other validation rows. Rates of dropout may change between fits,
        units and activation may not.
    momentum : float or Rate, default 0.9
        At least 0 and below 1; of solvers "sgd", "momentum" and "nesterov".
    nesterovs_momentum : bool, default True
        Only of solver "sgd".
    early_stopping : bool, default False
        Stop when the validation score (see `scoring`) has made no progress, and keep the weights with the best one.
        Where ``scoring=None`` and all validation targets are equal (one row, for example), the score cannot move, and
        the validation loss decides.
    validation_fraction : float, default 0.1
        Share of the rows held out for early stopping where `fit` is given no validation rows.
    scoring : str, callable or None, default None
        Score of the validation rows, higher is better: `validation_scores_` has its values, and early stopping and
        "adaptive" go by it, with `tol` on its scale. As in HistGradientBoostingRegressor:

        - None: `score`, whose scale does not depend on that of the targets;
        - "loss": the negative validation loss;
        - a name in ``sklearn.metrics.get_scorer_names()``, such as "neg_mean_absolute_error";
        - a callable ``scorer(estimator, X, y)`` that returns a number, for example by ``sklearn.metrics.make_scorer``.
          `X` is an array or CSR matrix without names of features. With weights of validation rows, it is also given
          ``sample_weight``, and must take it.

        It is called once before the first step, so that one that fails does so before anything has changed, and
        then after each epoch. NaN and infinity are never progress. An error in a later epoch ends the fit and leaves
        the estimator trained so far. A file (`save`) holds names, not callables.
    beta_1 : float, default 0.9
        Decay of the first moment, of solvers "adam" and "adamw"; above 0 and below 1.
    beta_2 : float, default 0.999
        Decay of the second moment, of solvers "adam" and "adamw"; above 0 and below 1.
    epsilon : float, default 1e-8
        Added to the root of the second moment; of solvers "adagrad", "rmsprop", "adam" and "adamw".
    n_iter_no_change : int, default 10
        Training stops after more epochs than this without progress; infinity for never.
    n_jobs : int, optional
        Number of threads, -1 for one on each CPU. Default: as many as are fast, up to `cdrop.get_num_threads`. Results
        do not depend on it.
    interrupt : {"keep", "raise"}, default "keep"
        What Ctrl-C does after the current step. "keep": `fit` returns with what has been learned, and warns, as
        MLPRegressor does. "raise": it raises KeyboardInterrupt, which ends a search or loop around it: choose this for
        GridSearchCV and cross_validate, where "keep" scores the interrupted fit and continues with the next one. In
        both cases the estimator is fitted, with its best weights where `early_stopping` keeps these.

    Attributes
    ----------
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Only if the features have names.
    network_ : Network
        The trained network.
    n_iter_ : int
        Epochs of the last call of `fit`.
    n_layers_ : int
        Number of layers, with input and output.
    n_outputs_ : int
        Number of targets, or quantiles.
    out_activation_ : str
        "exp" for the Poisson loss, else "identity".
    t_ : int
        Rows trained on, over all epochs.
    loss_ : float
        Training loss of the last epoch, summed over the targets, or quantiles.
    loss_curve_ : list of float
        That of each epoch, over all calls of a warm start.
    best_loss_ : float or None
        Smallest training loss; None with early stopping.
    validation_loss_curve_ : list of float or None
        Loss of the validation rows after each epoch; None where there are none.
    validation_scores_ : list of float or None
        Their score by `scoring`.
    best_validation_score_ : float or None
        Score (by `scoring`) of the weights with the highest score, or with the smallest loss where that decides; with
        early stopping these weights were kept. -inf where no score was a finite number.
    best_validation_loss_ : float or None
        Loss of the same weights.
    coefs_ : list of ndarray
        Copies of the weights, layer by layer. Assigning a list replaces them (checked as by
        ``network_.set_weights``). Assigned before the first fit, they are the initial weights of `partial_fit`, or of
        `fit` with `warm_start`.
    intercepts_ : list of ndarray
        The same of the biases.
    learning_rate_ : float
        Learning rate of the next epoch.

    Raises
    ------
    TypeError, ValueError
        By `fit`, if a parameter is not as above, or a target is negative with the Poisson loss.

    References
    ----------
    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964).

    Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).

    Chernozhukov, Fernandez-Val and Galichon, "Quantile and probability curves without crossing", Econometrica 78
    (2010).

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from cdrop import DropoutMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = DropoutMLPRegressor(dropout=0.1, solver="adamw", random_state=0, early_stopping=True)
    >>> net.fit(scale(X), scale(y)).score(scale(X), scale(y)) > 0.3
    True
    """

    _numeric = True
    # Of estimators that were pickled before there were these parameters.
    loss: str = "squared_error"
    huber_delta: float = 1.0
    quantile: float | Sequence[float] = 0.5
    sort_quantiles: bool = False

    def __init__(
        self,
        hidden_layer_sizes: int | Iterable[int] = (100,),
        activation: str = "relu",
        *,
        loss: str = "squared_error",
        huber_delta: float = 1.0,
        quantile: float | Sequence[float] = 0.5,
        sort_quantiles: bool = False,
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
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            input_dropout=input_dropout,
            dropout_kind=dropout_kind,
            input_dropout_kind=input_dropout_kind,
            members=members,
            solver=solver,
            alpha=alpha,
            max_norm=max_norm,
            mask_samples=mask_samples,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            scoring=scoring,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            n_jobs=n_jobs,
            interrupt=interrupt,
        )
        self.loss = loss
        self.huber_delta = huber_delta
        self.quantile = quantile
        self.sort_quantiles = sort_quantiles

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        callbacks: Sequence[Any] = (),
    ) -> Self:
        """Make one pass over the rows, from where the last call ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        callbacks : sequence of cdrop.callbacks.Callback, default ()
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as above; with ``early_stopping=True``.
        """
        self._partial_fit(X, y, sample_weight, None, callbacks)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> NDArray[Any]: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def predict(
        self, X: Any, return_std: bool = False
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
        """Predict targets, without dropout.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        return_std : bool, default False
            Whether to return the standard deviation of predictions under dropout masks too, that of
            `predict_uncertainty` with its defaults. As in scikit-learn's GaussianProcessRegressor; a Pipeline passes it
            on.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
            Of several quantiles, a column for each. Float32 if trained on it, else float64. With `return_std`, this and
            an array of the same shape and dtype.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or `X` too large for outputs that are finite; with `return_std`, if all dropout
            rates are 0.
        """
        with_std = truth_value("return_std", return_std)
        y = self._uncrossed(np.concatenate(list(self._outputs(X, "labels"))))
        y = _one_column_flat(y)
        return (y, self.predict_uncertainty(X).std) if with_std else y

    def predict_uncertainty(
        self, X: Any, mc_samples: int = 50, *, seed: int | None = None, samples: bool = False
    ) -> RegressionUncertainty:
        """Predict under many masks of dropout, and measure how far the predictions agree.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        mc_samples : int, default 50
            How many masks to draw for each row.
        seed : int, optional
            Of the masks. Default: the network's, so that two calls agree.
        samples : bool, default False
            Whether to return the prediction under each mask too, as the attribute `samples`, of shape
            (mc_samples, n_samples) or (mc_samples, n_samples, n_outputs); it takes the memory of an array of that size.
            ``quantile(q)`` of the result returns quantiles of them.

        Returns
        -------
        cdrop.uncertainty.RegressionUncertainty
            Mean and standard deviation, of the shape that `predict` gives.

        Raises
        ------
        ValueError
            If all dropout rates are 0: all masks would agree, right or wrong. If `X` is too large for outputs that are
            finite.
        MemoryError
            If `samples` need more memory than is free.
        """
        x = self._checked_finite(X)
        result = self.network_.predict_uncertainty(x, mc_samples, seed=seed, samples=samples)
        assert isinstance(result, RegressionUncertainty)
        mean, std = self._finite(result.mean), self._finite(result.std)
        drawn = None if result.samples is None else _one_column_flat(result.samples)
        return RegressionUncertainty(_one_column_flat(mean), _one_column_flat(std), drawn)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return R^2, the mean of those of all targets; with the quantile loss D^2.

        D^2 is the mean over the quantiles of ``1 - loss / loss_of_constant``, where the constant is the quantile of
        `y`: 1 is perfect, and 0 as good as the best constant, as for R^2. Apart from the interpolation of that constant
        it is `sklearn.metrics.d2_pinball_score`.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
            True targets.
        sample_weight : array_like, shape (n_samples,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid.
        """
        predicted = self.predict(X)
        check_unmasked("y", y)
        given = self._label_array("y", y)
        with named("y"):
            given = check_array(given, ensure_2d=False, dtype=None)
        exact = np.dtype(np.float32 if given.dtype == np.float32 else np.float64)
        targets, found = self._numbers("y", given, exact), predicted.reshape(len(predicted), -1)
        levels = self.network_.quantiles
        wanted = (len(found), 1) if self._has_levels() else found.shape
        if targets.shape != wanted:
            expected = wanted[:1] if wanted[1] == 1 else wanted
            raise ValueError(f"y has shape {given.shape}; expected {expected}")
        weight = row_weights("sample_weight", sample_weight, len(predicted))
        if levels is not None:
            return _losses.score(levels, targets.astype(np.float64), found, weight)
        return float(r2_score(targets, found, sample_weight=weight))

    def _has_levels(self) -> bool:
        """Whether the outputs are quantiles of one target, of different levels."""
        return len(set(self.network_.quantiles or ())) > 1

    def _uncrossed(self, quantiles: NDArray[Any]) -> NDArray[Any]:
        """Return sorted quantiles, in the order of their levels, if they are to be sorted."""
        if not truth_value("sort_quantiles", self.sort_quantiles) or not self._has_levels():
            return quantiles
        out = np.empty_like(quantiles)
        out[:, np.argsort(self.network_.quantiles or ())] = np.sort(quantiles, axis=1)
        return out

    def _label_array(self, name: str, y: Any) -> Any:
        """Return targets that were lists or objects as numbers."""
        if isinstance(y, (list, tuple)):
            y = as_array(name, y)
        if isinstance(getattr(y, "dtype", None), np.dtype) and y.dtype == object:
            with named(name):
                y = np.asarray(y).astype(np.float64)
        return y

    def _learn(self, *about: Any) -> None:
        """There are no classes."""

    def _encoded(self, name: str, y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        targets = self._numbers(name, y, dtype)
        return nonnegative(name, targets) if self._loss() == "poisson" else targets

    def _numbers(self, name: str, y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if y.dtype == object:
            with named(name):
                y = y.astype(np.float64)
        return real_numbers(name, y.reshape(len(y), -1), dtype)

    def _decoded(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return the targets that `_encoded` was given."""
        return _one_column_flat(targets)

    def _class_weights(self, *about: Any) -> None:
        return None

    def _loss(self) -> str:
        return choice("loss", self.loss, _LOSSES)

    def _loss_settings(self, width: int) -> dict[str, Any]:
        """Return the network's loss, once all parameters of losses are checked."""
        loss, levels = self._loss(), self._levels()
        delta = finite_number("huber_delta", self.huber_delta, positive=True)
        truth_value("sort_quantiles", self.sort_quantiles)
        own: dict[str, dict[str, Any]] = {
            "huber": {"huber_delta": delta},
            "quantile": {"quantiles": levels if len(levels) > 1 else levels * width},
        }
        return {"loss": loss, **own.get(loss, {})}

    def _levels(self) -> tuple[float, ...]:
        """Return the quantiles to predict, one or several different ones."""
        value = self.quantile
        value = value.tolist() if isinstance(value, np.ndarray) else value
        several = isinstance(value, (list, tuple))
        levels = quantile_levels("quantile", value, len(value) if several else 1)  # type: ignore[arg-type]
        if not levels or len(set(levels)) < len(levels):
            raise ValueError(f"quantile is {value!r}; expected a number, or different numbers")
        return levels

    def _width(self, targets: NDArray[Any]) -> int:
        width, levels = int(targets.shape[1]), self._levels()
        if self._loss() != "quantile" or len(levels) == 1:
            return width
        if width > 1:
            raise ValueError(
                f"quantile is {self.quantile!r} and y has {width} columns; expected one target for several quantiles, "
                "or one quantile for several targets"
            )
        return len(levels)

    def _guess_score(self, *about: Any) -> float:
        return 0.0

    def _enough(self, targets: NDArray[Any]) -> float:
        """Return the mean loss of predictions that are a fifth too small or too large."""
        net, exact = self.network_, targets.astype(np.float64)
        guesses = [
            np.tile(exact, net.units[-1] // exact.shape[1]) * factor for factor in (0.8, 1.2)
        ]
        if net.loss == "poisson":
            guesses = [np.log(np.maximum(guess, np.finfo(float).tiny)) for guess in guesses]
        return float(np.mean([net._mean_loss(guess, None, exact, None) for guess in guesses]))

    def _check_remembered(self) -> None:
        super()._check_remembered()
        if not _losses.is_regression(self.network_.loss):
            raise ValueError(
                f"the network's loss is {self.network_.loss!r}; expected one of numbers"
            )

    def _strata(self, targets: NDArray[Any]) -> None:
        return None

    def __sklearn_tags__(self) -> Any:
        """Several outputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _one_column_flat(outputs: NDArray[Any]) -> NDArray[Any]:
    return outputs[..., 0] if outputs.shape[-1] == 1 else outputs
