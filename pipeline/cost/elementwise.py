"""What a flop counter leaves out: additions, norms, activations and softmax, counted while the real code runs.

Torch's counter knows products alone. Here every other operation that makes numbers counts the elements that it makes,
times what one of them takes (a norm 7, softmax 5, GELU or SiLU 5, anything else 1; an exponential or a division counts
as one). That is a convention, good for a share and not for a third digit: it says how much the products leave out.
A backbone runs on the meta device, on shapes only; its counts are exact polynomials of a text's length, learnt from
three lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_WEIGHTS = {
    "native_layer_norm": 7, "native_layer_norm_backward": 12, "_softmax": 5, "_safe_softmax": 5, "_log_softmax": 5,
    "gelu": 5, "gelu_backward": 9, "silu": 5,
}  # fmt: skip
_REDUCTIONS = {"sum", "mean", "amax", "amin", "max", "min", "linalg_vector_norm", "dot", "any", "all", "cumsum"}
_NO_ARITHMETIC = {
    "mm", "bmm", "addmm", "baddbmm", "empty", "empty_like", "empty_strided", "new_empty", "zeros", "zeros_like",
    "new_zeros", "ones", "new_ones", "full", "full_like", "new_full", "arange", "scalar_tensor", "clone", "_to_copy",
    "copy_", "fill_", "cat", "stack", "index", "index_select", "gather", "take", "embedding", "constant_pad_nd",
    "repeat", "tril", "where", "_unsafe_view", "_reshape_alias", "lift_fresh",
}  # fmt: skip


class ElementCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts elements computed inside a `with` block, in `elements`; products, views and copies count nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in _NO_ARITHMETIC and not func.is_view:
            self.elements += _elements(name, args, out)
        return out


def _elements(name: str, args: Any, out: Any) -> int:
    first = args[0] if name in _REDUCTIONS else out[0] if isinstance(out, (tuple, list)) and out else out
    return int(first.numel()) * _WEIGHTS.get(name, 1) if isinstance(first, torch.Tensor) else 0


@dataclass(frozen=True)
class Elementwise:
    """Operations that are no products, of a text of T tokens: a + b T + c T^2."""

    a: float
    b: float
    c: float

    def count(self, lengths: NDArray[np.int64] | int) -> int:
        """Count texts of these lengths, a text each."""
        tokens = np.atleast_1d(np.asarray(lengths, np.float64))
        return round(float((self.a + self.b * tokens + self.c * tokens * tokens).sum()))

    @staticmethod
    def through(lengths: Sequence[int], counts: Sequence[int]) -> Elementwise:
        """Learn the polynomial from counts at the first three lengths."""
        c, b, a = np.linalg.solve(np.vander(np.array(lengths[:3], float), 3), np.array(counts[:3], float))
        return Elementwise(float(a), float(b), float(c))


def count_pass(model: Any, length: int) -> tuple[int, int]:
    """Run a text of `length` tokens through a model on the meta device; count its products and what is none."""
    ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
    # the inner counter sees what the model calls, the outer one what that decomposes to
    with torch.no_grad(), FlopCounterMode(display=False) as products, ElementCounter() as others:
        model(input_ids=ids)
    return products.get_total_flops(), others.elements
