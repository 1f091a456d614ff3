"""A full disk, a read-only or forbidden or vanished folder: one clear error, nothing half-written, the rest intact."""

import os
import resource
import shutil
import subprocess

import numpy as np
import pytest

from cache import CacheError, FeatureStore, text_keys, verify
from cache.store import compact
from tests.cache.store.killing import together

DIM = 512
DESCRIPTION = {"backbone": "b", "fingerprint": "f", "layer": -1, "hidden_size": DIM, "store_dtype": "float32"}
KEYS = text_keys([str(number) for number in range(400)])
FEATURES = np.random.default_rng(0).standard_normal((400, DIM), np.float32)


def append(store, first, last):
    with store.writer() as writer:
        writer.append(KEYS[first:last], FEATURES[first:last])


def refused(folder, words, act, remedy=None):
    """`act` must raise one clear error and leave the folder as it was."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(CacheError, match=words) as error:
        act()
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value) + error.value.remedy
    assert remedy is None or remedy in error.value.remedy
    assert sorted(path.name for path in folder.iterdir()) == before


def holds_the_first_100(folder):
    store = FeatureStore.open(folder)
    assert len(store) == 100
    assert (store.gather(KEYS[:100]) == FEATURES[:100]).all()
    assert verify(folder).damage == ()


def as_nobody(function, *arguments):
    """Run `function` in a process without root's rights, which ignore permissions."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    function(*arguments)


@pytest.fixture
def mount(tmp_path):
    """A small tmpfs; skips where none can be mounted."""
    folder = tmp_path / "mount"
    folder.mkdir()

    def call(*command):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")

    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    call("mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder))
    try:
        yield folder, call
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def run_out(folder, words, most=None):
    """A store of 200 KB meets a limit below 800 KB: of the disk, or of a file's size in bytes (`most`)."""
    store = FeatureStore.create(folder, DESCRIPTION)
    append(store, 0, 100)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    refused(folder, words, lambda: append(store, 100, 400), "free some space")
    holds_the_first_100(folder)
    append(store, 100, 210)
    store.refresh()
    assert len(store) == 210
    refused(folder, words, lambda: compact(folder))
    assert len(FeatureStore.open(folder)) == 210


def test_a_full_disk(mount):
    folder, _ = mount
    together((run_out, folder / "s", "No space left on device"))


def test_a_file_that_may_not_grow(tmp_path):
    together((run_out, tmp_path / "s", "File too large", 400_000))


def test_a_read_only_file_system(mount):
    folder, call = mount
    store = FeatureStore.create(folder / "s", DESCRIPTION)
    append(store, 0, 100)
    store.refresh()
    call("mount", "-o", "remount,ro", str(folder))
    refused(folder / "s", "Read-only file system", lambda: append(store, 100, 110), "may write")
    with pytest.raises(CacheError, match=f"cannot create {folder}/t: Read-only file system"):
        FeatureStore.create(folder / "t", DESCRIPTION)
    append(store, 0, 0)
    holds_the_first_100(folder / "s")


def read_but_not_write(folder):
    store = FeatureStore.open(folder)
    refused(folder, "Permission denied", lambda: append(store, 100, 110), "may write")
    refused(folder, "Permission denied", lambda: compact(folder))
    with pytest.raises(CacheError, match="Permission denied"):
        FeatureStore.create(folder / "within", DESCRIPTION)
    holds_the_first_100(folder)


def not_even_read(folder):
    with pytest.raises(CacheError, match="Permission denied"):
        FeatureStore.open(folder)


@pytest.fixture
def others_folder(tmp_path):
    """A store that only its owner may change, below folders that anyone may pass."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o005 != 0o005:  # pytest's folders are their owner's alone
            parent.chmod(0o755)
    store = FeatureStore.create(tmp_path / "s", DESCRIPTION)
    append(store, 0, 100)
    append(store, 0, 100)
    yield tmp_path / "s"
    (tmp_path / "s").chmod(0o755)


def test_a_folder_that_may_only_be_read(others_folder):
    others_folder.chmod(0o555)
    together((as_nobody, read_but_not_write, others_folder))


def test_a_folder_that_may_not_be_read(others_folder):
    others_folder.chmod(0o000)
    together((as_nobody, not_even_read, others_folder))


def test_a_shard_that_may_not_be_read(others_folder):
    next(others_folder.glob("shard-*.h5")).chmod(0o000)
    together((as_nobody, not_even_read, others_folder))


def test_a_folder_removed_meanwhile(tmp_path):
    store = FeatureStore.create(tmp_path / "s", DESCRIPTION)
    append(store, 0, 100)
    store.refresh()
    shutil.rmtree(tmp_path / "s")
    for act in (lambda: append(store, 100, 110), store.refresh, lambda: verify(tmp_path / "s")):
        with pytest.raises(CacheError, match="No such file or directory") as error:
            act()
        assert "went away meanwhile" in error.value.remedy
    assert not (tmp_path / "s").exists()
    assert (store.gather(KEYS[:100]) == FEATURES[:100]).all()  # what is mapped stays


def test_a_folder_whose_place_is_taken(tmp_path):
    (tmp_path / "s").write_text("a file")
    with pytest.raises(CacheError, match=f"cannot create {tmp_path / 's'}"):
        FeatureStore.create(tmp_path / "s", DESCRIPTION)
    assert (tmp_path / "s").read_text() == "a file"
