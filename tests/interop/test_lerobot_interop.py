"""What `foundry data export --to lerobot` writes, read by LeRobot itself.

FOUNDRY_INTEROP_LEROBOT names a Python that has it:
    python3 -m venv lerobot && lerobot/bin/pip install lerobot==0.4.4
For videos its torchcodec must load: FFmpeg's shared libraries (Debian: apt-get install ffmpeg) and
the release that belongs to its torch (torchcodec 0.13.0 to torch 2.13).
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.images import decode_image
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.episodes import Episode
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.lerobot import Lerobot
from tasks.collect_demos import CollectDemos
from tasks.convert_robot import ConvertRobot
from tests.lerobot_sets import digits, make_coded_shards, read_digits
from tests.tasks.training_stages import run_stage

PYTHON = os.environ.get("FOUNDRY_INTEROP_LEROBOT", "")
NO_DECODER = 3
LENGTHS = (12, 23, 9)
FRONT = "observation.images.front"
# AV1 at LeRobot's own quality, against the JPEG files that went in: mean grey levels off (a frame
# beside is 9 to 18 off). Grainy little pictures are the hard case.
VIDEO_LEVELS = 8.0
DEMOS = {
    "tasks": ["drawer-open-v3", "door-unlock-v3"],
    "episodes_per_task": 2,
    "render": {"size": 64, "supersample": 1},
}
pytestmark = [
    pytest.mark.slow("another program in an environment of its own"),
    pytest.mark.skipif(
        not PYTHON,
        reason="FOUNDRY_INTEROP_LEROBOT names no Python with LeRobot: python3 -m venv lerobot && "
        "lerobot/bin/pip install lerobot==0.4.4",
    ),
]


def theirs(dataset: Path, out: Path) -> dict[str, np.ndarray]:
    """What LeRobot reads of a dataset; skips where its decoder of videos does not load."""
    script = Path(__file__).with_name("lerobot_reads.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(script), str(dataset), str(out)],
        timeout=240,
        text=True,
        stdout=subprocess.PIPE,
        env={**environment, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out.with_suffix(".hf"))},
    )
    if done.returncode == NO_DECODER:
        pytest.skip(f"LeRobot's decoder: {done.stdout.strip()}")
    assert done.returncode == 0
    with np.load(out) as arrays:
        return dict(arrays.items())


def ours(dataset: Path) -> list[Episode]:
    source = Lerobot(path=str(dataset))
    return [source.read_episode(ref) for ref in source.episodes()]


def pixels(picture: bytes | np.ndarray) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else picture


@pytest.mark.parametrize("images", ["png", "jpeg", "video"])
def test_lerobot_reads_what_we_export(tmp_path, images):
    out = tmp_path / "out"
    export_lerobot(str(make_coded_shards(tmp_path / "shards", LENGTHS)), out, images=images)
    read, given = ours(out), theirs(out, tmp_path / "read.npz")
    for name in read[0].lowdim:
        values = np.concatenate([episode.lowdim[name] for episode in read])
        assert np.array_equal(values, given[name].reshape(values.shape)), name
        mean = values.astype(np.float64).mean(0)
        assert np.allclose(given[f"stats|{name}|mean"], mean), name
    assert given["tasks"].tolist() == [e.task for e in read for _ in range(e.length)]
    pictures = [(n, s, p) for n, e in enumerate(read) for s, p in enumerate(e.images[FRONT])]
    for (number, step, picture), other in zip(pictures, given[FRONT], strict=True):
        assert read_digits(other) == digits(number, step)
        assert np.array_equal(pixels(picture), other)


@pytest.mark.parametrize("images", ["jpeg", "video"])
def test_simulator_to_shards_to_lerobot_and_back(tmp_path, images):
    """Low-dimensional numbers arrive to the bit with both readers; pictures are what both decoders
    see alike, and what went in as far as the codec keeps it."""
    run_stage(CollectDemos, tmp_path / "demos", tmp_path / "scratch", DEMOS, {})
    source = {"source": {"format": "demonstrations", "path": str(tmp_path / "demos")}}
    run_stage(ConvertRobot, tmp_path / "shards", tmp_path / "scratch2", source, {})
    out = tmp_path / "out"
    export_lerobot(str(tmp_path / "shards"), out, images=images)
    read, given = ours(out), theirs(out, tmp_path / "read.npz")
    stored, row, furthest = ShardSet(tmp_path / "shards"), 0, 0.0
    assert len(stored) == len(read) == 4
    for number, episode in enumerate(read):
        members = stored.members(number)
        rows = slice(row, row + episode.length)
        for name, values in read_npz(members["lowdim.npz"]).items():
            assert np.array_equal(episode.lowdim[name], values), name
            assert np.array_equal(given[name][rows].reshape(values.shape), values), name
        for name in members:
            camera, _, step = name.removesuffix(".jpg").rpartition("_")
            if not name.endswith(".jpg"):
                continue
            key = f"observation.images.{camera}"
            kept = decode_image(members[name]).astype(float)
            one, other = pixels(episode.images[key][int(step)]), given[key][row + int(step)]
            assert np.abs(one.astype(float) - other).max() <= 1, name
            furthest = max(furthest, float(np.abs(kept - one).mean()))
        row += episode.length
    print(f"{images}: pictures within {furthest:.2f} grey levels")
    assert furthest <= (0 if images == "jpeg" else VIDEO_LEVELS)
