"""A look into raw text and captioned images, before anything is converted."""

import gzip
import json

import pyarrow as pa
import pytest
import yaml
from pyarrow.parquet import write_table

from flows.cli import main
from foundry_core.config.validation import validate
from foundry_core.data.images import encode_jpeg
from foundry_core.data.inspection.raw import detect
from foundry_core.data.inspection.raw_words import raw_words
from foundry_core.errors import FoundryError
from tasks.convert_captions import ConvertCaptionsRecipe
from tasks.convert_text import ConvertTextRecipe
from tests.saved_datasets import pictures, save, save_splits


@pytest.fixture(scope="module")
def photo():
    import numpy as np

    return encode_jpeg(np.full((6, 8, 3), 90, np.uint8), 95)


def looked(path, **options):
    kind = detect(path)
    return raw_words(kind(path=str(path), **options), str(path))


def recipe(found):
    stage = yaml.safe_load(found.recipe)["data"]
    kind = {"convert_text": ConvertTextRecipe, "convert_captions": ConvertCaptionsRecipe}
    return validate(kind[stage["kind"]], stage["recipe"], "recipe")


def lines(path, rows):
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_lines_with_a_text_of_another_name(tmp_path):
    rows = [{"url": f"u{n}", "content": "word " * n} for n in range(10)]
    found = looked(lines(tmp_path / "a.jsonl", [*rows, {"url": "x"}]))
    assert (found.format, found.records, found.exact, found.read) == ("jsonl", 11, True, 11)
    assert (found.empty, found.characters) == (1, 22.5)
    assert found.fields == {"url": "str", "content": "str"}
    assert (
        found.skipped[0].startswith("a.jsonl@") and "no string field 'content'" in found.skipped[0]
    )
    assert found.samples == ("", "word ", "word word ")
    made = recipe(found)
    assert made.source.field == "content" and made.source.path == str(tmp_path / "a.jsonl")


def test_records_of_many_pieces_are_estimated_and_of_a_compressed_file_unknown(tmp_path):
    rows = [{"text": f"{n:06d}" + "x" * 5000} for n in range(1000)]
    found = looked(lines(tmp_path / "a.jsonl", rows))
    assert found.pieces == 5 and not found.exact
    assert abs(found.records - 1000) < 5
    packed = looked(lines(tmp_path / "b.jsonl.gz", [{"text": str(n)} for n in range(3000)]))
    assert (packed.records, packed.read) == (None, 1000)


def test_bad_first_lines_do_not_hide_the_fields(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{\n" + b"[" * 100_000 + b'\n{"text": "a"}\n')
    found = looked(tmp_path / "a.jsonl")
    assert found.fields == {"text": "str"} and len(found.skipped) == 2


def test_tables_count_their_rows(tmp_path, photo):
    words = pa.table({"n": range(50), "TEXT": ["a"] * 50})
    write_table(words, tmp_path / "a.parquet", row_group_size=20)
    found = looked(tmp_path / "a.parquet")
    assert (found.format, found.records, found.exact, found.read) == ("parquet", 50, True, 20)
    assert recipe(found).source.field == "TEXT"
    seen = pa.table({"jpg": pictures([photo, b"no"]), "title": ["a", "b"]})
    pairs = looked(save(tmp_path / "ds", seen))
    assert (pairs.format, pairs.records) == ("image_arrow", 2)
    assert pairs.images == {"jpg 6 x 8": 1, "not readable": 1}
    source = recipe(pairs).source
    assert (source.image, source.caption) == ("jpg", "title")


def test_each_format_is_recognised(tmp_path, photo):
    for name in ("folder", "scenes", "texts", "both"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "0.jpg").write_bytes(photo)
    lines(tmp_path / "folder" / "metadata.jsonl", [{"file_name": "0.jpg", "text": "a"}])
    lines(tmp_path / "scenes" / "scenes.jsonl", [{"image": "0.jpg", "caption": "a"}])
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "both" / "README.md").write_text("a")
    lines(tmp_path / "both" / "a.ndjson", [{"text": "a"}])
    table = pa.table({"text": ["a"]})
    save(tmp_path / "arrow", table)
    expected = {
        "folder": "imagefolder",
        "scenes": "scenes",
        "texts": "txt",
        "both": "jsonl",
        "arrow": "arrow",
    }
    for name, format_ in expected.items():
        assert detect(tmp_path / name).model_fields["format"].default == format_
    write_table(table, tmp_path / "both" / "a.parquet")
    with pytest.raises(FoundryError, match="looks like jsonl and parquet"):
        detect(tmp_path / "both")
    splits = save_splits(tmp_path / "dict", {"train": table, "test": table})
    with pytest.raises(FoundryError, match="holds the splits train, test"):
        looked(splits)
    assert looked(splits, split="test").records == 1


def test_the_command_shows_it_and_refuses_what_is_of_robots(tmp_path, capsys):
    lines(tmp_path / "a.jsonl", [{"text": "[bold]a"}])

    def told(*more, code=0):
        capsys.readouterr()
        assert main(["data", "inspect", str(tmp_path), *more]) == code
        return capsys.readouterr().out

    shown = told()
    assert "[bold]a" in shown and "kind: convert_text" in shown
    assert json.loads(told("--json"))["records"] == 1
    assert "only robot data has" in told("--json", "--mapping", str(tmp_path / "m"), code=2)
    assert "did you mean 'jsonl'" in told("--json", "--from", "jsonll", code=2)
