"""What some commands need beyond the core dependencies, and what to do where it is absent."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import PipelineError

_PACKAGES = {
    "altair": ("altair", "report"),
    "faiss": ("faiss-cpu", "retrieval"),
    "onnxruntime": ("onnxruntime", "export"),
    "sentence_transformers": ("sentence-transformers", "export"),
    "starlette": ("starlette", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "vl_convert": ("vl-convert-python", "report"),
}
"""Of each module the package on PyPI, and the extra that installs it."""


def needed(module: str) -> Any:
    """Import an optional dependency, a key of the table above.

    :raises PipelineError: if it is not installed; the remedy installs what the extra holds.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = _PACKAGES[module]
        raise PipelineError(
            f"this command needs the package {package} of the extra [{extra}], which cannot be imported ({error})",
            f"pip install {' '.join(name for name, of in _PACKAGES.values() if of == extra)}",
        ) from error
