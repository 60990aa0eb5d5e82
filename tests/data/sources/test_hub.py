"""Datasets on the hub: identified by their commit, fetched through the real client."""

import io
import json

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from foundry_core import hub
from foundry_core.data.sources.captions.image_parquet import ImageParquet
from foundry_core.data.sources.captions.imagefolder import ImageFolder
from foundry_core.data.sources.remote import local_source
from foundry_core.data.sources.text.jsonl import JsonLines
from foundry_core.data.sources.text.parquet import Parquet
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from tests.hub import COMMIT, REPOSITORY, hub_server
from tests.saved_datasets import pictures

ROOT = f"hf://datasets/{REPOSITORY}@{COMMIT}"
WORDS = [f"text {n} " + "w" * n for n in range(90)]


def table(texts):
    out = io.BytesIO()
    write_table(pa.table({"text": texts}), out, row_group_size=20)
    return out.getvalue()


FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    ".gitattributes": b"*.parquet filter=lfs\n",
    "data/train-00000-of-00002.parquet": table(WORDS[:50]),
    "data/train-00001-of-00002.parquet": table(WORDS[50:]),
    "data/test-00000-of-00001.parquet": table(["another"]),
    "lines/a.jsonl": b"".join(json.dumps({"text": t}).encode() + b"\n" for t in WORDS[:9]),
}


@pytest.fixture
def place(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_server(FILES) as (endpoint, found):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield found


def quiet(*args, **values):
    pass


def texts(source):
    return [document.text for ref in source.refs() for document in source.read(ref)]


def fetched(source, scratch):
    found = local_source(source, scratch, quiet)
    return found, sorted(p.name for p in scratch.rglob("*.*") if ".cache" not in p.parts)


@pytest.mark.parametrize(
    ("inner", "expected", "files"),
    [
        ("/data/train-*.parquet", WORDS, 2),
        ("/data/train-00001-of-00002.parquet", WORDS[50:], 1),
        ("/data", ["another", *WORDS], 3),
        ("", ["another", *WORDS], 5),
        ("/", ["another", *WORDS], 5),
    ],
)
def test_a_file_a_folder_a_pattern_or_all_of_a_commit(place, tmp_path, inner, expected, files):
    place.page = 2  # listings come in pages
    source, names = fetched(Parquet(path=f"{ROOT}{inner}"), tmp_path / "scratch")
    assert texts(source) == expected
    assert len([name for name in names if not name.startswith("source-")]) == files


def test_lines_too(place, tmp_path):
    source, _ = fetched(JsonLines(path=f"{ROOT}/lines"), tmp_path)
    assert texts(source) == WORDS[:9]


def test_captioned_images_too(place, tmp_path):
    out = io.BytesIO()
    pairs = {"image": pictures([b"one", b"two"]), "title": ["a", "b"]}
    write_table(pa.table(pairs), out)
    place.files |= {"pairs/0.parquet": out.getvalue(), "photos/0.png": b"png"}
    place.files["photos/metadata.jsonl"] = b'{"file_name": "0.png", "text": "a"}\n'
    table, _ = fetched(ImageParquet(path=f"{ROOT}/pairs", caption="title"), tmp_path / "table")
    folder, _ = fetched(ImageFolder(path=f"{ROOT}/photos"), tmp_path / "folder")
    for source, expected in ((table, {"a": b"one", "b": b"two"}), (folder, {"a": b"png"})):
        found = [item for ref in source.refs() for item in source.items(ref)]
        assert {item.caption: item.images["image"] for item in found} == expected


def test_the_identity_is_the_commit_and_nobody_is_asked(place):
    source = Parquet(path=f"{ROOT}/data")
    first = source.identity()
    assert first == {"parquet": fingerprint(f"{ROOT}/data/")}
    assert fingerprint(f"hf://datasets/mirror/of_it@{COMMIT}/data") == first["parquet"]
    others = {fingerprint(a) for a in (ROOT, f"{ROOT}/lines", f"{ROOT}/data".replace("0", "1"))}
    assert len({*others, first["parquet"]}) == 4
    assert place.asked == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"hf://datasets/{REPOSITORY}/data", "no revision, which may be other data tomorrow"),
        (f"hf://datasets/{REPOSITORY}@main/data", "names main, which may be other data tomorrow"),
        (f"hf://datasets/{REPOSITORY}@{COMMIT[:12]}", "names 0123456789ab,"),
        (f"hf://{REPOSITORY}@{COMMIT}", "is no dataset on the hub"),
        (f"{ROOT}/data/../../x", "is no plain place"),
        (f"{ROOT}/a//b", "is no plain place"),
    ],
)
def test_what_is_no_commit_is_refused_when_a_plan_is_made(address, said):
    with pytest.raises(FoundryError, match=said):
        Parquet(path=address).identity()


