"""Backbones that run here, without transformers' models: decoders as tries, BERTs as runs.

`open_native` answers None where configuration or tensors hold anything that is not known (`cache.model.native.config`),
and the backbone runs in transformers' layers instead. Reading a checkpoint so takes its bytes and nothing else;
importing transformers' models first takes as long as embedding ten thousand texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from cache.backbone.fingerprint import weight_files
from cache.backbone.json_files import read_json
from cache.batching.block_mask import DeviceTrie
from cache.errors import DeviceError
from cache.model.attention import Blocks, Chain
from cache.model.native.bert import Bert, Weights
from cache.model.native.bert import expected as expected_of_bert
from cache.model.native.config import bert_shape, decoder_shape
from cache.model.native.decoder import Decoder
from cache.model.native.decoder import expected as expected_of_decoder
from cache.model.native.ops import Rotary
from cache.model.pooling import pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from cache.backbone.registry import Backbone
    from cache.batching.packing import Batch
    from cache.model.native.triton_ops import FusedKernels

EAGER_BLOCK = 64
_POSITIONS = "embeddings.position_ids"  # a buffer of 0, 1, 2, ... that older checkpoints carry


class NativeDecoder:
    """A decoder that computes every distinct prefix of a batch once."""

    layout = "trie"

    def __init__(self, decoder: Decoder, layers: Sequence[int], device: str, pooling: str, *, windowed: bool) -> None:
        """Answer for `layers`, absolute."""
        self.windowed, self._pooling = windowed, pooling
        self._decoder, self._layers, self._device = decoder, layers, device

    @torch.inference_mode()
    def features(self, batch: Batch, fused: FusedKernels | None = None) -> Tensor:
        """Return float32 [layers, texts, H]; `fused` kernels run batches that are laid out for them."""
        assert batch.last is not None
        if batch.laid_out is not None and fused is not None:
            trie = DeviceTrie.of(batch.laid_out, self._device)
            f = trie.fields
            at = f["last"] if self._pooling == "last" else torch.arange(len(f["ids"]), device=self._device)
            states = self._decoder.states(f["ids"], f["positions"], trie, at, self._layers, fused)
        else:
            read = batch.last if self._pooling == "last" else np.arange(len(batch.ids))
            ids, positions, at = (
                torch.from_numpy(array).to(self._device) for array in (batch.ids, batch.positions, read)
            )
            states = self._decoder.states(ids, positions, self._plan(batch), at, self._layers)
        if self._pooling == "last":
            return torch.stack([states[layer].float() for layer in self._layers])
        return torch.stack([pool(states[layer], batch, self._pooling) for layer in self._layers])

    def _plan(self, batch: Batch) -> Blocks | Chain:
        assert batch.end is not None
        if len(batch.rows) == 1:
            return Chain()
        return Blocks.of(batch.end, batch.positions, self._device, EAGER_BLOCK)


class NativeBert:
    """A BERT, its texts in runs of equal length."""

    layout = "runs"
    windowed = False

    def __init__(self, bert: Bert, layers: Sequence[int], device: str, pooling: str) -> None:
        """Answer for `layers`, absolute."""
        self._bert, self._layers, self._device, self._pooling = bert, layers, device, pooling

    @torch.inference_mode()
    def features(self, batch: Batch, fused: FusedKernels | None = None) -> Tensor:
        """Return float32 [layers, texts, H]; there are no `fused` kernels for it."""
        ids, positions = (self._tensor(array) for array in (batch.ids, batch.positions))
        states = self._bert.states(ids, positions, batch.runs, self._layers)
        return torch.stack([pool(states[layer], batch, self._pooling) for layer in self._layers])

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def open_native(
    folder: Path, backbone: Backbone, layers: Sequence[int], dtype: torch.dtype, device: str
) -> NativeDecoder | NativeBert | None:
    """Return the backbone in `folder`, or None where transformers must run it, or say what is wrong with it.

    :raises CacheError: its weights do not fit on the device.
    """
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    files = weight_files(folder, backbone)
    try:
        decoder, bert = decoder_shape(config), bert_shape(config)
        if decoder is not None:
            weights = Weights(files, "model.", dtype, device)
            if _are(weights, expected_of_decoder(decoder, config["vocab_size"]), ("lm_head.",)):
                made = Decoder(weights, decoder, Rotary.of(decoder, folder, device))
                return NativeDecoder(made, layers, device, backbone.pooling, windowed=any(decoder.windows))
        if bert is not None:
            weights = Weights(files, "bert.", dtype, device)
            tables = [config[name] for name in ("vocab_size", "max_position_embeddings", "type_vocab_size")]
            if _are(weights, expected_of_bert(bert, tables), ("pooler.", "cls.", "classifier.", _POSITIONS)):
                return NativeBert(Bert(weights, bert), layers, device, backbone.pooling)
    except torch.OutOfMemoryError as error:
        raise does_not_fit(backbone, device) from error
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, SafetensorError):
        return None  # whatever is wrong with these files, transformers reads them next and says so
    return None


def does_not_fit(backbone: Backbone, device: str) -> DeviceError:
    """Return the error of a device whose memory is too small for the weights."""
    return DeviceError(
        f"backbone {backbone.name} does not fit on {device}", "free the device's memory, or use --devices cpu"
    )


def _are(weights: Weights, expected: Mapping[str, list[int]], ignored: tuple[str, ...]) -> bool:
    """Tell whether the tensors are those expected, of those shapes, and no others but `ignored` beginnings of names."""
    names = {name for name in weights.names() if not name.startswith(ignored)}
    return names == expected.keys() and all(weights.shape(name) == sizes for name, sizes in expected.items())
