"""A checkpoint of Qwen3's shape on one GPU: what `benchmarks/cache/embed.py --device cuda` runs."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cache.embed_devices import INSTRUCTION
from benchmarks.cache.embed_memory import memory
from benchmarks.measured import Results
from cache import EmbedRequest, embed_missing, resolve
from cache.backbone import Backbone
from cache.batching import Sequences, TextTokenizer
from cache.model import Encoder

PARTS = ("exact", "profile", "rival", "steady", "process", "memory")
WORDS = (
    *("ask", "say", "tell", "note", "log", "item", "user", "query", "text", "line", "now", "then", "well", "please"),
    *("also", "first", "next", "last", "today", "here", "there", "hey", "hello", "so", "and", "but", "or", "if"),
    *("one", "two", "three", "four", "five", "six", "red", "blue", "green", "old", "new", "big"),
)
"""One goes before every text of CLINC, so that there are enough different texts for start-up not to count."""


def clinc(folder: Path) -> list[str]:
    """Return the 22,500 in-scope texts."""
    data = json.loads((folder / "data_full.json").read_text())
    return [row[0] for split in ("train", "val", "test") for row in data[split]]


def with_words(texts: list[str]) -> list[str]:
    """Return every text once with each of `WORDS` before it."""
    return [f"{word} {text}" for word in WORDS for text in texts]


def timed(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the seconds of the fastest of some calls, the device's work included."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def stored(texts: list[str], backbone: Backbone, **options: Any) -> tuple[Any, float]:
    """Embed into a fresh store; return the report and texts per second without loading and compiling."""
    with tempfile.TemporaryDirectory() as root:
        report = embed_missing(texts, EmbedRequest(backbone, Path(root), **options))
    steady = report.seconds - report.stages["loading"] - report.stages["compiling"]
    return report, report.texts / steady


def matmul_peak() -> float:
    """Return the best of a few bfloat16 products, FLOP/s, on random data."""
    best = 0.0
    for m, k, n in ((8192, 8192, 8192), (16384, 8192, 8192), (32768, 4096, 8192)):
        a, b = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in ((m, k), (k, n)))
        torch.mm(a, b)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        for _ in range(20):
            torch.mm(a, b)
        ended.record()
        torch.cuda.synchronize()
        best = max(best, 20 * 2 * m * k * n / (began.elapsed_time(ended) / 1e3))
    return best


class Gpu:
    """One checkpoint on one GPU: encoder, tokenizer, and the arithmetic of its share of peak."""

    def __init__(self, folder: Path) -> None:
        """Load in bfloat16."""
        self.backbone = resolve(str(folder))
        self.config = json.loads((folder / "config.json").read_text())
        self.encoder = Encoder(folder, self.backbone, (self.config["num_hidden_layers"],), "bfloat16", "cuda:0")
        self.tokenizer = TextTokenizer(folder, self.backbone)
        self.peak = matmul_peak()

    def flops(self, batches: list[Any]) -> float:
        """Return what the nodes of some batches need, padding not counted."""
        c = self.config
        heads = c["num_attention_heads"] * c["head_dim"]
        joint = heads + 2 * c["num_key_value_heads"] * c["head_dim"]
        layer = c["hidden_size"] * (joint + heads + 3 * c["intermediate_size"])
        nodes = sum(batch.nodes for batch in batches)
        seen = sum(float(batch.positions.sum()) + batch.nodes for batch in batches)
        return c["num_hidden_layers"] * (2 * layer * nodes + 4 * heads * seen)

    def ready(self, sequences: Sequences, repeats: int = 3) -> tuple[float, float, int]:
        """Return texts/s, share of peak and nodes with the batches built beforehand."""
        batches = list(self.encoder.packing.batches(sequences))
        seconds = timed(lambda: [self.encoder.features(batch) for batch in batches], repeats)
        nodes = sum(batch.nodes for batch in batches)
        return len(sequences) / seconds, self.flops(batches) / seconds / self.peak, nodes


def on_gpu(options: argparse.Namespace, results: Results) -> None:
    """Qwen3-0.6B's shape: exactness, share of peak, a profile, sentence-transformers, steady state, whole processes."""
    texts = clinc(options.clinc)
    resident(texts, options, results)
    torch.cuda.empty_cache()
    theirs = rival(options.checkpoint, texts[::2], results) if "rival" in options.parts else {}
    if "steady" in options.parts:
        steady(resolve(str(options.checkpoint)), texts, options, theirs, results)
    if "process" in options.parts:
        whole_processes(options, results)
    if "memory" in options.parts:
        memory(resolve(str(options.checkpoint)), texts, options, results)


