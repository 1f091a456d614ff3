"""An endpoint as a backbone beside a plain loop of the `openai` client: a server that dies and is busy, or a real one.

    python -m benchmarks.cache.endpoint --texts 3000
    python -m benchmarks.cache.endpoint --texts 3000 --url http://127.0.0.1:7997 --model minilm

Without `--url` a loopback server takes a fixed time per request and per text; it answers 429 now and then and is
stopped and started again half way. Prints one JSON object: texts per second of both, how many texts were asked for more
than once, and of a real server the largest difference between a stored vector and the loop's answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import cache
from cache.endpoint import PROBE
from tests.cache.embedding_server import LoopbackServer, vector_of

REQUEST_SECONDS, TEXT_SECONDS = 0.02, 0.0005
LOOPED = 300  # texts through the plain loop, per request one or BATCH
BATCH = 32
WORDS = Path(__file__).read_text().split()  # as good as any others


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--url", help="a server that runs, instead of the loopback one")
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    draw = random.Random(0)
    texts = [f"{i} " + " ".join(draw.choices(WORDS, k=10)) for i in range(options.texts)]
    found: dict[str, object] = {"texts": len(texts), "cores": os.cpu_count()}
    if options.url:
        found |= rates(options.url, options.model, texts)
    else:
        server = LoopbackServer(REQUEST_SECONDS, TEXT_SECONDS)
        found |= rates(server.url, options.model, texts) | through_failures(server, texts)
        server.stop()
    print(json.dumps(found, indent=1))


def rates(url: str, model: str, texts: list[str]) -> dict[str, object]:
    """Texts per second here and of the `openai` client, and how far their vectors are apart."""
    from openai import OpenAI

    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        report = cache.embed_missing(texts, cache.EmbedRequest(f"openai:{model}?endpoint={url}", Path(root)))
        found: dict[str, object] = {"texts_per_second": len(texts) / (time.perf_counter() - began)}
        stored = cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(texts[:LOOPED], ""))
    client, worst = OpenAI(base_url=url, api_key="none"), 0.0
    for size in (1, BATCH):
        began = time.perf_counter()
        for start in range(0, LOOPED, size):
            part = texts[start : min(start + size, LOOPED)]
            answer = client.embeddings.create(model=model, input=part, encoding_format="float")
            vectors = np.array([row.embedding for row in answer.data])
            worst = max(worst, float(np.abs(vectors - stored[start : start + len(part)]).max()))
        found[f"openai_loop_of_{size}_texts_per_second"] = LOOPED / (time.perf_counter() - began)
    return {**found, "largest_difference": worst}


def through_failures(server: LoopbackServer, texts: list[str]) -> dict[str, object]:
    """What is stored and what was asked twice after 429, 5xx and a restart."""
    with tempfile.TemporaryDirectory() as root:
        server.answered.clear()
        server.busy = [200, 429, 429, 503, 200, 429] * 3
        server.die_after = server.requests + len(texts) // 300
        request = cache.EmbedRequest(f"openai:tiny?endpoint={server.url}", Path(root))
        threading.Timer(1.5, restart, [server]).start()
        report = cache.embed_missing(texts, request)
        features = cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(texts, ""))
    expected = np.array([vector_of(text) for text in texts], np.float32)
    return {
        "stored_as_answered": bool((features == expected).all()),
        "asked_more_than_once": sum(n > 1 for text, n in server.answered.items() if text != PROBE),
    }


def restart(server: LoopbackServer) -> None:
    """Start a server again that gives no reply any more."""
    server.stop()
    server.die_after = None
    server.start()


if __name__ == "__main__":
    main()
