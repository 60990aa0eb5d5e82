"""Shards: deterministic bytes, random access, foreign tars, damage that is named."""

import io
import json
import pickle
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.shards.index import build_index, scan_tar
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.tar import member_header
from foundry_core.data.shards.write import ShardWriter, write_shard
from foundry_core.errors import FoundryError
from tests.synthetic import write_shards


def verify(shards: ShardSet) -> None:
    for number in range(len(shards.shards)):
        shards.verify(number)


def keys(shards: ShardSet) -> list[str]:
    return [shards.key(sample) for sample in range(len(shards))]


def samples(count: int, size: int = 700) -> list[tuple[str, dict[str, bytes]]]:
    return [
        (f"key{i:04d}", {"z.jpg": bytes([i % 256]) * (size + i), "a.json": b'{"i":%d}' % i})
        for i in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(name=st.text(min_size=1, max_size=180).filter(lambda s: "\0" not in s), size=st.integers(0))
def test_header_is_the_one_tarfile_writes(name, size):
    size %= 2**40
    try:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        expected = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    except UnicodeEncodeError:
        return
    assert member_header(name, size) == expected


def test_same_samples_same_bytes_whatever_the_order_of_members(tmp_path):
    first = write_shard(tmp_path / "a" / "shard_000000.tar", samples(5))
    turned = [(key, dict(reversed(members.items()))) for key, members in samples(5)]
    second = write_shard(tmp_path / "b" / "shard_000000.tar", turned)
    assert first == second
    for name in ("shard_000000.tar", "shard_000000.index"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / "shard_000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert member.uname == member.gname == ""


def test_random_access_equals_what_was_written_and_survives_pickling(tmp_path):
    written = samples(23)
    shards = write_shards(tmp_path, written, samples_per_shard=5)
    assert [shard.num_sequences for shard in shards] == [5, 5, 5, 5, 3]
    shard_set = pickle.loads(pickle.dumps(ShardSet(tmp_path)))
    assert len(shard_set) == 23 and keys(shard_set) == [key for key, _ in written]
    for i in (22, 0, 7, 4, 5):
        assert {k: bytes(v) for k, v in shard_set.members(i).items()} == written[i][1]
        assert bytes(shard_set.member(i, "z.jpg")) == written[i][1]["z.jpg"]
    verify(shard_set)
    with pytest.raises(IndexError):
        shard_set.members(23)
    with pytest.raises(FoundryError, match=r"did you mean 'z\.jpg'"):
        shard_set.member(0, "y.jpg")


def test_the_bytes_are_those_of_webdatasets_own_writer(tmp_path):
    """Names beyond a header's 100 bytes, too."""
    written = [*samples(5), ("deep/" * 30 + "key", {"txt": b"one"})]
    write_shard(tmp_path / "a.tar", written)
    theirs = io.BytesIO()
    with webdataset.TarWriter(
        theirs, user="", group="", mode=0o644, mtime=0, encoder=False
    ) as writer:
        writer.tarstream.format = tarfile.GNU_FORMAT
        for key, members in written:
            writer.write({"__key__": key, **members})
    assert (tmp_path / "a.tar").read_bytes() == theirs.getvalue()


def test_plain_webdataset_reads_them(tmp_path):
    write_shards(tmp_path, samples(7), samples_per_shard=4)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == [key for key, _ in samples(7)]
    assert read[3]["z.jpg"] == samples(7)[3][1]["z.jpg"]


def test_index_is_what_a_walk_over_the_tar_finds(tmp_path):
    write_shard(tmp_path / "shard_000000.tar", [("k" * 150, {"a.b": b"x" * 1024, "c": b""})])
    scanned = scan_tar(tmp_path / "shard_000000.tar")
    stored = ShardSet(tmp_path).index(0)
    assert scanned.names == stored.names
    assert scanned.offsets.tolist() == stored.offsets.tolist()


@pytest.mark.parametrize(
    ("folder", "count", "extensions"),
    [
        ("text_raw", 192, {"json"}),
        ("text_tokens", 192, {"json.gz"}),
        ("image_caption", 48, {"txt", "webp", "json"}),
        ("lbm_robotics_shard", 5, None),
    ],
)
def test_published_shards_open_without_an_index(shared_data, folder, count, extensions):
    shard_set = ShardSet(shared_data / folder)
    verify(shard_set)
    assert len(shard_set) == count == len(set(keys(shard_set)))
    if extensions:
        assert set(shard_set.members(0)) == extensions


def test_a_lying_foreign_manifest_is_counted_not_believed(tmp_path):
    write_shard(tmp_path / "shard_000000.tar", samples(3))
    (tmp_path / "manifest.jsonl").write_text('{"shard": "shard_000000", "num_sequences": 512}\n')
    shard_set = ShardSet(tmp_path)
    assert len(shard_set) == 3
    with pytest.raises(FoundryError, match="holds 3 samples, the manifest claims 512"):
        verify(shard_set)


def test_every_truncation_is_found(tmp_path):
    write_shard(tmp_path / "whole" / "shard_000000.tar", samples(3))
    data = (tmp_path / "whole" / "shard_000000.tar").read_bytes()
    members_end = 3 * (512 + 512 + 512 + 1024)
    cut = tmp_path / "cut.tar"
    for length in range(0, members_end + 511, 256):
        cut.write_bytes(data[:length])
        with pytest.raises(FoundryError, match=r"cut\.tar"):
            scan_tar(cut)


def test_changed_missing_and_truncated_shards_are_named(tmp_path):
    write_shards(tmp_path, samples(6), samples_per_shard=3)
    path = tmp_path / "shard_000001.tar"
    data = path.read_bytes()
    path.write_bytes(data[:600] + b"!" + data[601:])
    with pytest.raises(FoundryError, match=r"shard_000001.*sha256"):
        verify(ShardSet(tmp_path))
    path.write_bytes(data[:-512])
    with pytest.raises(FoundryError, match=r"shard_000001.*bytes where the manifest says"):
        ShardSet(tmp_path).members(4)
    path.unlink()
    with pytest.raises(FoundryError, match=r"shard_000001.*missing"):
        ShardSet(tmp_path).members(4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FoundryError, match="neither"):
        ShardSet(tmp_path / "empty")
    with pytest.raises(FoundryError, match="nowhere' does not exist"):
        ShardSet(tmp_path / "nowhere")


def test_bad_keys_and_manifests_are_refused(tmp_path):
    for key in ("", "a.b", "/a", "a\nb"):
        with pytest.raises(FoundryError, match="not usable"):
            write_shard(tmp_path / "s.tar", [(key, {"x": b""})])
    with pytest.raises(FoundryError, match="appears twice"):
        build_index([("a.x", 0, 1), ("b.x", 0, 1), ("a.y", 0, 1)], 0)
    (tmp_path / "manifest.jsonl").write_text('{"shard": 3}\n')
    with pytest.raises(FoundryError, match="line 1"):
        ShardSet(tmp_path)


def test_what_a_failed_block_added_is_taken_back(tmp_path):
    (first, last) = samples(2)
    writer = ShardWriter(tmp_path / "torn.tar")
    writer.add(*first)
    with pytest.raises(RuntimeError), writer.whole():
        writer.add("half", {"a": b"x" * 5000, "b": lambda: 1 / 0 if writer.samples > 9 else b""})
        raise RuntimeError
    with pytest.raises(ZeroDivisionError), writer.whole():
        writer.add("half", {"a": b"x" * 5000, "b": lambda: b"%d" % (1 // 0)})
    writer.add(*last)
    torn = writer.close()
    whole = write_shard(tmp_path / "whole.tar", [first, last])
    assert (torn.sha256, torn.bytes, torn.num_sequences) == (whole.sha256, whole.bytes, 2)
    for name in ("{}.tar", "{}.index"):
        written = [(tmp_path / name.format(one)).read_bytes() for one in ("torn", "whole")]
        assert written[0] == written[1]


def test_manifest_lines_are_stable_json(tmp_path):
    write_shards(tmp_path, samples(2), samples_per_shard=2)
    (line,) = (tmp_path / "manifest.jsonl").read_text().splitlines()
    fields = json.loads(line)
    assert fields["shard"] == "shard_000000" and fields["num_sequences"] == 2
    assert fields["bytes"] == (tmp_path / "shard_000000.tar").stat().st_size
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "shard_000000.tar").read_bytes())) as tar:
        assert len(tar.getmembers()) == 4
