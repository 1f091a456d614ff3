"""The class that models exported by earlier versions name; such a model has to be exported again."""

from __future__ import annotations

from typing import Any, NoReturn

from pipeline.errors import PipelineError


class PackedTransformer:
    """Refuses to be loaded."""

    @classmethod
    def load(cls, *arguments: Any, **options: Any) -> NoReturn:
        """Say what to do.

        :raises PipelineError: always.
        """
        raise PipelineError(
            "this model was exported by an earlier version: export the run again "
            "(pipeline export --format sentence-transformers)",
            "the new folder needs sentence-transformers alone",
        )
