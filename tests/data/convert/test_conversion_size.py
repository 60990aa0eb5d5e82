"""What lets a conversion have any size: pictures that stream, statistics in a tree, mixed samples
that nobody holds."""

import json
import tarfile
from collections import Counter

import numpy as np
import pytest

from foundry_core.data.config import Shuffle
from foundry_core.data.convert import robot_shard, shuffle
from foundry_core.data.convert.pace import Pace, spoken
from foundry_core.data.convert.pictures import Stored
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import merge_statistics
from foundry_core.data.statistics.leaf import save_leaves
from foundry_core.data.statistics.running import FANOUT, RunningStatistics
from foundry_core.errors import FoundryError
from tasks.convert_robot import ConvertRobot, ConvertRobotRecipe
from tests.data.convert.test_robot import convert, digests, write_episode
from tests.data.shards.test_shards import verify


@pytest.fixture(autouse=True)
def no_home(tmp_path, monkeypatch):
    """Nor units of another conversion."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "no home"))


@pytest.fixture
def demos(tmp_path):
    root = tmp_path / "demos"
    for number in range(9):
        write_episode(root, number)
    (root / "demos.json").write_text("{}")
    return Demonstrations(path=str(root))


def converted(source, out, **changes):
    out.mkdir()
    return convert(source, out, **changes)


def keys(folder):
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            found += [m.name.partition(".")[0] for m in tar if m.name.endswith("lowdim.npz")]
    return found


def test_the_order_of_mixed_samples_depends_on_seed_and_ids_alone(demos, tmp_path):
    converted(demos, tmp_path / "plain", layout="sample")
    mix = Shuffle(seed=7, samples_per_shard=10)
    converted(demos, tmp_path / "mixed", layout="sample", shuffle=mix)
    converted(demos, tmp_path / "others", layout="sample", shuffle=mix, episodes_per_shard=4)
    seed = Shuffle(seed=8, samples_per_shard=10)
    converted(demos, tmp_path / "seed", layout="sample", shuffle=seed)
    plain, mixed = keys(tmp_path / "plain"), keys(tmp_path / "mixed")
    assert Counter(plain) == Counter(mixed) == Counter(keys(tmp_path / "seed"))
    assert mixed == sorted(mixed, key=lambda key: place(key, 7))
    assert keys(tmp_path / "seed") == sorted(mixed, key=lambda key: place(key, 8))
    tars = {n: d for n, d in digests(tmp_path / "mixed").items() if n != "stats.leaves.npz"}
    others = digests(tmp_path / "others")
    assert {n: d for n, d in tars.items() if "shard" in n or "manifest" in n} == {
        n: d for n, d in others.items() if "shard" in n or "manifest" in n
    }
    shards, before = ShardSet(tmp_path / "mixed"), ShardSet(tmp_path / "plain")
    verify(shards)
    assert [len(keys_of) for keys_of in np.array_split(mixed, 6)] == [9] * 6
    assert [info.num_sequences for info in shards.shards] == [10, 10, 10, 10, 10, 4]
    for number in (0, 17, 53):
        was = before.members(plain.index(mixed[number]))
        now = shards.members(number)
        assert {n: bytes(d) for n, d in now.items()} == {n: bytes(d) for n, d in was.items()}


def place(key: str, seed: int) -> int:
    """The same order by Python's own numbers."""
    mask, salted = 2**64 - 1, shuffle.hash64(key) ^ shuffle.hash64(f"shuffle {seed}")
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        salted = ((salted ^ (salted >> shift)) * factor) & mask
    return salted ^ (salted >> 31)


def test_splitmix_gives_the_published_numbers():
    gamma = 0x9E3779B97F4A7C15  # of seed 0: mix(gamma), mix(2 gamma), as in Vigna's splitmix64.c
    found = shuffle._mixed(np.array([gamma, 2 * gamma % 2**64], np.uint64))
    assert found.tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_episodes_are_not_shuffled(tmp_path):
    source = {"format": "demonstrations", "path": str(tmp_path)}
    recipe = ConvertRobotRecipe(source=source, cameras=["a"], fields=["b"], shuffle={"seed": 1})
    with pytest.raises(FoundryError, match="in the layout 'episode' a sample is an episode"):
        ConvertRobot.check(recipe, {})


