"""The dataset's index: equal samples by every way to one, lies refused, few files open."""

import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.npy import write_npz
from foundry_core.data.shards import derived
from foundry_core.data.shards.files import OpenFiles
from foundry_core.data.shards.index import build_index, npz_path, scan_tar
from foundry_core.data.shards.packed import (
    DATASET_INDEX,
    IndexFile,
    Packed,
    Section,
    index_bytes,
    pack,
    write_index,
)
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import write_shard
from foundry_core.errors import FoundryError
from tests.synthetic import write_shards

Samples = list[tuple[str, dict[str, bytes]]]


def samples(count: int = 11) -> Samples:
    """Few and many members, names beyond a tar's hundred bytes, and such that end alike."""
    made: Samples = []
    for number in range(count):
        members = {"a.json": b"%d" % number, "z.jpg": bytes([number]) * (300 + 7 * number)}
        if number % 3 == 0:
            members |= {f"front_{t:06d}.jpg": b"%d-%d" % (number, t) for t in range(40)}
        key = f"key{number:04d}" if number % 4 else f"{'deep/' * 25}key{number:04d}"
        made.append((key, members))
    return made


def read(folder: Path, kind: type[ShardSet] = ShardSet) -> Samples:
    """Everything, member by member and whole."""
    shards = kind(folder)
    found = []
    for number in range(len(shards)):
        whole = {name: bytes(data) for name, data in shards.members(number).items()}
        assert {name: bytes(shards.member(number, name)) for name in whole} == whole
        found.append((shards.key(number), whole))
    return found


def as_before(folder: Path) -> None:
    """The folder as earlier releases wrote it: an .npz beside each tar."""
    for tar in folder.glob("*.tar"):
        index = scan_tar(tar)
        columns = {"offsets": index.offsets, "sizes": index.sizes, "starts": index.starts}
        names = np.frombuffer("\n".join(index.names).encode(), dtype=np.uint8)
        sizes = np.array([index.tar_bytes])
        npz_path(tar).write_bytes(write_npz(columns | {"names": names, "bytes": sizes}))
    without(folder)


def without(folder: Path) -> None:
    """No index; a manifest of earlier releases."""
    (folder / DATASET_INDEX).unlink()
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        del line["index"]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("FOUNDRY_HOME", str(folder))
    return folder


