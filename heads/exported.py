"""A head as a module of sentence-transformers: pooled features in, embeddings out.

`pipeline export` names this class in the `modules.json` of what it writes, and the module's folder is an ordinary head
checkpoint, so no code lies in the exported folder. sentence-transformers (from version 6) imports a class that is not
its own only if told `trust_remote_code=True`; what it then imports is this file, out of the installed package.

A prefix is the truncated vector, normalised, but sentence-transformers truncates after the last module and normalises
only if asked. So the module looks at the `truncate_dim` that its model was made with and scales the whole vector such
that this prefix has length one. The alternative, telling everyone to pass `normalize_embeddings=True`, also works and
is what a `truncate_dim` passed to `encode` itself needs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentence_transformers
from torch import Tensor

from heads.checkpoint import CONFIG, WEIGHTS, load, save
from heads.errors import HeadsError
from heads.head import FractalHead
from heads.training import losses

try:
    from sentence_transformers.models import Module
except ImportError:
    Module = object
if not hasattr(Module, "on_model_ready"):  # without it no prefix would be of length one, and nothing would say so
    raise HeadsError(
        f"an exported head needs sentence-transformers 6.2 or later, installed is {sentence_transformers.__version__}",
        "pip install 'sentence-transformers>=6.2'",
    )


class ExportedHead(Module):  # type: ignore[misc]
    """A trained head behind a pooling module."""

    def __init__(self, head: FractalHead) -> None:
        """Wrap a head."""
        super().__init__()
        self.head = head
        self._prefix: int | None = None
        self._model: weakref.ref[Any] | None = None

    def on_model_ready(self, model: Any) -> None:
        """Remember the model, whose `truncate_dim` says which prefix is asked for."""
        self._model = weakref.ref(model)

    @property
    def prefix(self) -> int | None:
        """Length of the prefix that gets length one; None for the full vector."""
        model = self._model() if self._model is not None else None
        return self._prefix if model is None else model.truncate_dim

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Turn `sentence_embedding` from features, real [n, H], into embeddings, float32 [n, D]."""
        full: Tensor = self.head(features["sentence_embedding"])
        _, inverse = losses.normalise(full[:, : self.prefix])
        return {**features, "sentence_embedding": full * inverse}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExportedHead:
        """Move to another device, but stay float32 where the backbone does not: rounded weights are another head."""
        super()._apply(lambda tensor: tensor.to(fn(tensor[:0]).device), recurse)
        return self

    def get_embedding_dimension(self) -> int:
        """Length of the full vector."""
        return self.head.shape.dim

    def get_sentence_embedding_dimension(self) -> int:
        """Length of the full vector, by its older name."""
        return self.get_embedding_dimension()

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the head's checkpoint."""
        save(self.head, Path(output_path), self.head.record)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> ExportedHead:
        """Read the head's checkpoint from a folder or a hub repository.

        :raises FileNotFoundError: if a file of it is missing.
        :raises heads.HeadsError: if it is damaged.
        """
        where = {name: kwargs.get(name) for name in ("token", "cache_folder", "revision")}
        local = bool(kwargs.get("local_files_only"))
        found = [
            cls.load_file_path(model_name_or_path, name, subfolder=subfolder, local_files_only=local, **where)
            for name in (CONFIG, WEIGHTS)
        ]
        if None in found:
            raise FileNotFoundError(f"{model_name_or_path}/{subfolder} lacks {CONFIG} or {WEIGHTS}")
        return cls(load(Path(found[0]).parent))

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process: the prefix goes along, the model does not."""
        return {**self.__dict__, "_prefix": self.prefix, "_model": None}
