"""The `pipeline` command: a table of its commands, and what happens when one is called wrongly or interrupted."""

from __future__ import annotations

import gc
import signal
import sys

import click

from pipeline.errors import PipelineError
from pipeline.own_packages import check_own_packages

try:
    check_own_packages()
except PipelineError as error:
    sys.exit(f"error: {error}\n   do: {error.remedy}")

from pipeline.terminal.command import LazyGroup
from pipeline.terminal.console import Console

COMMANDS = {
    "run": ("pipeline.commands.run", "Every stage with good defaults: embed, fit, score, then what to choose."),
    "embed": ("pipeline.commands.embed", "Compute the missing features of a dataset, once."),
    "fit-head": ("pipeline.commands.fit_head", "Train heads on stored features."),
    "score": ("pipeline.commands.score", "Accuracy of each prefix on each level, with intervals."),
    "compare": ("pipeline.commands.compare", "Methods against each other over seeds, with tests and effect sizes."),
    "sweep": ("pipeline.commands.sweep", "Methods x seeds x heads x settings on stored features; skips what is done."),
    "reproduce": ("pipeline.commands.reproduce", "The published claims against what is measured here."),
    "encode": ("pipeline.commands.encode", "New texts through backbone and head, to Parquet."),
    "cost": ("pipeline.commands.cost", "FLOPs, bytes and seconds of training, encoding, search and storage."),
    "report": ("pipeline.commands.report", "Everything measured, as one HTML page that opens from disk."),
    "retrieve": ("pipeline.commands.retrieve", "Two-stage search by prefixes: quality, latency, FLOPs, bytes."),
    "search": ("pipeline.commands.search", "Texts nearest to yours at each prefix, with their labels."),
    "export": (
        "pipeline.commands.export",
        "A run for use elsewhere: sentence-transformers, ONNX, Parquet, FAISS.",
    ),
    "serve": ("pipeline.commands.serve", "A run behind the OpenAI embeddings protocol."),
    "data": ("pipeline.commands.data", "Look at datasets: list, show, check, convert."),
    "cache": ("pipeline.commands.cache", "Look after stored features: list, verify, compact, prune."),
    "runs": ("pipeline.commands.runs", "Look at trained heads: list, show."),
    "doctor": ("pipeline.commands.doctor", "What this machine has, what is missing, what to do."),
}

EPILOG = """\b
Begin with:
  pipeline run mine.csv --backbone minilm    (your file: columns text, level0, level1)
  pipeline run icd10cm --backbone minilm     (no hub, no download of data)
  pipeline embed clinc --backbone minilm     (then fit-head and score)"""


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="semantic-zoom")
def cli() -> None:
    """Can one embedding serve coarse and fine search, and which training makes it so?

    A frozen encoder's features are computed once (embed), small heads are trained on them in seconds (fit-head), and
    every prefix of their embeddings is scored on every level of a label hierarchy (score).
    """


def _remedy(error: click.UsageError) -> str:
    """What to do about a wrong call: what is missing is best shown, what is misplaced is put in its place."""
    path = error.ctx.command_path if error.ctx is not None else "pipeline"
    called = error.ctx.command if error.ctx is not None else None
    example = getattr(called, "example", "")
    if isinstance(error, click.MissingParameter) and example:
        return f"for example: {example} (all there is to say: {path} --help)"
    if isinstance(error, click.NoSuchOption) and error.option_name in ("--artifacts", "--json", "--debug"):
        value = " DIR" if error.option_name == "--artifacts" else ""
        return f"put {error.option_name} behind the command, as in: pipeline score {error.option_name}{value}"
    return f"{path} --help"


def main() -> None:
    """Runs the command line; exit status 0, 1 (failed), 2 (wrong usage) or 141 (nobody reads the output any more)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(50_000)  # importing torch and polars makes objects that stay: at 700 they are looked through often
    console = Console(as_json=False)
    try:
        cli.main(prog_name="pipeline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        console.error(error.format_message(), _remedy(error))
        sys.exit(2)
    except click.ClickException as error:
        console.error(error.format_message(), "pipeline --help")
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        for second in (signal.SIGINT, signal.SIGTERM):  # ends the process at once, whatever it still waits for
            signal.signal(second, signal.SIG_DFL)
        console.error("interrupted", "run the same command again: what was stored is kept, only the rest is done")
        sys.exit(1)
    finally:
        gc.freeze()  # the interpreter need not look through all that is left before it ends: 0.4 s with torch


if __name__ == "__main__":
    main()
