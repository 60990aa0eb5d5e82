"""Which opened files count, rule by rule: what the hook hears is handed to it here."""

import json
import os
from types import SimpleNamespace

import pytest

from foundry_core.execution import reads
from foundry_core.execution.reads import Reads, found


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """Opens files in the eyes of a watch; what it told. known: <tmp>/known, tolerated: <tmp>/lib,
    of which the recipe names <tmp>/lib/named."""
    monkeypatch.setattr(reads, "sys", SimpleNamespace(addaudithook=lambda _: None))
    folders = {name: tmp_path / name for name in ("told", "known", "lib", "lib/named", "data")}
    for folder in folders.values():
        folder.mkdir()
    watch = Reads(
        folders["told"], [str(folders["known"])], [str(tmp_path / "lib")], [f"{tmp_path}/lib/named"]
    )
    # All of the test lies in the system's folder for temporary files, which is tolerated as a rule.
    assert not str(tmp_path).startswith(reads._SYSTEM)

    def opened(*names, flags=os.O_RDONLY, make=True):
        for name in names:
            path = tmp_path / name
            if make and not path.is_symlink():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("x")
            watch._heard("open", (str(path), None, flags))
        return [os.path.relpath(path, tmp_path) for path in found(folders["told"], [])]

    opened.watch, opened.folder = watch, tmp_path
    return opened


def test_a_file_elsewhere_is_told_once(heard):
    assert heard("data/a", "data/b", "data/a") == ["data/a", "data/b"]
    assert len((heard.folder / "told" / "found").read_text().splitlines()) == 2
    assert found(heard.folder / "told", [str(heard.folder / "data" / "a")]) == [
        str(heard.folder / "data" / "b")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "known/a",
        "lib/a",
        "data/a.py",
        "data/a.so",
        "data/x-1.dist-info/RECORD",
        "data/x.egg-info/a",
    ],
)
def test_what_is_known_code_or_a_library_is_not(heard, name):
    assert heard(name) == []


def test_a_place_of_libraries_counts_where_the_recipe_names_it(heard):
    assert heard("lib/named/a") == ["lib/named/a"]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT])
def test_what_the_stage_wrote_is_its_own(heard, flags):
    heard("data/a", flags=flags)
    heard.watch._seen.clear()  # `open` is heard once for each path as it was spelt
    assert heard("data/a") == []
    assert heard("data/b", flags=os.O_RDWR) == ["data/b"]


def test_what_the_identity_reads_is_part_of_it(heard):
    with heard.watch.identifying():
        heard("data/a")
    heard.watch._seen.clear()
    assert heard("data/a") == []
    assert heard("data/b") == ["data/b"]


def test_a_link_counts_as_what_it_leads_to(heard):
    (heard.folder / "known" / "real").write_text("x")
    (heard.folder / "data" / "link").symlink_to(heard.folder / "known" / "real")
    assert heard("data/link") == []
    (heard.folder / "alias").symlink_to(heard.folder / "known")
    assert reads._below([str(heard.folder / "alias")]) == (
        f"{heard.folder}/alias/",
        f"{heard.folder}/known/",
    )


def test_what_is_no_file_is_nothing_read(heard):
    (heard.folder / "data" / "folder").mkdir()
    assert heard("data/absent", "data/folder", make=False) == []


def test_bounds(heard, monkeypatch):
    monkeypatch.setattr(reads, "_MOST_TOLD", 2)
    assert heard("data/a", "data/b", "data/c") == ["data/a", "data/b"]
    monkeypatch.setattr(reads, "_MOST_SEEN", 4)
    heard("data/d", "data/e")
    lines = (heard.folder / "told" / "found").read_text().splitlines()
    assert [json.loads(line)[-1] for line in lines] == list("abcd")


def test_a_process_that_closed_what_it_inherited_reads_on(heard):
    os.close(heard.watch._out)
    assert heard("data/a") == []


def test_places_that_count_for_nothing_are_found(tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(reads, "Reads", lambda folder, **places: made.update(places))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (reads._VARIABLE, reads._RAY_HOOK):
        monkeypatch.setenv(name, "")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = {"a": ".", "b": [f"{tmp_path}/work"], "c": {"d": "no such file"}, "e": "../"}
    reads.watch(tmp_path / "told", [], recipe)
    assert str(tmp_path / ".cache") in made["tolerated"]
    assert str(tmp_path / "work") not in made["tolerated"]
    assert made["named"] == [f"{tmp_path}/work"]
    assert os.environ[reads._RAY_HOOK] == "foundry_core.execution.reads.join"