@pytest.mark.parametrize("layout", ["episode", "sample"])
def test_a_picture_that_breaks_late_costs_its_episode_alone(demos, tmp_path, layout):
    write_episode(demos.root, 4, length=6)
    path = demos.root / "episodes/t/file_004.tar"
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        at = tar.getmember("scene/000004.jpg").offset_data
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    metrics = converted(demos, tmp_path / "broken", layout=layout, max_skipped=1)
    assert metrics["episodes"] == 8
    report = json.loads((tmp_path / "broken/report.json").read_text())
    assert [row["id"] for row in report["skipped"]] == ["episodes/t/file_004.tar"]
    assert "scene at step 4" in report["skipped"][0]["reason"]
    write_episode(demos.root, 4, success=False)
    converted(demos, tmp_path / "without", layout=layout)
    broken, without = digests(tmp_path / "broken"), digests(tmp_path / "without")
    assert broken.pop("report.json") != without.pop("report.json")
    assert broken == without


def test_long_episodes_give_the_same_bytes_window_by_window(demos, tmp_path, monkeypatch):
    for layout in ("episode", "sample"):
        monkeypatch.setattr(robot_shard, "_WINDOWS", 2048)
        converted(demos, tmp_path / f"{layout} at once", layout=layout)
        monkeypatch.setattr(robot_shard, "_WINDOWS", 4)
        converted(demos, tmp_path / f"{layout} in parts", layout=layout)
        assert digests(tmp_path / f"{layout} at once") == digests(tmp_path / f"{layout} in parts")


def test_few_pictures_are_held_and_films_are_asked_forwards():
    asked: list[int] = []

    def make(step: int) -> bytes:
        asked.append(step)
        return b"%d" % step

    pictures = Stored(100, make)
    assert [pictures[step] for step in (0, *range(100))][1:] == [b"%d" % n for n in range(100)]
    assert asked == list(range(100))
    asked.clear()
    pictures = Stored(100, make, reach=10)
    for anchor in range(90):
        assert (pictures[anchor], pictures[anchor + 10]) == (b"%d" % anchor, b"%d" % (anchor + 10))
    assert asked == list(range(100))
    assert len(pictures._kept) == 11


def parts(count, rng):
    for number in range(count):
        values = {"x": rng.normal(size=(400, 2, 1)) + number % 3}
        yield compute_statistics([(f"e{number}", values, np.ones((400, 2), bool))]), values["x"]


def test_statistics_of_many_parts_are_those_of_all_their_values(tmp_path):
    running, everything, held = RunningStatistics(tmp_path), [], []
    for number, (part, values) in enumerate(parts(70, np.random.default_rng(0))):
        save_leaves(tmp_path / f"part{number}", part.leaves)
        running.add(tmp_path / f"part{number}")
        everything.append(values)
        held.append(max(map(len, running._levels)))
    found = running.finish()["x"]
    values = np.concatenate(everything)
    assert max(held) == FANOUT
    assert found.count.tolist() == [28000, 28000]
    np.testing.assert_allclose(found.mean, values.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(found.max_per_timestep, values.max(axis=0))
    ordered = np.sort(values.ravel())
    for q, value in found.quantiles.items():
        assert abs(np.searchsorted(ordered, value[0]) / len(ordered) - q) <= 0.001


def test_statistics_of_few_parts_are_merged_at_once(tmp_path):
    running, found = RunningStatistics(tmp_path), []
    assert running.finish() is None
    for number, (part, _) in enumerate(parts(FANOUT, np.random.default_rng(1))):
        save_leaves(tmp_path / f"part{number}", part.leaves)
        running.add(tmp_path / f"part{number}")
        found.append(part)
    assert running.finish().to_json() == merge_statistics(found).collapse().to_json()


def test_the_pace_counts_what_was_worked_on():
    said, now = [], [0.0]
    pace = Pace(lambda *step: said.append(step), 10, "episodes", clock=lambda: now[0])
    for _ in range(4):
        pace.step("there", reused=True)
    now[0] = 10.0
    pace.step("25 episodes", each=25)
    assert said[3] == (4, 10, "there")
    assert said[4] == (5, 10, "25 episodes, 2.5 episodes/s, 50 s left")
    assert [spoken(s) for s in (3, 600, 9000, 200_000)] == ["3 s", "10 min", "2.5 h", "2.3 days"]
