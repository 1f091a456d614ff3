"""A real decoder's features: exact, and how fast beside transformers and sentence-transformers, on one machine.

    python benchmarks/cache/decoder.py --backbone SmolLM2-135M-Instruct.Q4_1.gguf --dataset clinc --texts 1000

Each library gets the same texts, checkpoint, dtype and threads; loading is not timed. The padded libraries sort by
length, as sentence-transformers does, in batches of 32. They take turns, in as many rounds as asked after one that is
not counted. `--texts 0` takes the whole dataset. `--padded 2000` gives the padded libraries 2,000 of its texts, in
random order, since their rate hardly depends on how many there are. Prints one JSON object: per library the rate of
every round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cache
import data
from cache.backbone import Backbone, locate
from cache.batching import Sequences, TextTokenizer

ALONE, BATCH = 200, 32


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--dataset", default="clinc")
    parser.add_argument("--texts", type=int, default=1000, help="0: all of the dataset's")
    parser.add_argument("--padded", type=int, help="how many of them the padded libraries get (default: all)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--alone", type=int, default=ALONE, help="texts to compare with each text alone, 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = list(dict.fromkeys(data.load(options.dataset, folder=Path("artifacts/data")).texts))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: options.texts or None]]
    backbone = cache.resolve(options.backbone)
    folder = locate(backbone.source, "")
    found: dict[str, Any] = {"backbone": backbone.name, "dtype": options.dtype, "texts": len(texts)}
    found["threads"] = torch.get_num_threads()
    sequences = TextTokenizer(folder, backbone, backbone.prompt).encode(texts)
    model = _model(folder, options.dtype)
    encoder = _sentence_transformer(folder, backbone.max_length, options.dtype)
    few, padded = sequences.take(np.arange(len(texts))[: options.padded]), texts[: options.padded]
    rates: dict[str, list[float]] = {"here": [], "transformers": [], "sentence-transformers": []}
    for ours in [padded, *[texts] * options.rounds]:
        report, features = _embedded(ours, backbone, options.dtype)
        rates["here"].append(len(ours) / report.stages["computing"])
        rates["transformers"].append(_rate(lambda: _padded(model, few), len(few)))
        rates["sentence-transformers"].append(_rate(lambda: encoder.encode(padded, batch_size=BATCH), len(padded)))
    found |= {"tokens": report.tokens, "nodes": report.nodes}
    found["texts_per_second"] = {name: each[1:] for name, each in rates.items()}
    found["texts_of_the_padded"] = len(padded)
    if options.alone:
        found["largest_relative_difference"] = _difference(model, sequences, features, options.alone)
    print(json.dumps(found, indent=1))


def _embedded(texts: list[str], backbone: Backbone, dtype: str) -> tuple[cache.EmbedReport, np.ndarray]:
    with tempfile.TemporaryDirectory() as root:
        request = cache.EmbedRequest(backbone, Path(root), dtype=dtype, store_dtype="float32", devices="cpu")
        report = cache.embed_missing(texts, request)
        return report, cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(texts, backbone.prompt))


def _model(folder: Path, dtype: str) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True).eval()


def _difference(model: Any, sequences: Sequences, features: np.ndarray, count: int) -> float:
    worst = 0.0
    for i in range(min(count, len(sequences))):
        ids = torch.from_numpy(sequences.ids[sequences.offsets[i] : sequences.offsets[i + 1]].astype(np.int64))[None]
        with torch.inference_mode():
            alone = model(ids, use_cache=False).last_hidden_state[0, -1].float().numpy()
        worst = max(worst, float(np.linalg.norm(features[i] - alone) / np.linalg.norm(alone)))
    return worst


@torch.inference_mode()
def _padded(model: Any, sequences: Sequences) -> None:
    order = np.argsort(-sequences.lengths, kind="stable")
    for start in range(0, len(order), BATCH):
        part = sequences.take(order[start : start + BATCH])
        kept = np.arange(int(part.lengths.max())) < part.lengths[:, None]
        ids = np.zeros(kept.shape, np.int64)
        ids[kept] = part.ids
        states = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(kept.astype(np.int64)), use_cache=False)
        states.last_hidden_state[torch.arange(len(ids)), torch.from_numpy(part.lengths) - 1].float().numpy()


def _sentence_transformer(folder: Path, longest: int, dtype: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    words = Transformer(str(folder), max_seq_length=longest, model_kwargs={"dtype": getattr(torch, dtype)})
    if words.tokenizer.pad_token is None:
        words.tokenizer.pad_token = words.tokenizer.convert_ids_to_tokens(0)
    pooling = Pooling(words.get_word_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[words, pooling], device="cpu")


def _rate(work: Callable[[], object], texts: int) -> float:
    began = time.perf_counter()
    work()
    return texts / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
