"""What every command shares: `--json`, `--artifacts`, `--debug`, an example in `--help`, and one way to fail.

A command is a function of a `Session` and its own options that returns the JSON object of `--json`. It raises; the
wrapper here turns what it raises into one line that says what is wrong, one that says what to do, and exit status 1.
"""

from __future__ import annotations

import difflib
import errno
import functools
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.console import Console, reader_may_leave

if TYPE_CHECKING:
    from pipeline.workspace.artifacts import Artifacts

Function = Callable[..., Any]

_OS_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: what is done stays done",
    errno.EDQUOT: "free some space and run the same command again: what is done stays done",
    errno.EFBIG: "raise the file-size limit (ulimit -f) and run the same command again: what is done stays done",
    errno.EACCES: "make the path readable and writable for you, or name another --artifacts",
    errno.EROFS: "name an --artifacts folder on a writable file system",
    errno.ENOENT: "check the path",
    errno.EEXIST: "a file, or a link to nothing, stands where a folder is needed: move it or name another path",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "a link leads to itself: name the place itself",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it or name another path",
}


_TEXT = re.compile(r"-(?!-[a-z-]+=)\S*\s")
"""A word that begins with a dash and holds a space, but not such as `--dataset=a b`."""


@dataclass(frozen=True)
class Session:
    """What a running command works with."""

    artifacts: Artifacts
    console: Console


def command(name: str, *, example: str) -> Callable[[Function], click.Command]:
    """Makes a `pipeline` command out of `function(session, **options) -> JSON object`."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def guarded(*, as_json: bool, artifacts: Path, debug: bool, **options: Any) -> None:
            from pipeline.workspace.artifacts import Artifacts  # brings polars, which --help can do without

            console = Console(as_json)
            try:
                with console.saying_what_is_logged():
                    result = function(Session(Artifacts(artifacts), console), **options)
                if as_json:
                    console.emit(result)
            except (click.ClickException, click.Abort, click.exceptions.Exit):
                raise
            except Exception as error:
                if debug:
                    traceback.print_exc()
                console.error(*_explain(error))
                sys.exit(1)

        epilog = f"\b\nExample:\n  {example}"
        made = click.command(name, cls=_Command, epilog=epilog, context_settings={"max_content_width": 100})(guarded)
        made.params.extend(_shared_options())
        made.example = example
        return made

    return decorate


class _Command(click.Command):
    """A command whose arguments may begin with a dash, such as the text "-1 degrees"."""

    example = ""
    """How it is called, for someone who called it without what it needs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Words with a space in them are no options, unless they give an option its value."""
        texts = [word for word in args if _TEXT.match(word)] if "--" not in args else []
        return super().parse_args(
            ctx, [*(word for word in args if word not in texts), *(["--", *texts] if texts else [])]
        )


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(["as_json", "--json"], is_flag=True, help="Print one JSON object on stdout; all else on stderr."),
        click.Option(
            ["--artifacts"],
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("artifacts"),
            envvar="PIPELINE_ARTIFACTS",
            show_default=True,
            show_envvar=True,
            help="Folder of features, runs and reports.",
        ),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of a failure."),
    ]


def _explain(error: Exception) -> tuple[str, str]:
    remedy = getattr(error, "remedy", None)
    if isinstance(remedy, str):
        return str(error), remedy
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno)}{where}", _OS_REMEDIES.get(error.errno, "run again with --debug for more")
    return f"{type(error).__name__}: {error}", "this was not foreseen: run again with --debug and report what it prints"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: `pipeline --help` must not wait for torch."""

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """`commands_at` maps a command's name to its module and its short help."""
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Help and version are printed in here; click alone would end with 1 where nobody reads them."""
        with reader_may_leave():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Likewise for the help of a command; what a command does catches its own errors."""
        with reader_may_leave():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command."""
        if cmd_name not in self._commands_at:
            return None
        found: click.Command = importlib.import_module(self._commands_at[cmd_name][0]).COMMAND
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; a misspelt one is told from the nearest."""
        near = [] if args[0] in self._commands_at else difflib.get_close_matches(args[0], self._commands_at, n=1)
        if near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in self._commands_at.items()])
