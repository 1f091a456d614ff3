"""`pipeline serve` and infinity-emb with the same backbone, in turn under the same clients.

    pipeline embed clinc --backbone minilm && pipeline fit-head --method joint
    python benchmarks/serving/endpoint.py --clients 64 --seconds 60 --infinity infinity/bin/python

Each client is a thread with one connection that sends a text, waits for its vector, and sends the next one. No text is
sent twice, so nothing comes from a store. Every answer is compared with the vector that the same server gives for this
text when it is alone: a wrong or a lost answer counts. Servers and clients share the machine's cores; each server runs
alone, in rounds that alternate. Prints one JSON object per round: texts per second, median and 95 % latency.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import cache

WORDS = Path(__file__).read_text().split()  # as good as any others
CHECKED = 200  # answers of a round that are compared
TOLERANCE = 1e-3  # batches of other shapes round otherwise; two texts differ by 0.1 and more


def text_of(client: int, number: int, words: int = 12) -> str:
    """A text that no other client sends, of the length of a question."""
    chosen = random.Random(client * 1_000_003 + number).choices(WORDS, k=words)
    return f"{client} {number} " + " ".join(chosen)


def ask(connection: http.client.HTTPConnection, path: str, text: str) -> np.ndarray:
    """The vector of a text."""
    body = json.dumps({"model": "model", "input": [text]})
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {said[:200]!r}")
    (found,) = json.loads(said)["data"]
    return np.asarray(found["embedding"], np.float32)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server that answers /health, until the end of the block."""
    with Path("serve.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        while process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.5)
        else:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: see serve.log")
        yield
    finally:
        process.terminate()
        process.wait(60)


def load(port: int, path: str, clients: int, seconds: float, first: int) -> dict[str, object]:
    """One round: `clients` threads for `seconds`; what was answered, how fast, and whether it was right."""
    times: list[list[float]] = [[] for _ in range(clients)]
    kept: list[list[tuple[str, np.ndarray]]] = [[] for _ in range(clients)]
    failed: list[str] = []
    end = time.perf_counter() + seconds

    def client(me: int) -> None:
        connection, number = http.client.HTTPConnection("127.0.0.1", port, timeout=60), first
        while (began := time.perf_counter()) < end:
            text, number = text_of(me, number), number + 1
            try:
                vector = ask(connection, path, text)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                failed.append(repr(error)[:200])
                connection.close()
                continue
            times[me].append(time.perf_counter() - began)
            kept[me].append((text, vector))

    threads = [threading.Thread(target=client, args=(me,)) for me in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    every = np.concatenate([np.asarray(each) for each in times])
    answers = [pair for each in kept for pair in each]
    chosen = random.Random(0).sample(answers, min(CHECKED, len(answers)))
    alone = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    wrong = sum(float(np.abs(ask(alone, path, text) - vector).max()) > TOLERANCE for text, vector in chosen)
    return {
        "texts_per_second": len(every) / took, "p50_ms": float(np.median(every) * 1000),
        "p95_ms": float(np.percentile(every, 95) * 1000), "answers": len(every), "lost": len(failed),
        "checked": len(chosen), "wrong": wrong, "errors": failed[:3],
    }  # fmt: skip


def main() -> None:
    """Start each server, load it, stop it; in as many rounds as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--infinity", help="interpreter of an environment with infinity-emb; without it, this project alone"
    )
    parser.add_argument("--method", default="joint")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    checkpoint = str(cache.resolve("minilm").source)
    for number in range(options.rounds):
        port = free_port()
        own = [
            sys.executable,
            "-m",
            "pipeline.cli",
            "serve",
            "--method",
            options.method,
            "--name",
            "model",
            "--port",
            str(port),
        ]
        servers = {"semantic-zoom": (own, "/v1/embeddings")}
        if options.infinity:
            command = f"v2 --model-id {checkpoint} --served-model-name model --engine torch --device cpu --port {port}"
            plain = ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]  # each new shape compiles anew
            start = [str(Path(options.infinity).with_name("infinity_emb")), *command.split(), *plain]
            servers["infinity-emb"] = (start, "/embeddings")
        for name, (command_line, path) in servers.items():
            with server(command_line, port):
                load(port, path, 4, 3, 10**6 + number)  # warm
                found = load(port, path, options.clients, options.seconds, number * 10**7)
            print(json.dumps({"server": name, "clients": options.clients, **found}), flush=True)


if __name__ == "__main__":
    main()
