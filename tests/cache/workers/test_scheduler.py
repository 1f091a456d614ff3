"""Several processes that embed at once, and what is lost when one of them is: its batches in flight, and no row."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cache import CacheError, EmbedRequest, FeatureStore, embed_missing, resolve, text_keys, verify
from cache.devices import check_devices, choose_devices, lost_device, threads_each
from cache.errors import DeviceError
from cache.workers.tokenizer_pool import tokenizer_share
from cache.workers.work_items import ITEM_TEXTS
from tests.cache.workers import faults

EXACT = {"dtype": "float32", "store_dtype": "float32"}


@pytest.fixture
def qwen(checkpoint):
    return resolve(str(checkpoint("qwen3")))


@pytest.fixture
def goes_wrong(monkeypatch, tmp_path):
    """A function: has every embedding process run a fault of `tests.cache.workers.faults`, on pieces of few texts."""

    def install(fault):
        monkeypatch.setenv("FAULT_FILE", str(tmp_path / "fault"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr("cache.workers.embed_processes._serve", fault)
        for kind in ITEM_TEXTS:
            monkeypatch.setitem(ITEM_TEXTS, kind, 64)

    return install


def texts_of(n, poison=()):
    words = ("alpha", "beta", "gamma", "delta")
    return [f"{words[i % 4]} {words[i % 3]} number {i}{faults.POISON if i in poison else ''}" for i in range(n)]


def features_of(report, texts):
    return FeatureStore.open(report.stores[0].folder).gather(text_keys(texts))


def close_to(found, expected):
    return bool((np.linalg.norm(found - expected, axis=1) <= 1e-5 * np.linalg.norm(expected, axis=1)).all())


def whole(report, texts, expected):
    """Every row is there, once, right, and undamaged; and the tally is what one process's would be."""
    folder = report.stores[0].folder
    assert (report.texts, report.computed) == (len(texts), len(texts))
    assert verify(folder).damage == ()
    assert len(FeatureStore.open(folder)) == len(texts)
    return close_to(features_of(report, texts), expected)


def gone():
    return [child for child in multiprocessing.active_children() if child.is_alive()] == []


@pytest.mark.slow
def test_one_of_two_killed_half_way_loses_no_row_of_real_features(tmp_path, goes_wrong):
    texts = [f"{text}, please" for text in texts_of(900)]
    minilm = resolve("minilm")
    one = embed_missing(texts, EmbedRequest(minilm, tmp_path / "one", devices="cpu", **EXACT))
    goes_wrong(faults.dies_once)
    two = embed_missing(texts, EmbedRequest(minilm, tmp_path / "two", devices="cpu:2", **EXACT))
    assert whole(two, texts, features_of(one, texts))
    (note,) = [note for note in two.notes if "SIGKILL" in note]
    assert "texts that it had not stored were done again" in note
    again = embed_missing(texts, EmbedRequest(minilm, tmp_path / "two", devices="cpu:2", **EXACT))
    assert (again.computed, again.reused) == (0, len(texts))
    assert gone()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.loses_its_gpu, "cpu failed: CUDA error: an illegal memory access was encountered; "),
        pytest.param(faults.runs_out_of_memory, "does not fit in the memory of cpu; ", marks=pytest.mark.slow),
        pytest.param(
            faults.dies_before_its_rows_are_committed, "was killed by signal 9 (SIGKILL); ", marks=pytest.mark.slow
        ),
    ],
)
def test_a_device_that_is_lost_costs_no_row(tmp_path, qwen, goes_wrong, fault, said):
    texts = texts_of(600)
    one = embed_missing(texts, EmbedRequest(qwen, tmp_path / "one", devices="cpu", **EXACT))
    goes_wrong(fault)
    told = []
    two = embed_missing(texts, EmbedRequest(qwen, tmp_path / "two", devices="cpu:2", **EXACT), progress=told.append)
    assert whole(two, texts, features_of(one, texts))
    assert sum(said in note for note in two.notes) == 1, two.notes
    assert all("\n" not in note for note in two.notes)
    assert (told[-1].stage, told[-1].done) == ("done", 600)


