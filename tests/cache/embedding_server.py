"""A server of the OpenAI embeddings protocol on loopback, with the wrong ways of answering that are to be survived."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIM = 24


def vector_of(text: str, model: str = "tiny") -> list[float]:
    seed = int.from_bytes(hashlib.blake2b(f"{model}|{text}".encode(), digest_size=8).digest())
    return np.random.default_rng(seed).normal(size=DIM).astype(np.float32).tolist()


class LoopbackServer:
    """Counts what it answered. `busy` replies of 429 or 503 come first; `odd` maps a text to what it gets instead."""

    def __init__(self, request_seconds: float = 0.0, text_seconds: float = 0.0) -> None:
        self._request_seconds, self._text_seconds = request_seconds, text_seconds
        self.answered: Counter[str] = Counter()
        self.requests, self.keys = 0, set()
        self.busy: list[int] = []
        self.odd: dict[str, object] = {}
        self.model_served = "tiny"
        self.after = lambda rows: rows  # what becomes of a reply's rows
        self.die_after: int | None = None
        self._lock = threading.Lock()
        self._server, self.port = None, 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.reply(self)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests += 1
            self.keys.add(handler.headers.get("Authorization"))
            status = self.busy.pop(0) if self.busy else 200
            if self.die_after is not None and self.requests > self.die_after:
                handler.close_connection = True
                return  # as a server that was killed: no reply
        if status != 200 or handler.path != "/v1/embeddings":
            return self._send(handler, status if status != 200 else 404, {"error": "try later"})
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        time.sleep(self._request_seconds + self._text_seconds * len(texts))
        rows = [
            {"index": i, "embedding": self.odd.get(text, vector_of(text, self.model_served))}
            for i, text in enumerate(texts)
        ]
        random.Random(self.requests).shuffle(rows)
        with self._lock:
            self.answered.update(texts)
        return self._send(handler, 200, {"data": self.after(rows), "model": asked["model"]})

    def _send(self, handler, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
