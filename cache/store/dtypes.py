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

_BLOCK_VALUES = 1 << 16


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


def encode(features: NDArray[np.floating], name: str, out: NDArray[np.generic]) -> None:
    """Write `features`, [n, dim], to `out`, [n, dim], in the stored form of encoding `name`.

    Rounds half to even, as IEEE 754 does. What `acceptable` refuses is undefined here.
    """
    if name != "bfloat16":
        out[...] = features
        return
    step = max(1, _BLOCK_VALUES // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        bits = np.ascontiguousarray(features[start : start + step], np.float32).view(np.uint32)
        last = (bits >> np.uint32(16)) & np.uint32(1)
        out[start : start + step] = (bits + (np.uint32(0x7FFF) + last)) >> np.uint32(16)


def acceptable(features: NDArray[np.floating], name: str, dim: int) -> NDArray[np.floating]:
    """Return `features` as an array, every value of which encoding `name` can hold.

    :raises CacheError: if they are no floats [n, dim], or a value is not finite or outside the encoding's range.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind != "f":
        raise CacheError(
            f"features are {array.dtype} {list(array.shape)}, this store holds floats [n, {dim}]",
            "pass the pooled hidden states of the backbone that the store was made for",
        )
    step = max(1, _BLOCK_VALUES // dim)
    for start in range(0, len(array), step):
        _refuse_out_of_range(array[start : start + step], name, start)
    return array


def decode(stored: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    """Return the numbers of `stored`, in encoding `name`; where it is numpy's own, that is `stored` itself."""
    if name == "bfloat16":
        widened: NDArray[np.generic] = np.left_shift(stored, 16, dtype=np.uint32, casting="unsafe").view(np.float32)
        return widened
    return stored


def _refuse_out_of_range(values: NDArray[np.floating], name: str, start: int) -> None:
    if _in_range(values, name):
        return
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values.astype(np.float64)) <= ENCODINGS[name].largest)
    row, column = (int(axis[0]) for axis in np.nonzero(wrong))
    raise CacheError(
        f"feature {column} of row {start + row} is {values[row, column]}, which {name} cannot hold",
        "store this layer as float32; if it is inf or nan already, the backbone computed it so: try another dtype",
    )


def _in_range(values: NDArray[np.floating], name: str) -> bool:
    if values.size == 0:
        return True
    if values.dtype == np.float16:  # any encoding holds what float16 does; numpy compares its bits much faster
        return bool((np.ascontiguousarray(values).view(np.uint16) & 0x7FFF).max() < 0x7C00)
    # minimum and maximum pass NaN on, so that two reductions without a temporary decide
    largest = ENCODINGS[name].largest
    return bool(values.min() >= -largest and values.max() <= largest)
