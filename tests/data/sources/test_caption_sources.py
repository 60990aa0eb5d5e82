"""Captioned images in the layouts of other tools, whatever is wrong with them."""

import hashlib
import io
import json
import re
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from foundry_core.data.config import ImageConfig
from foundry_core.data.convert.captions import CaptionJob, prepare
from foundry_core.data.convert.read import read_captioned
from foundry_core.data.sources.base import Broken, Captioned
from foundry_core.data.sources.captions import img2dataset, items
from foundry_core.data.sources.captions.image_arrow import ImageArrow
from foundry_core.data.sources.captions.image_parquet import ImageParquet
from foundry_core.data.sources.captions.imagefolder import ImageFolder
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.errors import FoundryError
from tests.real_data import ABSENT, FORMATS
from tests.saved_datasets import pictures, save, save_splits

needs_files = pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)


def picture(grey, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), grey, np.uint8)).save(out, kind)
    return out.getvalue()


FILES = [picture(20 * n, kind) for n, kind in enumerate(("PNG", "JPEG", "WEBP", "PNG"))]
CAPTIONS = [f"grey {n} é" for n in range(4)]


def read(source):
    return [item for ref in source.refs() for item in read_captioned(source, ref)]


def good(found):
    return [item for item in found if isinstance(item, Captioned)]


def bad(found):
    return [(item.id, item.reason) for item in found if isinstance(item, Broken)]


def pairs(source):
    return [(item.images["image"], item.caption) for item in read(source)]


def expected(place):
    return json.loads((FORMATS / place / "expected.json").read_text())


IMAGES = {
    "bytes": pa.array(FILES, pa.binary()),
    "large bytes": pa.array(FILES, pa.large_binary()),
    "struct": pictures(FILES),
    "list of one": pa.array([[one] for one in FILES], pa.list_(pa.binary())),
}
WORDS = {
    "strings": pa.array(CAPTIONS),
    "large strings": pa.array(CAPTIONS, pa.large_string()),
    "dictionary": pa.array(CAPTIONS).dictionary_encode(),
    "lists": pa.array([[one] for one in CAPTIONS]),
}


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("words", WORDS)
def test_images_and_captions_of_every_kind(tmp_path, images, words):
    table = pa.table({"jpg": IMAGES[images], "TEXT": WORDS[words], "n": range(4)})
    write_table(table, tmp_path / "a.parquet", row_group_size=3)
    names = {"image": "jpg", "caption": "TEXT"}
    wanted = list(zip(FILES, CAPTIONS, strict=True))
    assert pairs(ImageParquet(path=str(tmp_path / "a.parquet"), **names)) == wanted
    ds = save(tmp_path / "ds", table, shards=2)
    assert pairs(ImageArrow(path=str(ds), **names)) == wanted


def test_several_captions_are_samples_of_their_own_or_the_first(tmp_path):
    table = pa.table(
        {
            "image": pictures(FILES[:2]),
            "sentences": [["one", "two", " "], []],
            "title": ["a", "b"],
            "meta": [{"q": 1.5, "at": None}, {"q": float("nan"), "at": None}],
        }
    )
    write_table(table, tmp_path / "a.parquet")
    options = {"path": str(tmp_path), "caption": ["sentences", "title"], "metadata": ["meta"]}
    found = read(ImageParquet(**options))
    ids = [(item.id, item.caption) for item in good(found)]
    assert ids == [
        ("a-00000000-0", "one"),
        ("a-00000000-1", "two"),
        ("a-00000000-3", "a"),
        ("a-00000001", "b"),
    ]
    assert [item.metadata for item in good(found)[-2:]] == [
        {"meta": {"q": 1.5, "at": None}},
        {"meta": {"q": None, "at": None}},
    ]
    assert bad(found) == [("a.parquet:0[2]", "its caption is empty")]
    first = read(ImageParquet(**options, captions="first"))
    assert [(item.id, item.caption) for item in good(first)] == [
        ("a-00000000", "one"),
        ("a-00000001", "b"),
    ]


def test_several_images_of_a_row_have_names(tmp_path):
    table = pa.table({"image": [[FILES[0], FILES[1]], []], "caption": ["two", "none"]})
    write_table(table, tmp_path / "a.parquet")
    found = read(ImageParquet(path=str(tmp_path)))
    assert found[0].images == {"image0": FILES[0], "image1": FILES[1]}
    assert bad(found) == [("a.parquet:1", "it has no image")]


