"""What a piece says it is made of is all that reading it opens: the rest of the source may go."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from foundry_core.config.validation import validate
from foundry_core.data.convert.units import SourceState
from foundry_core.data.inspection.raw import detect
from foundry_core.data.sources.base import RobotFormat
from tests.real_data import ABSENT, FORMATS, REAL_DATA

SETS = {
    "rlds_droid/tfds": {"hz": 15},
    "hdf5_libero": {"hz": 20},
    "hdf5_robomimic": {},
    "hdf5_aloha_sim": {"hz": 50},
    "zarr_pusht": {"hz": 10},
    "zarr_umi_zip": {"hz": 60},
    "lerobot_v21_video/data_root": {},
    "lerobot_v30_png/data_root": {},
    "lerobot_v30_video/data_root": {},
    "rosbag2_sqlite": {},
    "mcap_ros2": {},
    "../lbm_raw/tasks": {},
}
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)


def opened(folder: Path, options: dict) -> RobotFormat:
    kind = detect(folder)
    name = kind.model_fields["format"].default
    return validate(kind, {"format": name, **kind.options(str(folder)), **options}, "source")


def contents(source: RobotFormat, ref) -> tuple:
    episode = source.read_episode(ref)
    pictures = {
        camera: [np.asarray(frames[step]).tobytes() for step in (0, -1)]
        for camera, frames in episode.images.items()
    }
    fields = {name: values.tobytes() for name, values in episode.lowdim.items()}
    return episode.id, episode.task, episode.instructions, episode.success, fields, pictures


@pytest.mark.parametrize("name", SETS)
def test_a_piece_is_read_when_the_rest_is_gone(name, tmp_path):
    folder = tmp_path / "tasks"
    shutil.copytree(REAL_DATA / "formats" / name, folder)
    for note in ("expected.json", "arrays.npz", "README.md"):
        (folder / note).unlink(missing_ok=True)
    source = opened(folder, SETS[name])
    ref = source.episodes()[-1]
    before, reads = contents(source, ref), source.reads(ref)
    assert reads is not None
    state = SourceState(source)([ref])
    kept = [Path(file) for file in reads.files]
    assert all(file.exists() for file in kept)
    for path in folder.rglob("*"):
        below = any(path == file or path.is_relative_to(file) for file in kept)
        if path.is_file() and not below and "meta" not in path.relative_to(folder).parts:
            path.unlink()
    assert contents(source, ref) == before
    assert SourceState(source)([ref]) == state
    victim = kept[0] if kept[0].is_file() else next(p for p in kept[0].rglob("*") if p.is_file())
    victim.write_bytes(victim.read_bytes() + b"more")
    assert SourceState(source)([ref]) != state
