"""A backbone in sentence-transformers that computes what `embed` computed, in bfloat16 too.

Eight bits of mantissa do not forgive: the same text in a padded batch takes another attention kernel and comes out
some 0.3 % elsewhere, and pooling in bfloat16 adds as much. So a run whose features were computed in bfloat16 is
exported with this module: texts of one length go through together, without padding, and their states are pooled in
float32, as they were for the head. It costs a pass for each length in a batch. In float32 none of this can be told, and
the plain module is exported.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.models import Transformer


class UnpaddedTransformer(Transformer):  # type: ignore[misc]
    """sentence-transformers' own module, one length at a time."""

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `token_embeddings`, float32 [n, T, H], zero where there is padding."""
        kept = features["attention_mask"].bool()
        lengths = kept.sum(1)
        states: torch.Tensor | None = None
        for length in lengths.unique().tolist():
            chosen = kept & (lengths == length)[:, None]
            part = {name: _of(value, chosen, length) for name, value in features.items()}
            found = super().forward(part, **kwargs)["token_embeddings"].float()
            if states is None:
                states = found.new_zeros(*kept.shape, found.shape[2])
            states[chosen] = found.reshape(-1, found.shape[2])
        return {**features, "token_embeddings": states}


def _of(value: Any, chosen: torch.Tensor, length: int) -> Any:
    """The chosen tokens of what has one entry a token; all else as it is."""
    if isinstance(value, torch.Tensor) and value.shape == chosen.shape:
        return value[chosen].view(-1, length)
    return value
