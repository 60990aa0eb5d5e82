"""ALOHA's HDF5: raw pictures and padded JPEG files."""

import h5py
import numpy as np
import pytest

from foundry_core.config.validation import validate
from foundry_core.data.images import encode_jpeg, image_format
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.aloha import Aloha
from foundry_core.errors import FoundryError
from tasks.convert_robot import ConvertRobotRecipe
from tests.data.sources.robot.expected import decoded, expected, read_all

STEPS = 3


def pixels(step):
    """Red to the left, blue to the right."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8, 0], image[:, 8:, 2] = 200 + step, 90
    return image


def rows(files):
    padded = np.zeros((len(files), max(map(len, files)) + 7), np.uint8)
    for row, data in zip(padded, files, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return padded


def recording(path, images=None, steps=STEPS):
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["action"] = np.arange(steps * 14, dtype=np.float32).reshape(steps, 14)
        file["observations/qpos"] = np.zeros((steps, 14), np.float32)
        file["compress_len"] = np.zeros((2, steps), np.float32)
        file["instruction"] = "not over steps"
        if images is None:
            images = rows([encode_jpeg(pixels(step), 95) for step in range(steps)])
        file["observations/images/top"] = images
    return path


@pytest.mark.parametrize(
    ("name", "channels", "tolerance"),
    [("hdf5_aloha_sim", "rgb", 0.0), ("hdf5_aloha_mobile", "bgr", 1.0)],
)
def test_values_are_those_of_the_original_reader(shared_data, name, channels, tolerance):
    wanted = expected(shared_data, name)
    found = read_all(Aloha(path=str(wanted.folder), hz=50, channels=channels))
    wanted.check(found, tolerance=tolerance)
    assert [episode.id for episode in found] == ["episode_0", "episode_1", "episode_2"]


def test_a_jpeg_stays_the_file_it_was(tmp_path):
    recording(tmp_path / "episode_10.hdf5")
    recording(tmp_path / "episode_9.hdf5")
    source = Aloha(path=str(tmp_path), hz=50, instruction="fold it")
    assert [ref.name for ref in source.episodes()] == ["episode_9.hdf5", "episode_10.hdf5"]
    episode = source.read_episode(source.episodes()[0])
    assert set(episode.lowdim) == {"action", "observations/qpos"}
    assert episode.lowdim["action"].dtype == np.float32
    assert (episode.hz, episode.instructions) == (50.0, {"original": ["fold it"]})
    for step, image in enumerate(episode.images["top"]):
        assert image_format(image) == "jpg"
        assert image == encode_jpeg(pixels(step), 95)


def test_byte_strings_are_rows_too(tmp_path):
    files = [encode_jpeg(pixels(step), 95) for step in range(STEPS)]
    recording(tmp_path / "episode_0.hdf5", np.array(files))
    (episode,) = read_all(Aloha(path=str(tmp_path), hz=50))
    assert episode.images["top"][:] == files


@pytest.mark.parametrize("compressed", [True, False])
def test_colours_are_brought_to_order(tmp_path, compressed):
    images = None if compressed else np.stack([pixels(step) for step in range(STEPS)])
    recording(tmp_path / "episode_0.hdf5", images)
    (stored,) = read_all(Aloha(path=str(tmp_path), hz=50))
    (swapped,) = read_all(Aloha(path=str(tmp_path), hz=50, channels="bgr"))
    assert decoded(stored.images["top"][1])[4, 2, 0] > 150
    assert np.array_equal(decoded(stored.images["top"][1])[:, :, ::-1], swapped.images["top"][1])


def test_the_rate_is_asked_for():
    with pytest.raises(FoundryError, match="hz"):
        validate(ConvertRobotRecipe, {"source": {"format": "aloha", "path": "/a"}}, "recipe")


def test_a_jpeg_that_was_cut_is_named_by_its_step(tmp_path):
    files = [encode_jpeg(pixels(step), 95) for step in range(STEPS)]
    files[1] = files[1][:100].rstrip(b"\0") + b"\x01"
    recording(tmp_path / "episode_0.hdf5", rows(files))
    (episode,) = read_all(Aloha(path=str(tmp_path), hz=50))
    assert episode.images["top"][2] == files[2]
    with pytest.raises(UnusableEpisode, match=r"episode_0.hdf5: .*top at step 1 is no whole image"):
        episode.images["top"][1]


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_no_picture_at_all(tmp_path, channels):
    recording(tmp_path / "episode_0.hdf5", np.zeros((STEPS, 50), np.uint8))
    (episode,) = read_all(Aloha(path=str(tmp_path), hz=50, channels=channels))
    with pytest.raises(UnusableEpisode, match="step 0 is no whole image file"):
        episode.images["top"][0]


def test_too_few_pictures(tmp_path):
    recording(tmp_path / "episode_0.hdf5", np.zeros((STEPS - 1, 4, 4, 3), np.uint8))
    with pytest.raises(UnusableEpisode, match="'top' has 2 steps, 'action' has 3"):
        read_all(Aloha(path=str(tmp_path), hz=50))


def test_another_layout(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 7))
    with pytest.raises(UnusableEpisode, match="/action does not exist"):
        read_all(Aloha(path=str(tmp_path), hz=50))
