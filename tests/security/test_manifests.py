"""Manifests, names and listings that somebody else wrote: none leads out of its place."""

import copy
import json
import os
import string
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.execution.job import StageFailed
from foundry_core.files import sha256_hex
from foundry_core.objects import Listed
from foundry_core.store import gc, references, s3_files
from foundry_core.store.cache import FileCache
from foundry_core.store.external import imported
from foundry_core.store.manifest import Artifact, File, check_paths, content_digest, parsed
from foundry_core.store.output import scan_output
from foundry_core.store.run_records import load_run
from foundry_core.store.s3 import S3Store
from foundry_core.store.s3_files import Manifests
from tests.runs import prepared, run
from tests.support import install_kinds, stage_alone

BAD_PATHS = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/./x",
    "a//x",
    "a/",
    "a\0b",
    "a\nb",
    "a\x85b",
    "\ud800",
    "artifact.json",
    "n" * 256,
    "/".join(["d"] * 33),
    "/".join(["e" * 200] * 6),
]
BAD_SETS = {
    "twice": ["a", "a"],
    "two spellings": ["e\u0301", "\u00e9"],
    "two spellings of a folder": ["e\u0301/a", "\u00e9/b"],
    "file and folder": ["a/b", "a"],
    "file and folder, deep": ["a/b", "a/b/c/d"],
}


@pytest.fixture(autouse=True)
def home(built_home):
    return built_home


def file(path, data=b"x"):
    return File(path=path, size=len(data), sha256=sha256_hex(data))


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leads_elsewhere_is_none(path):
    with pytest.raises(ValueError, match=r"no path|too long"):
        check_paths([path])


@pytest.mark.parametrize("name", BAD_SETS)
def test_paths_that_meet_on_some_file_system_are_refused(name):
    with pytest.raises(ValueError, match=r"two spellings|both a file and a folder"):
        check_paths(BAD_SETS[name])


def test_what_stages_write_is_accepted():
    check_paths(
        ["a", "b/a", "b/c.d", ".hidden", "..x/y", "records/log.jsonl", "\u00e9/\u00e9", "a b"]
    )


_PARTS = st.text(st.characters(codec="utf-8") | st.sampled_from("./\\\0\n~"), max_size=6)


@given(st.lists(st.lists(_PARTS, max_size=4).map("/".join), max_size=4))
def test_what_is_accepted_stays_below_any_folder(paths):
    try:
        check_paths(paths)
    except ValueError:
        return
    for path in paths:
        assert os.path.normpath(os.path.join("/root/of", path)) == f"/root/of/{path}"
    assert len(set(paths)) == len(paths)


def manifest():
    files = (file("text.txt"), file("records/a.jsonl"))
    return imported("emit", content_digest(files), files, "r", files_at="/data").to_json()


_KEY = manifest()["key"]
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/x", "s3://a/../b", _KEY, "work", "2026-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def _damaged(draw):
    """A manifest with a value somewhere that nobody wrote there."""
    data = copy.deepcopy(manifest())
    for _ in range(draw(st.integers(1, 3))):
        place = data
        while True:
            name = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
            nested = isinstance(place[name], dict | list) and len(place[name]) > 0
            if not nested or draw(st.booleans()):
                break
            place = place[name]
        place[name] = draw(_VALUES)
        if not all(isinstance(data.get(n), dict | list) for n in ("files", "inputs")):
            break
    return data


@given(_damaged())
def test_a_manifest_that_was_tampered_with_is_refused_or_harmless(data):
    try:
        artifact = parsed(json.dumps(data).encode(), "emit", _KEY)
    except ValueError:
        return
    assert (artifact.kind, artifact.key) == ("emit", _KEY)
    assert artifact.content == content_digest(artifact.files)
    for one in artifact.files:
        assert ".." not in one.path.split("/") and not one.path.startswith("/")
    assert ".." not in artifact.files_at.split("/")


@given(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode))
def test_bytes_that_are_no_manifest_are_a_value_error(data):
    with pytest.raises(ValueError):
        parsed(data, "emit", _KEY)


def test_a_manifest_nested_without_end_is_a_value_error():
    with pytest.raises(ValueError, match=r"nested too deeply|no manifest"):
        parsed(b"[" * 200_000, "emit", _KEY)


