"""One backbone on one device: batches in, pooled features out.

A backbone whose configuration and tensors hold nothing unknown runs in this package's own layers
(`cache.model.native`), decoders as tries, BERTs as runs; any other in transformers' (`cache.model.transformers_model`),
whose import takes as long as embedding ten thousand texts. From here on they are alike: batches of a size that fits the
device, fused kernels where enough is to come, features that travel to the host while the next batch is computed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from cache.backbone.fingerprint import weight_files
from cache.backbone.json_files import read_json, text_config
from cache.batching.packing import Packing, pack
from cache.devices import current, does_not_fit
from cache.errors import CacheError, one_line
from cache.model.native import bert, decoder
from cache.model.native.config import FAMILIES, bert_shape, decoder_shape, unknown_settings
from cache.model.native.ops import Rotary
from cache.model.pooling import dense_modules, within_tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from cache.backbone.registry import Backbone
    from cache.batching.packing import Batch
    from cache.batching.ragged import Sequences
    from cache.model.transformers_model import TransformersModel

_CPU_BUDGET = 2048
_GPU_BUDGET = 32768
_LEAST_BUDGET = 1024
_COMPILED_TOKENS = 200_000
_SAMPLE_NODES = 4096
_POSITIONS = "embeddings.position_ids"  # a buffer of 0, 1, 2, ... that older checkpoints carry


class Fetched(NamedTuple):
    """A batch on the host: each text's largest magnitude float32 [layers, texts], and each layer's features [texts, H].

    A value past its store's range is infinite there, and shown by `largest`.
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
        self._dtype = getattr(torch, dtype)
        self._model = _open(folder, backbone, self.layers, self._dtype, device)
        self.notes: tuple[str, ...] = getattr(self._model, "notes", ())
        self.layout = self._model.layout
        self._dense = self._read_dense(folder)
        self._compiled = False
        self.budget = self._fitting_budget(folder)

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H] on the device, texts in the order of `batch.rows`."""
        features = self._model.features(batch)
        return features if self._dense is None else self._dense(features[0])[None]

    @property
    def packing(self) -> Packing:
        """How this backbone wants its batches from now on."""
        return Packing(self.layout, self.budget, laid_out=self._compiled, windowed=self._model.windowed)

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
            return partial(Fetched, parts[0].numpy(), [part.numpy() for part in parts[1:]])
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

    def shrink(self, nodes: int) -> None:
        """After a batch of so many nodes ran out of memory: make smaller ones from now on."""
        if nodes <= self.budget:
            self.budget = max(_LEAST_BUDGET, self.budget // 2)
            self.notes = (*self.notes, f"batches of {self.budget} nodes: the memory of {self.device} asked for it")

    def worth_compiling(self, tokens: float) -> bool:
        """Whether so many tokens to come repay compilation."""
        fusible = isinstance(self._model, decoder.Decoder) and self.device.startswith("cuda")
        return fusible and tokens >= _COMPILED_TOKENS

    def compile(self, sequences: Sequences) -> None:
        """Compile the fused kernels, if a first batch then gives what it gave before."""
        model = self._model
        if not isinstance(model, decoder.Decoder):
            return
        # two passes side by side, since either first loads libraries for the better part of a second: half the nodes
        sample = next(pack(sequences, "trie", min(self.budget // 2, _SAMPLE_NODES)))
        with ThreadPoolExecutor(1) as thread:
            fused = thread.submit(self._fused_features, model, sample)
            expected = self.features(sample)
        try:
            if within_tolerance(fused.result(), expected, self._dtype):
                self._compiled = True
                return
            reason = "the fused kernels' results differ"
        except Exception as error:  # no Triton, no C compiler, an old driver: all mean no compilation
            reason = f"{type(error).__name__}: {one_line(error, 120)}"
        model.fused = None
        self.notes = (*self.notes, f"not compiled: {reason}")

    def _fused_features(self, model: decoder.Decoder, sample: Batch) -> Tensor:
        from cache.model.native.triton_ops import FusedKernels

        model.fused = FusedKernels()
        with current(self.device):
            return self.features(sample.with_block_lists(windowed=model.windowed))

    def _read_dense(self, folder: Path) -> torch.nn.Module | None:
        """Read the Dense modules behind the last layer's pooling, where that layer is asked for."""
        if not self.backbone.dense or text_config(folder).count("num_hidden_layers") not in self.layers:
            return None
        if len(self.layers) > 1:
            raise CacheError(
                f"layers {', '.join(map(str, self.layers))} of {self.backbone.name} in one pass: its Dense modules "
                "apply to the last alone",
                "embed the last layer in a call of its own",
            )
        return dense_modules([folder / where for where in self.backbone.dense], self.device)

    def _fitting_budget(self, folder: Path) -> int:
        """Return how many nodes per batch may have: a number that keeps the device busy and fits its free memory."""
        if not self.device.startswith("cuda"):
            return _CPU_BUDGET
        config = text_config(folder)
        hidden = config.count("hidden_size")
        width = config.integer("intermediate_size") or 4 * hidden
        per_node = int(self._dtype.itemsize) * (16 * hidden + 8 * width)
        free = int(torch.cuda.mem_get_info(self.device)[0])
        return max(_LEAST_BUDGET, min(_GPU_BUDGET, free // 2 // per_node) // _LEAST_BUDGET * _LEAST_BUDGET)


def _open(
    folder: Path, backbone: Backbone, layers: Sequence[int], dtype: torch.dtype, device: str
) -> decoder.Decoder | bert.Bert | TransformersModel:
    """Return the model that runs the backbone in `folder`: this package's own, else transformers'."""
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    files = weight_files(folder, backbone)
    try:
        if (shape := decoder_shape(config)) is not None:
            weights = bert.Weights(files, "model.", dtype, device)
            if weights.are(decoder.expected(shape), ("lm_head.",)):
                rotary = Rotary.of(shape, folder, device)
                return decoder.Decoder(weights, shape, rotary, layers, device, backbone.pooling)
        if (found := bert_shape(config)) is not None:
            weights = bert.Weights(files, "bert.", dtype, device)
            if weights.are(bert.expected(found), ("pooler.", "cls.", "classifier.", _POSITIONS)):
                return bert.Bert(weights, found, layers, device, backbone.pooling)
    except torch.OutOfMemoryError as error:
        raise does_not_fit(backbone.name, device) from error
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, SafetensorError):
        pass  # whatever is wrong with these files, transformers reads them next and says so
    from cache.model.transformers_model import TransformersModel

    model = TransformersModel(folder, backbone, layers, dtype, device)
    if config.get("model_type") in FAMILIES:
        unknown = unknown_settings(config) or "its tensors or its positions"
        model.notes = (*model.notes, f"transformers' own layers: the native ones do not know {unknown}")
    return model
