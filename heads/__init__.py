"""Features and labels to heads: modules, losses, methods, the fit loop, checkpoints.

Names are imported when first used, so that `import heads` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.errors import HeadsError
    from heads.fitting import FitProgress, FitResult, fit, fit_many
    from heads.head import FractalHead, load, save
    from heads.methods import METHODS, hyperparameters

_HOMES = {
    "METHODS": "methods",
    "FitProgress": "fitting",
    "FitResult": "fitting",
    "FractalHead": "head",
    "HeadsError": "errors",
    "fit": "fitting",
    "fit_many": "fitting",
    "hyperparameters": "methods",
    "load": "head",
    "save": "head",
}

__all__ = [
    "METHODS",
    "FitProgress",
    "FitResult",
    "FractalHead",
    "HeadsError",
    "fit",
    "fit_many",
    "hyperparameters",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    value = getattr(import_module(f"heads.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
