"""One backbone on one device: batches in, pooled features out.

The model is transformers' own; only its attention is ours, through the attention interface, and it is checked before
it is believed: three short texts that share a prefix go through packed and each alone, and where the two disagree (an
attention with terms we do not compute, positions counted otherwise) the padded path takes over and a note says so.
The check costs a few tiny forward passes; the alternative, a list of architectures, is silently wrong with the next
release.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cache.attention import INTERFACE, Blocks, CannotPack, Chain, Plan, Runs, register
from cache.decoder import FAMILIES, Decoder
from cache.errors import CacheError
from cache.masks import DeviceTrie, HostTrie
from cache.packing import Batch, pack
from cache.pooling import pool
from cache.prepare import Packing
from cache.tokens import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from cache.backbones import Backbone
    from cache.fused import FusedKernels

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
_PROBE = Sequences.of([[3, 4, 5, 6, 7], [3, 4, 5], [3, 4, 5, 8]])
_EAGER_BLOCK = 64
_CPU_BUDGET = 2048
_GPU_BUDGET = 32768
_LEAST_BUDGET = 1024
_COMPILED_TOKENS = 200_000
_SAMPLE_NODES = 4096


class Fetched(NamedTuple):
    """A batch on the host: each text's largest magnitude float32 [layers, texts], and each layer's features [texts, H].

    A value past its store's range is infinite there, and told by `largest`.
    """

    largest: NDArray[np.float32]
    features: list[NDArray[np.floating]]


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
        self._config = self._model.config.get_text_config()
        self._depth = int(self._config.num_hidden_layers)
        self._causal = any(getattr(module, "is_causal", False) for module in self._model.modules())
        if getattr(self._config, "attn_logit_softcapping", None):
            self._model.set_attn_implementation("eager")  # the other implementations leave the cap out
        self._offset = 0  # of the first position: RoBERTa's kin count from the padding index
        self._decoder: Decoder | None = None
        self._fused: FusedKernels | None = None
        alone = self._probe("padded", 1)
        self.layout = self._choose_layout(alone)
        if self.layout == "trie" and type(self._model).__name__ in FAMILIES:
            self._decoder = Decoder(self._model)
            if not _agree(self._probe("trie", 1 << 20), alone, _TOLERANCE[self._model.dtype]):
                self._decoder, self._model = None, _load(folder, backbone, getattr(torch, dtype), device)
                self._model.set_attn_implementation(INTERFACE)
                self.notes = (*self.notes, "transformers' own layers: the joined ones disagree with them")
        self.budget = self._fitting_budget()

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H] on the device, texts in the order of `batch.rows`.

        :raises CannotPack: the backbone's attention is none that a packed batch can have.
        """
        if self._decoder is not None:
            states = self._decode(self._decoder, batch)
            return torch.stack([states[layer].float() for layer in self.layers])
        states = self._states(batch)
        return torch.stack([pool(states[layer], batch, self.backbone.pooling) for layer in self.layers])

    @property
    def packing(self) -> Packing:
        """How this backbone wants its batches from now on."""
        windowed = bool(getattr(self._config, "sliding_window", None))
        return Packing(self.layout, self.budget, laid_out=self._fused is not None, windowed=windowed)

    def features_or_none(self, batch: Batch) -> Tensor | None:
        """Return `features`, or None where the device's memory does not suffice, not even when tidied up."""
        for _ in range(2):
            try:
                return self.features(batch)
            except torch.OutOfMemoryError:
                pass  # outside this block the failed attempt's tensors are gone
            torch.cuda.empty_cache()
        return None

    def alone(self, batch: Batch, text: int) -> NDArray[np.float32]:
        """Return the features [layers, H] of one of a batch's texts, computed without the others."""
        (single,) = pack(batch.sequences().take(np.array([text])), self.layout, 1)
        return self.features(single)[:, 0].cpu().numpy()

    def fetch(self, features: Tensor, store_dtypes: Sequence[str]) -> Callable[[], Fetched]:
        """Start moving features [layers, texts, H] to the host, each layer rounded to what its store holds.

        What is returned waits for them, in any thread.
        """
        kinds = (torch.float16 if name == "float16" else torch.float32 for name in store_dtypes)
        parts = [features.abs().amax(dim=-1), *(layer.to(kind) for layer, kind in zip(features, kinds, strict=True))]
        if not features.is_cuda:
            return lambda: Fetched(parts[0].numpy(), [part.numpy() for part in parts[1:]])
        hosts = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
        for host, part in zip(hosts, parts, strict=True):
            host.copy_(part, non_blocking=True)
        done = torch.cuda.current_stream(features.device).record_event()

        def arrived() -> Fetched:
            done.synchronize()
            return Fetched(hosts[0].numpy(), [host.numpy() for host in hosts[1:]])

        return arrived

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    @property
    def wants_helpers(self) -> bool:
        """Whether the device is so fast that tokenizing in this process would hold it up."""
        return self.device.startswith("cuda")

    def shrink(self, nodes: int) -> None:
        """After a batch of so many nodes ran out of memory: make smaller ones from now on."""
        if nodes <= self.budget:
            self.budget = max(_LEAST_BUDGET, self.budget // 2)
            self.notes = (*self.notes, f"batches of {self.budget} nodes: the memory of {self.device} asked for it")

    def worth_compiling(self, tokens: float) -> bool:
        """Whether so many tokens to come repay compilation."""
        return self._decoder is not None and self.device.startswith("cuda") and tokens >= _COMPILED_TOKENS

    def compile(self, sequences: Sequences) -> None:
        """Compile the fused kernels, if a first batch then gives what it gave before."""
        if self._decoder is None:
            return
        sample = next(pack(sequences, "trie", min(self.budget, _SAMPLE_NODES)))
        expected = self.features(sample)
        try:
            from cache.fused import FusedKernels

            self._fused = FusedKernels()
            laid_out = replace(sample, laid_out=HostTrie.of(sample, windowed=self.packing.windowed))
            if _agree(self.features(laid_out), expected, _TOLERANCE[self._model.dtype]):
                return
            reason = "the fused kernels' results differ"
        except Exception as error:  # no Triton, no C compiler, an old driver: all mean no compilation
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        self._fused = None
        self.notes = (*self.notes, f"not compiled: {reason}")

    def _decode(self, decoder: Decoder, batch: Batch) -> dict[int, Tensor]:
        if batch.laid_out is not None and self._fused is not None:
            trie = DeviceTrie.of(batch.laid_out, self.device)
            f = trie.fields
            return decoder.states(f["ids"], f["positions"], trie, f["last"], self.layers, self._fused)
        ids, positions, at = (self._tensor(array) for array in (batch.ids, batch.positions, batch.last))
        return decoder.states(ids, positions, self._plan(batch), at, self.layers)

    def _fitting_budget(self) -> int:
        """Return how many nodes a batch may have: a number that keeps the device busy and fits its free memory."""
        if not self.device.startswith("cuda"):
            return _CPU_BUDGET
        width = int(getattr(self._config, "intermediate_size", 0) or 4 * self._config.hidden_size)
        per_node = int(self._model.dtype.itemsize) * (16 * int(self._config.hidden_size) + 8 * width)
        free = int(torch.cuda.mem_get_info(self.device)[0])
        return max(_LEAST_BUDGET, min(_GPU_BUDGET, free // 2 // per_node) // _LEAST_BUDGET * _LEAST_BUDGET)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

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
        inner = any(layer != self._depth for layer in self.layers)
        output = self._model(**inputs, output_hidden_states=inner)
        found = {layer: output.hidden_states[layer] for layer in self.layers} if inner else {}
        found[self._depth] = output.last_hidden_state
        return found if batch.layout == "padded" else {layer: states[0] for layer, states in found.items()}

    def _plan(self, batch: Batch) -> Plan:
        if batch.end is None:
            return Runs(batch.runs)
        if len(batch.rows) == 1:
            return Chain()
        return Blocks.of(batch.end, batch.positions, self.device, _EAGER_BLOCK)

    def _choose_layout(self, alone: Tensor) -> str:
        """Return the layout that reproduces each text alone: packed if it can be, else padded."""
        layout = "trie" if self._causal and self.backbone.pooling == "last" else "runs"
        if self._causal and layout == "runs":
            return self._fall_back(f"{self.backbone.pooling} pooling over a causal backbone")
        native = self._model.config._attn_implementation
        self._model.set_attn_implementation(INTERFACE)
        if self._model.config._attn_implementation == INTERFACE:
            for offset in dict.fromkeys((0, int(self._config.pad_token_id or 0) + 1)):
                self._offset = offset
                # a backbone that cannot be packed says so in its own way: no plan, unknown argument, index out of range
                with contextlib.suppress(CannotPack, TypeError, ValueError, IndexError, RuntimeError):
                    if _agree(self._probe(layout, 1 << 20), alone, _TOLERANCE[self._model.dtype]):
                        return layout
            self._model.set_attn_implementation(native)
        return self._fall_back("its attention cannot be packed")

    def _fall_back(self, reason: str) -> str:
        self.notes = (*self.notes, f"padded batches: {reason}")
        return "padded"

    def _probe(self, layout: str, budget: int) -> Tensor:
        """Return the features of three short sequences that share a prefix, [layers, 3, H]; budget 1: each alone."""
        out = torch.empty(len(self.layers), len(_PROBE), int(self._config.hidden_size))
        for batch in pack(_PROBE, layout, budget):
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
