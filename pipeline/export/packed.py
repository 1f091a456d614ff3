"""A backbone in sentence-transformers that computes what `embed` computed, in bfloat16 too.

Eight bits of mantissa do not forgive: transformers' layers and those of `cache` add the same numbers in another order,
a padded batch takes another kernel than an unpadded one, and each moves a feature by some 0.8 %, as much as float32 is
away from either. So a run whose features were computed in bfloat16 is exported with this module, which encodes with
`cache.model.encoder`, without padding and with shared beginnings computed once. It costs the weights' memory twice, for
training goes through transformers' layers as ever. In float32 none of this can be told, and the plain module is
exported.

The second copy is of what lies on disk. Once the module's own weights are no longer that (a training step, another
number format), transformers' layers compute, for they have the right weights. States of single tokens there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.models import Transformer
from torch import Tensor

from cache import resolve
from cache.batching import Batch, Sequences, pack
from cache.model import Encoder
from pipeline.errors import PipelineError


class PackedTransformer(Transformer):  # type: ignore[misc]
    """sentence-transformers' own module; what it computes without gradients, `cache.model.encoder` computes."""

    _folder: Path
    _encoders: dict[str, Encoder]
    _loaded: tuple[Any, ...] | None = None

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> PackedTransformer:
        """Load the module and remember where the files lie that it was loaded from."""
        made: PackedTransformer = super().load(model_name_or_path, subfolder=subfolder, **kwargs)
        where = {name: kwargs.get(name) for name in ("token", "cache_folder", "revision")}
        local = bool(kwargs.get("local_files_only"))
        config = cls.load_file_path(
            model_name_or_path, "config.json", subfolder=subfolder, local_files_only=local, **where
        )
        made._folder, made._encoders, made._loaded = Path(str(config)).parent, {}, made._weights()
        return made

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `token_embeddings`, float32 [n, T, H]: every token's is the text's pooled feature."""
        if torch.is_grad_enabled() or not self._as_loaded():
            found: dict[str, Any] = super().forward(features, **kwargs)
            return found
        ids, kept = features["input_ids"], features["attention_mask"].bool()
        sequences = Sequences.of([row[mask].tolist() for row, mask in zip(ids.cpu(), kept.cpu(), strict=True)])
        encoder = self._encoder(str(ids.device))
        pooled = torch.empty(len(ids), int(self.model.config.hidden_size), device=ids.device)
        for batch in pack(sequences, encoder.layout, encoder.budget):
            for rows, states in _computed(encoder, batch):
                pooled[torch.from_numpy(rows).to(ids.device)] = states
        spread = pooled[:, None].expand(-1, ids.shape[1], -1)
        return {**features, "token_embeddings": spread.as_subclass(_PooledAlready)}

    def _encoder(self, device: str) -> Encoder:
        """The encoder on a device, made when first needed."""
        if device not in self._encoders:
            dtype = str(self.model.dtype).removeprefix("torch.")
            last = int(self.model.config.num_hidden_layers)
            self._encoders[device] = Encoder(self._folder, resolve(str(self._folder)), (last,), dtype, device)
        return self._encoders[device]

    def _weights(self) -> tuple[Any, ...]:
        """What tells a changed weight: which tensor it is, how often it was written, its format."""
        return tuple((id(w), 0 if w.is_inference() else w._version, w.dtype) for w in self.model.parameters())

    def _as_loaded(self) -> bool:
        """Whether the module's weights are still those on disk; once they are not, their copies are dropped."""
        if self._loaded is not None and self._loaded != self._weights():
            self._loaded, self._encoders = None, {}
        return self._loaded is not None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedTransformer:
        """Move to another device, which makes other tensors of the same weights, or to another number format."""
        unchanged, dtype = self._as_loaded(), self.model.dtype
        super()._apply(fn, recurse)
        if unchanged and self.model.dtype == dtype:
            self._loaded = self._weights()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the encoders."""
        return {**self.__dict__, "_encoders": {}, "_loaded": () if self._as_loaded() else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive; writes are counted anew."""
        super().__setstate__(state)
        if self._loaded is not None:
            self._loaded = self._weights()


def _computed(encoder: Encoder, batch: Batch) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Compute a batch, in smaller ones where the device's memory does not suffice: rows and features [rows, H].

    :raises torch.OutOfMemoryError: if it does not suffice for one text.
    """
    states = encoder.features_or_none(batch) if len(batch.rows) > 1 else encoder.features(batch)
    if states is not None:
        yield batch.rows, states[0]
        return
    encoder.shrink(len(batch.ids))
    for smaller in pack(batch.sequences(), encoder.layout, min(encoder.budget, len(batch.ids) // 2)):
        for rows, part in _computed(encoder, smaller):
            yield batch.rows[rows], part


class _PooledAlready(Tensor):
    """Pooled features in the place of token embeddings: pooling them again gives them, taking them apart is refused."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __iter__(self) -> NoReturn:
        """Refuse `encode(output_value="token_embeddings")`."""
        raise PipelineError(
            "this model computes pooled features only, there are no token embeddings",
            "leave output_value out, or take the tokens' states from transformers.AutoModel.from_pretrained(FOLDER)",
        )

    def __getitem__(self, index: Any) -> NoReturn:
        """Refuse `encode(output_value=None)`, which hands out every output a text at a time."""
        self.__iter__()
