"""Backbones that run here, without transformers' models: decoders as tries, BERTs as runs.

`open_native` answers None where configuration or tensors hold anything that is not known (`cache.model.native.config`),
and the backbone runs in transformers' layers instead. Reading a checkpoint so takes its bytes and nothing else;
importing transformers' models first takes as long as embedding ten thousand texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from cache.backbone.fingerprint import weight_files
from cache.backbone.json_files import read_json
from cache.errors import DeviceError
from cache.model.native.bert import Bert, Weights
from cache.model.native.bert import expected as expected_of_bert
from cache.model.native.config import bert_shape, decoder_shape
from cache.model.native.decoder import Decoder
from cache.model.native.decoder import expected as expected_of_decoder
from cache.model.native.ops import Rotary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cache.backbone.registry import Backbone

_POSITIONS = "embeddings.position_ids"  # a buffer of 0, 1, 2, ... that older checkpoints carry


def open_native(
    folder: Path, backbone: Backbone, layers: Sequence[int], dtype: torch.dtype, device: str
) -> Decoder | Bert | None:
    """Return the backbone in `folder`, or None where transformers must run it, or say what is wrong with it.

    :raises CacheError: its weights do not fit on the device.
    """
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    files = weight_files(folder, backbone)
    try:
        decoder, bert = decoder_shape(config), bert_shape(config)
        if decoder is not None:
            weights = Weights(files, "model.", dtype, device)
            if weights.are(expected_of_decoder(decoder), ("lm_head.",)):
                rotary = Rotary.of(decoder, folder, device)
                return Decoder(weights, decoder, rotary, layers, device, backbone.pooling)
        if bert is not None:
            weights = Weights(files, "bert.", dtype, device)
            if weights.are(expected_of_bert(bert), ("pooler.", "cls.", "classifier.", _POSITIONS)):
                return Bert(weights, bert, layers, device, backbone.pooling)
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
