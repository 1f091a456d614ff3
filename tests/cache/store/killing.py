"""Work in other processes: several at a time, or one that is killed at a chosen step of what it does to files."""

import os
import signal
import sys
import traceback
from pathlib import Path

# every system call that a commit, a compaction or a repair makes goes through one of these
STEPS = ((os, ("open", "fsync", "pwrite", "preadv")), (Path, ("open", "rename", "unlink", "mkdir", "touch")))


def killed_at(step, function, *arguments):
    """Run `function` in another process that kills itself at its n-th step; return whether it died there."""
    status = _wait(_start(_armed, step, function, *arguments))
    assert status in (0, -signal.SIGKILL), "it failed instead of dying"
    return status != 0


def together(*calls):
    """Run the `(function, *arguments)` at the same time, each in a process of its own; all must succeed."""
    children = [_start(*call) for call in calls]
    assert [_wait(child) for child in children] == [0] * len(calls)


def _start(function, *arguments):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def _wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _armed(step, function, *arguments):
    _arm(step)
    function(*arguments)


def _arm(step):
    counted = 0

    def killing(original):
        def call(*arguments, **named):
            nonlocal counted
            counted += 1
            if counted == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return call

    for owner, functions in STEPS:
        for name in functions:
            setattr(owner, name, killing(getattr(owner, name)))
