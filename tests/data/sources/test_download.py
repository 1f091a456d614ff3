"""A published file: the user's own copy, a kept one, a fetched one; checked each time, whole or not there."""

import errno
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data.errors import DataError
from data.sources.download import PublishedFile, obtain

CONTENT = b'{"what": "was published"}'


@pytest.fixture
def publisher():
    """A server of one file; `served.requests` counts what was asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            self.send_response(200 if self.server.content else 404)
            self.send_header("Content-Length", str(self.server.announced or len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        served.content, served.announced, served.requests = CONTENT, None, 0
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def file(publisher, monkeypatch):
    monkeypatch.delenv("PIPELINE_DATA", raising=False)
    url = f"http://127.0.0.1:{publisher.server_port}/it.json"
    return PublishedFile("set", "it.json", url, hashlib.sha256(CONTENT).hexdigest())


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_kept(publisher, file, tmp_path):
    for _ in range(2):
        path = obtain(file, tmp_path)
        assert path.read_bytes() == CONTENT
    assert publisher.requests == 1
    assert everything_in(tmp_path) == ["set/it.json"]


@pytest.mark.parametrize("place", ["set/it.json", "it.json"])
def test_the_users_own_copy_comes_first(publisher, file, tmp_path, monkeypatch, place):
    own = tmp_path / "own" / place
    own.parent.mkdir(parents=True)
    own.write_bytes(CONTENT)
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "own"))
    assert obtain(file, tmp_path / "kept") == own
    assert publisher.requests == 0


def test_the_users_own_copy_of_another_content_is_refused(file, tmp_path, monkeypatch):
    (tmp_path / "it.json").write_bytes(b"something else")
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"it\.json has SHA-256 .* as published") as caught:
        obtain(file, tmp_path / "kept")
    assert file.url in caught.value.remedy
    assert (tmp_path / "it.json").read_bytes() == b"something else"


def test_an_own_folder_without_the_file_is_passed_over(publisher, file, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "nowhere"))
    assert obtain(file, tmp_path).read_bytes() == CONTENT


def test_a_damaged_kept_file_is_fetched_again(publisher, file, tmp_path):
    path = obtain(file, tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    assert publisher.requests == 2


def test_the_default_folder_lies_in_the_artifacts(publisher, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_ARTIFACTS", raising=False)
    assert obtain(file).resolve() == tmp_path / "artifacts" / "data" / "set" / "it.json"
    monkeypatch.setenv("PIPELINE_ARTIFACTS", str(tmp_path / "else"))
    assert obtain(file) == tmp_path / "else" / "data" / "set" / "it.json"


@pytest.mark.parametrize(
    ("content", "announced", "said"),
    [
        (b"changed by its publisher", None, "with SHA-256"),
        (CONTENT, 1_000, "cannot be downloaded"),
        (b"", None, "cannot be downloaded"),
    ],
)
def test_what_is_not_what_was_published_is_not_kept(publisher, file, tmp_path, content, announced, said):
    publisher.content, publisher.announced = content, announced
    with pytest.raises(DataError, match=said):
        obtain(file, tmp_path)
    assert everything_in(tmp_path) == []


def test_without_a_network_the_error_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.delenv("PIPELINE_DATA", raising=False)
    file = PublishedFile("set", "it.json", "http://127.0.0.1:9/it.json", "0" * 64)
    with pytest.raises(DataError) as caught:
        obtain(file, tmp_path)
    assert "it.json of set is not here and cannot be downloaded from http://127.0.0.1:9" in str(caught.value)
    assert str(tmp_path / "set" / "it.json") in caught.value.remedy
    assert "$PIPELINE_DATA/set/it.json" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_behind(file, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left"):
        obtain(file, tmp_path)
    assert everything_in(tmp_path) == []


def test_a_folder_that_cannot_be_made(file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        obtain(file, tmp_path / "file")


def test_many_at_once_all_get_the_whole_file(file, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(obtain(file, tmp_path).read_bytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 8
    assert everything_in(tmp_path) == ["set/it.json"]