CHANGES = {
    "a path": lambda data: data["files"][0].update(path="../../x"),
    "a size": lambda data: data["files"][0].update(size=-1),
    "a size as text": lambda data: data["files"][0].update(size="1"),
    "a digest": lambda data: data["files"][0].update(sha256="../x"),
    "a role": lambda data: data.update(files=["text.txt"]),
    "a link": lambda data: data.update(linked_to="../x"),
    "a place": lambda data: data.update(files_at="../../x"),
    "an absolute place": lambda data: data.update(files_at="/data/../../etc"),
    "a scheme": lambda data: data.update(files_at="file:///etc"),
    "another schema": lambda data: data.update(schema=2),
    "a field": lambda data: data.update(more=1),
    "a time": lambda data: data.update(created="yesterday"),
    "the content": lambda data: data.update(content="a" * 64),
    "a file and its digest": lambda data: data["files"][-1].update(sha256="b" * 64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_says_what_none_can_is_corrupt_for_every_reader(change, capsys):
    _, done = run()
    store, total = done.prepared.store, done.artifact("total")
    path = store.path("measure", total.key) / "artifact.json"
    data = json.loads(path.read_text())
    CHANGES[change](data)
    path.write_text(json.dumps(data))
    assert store.state("measure", total.key).problem.startswith("artifact.json is damaged")
    assert store.verify("measure", total.key).status == "corrupt"
    with pytest.raises(FoundryError, match="cannot be read"):
        store.read("measure", total.key)
    with pytest.raises(FoundryError, match="cannot be read"):
        references.find(store, total.key)
    assert gc.find_garbage(store).unreadable
    assert main(["lineage", "rebuild"]) == 0  # its event is there: nothing is read
    assert run()[0]["total"] == "run"
    assert store.state("measure", total.key).status == "ok"


def test_a_folder_copied_to_another_place_is_not_what_lies_there(home):
    _, before = run()
    run("first.word=uno")
    other = prepared("first.word=uno").specs["first"].key
    here = home / "store" / "emit" / before.artifact("first").key
    there = home / "store" / "emit" / other
    for name in ("artifact.json", "text.txt"):
        (there / name).write_bytes((here / name).read_bytes())
    store = before.prepared.store
    assert "it is that of emit/" in store.state("emit", other).problem
    assert run("first.word=uno", "model.rate=0.5")[0]["first"] == "run"


def test_a_document_that_is_too_large_is_not_read(monkeypatch, home):
    _, done = run()
    total = done.artifact("total")
    path = home / "store" / "measure" / total.key / "artifact.json"
    with path.open("ab") as stream:
        stream.truncate(65 * 2**20)
    assert "bytes that are read" in done.prepared.store.state("measure", total.key).problem


def test_a_file_that_links_out_of_the_artifact_is_corrupt(home, tmp_path):
    """It has the very bytes, now: whoever may write there decides about them later."""
    _, done = run()
    store, first = done.prepared.store, done.artifact("first")
    path = store.files_path(first) / "text.txt"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "link out of the artifact" in store.state("emit", first.key).problem
    assert "link out of the artifact" in store.verify("emit", first.key).problem


class Bucket:
    """A prefix of a bucket that holds these objects."""

    uri = "s3://bucket/models/base"

    def __init__(self, **objects):
        self.objects = {name.replace("__", "/"): data for name, data in objects.items()}

    def find(self, folder=""):
        now = datetime.now(UTC)
        return [
            Listed(name=name, size=len(data), modified=now, tag=sha256_hex(data))
            for name, data in self.objects.items()
        ]

    def digest(self, name, size):
        return sha256_hex(self.objects[name])


def test_an_object_whose_name_leads_out_is_not_imported():
    bucket = Bucket()
    bucket.objects = {"../../x": b"evil", "weights": b"1"}
    with pytest.raises(FoundryError, match=r"'\.\./\.\./x' is no path"):
        s3_files.scan(bucket)


def test_folders_that_a_console_made_are_no_files():
    bucket = Bucket(weights=b"1", deep__=b"", deep__more=b"2")
    files = s3_files.scan(bucket)
    assert [one.path for one in files] == ["weights", "deep/more"]
    assert s3_files.compare(bucket.find(), files, complete=True) == ""


def test_a_cache_writes_nothing_outside_of_itself(tmp_path):
    def download(one, path):
        path.write_bytes(b"x")
        return sha256_hex(b"x")

    cache = FileCache(tmp_path / "cache", limit=1000)
    with pytest.raises(FoundryError, match="no path"), cache.reading([file("../x")], download):
        pass
    assert not (tmp_path / "cache" / "x").exists()
    with cache.reading([file("a/b")], download) as folder:
        entry = Path(folder)
    (tmp_path / "outside").mkdir()
    (entry / "a" / "b").unlink()
    (entry / "a").rmdir()
    (entry / "a").symlink_to(tmp_path / "outside")
    with cache.reading([file("a/b")], download) as folder:
        assert (folder / "a" / "b").read_bytes() == b"x"
    assert list((tmp_path / "outside").iterdir()) == []


class Documents(dict):
    """The objects of a store that somebody else filled."""

    uri = "s3://bucket/store"

    def read_tagged(self, name, most=None):
        return self[name], "t"

    def find(self, folder=""):
        return [Listed(name="artifact.json", size=1, modified=datetime.now(UTC), tag="t")]

    def below(self, name):
        return self


@pytest.mark.parametrize("place", ["/etc", "s3://bucket/store/runs", "../x"])
def test_a_store_in_a_bucket_refers_to_no_file_of_this_host(place):
    data = manifest() | {"files_at": place}
    objects = Documents({f"emit/{_KEY}/artifact.json": json.dumps(data).encode()})
    store = S3Store.__new__(S3Store)
    store.uri, store._objects = objects.uri, objects
    store._manifests = Manifests(objects, "name")
    assert store.state("emit", _KEY).status == "corrupt"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "../x", "key": "k"}', '{"kind": "emit", "key": "../../x"}']
)
def test_a_name_that_means_no_artifact_is_one_line_and_can_be_removed(text, home, capsys):
    run()
    (home / "store" / "aliases").mkdir()
    (home / "store" / "aliases" / "base@1").write_text(text)
    for arguments in (["tag"], ["verify", "base@1"], ["gc"]):
        assert main(["lineage", *arguments]) == 2
        assert "names no kind and key" in capsys.readouterr().err
    assert main(["lineage", "untag", "base@1"]) == 0
    assert main(["lineage", "gc"]) == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": {"a": {}}}', '{"stages": [], "x": 1}'])
