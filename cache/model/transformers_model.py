"""Backbones that run in transformers' own layers: every architecture that `cache.model.native` does not know.

Their attention is replaced by this package's, through transformers' attention interface, and checked first: three short
texts that share a prefix are computed packed and each alone. Where the two differ (an attention with further terms,
positions counted in another way) batches are padded instead, and a note says so. The check costs a few tiny
forward passes; the alternative, a list of architectures, is silently wrong with the next release.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cache.backbone.quiet import quiet_transformers
from cache.batching.packing import Batch, pack
from cache.batching.ragged import Sequences
from cache.devices import does_not_fit
from cache.errors import CacheError, one_line
from cache.model.attention import INTERFACE, Blocks, CannotPack, Chain, Plan, Runs, register
from cache.model.pooling import pool, within_tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from cache.backbone.registry import Backbone


_PROBE = Sequences.of([[3, 4, 5, 6, 7], [3, 4, 5], [3, 4, 5, 8]])


class TransformersModel:
    """A transformers model. `layout` says how it wants its sequences packed, `notes` what it chose by itself."""

    def __init__(
        self, folder: Path, backbone: Backbone, layers: Sequence[int], dtype: torch.dtype, device: str
    ) -> None:
        """Load the weights in `folder`; `layers` are absolute.

        :raises CacheError: weights that are damaged or belong to another architecture; a device without room for them.
        """
        self.notes: tuple[str, ...] = ()
        self._layers, self._device, self._pooling = layers, device, backbone.pooling
        register()
        self._model = _load(folder, backbone, dtype, device)
        self._config = self._model.config.get_text_config()
        self._depth = int(self._config.num_hidden_layers)
        self._causal = any(getattr(module, "is_causal", False) for module in self._model.modules())
        self.windowed = bool(getattr(self._config, "sliding_window", None))
        if getattr(self._config, "attn_logit_softcapping", None):
            self._model.set_attn_implementation("eager")  # the other implementations leave the cap out
        self._offset = 0  # of the first position: RoBERTa and its relatives count from the padding index
        self.layout = self._choose_layout(self._first_probe(backbone))

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H].

        :raises CannotPack: the backbone's attention is none that a packed batch can have.
        """
        states = self._states(batch)
        return torch.stack([pool(states[layer], batch, self._pooling) for layer in self._layers])

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _states(self, batch: Batch) -> dict[int, Tensor]:
        """Run transformers' own layers; [nodes, H] each, [texts, longest, H] in the padded layout."""
        ids = self._tensor(batch.ids)
        inputs: dict[str, Any] = {"input_ids": ids}
        if batch.layout == "padded":
            kept = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
            inputs["attention_mask"] = self._tensor(kept.astype(np.int64))
        else:
            inputs["input_ids"] = ids[None]
            inputs["position_ids"] = self._tensor(batch.positions + self._offset)[None]
            inputs["plan"] = self._plan(batch)
        if self._causal:
            inputs["use_cache"] = False
        inner = any(layer != self._depth for layer in self._layers)
        output = self._model(**inputs, output_hidden_states=inner)
        found = {layer: output.hidden_states[layer] for layer in self._layers} if inner else {}
        found[self._depth] = output.last_hidden_state
        return found if batch.layout == "padded" else {layer: states[0] for layer, states in found.items()}

    def _plan(self, batch: Batch) -> Plan:
        if batch.end is None:
            return Runs(batch.runs)
        if len(batch.rows) == 1:
            return Chain()
        return Blocks.of(batch.end, batch.positions, self._device)

    def _choose_layout(self, alone: Tensor) -> str:
        """Return the layout that reproduces each text alone: packed if it can be, else padded."""
        layout = "trie" if self._causal else "runs"
        native = self._model.config._attn_implementation
        self._model.set_attn_implementation(INTERFACE)
        if self._model.config._attn_implementation == INTERFACE:
            for offset in dict.fromkeys((0, int(self._config.pad_token_id or 0) + 1)):
                self._offset = offset
                # a backbone that cannot be packed says so in its own way: no plan, unknown argument, index out of range
                with contextlib.suppress(CannotPack, TypeError, ValueError, IndexError, RuntimeError):
                    if within_tolerance(self._probe(layout, 1 << 20), alone, self._model.dtype):
                        return layout
            self._model.set_attn_implementation(native)
        self.notes = (*self.notes, "padded batches: its attention cannot be packed")
        return "padded"

    def _first_probe(self, backbone: Backbone) -> Tensor:
        """Return the features of the probe computed one by one."""
        try:
            return self._probe("padded", 1)
        except torch.OutOfMemoryError as error:
            raise does_not_fit(backbone.name, self._device) from error
        except Exception as error:  # a configuration that loads and cannot run fails in its own way
            raise CacheError(
                f"backbone {backbone.name} is loaded and fails on three short texts "
                f"({type(error).__name__}: {one_line(error)})",
                "fetch the checkpoint again: its config.json does not fit its weights",
            ) from error

    def _probe(self, layout: str, budget: int) -> Tensor:
        """Return the features of three short sequences that share a prefix, [layers, 3, H]; budget 1: each alone."""
        out = torch.empty(len(self._layers), len(_PROBE), int(self._config.hidden_size))
        for batch in pack(_PROBE, layout, budget):
            out[:, batch.rows] = self.features(batch).cpu()
        return out


def _load(folder: Path, backbone: Backbone, dtype: torch.dtype, device: str) -> Any:
    """Load transformers' model and move it."""
    from transformers import AutoModel

    try:
        with quiet_transformers():  # what it would print is checked below
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=backbone.trust_remote_code,
                output_loading_info=True,
            )
    except Exception as error:  # configuration, safetensors and remote code each raise their own
        raise CacheError(
            f"backbone {backbone.name} cannot be loaded from {folder}: {one_line(error)}",
            "fetch the checkpoint again; code of a checkpoint's own runs only with trust_remote_code",
        ) from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise CacheError(
            f"backbone {backbone.name}: {folder} has no weights for {missing[0]} ({len(missing)} missing)",
            "fetch the whole checkpoint, or one whose config.json fits its weights",
        )
    try:
        return model.eval().requires_grad_(False).to(device)
    except torch.OutOfMemoryError as error:
        raise does_not_fit(backbone.name, device) from error