def test_an_attempt_after_a_killed_one_fetches_what_is_missing(place, tmp_path):
    source, _ = fetched(Parquet(path=f"{ROOT}/data"), tmp_path)
    (source.root / "test-00000-of-00001.parquet").unlink()
    place.asked.clear()
    fetched(Parquet(path=f"{ROOT}/data"), tmp_path)
    assert [one for one in place.asked if one.startswith("GET") and "resolve" in one] == [
        f"GET /datasets/{REPOSITORY}/resolve/{COMMIT}/data/test-00000-of-00001.parquet"
    ]


@pytest.mark.parametrize("name", ["data/train-00000-of-00002.parquet", "lines/a.jsonl"])
def test_other_bytes_than_the_commit_has_are_refused_and_not_kept(place, tmp_path, name):
    data = bytearray(FILES[name])
    data[200] ^= 1
    place.served[name] = bytes(data)
    with pytest.raises(FoundryError, match="came with other bytes than the commit has"):
        fetched(Parquet(path=f"{ROOT}/{name}"), tmp_path)
    place.served.clear()
    source, _ = fetched(Parquet(path=f"{ROOT}/{name}"), tmp_path)
    assert source.root.read_bytes() == FILES[name]


def test_what_is_not_there_is_named(place, tmp_path, monkeypatch):
    for address, said in {
        f"hf://datasets/lab/other@{COMMIT}": "RepositoryNotFoundError",
        f"hf://datasets/{REPOSITORY}@{'9' * 40}": "RevisionNotFoundError",
        f"{ROOT}/nowhere": "nowhere' cannot be fetched: .*EntryNotFound",
        f"{ROOT}/data/*.csv": r"csv' holds no files",
    }.items():
        with pytest.raises(FoundryError, match=said):
            fetched(Parquet(path=address), tmp_path)
    place.token = "secret"
    with pytest.raises(FoundryError, match="GatedRepoError") as caught:
        fetched(Parquet(path=f"{ROOT}/data"), tmp_path)
    assert "needs HF_TOKEN" in caught.value.hint


def test_a_token_opens_a_gated_set(place, tmp_path, monkeypatch):
    place.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    source, _ = fetched(Parquet(path=f"{ROOT}/data/test-*"), tmp_path)
    assert texts(source) == ["another"]


def test_offline_is_said(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FoundryError, match="OfflineModeIsEnabled") as caught:
        fetched(Parquet(path=ROOT), tmp_path)
    assert "HF_HUB_OFFLINE must not be set" in caught.value.hint


@pytest.mark.slow("waits for the client's own retries")
def test_a_hub_that_is_away_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FoundryError, match=f"lab/set@{COMMIT}' cannot be fetched"):
        fetched(Parquet(path=ROOT), tmp_path)


def test_names_that_lead_out_of_the_folder_are_refused(place, tmp_path, monkeypatch):
    bad = hub.HubFile(name="../../up.parquet", size=1, sha256=None, blob="0" * 40)
    monkeypatch.setattr(hub, "listed", lambda address: [bad])
    with pytest.raises(FoundryError, match="cannot be stored as a file"):
        fetched(Parquet(path=ROOT), tmp_path / "s")
