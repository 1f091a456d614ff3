"""How a feature's numbers are stored: float16, float32 or bfloat16, and never a number that the store cannot hold.

float16 halves the bytes and keeps 11 bits, ample for a normalised last layer; inner layers reach values beyond its
65,504 and get float32. bfloat16 has no numpy dtype: its bits are stored as uint16 and come back widened to float32,
which is exact. A value out of range, infinite or not a number is refused with its row, not clipped: a clipped feature
is a wrong feature that nobody notices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError


class Encoding(NamedTuple):
    """The numpy dtype on disk, the dtype that `gather` returns, and the largest magnitude that is accepted."""

    stored: np.dtype[np.generic]
    returned: np.dtype[np.generic]
    largest: float


ENCODINGS = {
    "float16": Encoding(np.dtype("<f2"), np.dtype(np.float16), 65504.0),
    "float32": Encoding(np.dtype("<f4"), np.dtype(np.float32), float(np.finfo(np.float32).max)),
    "bfloat16": Encoding(np.dtype("<u2"), np.dtype(np.float32), float.fromhex("0x1.fep127")),
}


def encode(features: NDArray[np.floating], name: str, dim: int) -> NDArray[np.generic]:
    """Return `features`, [n, dim], in the stored form of encoding `name`, C-contiguous and never the same memory.

    :raises CacheError: if their shape is another, or a value is not finite or outside the encoding's range.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind != "f":
        raise CacheError(
            f"features are {array.dtype} {list(array.shape)}, this store holds floats [n, {dim}]",
            "pass the pooled hidden states of the backbone that the store was made for",
        )
    encoding = ENCODINGS[name]
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(np.float32, order="C")
    _refuse_out_of_range(values, name, encoding.largest)
    if name == "bfloat16":
        bits = values.view(np.uint32)
        # round half to even on the 16 bits that are dropped
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
    return values.astype(encoding.stored, copy=False)


def decode(stored: NDArray[np.generic], name: str, out: NDArray[np.generic]) -> None:
    """Write the numbers of `stored`, in encoding `name`, to `out`, same shape, of the returned dtype."""
    if name == "bfloat16":
        np.left_shift(stored, 16, out=out.view(np.uint32), dtype=np.uint32, casting="unsafe")
    else:
        np.copyto(out, stored, casting="equiv")


def _refuse_out_of_range(values: NDArray[np.float32], name: str, largest: float) -> None:
    # minimum and maximum pass NaN on, so that two reductions without a temporary decide
    if values.size == 0 or (values.min() >= -largest and values.max() <= largest):
        return
    wrong = ~(np.abs(values) <= np.float32(largest))
    row, column = (int(axis[0]) for axis in np.nonzero(wrong))
    raise CacheError(
        f"feature {column} of row {row} is {values[row, column]}, which {name} cannot hold (largest {largest:.6g})",
        "store this layer as float32; if it is inf or nan already, the backbone computed it so: try another dtype",
    )
