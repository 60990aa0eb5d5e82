"""JSON lines in every wrapping: each line once, in bounded memory, whatever is wrong with it."""

import gzip
import hashlib
import itertools
import json
import tracemalloc

import pytest
import zstandard

from foundry_core.data.convert.read import read_documents
from foundry_core.data.sources import lines
from foundry_core.data.sources.base import Broken
from foundry_core.data.sources.text import jsonl
from foundry_core.data.sources.text.jsonl import JsonLines
from foundry_core.errors import FoundryError
from tests.real_data import ABSENT, FORMATS

ZSTD = zstandard.ZstdCompressor()


def row(text, **more):
    return json.dumps({"text": text, **more}).encode() + b"\n"


def read(path, **options):
    source = JsonLines(path=str(path), **options)
    return [item for ref in source.refs() for item in read_documents(source, ref)]


def texts(path, **options):
    return [item.text for item in read(path, **options)]


def broken(path, **options):
    return [(i.id, i.reason) for i in read(path, **options) if isinstance(i, Broken)]


WORDS = [f"line {n} " + "word " * (n % 40) for n in range(500)]
LINES = b"".join(map(row, WORDS))
PACKED = {
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.ndjson.gz": gzip.compress(LINES[:900]) + gzip.compress(LINES[900:]),  # cut inside a line
    "a.json.gz": gzip.compress(LINES),
    "a.jsonl.zst": ZSTD.compress(LINES),
    "a.ndjson.zst": ZSTD.compress(LINES[:900]) + ZSTD.compress(LINES[900:]),
    "a.json.zst": ZSTD.compress(LINES[:-1]),  # no break behind the last line
}


@pytest.mark.parametrize("name", PACKED)
def test_every_wrapping_gives_every_line_once_and_in_order(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    assert texts(tmp_path) == WORDS


@pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)
@pytest.mark.parametrize("name", ["text_jsonl_zst", "text_dclm_jsongz"])
def test_files_of_the_original_tools(name):
    path = FORMATS / name
    expected = json.loads((path / "expected.json").read_text())["text"]
    (file,) = (one for one in path.iterdir() if "json." in one.name or ".jsonl" in one.name)
    found = texts(file)
    assert len(found) == expected["count"]
    joined = hashlib.sha256("\0".join(found).encode()).hexdigest()
    assert joined == expected["sha256_all_joined_nul"]


@pytest.mark.parametrize("piece", [1, 100, 777, 1 << 20])
def test_large_plain_files_are_cut_at_line_breaks(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(lines, "PIECE_BYTES", piece)
    (tmp_path / "a.jsonl").write_bytes(LINES)
    refs = JsonLines(path=str(tmp_path)).refs()
    assert len(refs) == {1: 500, 1 << 20: 1}.get(piece, len(refs))
    assert [ref.start for ref in refs[1:]] == [ref.stop for ref in refs[:-1]]
    assert texts(tmp_path) == WORDS


def test_frames_of_zstd_are_pieces_wherever_they_cut_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "PIECE_BYTES", 1)
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    checked = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
    breaks = [n for n, byte in enumerate(LINES) if byte == 10]
    cuts = [0, 5, 6, 300, breaks[20] + 1, breaks[30], breaks[31] + 1, 9000, 20_000, len(LINES)]
    frames = [
        (checked if n % 2 else ZSTD).compress(LINES[a:b])
        for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    for where in range(len(frames) + 1):
        data = b"".join([*frames[:where], skippable, *frames[where:]])
        (tmp_path / "a.jsonl.zst").write_bytes(data)
        refs = JsonLines(path=str(tmp_path)).refs()
        assert len(refs) == len(frames) + 1
        assert texts(tmp_path) == WORDS
    names = [item.id for item in read(tmp_path)]
    assert len(set(names)) == len(names), "every document can be found by its name"


def test_blocks_of_every_kind_are_passed_over(tmp_path, monkeypatch):
    """Raw, repeated (one byte) and compressed blocks; a dictionary's id takes bytes too."""
    monkeypatch.setattr(lines, "PIECE_BYTES", 1)
    noise = json.dumps({"text": hashlib.sha512(b"x").hexdigest() * 3000}).encode() + b"\n"
    zeros = b" " * 300_000 + row("after a long run")
    data = b"".join(map(ZSTD.compress, (noise, zeros, row("end"))))
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert len(JsonLines(path=str(tmp_path)).refs()) == 3
    assert [text[-5:] for text in texts(tmp_path)][1:] == ["g run", "end"]


def test_a_field_may_be_a_path_and_a_name_with_a_dot_goes_first(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b'{"meta": {"doc": {"body": "in"}}}\n{"meta.doc.body": "name", "meta": 3}\n{"meta": []}\n'
    )
    found = read(tmp_path, field="meta.doc.body")
    assert [item.text for item in found[:2]] == ["in", "name"]
    assert found[2].reason == "no string field 'meta.doc.body': valid: meta"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"text": 3}', "'text' is of type int, not a string"),
        (b'{"text": null}', "no string field 'text'"),
        (b'["text"]', "a list, not an object with 'text'"),
        (b'{"txt": "a"}', "did you mean 'txt'?"),
        (b'{"text": "\\ud83d"}', "holds half a character ('\\ud83d' at 0)"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_bad_line_is_one_skip_that_names_its_place(tmp_path, line, reason, packed):
    data = row("good") + b"\n \r\n" + line + b"\n" + row("too")
    pack = {"": bytes, ".gz": gzip.compress, ".zst": ZSTD.compress}[packed]
    (tmp_path / f"a.jsonl{packed}").write_bytes(pack(data))
    assert [i.text for i in read(tmp_path) if not isinstance(i, Broken)] == ["good", "too"]
    ((name, said),) = broken(tmp_path)
    place = f"@{len(row('good')) + 4}" if not packed else ":4"
    assert name == f"a.jsonl{packed}{place}"
    assert reason in said


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_bomb_is_one_skip_and_never_in_memory(tmp_path, monkeypatch, ending):
    for module in (lines, jsonl):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 1 << 20)
    size = 1 << 28
    path = tmp_path / f"a.jsonl{ending}"
    if ending == ".gz":
        with gzip.open(path, "wb", 1) as stream:
            stream.write(row("before"))
            for _ in range(size >> 22):
                stream.write(bytes(1 << 22))
            stream.write(b"\n" + row("behind"))
    else:
        packed = ZSTD.compressobj()
        parts = [packed.compress(row("before"))]
        parts += [packed.compress(bytes(1 << 22)) for _ in range(size >> 22)]
        path.write_bytes(b"".join([*parts, packed.compress(b"\n" + row("behind")), packed.flush()]))
    tracemalloc.start()
    found = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(i, "text", "") for i in found] == ["before", "", "behind"]
    assert found[1].reason == "the line is longer than 1048576 bytes"
    assert peak < 1 << 24


def test_frames_without_a_line_break_are_not_read_to_their_end_by_every_piece(
    tmp_path, monkeypatch
):
    for module in (lines, jsonl):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 1 << 20)
    monkeypatch.setattr(lines, "PIECE_BYTES", 1)
    (tmp_path / "a.jsonl.zst").write_bytes(ZSTD.compress(bytes(1 << 20)) * 100)
    served = []
    unpacked = lines._chunks

    def counted(stream):
        for chunk in unpacked(stream):
            served.append(len(chunk))
            yield chunk

    monkeypatch.setattr(lines, "_chunks", counted)
    found = read(tmp_path)
    assert [item.reason for item in found] == ["the line is longer than 1048576 bytes"]
    assert sum(served) <= 100 * (3 << 20)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("a.jsonl.gz", lambda data: data[:-9]),
        ("a.jsonl.gz", lambda data: data[:1000]),
        ("a.jsonl.gz", lambda data: data + b"trailing"),
        ("a.jsonl.gz", lambda data: b"no gzip at all"),
        ("a.jsonl.zst", lambda data: data[:-4]),
        ("a.jsonl.zst", lambda data: data + b"trailing"),
        ("a.jsonl.zst", lambda data: data[:600]),
        ("a.jsonl.zst", lambda data: b"no zstd at all"),
        ("a.jsonl.zst", lambda data: b"\x28\xb5\x2f\xfd"),
    ],
)
def test_a_damaged_file_is_one_skip_behind_what_is_whole(tmp_path, name, spoil):
    path = tmp_path / name
    path.write_bytes(spoil(PACKED[name]))
    found = read(tmp_path)
    good = [item.text for item in found[:-1]]
    assert good == WORDS[: len(good)]
    assert isinstance(found[-1], Broken)
    assert name in found[-1].reason and f"behind line {len(good)} " in found[-1].reason
    assert found[-1].reason.endswith("what follows is lost")


def test_what_is_cut_between_two_frames_or_empty_cannot_be_told(tmp_path):
    for name in ("a.jsonl", "b.jsonl.zst", "c.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.jsonl.zst").write_bytes(ZSTD.compress(LINES[: LINES.index(b"\n") + 1]))
    assert texts(tmp_path) == WORDS[:1]


def test_a_plain_json_file_is_read_where_it_is_named(tmp_path):
    (tmp_path / "lines.json").write_bytes(LINES)
    assert texts(tmp_path / "lines.json") == WORDS
    with pytest.raises(FoundryError, match=r"holds no file that ends in \.jsonl"):
        texts(tmp_path)


def test_fields_are_named_by_path_with_their_type(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        row(None, meta={"n": 1}) + row("a", meta={"n": None, "x": 2})
    )
    found = JsonLines(path=str(tmp_path)).fields()
    assert found == {"text": "str", "meta.n": "int", "meta.x": "int"}
