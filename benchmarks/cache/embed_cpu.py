"""MiniLM on the CPU, every engine in one run: what `benchmarks/cache/embed.py --device cpu` does.

This project, with its store, against sentence-transformers' torch, OpenVINO and ONNX Runtime, in float32, bfloat16
and int8. The two engines run a graph exported from the same weights, mean pooling inside, as sentence-transformers'
backends for them do; texts are sorted by length and tokenized by the same fast tokenizer. OpenVINO has a request per
core, which is faster than one on all of them, and is told its number format. Its int8 is calibrated after training by
nncf, as for transformers; ONNX Runtime's is dynamic. ONNX Runtime has no products of bfloat16 on a CPU. Each rival has
its best batch, found on a fifth of the texts. For all of this, beside the extras: `pip install openvino nncf onnx
onnxruntime`.

Cosines are with this project's float32 features. The accuracy is that of `lda`, fitted on the features of the texts'
training rows and scored on their test rows at 64 dimensions.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel

import data
import heads
from benchmarks.measured import Results, timed
from cache import EmbedRequest, FeatureStore, embed_missing, resolve, text_keys
from cache.backbone import Backbone
from pipeline.cost.measure import processor
from pipeline.evaluation.protocols import score_embeddings

BATCHES = (32, 64, 128)
CALIBRATION = 300  # texts
DIM = 64

Encode = Callable[[Sequence[str], int], np.ndarray]
"""Texts and a batch size to features [n, H]."""


def on_cpu(options: argparse.Namespace, results: Results) -> None:
    """Every engine and number format: texts per second, cosine, accuracy."""
    whole = data.load("clinc", folder=options.clinc)
    rows = np.arange(0, len(whole), options.every)
    texts, backbone = [whole.texts[row] for row in rows], resolve("minilm")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("openvino", "onnxruntime", "nncf"))
    print(f"{len(texts):,} texts, {torch.get_num_threads()} threads, {processor()}; {versions}", flush=True)
    exact, _ = stored(texts, backbone, "float32")

    def report(name: str, rate: float, features: np.ndarray, batch: int | None) -> None:
        cosines = (_unit(features) * _unit(exact)).sum(1)
        accuracy = lda_accuracy(whole, rows, features)
        remark = f"cosine {cosines.min():.5f} / {cosines.mean():.5f} (least, mean), lda {accuracy}"
        results.add(name, rate, "texts/s", remark, batch=batch, n=len(texts), least_cosine=float(cosines.min()),
                    mean_cosine=float(cosines.mean()), lda=accuracy, engines=versions)  # fmt: skip

    for dtype in ("float32", "bfloat16"):
        features, rate = max((stored(texts, backbone, dtype) for _ in range(3)), key=lambda found: found[1])
        report(f"embed, {dtype}, store included", rate, features, None)
    for name, encode in rivals(backbone, texts):
        trials = {batch: timed(partial(encode, texts[::5], batch), 1) for batch in BATCHES}
        best = min(BATCHES, key=trials.__getitem__)
        features = encode(texts, best)
        seconds = timed(partial(encode, texts, best), 1)
        report(name, len(texts) / seconds, features, best)


def stored(texts: list[str], backbone: Backbone, dtype: str) -> tuple[np.ndarray, float]:
    """Embed into a fresh store: float32 features, and texts per second without loading."""
    with tempfile.TemporaryDirectory() as root:
        request = EmbedRequest(backbone, Path(root), dtype=dtype, store_dtype="float32", devices="cpu")
        report = embed_missing(texts, request)
        features = FeatureStore.open(report.stores[0].folder).gather(text_keys(texts))
        return np.array(features, np.float32), report.texts / (report.seconds - report.stages["loading"])


def lda_accuracy(dataset: data.Dataset, rows: np.ndarray, features: np.ndarray) -> list[float]:
    """Accuracy per level of `lda` at 64 dimensions, fitted and scored on these rows' features."""
    place = {int(row): i for i, row in enumerate(rows)}
    train, test = (
        np.array([row for row in dataset.split_rows(name) if int(row) in place]) for name in ("train", "test")
    )
    here = {name: features[[place[int(row)] for row in part]] for name, part in (("train", train), ("test", test))}
    labels = dataset.labels
    head = heads.fit(here["train"], labels[train], method="lda", classes=dataset.hierarchy.sizes)
    gallery, queries = (head.embed(here[name], dim=DIM) for name in ("train", "test"))
    scored = score_embeddings(gallery, labels[train], queries, labels[test], scale_dim=(DIM,))
    return [round(float(accuracy), 4) for accuracy in scored.accuracy[0]]


