"""Imported folders: moved, linked, odd, and what may not be imported."""

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from foundry_core.lineage import queries
from foundry_core.store.local import LocalStore
from foundry_core.store.open import open_store
from tests.runs import Forked


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


@pytest.fixture
def store(home):
    return open_store(str(home / "store"))


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "bytes"
    folder.mkdir()
    (folder / "text.txt").write_text("one\ntwo\n")
    return folder


def imported(capsys, place, *arguments):
    capsys.readouterr()
    assert main(["lineage", "import", "emit", str(place), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, place, *arguments):
    capsys.readouterr()
    assert main(["lineage", "import", "emit", os.fsdecode(place), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def shown():
    main(["lineage", "runs", "--json"])
    connection = queries.connect()
    rows = queries.sql(connection, "select present, removed_reason from artifact")
    connection.close()
    return rows


def test_lineage_follows_a_folder_that_moves_and_moves_back(capsys, store, place, tmp_path):
    other = tmp_path / "other"
    for here, there in ((place, other), (other, place)):
        found = imported(capsys, here)
        shutil.move(here, there)
        assert imported(capsys, there)["at"] == str(there)
        assert store.state("emit", found["key"]).status == "ok"
        assert shown() == [{"present": True, "removed_reason": None}]


def _die_while_importing(place):
    for name in ("link", "relink"):
        setattr(LocalStore, name, lambda *arguments: os._exit(9))
    main(["lineage", "import", "emit", str(place)])


def test_an_import_killed_half_way_leaves_the_one_before(capsys, store, place, tmp_path):
    found = imported(capsys, place, "--name", "base@1")
    copy = shutil.copytree(place, tmp_path / "copy")
    forked = Forked(_die_while_importing, copy)
    forked.process.join()
    assert forked.process.exitcode == 9
    assert store.read("emit", found["key"]).files_at == str(place)
    assert main(["lineage", "verify", "base@1"]) == 0


def test_a_damaged_manifest_is_replaced(capsys, store, place):
    found = imported(capsys, place)
    (store.path("emit", found["key"]) / "artifact.json").write_text("{")
    imported(capsys, place)
    assert store.state("emit", found["key"]).status == "ok"


def test_linked_folders_are_covered_and_loops_end(capsys, store, place, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a").write_text("1")
    (place / "shards").symlink_to(tmp_path / "shards")
    (place / "loop").symlink_to(place)
    found = imported(capsys, place)
    assert found["files"] == 2
    assert store.state("emit", found["key"]).status == "ok"
    (tmp_path / "shards" / "b").write_text("2")
    assert "shards/b was added" in store.state("emit", found["key"]).problem
    (tmp_path / "shards" / "b").unlink()
    (tmp_path / "shards" / "a").write_text("3")
    assert "shards/a has another digest" in store.state("emit", found["key"]).problem


def test_a_folder_with_a_manifest_of_its_own_is_intact(capsys, store, place):
    (place / "artifact.json").write_text("{}")
    assert store.state("emit", imported(capsys, place)["key"]).status == "ok"


@pytest.mark.parametrize("inside", [".", "store", "store/emit"])
def test_the_store_is_not_imported_into_itself(capsys, home, store, place, inside):
    (home / "store" / "emit").mkdir(parents=True)
    assert "foundry lineage tag" in refused(capsys, home / inside)


def test_what_has_no_bytes_is_refused_at_once(capsys, store, place):
    odd = place / "odd"
    os.mkfifo(odd)
    assert "neither file nor folder" in refused(capsys, place)
    odd.unlink()
    odd.symlink_to(place / "nowhere")
    assert "links to nothing" in refused(capsys, place)
    odd.unlink()
    bad = os.fsencode(place) + b"/\xff"
    Path(os.fsdecode(bad)).write_text("")
    assert "not UTF-8" in refused(capsys, place)
    renamed = os.fsencode(place.parent) + b"/\xfe"
    os.rename(place, renamed)
    os.unlink(renamed + b"/\xff")
    assert "not UTF-8" in refused(capsys, renamed)
    assert store.artifacts() == []


def test_a_socket_is_refused(capsys, store):
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{short}/s")
        assert "neither file nor folder" in refused(capsys, short)


def test_no_folder_and_a_bad_name_commit_nothing(capsys, store, place, monkeypatch):
    monkeypatch.chdir(place)
    assert "no folder is named" in refused(capsys, "")
    assert "expected name@tag" in refused(capsys, place, "--name", "bad name")
    assert "expected name@tag" in refused(capsys, place, "--name", "")
    assert store.artifacts() == []


@pytest.mark.parametrize("name", ["a: b", "#c", "it's {x}, [y]", 'q"', "é", "line\nend", "a" * 200])
def test_the_printed_line_reads_back(capsys, place, name):
    place = place.rename(place.with_name(name))
    found = imported(capsys, place)
    assert main(["lineage", "import", "emit", str(place)]) == 0
    line = capsys.readouterr().out.partition("in a pipeline:\n")[2]
    assert line.count("\n") == 1
    declared = {"path": str(place), "kind": "emit", "digest": found["digest"]}
    assert yaml.safe_load(f"stages:\n{line}") == {"stages": {"stage": {"import": declared}}}


@pytest.mark.parametrize("harm", ["file", "folder"])
def test_a_path_that_became_another_thing_is_corrupt(capsys, store, place, harm):
    (place / "deep").mkdir()
    (place / "deep" / "x").write_text("x")
    key = imported(capsys, place)["key"]
    if harm == "file":
        shutil.rmtree(place / "deep")
        (place / "deep").write_text("")
    else:
        (place / "deep" / "x").unlink()
        (place / "deep" / "x").mkdir()
    assert main(["lineage", "verify", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["corrupt"]
    assert row["key"] == key
    assert "deep/x" in row["problem"]
