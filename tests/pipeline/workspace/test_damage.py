"""One harmed thing below the artifacts folder: it is named, made again where it can be, and all else goes on."""

import json
import re
import shutil

import pytest

from tests.pipeline.small_dataset import rows, write_csv


def folder_of(pipeline, method="v5", seed=1):
    configs = pipeline.artifacts.glob(f"runs/*/*/{method}/*/config.json")
    (found,) = [path.parent for path in configs if json.loads(path.read_text())["record"]["seed"] == seed]
    return found


def without_digests(root):
    """Turns what lies in an artifacts folder into what earlier releases wrote."""
    for path in root.rglob("*.json"):
        record = json.loads(path.read_text())
        if path.name == "config.json":
            inner = record["record"]
            for name in ("format", "digest", "files"):
                inner.pop(name, None)
            record = {name: value for name, value in record.items() if name not in ("digest", "names")} | {"format": 1}
        elif path.name.startswith(("scores", "galleries")):
            record = record["scores"]
        elif path.name != "backbone.json":
            record = {name: value for name, value in record.items() if name not in ("format", "digest")}
        path.write_text(json.dumps(record))


@pytest.mark.parametrize("content", ["{", '{"format": 1, "record": {}}', "[]", ""])
def test_a_damaged_run_record_stops_nothing_else_and_is_trained_again(copy, content):
    folder = folder_of(copy)
    (folder / "config.json").write_text(content)
    listed = copy("runs", "list")
    assert listed.returncode == 0
    assert str(folder / "config.json") in listed.stderr
    assert folder.name not in listed.stdout
    assert "0 stores deleted" in copy("cache", "prune", "--yes").stdout
    if content != "{":
        return
    assert len(copy.json("score", "--method", "mrl")["scores"]) == 2
    again = copy("fit-head", "--method", "v5", "--seeds", "1,2", "--epochs", "2")
    assert again.returncode == 0, again.stderr
    assert str(folder / "config.json") in again.stderr
    assert (folder.parent / f"{folder.name}.damaged" / "config.json").read_text() == content
    assert len(copy.json("runs", "list")["runs"]) == 4
    assert copy.json("runs", "list")["damaged"] == []


def test_a_run_folder_without_a_record_loses_no_seed(copy):
    one, other = folder_of(copy, seed=1), folder_of(copy, seed=2)
    (one / "config.json").unlink()
    (one / "scores.json").write_text("[]")
    shutil.rmtree(other)
    again = copy("fit-head", "--method", "v5", "--seeds", "1,2,3", "--epochs", "2")
    assert again.returncode == 0, again.stderr
    assert len(copy.json("runs", "list")["runs"]) == 5


def test_a_folder_that_holds_scores_alone_makes_way(copy):
    folder = folder_of(copy)
    for path in folder.iterdir():
        path.unlink()
    (folder / "scores.json").write_text("[]")
    assert copy("fit-head", "--method", "v5", "--seeds", "1", "--epochs", "2").returncode == 0
    assert [path.name for path in folder.parent.iterdir() if "damaged" in path.name] == []


def test_an_edited_digit_in_kept_scores_is_noticed_and_the_score_made_again(copy):
    path = folder_of(copy) / "scores.json"
    path.unlink(missing_ok=True)  # may hold the scores of other protocols, which this command does not make again
    first = copy.json("score", "--method", "v5")["scores"]
    text = path.read_text()
    accuracy = re.search(r'"accuracy": ([0-9.]+)', text)
    path.write_text(text.replace(accuracy[0], '"accuracy": 0.189', 1))
    done = copy("score", "--method", "v5", "--json")
    assert json.loads(done.stdout)["scores"] == first
    assert f"{path} is damaged: its content does not match its digest; computed again" in done.stderr
    assert path.read_text() == text


