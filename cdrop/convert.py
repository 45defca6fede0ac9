"""Conversion to ONNX, whose files run without Python or cdrop, and from scikit-learn.

Needs onnx, ``pip install 'cdrop[onnx]'``, or scikit-learn, ``pip install 'cdrop[sklearn]'``.
"""

from __future__ import annotations

import copy
import math
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop._files import write_atomically
from cdrop._labels import are_whole
from cdrop._losses import is_regression
from cdrop._pipelines import convert_pipeline, register
from cdrop._version import __version__
from cdrop.network import Network

__all__ = ["from_sklearn", "register_converters", "to_onnx"]

# Pinned, so that a file runs wherever these are known, however new the onnx that writes it: since 2020.
_OPSET = 13
_IR_VERSION = 7
_NODES = {"relu": "Relu", "leaky_relu": "LeakyRelu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_LEAK = 0.01  # CDROP_LEAK of cdrop.h
_BINARY = 2


def to_onnx(model: Any, path: str | os.PathLike[str] | None = None, *, X: Any = None) -> Any:
    """Convert a network, a fitted estimator or a whole Pipeline to an ONNX model with the same predictions.

    Parameters
    ----------
    model : Network, fitted estimator of cdrop, or fitted model of scikit-learn that contains one
        Such as a Pipeline or a search.
    path : path, optional
        Where to write it too, whole or not at all.
    X : array_like or DataFrame, optional
        Rows as the model of scikit-learn takes them, of which only the types and the names of the columns count. Needed
        for a DataFrame, whose columns become one input each. Default: one input ``X`` of float32.

    Returns
    -------
    onnx.ModelProto
        Operator set 13. Its input is ``X``, float32, shape (n, units[0]) for any n. Its outputs are those of the loss:

        - softmax cross-entropy: ``label``, int64, shape (n,), and ``probabilities``, float32, shape (n, units[-1]);
        - sigmoid cross-entropy: ``label``, 0 or 1, int64, and ``probabilities``, float32, both of shape (n, units[-1]);
        - losses of numbers: ``output``, float32, shape (n, units[-1]), as `predict` returns it: means with the Poisson
          loss, and sorted quantiles where a regressor has ``sort_quantiles=True``.

        A classifier's labels are its classes, int64 or strings, one a row; ``probabilities`` has a column for each.
        Labels that are floats become int64. A classifier of several labels at once keeps its 0 and 1. A model of
        scikit-learn has the same outputs, or the one output ``variable`` if it is a regressor; operator set 17.

    Raises
    ------
    ImportError
        If onnx is not installed; for a model of scikit-learn, if skl2onnx is not.
    TypeError
        If `model` is of another kind, or its classes are neither integers nor strings.
    ValueError
        If a weight is not finite in float32, if there is only one class, or if a class is an integer above int64's;
        if `X` is None and the model selects columns by name.
    OSError
        If the file cannot be written; what was there before is still there.

    Notes
    -----
    A network of float64 becomes one of float32, which every runtime has: probabilities move in their seventh digit.
    Nothing of dropout is left: with ``scaling="test"`` the weights are multiplied by the keep probability. The
    background of a network is in its weights already.

    References
    ----------
    ONNX operators, https://onnx.ai/onnx/operators/: Gemm, Relu, LeakyRelu, Tanh, Sigmoid, Softmax, ArgMax, Gather.

    Examples
    --------
    >>> from cdrop import Network
    >>> model = to_onnx(Network([4, 8, 3]), "model.onnx")
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    onnx = _onnx()
    if _is_sklearn(model):
        made = convert_pipeline(model, X)
    else:
        if X is not None:
            raise TypeError(f"X is {type(X).__name__}; expected None for a {type(model).__name__}")
        made = _standing_alone(onnx, model)
    onnx.checker.check_model(made, full_check=True)
    if path is not None:
        write_atomically(path, lambda stream: stream.write(made.SerializeToString()))
    return made


def register_converters() -> None:
    """Register the estimators with skl2onnx, so that ``skl2onnx.to_onnx`` converts models that contain them.

    `to_onnx` does so by itself.

    Raises
    ------
    ImportError
        If skl2onnx or scikit-learn is not installed.

    Examples
    --------
    >>> register_converters()  # doctest: +SKIP
    >>> skl2onnx.to_onnx(pipeline, X[:1])  # doctest: +SKIP
    """
    register()


def _is_sklearn(model: Any) -> bool:
    """Return whether a model is one of scikit-learn, with whatever it contains, and not one of cdrop."""
    if isinstance(model, type) or isinstance(getattr(model, "network_", None), Network):
        return False
    ours = type(model).__module__.startswith("cdrop.")
    return not ours and hasattr(model, "get_params") and hasattr(model, "fit")


def graph_of(model: Any) -> tuple[_Graph, list[_Output]]:
    """Return nodes and constants of a network or an estimator, from the input ``X``, and what its outputs are."""
    net, classes = _network_of(model)
    graph = _Graph(_onnx(), [], [])
    last = graph.outputs(net)
    if getattr(model, "sort_quantiles", False):
        last = graph.sorted_by_level(last, net)
    return graph, graph.answers(last, net, classes)


def _standing_alone(onnx: Any, model: Any) -> Any:
    graph, outputs = graph_of(model)
    net, _ = _network_of(model)
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "cdrop",
            [_described(onnx, "X", np.float32, net.units[0])],
            [_described(onnx, *output) for output in outputs],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="cdrop",
        producer_version=__version__,
        doc_string=repr(net),
    )


def _network_of(model: Any) -> tuple[Network, NDArray[Any] | None]:
    """Return a model's network, and the classes its labels stand for."""
    net = model if isinstance(model, Network) else getattr(model, "network_", None)
    if not isinstance(net, Network):
        raise TypeError(
            f"model is {model!r}; expected a Network, a fitted estimator of cdrop, or a model of scikit-learn"
        )
    classes = getattr(model, "classes_", None)
    if classes is None or getattr(model, "_multilabel", False):
        return net, None
    classes = np.asarray(classes)
    if len(classes) == 1:
        raise ValueError(f"classes_ is {classes!r}; expected at least two classes")
    return net, _labels(classes)


def _labels(classes: NDArray[Any]) -> NDArray[Any]:
    """Return classes as int64 or text, which are what ONNX holds."""
    if classes.dtype.kind in "iub" or (classes.dtype.kind == "f" and are_whole(classes)):
        if not -(2**63) <= int(classes.min()) <= int(classes.max()) < 2**63:
            raise ValueError(
                f"classes_ is {classes!r}; expected integers below 2**63, which ONNX's int64 holds, or text"
            )
        return classes.astype(np.int64)
    if not all(isinstance(name, str) for name in classes):
        raise TypeError(
            f"classes_ is {classes!r}; expected integers or strings, which ONNX holds: convert the labels with "
            "str() before fit"
        )
    texts = [str.__str__(name) for name in classes]
    if any(text.encode(errors="replace").decode() != text or "\0" in text for text in texts):
        raise ValueError(
            f"classes_ is {classes!r}; expected text that UTF-8 holds, without NUL characters"
        )
    return np.array(texts, object)


def _folded(net: Network) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return weights and biases with the classic scaling in them, as float32."""
    layers = []
    scales = net._prediction_scales()
    for i, (weight, bias, scale) in enumerate(
        zip(net.coefs_, net.intercepts_, scales, strict=True)
    ):
        with np.errstate(over="ignore"):
            layer = (weight * np.float64(scale)).astype(np.float32), bias.astype(np.float32)
        if not all(np.isfinite(part).all() for part in layer):
            raise ValueError(
                f"the weights or biases of layer {i} are not finite in float32, which ONNX gets"
            )
        layers.append(layer)
    return layers


class _Output(NamedTuple):
    """An output's name and dtype, and its columns, or None for a vector."""

    name: str
    dtype: Any
    columns: int | None


class _Graph(NamedTuple):
    """Nodes and constants as they come; a method adds some and returns the name of what they compute."""

    onnx: Any
    nodes: list[Any]
    constants: list[Any]
    opset: int = _OPSET

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an array."""
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def outputs(self, net: Network) -> str:
        """Add all layers."""
        last, h = len(net.units) - 2, "X"
        for i, (weight, bias) in enumerate(_folded(net)):
            w, b = self.constant(f"weight.{i}", weight), self.constant(f"bias.{i}", bias)
            plain = i == last or net.activation == "identity"
            h = self.add("Gemm", [h, w, b], f"layer.{i}")
            if not plain:
                slope = {"alpha": _LEAK} if net.activation == "leaky_relu" else {}
                h = self.add(_NODES[net.activation], [h], f"active.{i}", **slope)
        return h

    def answers(self, outputs: str, net: Network, classes: NDArray[Any] | None) -> list[_Output]:
        """Add what the loss makes of the outputs."""
        width = net.units[-1]
        if is_regression(net.loss):
            self.add("Exp" if net.loss == "poisson" else "Identity", [outputs], "output")
            return [_Output("output", np.float32, width)]
        if net.loss == "softmax_cross_entropy":
            self.add("Softmax", [outputs], "probabilities", axis=1)
            number = self.add("ArgMax", [outputs], "number", axis=1, keepdims=0)
            columns = None
        elif classes is None:
            self.add("Sigmoid", [outputs], "probabilities")
            number, columns = self.positive(outputs), width
        else:
            # 1 - p would lose the digits of a p near 1.
            opposite = self.add("Neg", [outputs], "opposite")
            both = self.add("Concat", [opposite, outputs], "both", axis=1)
            self.add("Sigmoid", [both], "probabilities")
            flat = self.add("Squeeze", [self.positive(outputs), self.axis()], "number")
            number, width, columns = flat, _BINARY, None
        if classes is None:
            self.add("Identity", [number], "label")
        else:
            self.add("Gather", [self.constant("classes", classes), number], "label")
        kind = np.int64 if classes is None else classes.dtype
        return [_Output("label", kind, columns), _Output("probabilities", np.float32, width)]

    def sorted_by_level(self, outputs: str, net: Network) -> str:
        """Add what sorts quantiles of one target, and puts them in the order of their levels."""
        levels = net.quantiles or ()
        if len(set(levels)) < 2:
            return outputs
        count = self.constant("count", np.array([len(levels)]))
        self.nodes.append(
            self.onnx.helper.make_node("TopK", [outputs, count], ["ascending", "places"], largest=0)
        )
        ranks = self.constant("ranks", np.argsort(np.argsort(levels)))
        return self.add("Gather", ["ascending", ranks], "by_level", axis=1)

    def positive(self, outputs: str) -> str:
        """Add 1 where an output is above 0, and 0 elsewhere, as int64."""
        zero = self.constant("zero", np.zeros((), np.float32))
        above = self.add("Greater", [outputs, zero], "above")
        return self.add("Cast", [above], "positive", to=self.onnx.TensorProto.INT64)

    def axis(self) -> str:
        """Add the number of the axis that a single column has."""
        return self.constant("axis", np.array([1]))


def _described(onnx: Any, name: str, dtype: Any, columns: int | None) -> Any:
    """Describe an input or output of any number of rows."""
    is_text = np.dtype(dtype) == object
    kind = (
        onnx.TensorProto.STRING
        if is_text
        else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )
    return onnx.helper.make_tensor_value_info(
        name, kind, ["n"] if columns is None else ["n", columns]
    )


def _onnx() -> Any:
    try:
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError("to_onnx needs onnx: pip install 'cdrop[onnx]'", name="onnx") from error
    return onnx


def from_sklearn(model: Any) -> Any:
    """Convert a fitted perceptron of scikit-learn to an estimator with the same predictions, for further training.

    Parameters
    ----------
    model : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted. It is not changed.

    Returns
    -------
    DropoutMLPClassifier or DropoutMLPRegressor
        With the same parameters, and no dropout. Solver "lbfgs", which cdrop lacks, becomes "adam". Weights are of the
        same dtype and bits; a binary classifier has one output in both libraries. Training continues from them with
        ``partial_fit`` or ``warm_start=True``; the optimizer starts with a fresh state.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    TypeError
        If `model` is neither.
    ValueError
        If `model` is not fitted.

    Examples
    --------
    >>> import warnings
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> with warnings.catch_warnings(action="ignore"):  # of too few epochs
    ...     theirs = MLPClassifier(max_iter=20, random_state=1).fit(X, y)
    >>> ours = from_sklearn(theirs)
    >>> bool((ours.predict(X) == theirs.predict(X)).all())
    True
    """
    # First, because without scikit-learn this import says what to install.
    from cdrop import estimators

    classifier, regressor = estimators.DropoutMLPClassifier, estimators.DropoutMLPRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(model, (MLPClassifier, MLPRegressor)):
        raise TypeError(f"model is {model!r}; expected an MLPClassifier or MLPRegressor")
    check_is_fitted(model, "coefs_")
    kind: Any = classifier if isinstance(model, MLPClassifier) else regressor
    estimator = kind(**_shared_parameters(model, kind))
    if isinstance(model, MLPClassifier):
        estimator.classes_ = model.classes_.copy()
        estimator._multilabel = model._label_binarizer.y_type_.startswith("multilabel")
    _take_over(estimator, model)
    return estimator


def _shared_parameters(model: Any, kind: Any) -> dict[str, Any]:
    known = kind._get_param_names()
    parameters = {
        name: value for name, value in model.get_params(deep=False).items() if name in known
    }
    if isinstance(parameters["random_state"], np.random.RandomState):  # both would draw from it
        parameters["random_state"] = copy.deepcopy(parameters["random_state"])
    if parameters["solver"] == "lbfgs":
        parameters["solver"] = "adam"
    if "scoring" in known and "class_weight" in known:
        parameters["scoring"] = None  # MLPClassifier goes by the accuracy
    return parameters


def _take_over(estimator: Any, model: Any) -> None:
    """Give an estimator the weights of a model, and what its training has recorded."""
    from cdrop.estimators.options import design

    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(model, name):
            setattr(estimator, name, getattr(model, name))
    coefs = model.coefs_
    kind = coefs[0].dtype.name
    width = coefs[-1].shape[1]
    loss = estimator._loss_settings(width)
    estimator._begin(design(estimator, len(coefs[0]), width, loss, kind))
    estimator.network_.set_weights(coefs, model.intercepts_)
    history, losses = estimator.network_.history, getattr(model, "loss_curve_", [model.loss_])
    scores = getattr(model, "validation_scores_", None)
    history.epoch_loss.extend(map(float, losses))
    history.validation_loss.extend([math.nan] * len(losses))
    history.validation_score.extend(map(float, scores or [math.nan] * len(losses)))
    estimator.n_iter_, estimator.t_ = int(model.n_iter_), int(model.t_)
    for name in ("best_loss_", "best_validation_score_"):
        best = getattr(model, name, None)
        setattr(estimator, name, None if best is None else float(best))
    estimator._stopped, estimator._validated = True, bool(scores)