def resident(texts: list[str], options: argparse.Namespace, results: Results) -> None:
    """What one loaded encoder does: how exactly, and how fast with its batches ready."""
    gpu = Gpu(options.checkpoint)
    results.add("matrix-product peak, bfloat16", gpu.peak / 1e12, "TFLOP/s", torch.cuda.get_device_name())
    some, everything = gpu.tokenizer.encode(texts[::100]), gpu.tokenizer.encode(texts)
    if "exact" in options.parts:
        exactness(gpu, some, options.checkpoint, results)
    rate, share, nodes = gpu.ready(everything)
    results.add("CLINC eager, batches ready", rate, "texts/s", f"{share:.1%} of peak, {nodes:,} nodes")
    began = time.perf_counter()
    gpu.encoder.compile(everything)
    results.add("compiling", time.perf_counter() - began, "s", "; ".join(gpu.encoder.notes))
    if "exact" in options.parts:
        exactness(gpu, some, options.checkpoint, results)
    shapes(gpu, everything, results)
    # what `steady` embeds, as often as it does
    rate, share, nodes = gpu.ready(gpu.tokenizer.encode(sorted(with_words(texts))), repeats=1)
    results.add(f"CLINC plain x {len(WORDS)}, batches ready", rate, "texts/s", f"{share:.1%} of peak, {nodes:,} nodes")
    if "profile" in options.parts:
        profile(gpu, results)


def exactness(gpu: Gpu, sequences: Sequences, folder: Path, results: Results) -> None:
    """Compare with a float32 forward of each text alone; transformers' own bfloat16 forward of each beside it."""
    from transformers import AutoModel

    found = torch.empty(len(sequences), gpu.config["hidden_size"], device="cuda")
    apart = torch.empty_like(found)
    for rows, out in (
        (range(len(sequences)), found),
        (range(0, len(sequences), 2), apart),
        (range(1, len(sequences), 2), apart),
    ):
        at = np.array(rows)
        for batch in gpu.encoder.packing.batches(sequences.take(at)):
            out[torch.from_numpy(at[batch.rows]).cuda()] = gpu.encoder.features(batch)[0]
    alone = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModel.from_pretrained(folder, dtype=dtype).cuda().eval()
        with torch.inference_mode():
            ids = [sequences.ids[a:b].tolist() for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False)]
            rows = [model(torch.tensor([row], device="cuda")).last_hidden_state[0, -1].float() for row in ids]
        alone[dtype] = torch.stack(rows)
    reference = alone[torch.float32]

    def worst(features: torch.Tensor, other: torch.Tensor = reference) -> float:
        return ((features - other).norm(dim=1) / other.norm(dim=1)).max().item()

    how = "compiled" if gpu.encoder.packing.laid_out else "eager"
    results.add(f"relative error against float32 alone, trie {how}", worst(found), "", f"n = {len(sequences)}")
    results.add("relative error against float32 alone, transformers bf16", worst(alone[torch.bfloat16]), "")
    results.add(f"  the same text among other neighbours, {how}", worst(found, apart), "")


def shapes(gpu: Gpu, everything: Sequences, results: Results) -> None:
    """Batches ready: CLINC, 128-token texts and mixed lengths that share nothing."""
    generator = np.random.default_rng(0)
    rate, share, nodes = gpu.ready(everything)
    results.add("CLINC compiled, batches ready", rate, "texts/s", f"{share:.1%} of peak, {nodes:,} nodes")
    lengths = {
        "128 tokens": np.full(4096, 128),
        "16 to 2,048 tokens": np.exp(generator.uniform(*np.log([16, 2048]), 2048)),
    }
    for what, chosen in lengths.items():
        texts = Sequences.of([generator.integers(0, 150_000, n).tolist() for n in chosen.astype(int)])
        rate, share, nodes = gpu.ready(texts)
        results.add(f"{what}, nothing shared, batches ready", rate, "texts/s", f"{share:.1%} of peak, {nodes:,} nodes")


def profile(gpu: Gpu, results: Results) -> None:
    """Say which kernels the time of a full batch of 128-token texts goes to."""
    generator = np.random.default_rng(1)
    texts = Sequences.of([generator.integers(0, 150_000, 128).tolist() for _ in range(256)])
    (batch,) = gpu.encoder.packing.batches(texts)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        gpu.encoder.features(batch)
        torch.cuda.synchronize()
    kernels = sorted(trace.key_averages(), key=lambda row: -row.self_device_time_total)
    total = sum(row.self_device_time_total for row in kernels)
    results.add("profile: kernels of one batch of 128-token texts", total / 1e3, "ms")
    for row in kernels[:12]:
        results.add(f"  {row.key[:56]}", row.self_device_time_total / total * 100, "%", f"{row.count} calls")


