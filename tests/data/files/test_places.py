"""Where files lie: folders, patterns, odd names, a home folder, a URL."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data import DataError, Description, load
from data.files.locate import stem
from data.own_files import read_table
from tests.data.good_file import GOOD, HEADER, LINES, ROWS


def test_a_directory_and_a_missing_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a directory without files"):
        load(str(tmp_path / "folder.csv"))
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        load(str(tmp_path / "none.csv"))


def test_a_pattern_reads_several_files(write, tmp_path):
    write("part-1.csv", GOOD)
    write("part-2.csv", HEADER + "five,01,1.50,train\n")
    assert load(str(tmp_path / "part-*.csv")).frame.height == 5
    with pytest.raises(DataError, match="there is no file"):
        load(str(tmp_path / "none-*.csv"))


@pytest.mark.parametrize("name", ["part [1].csv", "what?.csv", "a*.csv", "100%.csv", "ünï çödé.csv"])
def test_a_file_that_exists_is_meant_literally(write, name):
    path = write(name, GOOD)
    write("part 1.csv", GOOD + "not this,01,1.50,train\n")
    assert load(path).frame.rows() == ROWS


@pytest.mark.parametrize(
    "name", ["x" * 5_000 + ".csv", "x" * 5_000, "a\0b.csv", "a**b.csv", "~nobody-of-this-name/t.csv"]
)
def test_names_that_no_file_can_have(name):
    with pytest.raises(DataError, match="no file") as caught:
        load(name)
    assert len(str(caught.value)) < 400


def test_a_home_folder_is_understood(write, monkeypatch, tmp_path):
    write("t.csv", GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/t.csv").name == "t"


@pytest.fixture
def server(tmp_path):
    class Ranges(SimpleHTTPRequestHandler):
        """Answers the ranges of bytes that polars asks for."""

        def do_GET(self):
            path = tmp_path / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(content) - int(last))
            part = content[start : int(last) + 1 if first and last else None]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_url_is_read_as_a_file_is(write, server, tmp_path):
    local = load(write("t.csv", GOOD))
    write("t.jsonl", "\n".join(LINES))
    local.frame.write_parquet(tmp_path / "t.parquet")
    assert load(f"{server}/t.csv").id == local.id
    assert load(f"{server}/t.parquet").id == local.id
    assert load(f"{server}/t.jsonl").id == local.id


def test_a_url_that_is_not_there_is_told_in_one_line(server):
    with pytest.raises(DataError, match="cannot read http") as caught:
        load(f"{server}/none.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("some/where/My File.v2.csv", "My File.v2"),
        ("hf://datasets/owner/set@main/train.jsonl.gz", "train"),
        ("s3://bucket/a/b.parquet?version=1", "b"),
    ],
)
def test_a_dataset_is_called_after_its_file(source, name):
    assert stem(source) == name


def test_nothing_is_written_beside_what_is_read(write, tmp_path):
    path = write("t.csv", GOOD)
    read_table(path)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("url", ["https://a.invalid/a b.csv", "https://[::1/a.csv", "https://a.invalid:b/a.csv"])
def test_a_url_that_is_none_is_refused_in_one_line(url):
    with pytest.raises(DataError, match=r"URL|port"):
        load(url)


@pytest.mark.parametrize("encoding", ["utf-99", "hex", "a\0b"])
def test_an_encoding_that_is_none_of_text_is_refused(write, encoding):
    with pytest.raises(DataError, match="there is no encoding"):
        load(write("t.csv", GOOD), description=Description(encoding=encoding))
