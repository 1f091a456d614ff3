"""A backbone in sentence-transformers that computes what `embed` computed, in bfloat16 too.

Eight bits of mantissa do not forgive: transformers' layers and those of `cache` add the same numbers in another order,
a padded batch takes another kernel than an unpadded one, and each moves a feature by some 0.8 %, as much as float32 is
away from either. So a run whose features were computed in bfloat16 is exported with this module, which encodes with
`cache.encoder`, without padding and with shared beginnings computed once. It costs the weights' memory twice, for
training goes through transformers' layers as ever. In float32 none of this can be told, and the plain module is
exported.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.models import Transformer

from cache.backbones import resolve
from cache.encoder import Encoder
from cache.hub import locate
from cache.packing import pack
from cache.tokens import Sequences


class PackedTransformer(Transformer):  # type: ignore[misc]
    """sentence-transformers' own module; what it computes without gradients, `cache.encoder` computes."""

    _folder: str
    _encoders: dict[str, Encoder]

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> PackedTransformer:
        """Load the module and remember where its files lie."""
        made: PackedTransformer = super().load(model_name_or_path, *args, **kwargs)
        made._folder = str(locate(model_name_or_path, ""))
        made._encoders = {}
        return made

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `token_embeddings`, float32 [n, T, H]: every token's is the text's pooled feature."""
        if torch.is_grad_enabled():
            found: dict[str, Any] = super().forward(features, **kwargs)
            return found
        ids, kept = features["input_ids"], features["attention_mask"].bool()
        sequences = Sequences.of([row[mask].tolist() for row, mask in zip(ids.cpu(), kept.cpu(), strict=True)])
        encoder = self._encoder(str(ids.device))
        pooled = torch.empty(len(ids), int(self.model.config.hidden_size), device=ids.device)
        for batch in pack(sequences, encoder.layout, encoder.budget):
            pooled[torch.from_numpy(batch.rows).to(ids.device)] = encoder.features(batch)[0]
        return {**features, "token_embeddings": pooled[:, None].expand(-1, ids.shape[1], -1)}

    def _encoder(self, device: str) -> Encoder:
        """The encoder on a device, made when first needed."""
        if device not in self._encoders:
            dtype = str(self.model.dtype).removeprefix("torch.")
            last = int(self.model.config.num_hidden_layers)
            self._encoders[device] = Encoder(locate(self._folder, ""), resolve(self._folder), (last,), dtype, device)
        return self._encoders[device]

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the encoders."""
        return {**self.__dict__, "_encoders": {}}