def test_images_by_their_path_stay_inside_of_the_source(tmp_path):
    (tmp_path / "raw" / "img").mkdir(parents=True)
    (tmp_path / "raw" / "img" / "0.png").write_bytes(FILES[0])
    (tmp_path / "secret").write_text("no")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = ["img/0.png", "img/1.png", "../secret", "/etc/passwd", "img/.hidden", None, "img"]
    for column in (pa.array([{"bytes": None, "path": one} for one in paths], kind), paths):
        table = pa.table({"image": column, "caption": ["x"] * len(paths)})
        write_table(table, tmp_path / "raw" / "a.parquet")
        found = read(ImageParquet(path=str(tmp_path / "raw")))
        assert [item.images for item in good(found)] == [{"image": FILES[0]}]
        reasons = [reason for _, reason in bad(found)]
        assert "'1.png' is not readable: No such file" in reasons[0]
        assert all("not a visible file inside" in one for one in reasons[1:4])
        assert "null or without bytes" in reasons[4] and "directory" in reasons[5].lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "img"}, "has no column 'img'.*did you mean 'image'"),
        ({"image": "n"}, "column 'n' of .* holds int64, no images"),
        ({"caption": "n"}, "column 'n' of .* holds int64, no captions"),
        ({"caption": "image"}, "holds struct.*, no captions"),
        ({"metadata": ["m"]}, "has no column 'm'"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(tmp_path, options, said):
    table = pa.table({"image": pictures(FILES), "caption": CAPTIONS, "n": range(4)})
    write_table(table, tmp_path / "a.parquet")
    with pytest.raises(FoundryError) as caught:
        ImageParquet(path=str(tmp_path), **options).refs()
    assert re.search(said, str(caught.value))


def test_null_rows_and_damaged_files_are_named(tmp_path):
    images = pictures([FILES[0], None, FILES[2], FILES[3]])
    table = pa.table({"image": images, "caption": ["a", "b", None, "d"]})
    write_table(table, tmp_path / "b.parquet")
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:200])
    found = read(ImageParquet(path=str(tmp_path)))
    assert [item.caption for item in good(found)] == ["a", "d"]
    broken = bad(found)
    assert broken[0][0] == "a.parquet" and "not readable" in broken[0][1]
    assert broken[1:] == [
        ("b.parquet:1", "'image' is null or without bytes"),
        ("b.parquet:2", "its caption is null"),
    ]


def test_files_of_equal_names_in_other_folders_have_other_ids(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        table = pa.table({"image": pictures(FILES), "caption": CAPTIONS})
        write_table(table, tmp_path / folder / "0.parquet")
    ids = {item.id for item in read(ImageParquet(path=str(tmp_path)))}
    assert len(ids) == 8 and "x_0-00000003" in ids


def folder(path, rows, index="metadata.jsonl"):
    path.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(FILES):
        (path / f"{n}.png").write_bytes(data)
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows]
    (path / index).write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("index", ["metadata.jsonl", "captions.jsonl", "mine.jsonl"])
def test_a_folder_with_its_lines(tmp_path, index):
    rows = [{"file_name": f"{n}.png", "text": c, "n": n} for n, c in enumerate(CAPTIONS)]
    folder(tmp_path, rows, index)
    source = ImageFolder(path=str(tmp_path), index=index if index == "mine.jsonl" else "")
    assert pairs(source) == list(zip(FILES, CAPTIONS, strict=True))
    assert read(source)[3].metadata == {"n": 3}
    assert source.fields() == {"file_name": "str", "text": "str", "n": "int"}


def test_a_folder_for_each_split(tmp_path):
    for name in ("train", "test"):
        folder(tmp_path / name, [{"file_name": "0.png", "text": name}])
    found = read(ImageFolder(path=str(tmp_path)))
    assert [item.caption for item in found] == ["test", "train"]
    assert len({item.id for item in found}) == 2
    assert read(ImageFolder(path=str(tmp_path / "train")))[0].caption == "train"


