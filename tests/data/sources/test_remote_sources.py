"""Raw data on S3: identified by a listing, fetched before it is read, the same results."""

import gzip
import io
import json
import subprocess
import sys
import tarfile

import pyarrow as pa
import pytest
import yaml
import zstandard
from PIL import Image
from pyarrow.parquet import write_table

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.data.sources.base import Broken, TextFormat
from foundry_core.data.sources.captions.image_arrow import ImageArrow
from foundry_core.data.sources.captions.image_parquet import ImageParquet
from foundry_core.data.sources.captions.imagefolder import ImageFolder
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.remote import local_source
from foundry_core.data.sources.robot.zarr_replay import ZarrReplay
from foundry_core.data.sources.text.arrow import Arrow
from foundry_core.data.sources.text.jsonl import JsonLines
from foundry_core.data.sources.text.packages import PackageDocs
from foundry_core.data.sources.text.parquet import Parquet
from foundry_core.data.sources.text.txt import PlainText
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from foundry_core.objects import Objects, connect
from tests.s3 import s3_server, use_s3
from tests.saved_datasets import pictures, save_splits

TEXTS = {
    "a.txt": " ".join(f"the cat {n} sat on mat {n * n}." for n in range(300)),
    "deep/b.md": " ".join(f"dog {n} ran {n * 7} miles." for n in range(300)),
    "c.bin": "no",
}


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def raw(endpoint, monkeypatch, tmp_path):
    """(s3:// address of a corpus, its objects, the same as a local folder)."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    uri = use_s3(monkeypatch, endpoint).replace("/store", "/raw")
    place = connect(uri)
    for name, text in TEXTS.items():
        place.write(name, text.encode())
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return uri, place, tmp_path / "raw"


def quiet(*args, **values):
    pass


def files_below(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_a_listing_is_the_identity(raw):
    uri, place, _ = raw
    first = fingerprint(uri)
    assert fingerprint(f"{uri}/") == first
    place.write("a.txt", TEXTS["a.txt"].encode())
    assert fingerprint(uri) == first, "the same bytes have the same entity tag"
    place.write("a.txt", b"x" + TEXTS["a.txt"].encode()[1:])
    assert fingerprint(uri) != first, "equal size, other bytes"
    place.write("a.txt", TEXTS["a.txt"].encode())
    place.write("d.txt", b"")
    assert fingerprint(uri) != first
    assert fingerprint(f"{uri}/a.txt") == fingerprint(f"{uri}/a.txt")
    with pytest.raises(FoundryError, match="holds no objects"):
        fingerprint(f"{uri}/nothing")
    with pytest.raises(FoundryError, match="no address of an object store"):
        fingerprint("gs://bucket/raw")


def test_folders_and_single_objects_become_files(raw, tmp_path):
    uri, place, local = raw
    told = []
    found = local_source(PlainText(path=uri), tmp_path / "s", lambda *a, **v: told.append(a))
    copied = files_below(tmp_path / "s")
    assert {name.partition("/")[2]: path.read_text() for name, path in copied.items()} == TEXTS
    assert fingerprint(found.path) == fingerprint(local)
    assert told[-1][0] == told[-1][1] == sum(map(len, TEXTS.values()))
    place.write("x.jsonl", b'{"text": "one"}\n')
    one = local_source(JsonLines(path=f"{uri}/x.jsonl"), tmp_path / "s", quiet)
    with open(one.path) as stream:
        assert stream.read() == '{"text": "one"}\n'
    for same in (PlainText(path=str(local)), PackageDocs(packages=("numpy",))):
        assert local_source(same, tmp_path, quiet) is same


def test_what_begins_with_a_dot_is_left_out_unless_zarr_needs_it(raw, tmp_path):
    uri, place, _ = raw
    for name in ("meta/episode_ends/.zarray", ".zgroup", ".git/config", "data/x/0.0"):
        place.write(f"buffer/{name}", b"{}")
    source = ZarrReplay(path=f"{uri}/buffer", hz=10)
    local = local_source(source, tmp_path / "scratch", quiet)
    assert sorted(files_below(local.root)) == [".zgroup", "data/x/0.0", "meta/episode_ends/.zarray"]
    first = fingerprint(source.path)
    place.write("buffer/meta/episode_ends/.zarray", b"{ }")
    assert fingerprint(source.path) != first


def test_a_second_attempt_fetches_only_what_is_missing(raw, tmp_path, monkeypatch):
    uri, _, _ = raw
    scratch = tmp_path / "scratch"
    local_source(PlainText(path=uri), scratch, quiet)
    files = files_below(scratch)
    lost = next(path for name, path in files.items() if name.endswith("a.txt"))
    lost.unlink()
    lost.with_name(".a.txt.part").write_text("half")
    fetched = []
    download = Objects.download
    monkeypatch.setattr(
        Objects,
        "download",
        lambda self, name, *rest: fetched.append(name) or download(self, name, *rest),
    )
    local_source(PlainText(path=uri), scratch, quiet)
    assert fetched == ["a.txt"]
    assert files_below(scratch) == files


def test_a_source_that_changes_meanwhile_is_refused(raw, tmp_path, monkeypatch):
    uri, place, _ = raw
    download = Objects.download

    def changed(self, name, *rest):
        place.write("late.txt", b"more")
        return download(self, name, *rest)

    monkeypatch.setattr(Objects, "download", changed)
    with pytest.raises(FoundryError, match="changed while it was fetched"):
        local_source(PlainText(path=uri), tmp_path, quiet)


def test_names_that_lead_out_of_the_folder_are_refused(raw, tmp_path, monkeypatch):
    uri, place, _ = raw
    listed = place.find()
    monkeypatch.setattr(
        Objects,
        "find",
        lambda self, folder="": [type(listed[0])(**{**vars(listed[0]), "name": "../up"})],
    )
    with pytest.raises(FoundryError, match=r"'\.\./up' cannot be stored"):
        local_source(PlainText(path=uri), tmp_path / "s", quiet)
    assert not (tmp_path / "up").exists()


def test_every_format_reads_from_s3_what_it_reads_here(raw, tmp_path):
    uri, place, _ = raw
    folder = tmp_path / "formats"
    folder.mkdir()
    words = [f"text {n}" for n in range(40)]
    lines = b"".join(json.dumps({"text": one}).encode() + b"\n" for one in words)
    zstd = zstandard.ZstdCompressor()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "b.ndjson.zst").write_bytes(zstd.compress(lines[:99]) + zstd.compress(lines[99:]))
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, "PNG")
    table = pa.table({"text": words, "image": pictures([out.getvalue()] * 40)})
    write_table(table, folder / "c.parquet", row_group_size=15)
    save_splits(folder / "ds", {"train": table, "test": table})
    (folder / "photos").mkdir()
    (folder / "photos" / "0.png").write_bytes(out.getvalue())
    (folder / "photos" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}')
    with tarfile.open(folder / "d.tar", "w") as tar:
        for name, data in (("0.png", out.getvalue()), ("0.txt", b"a")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    for name, path in files_below(folder).items():
        place.write(f"all/{name}", path.read_bytes())
    both = {"image": "image", "caption": "text"}
    for kind, inner, options, records in (
        (JsonLines, "", {}, 81),
        (JsonLines, "/b.ndjson.zst", {}, 40),
        (Parquet, "/c.parquet", {}, 40),
        (Arrow, "/ds", {"split": "train"}, 40),
        (ImageParquet, "", both, 40),
        (ImageArrow, "/ds", {"split": "test", **both}, 40),
        (ImageFolder, "/photos", {}, 1),
        (ImageCaptionTars, "/d.tar", {}, 1),
    ):
        here = kind(path=f"{folder}{inner}", **options)
        there = local_source(kind(path=f"{uri}/all{inner}", **options), tmp_path / "s", quiet)
        found = items(there)
        assert found == items(here)
        assert len(found) == records and not any(isinstance(one, Broken) for one in found)


def items(source):
    read = source.read if isinstance(source, TextFormat) else source.items
    return [item for ref in source.refs() for item in read(ref)]


def tokenizer(path, folder):
    recipe = {"vocab_size": 270, "sources": [{"format": "txt", "path": str(path)}]}
    stages = {"tokenizer": {"kind": "train_tokenizer", "recipe": recipe}}
    file = folder / "p.yaml"
    file.write_text(yaml.safe_dump({"name": "p", "stages": stages}))
    return prepare(Request(pipeline=str(file)))


def finished(prepared):
    run = PipelineRun(prepared)
    run.start()
    for name in run.affected():
        run.stage(name)
    run.finish("succeeded")
    return run.artifact("tokenizer")


def test_a_stage_reads_s3_as_it_reads_a_folder(raw, tmp_path):
    uri, place, local = raw
    remote = finished(tokenizer(uri, tmp_path))
    assert tokenizer(uri, tmp_path).plan.to_run() == []
    assert finished(tokenizer(local, tmp_path)).content == remote.content
    place.write("a.txt", " ".join(f"other {n} words {n * 3}." for n in range(400)).encode())
    (row,) = tokenizer(uri, tmp_path).plan.to_run()
    assert [reason.category for reason in row.reasons] == ["SOURCE"]


def test_data_convert_takes_an_address(raw, tmp_path):
    uri, _, _ = raw
    finished(tokenizer(uri, tmp_path))
    (made,) = (tmp_path / "home" / "store" / "train_tokenizer").iterdir()
    command = [sys.executable, "-m", "flows.cli", "data", "convert", "--from", "txt", uri]
    done = subprocess.run(
        [*command, str(tmp_path / "out"), "--tokenizer", str(made), "-o", "context=16"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [*(tmp_path / "out").glob("*.tar")]