@pytest.mark.slow
def test_a_device_that_had_nothing_to_do_takes_over_from_one_that_is_lost(tmp_path, qwen, goes_wrong):
    texts = texts_of(1)
    one = embed_missing(texts, EmbedRequest(qwen, tmp_path / "one", devices="cpu", **EXACT))
    goes_wrong(faults.has_no_room_once)
    two = embed_missing(texts, EmbedRequest(qwen, tmp_path / "two", devices="cpu:2", **EXACT))
    assert whole(two, texts, features_of(one, texts))
    assert sum(note.startswith("no room on cpu") for note in two.notes) == 1, two.notes


@pytest.mark.slow
def test_a_text_that_kills_whoever_computes_it_is_named_and_the_others_are_kept(tmp_path, qwen, goes_wrong):
    texts = texts_of(300, poison=(17,))
    goes_wrong(faults.dies_of_a_text)
    with pytest.raises(CacheError, match=r"^3 processes failed with text 17 in hand, the last: .*SIGKILL") as caught:
        embed_missing(texts, EmbedRequest(qwen, tmp_path, devices="cpu:3", **EXACT))
    assert "leave that out" in caught.value.remedy
    assert gone()
    honest = [text for i, text in enumerate(texts) if i != 17]
    assert embed_missing(honest, EmbedRequest(qwen, tmp_path, devices="cpu", **EXACT)).reused > 0


@pytest.mark.slow
def test_with_two_processes_a_deadly_text_is_told_with_few_others(tmp_path, qwen, goes_wrong):
    goes_wrong(faults.dies_of_a_text)
    with pytest.raises(CacheError, match=r"every process failed, the last with texts? .*17.* in hand") as caught:
        embed_missing(texts_of(300, poison=(17,)), EmbedRequest(qwen, tmp_path, devices="cpu:2", **EXACT))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_when_all_processes_are_lost_it_is_an_error_and_what_was_stored_stays(tmp_path, qwen, goes_wrong):
    goes_wrong(faults.dies_at_its_third_batch)
    with pytest.raises(CacheError, match=r"every process failed.*SIGKILL") as caught:
        embed_missing(texts_of(600), EmbedRequest(qwen, tmp_path, devices="cpu:2", **EXACT))
    assert "\n" not in str(caught.value)
    assert "run again" in caught.value.remedy
    assert gone()


def gpus():
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.mark.skipif(not gpus(), reason="no GPU")
class TestOnGpu:
    """Two processes on the first GPU stand for two GPUs; where there are two, the second alone is asked too."""

    CLOSE = 1e-3  # of a float32 feature's length: a GPU's products depend on the batch

    @pytest.mark.parametrize("devices", ["cuda:0,cuda:0", "all", "cpu:2"])
    def test_a_gpu_s_features_whoever_computes_them(self, tmp_path, qwen, devices):
        texts = texts_of(600)
        one, two = (
            features_of(embed_missing(texts, EmbedRequest(qwen, tmp_path / name, devices=chosen, **EXACT)), texts)
            for name, chosen in (("one", "cuda:0"), ("two", devices))
        )
        assert (np.linalg.norm(two - one, axis=1) <= self.CLOSE * np.linalg.norm(one, axis=1)).all()

    @pytest.mark.skipif(gpus() < 2, reason="one GPU")
    def test_a_gpu_that_is_not_the_first_computes_alone(self, tmp_path, qwen):
        import torch

        texts = texts_of(600)
        one, two = (
            features_of(embed_missing(texts, EmbedRequest(qwen, tmp_path / name, devices=name, **EXACT)), texts)
            for name in ("cuda:0", "cuda:1")
        )
        assert torch.cuda.current_device() == 0
        assert (np.linalg.norm(two - one, axis=1) <= self.CLOSE * np.linalg.norm(one, axis=1)).all()

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            # torch ends the process when an event of a poisoned context is destroyed before the error is seen
            (faults.poisons_its_context, ("cuda:0 failed: CUDA error", "(SIGABRT)")),
            (faults.runs_out_of_memory, ("does not fit in the memory of cuda:0",)),
            (faults.dies_before_its_rows_are_committed, ("(SIGKILL)",)),
        ],
    )
    def test_a_gpu_that_is_lost_costs_no_row(self, tmp_path, qwen, goes_wrong, fault, said):
        texts = texts_of(600)
        one = embed_missing(texts, EmbedRequest(qwen, tmp_path / "one", devices="cuda:0", **EXACT))
        goes_wrong(fault)
        two = embed_missing(texts, EmbedRequest(qwen, tmp_path / "two", devices="cuda:0,cuda:0", **EXACT))
        assert (two.computed, len(FeatureStore.open(two.stores[0].folder))) == (600, 600)
        assert sum(any(word in note for word in said) for note in two.notes) == 1, two.notes
        a, b = features_of(one, texts), features_of(two, texts)
        assert (np.linalg.norm(b - a, axis=1) <= self.CLOSE * np.linalg.norm(a, axis=1)).all()

    def test_a_gpu_that_fails_alone_is_told_in_two_lines(self, tmp_path, qwen, monkeypatch):
        import torch

        from cache.model.encoder import Encoder

        def features(self, batch):
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")

        monkeypatch.setattr(Encoder, "features", features)
        with pytest.raises(DeviceError, match=r"^cuda:0 failed: CUDA error: unspecified launch failure$"):
            embed_missing(["a"], EmbedRequest(qwen, tmp_path, devices="cuda:0", **EXACT))


