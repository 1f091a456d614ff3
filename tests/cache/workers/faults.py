"""Ways for an embedding process to go wrong, in the process itself: started instead of its own work.

Environment: `FAULT_FILE` names a file that the first process to fail creates, so that no second one does.
"""

import os
import signal
import time

from cache.errors import DeviceError
from cache.workers import embed_processes

POISON = "Z"
_POISON_ID = 4 + ord(POISON) - ord("!")  # the tests' tokenizer has a token a byte
_SERVE = embed_processes._serve


def dies_of_a_text(channel, job):
    """Killed by whatever computes a text with the poison letter."""
    return _computing(lambda batch: _die() if (batch.ids == _POISON_ID).any() else None, channel, job)


def dies_at_its_third_batch(channel, job):
    return _computing(_at_the_third(_die), channel, job)


def dies_once(channel, job):
    """Killed at its third batch, unless another was."""
    return _computing(_at_the_third(lambda: _die() if _first() else None), channel, job)


def has_no_room_once(channel, job):
    """The first device has no room for the backbone."""
    if _first():
        raise DeviceError(f"no room on {job.device}", "free it")
    return _SERVE(channel, job)


def loses_its_gpu(channel, job):
    import torch

    def fail():
        if _first():
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"
            )

    return _computing(_at_the_third(fail), channel, job)


def poisons_its_context(channel, job):
    """A real fault: after an index beyond its tensor no kernel of this process runs any more."""
    import torch

    def fail():
        if _first():
            torch.zeros(1, device=job.device)[torch.full((1,), 1 << 20, device=job.device)].sum().item()

    return _computing(_at_the_third(fail), channel, job)


def runs_out_of_memory(channel, job):
    """From its third batch on there is room for nothing."""
    import torch

    torch.cuda.empty_cache = lambda: None
    out = False

    def fail():
        nonlocal out
        out = out or _first()
        if out:
            raise torch.OutOfMemoryError

    return _computing(_at_the_third(fail), channel, job)


def dies_before_its_rows_are_committed(channel, job):
    """Killed when everything is computed and its last rows are not on the disk yet."""
    from cache.store.writer import ShardWriter

    honest = ShardWriter.flush

    def flush(self):
        if self.rows > self.committed and _first():
            _die()
        honest(self)

    ShardWriter.flush = flush
    return _SERVE(channel, job)


def fails_by_a_defect(channel, job):
    return {}["a key that is not there"]


def tidies_up(channel, folder):
    """Work without end, which takes a second to put away when it is told to stop."""
    try:
        channel.send("ready")
        time.sleep(60)
    finally:
        time.sleep(1)
        (folder / str(os.getpid())).touch()


def goes_quietly(channel, how):
    """Ends without a word: its pipe closes, and `how` says what comes of the process."""
    channel._connection.close()
    if how == "stays":
        time.sleep(60)
    if how == "real time":
        os.kill(os.getpid(), signal.SIGRTMIN + 1)
    os._exit(int(how))


class Waits:
    """A device whose process does not come to life before a file is there."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return _wait_for, (self.path,)


class Touches(Waits):
    """A device whose process makes that file when it comes to life."""

    def __reduce__(self):
        return _touch, (self.path,)


class Unreadable:
    """Can be sent and not be read."""

    def __reduce__(self):
        return _fail_to_load, ()


def says_how_many_bytes(channel, some):
    return len(some)


def _wait_for(path):
    for _ in range(600):  # a busy machine takes its time to start the other
        if path.exists():
            return "cpu"
        time.sleep(0.1)
    raise TimeoutError(path)


def _touch(path):
    path.touch()
    return "cpu"


def _fail_to_load():
    raise OSError("libcudart.so: cannot open shared object file")


def _computing(before, channel, job):
    """Serve, calling `before(batch)` whenever a batch is computed, and committing a shard every few rows."""
    from cache.model.encoder import Encoder
    from cache.store.writer import ShardWriter

    ShardWriter.__init__.__kwdefaults__["nbytes"] = 1 << 13

    honest = Encoder.features

    def features(self, batch):
        before(batch)
        return honest(self, batch)

    Encoder.features = features
    return _SERVE(channel, job)


def _at_the_third(act):
    computed = 0

    def count(batch):
        nonlocal computed
        computed += 1
        if computed >= 3:
            act()

    return count


def _first():
    try:
        os.close(os.open(os.environ["FAULT_FILE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
