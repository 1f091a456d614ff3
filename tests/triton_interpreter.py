"""Where tests of Triton's kernels run: on a GPU where there is one, else in Triton's interpreter, in a process apart.

Triton decides when it is first imported whether it interprets, and another test may have imported it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
can_run = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="no GPU: run in the interpreter's process")
starts_it = pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the kernels run in this process")


def interpreted(file: str) -> str:
    """Runs a test file there, which must pass; what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, file], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout
