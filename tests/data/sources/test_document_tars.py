"""Members of tars that are no document: one skip each, and the rest of the tar is read."""

import gzip
import io
import json
import tarfile

import pytest

from foundry_core.data.convert.read import read_documents
from foundry_core.data.sources import files
from foundry_core.data.sources.base import Broken
from foundry_core.data.sources.text import token_tars
from foundry_core.data.sources.text.text_tars import TextTars
from foundry_core.data.sources.text.token_tars import TokenTars


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return str(path)


def read(source):
    return [item for ref in source.refs() for item in read_documents(source, ref)]


def test_texts_behind_bad_members_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1 << 20)
    members = {
        "0.txt": b"plain",
        "1.json": b'{"meta": {"text": "inner"}}',
        "2.json": b'{"a": ' * 50_000,  # plain text that looks like JSON nested too deep
        "3.txt": b"\xff",
        "4.json": b'{"text": 3}',
        "5.txt": bytes((1 << 20) + 1),
        "6.txt": b"last",
    }
    found = read(TextTars(path=tar_of(tmp_path / "a.tar", members), field="meta.text"))
    assert [item.text[:5] for item in found if not isinstance(item, Broken)] == [
        "plain", "inner", '{"a":', "last",
    ]  # fmt: skip
    bad = {item.id: item.reason for item in found if isinstance(item, Broken)}
    assert list(bad) == ["a.tar/3.txt", "a.tar/4.json", "a.tar/5.txt"]
    assert bad["a.tar/5.txt"] == "the member is longer than 1048576 bytes"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"[" + b" " * (1 << 22) + b"1]"), "unpacks to more than 1048576 bytes"),
        (gzip.compress(b"[" * 100_000), "RecursionError|recursion"),
        (gzip.compress(b"[1, 2]")[:-3], "not a list of token ids"),
        (gzip.compress(b"[1e999]"), "not a list of token ids"),
        (gzip.compress(b"[[1], [2]]"), "not a flat"),
    ],
)
def test_tokens_behind_bad_members_are_read(tmp_path, monkeypatch, data, reason):
    monkeypatch.setattr(token_tars, "MAX_DOCUMENT", 1 << 20)
    good = gzip.compress(json.dumps([1, 2, 3]).encode())
    path = tar_of(tmp_path / "a.tar", {"0.json.gz": good, "1.json.gz": data, "2.json.gz": good})
    first, bad, last = read(TokenTars(path=path, vocab_size=10, eos_id=0))
    assert first.tokens.tolist() == last.tokens.tolist() == [1, 2, 3]
    assert bad.id == "a.tar/1.json.gz" and any(part in bad.reason for part in reason.split("|"))
