"""An endpoint as a backbone, against a server on loopback that dies and is busy, beside a loop of the `openai` client.

    python -m benchmarks.cache.endpoint --texts 3000

The server takes a fixed time per request and per text. It answers 429 now and then and is stopped and started again
half way. Prints one JSON object: texts per second of both, and how many texts were asked for more than once.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import cache
from cache.endpoint import PROBE
from tests.cache.embedding_server import LoopbackServer, vector_of

REQUEST_SECONDS, TEXT_SECONDS = 0.02, 0.0005
LOOPED = 300  # texts through the plain loop, one per request


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000)
    count = parser.parse_args().texts
    texts = [f"text number {i}" for i in range(count)]
    found: dict[str, object] = {"texts": count, "cores": os.cpu_count()}
    server = LoopbackServer(REQUEST_SECONDS, TEXT_SECONDS)
    with tempfile.TemporaryDirectory() as root:
        request = cache.EmbedRequest(f"openai:tiny?endpoint={server.url}", Path(root))
        began = time.perf_counter()
        cache.embed_missing(texts, request)
        found["texts_per_second"] = round(count / (time.perf_counter() - began))
    with tempfile.TemporaryDirectory() as root:
        server.answered.clear()
        server.busy = [200, 429, 429, 503, 200, 429] * 3
        server.die_after = server.requests + count // 300
        request = cache.EmbedRequest(f"openai:tiny?endpoint={server.url}", Path(root))
        threading.Timer(1.5, restart, [server]).start()
        report = cache.embed_missing(texts, request)
        features = cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(texts, ""))
        expected = np.array([vector_of(text) for text in texts], np.float32)
        found["stored_as_answered"] = bool((features == expected).all())
        found["asked_more_than_once"] = sum(n > 1 for text, n in server.answered.items() if text != PROBE)
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key="none")
    began = time.perf_counter()
    for text in texts[:LOOPED]:
        client.embeddings.create(model="tiny", input=text, encoding_format="float")
    found["openai_loop_texts_per_second"] = round(LOOPED / (time.perf_counter() - began))
    server.stop()
    print(json.dumps(found, indent=1))


def restart(server: LoopbackServer) -> None:
    """Start a server again that gives no reply any more."""
    server.stop()
    server.die_after = None
    server.start()


if __name__ == "__main__":
    main()
