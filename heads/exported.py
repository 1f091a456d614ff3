"""The class that models exported by earlier versions name; such a model has to be exported again."""

from __future__ import annotations

from typing import Any, NoReturn

from heads.errors import HeadsError


class ExportedHead:
    """Refuses to be loaded."""

    @classmethod
    def load(cls, *arguments: Any, **options: Any) -> NoReturn:
        """Raise HeadsError, which says what to do."""
        raise HeadsError(
            "this model was exported by an earlier version: export the run again "
            "(pipeline export --format sentence-transformers)",
            "the new folder needs sentence-transformers alone",
        )