def test_a_record_that_is_no_runs_is_named_and_stops_gc(text, home):
    _, done = run()
    (home / "store" / "runs" / f"{done.run_id}.json").write_text(text)
    for ask in (lambda: load_run(done.prepared.store.documents, done.run_id), prepared):
        with pytest.raises(FoundryError, match="no record of a run"):
            ask()
    with pytest.raises(FoundryError, match="no record of a run"):
        gc.find_garbage(done.prepared.store)


def test_links_within_an_output_are_made_relative(tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "weights").write_text("1")
    (out / "deep" / "absolute").symlink_to(out / "weights")
    (out / "roundabout").symlink_to("../out/weights")
    (out / "folder").symlink_to(out / "deep")
    scan_output(out)
    moved = out.rename(tmp_path / "moved")
    for name in ("deep/absolute", "roundabout", "folder/absolute"):
        assert (moved / name).read_text() == "1"


LINKER = """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class Linker(Stage):
    kind = "linker"
    output = ArtifactType.TEXT_SHARDS
    Recipe = type("LinkerRecipe", (Recipe,), {"__annotations__": {"out": bool}})

    @staticmethod
    def run(ctx):
        (ctx.out / "own").write_text("1")
        (ctx.out / "link").symlink_to("/etc/hostname" if ctx.recipe.out else ctx.out / "own")
        return {}


STAGE = Linker
"""


def test_a_stage_that_links_its_own_file_is_whole_and_one_that_links_out_is_told(
    tmp_path, monkeypatch
):
    from flows.runs.engine import PipelineRun
    from flows.runs.planning import Request, prepare

    install_kinds(tmp_path, monkeypatch, {"linker": LINKER})

    def go(out):
        pipeline = str(stage_alone(tmp_path, "linker", out=out))
        under_way = PipelineRun(prepare(Request(pipeline=pipeline)))
        under_way.start()
        return under_way.stage("linker").artifact, under_way.prepared.store

    artifact, store = go(False)
    assert (store.files_path(artifact) / "link").read_text() == "1"
    assert store.verify("linker", artifact.key).status == "ok"
    with pytest.raises(StageFailed, match="its output link is a link to /etc/hostname"):
        go(True)


def test_an_artifact_reads_back_as_it_was_written():
    artifact = Artifact.from_json(manifest())
    assert parsed(artifact.encoded(), artifact.kind, artifact.key) == artifact
