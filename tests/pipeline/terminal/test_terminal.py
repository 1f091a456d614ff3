"""What a person reads: whole at 80 columns, without colour, in a pipe, and where letters are few."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from pipeline.evaluation.scores import Identity, LevelScore, PrefixScore, Score
from pipeline.terminal.tables import score_table


@pytest.mark.parametrize("command", ["score", "compare", "runs list", "cache list"])
def test_tables_fit_80_columns_whole_and_without_colour(fitted, command):
    done = fitted(*command.split(), COLUMNS="80", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line for line in lines if line[:1] in "│┃┏┡├└ "]
    assert len(table) > 3
    assert max(map(len, table)) <= 80
    if command == "cache list":
        assert re.search(r" \d{4}-\d{2}-\d{2} *$", done.stdout, re.MULTILINE), "the day of the last use is cut"
    assert not [line for line in table if "…" in line]
    assert all(line.count("[") == line.count("]") for line in table), "an interval is broken over two lines"
    assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_without_the_letters_shows_a_question_mark_instead_of_failing(fitted):
    done = fitted("score", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert " ? " in done.stdout


@pytest.mark.parametrize("command", ["--help", "data list", "data list --json"])
def test_a_pipe_that_nobody_reads_ends_it_quietly_as_the_signal_would(tmp_path, command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *command.split()],
        env={**os.environ, "PIPELINE_ARTIFACTS": str(tmp_path)},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_leaves_a_long_text_ends_it_as_the_signal_would():
    code = (
        "from pipeline.terminal.console import Console; "
        "Console(as_json=False).write('line\\n' * 400_000); print('went on')"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.readline() == b"line\n"
    writer.stdout.close()
    assert (writer.stderr.read(), writer.wait(60)) == (b"", 141)


def test_three_levels_of_which_all_is_right_fit_80_columns():
    levels = tuple(LevelScore(level, 1.0, (0.832, 1.0), 1.0, 1.0, None, 20) for level in range(3))
    prefixes = tuple(PrefixScore(i + 1, dim, levels) for i, dim in enumerate((64, 128)))
    features = Identity(None, "small", "minilm", 6, "features", None, None, untrained=True)
    score = Score(features, "gallery", 5, 100, 20, 1, prefixes, *[None] * 6, smallest_prefix=(64,) * 3)
    console = Console(file=io.StringIO(), width=80)
    console.print(score_table([score], ("kind", "group", "thing")))
    assert console.file.getvalue().count("100 [83.2, 100]") == 6