class TestFaultsOfTheWork:
    def test_an_empty_text_late_in_the_stream_ends_all_and_what_was_computed_stays(self, tmp_path, qwen, monkeypatch):
        monkeypatch.setattr("cache.lookup.FIRST_READ", 64)
        monkeypatch.setattr("cache.lookup.READ_TEXTS", 64)
        texts = [*texts_of(3000), ""]  # 46 reads: the last waits until most are computed, as few are read ahead
        with pytest.raises(CacheError, match=r"^text 3000 is empty$"):
            embed_missing((text for text in texts), EmbedRequest(qwen, tmp_path, devices="cpu:2", **EXACT))
        assert gone()
        (store,) = tmp_path.glob("qwen3-*")
        assert len(FeatureStore.open(store)) > 0
        assert embed_missing(texts[:-1], EmbedRequest(qwen, tmp_path, devices="cpu", **EXACT)).reused > 0

    def test_a_feature_that_is_not_finite_is_named_as_one_process_names_it(self, tmp_path, checkpoint):
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        key = next(name for name in weights if "embed_tokens" in name)
        weights[key][4 + ord("Z") - ord("!")] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        texts, said = texts_of(40, poison=(7,)), []
        for devices in ("cpu", "cpu:2"):
            with pytest.raises(CacheError) as caught:
                embed_missing(
                    texts, EmbedRequest(resolve(str(folder)), tmp_path / devices[-1], devices=devices, dtype="float32")
                )
            said.append((caught.value.problem, caught.value.remedy))
        assert said[0] == said[1]
        assert said[0][0].startswith("text 7 (")
        assert gone()

    def test_a_defect_is_no_lost_device(self, tmp_path, qwen, goes_wrong):
        goes_wrong(faults.fails_by_a_defect)
        with pytest.raises(RuntimeError, match="a key that is not there"):
            embed_missing(texts_of(600), EmbedRequest(qwen, tmp_path, devices="cpu:2", **EXACT))


class TestWhatIsALostDevice:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("CUDA error: device-side assert triggered\nmore"),
            RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            RuntimeError("No CUDA GPUs are available"),
            DeviceError("backbone x does not fit on cuda:1", "free it"),
        ],
    )
    def test_its_own_errors_and_memory(self, error):
        lost = lost_device(error, "cuda:1")
        assert isinstance(lost, DeviceError)
        assert "\n" not in lost.problem and "cuda:1" in lost.problem

    @pytest.mark.parametrize(
        "error",
        [
            CacheError("text 3 is empty", "remove it"),
            RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu"),
            ValueError("CUDA"),
            KeyError("x"),
            OSError(28, "No space left on device"),
        ],
    )
    def test_nothing_else(self, error):
        assert lost_device(error, "cuda:1") is None

    def test_torch_s_kinds(self):
        import torch

        for error in (torch.OutOfMemoryError("tried to allocate 2 GiB"), torch.AcceleratorError("unspecified failure")):
            assert "cuda:1" in lost_device(error, "cuda:1").problem