def test_lines_that_name_no_image_of_the_folder_are_skips(tmp_path):
    rows = [
        {"file_name": ["0.png", "1.png"], "text": ["a", "b"]},
        b"{",
        b"[" * 100_000,
        {"file_name": "9.png", "text": "a"},
        {"file_name": "../x.png", "text": "a"},
        {"file": "0.png", "text": "a"},
        {"file_name": "0.png"},
        {"file_name": "0.png", "text": 3},
        {"file_name": "0.png", "text": "\ud83d"},
        [],
    ]
    found = read(ImageFolder(path=str(folder(tmp_path, rows))))
    assert [(item.caption, sorted(item.images)) for item in good(found)] == [
        ("a", ["image0", "image1"]),
        ("b", ["image0", "image1"]),
    ]
    said = [
        *("not JSON", "not JSON", "'9.png' is not readable", "not a visible file"),
        *("no image under", "caption is null", "of type int", "half a character"),
        "no image under",
    ]
    for (place, reason), part in zip(bad(found), said, strict=True):
        assert part in reason and (place.startswith("metadata") or part.startswith("half"))


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_img2dataset_in_every_dress(tmp_path):
    said = {"caption": "from json", "status": "success", "punsafe": float("nan")}
    failed = {"status": "failed_to_resize", "error_message": "Image decoding error"}
    tar_of(
        tmp_path / "00000.tar",
        [
            ("00000.jpg", FILES[1]),
            ("00000.txt", b" a \n"),
            ("00001.WEBP", FILES[2]),
            ("00001.json", json.dumps(said).encode()),
            ("v1.2/00002.png", FILES[0]),
            ("v1.2/00002.txt", b"b"),
            ("00003.png", FILES[0]),
            ("00003.txt", b"c"),
            ("00003.json", json.dumps(failed).encode()),
            ("00004.txt", b"d"),
            ("00005.png", FILES[0]),
            ("00006.png", FILES[0]),
            ("00006.txt", b"\xff"),
            ("00007.png", FILES[0]),
            ("00007.txt", b"e"),
            ("00007.json", b"[1]"),
            ("00008.png", FILES[0]),
            ("00008.txt", b""),
        ],
    )
    found = read(ImageCaptionTars(path=str(tmp_path)))
    assert [(item.id, item.caption, item.images["image"]) for item in good(found)] == [
        ("00000-00000", "a", FILES[1]),
        ("00000-00001", "from json", FILES[2]),
        ("00000-v1.2/00002", "b", FILES[0]),
    ]
    assert good(found)[1].metadata["punsafe"] is None
    reasons = [
        "img2dataset says failed_to_resize: Image decoding error",
        "has ['txt'], not an image and a .txt",
        "has ['png'], not an image and a .txt",
        "damaged: 'utf-8' codec",
        "the .json holds no object",
        "its caption is empty",
    ]
    for (place, reason), (number, part) in zip(bad(found), enumerate(reasons, 3), strict=True):
        assert place == f"00000.tar/0000{number}" and part in reason


def test_a_tar_that_is_cut_gives_what_is_whole(tmp_path):
    members = [(f"{n}.{kind}", data) for n in range(4) for kind, data in
               (("png", FILES[0]), ("txt", b"a"))]  # fmt: skip
    path = tar_of(tmp_path / "00000.tar", members)
    path.write_bytes(path.read_bytes()[: 512 * 9 + 100])
    found = read(ImageCaptionTars(path=str(tmp_path)))
    assert [item.id for item in good(found)][:2] == ["00000-0", "00000-1"]
    assert bad(found)[-1][0] == "00000.tar" and "not a readable tar" in bad(found)[-1][1]


