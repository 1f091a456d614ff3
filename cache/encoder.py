"""One backbone on one device: batches in, pooled features out.

The model is transformers' own; only its attention is ours, through the attention interface, and it is checked before
it is believed: three short texts that share a prefix go through packed and each alone, and where the two disagree (an
attention with terms we do not compute, positions counted otherwise) the padded path takes over and a note says so.
The check costs a few tiny forward passes; the alternative, a list of architectures, is silently wrong with the next
release.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cache.attention import INTERFACE, Blocks, CannotPack, Chain, Plan, Runs, register
from cache.errors import CacheError
from cache.packing import Batch, pack
from cache.pooling import pool
from cache.tokens import Sequences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from cache.backbones import Backbone

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
_CPU_BLOCK = 64
_CPU_BUDGET = 2048


class Encoder:
    """A loaded backbone. `layout` says how it wants its sequences packed, `notes` what it chose by itself."""

    def __init__(self, folder: Path, backbone: Backbone, layers: Sequence[int], dtype: str, device: str) -> None:
        """Load the weights in `folder`; `layers` are absolute, `dtype` "float32" or "bfloat16".

        :raises CacheError: weights that are damaged or belong to another architecture; a device without room for them.
        """
        self.backbone, self.layers, self.device = backbone, tuple(layers), device
        self.notes: tuple[str, ...] = ()
        register()
        self._model = _load(folder, backbone, getattr(torch, dtype), device)
        self._depth = int(self._model.config.get_text_config().num_hidden_layers)
        self._inner = any(layer != self._depth for layer in self.layers)
        self._causal = any(getattr(module, "is_causal", False) for module in self._model.modules())
        if getattr(self._model.config.get_text_config(), "attn_logit_softcapping", None):
            self._model.set_attn_implementation("eager")  # the other implementations leave the cap out
        self._offset = 0  # of the first position: RoBERTa's kin count from the padding index
        self.layout = self._choose_layout()
        self.budget = _CPU_BUDGET

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H] on the device, texts in the order of `batch.rows`.

        :raises CannotPack: the backbone's attention is none that a packed batch can have.
        """
        states = self._states(batch)
        return torch.stack([pool(states[layer], batch, self.backbone.pooling) for layer in self.layers])

    def pack(self, sequences: Sequences, budget: int) -> Iterator[Batch]:
        """Yield the batches of `sequences` in this backbone's layout."""
        return pack(sequences, self.layout, budget)

    def _states(self, batch: Batch) -> dict[int, Tensor]:
        ids = torch.from_numpy(batch.ids).to(self.device)
        inputs: dict[str, Any] = {"input_ids": ids}
        if batch.layout == "padded":
            kept = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
            inputs["attention_mask"] = torch.from_numpy(kept.astype(np.int64)).to(self.device)
        else:
            inputs["input_ids"] = ids[None]
            inputs["position_ids"] = torch.from_numpy(batch.positions + self._offset).to(self.device)[None]
            inputs["plan"] = self._plan(batch)
        if self._causal:
            inputs["use_cache"] = False
        output = self._model(**inputs, output_hidden_states=self._inner)
        flat = batch.layout != "padded"
        found = {self._depth: output.last_hidden_state}
        if self._inner:
            found = {layer: output.hidden_states[layer] for layer in self.layers} | found
        return {layer: states[0] if flat else states for layer, states in found.items()}

    def _plan(self, batch: Batch) -> Plan:
        if batch.end is None:
            return Runs(batch.runs)
        if len(batch.rows) == 1:
            return Chain()
        return Blocks.of(batch.end, batch.positions, self.device, _CPU_BLOCK)

    def _choose_layout(self) -> str:
        """Return the layout that reproduces each text alone: packed if it can be, else padded."""
        layout = "trie" if self._causal and self.backbone.pooling == "last" else "runs"
        if self._causal and layout == "runs":
            return self._fall_back(f"{self.backbone.pooling} pooling over a causal backbone")
        probe = Sequences.of([[3, 4, 5, 6, 7], [3, 4, 5], [3, 4, 5, 8]])
        native = self._model.config._attn_implementation
        alone = self._probe(probe, "padded", 1)
        self._model.set_attn_implementation(INTERFACE)
        if self._model.config._attn_implementation == INTERFACE:
            config = self._model.config.get_text_config()
            for self._offset in dict.fromkeys((0, int(config.pad_token_id or 0) + 1)):
                # a backbone that cannot be packed says so in its own way: no plan, unknown argument, index out of range
                with contextlib.suppress(CannotPack, TypeError, ValueError, IndexError, RuntimeError):
                    if _agree(self._probe(probe, layout, 1 << 20), alone, _TOLERANCE[self._model.dtype]):
                        return layout
            self._model.set_attn_implementation(native)
        return self._fall_back("its attention cannot be packed")

    def _fall_back(self, reason: str) -> str:
        self.notes = (*self.notes, f"padded batches: {reason}")
        return "padded"

    def _probe(self, sequences: Sequences, layout: str, budget: int) -> Tensor:
        out = torch.empty(len(self.layers), len(sequences), int(self._model.config.get_text_config().hidden_size))
        for batch in pack(sequences, layout, budget):
            out[:, batch.rows] = self.features(batch).cpu()
        return out


def _agree(packed: Tensor, alone: Tensor, tolerance: float) -> bool:
    """Tell whether the largest relative difference of a feature is rounding."""
    return bool(((packed - alone).norm(dim=-1) <= tolerance * alone.norm(dim=-1)).all())


def _load(folder: Path, backbone: Backbone, dtype: torch.dtype, device: str) -> Any:
    """Load transformers' model and move it.

    :raises CacheError: see `Encoder`.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # what it would print is checked below
    logging.disable_progress_bar()
    try:
        model, report = AutoModel.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=backbone.trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # configuration, safetensors and remote code each raise their own
        reason = " ".join(str(error).split())[:200]
        raise CacheError(
            f"backbone {backbone.name} cannot be loaded from {folder}: {reason}",
            "fetch the checkpoint again; code of a checkpoint's own runs only with trust_remote_code",
        ) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise CacheError(
            f"backbone {backbone.name}: {folder} has no weights for {missing[0]} ({len(missing)} missing)",
            "fetch the whole checkpoint, or one whose config.json fits its weights",
        )
    try:
        return model.eval().requires_grad_(False).to(device)
    except torch.OutOfMemoryError as error:
        raise CacheError(
            f"backbone {backbone.name} does not fit on {device}", "free the device's memory, or use --devices cpu"
        ) from error