@pytest.mark.parametrize("kind", [ShardSet, CheckedShards])
def test_samples_are_equal_with_new_old_and_no_index(tmp_path: Path, kind: type[ShardSet]) -> None:
    folder = tmp_path / "data"
    write_shards(folder, samples(), 3)
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".tar") == [
        "manifest.jsonl",
        "shards.index",
    ]
    assert read(folder, kind) == samples()
    as_before(folder)
    assert read(folder, kind) == samples()
    for tar in folder.glob("*.tar"):
        npz_path(tar).unlink()
    assert read(folder, kind) == samples()
    (folder / "manifest.jsonl").unlink()
    assert read(folder, kind) == samples()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_foreign_tars_of_every_form(tmp_path: Path, form: int) -> None:
    """Their headers say long names and letters beyond ASCII in ways of their own."""
    path = "/".join(["a" * 60] * 3)
    names = ["plain.txt", f"{path}/long.txt", "b/größe.txt", f"{'c' * 95}.txt", f"{'d' * 96}.txt"]
    with tarfile.open(tmp_path / "t.tar", "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = info.mtime = number + 1
            tar.addfile(info, io.BytesIO(b"%d" % number * info.size))
    expected = [(n[:-4], {"txt": b"%d" % i * (i + 1)}) for i, n in enumerate(names)]
    assert read(tmp_path) == expected


def test_the_derived_index_is_the_written_one_and_is_made_once(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    write_shards(folder, samples(), 3)
    written = (folder / DATASET_INDEX).read_bytes()
    without(folder)
    read(folder)
    (made,) = (home / "cache" / "indices").glob("*.index")
    assert made.read_bytes() == written
    monkeypatch.setattr(derived, "scan_tar", lambda tar: pytest.fail(f"{tar} is scanned again"))
    assert read(folder) == samples()
    monkeypatch.undo()
    monkeypatch.setenv("FOUNDRY_HOME", str(home))
    made.write_bytes(made.read_bytes()[:-3])  # damaged: made again
    assert read(folder) == samples()
    write_shard(folder / "shard_000001.tar", [("other", {"a": b"1"})])  # replaced: looked at again
    (folder / "manifest.jsonl").unlink()
    assert ("other", {"a": b"1"}) in read(folder)


def test_who_has_no_home_reads_them_too(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "data"
    write_shards(folder, samples(), 3)
    without(folder)
    home.rmdir()
    assert read(folder) == samples()
    assert not home.exists()


def test_bytes_of_the_index_depend_on_the_samples_alone(tmp_path: Path) -> None:
    for name, order in (("a", iter), ("b", reversed)):
        turned = [(key, dict(order(list(members.items())))) for key, members in samples()]
        write_shards(tmp_path / name, turned, 3)
    one, two = ((tmp_path / name / DATASET_INDEX).read_bytes() for name in ("a", "b"))
    assert one == two
    # the format is a contract: magic, version 1, 4 shards, 11 samples
    assert one[:24].hex() == "89465348415244530100000004000000" + "0b00000000000000"
    manifest = (tmp_path / "a" / "manifest.jsonl").read_text().splitlines()
    index = IndexFile(one, "")
    for number, line in enumerate(manifest):
        offset, length, tar_bytes, count, digest = index.row(number)
        assert hashlib.sha256(one[offset : offset + length]).hexdigest() == digest.hex()
        fields = json.loads(line)
        assert (fields["index"], fields["bytes"]) == (digest.hex(), tar_bytes)
        assert fields["num_sequences"] == count


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lies")
    write_shards(made, samples(), 3)
    return made


def outcome(folder: Path) -> None:
    """All samples, or FoundryErrors and samples that are right."""
    truth = samples()
    shards = ShardSet(folder)
    for number in random.Random(0).sample(range(len(shards)), len(shards)):
        key, members = truth[number]
        try:
            found = {name: bytes(data) for name, data in shards.members(number).items()}
            assert found == members
            assert bytes(shards.member(number, "z.jpg")) == members["z.jpg"]
            assert shards.key(number) == key
        except FoundryError:
            continue


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_bytes_are_an_error_and_never_another_sample(folder: Path, data) -> None:
    path = folder / DATASET_INDEX
    whole = path.read_bytes()
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if how == "flip":
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    elif how == "cut":
        damaged = whole[:at]
    elif how == "grow":
        damaged = whole[:at] + data.draw(st.binary(min_size=1, max_size=64)) + whole[at:]
    else:
        size = data.draw(st.integers(1, 64))
        damaged = whole[at:][size : 2 * size].join([whole[:at], whole[at : at + size]])
    path.write_bytes(damaged)
    try:
        outcome(folder)
        if how == "cut":
            with pytest.raises(FoundryError, match="index"):
                for number in range(11):
                    ShardSet(folder).members(number)
    except FoundryError:
        pass
    finally:
        path.write_bytes(whole)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_lies_with_true_digests_are_an_error_and_never_another_sample(folder: Path, data) -> None:
    """Whoever writes an index can write its digests, but not the manifest's."""
    path, manifest = folder / DATASET_INDEX, folder / "manifest.jsonl"
    whole, lines = path.read_bytes(), manifest.read_text()
    index = IndexFile(whole, "")
    sections = []
    for number in range(len(index)):
        section = index.section(number)
        assert section is not None
        sections.append(Packed(section.content(), section.tar_bytes, len(section)))
    number = data.draw(st.integers(0, len(sections) - 1))
    content = bytearray(sections[number].content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 4))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    if bytes(content) == sections[number].content:
        return
    sections[number] = sections[number]._replace(content=bytes(content))
    path.write_bytes(index_bytes(sections))
    first = 3 * number
    try:
        with pytest.raises(FoundryError, match="not the one of its manifest"):
            ShardSet(folder).members(first)
        # without the manifest's word: each lookup is bounded, what is read is called as it says
        bare = [
            {k: v for k, v in json.loads(line).items() if k != "index"}
            for line in lines.splitlines()
        ]
        manifest.write_text("".join(f"{json.dumps(line)}\n" for line in bare))
        shards = ShardSet(folder)
        for sample in range(len(shards)):
            try:
                found = shards.members(sample)
                held = {f"{shards.key(sample)}.{name}": bytes(v) for name, v in found.items()}
            except FoundryError:
                continue
            true = {f"{key}.{name}": v for key, members in samples() for name, v in members.items()}
            assert held.items() <= true.items()
    finally:
        path.write_bytes(whole)
        manifest.write_text(lines)


def test_an_index_of_other_shards_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", samples(), 3)
    write_shards(tmp_path / "b", list(reversed(samples())), 3)
    (tmp_path / "a" / DATASET_INDEX).write_bytes((tmp_path / "b" / DATASET_INDEX).read_bytes())
    with pytest.raises(FoundryError, match=r"shard_000000.*not the one of its manifest.jsonl"):
        ShardSet(tmp_path / "a").members(0)


def test_an_index_of_a_later_release_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path, samples(), 3)
    data = bytearray((tmp_path / DATASET_INDEX).read_bytes())
    data[8] = 2
    (tmp_path / DATASET_INDEX).write_bytes(data)
    with pytest.raises(FoundryError, match="has version 2, this release reads 1"):
        ShardSet(tmp_path).members(0)


def npz_columns(**changes: object) -> dict[str, np.ndarray]:
    """Of a tar with the members a.x (5 bytes) and b.x (7)."""
    columns = {
        "names": np.frombuffer(b"a.x\nb.x", dtype=np.uint8),
        "offsets": np.array([512, 1536]),
        "sizes": np.array([5, 7]),
        "starts": np.array([0, 1, 2]),
        "bytes": np.array([10240]),
    }
    return columns | {name: np.array(value) for name, value in changes.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": [512, 2**62]},
        {"offsets": [1536, 512]},
        {"offsets": [0, 1536]},
        {"offsets": [512.0, 1536.0]},
        {"sizes": [5, -1]},
        {"sizes": [5, 2**63 - 1]},
        {"sizes": [1024, 7]},
        {"sizes": [5]},
        {"starts": [0, 2]},
        {"starts": [0, 2, 1]},
        {"starts": [0, 1, 9]},
        {"starts": []},
        {"bytes": [10241]},
        {"bytes": [-1]},
        {"bytes": []},
        {"names": np.frombuffer(b"a.x\na.x", dtype=np.uint8)},
        {"names": np.frombuffer(b"a.x\n\xff.x", dtype=np.uint8)},
        {"names": np.frombuffer(b"b.x\na.x", dtype=np.uint8)},
    ],
)
def test_a_lying_index_of_an_earlier_release_is_one_error(tmp_path: Path, changes: dict) -> None:
    write_shards(tmp_path, [("a", {"x": b"aaaaa"}), ("b", {"x": b"bbbbbbb"})], 2)
    without(tmp_path)
    npz_path(tmp_path / "shard_000000.tar").write_bytes(write_npz(npz_columns()))
    assert bytes(ShardSet(tmp_path).member(1, "x")) == b"bbbbbbb"
    npz_path(tmp_path / "shard_000000.tar").write_bytes(write_npz(npz_columns(**changes)))
    with pytest.raises(FoundryError, match="index"):
        ShardSet(tmp_path).member(1, "x")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_one_mapped_file(tmp_path: Path, method: str) -> None:
    """Forked or spawned, they map the dataset's index: its pages are there once."""
    folder = tmp_path / "data"
    write_shards(folder, samples(), 3)
    shards = CheckedShards(folder)
    shards.members(0)
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = pool.map(_worker, [(pickle.dumps(shards), str(folder))] * 4)
    for index, members in found:
        assert index == os.stat(folder / DATASET_INDEX).st_ino
        assert members == [members for _, members in samples()]


