"""Models of scikit-learn that contain an estimator of cdrop, such as Pipelines, in ONNX: by skl2onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["convert_pipeline", "register"]

_CLASSIFIER_OPTIONS = {  # those that skl2onnx asks every classifier for
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}
_OPSET = 17  # of 2022; the converters of scikit-learn's models need newer ones than ours


def _skl2onnx() -> Any:
    try:
        import skl2onnx
    except ImportError as error:
        raise ImportError(
            "models of scikit-learn in ONNX need skl2onnx: pip install 'cdrop[onnx]'",
            name="skl2onnx",
        ) from error
    return skl2onnx


def convert_pipeline(model: Any, X: Any) -> Any:
    """Convert a fitted model of scikit-learn; `X` shows the types of its columns, None for float32."""
    from cdrop.estimators import DropoutMLPClassifier

    skl2onnx = _skl2onnx()
    register()
    types = None
    if X is None:
        features = getattr(model, "n_features_in_", None)
        if features is None:
            raise ValueError(f"X is None; expected rows for {model!r}, which has no n_features_in_")
        types = [("X", skl2onnx.common.data_types.FloatTensorType([None, features]))]
    elif not hasattr(X, "iloc"):
        X = np.asarray(X)
    try:
        return skl2onnx.to_onnx(
            model,
            X,
            initial_types=types,
            target_opset=_OPSET,
            options={DropoutMLPClassifier: {"zipmap": False}},
        )
    except RuntimeError as error:
        if X is None and "column name" in str(error):
            raise ValueError(
                "X is None; expected a data frame, because the model selects columns by name: to_onnx(model, X=frame)"
            ) from error
        raise


def register() -> None:
    """Register the converters of the estimators."""
    from cdrop.estimators import DropoutMLPClassifier, DropoutMLPRegressor

    skl2onnx = _skl2onnx()
    for kind, options in (
        (DropoutMLPClassifier, _CLASSIFIER_OPTIONS),
        (DropoutMLPRegressor, None),
    ):
        skl2onnx.update_registered_converter(
            kind, f"Cdrop{kind.__name__}", _set_types, _add_nodes, options=options
        )


def _outputs(operator: Any) -> tuple[Any, list[Any]]:
    from cdrop.convert import graph_of

    return graph_of(operator.raw_operator)


def _set_types(operator: Any) -> None:
    """Set type and shape of the outputs."""
    types = _skl2onnx().common.data_types
    of = {"i": types.Int64TensorType, "O": types.StringTensorType, "f": types.FloatTensorType}
    _, outputs = _outputs(operator)
    rows = operator.inputs[0].get_first_dimension()
    for variable, (_, dtype, columns) in zip(operator.outputs, outputs, strict=True):
        shape = [rows] if columns is None else [rows, columns]
        variable.set_type(of[np.dtype(dtype).kind](shape))


def _add_nodes(scope: Any, operator: Any, container: Any) -> None:
    """Add the estimator's nodes and constants, under names that nothing else has there."""
    graph, outputs = _outputs(operator)
    names = {"X": _one_input(scope, operator, container)}
    for variable, output in zip(operator.outputs, outputs, strict=True):
        names[output.name] = variable.full_name

    def renamed(name: str) -> str:
        if name not in names:
            names[name] = scope.get_unique_variable_name(f"cdrop.{name}")
        return names[name]

    for constant in graph.constants:
        constant.name = renamed(constant.name)
        container.initializers.append(constant)
    for node in graph.nodes:
        attributes = {a.name: graph.onnx.helper.get_attribute_value(a) for a in node.attribute}
        container.add_node(
            node.op_type,
            [renamed(name) for name in node.input],
            [renamed(name) for name in node.output],
            name=scope.get_unique_operator_name(f"cdrop.{node.op_type}"),
            op_version=graph.opset,
            **attributes,
        )


def _one_input(scope: Any, operator: Any, container: Any) -> str:
    """Return the name of all inputs, side by side, as float32."""
    casts = []
    for variable in operator.inputs:
        casts.append(scope.get_unique_variable_name("cdrop.float"))
        container.add_node("Cast", [variable.full_name], [casts[-1]], to=1, op_version=13)
    if len(casts) == 1:
        return str(casts[0])
    joined = scope.get_unique_variable_name("cdrop.inputs")
    container.add_node("Concat", casts, [joined], axis=1, op_version=13)
    return str(joined)
