"""Embeddings whose short prefixes answer coarse questions: one object that is fitted, searched, saved and loaded.

    from semantic_zoom import Zoom

    zoom = Zoom.fit(texts, labels, backbone="minilm")
    zoom.encode(texts, dim=64)
    zoom.predict(texts)
    zoom.search("a broken wrist", dim=64)
    zoom.save("zoom")

It stands on four packages with everyday names: cache, heads, data and pipeline. A file of such a name beside a script
would be found first, so here they are loaded from their own folder before anything else looks for them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semantic_zoom.estimator import ZoomTransformer
    from semantic_zoom.zoom import Hit, Prediction, Zoom

__all__ = ["Hit", "Prediction", "Zoom", "ZoomTransformer"]

_HOME = Path(__file__).resolve().parent.parent


def _load_own(name: str) -> None:
    """Make sure that a package of this project is the one that `import name` gives."""
    own = _HOME / name / "__init__.py"
    loaded = sys.modules.get(name)
    if loaded is not None:
        if Path(str(getattr(loaded, "__file__", None) or "")).resolve() != own:
            raise ImportError(
                f"{getattr(loaded, '__file__', None) or name} has the name of a package that semantic_zoom needs: "
                "rename it, or import semantic_zoom first"
            )
        return
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None and Path(found.origin).resolve() == own:
        return
    spec = importlib.util.spec_from_file_location(name, own, submodule_search_locations=[str(own.parent)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if found is not None and found.origin is not None:
        warnings.warn(
            f"{found.origin} has the name of a package that semantic_zoom needs, so `import {name}` now gives that "
            "package: rename the file if you import it yourself",
            stacklevel=3,
        )


for _name in ("cache", "data", "heads", "pipeline"):
    _load_own(_name)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use: the estimator needs scikit-learn, `Zoom` does not."""
    if name not in __all__:
        raise AttributeError(f"module 'semantic_zoom' has no attribute {name!r}")
    from importlib import import_module

    module = import_module("semantic_zoom.estimator" if name == "ZoomTransformer" else "semantic_zoom.zoom")
    value = getattr(module, name)
    globals()[name] = value
    return value