def _worker(job: tuple[bytes, str]) -> tuple[int, list[dict[str, bytes]]]:
    """(inode of the folder's index that this process has mapped, all samples); a forked one has the
    maps of earlier tests, too."""
    pickled, folder = job
    shards = pickle.loads(pickled)
    found = [
        {name: bytes(data) for name, data in shards.members(number).items()}
        for number in range(len(shards))
    ]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    inodes = {int(line[4]) for line in maps if line[-1] == f"{folder}/{DATASET_INDEX}"}
    (inode,) = inodes
    return inode, found


_LIMITED = """
import os, random, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from foundry_core.data.loading.shards import CheckedShards
shards = CheckedShards(sys.argv[1])
order = list(range(len(shards)))
random.Random(0).shuffle(order)
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(sys.argv[2]))]
for sample in order:
    assert bytes(shards.member(sample, "x")) == b"%d" % sample, sample
print(len(order))
"""


@pytest.mark.parametrize("held", [0, 40])
def test_three_hundred_shards_under_a_limit_of_64_files(tmp_path: Path, held: int) -> None:
    """Also where others hold most of them."""
    write_shards(tmp_path, [(f"k{n}", {"x": b"%d" % n}) for n in range(600)], 2)
    command = [sys.executable, "-c", _LIMITED, str(tmp_path), str(held)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "600\n", done.stderr


def test_open_files_are_few_and_a_read_outlives_them(tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(9)]
    for path in paths:
        Path(path).write_text(path)
    files = OpenFiles(limit=3)
    first = files.open(paths[0])
    for path in paths[1:]:
        files.open(path)
    assert len(files) == 3 and files.get(paths[0]) is None
    assert first.read(0, 1000).decode() == paths[0]
    kept = files.get(paths[6])  # read last: it stays
    files.open(paths[0])
    assert files.get(paths[6]) is kept and files.get(paths[7]) is None
    os.unlink(paths[6])
    files.drop_deleted()
    assert files.get(paths[6]) is None and len(files) == 2
    limit = OpenFiles().limit
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 8 <= limit <= max(8, allowed * 3 // 4)


_RAISED = """
import os, resource, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
if most != resource.RLIM_INFINITY and most < 8192:
    sys.exit(77)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 8192))
from foundry_core.data.shards.files import OpenFiles
files = OpenFiles()
for _ in range(1000):
    for name in sys.argv[1:]:
        files.get(name) or files.open(name)
kept = [files.get(name) for name in sys.argv[1:]]
assert None not in kept and min(one.descriptor for one in kept) >= 1024
print(files.limit, os.open(os.devnull, os.O_RDONLY) < 64)
"""


def test_the_limit_is_raised_as_far_as_it_may_and_low_descriptors_are_left(tmp_path: Path) -> None:
    """Programs that select() know the numbers below 1,024 alone."""
    paths = [str(tmp_path / str(number)) for number in range(100)]
    for path in paths:
        Path(path).write_text(path)
    command = [sys.executable, "-c", _RAISED, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this system allows fewer than 8,192 files")
    limit, low = done.stdout.split()
    assert low == "True" and 5000 < int(limit) <= (8192 - 1024) * 3 // 4, done.stderr


def test_members_that_come_twice_and_unsorted_are_read_as_before() -> None:
    """A tar's last member of a name counts; `members` has the order of the tar."""
    entries = [("k.z", 512, 1), ("k.a", 1536, 2), ("k.z", 2560, 3), ("l", 3584, 4)]
    entries += [(f"m.{n:02d}", 4608 + 1024 * n, n) for n in (*range(11, 20), *range(11))]
    packed = Packed.of(build_index(entries, 1 << 20))
    section = IndexFile(index_bytes([packed]), "").section(0)
    assert isinstance(section, Section)
    assert [name for name, _ in section.members(0)] == ["z", "a", "z"]
    assert section.find(0, ("z", "a", "b")) == [(2560, 3, b"k.z"), (1536, 2, b"k.a"), None]
    assert section.find(1, ("",)) == [(3584, 4, b"l")]
    found = section.find(2, ("19", "00", "20", "0", "07"))
    assert [span and span[1] for span in found] == [19, 0, None, None, 7]
    assert pack(section.unpacked()) == packed.content


def test_writing_again_what_has_a_manifest_keeps_its_index(tmp_path: Path) -> None:
    from foundry_core.data.shards.write import write_manifest

    infos = write_shards(tmp_path, samples(), 3)
    before = (tmp_path / DATASET_INDEX).read_bytes()
    write_manifest(tmp_path, infos)
    assert (tmp_path / DATASET_INDEX).read_bytes() == before
    write_index(
        tmp_path / "again", map(Packed.of, (scan_tar(t) for t in sorted(tmp_path.glob("*.tar")))), 4
    )
    assert (tmp_path / "again").read_bytes() == before
