"""The classifier."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from cdrop import _kernels
from cdrop._checks import (
    class_probabilities,
    finite_number,
    row_weights,
    smoothing_share,
    truth_value,
)
from cdrop._labels import label_array, same_type, sorted_numbers
from cdrop.estimators.base import BaseDropoutMLP
from cdrop.estimators.scoring import Scoring
from cdrop.network import Network
from cdrop.rates import Rate
from cdrop.schedules import Schedule
from cdrop.uncertainty import ClassificationUncertainty

__all__ = ["DropoutMLPClassifier"]

_TWO = 2  # classes have one output


def _distinct(name: str, values: Any) -> NDArray[Any]:
    """Return the distinct labels of a vector, sorted."""
    array = label_array(name, values)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or not len(array):
        raise ValueError(f"{name} is {values!r}; expected one dimension, at least 1 class")
    same_type([(name, array)])
    return np.unique(array)


class DropoutMLPClassifier(ClassifierMixin, BaseDropoutMLP):  # type: ignore[misc]
    """Multilayer perceptron with dropout, for classes or several labels at once.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer.
    activation : {"relu", "logistic", "tanh", "identity", "leaky_relu"}, default "relu"
        Of the hidden layers.
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
        0, all as in MLPClassifier; "momentum" and "nesterov" say which whatever `nesterovs_momentum` is. There is no
        "lbfgs", which has no minibatches.
    alpha : float or Rate, default 0.0001
        L2 penalty, divided by the sum of the minibatch's sample weights (its size without them) as in MLPClassifier;
        with "adamw" its weight decay, not divided.
    max_norm : float, optional
        Largest norm of a hidden unit's incoming weights, at least 1e-150. Default: no limit.
    mask_samples : int, default 1
        Dropout masks for each row of a minibatch, up to 1,024: the loss is the mean over them (multi-sample dropout).
        Above 1 there must be dropout, not of the kind "shared".
    consistency : float, default 0.0
        With ``mask_samples=2``: weight of the divergence of the two predictions of each row, which the training loss
        then has (R-Drop). See `cdrop.Network.fit`.
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
    class_weight : dict, "balanced" or list of dict, optional
        Weight of each class, 1 for those that are not named, multiplied with the sample weights. If there are several
        labels: a list with a dict of the weights of 0 and 1 for each label, which are multiplied. A name that is no
        class is an error, unless all classes have a weight. "balanced" gives all classes the same sum over the rows
        whose sample weight is not 0, before sample weights. Validation rows are not weighted by class.
    soft_labels : bool, default False
        Whether `y` has probabilities of the classes (soft labels), shape (n_samples, n_classes), rows that sum to 1.
        `classes_` are then the numbers of the columns, or the sorted `classes` of `partial_fit`. Scores and strata
        count the most probable class, which is also what a scorer of `scoring` gets as `y`. `class_weight` must be
        None.
    label_smoothing : float, default 0.0
        At least 0 and below 1: share of the target that is spread evenly over the classes in training; for several
        labels, over yes and no (Szegedy et al. 2016, section 7). Scores and the validation loss do not smooth.
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
        Share of the rows held out for early stopping where `fit` is given no validation rows; stratified by class,
        but not with several labels, nor where one of three or more classes has too few rows.
    scoring : str, callable or None, default "loss"
        Score of the validation rows, higher is better: `validation_scores_` has its values, and early stopping and
        "adaptive" go by it, with `tol` on its scale. As in HistGradientBoostingClassifier:

        - "loss": the negative validation loss. It moves with every epoch, where the accuracy stays for many epochs if
          classes are unequal or validation rows few;
        - None: `score`, the accuracy, as in MLPClassifier;
        - a name in ``sklearn.metrics.get_scorer_names()``, such as "average_precision" or "neg_log_loss";
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
        MLPClassifier does. "raise": it raises KeyboardInterrupt, which ends a search or loop around it: choose this for
        GridSearchCV and cross_validate, where "keep" scores the interrupted fit and continues with the next one. In
        both cases the estimator is fitted, with its best weights where `early_stopping` keeps these.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        Class labels, sorted; with several labels, the numbers of their columns.
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
        Number of outputs, 1 for two classes.
    out_activation_ : str
        "softmax" or "logistic".
    t_ : int
        Rows trained on, over all epochs.
    loss_ : float
        Training loss of the last epoch.
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
        By `fit`, if a parameter is not as above.
    KeyboardInterrupt
        By `fit` and `partial_fit`, after Ctrl-C with ``interrupt="raise"``, and after a second Ctrl-C in any case.

    Warns
    -----
    UserWarning
        By `fit` and `partial_fit`: if Ctrl-C ended it. By `fit`: if most values of `X_val` are outside the range of the
        training rows in a quarter of the features or more, as of rows that a Pipeline has not transformed.
    ConvergenceWarning
        By `fit`: if `max_iter` was reached; if training diverged and the best weights were kept; if it stopped although
        the loss never fell by more than `tol` after the first epoch, or the best validation score is not above that of
        the best constant prediction.

    Notes
    -----
    Classes are equal by value and kind. Numbers are one kind: integers of all types are compared exactly, and 1, 1.0
    and True are one class. Text is another: text where the classes are numbers is a TypeError. Arrays of objects, lists
    and nullable columns of pandas are taken value by value; a missing label is an error.

    What differs from MLPClassifier: early stopping goes by the validation loss unless ``scoring=None``; the solvers
    and what is said of them above; initial weights (Glorot's too, but normal and with zero biases, from cdrop's own
    streams); ``momentum=1`` and ``beta_1=0`` are refused; a warm start
    keeps the optimizer's state, and needs the same network; early stopping stratifies by all classes; both
    probabilities of two classes come from the log-odds; rows whose outputs overflow are an error; `coefs_` and
    `intercepts_` are copies. Rows of weight 0 count as left out.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014).

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from cdrop import DropoutMLPClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> net = DropoutMLPClassifier(dropout=0.3, early_stopping=True, tol=0.001, random_state=0)
    >>> model = make_pipeline(StandardScaler(), net).fit(X[:400], y[:400])
    >>> model.score(X[400:], y[400:]) > 0.9
    True
    """

    # Of estimators that were pickled before there were these parameters.
    soft_labels: bool = False
    label_smoothing: float = 0.0
    _remembered = (*BaseDropoutMLP._remembered, "classes_", "_multilabel")

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
        consistency: float = 0.0,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule | Rate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        class_weight: Any = None,
        soft_labels: bool = False,
        label_smoothing: float = 0.0,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float | Rate = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        scoring: Scoring = "loss",
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
        self.consistency = consistency
        self.class_weight = class_weight
        self.soft_labels = soft_labels
        self.label_smoothing = label_smoothing

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        *,
        callbacks: Sequence[Any] = (),
    ) -> Self:
        """Make one pass over the rows, from where the last call ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`; `y` need not have all classes.
        classes : array_like or set, optional
            All classes there will be; needed in the first call, except with `soft_labels`. For several labels: the
            numbers of their columns, or 0 and 1.
        callbacks : sequence of cdrop.callbacks.Callback, default ()
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as above; with ``early_stopping=True`` or ``class_weight="balanced"``,
            which would need all rows at once.
        """
        first, given = "network_" not in vars(self), None
        if classes is not None:
            given = _distinct("classes", classes)
        elif first and not self._are_soft():
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if not first and given is not None:
            self._check_same_classes(given)
        self._partial_fit(X, y, sample_weight, given, callbacks)
        return self

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy; with several labels per row, all must be right.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        y : array_like, shape (n_samples,) or (n_samples, n_labels)
            True labels. A class that was not in the training data counts as wrongly predicted. With `soft_labels`,
            probabilities of the classes, of which the most probable one counts, or labels.
        sample_weight : array_like, shape (n_samples,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or if `y` has text and the classes are numbers, or the reverse.
        """
        predicted, labels = self._predicted(X), self._checked_labels("y", y)
        weight = row_weights("sample_weight", sample_weight, len(predicted))
        if labels.ndim == 2 and self._are_soft():
            self._check_shape("y", labels)
            labels = self._most_probable(self._encoded("y", labels, np.dtype(np.float64)))
        elif self._multilabel or labels.ndim > 1:
            self._check_shape("y", labels)
        else:
            labels = sorted_numbers("y", labels, self.classes_)
        return float(accuracy_score(labels, predicted, sample_weight=weight))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes, without dropout.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,), or (n_samples, n_labels) of 0 and 1 if there are several labels

        Raises
        ------
        TypeError, ValueError
            If `X` is invalid, or too large for outputs that are finite.
        """
        numbers = self._predicted(X)
        return numbers if self._multilabel else self.classes_[numbers]

    def _predicted(self, X: Any) -> NDArray[Any]:
        """Predict the numbers of classes, or columns of 0 and 1."""
        self._check_fitted()
        several = not self._multilabel and len(self.classes_) > 2
        pieces = [z.argmax(axis=1) if several else z > 0 for z in self._outputs(X)]
        numbers = np.concatenate(pieces).astype(np.int64, copy=False)
        if self._multilabel or several:
            return numbers
        first: NDArray[Any] = np.minimum(numbers[:, 0], len(self.classes_) - 1)
        return first  # there may be one class

    def predict_proba(self, X: Any, mc_samples: int | None = None) -> NDArray[Any]:
        """Predict probabilities, without dropout or as the mean over many masks of it.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        mc_samples : int, optional
            How many masks to average over. Default: no dropout.

        Returns
        -------
        ndarray, shape (n_samples, n_classes) or (n_samples, n_labels)
            Float32 if trained on it, else float64; columns as in `classes_`. Both columns of two classes are computed
            from the log-odds, so that small probabilities keep their digits.

        Raises
        ------
        TypeError, ValueError
            If `X` is invalid, or too large for outputs that are finite; with `mc_samples`, if all dropout rates are 0.
        """
        self._check_fitted()
        if mc_samples is not None:
            x, net = self._checked_finite(X), self._sampled_network()
            return self._by_class(self._finite(net.predict_proba(x, mc_samples)))
        if self._loss() == "softmax_cross_entropy":
            x = self._checked(X)
            return self._finite(self.network_.predict_proba(x))
        return self._by_class(np.concatenate([self._sigmoids(z) for z in self._outputs(X)]))

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Predict the logarithms of the probabilities, without dropout.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes) or (n_samples, n_labels)
            From the network's outputs, so that they are finite where the probability itself rounds to 0.

        Raises
        ------
        TypeError, ValueError
            If `X` is invalid, or too large for outputs that are finite.
        """
        return np.concatenate([self._logarithms(z) for z in self._outputs(X)])

    def _logarithms(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return log-softmax of outputs, or the logarithms of sigmoids."""
        zero = outputs.dtype.type(0)
        with np.errstate(over="ignore", under="ignore"):
            if self._loss() == "softmax_cross_entropy":
                below = outputs - outputs.max(axis=1, keepdims=True)
                logarithms: NDArray[Any] = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
                return logarithms
            positive: NDArray[Any] = -np.logaddexp(zero, -outputs)
            if self._multilabel:
                return positive
            if len(self.classes_) == 1:
                return np.zeros_like(outputs)
            return np.hstack([-np.logaddexp(zero, outputs), positive])

    def predict_uncertainty(
        self, X: Any, mc_samples: int = 50, *, seed: int | None = None, samples: bool = False
    ) -> ClassificationUncertainty:
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
            (mc_samples, n_samples, n_classes); it takes the memory of an array of that size. ``quantile(q)`` of the
            result returns quantiles of them.

        Returns
        -------
        cdrop.uncertainty.ClassificationUncertainty
            Mean probabilities as `predict_proba` gives them; entropies and mutual information in nats, shape
            (n_samples,), or (n_samples, n_labels) if there are several labels.

        Raises
        ------
        ValueError
            If all dropout rates are 0: all masks would agree, right or wrong. If `X` is too large for outputs that are
            finite.
        MemoryError
            If `samples` need more memory than is free.
        """
        x = self._checked_finite(X)
        net = self._sampled_network()
        result = net.predict_uncertainty(x, mc_samples, seed=seed, samples=samples)
        names = [field.name for field in dataclasses.fields(result) if field.name != "samples"]
        parts = {name: self._finite(getattr(result, name)) for name in names}
        if not self._multilabel and len(self.classes_) <= 2:
            parts = {name: array[:, 1] for name, array in parts.items()}
            parts["mean"] = self._by_class(result.mean)
        if not self._multilabel and len(self.classes_) == 1:  # nothing is uncertain
            parts |= {name: np.zeros_like(parts[name]) for name in names if name != "mean"}
        drawn = None if result.samples is None else self._by_class(result.samples)
        return ClassificationUncertainty(**parts, samples=drawn)

    def _by_class(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """Return a column of 1 where there is one class, and the columns as they are otherwise."""
        one = not self._multilabel and len(self.classes_) == 1
        return np.ones_like(probabilities[..., 1:]) if one else probabilities

    def _sigmoids(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return the engine's probabilities of each label, or of both of two classes: 1 - p would lose digits."""
        signs = np.array([[1.0]] if self._multilabel else [[-1.0, 1.0]], outputs.dtype)
        threads = self.network_.threads or 0
        probabilities: NDArray[Any] = _kernels.masked_gemm(
            outputs.reshape(-1, 1), signs, None, None, 1.0, "sigmoid", threads
        )
        return probabilities.reshape(outputs.shape) if self._multilabel else probabilities

    def _sampled_network(self) -> Network:
        """Return the network, or for two classes one with an output for each: the log-odds and their negative."""
        net = self.network_
        if self._multilabel or len(self.classes_) > 2:
            return net
        both = Network(
            **{**net._settings_now(), "units": [*net.units[:-1], 2]}, threads=net.threads
        )
        coefs, intercepts = net.coefs_, net.intercepts_
        coefs[-1] = np.hstack([-coefs[-1], coefs[-1]])
        intercepts[-1] = np.hstack([-intercepts[-1], intercepts[-1]])
        both.set_weights(coefs, intercepts)
        both._set_background(net._background)
        return both

    def _label_array(self, name: str, y: Any) -> Any:
        return label_array(name, y)

    def _learn(
        self, y: NDArray[Any], fresh: bool, partial: bool, classes: NDArray[Any] | None
    ) -> None:
        """Find the classes, or compare with those that are known."""
        if self._are_soft():
            if fresh:
                self._learn_columns(y, classes)
            self._check_shape("y", y)
            return
        if type_of_target(y) == "continuous-multioutput":
            raise ValueError(
                f"Unknown label type: y has shape {y.shape} and numbers with fractions; expected class labels, or with "
                "soft_labels=True the probabilities of the classes"
            )
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns with several classes; expected labels, or columns of 0 and 1"
            )
        multilabel = kind == "multilabel-indicator"
        found = np.arange(y.shape[1]) if multilabel else np.unique(y)
        if fresh:
            self.classes_ = found if multilabel or classes is None else classes
            self._multilabel = multilabel
            if multilabel and classes is not None:
                self._check_same_classes(classes)
        self._check_shape("y", y)
        if not (fresh or partial or multilabel or self._are_the_classes("y", found)):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {found}"
            )

    def _are_soft(self) -> bool:
        return truth_value("soft_labels", self.soft_labels)

    def _learn_columns(self, y: NDArray[Any], classes: NDArray[Any] | None) -> None:
        """Take the columns of soft labels for the classes."""
        if y.ndim != 2 or y.shape[1] < _TWO:
            raise ValueError(
                f"y has shape {y.shape}; expected (n_samples, n_classes), the probabilities of at least 2 classes, or "
                "soft_labels=False"
            )
        if classes is not None and len(classes) != y.shape[1]:
            raise ValueError(
                f"classes is {classes}; expected {y.shape[1]} classes, one for each column of y"
            )
        self.classes_ = np.arange(y.shape[1]) if classes is None else classes
        self._multilabel = False

    def _are_the_classes(self, name: str, found: NDArray[Any]) -> bool:
        """Whether distinct labels are the known classes, all of them."""
        places = sorted_numbers(name, found, self.classes_)
        return len(found) == len(self.classes_) and bool((places >= 0).all())

    def _check_same_classes(self, given: NDArray[Any]) -> None:
        """Raise unless `classes` of `partial_fit` are the known ones; those of each of several labels are 0 and 1."""
        of_each = self._multilabel and np.array_equal(given, [0, 1])
        if not (of_each or self._are_the_classes("classes", given)):
            or_of_each = ", or [0 1]" if self._multilabel else ""
            raise ValueError(f"classes is {given}; expected {self.classes_}{or_of_each}")

    def _check_shape(self, name: str, y: NDArray[Any]) -> None:
        """Raise unless labels have the shape of those of the first fit."""
        columns, soft = len(self.classes_), not self._multilabel and self._are_soft()
        fits = y.shape[1:] == ((columns,) if self._multilabel or soft else ())
        if not fits:
            expected = f"{columns} columns of 0 and 1" if self._multilabel else "one class a row"
            expected = f"{columns} columns of probabilities" if soft else expected
            raise ValueError(
                f"{name} has shape {y.shape}; expected {expected}, as in the first fit"
            )

    def _encoded(self, name: str, y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        self._check_shape(name, y)
        if self._are_soft() and not self._multilabel:
            soft = class_probabilities(name, y, (len(y), len(self.classes_)), dtype)
            return soft if soft.shape[1] > _TWO else soft[:, 1:].copy()
        if self._multilabel:
            if not np.isin(y, (0, 1)).all():
                raise ValueError(f"{name} has labels other than 0 and 1; expected columns of these")
            return y.astype(dtype)
        numbers = sorted_numbers(name, y, self.classes_)
        if (numbers < 0).any():
            raise ValueError(
                f"{name} has the classes {np.unique(y)}; expected only {self.classes_}"
            )
        return numbers if len(self.classes_) > 2 else numbers[:, None].astype(dtype)

    def _decoded(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return the labels that `_encoded` was given; of soft labels, the most probable ones."""
        if self._are_soft() and not self._multilabel:
            most_probable: NDArray[Any] = self.classes_[self._most_probable(targets)]
            return most_probable
        if self._multilabel:
            return targets.astype(np.int64)
        numbers = targets if targets.ndim == 1 else targets[:, 0].astype(np.int64)
        labels: NDArray[Any] = self.classes_[numbers]
        return labels

    def _class_weights(
        self, y: NDArray[Any], weight: NDArray[np.float64] | None, partial: bool
    ) -> NDArray[np.float64] | None:
        """Return each row's weight by its class; "balanced" does not count rows of weight 0."""
        given = self.class_weight
        if given is None:
            return None
        if self._are_soft():
            raise ValueError(
                f"class_weight is {given!r}; expected None with soft_labels=True: weight the rows by sample_weight"
            )
        if isinstance(given, str) and given == "balanced":
            if partial:
                raise ValueError(
                    "class_weight='balanced' needs all rows at once; expected a dict for partial_fit"
                )
            counted = None if weight is None else np.flatnonzero(weight)
            return np.asarray(compute_sample_weight(given, y, indices=counted), np.float64)
        if not self._multilabel:
            if not isinstance(given, Mapping):
                raise _wrong_class_weight(given, "a dict of weights by class")
            return _weights_by_class("class_weight", given, y, self.classes_)
        labels = y.shape[1]
        fits = isinstance(given, (list, tuple)) and len(given) == labels
        if not fits or not all(isinstance(each, Mapping) for each in given):
            raise _wrong_class_weight(given, f"a list of {labels} dicts, one for each label,")
        zero_one, product = np.array([0, 1]), np.ones(len(y))
        for k, each in enumerate(given):
            product *= _weights_by_class(f"class_weight[{k}]", each, y[:, k], zero_one)
        return product

    def _check_remembered(self) -> None:
        super()._check_remembered()
        truth_value("_multilabel", self._multilabel)
        if not isinstance(self.classes_, np.ndarray):
            raise TypeError(f"classes_ is {self.classes_!r}; expected an array")
        net, classes = self.network_, _distinct("classes_", self.classes_)
        outputs = len(classes) if self._multilabel or len(classes) > 2 else 1
        fits = (self._loss(), outputs) == (net.loss, net.units[-1])
        if not fits or not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes_ is {self.classes_!r}; that does not fit the network")

    def _loss(self) -> str:
        several = not self._multilabel and len(self.classes_) > 2
        return "softmax_cross_entropy" if several else "sigmoid_cross_entropy"

    def _loss_settings(self, width: int) -> dict[str, Any]:
        share = smoothing_share("label_smoothing", self.label_smoothing)
        return {"loss": self._loss(), "label_smoothing": share}

    def _most_probable(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return encoded soft labels as the numbers of their most probable classes, and labels as they are."""
        if not self._are_soft() or self._multilabel:
            return targets
        numbers = targets.argmax(axis=1) if targets.shape[1] > 1 else targets[:, 0] > 0.5
        return numbers.astype(np.int64)

    def _all_equal(self, targets: NDArray[Any], weight: NDArray[np.float64] | None) -> bool:
        return super()._all_equal(self._most_probable(targets), weight)

    def _width(self, targets: NDArray[Any]) -> int:
        return len(self.classes_) if targets.ndim == 1 else targets.shape[1]

    def _guess_score(self, targets: NDArray[Any], weight: NDArray[np.float64] | None) -> float:
        """Return the share of the most frequent class, or row of labels."""
        _, places = np.unique(self._most_probable(targets), axis=0, return_inverse=True)
        counts = np.bincount(places.ravel(), weight)
        return float(counts.max() / counts.sum())

    def _enough(self, targets: NDArray[Any]) -> float:
        """Return infinity: a single class is always predicted."""
        return math.inf

    def _strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        if self._multilabel:
            return None
        if self._are_soft():
            return self._most_probable(targets)
        return targets if targets.ndim == 1 else targets.astype(bool)

    def __sklearn_tags__(self) -> Any:
        """Several labels are welcome."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _wrong_class_weight(value: Any, expected: str) -> ValueError:
    return ValueError(f"class_weight is {value!r}; expected {expected} or 'balanced'")


def _weights_by_class(
    name: str, weights: Mapping[Any, Any], y: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the weight of each row's class: 1 where a class has none.

    Names that are not classes are an error, unless all classes have a weight: then `y` may be a part of a larger set.
    """
    by_class = np.ones(len(classes))
    if weights:
        numbers = [finite_number(f"{name}[{key!r}]", value) for key, value in weights.items()]
        keys = label_array(name, list(weights))
        if keys.ndim != 1:
            raise TypeError(f"{name} is {weights!r}; expected a dict of weights by class")
        places = sorted_numbers(name, keys, classes)
        by_class[places[places >= 0]] = np.array(numbers)[places >= 0]
        if (places < 0).any() and (places >= 0).sum() < len(classes):
            unknown = [key for key, place in zip(weights, places, strict=True) if place < 0]
            raise ValueError(
                f"{name} has weights for {unknown}, which are no classes; expected classes among {classes}"
            )
    return by_class[sorted_numbers("y", y, classes)]
