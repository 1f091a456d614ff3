"""Texts in, features in the store out: how fast, against sentence-transformers in the same run, and how exact.

    python benchmarks/cache/embed.py --device cpu   --clinc CLINC_FOLDER --json embed-cpu.json
    python benchmarks/cache/embed.py --device cuda  --clinc CLINC_FOLDER --checkpoint FOLDER --texts icd10cm.txt.gz
    python benchmarks/cache/embed.py --devices all  --checkpoint FOLDER --texts icd10cm.txt.gz --json embed-devices.json
    python benchmarks/cache/embed.py --devices cpu:2 --texts icd10cm.txt.gz --every 50 --instructions 1

On the CPU the backbone is MiniLM with its real weights. On the GPU it is a checkpoint folder of Qwen3-0.6B's shape,
such as `scripts/make_qwen3_checkpoint.py --size full` writes. `--texts` adds a corpus of one text a line. The share of
peak counts 2 x non-embedding parameters x nodes, plus attention over the keys that a node may see, and nothing else;
the peak is a matrix product of the same run.

With `--devices` the corpus of `--texts`, once for each of `--instructions` instructions before every text, is embedded
by 1, 2, 4, ... of the devices named (`cuda:0,cuda:0`: by one and by two processes on one GPU). Start-up, until the
first batch is computed by anyone, stands apart; a rate is of what comes after it, the last shard's writing included.
Every row's features are compared with those of one device.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.cache.embed_devices import on_devices
from benchmarks.cache.embed_gpu import PARTS, on_gpu
from benchmarks.cache.embed_timed import clinc, stored, timed
from benchmarks.measured import Results, machine
from cache import EmbedRequest, FeatureStore, embed_missing, resolve, text_keys
from pipeline.cost.measure import processor


def on_cpu(options: argparse.Namespace, results: Results) -> None:
    """MiniLM against sentence-transformers' best batch, in both number formats."""
    from sentence_transformers import SentenceTransformer

    texts = clinc(options.clinc)[:: options.every]
    backbone = resolve("minilm")
    print(f"{len(texts):,} texts, {torch.get_num_threads()} threads, {processor()}")
    exact: np.ndarray | None = None
    for dtype in ("float32", "bfloat16"):
        model = SentenceTransformer(backbone.source, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
        model.encode(texts[:64])
        theirs = {}
        for batch in (16, 32, 64, 128, 256):
            theirs[batch] = len(texts) / timed(lambda m=model, b=batch: m.encode(texts, batch_size=b), 2)
        best = max(theirs, key=lambda batch: theirs[batch])
        results.add(f"sentence-transformers, {dtype}, default batch 32", theirs[32], "texts/s")
        results.add(f"sentence-transformers, {dtype}, best batch {best}", theirs[best], "texts/s")
        ours = max(stored(texts, backbone, dtype=dtype, devices="cpu")[1] for _ in range(3))
        results.add(f"embed, {dtype}, store included", ours, "texts/s", f"{ours / theirs[best]:.2f} x its best")
        with tempfile.TemporaryDirectory() as root:
            report = embed_missing(
                texts, EmbedRequest(backbone, Path(root), dtype=dtype, store_dtype="float32", devices="cpu")
            )
            features = FeatureStore.open(report.stores[0].folder).gather(text_keys(texts)).astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        reference = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float64)
        results.add(f"  cosine with sentence-transformers' {dtype}, least", (features * reference).sum(1).min(), "")
        if exact is None:
            exact = features
        else:
            cosine = (features * exact).sum(1)
            results.add(
                "  cosine of bfloat16 and float32 features, least", cosine.min(), "", f"mean {cosine.mean():.6f}"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--devices", help="scale over these, as `pipeline embed --devices` names them")
    parser.add_argument("--clinc", type=Path, help="folder that holds data_full.json")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder of Qwen3's architecture (GPU)")
    parser.add_argument("--texts", type=Path, help="gzipped file of one text a line (GPU; the corpus of --devices)")
    parser.add_argument("--every", type=int, default=1, help="take every n-th text (CPU, --devices)")
    parser.add_argument("--instructions", type=int, default=48, help="how often the corpus is repeated (--devices)")
    parser.add_argument("--warm", action="store_true", help="compile beforehand (--devices)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (GPU)")
    parser.add_argument("--million", type=int, default=1_000_000, help="texts of the memory part (GPU)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = "texts" if options.devices else "clinc"
    if getattr(options, wanted) is None:
        parser.error(f"--{wanted} is needed")
    device = (options.devices or options.device).partition(":")[0]
    results = Results(machine("cuda" if device == "all" and torch.cuda.is_available() else device), options.json)
    (on_devices if options.devices else on_gpu if options.device == "cuda" else on_cpu)(options, results)


if __name__ == "__main__":
    main()
