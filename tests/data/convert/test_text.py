"""Documents of a piece into tokens."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from foundry_core.data.config import SplitConfig
from foundry_core.data.convert import text
from foundry_core.data.convert.read import read_captioned, read_documents
from foundry_core.data.convert.text import TokenJob, Vocabulary, tokenise
from foundry_core.data.sources.base import Broken, Captioned, Document, SourceRef
from foundry_core.data.sources.text.jsonl import JsonLines
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError

REF = SourceRef(name="a.jsonl", files=("a.jsonl",))


@pytest.fixture
def tokenizer(tmp_path):
    made = Tokenizer.train(["some text"], 258)
    made.save(tmp_path / "tokenizer")
    return made, tmp_path / "tokenizer"


def chunk_of(tmp_path, folder, rows, fraction=0.0):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = JsonLines(path=str(path))
    vocabulary = Vocabulary.of(source, folder)
    (ref,) = source.refs()
    split = SplitConfig(fraction=fraction) if fraction else None
    job = TokenJob(source=source, tokenizer=folder, vocabulary=vocabulary, split=split, ref=ref)
    with TemporaryDirectory() as made:
        tokenise(job, Path(made))
        dtype = text.token_dtype(vocabulary.size)
        sides = [np.fromfile(Path(made, name), dtype) for name in text._SIDES]
        return SimpleNamespace(**vars(text._chunk(Path(made))), streams=sides)


def test_empty_texts_are_left_out_and_bad_ones_skipped(tmp_path, tokenizer):
    made, folder = tokenizer
    rows = [{"text": "ab"}, {"text": ""}, {"text": " \n\u00a0"}, {"text": None}, {"text": "c"}]
    chunk = chunk_of(tmp_path, folder, rows)
    train, evaluation = chunk.streams
    assert train.tolist() == [*made.encode("ab"), made.eos_id, *made.encode("c"), made.eos_id]
    assert (chunk.documents, chunk.characters, chunk.empty) == ((2, 0), 3, 2)
    assert len(chunk.skipped) == 1 and len(evaluation) == 0


@pytest.mark.parametrize("at_once", [1, 50, 1 << 20])
def test_how_many_are_encoded_at_once_leaves_no_trace(tmp_path, tokenizer, monkeypatch, at_once):
    _, folder = tokenizer
    rows = [{"text": f"document {n} " * (n % 7 + 1)} for n in range(60)]
    whole = chunk_of(tmp_path, folder, rows, 0.3)
    assert min(whole.documents) > 5
    monkeypatch.setattr(text, "_ENCODED_AT_ONCE", at_once)
    found = chunk_of(tmp_path, folder, rows, 0.3)
    for one, other in zip(found.streams, whole.streams, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert found.documents == whole.documents and found.characters == whole.characters


class Source:
    """A format of others."""

    def __init__(self, *found):
        self.found = found

    def read(self, ref):
        for one in self.found:
            if isinstance(one, BaseException):
                raise one
            yield one

    items = read


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), KeyError("y")])
def test_whatever_a_reader_stumbles_over_is_one_skip(error):
    good = Document(id="a:1", text="one")
    first, last = read_documents(Source(good, error, good), REF)
    assert first is good
    assert last.id == "a.jsonl" and last.reason.startswith("not readable behind a:1: ")
    (only,) = read_captioned(Source(error), REF)
    assert only.reason.startswith(f"not readable: {type(error).__name__}")


def test_what_a_recipe_must_mend_is_raised():
    with pytest.raises(FoundryError, match="set vocab_size"):
        list(read_documents(Source(FoundryError("set vocab_size")), REF))


@pytest.mark.parametrize(
    ("words", "reason"),
    [("\ud83d", "half a character"), (b"a", "of type bytes"), (None, "of type NoneType")],
)
def test_words_that_are_no_text_are_skips_of_every_format(words, reason):
    for item in (
        *read_documents(Source(Document(id="x", text=words)), REF),
        *read_captioned(Source(Captioned(id="x", images={}, caption=words)), REF),
    ):
        assert isinstance(item, Broken) and reason in item.reason


def test_names_and_reasons_can_be_written_whatever_a_source_holds(monkeypatch):
    (found,) = read_documents(Source(Broken(id="a\ud83d\x1b", reason="x" * 10**6)), REF)
    assert found.id.encode() and found.id.isprintable() and len(found.reason) < 5000
    monkeypatch.setattr("foundry_core.data.convert.read.MAX_DOCUMENT", 10)
    (long,) = read_documents(Source(Document(id="a", text="x" * 11)), REF)
    assert long.reason == "has 11 characters, at most 10 are read"