class TestChoice:
    @pytest.fixture
    def three_gpus(self, monkeypatch):
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    @pytest.mark.parametrize(
        ("word", "chosen"),
        [
            ("auto", ["cuda:0"]),
            ("all", ["cuda:0", "cuda:1", "cuda:2"]),
            ("cuda", ["cuda:0"]),
            ("cuda:2", ["cuda:2"]),
            ("cuda:0,cuda:2", ["cuda:0", "cuda:2"]),
            ("cuda:1,cuda:1", ["cuda:1", "cuda:1"]),
            ("cpu", ["cpu"]),
            ("cpu:2", ["cpu"] * 2),
            ("cpu,cpu:2", ["cpu"] * 3),
        ],
    )
    def test_words(self, three_gpus, word, chosen):
        assert choose_devices(word) == chosen

    @pytest.mark.parametrize("word", ["cuda:0,", "all,cpu", "auto,cuda:1", "cuda:0;cuda:1", "cuda:0, cuda:1", "gpu:0"])
    def test_what_is_misspelt(self, word):
        with pytest.raises(CacheError, match="devices"):
            check_devices(word)

    def test_cpu_and_gpu_are_not_mixed(self):
        with pytest.raises(CacheError, match="mixes CPU and GPU"):
            check_devices("cuda:0,cpu")

    def test_a_gpu_that_is_hidden_is_told_with_what_hides_it(self, three_gpus, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
        with pytest.raises(CacheError, match=r"cuda:5: there are 3 GPUs \(CUDA_VISIBLE_DEVICES is '5,6,7'\)") as caught:
            choose_devices("cuda:5")
        assert "cuda:0 to cuda:2" in caught.value.remedy

    def test_a_host_whose_gpus_are_all_hidden_computes_on_its_cpu(self):
        """In a process of its own: CUDA reads the variable once."""
        code = (
            "from cache.devices import choose_devices\n"
            "print(choose_devices('all'), choose_devices('auto'))\n"
            "try: choose_devices('cuda:0,cuda:1')\n"
            "except Exception as error: print(error, '|', error.remedy)"
        )
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=True)
        chosen, refused = done.stdout.splitlines()
        assert chosen == "['cpu'] ['cpu']"
        assert "no GPU here (CUDA_VISIBLE_DEVICES is '')" in refused
        assert "unset CUDA_VISIBLE_DEVICES" in refused

    def test_processes_share_the_host_s_cores(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for cores, processes, helpers, threads in (
            (128, 8, (3, 5), 16),
            (16, 1, (3, 5), 16),
            (32, 1, (3, 10), 32),
            (16, 8, (1, 1), 2),
            (8, 4, (1, 1), 2),
            (4, 1, (3, 1), 4),
            (2, 1, (1, 1), 2),
            (2, 2, (0, 0), 1),
            (1, 3, (0, 0), 1),
        ):
            monkeypatch.setattr("cache.devices.cores", lambda cores=cores: cores)
            monkeypatch.setattr("cache.workers.tokenizer_pool.cores", lambda cores=cores: cores)
            assert (tokenizer_share(processes), threads_each(processes)) == (helpers, threads)
        monkeypatch.setattr("cache.devices.cores", lambda: 16)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert threads_each(2) == 3


def test_a_shard_s_keys_are_read_once(tmp_path, qwen, monkeypatch):
    texts = texts_of(30)
    for part in (texts[:10], texts[10:20]):
        embed_missing(part, EmbedRequest(qwen, tmp_path, devices="cpu", **EXACT))
    read: list[str] = []
    honest = sys.modules["cache.store.shard"].read_header
    monkeypatch.setattr(
        "cache.store.shard.read_header", lambda path, *rest: read.append(path.name) or honest(path, *rest)
    )
    assert embed_missing(texts[:20], EmbedRequest(qwen, tmp_path, devices="cpu", **EXACT)).reused == 20
    assert len(read) == len(set(read)) == 2
