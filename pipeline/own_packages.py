"""`cache`, `heads` and `data` are common names: a module or folder of the user's own may hide them.

Python searches the folder of a script, or with `python -m` the current one, before the installed packages. What it
would find is compared with what lies beside this package, without importing anything, in well under a millisecond.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipeline.errors import PipelineError

OURS = ("cache", "data", "heads")


def check_own_packages() -> None:
    """Refuses to go on where another module bears one of our packages' names.

    :raises PipelineError: names the file or folder that Python would import in its place.
    """
    root = Path(__file__).resolve().parent.parent
    for name in OURS:
        found = importlib.util.find_spec(name)
        places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
        paths = [Path(place).resolve() for place in places if place]
        if root / name / "__init__.py" not in paths:
            what = paths[0] if paths else "nothing"
            raise PipelineError(
                f"{what} is what Python imports as {name!r}, and it hides the {name} of semantic-zoom in {root}",
                "rename it, or call the installed `pipeline` command from another folder",
            )
