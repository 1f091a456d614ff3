"""Vectors as an index keeps them: a prefix in float32, float16 or int8, and its bytes.

A prefix is normalised once, when it is stored, so that a cosine is one dot product. float16 is that, rounded. int8
gives each document its own step (its largest magnitude / 127) and then forgets it: a cosine needs the codes alone and
their length, one float32 per document, so that rounding shortens no vector. A shared step for each dimension would save
these 4 bytes and need the corpus before the first document can be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError

Array: TypeAlias = np.ndarray | Tensor

KINDS = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
"""Number formats of a stored prefix."""
_ROWS = 1 << 14
"""Rows stored at a time: normalising needs a copy of so many, not of all."""


@dataclass(frozen=True)
class Stored:
    """Documents as kept: `codes` [n, d] float32, float16 or int8, and `scales` float32 [n] where they are needed.

    The cosine of a unit vector with document i is its dot product with `codes[i]`, times `scales[i]` where there is
    one.
    """

    codes: Tensor
    scales: Tensor | None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def dim(self) -> int:
        """Dimensions d of the prefix."""
        return int(self.codes.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the documents are, and so where they are searched."""
        return self.codes.device

    @property
    def bytes_per_document(self) -> int:
        """Bytes that a document takes."""
        return self.dim * self.codes.element_size() + (0 if self.scales is None else self.scales.element_size())

    def prefix(self, dim: int) -> Stored:
        """Look at the first `dim` dimensions of float32 documents without a copy: slower to search, free to make."""
        norms = torch.linalg.vector_norm(self.codes[:, :dim], dim=1)
        return Stored(self.codes[:, :dim], 1 / norms.where(norms > 0, 1.0))

    def drawn(self, count: int) -> Stored:
        """A copy of so many documents, drawn at random; always the same ones."""
        rows = torch.from_numpy(np.random.default_rng(0).integers(0, len(self), count)).to(self.device)
        return Stored(self.codes[rows], None if self.scales is None else self.scales[rows])

    def largest_rounding(self, vectors: Array) -> float:
        """The largest distance of a document, at unit length, from the unit prefix of the vector [n, D] it stores."""
        largest = 0.0
        for start in range(0, len(self), _ROWS):
            part = slice(start, start + _ROWS)
            codes = self.codes[part].float()
            rounded = codes if self.scales is None else codes * self.scales[part, None]
            apart = rounded - unit_prefixes(vectors[part], self.dim, self.device)
            largest = max(largest, float(torch.linalg.vector_norm(apart, dim=1).max()))
        return largest

    def write(self, path: Path) -> None:
        """Write the documents as one uncompressed `.npz`, which any numpy reads."""
        with path.open("wb") as file:
            np.savez(file, **self._arrays(len(self)))

    @property
    def bytes_written(self) -> int:
        """Bytes of the file that `write` makes, to the byte below 4 GiB: a file of none, and the documents."""
        empty = BytesIO()
        np.savez(empty, **self._arrays(0))
        return len(empty.getvalue()) + len(self) * self.bytes_per_document

    def _arrays(self, count: int) -> dict[str, Any]:
        named = {"codes": self.codes, "scales": self.scales}
        return {name: part[:count].cpu().numpy() for name, part in named.items() if part is not None}


def stored(vectors: Array, dim: int, kind: str = "float32", device: str | torch.device | None = None) -> Stored:
    """Store the first `dim` dimensions of vectors.

    :param vectors: real [n, D], numpy or torch.
    :param kind: a key of `KINDS`.
    :param device: where to keep them; by default where the vectors are.
    :raises PipelineError: if `dim` is no prefix of the vectors, there is no such kind, or a value is not finite.
    """
    if kind not in KINDS:
        raise PipelineError(f"no storage {kind!r}", f"use one of {', '.join(KINDS)}")
    if vectors.ndim != 2 or not 1 <= dim <= vectors.shape[1]:
        raise PipelineError(
            f"{dim} dimensions are no prefix of vectors of shape {tuple(vectors.shape)}",
            "give vectors [n, D] and 1 to D dimensions",
        )
    device = torch.device(device or (vectors.device if isinstance(vectors, Tensor) else "cpu"))
    codes = torch.empty((len(vectors), dim), dtype=KINDS[kind], device=device)
    scales = torch.empty(len(vectors), device=device) if kind == "int8" else None
    for start in range(0, len(vectors), _ROWS):
        units = unit_prefixes(vectors[start : start + _ROWS], dim, device)
        if scales is not None:
            largest = units.abs().amax(dim=1, keepdim=True)
            units = (units * (127 / largest.where(largest > 0, 1.0))).round()
            lengths = torch.linalg.vector_norm(units, dim=1)
            scales[start : start + _ROWS] = 1 / lengths.where(lengths > 0, 1.0)
        codes[start : start + _ROWS] = units
    return Stored(codes, scales)


def unit_prefixes(vectors: Array, dim: int, device: torch.device) -> Tensor:
    """First `dim` dimensions, normalised, float32 [n, dim] on the device; a prefix of zeros stays one.

    :raises PipelineError: if a value is not finite.
    """
    rows = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.ascontiguousarray(vectors[:, :dim]))
    rows = rows[:, :dim].to(device, torch.float32)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    finite = norms.isfinite()
    if not bool(finite.all()):
        raise PipelineError(
            f"vector {int(finite.logical_not().nonzero()[0, 0])} of a part holds a value that is not finite",
            "look for NaN or infinity where the embeddings were made",
        )
    units: Tensor = rows / norms.where(norms > 0, 1.0)
    return units