def exchanged(one, other):
    """Two files, or folders, in each other's place."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_what_is_kept_is_found_through_links_and_after_a_move(copy, tmp_path):
    before = copy.json("score")
    moved = tmp_path / "elsewhere"
    copy.artifacts.rename(moved)
    copy.artifacts.symlink_to(moved)
    (dataset,) = (moved / "runs").iterdir()
    dataset.rename(moved / "runs of a dataset")
    dataset.symlink_to(moved / "runs of a dataset")
    again = copy("score", "--json")
    assert json.loads(again.stdout) == before
    assert "put in its place" not in again.stderr
    dataset.unlink()
    (moved / "runs of a dataset").rename(dataset)
    assert "put in its place" not in copy("score").stderr


def test_what_is_kept_of_another_run_is_not_taken_for_its_own(copy):
    commands = (("score", "--protocol", "all"), ("score", "--gallery-size", "7"), ("compare",))
    before = [copy.json(*command) for command in commands]
    searched = [copy.json("search", "book a flight", "--run", folder_of(copy, name).name) for name in ("v5", "mrl")]
    for name in {path.name for path in folder_of(copy).iterdir()} - {"config.json", "head.safetensors"}:
        exchanged(folder_of(copy) / name, folder_of(copy, "mrl") / name)
    (untrained,) = copy.artifacts.glob("runs/*/*/untrained")
    exchanged(*sorted(untrained.iterdir())[:2])
    after = [copy(*command, "--json") for command in commands]
    assert [json.loads(done.stdout) for done in after] == before
    assert "put in its place; computed again" in after[0].stderr
    assert [
        copy.json("search", "book a flight", "--run", folder_of(copy, name).name) for name in ("v5", "mrl")
    ] == searched
    assert all("put in its place" not in copy(*command, "--json").stderr for command in commands)


def test_a_head_that_is_gone_is_named_and_the_others_are_scored(copy):
    copy.json("score")
    (folder_of(copy) / "head.safetensors").unlink()
    done = copy("score", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["scores"]) == 3
    assert str(folder_of(copy) / "head.safetensors") in done.stderr


def test_a_damaged_history_is_named_and_left_out(copy):
    path = folder_of(copy) / "history.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = copy("runs", "show", folder_of(copy).name)
    assert done.returncode == 0, done.stderr
    assert f"{path} is damaged" in done.stderr
    assert "learning rate" not in done.stdout


def test_runs_on_a_missing_mount_are_not_taken_for_none(copy):
    runs = copy.artifacts / "runs"
    runs.rename(copy.artifacts / "elsewhere")
    runs.symlink_to(copy.artifacts / "unmounted")
    message = copy.fails("cache", "prune", "--yes")
    assert f"{runs} is damaged: it is a link to nothing" in message
    assert "mount" in message
    assert list(copy.artifacts.glob("features/*/shard-*"))


def test_features_on_a_missing_mount_are_not_taken_for_none(copy):
    features = copy.artifacts / "features"
    features.rename(copy.artifacts / "elsewhere")
    features.symlink_to(copy.artifacts / "unmounted")
    for command in (("cache", "list"), ("score",)):
        assert f"{features} is damaged: it is a link to nothing" in copy.fails(*command)


def test_a_dataset_of_runs_on_a_missing_mount_keeps_every_store(copy):
    (dataset,) = (copy.artifacts / "runs").iterdir()
    dataset.rename(copy.artifacts / "elsewhere")
    dataset.symlink_to(copy.artifacts / "unmounted")
    done = copy("cache", "prune", "--yes")
    assert "0 stores deleted" in done.stdout
    assert str(dataset) in done.stderr
    assert list(copy.artifacts.glob("features/*/shard-*"))


def test_a_newer_run_is_refused_by_name_and_neither_replaced_nor_in_the_way(copy):
    path = folder_of(copy) / "config.json"
    newer = json.dumps({**json.loads(path.read_text()), "format": 99})
    path.write_text(newer)
    assert "has format 99" in copy("runs", "list").stderr
    message = copy.fails("fit-head", "--method", "v5", "--seeds", "1,2", "--epochs", "2")
    assert "has format 99" in message
    assert path.read_text() == newer


def test_artifacts_made_before_there_was_a_digest_are_read_with_one_line(copy):
    first = copy.json("score")["scores"]
    without_digests(copy.artifacts)
    done = copy("score", "--json")
    assert json.loads(done.stdout)["scores"] == first
    said = [line for line in done.stderr.splitlines() if "before records had a digest" in line]
    assert len(said) == 1


def test_another_datasets_damaged_source_is_named_and_left_out(copy, tmp_path):
    other = write_csv(tmp_path / "other.csv", rows()[:-1])
    copy.json("embed", other, "--backbone", "minilm")
    (damaged,) = copy.artifacts.glob("data/other-*.json")
    damaged.write_text('{"source": 3}')
    (copy.artifacts / "features" / "minilm.json").write_text("{")
    done = copy("score", "--dataset", "small", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["scores"]) == 4
    assert str(damaged) in done.stderr
