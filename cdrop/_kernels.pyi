"""Types of the compiled module, whose contracts are in _kernels.pyx."""

from collections.abc import Sequence
from typing import Any, Self, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base

_Floats: TypeAlias = NDArray[Any]  # float32 or float64, the same in one call
_Words: TypeAlias = NDArray[np.uint64]
# An update rule's name and numbers, as `cdrop.optimizers.Optimizer.constants` makes them.
_Constants: TypeAlias = tuple[str, float, float, float, float, float, float, float, float]

KINDS: tuple[str, ...]
INPUT_KINDS: tuple[str, ...]
NOISE_KINDS: tuple[str, ...]
ACTIVATIONS: tuple[str, ...]
LOSSES: tuple[str, ...]
OPTIMIZERS: tuple[str, ...]
MAX_THREADS: int

# Cython's own.
__test__: dict[str, str]

def __reduce_cython__(self: Any) -> Any: ...
def __setstate_cython__(self: Any, __pyx_state: Any) -> None: ...
def simd() -> str: ...
def simd_paths(built: bool = False) -> list[str]: ...
def simd_parameters(dtype: DTypeLike) -> dict[str, float]: ...
def _select_simd(name: str | None) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def _set_cpus(cpus: int) -> None: ...
def all_finite(array: _Floats) -> bool: ...
def bernoulli_mask(
    rows: int,
    width: int,
    keep: int,
    seed: int,
    step: int,
    layer: int,
    first: int,
    purpose: int,
) -> _Words: ...
def dropout_noise(
    rows: int,
    width: int,
    keep: int,
    kind: str,
    dtype: np.dtype[Any],
    seed: int,
    step: int,
    layer: int,
    first: int,
    purpose: int,
) -> _Floats: ...
def random_words(n: int, seed: int, step: int, purpose: int, layer: int, block: int) -> _Words: ...
def first_words(n: int, seed: int, step: int, purpose: int) -> _Words: ...
def normal_rows(
    rows: int, n: int, seed: int, step: int, purpose: int, layer: int
) -> NDArray[np.float64]: ...
def random_normal(
    n: int, seed: int, step: int, purpose: int, layer: int, block: int
) -> NDArray[np.float64]: ...
def masked_gemm(
    x: _Floats,
    weight: _Floats,
    bias: _Floats | None,
    mask: _Words | None,
    scale: float,
    activation: str,
    threads: int,
) -> _Floats: ...
def masked_gradients(
    dout: _Floats,
    x: _Floats,
    weight: _Floats,
    mask: _Words | None,
    scale: float,
    activation: str,
    threads: int,
) -> tuple[_Floats, _Floats, _Floats]: ...
def loss_and_gradient(
    loss: str,
    parameters: NDArray[np.float64] | None,
    outputs: _Floats,
    labels: NDArray[np.int64] | None,
    targets: _Floats | None,
    weights: NDArray[np.float64] | None,
) -> tuple[float, _Floats]: ...
def exponential(outputs: _Floats) -> _Floats: ...
def rule_states(name: str) -> int: ...
def update(
    weight: _Floats, gradient: _Floats, state: Sequence[_Floats], constants: _Constants
) -> None: ...
def limit_norms(weight: _Floats, max_norm: float) -> None: ...

@disjoint_base
class KeptBatches: ...

@disjoint_base
class Turn:
    def __new__(cls) -> Self: ...

@disjoint_base
class Fitting:
    @property
    def process(self) -> int: ...
    def __new__(cls, state: dict[str, Any]) -> Self: ...
    @staticmethod
    def of(state: dict[str, Any]) -> Fitting | None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: object, traceback: object) -> None: ...

@disjoint_base
class Rows:
    kept: KeptBatches | None
    @property
    def x(self) -> Any: ...
    @property
    def labels(self) -> NDArray[np.int64] | None: ...
    @property
    def targets(self) -> _Floats | None: ...
    @property
    def weights(self) -> NDArray[np.float64] | None: ...
    def __new__(
        cls,
        x: Any,
        labels: NDArray[np.int64] | None = None,
        targets: _Floats | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> Self: ...

def power(base: float, exponent: int) -> float: ...

@disjoint_base
class Engine:
    @property
    def varies(self) -> bool: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shapes(self) -> list[tuple[int, int]]: ...
    def __new__(
        cls,
        units: Sequence[int],
        keep: Sequence[int],
        dtype: DTypeLike,
        activation: str,
        loss: str,
        loss_parameters: NDArray[np.float64] | None,
        scale_in_training: bool,
        seed: int,
        varies: Sequence[bool] = (),
        kinds: Sequence[str] = (),
        members: int = 0,
    ) -> Self: ...
    @overload
    def copy(
        self, parts: Sequence[tuple[int, int]], state: None = None
    ) -> list[tuple[_Floats, _Floats]]: ...
    @overload
    def copy(
        self, parts: Sequence[tuple[int, int]], state: dict[str, Any]
    ) -> tuple[list[tuple[_Floats, _Floats]], dict[str, Any], list[int]]: ...
    def get(self, layer: int, part: int) -> tuple[_Floats, _Floats]: ...
    def put(
        self,
        state: dict[str, Any],
        new: dict[str, Any],
        was: dict[str, Any],
        parts: Sequence[tuple[int, int, ArrayLike, ArrayLike]] = (),
        background: ArrayLike | None = None,
        keep: NDArray[np.uint64] | None = None,
    ) -> bool: ...
    def set(self, layer: int, part: int, weight: ArrayLike, bias: ArrayLike) -> None: ...
    def end_epoch(
        self, state: dict[str, Any], new: dict[str, Any], seen: tuple[float, float, float]
    ) -> None: ...
    def step(
        self,
        data: Rows,
        rows: NDArray[np.int64] | None,
        constants: _Constants,
        max_norm: float,
        state: dict[str, Any],
        was: dict[str, Any],
        new: dict[str, Any],
        threads: int,
        kept: KeptBatches | None = None,
        number: int = 0,
        keep: NDArray[np.uint64] | None = None,
        learned: NDArray[np.float64] | None = None,
        entropy: float = 0.0,
        samples: int = 1,
        consistency: float = 0.0,
    ) -> float | None: ...
    def reserve(self, rows: int, threads: int, samples: int = 1) -> None: ...
    def keep_batches(
        self, data: Rows, order: NDArray[np.int64] | None, size: int, threads: int
    ) -> KeptBatches: ...
    def times(self, on: bool) -> dict[str, list[float]]: ...
    def predict(self, data: Rows, answer: str, threads: int) -> NDArray[Any]: ...
    def rows_at_once(self) -> int: ...
    def sample(
        self,
        data: Rows,
        out: dict[str, _Floats],
        passes: int,
        seed: int,
        first_row: int,
        masks: Sequence[_Words | None] | None,
        threads: int,
        stride: int = 0,
    ) -> None: ...
