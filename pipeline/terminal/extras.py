"""What some commands need beyond the core dependencies, and what to do where it is absent."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import PipelineError


def needed(module: str, package: str, extra: str) -> Any:
    """Import an optional dependency, of the package that PyPI knows by that name and that `extra` installs.

    :raises PipelineError: if it is not installed; the remedy installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PipelineError(
            f"this command needs the package {package} of the extra [{extra}], which cannot be imported ({error})",
            f"pip install 'semantic-zoom[{extra}]'",
        ) from error


def sentence_transformers() -> Any:
    """The sentence-transformers package."""
    return needed("sentence_transformers", "sentence-transformers", "export")


def faiss() -> Any:
    """The FAISS package."""
    return needed("faiss", "faiss-cpu", "retrieval")


def altair() -> Any:
    """The package that describes charts."""
    return needed("altair", "altair", "report")


def vl_convert() -> Any:
    """The package that holds what draws them."""
    return needed("vl_convert", "vl-convert-python", "report")