@pytest.mark.parametrize("cut", [0, 700])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_large_tar_is_read_in_pieces(tmp_path, monkeypatch, form, cut):
    """Between samples, whatever headers lie before a member; the last piece has what is damaged."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number in range(12):
            folder = "dossier_é" + "x" * 100 if number % 3 else "d"
            for kind, data in (("png", FILES[0]), ("txt", b"a%d" % number)):
                info = tarfile.TarInfo(f"{folder}/{number:03d}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = path.read_bytes()
    if cut:
        path.write_bytes(data.rstrip(b"\0")[:-cut])
    source = ImageCaptionTars(path=str(tmp_path))
    whole = read(source)
    assert (len(good(whole)), len(bad(whole))) == ((11, 1) if cut else (12, 0))
    monkeypatch.setattr(img2dataset, "_LARGE", 1)
    monkeypatch.setattr(img2dataset, "_PIECE", 6000)
    refs = source.refs()
    assert len(refs) > 3 and len({ref.name for ref in refs}) == len(refs)
    parts = [list(read_captioned(source, ref)) for ref in refs]
    assert [item for part in parts for item in good(part)] == good(whole)
    assert [len(bad(part)) for part in parts] == [0] * (len(refs) - 1) + [bool(cut)]


@needs_files
def test_what_img2dataset_itself_wrote(tmp_path):
    rows = expected("img2dataset_tar")["shards"]["00000.parquet"]
    wanted = [(row["key"], row["caption"]) for row in rows if row["status"] == "success"]
    found = read(ImageCaptionTars(path=str(FORMATS / "img2dataset_tar" / "out")))
    assert [(item.id, item.caption) for item in found] == [(f"00000-{k}", c) for k, c in wanted]
    source = ImageCaptionTars(path=str(FORMATS / "img2dataset_tar" / "with_broken_image.tar"))
    (ref,) = source.refs()
    prepare(CaptionJob(source=source, image=ImageConfig(), ref=ref), tmp_path)
    chunk = json.loads((tmp_path / "chunk.json").read_text())
    assert chunk["samples"] == 5 and len(chunk["skipped"]) == 1


@needs_files
def test_parquet_of_pictures_that_others_wrote():
    rows = expected("caption_parquet")["rows"]
    found = read(ImageParquet(path=str(FORMATS / "caption_parquet")))
    digests = [hashlib.sha256(item.images["image"]).hexdigest() for item in found]
    assert digests == [row["sha256_bytes"] for row in rows]
    assert [item.caption for item in found] == [row["caption"] for row in rows]


@needs_files
def test_pictures_of_the_library_datasets():
    path = str(FORMATS / "hf_save_to_disk" / "ds")
    found = read(ImageArrow(path=path, split="train", caption="text", metadata=["label", "tags"]))
    assert len(found) == 12 and found[2].metadata == {"label": 0, "tags": ["a", "a"]}
    pixels = np.asarray(Image.open(io.BytesIO(found[0].images["image"])).convert("RGB"))
    wanted = expected("hf_save_to_disk")["splits"]["train"]["image0"]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == wanted["sha256_pixels"]


def test_folders_and_tables_of_the_library_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "captions": datasets.Sequence(datasets.Value("string"))}
    )
    rows = {
        "image": [{"bytes": one, "path": None} for one in FILES],
        "captions": [[one, "more"] for one in CAPTIONS],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "ds")
    made.to_parquet(tmp_path / "a.parquet")
    wanted = [(one, said) for one, c in zip(FILES, CAPTIONS, strict=True) for said in (c, "more")]
    assert pairs(ImageArrow(path=str(tmp_path / "ds"), caption="captions")) == wanted
    assert pairs(ImageParquet(path=str(tmp_path / "a.parquet"), caption="captions")) == wanted
    folder(tmp_path / "f", [{"file_name": f"{n}.png", "text": c} for n, c in enumerate(CAPTIONS)])
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "f"), split="train")
    assert theirs["text"][:] == [
        item.caption for item in read(ImageFolder(path=str(tmp_path / "f")))
    ]


def test_an_image_beyond_the_bound_is_one_skip_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MAX_DOCUMENT", 100)
    rows = [{"file_name": "0.png", "text": "a"}, {"file_name": "big.png", "text": "b"}]
    folder(tmp_path, rows)
    (tmp_path / "0.png").write_bytes(FILES[0][:100])
    with (tmp_path / "big.png").open("wb") as sparse:
        sparse.truncate(1 << 40)
    found = read(ImageFolder(path=str(tmp_path)))
    assert len(good(found)) == 1
    assert bad(found) == [("metadata.jsonl@36", "image is longer than 100 bytes")]


def test_what_becomes_a_sample_keeps_its_bytes_and_a_broken_picture_is_named(tmp_path):
    table = pa.table({"image": pictures([*FILES[:2], b"no image", FILES[3]]), "caption": CAPTIONS})
    write_table(table, tmp_path / "a.parquet")
    source = ImageParquet(path=str(tmp_path / "a.parquet"))
    (ref,) = source.refs()
    prepare(CaptionJob(source=source, image=ImageConfig(), ref=ref), tmp_path)
    with tarfile.open(tmp_path / "samples.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = ["a-00000000", "a-00000001", "a-00000003"]
    assert list(dict.fromkeys(name.partition(".")[0] for name in members)) == keys
    assert members["a-00000001.jpg"] == FILES[1]
    assert members["a-00000001.txt"] == CAPTIONS[1].encode()
    ((name, reason),) = json.loads((tmp_path / "chunk.json").read_text())["skipped"]
    assert name == "a-00000002" and "not a readable image" in reason


def test_splits_of_pictures_are_named(tmp_path):
    table = pa.table({"image": pictures(FILES), "caption": CAPTIONS})
    path = save_splits(tmp_path / "ds", {"train": table, "test": table})
    with pytest.raises(FoundryError, match="holds the splits"):
        ImageArrow(path=str(path)).refs()
    assert len(read(ImageArrow(path=str(path), split="test"))) == 4
