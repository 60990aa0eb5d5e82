"""Conversion of captioned images."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from foundry_core.data.config import ImageConfig
from foundry_core.data.convert import keys
from foundry_core.data.convert.captions import convert_captions
from foundry_core.data.convert.keys import FirstPieces
from foundry_core.data.images import decode_image, encode_jpeg
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.captions.scenes import SceneFolder
from foundry_core.errors import FoundryError


def convert(source, out, workers=1, max_skipped=0, size=None):
    out.mkdir()
    return convert_captions(
        source,
        out,
        image=ImageConfig(size=size),
        samples_per_shard=3,
        max_skipped=max_skipped,
        workers=workers,
        progress=lambda *a, **k: None,
    )


@pytest.fixture
def scenes(tmp_path):
    root = tmp_path / "scenes"
    root.mkdir()
    lines = []
    for number in range(8):
        image = np.full((8, 8, 3), 20 * number, np.uint8)
        for camera in ("scene", "wrist"):
            (root / f"{number}_{camera}.jpg").write_bytes(encode_jpeg(image, 95))
        files = [f"{number}_scene.jpg", f"{number}_wrist.jpg"]
        row = {"image": files, "cameras": ["scene", "wrist"], "caption": f"grey {number}"}
        lines.append(json.dumps(row))
    (root / "scenes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_scenes_keep_their_bytes_and_any_worker_count_agrees(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "no home"))  # nor units of the other one
    source = SceneFolder(path=str(scenes))
    assert convert(source, tmp_path / "a") == {"samples": 8, "skipped": 0}
    convert(source, tmp_path / "b", workers=4)
    found = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / x).iterdir()}
        for x in "ab"
    ]
    assert found[0] == found[1]
    members = ShardSet(tmp_path / "a").members(5)
    assert bytes(members["scene.jpg"]) == (scenes / "5_scene.jpg").read_bytes()
    assert bytes(members["txt"]) == b"grey 5"


def test_a_broken_image_is_named_or_counted(scenes, tmp_path):
    (scenes / "2_wrist.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(FoundryError, match="wrist of 00000002"):
        convert(SceneFolder(path=str(scenes)), tmp_path / "a")
    metrics = convert(SceneFolder(path=str(scenes)), tmp_path / "b", max_skipped=1)
    assert metrics == {"samples": 7, "skipped": 1}


def test_published_image_caption_tars(shared_data, tmp_path):
    source = ImageCaptionTars(path=str(shared_data / "image_caption"))
    metrics = convert(source, tmp_path / "a", size=(64, 64))
    assert metrics == {"samples": 48, "skipped": 0}
    members = ShardSet(tmp_path / "a").members(0)
    assert decode_image(members["jpg"]).shape == (64, 64, 3)


def test_samples_of_two_tars_that_are_called_alike_are_one_skip(tmp_path):
    """Dots cannot stand in a key: `x.0.tar` and `x_0.tar` name their samples alike."""
    root = tmp_path / "tars"
    root.mkdir()
    picture = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 95)
    for name in ("x.0.tar", "x_0.tar"):
        with tarfile.open(root / name, "w") as tar:
            for member, data in (("k.jpg", picture), ("k.txt", name.encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = ImageCaptionTars(path=str(root))
    with pytest.raises(FoundryError, match=r"max_skipped = 0: x_0-k"):
        convert(source, tmp_path / "a")
    assert convert(source, tmp_path / "b", max_skipped=1) == {"samples": 1, "skipped": 1}
    assert bytes(ShardSet(tmp_path / "b").members(0)["txt"]) == b"x.0.tar"
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["seen"] == 2 and report["skipped"][0]["id"] == "x_0-k"


def test_a_key_of_two_tars_is_one_skip_that_names_both(tmp_path):
    """Far apart: they would have been in different shards. The names of the tars are told apart by
    a dot, which keys do not hold."""
    root, data = tmp_path / "tars", encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    root.mkdir()
    for tar, names in {"a.b": ["000", "001"], "a_a": list("pqrstu"), "a_b": ["000", "002"]}.items():
        with tarfile.open(root / f"{tar}.tar", "w") as file:
            for key in names:
                for name, held in ((f"{key}.jpg", data), (f"{key}.txt", f"{tar} {key}".encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(held)
                    file.addfile(info, io.BytesIO(held))
    source = ImageCaptionTars(path=str(root))
    with pytest.raises(FoundryError, match=r"key 'a_b-000': it is in a\.b\.tar and in a_b\.tar"):
        convert(source, tmp_path / "refused")
    assert convert(source, tmp_path / "out", max_skipped=1) == {"samples": 9, "skipped": 1}
    shards = ShardSet(tmp_path / "out")
    held = [shards.key(number) for number in range(9)]
    assert len(set(held)) == 9 and len(shards.shards) == 3
    assert bytes(shards.members(held.index("a_b-000"))["txt"]) == b"a.b 000"


def test_keys_that_were_met_lie_on_disk(tmp_path, monkeypatch):
    """But for as many pages as memory is allowed for."""
    monkeypatch.setattr(keys, "_CACHE_KIB", 64)
    with FirstPieces(tmp_path) as met:
        assert [met.earlier(f"k{n}", n // 7) for n in range(20_000)] == [None] * 20_000
        assert [met.earlier(f"k{n}", 9999) for n in (0, 7, 19_999)] == [0, 1, 2857]
    assert 20_000 * 16 < (tmp_path / "keys.sqlite").stat().st_size < 20_000 * 60