def rival(folder: Path, texts: list[str], results: Results) -> dict[str, float]:
    """Return sentence-transformers' best texts/s, plain and with an instruction, pooling the last token."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as root:
        for path in folder.iterdir():
            (Path(root) / path.name).symlink_to(path.resolve())
        kinds = {"": "Transformer", "1_Pooling": "Pooling"}
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ]
        (Path(root) / "modules.json").write_text(json.dumps(modules))
        (Path(root) / "1_Pooling").mkdir()
        width = json.loads((folder / "config.json").read_text())["hidden_size"]
        pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
        (Path(root) / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        model = SentenceTransformer(root, device="cuda", model_kwargs={"dtype": torch.bfloat16})
    model.encode(texts[:256])
    best = {}
    for what, given in {"plain": texts, "instruction": [INSTRUCTION.format(1) + text for text in texts]}.items():
        rates = {}
        for batch in (32, 512, 1024, 2048):
            some = given[:: 8 if batch == 32 else 1]
            rates[batch] = len(some) / timed(lambda b=batch, g=some: model.encode(g, batch_size=b), 1)
        batch = max(rates, key=lambda b: rates[b])
        best[what] = rates[batch]
        results.add(f"sentence-transformers, CLINC {what}, default batch 32", rates[32], "texts/s")
        remark = f"n = {len(texts):,}"
        results.add(f"sentence-transformers, CLINC {what}, best batch {batch}", rates[batch], "texts/s", remark)
    return best


def steady(
    backbone: Backbone, texts: list[str], options: argparse.Namespace, theirs: dict[str, float], results: Results
) -> None:
    """Whole calls of `embed_missing`, features in the store at the end, start-up not counted."""
    corpora = {
        "plain": with_words(texts),
        "instruction": [INSTRUCTION.format(i) + text for i in range(len(WORDS)) for text in texts],
    }
    for what, corpus in corpora.items():
        report, rate = stored(corpus, backbone, devices="cuda")
        remark = f"n = {report.texts:,}, {report.tokens:,} tokens, {report.nodes:,} nodes"
        if theirs:
            remark = f"{rate / theirs[what]:.1f} x; {remark}"
        results.add(f"CLINC {what} x {len(WORDS)}, texts in, store out", rate, "texts/s", remark)
        results.add("  seconds by stage", report.seconds, "s", _stages(report))
    if options.texts:
        with gzip.open(options.texts, "rt") as file:
            lines = [line.rstrip("\n") for line in file]
        report, rate = stored(lines, backbone, devices="cuda")
        remark = f"n = {report.texts:,}, {report.tokens:,} tokens, {report.nodes:,} nodes; {_stages(report)}"
        results.add(f"{options.texts.name}, texts in, store out", rate, "texts/s", remark)


def _stages(report: Any) -> str:
    return ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in report.stages.items())


WHOLE = """
import sys, json, time
from pathlib import Path
began = time.perf_counter()
from cache import EmbedRequest, embed_missing
data = json.loads((Path(sys.argv[1]) / "data_full.json").read_text())
texts = [row[0] for split in ("train", "val", "test") for row in data[split]]
report = embed_missing(texts, EmbedRequest(sys.argv[2], Path(sys.argv[3]), devices="cuda"))
print(json.dumps({"computed": report.computed, "stages": report.stages, "inside": time.perf_counter() - began}))
"""


def whole_processes(options: argparse.Namespace, results: Results) -> None:
    """CLINC once, start to exit: with an empty compile cache, with a warm one, and with nothing left to do."""
    with tempfile.TemporaryDirectory() as root:
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor",
            "TRITON_CACHE_DIR": f"{root}/triton",
        }
        for what, store in (("compile cache empty", "a"), ("compile cache warm", "b"), ("nothing to do", "b")):
            began = time.perf_counter()
            arguments = [sys.executable, "-c", WHOLE, str(options.clinc), str(options.checkpoint), f"{root}/{store}"]
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in said["stages"].items())
            remark = f"{said['computed']} computed; {stages}"
            results.add(f"CLINC, a whole process, {what}", time.perf_counter() - began, "s", remark)