def rivals(backbone: Backbone, texts: list[str]) -> Iterator[tuple[str, Encode]]:
    """Every other engine: its name and what it does with texts; each is imported when its turn comes."""
    for dtype in ("float32", "bfloat16"):
        model = SentenceTransformer(backbone.source, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
        yield f"sentence-transformers, torch, {dtype}", _torch(model)
    source, folder = Path(model[0].model.name_or_path), Path(tempfile.mkdtemp())
    graph, small = folder / "model.onnx", folder / "int8.onnx"
    export(source, graph)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    openvino, nncf = import_module("openvino"), import_module("nncf")
    converted = openvino.convert_model(graph)
    yield "OpenVINO, float32", _openvino(openvino, converted, tokenizer, "f32")
    yield "OpenVINO, bfloat16", _openvino(openvino, converted, tokenizer, "bf16")
    rows = np.random.default_rng(0).permutation(len(texts))[:CALIBRATION]
    quantized = nncf.quantize(
        converted,
        nncf.Dataset([tokens(tokenizer, [texts[row]]) for row in rows]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION,
    )
    yield "OpenVINO, int8 (nncf)", _openvino(openvino, quantized, tokenizer, "f32")
    yield "ONNX Runtime, float32", _onnx(graph, tokenizer)
    quantization = import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(graph, small, weight_type=quantization.QuantType.QInt8)
    yield "ONNX Runtime, int8 (dynamic)", _onnx(small, tokenizer)


class _Pooled(nn.Module):
    """Tokens to the mean of their last states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.to(states.dtype)[..., None]
        return (states * kept).sum(1) / kept.sum(1)


def export(source: Path, path: Path) -> None:
    """Write the checkpoint as an ONNX graph, pooling included."""
    model = _Pooled(AutoModel.from_pretrained(source, attn_implementation="eager")).eval()
    example = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    names = ["input_ids", "attention_mask"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, example, str(path), input_names=names, output_names=["features"], opset_version=17, dynamo=False,
            dynamic_axes={**{name: {0: "n", 1: "tokens"} for name in names}, "features": {0: "n"}},
        )  # fmt: skip


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """A padded batch."""
    batch = tokenizer.encode_batch_fast(list(texts))
    return {
        "input_ids": np.array([text.ids for text in batch], np.int64),
        "attention_mask": np.array([text.attention_mask for text in batch], np.int64),
    }


def _batches(texts: Sequence[str], size: int) -> list[np.ndarray]:
    """Rows by descending length, as sentence-transformers sorts them."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    return [order[i : i + size] for i in range(0, len(texts), size)]


def _torch(model: Any) -> Encode:
    def encode(texts: Sequence[str], batch: int) -> np.ndarray:
        return np.asarray(model.encode(list(texts), batch_size=batch), np.float32)

    return encode


def _openvino(openvino: Any, model: Any, tokenizer: Tokenizer, precision: str) -> Encode:
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def encode(texts: Sequence[str], batch: int) -> np.ndarray:
        found = np.empty((len(texts), 384), np.float32)
        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(lambda request, rows: found.__setitem__(rows, request.get_output_tensor(0).data))
        for rows in _batches(texts, batch):
            queue.start_async(tokens(tokenizer, [texts[row] for row in rows]), rows)
        queue.wait_all()
        return found

    return encode


def _onnx(path: Path, tokenizer: Tokenizer) -> Encode:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def encode(texts: Sequence[str], batch: int) -> np.ndarray:
        found = np.empty((len(texts), 384), np.float32)
        for rows in _batches(texts, batch):
            found[rows] = session.run(None, tokens(tokenizer, [texts[row] for row in rows]))[0]
        return found

    return encode


def _unit(features: np.ndarray) -> np.ndarray:
    exact = features.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)
