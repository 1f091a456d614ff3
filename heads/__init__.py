"""Features and labels to heads: modules, losses, methods, the fit loop, checkpoints.

Names are imported when first used, so that `import heads` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.checkpoint import load, save
    from heads.checkpoint_files import check
    from heads.choosing import Choice
    from heads.errors import HeadsError
    from heads.fitting import FitProgress, FitResult, choose, fit, fit_many
    from heads.head import FractalHead
    from heads.logistic import LogisticRegression, fit_logistic
    from heads.methods import METHODS, head_of, hyperparameters, is_chosen, is_closed_form

_MODULES = {
    "checkpoint": "load save",
    "checkpoint_files": "check",
    "choosing": "Choice",
    "errors": "HeadsError",
    "fitting": "FitProgress FitResult choose fit fit_many",
    "head": "FractalHead",
    "logistic": "LogisticRegression fit_logistic",
    "methods": "METHODS head_of hyperparameters is_chosen is_closed_form",
}
__all__ = " ".join(_MODULES.values()).split()


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(import_module(f"heads.{module}"), name)
    raise AttributeError(f"module 'heads' has no attribute {name!r}")
