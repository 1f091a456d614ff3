"""Requests to a server that speaks the OpenAI embeddings protocol: placed by index, retried, never with the key shown.

A reply that is short, doubled or out of range is refused as a whole; answers are placed by their `index`, in whatever
order they come. 429, 5xx and a server that cannot be reached are asked again, after a wait that doubles, or as long as
`Retry-After` says; everything else ends the run with the server's own message. The key comes from OPENAI_API_KEY, goes
to the URL that was named and nowhere else (redirects are refused), and stands in no message. Python's own HTTP client
suffices: a request takes the server longer than it takes this package.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError

KEY_VARIABLE = "OPENAI_API_KEY"
_SECONDS = 300.0  # for one reply
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 20.0
_PATIENCE = 180.0  # seconds of waits between tries of one request
_SHOWN = 200


class EmbeddingServer:
    """One model on one server; may be used by several threads."""

    def __init__(self, model: str, url: str) -> None:
        """Contact nobody yet.

        :param url: the base, such as http://localhost:8080/v1, or the full path of `/embeddings`.
        :raises CacheError: it is no http or https URL, or holds a user or a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise CacheError(f"endpoint {url!r} is no URL: {error}", "check its spelling") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or url.split() != [url]:
            raise CacheError(f"endpoint {url!r} is no http or https URL", "name one such as http://localhost:8080/v1")
        if parts.username or parts.password:
            raise CacheError(
                "the endpoint's URL holds a user or a password", f"put the key into {KEY_VARIABLE} instead"
            )
        self.model, self.url = model, url
        self._parts, self._port = parts, port
        path = parts.path.rstrip("/")
        self._path = path if path.endswith("/embeddings") else f"{path}/embeddings"
        self._path += f"?{parts.query}" if parts.query else ""
        self._stopped = threading.Event()

    def close(self) -> None:
        """Let no thread try again."""
        self._stopped.set()

    def vector(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text, float32 [D].

        :raises CacheError: as `answers`; or the answer is no vector of finite numbers.
        """
        found = as_vector(self.answers([text])[0])
        if isinstance(found, str):
            raise CacheError(
                f"{self.model} at {self.url} answers {text[:60]!r} with {found}",
                "serve a model that gives one vector per text",
            )
        return found

    def answers(self, texts: Sequence[str]) -> list[Any]:
        """Return what the server gives as `embedding` for each text, in their order.

        :raises CacheError: the server refuses, cannot be reached for minutes, or its reply is not one answer per text.
        """
        waited, pause = 0.0, _FIRST_WAIT
        while True:
            reason, asked_for = "", None
            try:
                status, asked_for, content = self._post(texts)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if status == http.client.OK:
                    return self._placed(content, len(texts))
                reason = f"HTTP {status}: {self._message(content)}"
                if status != http.client.TOO_MANY_REQUESTS and status < http.client.INTERNAL_SERVER_ERROR:
                    raise self._refused(reason, f"check the URL, the model's name and {KEY_VARIABLE}")
            pause_now = min(asked_for or pause, _LONGEST_WAIT)
            if waited + pause_now > _PATIENCE or self._stopped.wait(pause_now):
                raise self._refused(reason, "run again when it answers: what was answered is stored")
            waited, pause = waited + pause_now, 2 * pause

    def _post(self, texts: Sequence[str]) -> tuple[int, float | None, bytes]:
        """Return status, seconds to wait as the server asks, and body of one try."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._port, timeout=_SECONDS)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(KEY_VARIABLE, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        body = json.dumps({"model": self.model, "input": list(texts), "encoding_format": "float"})
        try:
            connection.request("POST", self._path, body.encode(), headers)
            reply = connection.getresponse()
            stated = reply.getheader("Retry-After", "")
            return reply.status, float(stated) if stated.isdecimal() else None, reply.read()
        finally:
            connection.close()

    def _placed(self, content: bytes, count: int) -> list[Any]:
        """Return the answers of a reply in the order of their texts."""
        try:
            rows = json.loads(content)["data"]
            found = {row["index"]: row["embedding"] for row in rows}
        except (ValueError, LookupError, TypeError, RecursionError):
            raise self._refused("the reply is not that of an embeddings endpoint", "check the URL") from None
        numbers = [row["index"] for row in rows]
        if len(rows) != count or set(map(repr, numbers)) != set(map(repr, range(count))):
            raise self._refused(
                f"{len(rows)} answers ({len(found)} of them different) came for {count} texts",
                "serve the model in another way: answers cannot be told to their texts",
            )
        return [found[number] for number in range(count)]

    def _message(self, content: bytes) -> str:
        """Return the server's own message, short, in one line, without the key."""
        text = " ".join(content.decode("utf-8", "replace").split())[:_SHOWN]
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return text.replace(key, "(key)") if key else text

    def _refused(self, reason: str, remedy: str) -> CacheError:
        return CacheError(f"{self.model} at {self.url}: {reason}", remedy)


def as_vector(answer: Any) -> NDArray[np.float32] | str:
    """Return an answer as float32 [D]; what it is instead, in words, where it is no vector of finite numbers."""
    if not isinstance(answer, list) or not answer:
        return f"{type(answer).__name__}, not a list of numbers"
    if isinstance(answer[0], list):
        return f"{len(answer)} vectors, one per token, instead of one"
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in answer):
        return "a list that holds other things than numbers"
    try:
        with np.errstate(over="ignore"):
            found = np.array(answer, np.float32)
    except OverflowError:
        return "numbers that are not finite"
    return found if np.isfinite(found).all() else "numbers that are not finite"
