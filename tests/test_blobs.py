"""Bytes by name, in a folder and on S3's API (moto over HTTP): the same calls, the same answers."""

import os
import threading

import pytest

from foundry_core.blobs import FolderBlobs, is_name, open_blobs
from foundry_core.errors import FoundryError
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture(params=["folder", "s3"])
def blobs(request, tmp_path):
    if request.param == "folder":
        return open_blobs(str(tmp_path / "blobs"))
    endpoint = request.getfixturevalue("endpoint")
    return open_blobs(use_s3(request.getfixturevalue("monkeypatch"), endpoint))


def test_names_are_taken_once(blobs):
    assert blobs.names() == []
    assert blobs.create("a/b", b"one")
    assert not blobs.create("a/b", b"two")
    assert blobs.create("a/b", b"one"), "these are its bytes"
    assert blobs.read("a/b") == b"one"
    assert (blobs.names(), blobs.names("a"), blobs.names("x")) == (["a"], ["b"], [])
    blobs.write("a/b", b"two")
    blobs.write("a/c/d", b"")
    assert blobs.read("a/b") == b"two"
    assert blobs.names("a") == ["b", "c"]
    blobs.delete("a/b", "a/never")
    blobs.delete()
    assert blobs.names("a") == ["c"]
    with pytest.raises(FileNotFoundError):
        blobs.read("a/b")


def test_several_are_created_in_one_call_but_for_names_that_are_taken(blobs):
    blobs.create("a/2", b"other")
    found = [("a/1", b"one"), ("a/2", b"two"), ("b/3", b"three"), ("a/1", b"one")]
    assert blobs.create_all(found) == [True, False, True, True]
    assert [blobs.read(name) for name in ("a/1", "a/2", "b/3")] == [b"one", b"other", b"three"]
    assert (blobs.names(), blobs.names("a"), blobs.names("b")) == (["a", "b"], ["1", "2"], ["3"])
    assert blobs.create_all([]) == []


def test_a_call_that_ends_early_has_created_a_first_part(tmp_path, monkeypatch):
    blobs, link = FolderBlobs(tmp_path), os.link

    def until_third(old, new):
        if new.name == "3":
            raise KeyboardInterrupt
        link(old, new)

    monkeypatch.setattr(os, "link", until_third)
    with pytest.raises(KeyboardInterrupt):
        blobs.create_all([(str(n), b"x") for n in range(1, 6)])
    assert os.listdir(tmp_path) in (["1", "2"], ["2", "1"]), "and nothing else is left"


def test_of_many_creators_one_wins(blobs):
    won = []
    threads = [
        threading.Thread(target=lambda i=i: blobs.create("k", b"%d" % i) and won.append(i))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert blobs.read("k") == b"%d" % won[0]


def test_where_they_lie(blobs):
    blobs.write("a", b"x")
    path = blobs.local("a")
    assert path is None if "://" in blobs.uri else path.read_bytes() == b"x"
    assert open_blobs(blobs.uri).read("a") == b"x"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_folder_is_not_left(tmp_path, name):
    blobs = FolderBlobs(tmp_path / "store")
    calls = [blobs.read, blobs.names, blobs.delete, blobs.local]
    calls += [lambda n: blobs.write(n, b""), lambda n: blobs.create(n, b"")]
    for call in calls:
        with pytest.raises(FoundryError, match="is no name below"):
            call(name)


def test_what_people_type_is_one_name():
    assert is_name("a@1")
    assert not any(map(is_name, ["", ".", "..", ".a", "a/b", "a\0", "n" * 221]))
