"""Training and validation: who falls where, and that nothing is on both sides."""

import gzip
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from foundry_core.config.canonical import canonical
from foundry_core.data.config import ImageConfig, SplitConfig
from foundry_core.data.convert.captions import convert_captions
from foundry_core.data.convert.robot import convert_sides
from foundry_core.data.convert.split import VALIDATION, check_apart, is_validation, sides
from foundry_core.data.convert.text import convert_text
from foundry_core.data.images import encode_jpeg
from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.inspection.validate import validate
from foundry_core.data.loading.build import build_loader, opened_side
from foundry_core.data.loading.config import DataConfig, TextData
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.text.token_tars import TokenTars
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.errors import FoundryError
from tests.data.convert.test_robot import FIELDS, settings, silent, write_episode

NAMES = [f"session_{n // 10}/episode_{n}" for n in range(1000)]
TENTH = SplitConfig(fraction=0.1)


def chosen(split, names=NAMES):
    return {name for name in names if is_validation(name, split)}


def test_the_rule_by_hand():
    """The first 8 bytes of sha256(salt, 0, id), as a share of 2**64, below the fraction."""
    for name in ("a", "episode_000003", "ä"):
        digest = hashlib.sha256(b"validation\0" + name.encode()).digest()
        share = int.from_bytes(digest[:8], "little") / 2**64
        assert is_validation(name, SplitConfig(fraction=min(share + 1e-9, 0.999)))
        assert not is_validation(name, SplitConfig(fraction=max(share - 1e-9, 1e-9)))
    assert not is_validation("a", None)


def test_a_fraction_is_kept_and_grows_without_moving_anybody():
    small, large = chosen(TENTH), chosen(SplitConfig(fraction=0.3))
    assert 70 < len(small) < 130  # 100 ± 3 sigma
    assert small < large
    assert chosen(TENTH, NAMES[:500]) == small & set(NAMES[:500])
    assert chosen(SplitConfig(fraction=0.1, salt="other")) not in (small, large)


@pytest.mark.parametrize("group", ["^session_[0-9]+", "^(session_[0-9]+)/"])
def test_a_group_falls_on_one_side(group):
    split = SplitConfig(fraction=0.3, group=group)
    by_session = [
        {is_validation(n, split) for n in NAMES[at : at + 10]} for at in range(0, 1000, 10)
    ]
    assert all(len(one) == 1 for one in by_session)
    assert 15 < sum(one == {True} for one in by_session) < 45


def test_refusals():
    with pytest.raises(FoundryError, match="finds nothing in the id 'episode_3'"):
        is_validation("episode_3", SplitConfig(fraction=0.1, group="session"))
    with pytest.raises(ValueError, match="no regular expression"):
        SplitConfig(fraction=0.1, group="(")
    with pytest.raises(FoundryError, match="of 2 items none falls on the side of validation"):
        sides([("a", 1), ("b", 2)], SplitConfig(fraction=1e-9))
    assert sides([("a", 1)], None) == {"": [1]}


def test_which_side_is_read_enters_the_identity_only_where_it_is_validation():
    assert "split" not in canonical(TextData())
    assert canonical(TextData(split="validation"))["split"] == "validation"


def test_robots(tmp_path):
    root = tmp_path / "demos"
    for number in range(6):
        write_episode(root, number)
    (root / "demos.json").write_text("{}")
    source, out = Demonstrations(path=str(root)), tmp_path / "out"
    out.mkdir()
    split = SplitConfig(fraction=0.4)
    aside = [r.name for r in source.episodes() if is_validation(r.name, split)]
    assert 0 < len(aside) < 6
    counts = convert_sides(
        source, settings(), out, split,
        episodes_per_shard=2, max_skipped=0, workers=1, progress=silent,
    )  # fmt: skip
    assert counts["episodes"] == 6 - len(aside)
    assert counts["validation_episodes"] == len(aside)
    held = ShardSet(out / VALIDATION)
    names = [f"episodes/t/file_{held.key(n)[-3:]}.tar" for n in range(len(held))]
    assert names == aside
    for folder in (out, out / VALIDATION):
        assert validate(folder, samples=0)["findings"] == []
    # Statistics are those of the training side, and of no other.
    stats = DatasetStatistics.load(out).fields[FIELDS[0]]
    again = dataset_statistics(out).fields[FIELDS[0]]
    np.testing.assert_allclose(stats.mean, again.mean, rtol=1e-12)
    assert stats.count[0] == 6 * (6 - len(aside))
    assert len(opened_side(out, "validation", verify=True)) == len(aside)
    with pytest.raises(FoundryError, match="has no validation side"):
        opened_side(out / VALIDATION, "validation", verify=True)
    (out / VALIDATION / "manifest.jsonl").write_bytes((out / "manifest.jsonl").read_bytes())
    for file in out.glob("shard*"):
        (out / VALIDATION / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FoundryError, match="in training and in validation"):
        check_apart(out)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_captions_and_texts_lie_in_the_same_places(tmp_path, tokenizer):
    picture = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    keys = [f"{n:05d}" for n in range(40)]
    split = SplitConfig(fraction=0.25)
    write_tar(
        tmp_path / "00000.tar",
        {
            f"{k}.{e}": d
            for k in keys
            for e, d in (("jpg", picture), ("txt", b"grey"), ("json", b"{}"))
        },
    )
    out = tmp_path / "captions"
    counts = convert_captions(
        ImageCaptionTars(path=str(tmp_path / "00000.tar")), out,
        image=ImageConfig(), samples_per_shard=4, max_skipped=0, workers=1, progress=silent,
        split=split,
    )  # fmt: skip
    both = []
    for folder in (out, out / VALIDATION):
        assert validate(folder, samples=0)["findings"] == []
        stored = ShardSet(folder)
        both.append([stored.key(n).rpartition("-")[2] for n in range(len(stored))])
    assert counts == {"samples": len(both[0]), "skipped": 0, "validation_samples": len(both[1])}
    held = [ShardSet(out / VALIDATION).key(n) for n in range(len(both[1]))]
    assert all(is_validation(key, split) for key in held)
    assert sorted(both[0] + both[1]) == keys

    rows = {f"{n}.json.gz": gzip.compress(json.dumps([n, *range(8)]).encode()) for n in range(40)}
    (tmp_path / "tokens").mkdir()
    write_tar(tmp_path / "tokens" / "shard.tar", rows)
    out = tmp_path / "text"
    counts = convert_text(
        TokenTars(path=str(tmp_path / "tokens"), vocab_size=50, eos_id=0), None, out,
        context=8, samples_per_shard=8, split=split, tail="drop", max_skipped=0, workers=1,
        progress=silent,
    )  # fmt: skip
    wanted = {
        n for n in range(40)
        if is_validation(np.array([n, *range(8)], np.uint32).tobytes(), split)
    }  # fmt: skip
    assert counts["validation_sequences"] == len(wanted) == len(ShardSet(out / VALIDATION))
    assert counts["sequences"] == 40 - len(wanted)
    for side, rows in (("train", 40 - len(wanted)), ("validation", len(wanted))):
        data = DataConfig(text=TextData(split=side))
        loader = build_loader(data, {"text": {"t": out}}, seed=0, tokenizer=tokenizer)
        assert loader.modalities["text"].order.sizes.tolist() == [rows]
