"""What holds for every test: one thread for each library, no network, hypothesis without deadlines, cheap collections.

Several test processes share the machine. Threads of one that wait for a core spin and take it from the other: with
one thread each the suite costs a third of the CPU time and no test's outcome depends on what runs beside it. A test
whose subject is threads sets their number itself. What is imported stays: a collection of garbage need not look
through it (half a second with torch, polars and statsmodels, and statsmodels collects in every call).
"""

import contextlib
import gc
import json
import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy or torch
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import pytest
from hypothesis import settings

from tests.pipeline.warm_process import served

# A shell's job in the background ignores interrupts, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
ENVIRONMENT = dict(os.environ)  # of this process as it began: libraries set variables when they are imported
REPORT = "tests/pipeline/report/"
LONGEST = (REPORT, "tests/pipeline/export/", "tests/pipeline/")
SHORTEST = "tests/data/"
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_configure(config) -> None:
    """What calls of `pipeline` are forked from: one process for all workers, started by the one that starts them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        server = contextlib.ExitStack()
        server.enter_context(served(ENVIRONMENT))
        config.add_cleanup(server.close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file at a time, in the order below; those of the report as one, so that their page is made once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return REPORT if nodeid.startswith(REPORT) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduler(config, log)


def pytest_collection_modifyitems(items) -> None:
    """The longest files first and the shortest last, so that the workers end together."""

    def place(item) -> list[bool]:
        starts = item.nodeid.startswith
        return [*(not starts(part) for part in LONGEST), starts(SHORTEST)]

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def qwen_tokenizer(tmp_path_factory) -> Path:
    """A folder with Qwen3's tokenizer where PIPELINE_QWEN_TOKENIZER names one, else one of bytes with its end token."""
    if named := os.environ.get("PIPELINE_QWEN_TOKENIZER"):
        return Path(named)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder, end = tmp_path_factory.mktemp("qwen-tokenizer"), "<|endoftext|>"
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({**letters, end: 151643}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([end])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
