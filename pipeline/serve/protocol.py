"""The OpenAI embeddings protocol: what a request may say, and how it is refused.

Everything here is a function of the request's bytes. An error names the field and never repeats its content, so that no
text of a caller reaches a log or another caller.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Limits:
    """What one request may bring: bytes of body, texts, and tokens of all texts before they are cut."""

    body: int = 8 << 20
    texts: int = 2048
    tokens: int = 300_000


class RequestError(Exception):
    """A refused request: HTTP status, and the fields of the protocol's error."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_json(self) -> dict[str, Any]:
        """Spell it out as OpenAI does."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Asked:
    """A request that can be answered: texts, prefix length, and whether vectors go back as base64 of float32."""

    texts: tuple[str, ...]
    dim: int
    as_base64: bool


def read_request(body: bytes, model: str, dims: Sequence[int], limits: Limits) -> Asked:
    """Check the body of a request for embeddings or labels.

    :param model: the one model there is.
    :param dims: prefix lengths, the full vector last.
    :raises RequestError: if it cannot be answered.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # of UTF-8 too
        raise RequestError(400, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise RequestError(400, "the body is not a JSON object")
    if not isinstance(asked.get("model", model), str):
        raise RequestError(400, "model must be a string", param="model")
    if asked.get("model", model) != model:
        raise RequestError(404, f"there is one model here: {model}", param="model", code="model_not_found")
    dim = asked.get("dimensions")
    dim = dims[-1] if dim is None else dim
    if isinstance(dim, bool) or dim not in dims:
        raise RequestError(400, f"dimensions must be one of {', '.join(map(str, dims))}", param="dimensions")
    encoding = asked.get("encoding_format")
    encoding = "float" if encoding is None else encoding
    if encoding not in ("float", "base64"):
        raise RequestError(400, "encoding_format must be float or base64", param="encoding_format")
    return Asked(_texts(asked.get("input"), limits), int(dim), encoding == "base64")


def _texts(given: Any, limits: Limits) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise RequestError(400, "input must be a string or a list of strings", param="input")
    if len(texts) > limits.texts:
        raise RequestError(400, f"input has {len(texts):,} texts, at most {limits.texts:,} go at once", param="input")
    for place, text in enumerate(texts):
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise RequestError(
                400, f"input[{place}] holds token ids, and the tokenizer here is another one: send text", param="input"
            )
        if not isinstance(text, str) or not any(map(_is_seen, text)):
            raise RequestError(400, f"input[{place}] is not a text", param="input")
        if not _is_unicode(text):
            raise RequestError(400, f"input[{place}] is not Unicode text (a lone surrogate)", param="input")
    return tuple(texts)


def _is_seen(character: str) -> bool:
    """Whether a character is neither white space nor control or format, as everywhere that texts are read."""
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def embeddings_reply(vectors: NDArray[np.float32], asked: Asked, model: str, tokens: int) -> dict[str, Any]:
    """Answer with vectors, in the order of the texts."""
    rows = [
        base64.b64encode(row.astype("<f4").tobytes()).decode() if asked.as_base64 else row.tolist() for row in vectors
    ]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def labels_reply(
    paths: NDArray[np.int64], confidences: NDArray[np.float32], levels: Sequence[str], classes: Sequence[Sequence[str]],
    model: str, tokens: int,
) -> dict[str, Any]:  # fmt: skip
    """Answer with a label path per text: label and probability per level, coarsest first; -1 ends a path."""
    data = [
        {
            "object": "labels",
            "index": index,
            "labels": [
                {"level": level, "label": names[number], "confidence": sure}
                for level, names, number, sure in zip(levels, classes, path, confidence, strict=True)
                if number >= 0
            ],
        }
        for index, (path, confidence) in enumerate(zip(paths.tolist(), confidences.tolist(), strict=True))
    ]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
