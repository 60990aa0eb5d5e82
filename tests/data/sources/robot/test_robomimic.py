"""robomimic's HDF5: the recordings as the original reads them, and files that cannot be trusted."""

import json
import os

import h5py
import numpy as np
import pytest

from foundry_core.data.convert.read import read_bounded
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.robomimic import Robomimic
from foundry_core.errors import FoundryError
from tests.data.sources.robot.expected import expected, read_all

STEPS = 4


def recording(path, demos=("demo_0", "demo_2", "demo_10"), hz=20, steps=STEPS):
    """A file as robomimic writes it; its last demonstration has an instruction."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        kwargs = {} if hz is None else {"control_freq": hz}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": kwargs})
        for number, name in enumerate(demos):
            demo = data.create_group(name)
            demo["actions"] = np.full((steps, 7), number / 8)
            demo["dones"] = np.arange(steps) == steps - 1
            demo["rewards"] = np.arange(steps, dtype=np.int64)
            demo["obs/robot0_eef_pos"] = np.full((steps, 3), number, ">f4")
            demo["obs/agentview_image"] = np.full((steps, 8, 8, 3), number, np.uint8)
            demo["obs/agentview_depth"] = np.full((steps, 8, 9, 1), 1000 + number, np.uint16)
            demo["next_obs/robot0_eef_pos"] = np.zeros((steps, 3))
        if demos:
            data[demos[-1]].attrs["ep_meta"] = json.dumps({"lang": "lift the cube"})
        file["mask/train"] = np.array([b"demo_10", b"demo_0"])
        file["mask/lost"] = np.array([b"demo_99"])
    return path


def test_values_are_those_of_the_original_reader(shared_data):
    wanted = expected(shared_data, "hdf5_robomimic")
    source = Robomimic(path=str(wanted.folder / "demo_im64.hdf5"))
    found = read_all(source)
    wanted.check(found)
    assert [ref.name.split("/")[-1] for ref in source.episodes()] == wanted.document["order"]
    assert {episode.hz for episode in found} == {20.0}
    assert {episode.task for episode in found} == {"Lift"}
    for mask, names in wanted.document["mask"].items():
        chosen = Robomimic(path=source.path, mask=mask).episodes()
        assert [ref.name.split("/")[-1] for ref in chosen] == names


def test_what_an_episode_holds(tmp_path):
    recording(tmp_path / "a.hdf5")
    source = Robomimic(path=str(tmp_path))
    refs = source.episodes()
    assert [ref.name for ref in refs] == [f"a.hdf5/demo_{n}" for n in (0, 2, 10)]
    episode = source.read_episode(refs[2])
    assert (episode.id, episode.hz, episode.success) == ("a_demo_10", 20.0, None)
    depth = np.stack(episode.depth["agentview_depth"])
    assert (depth.dtype, depth.shape) == (np.float32, (4, 8, 9))
    assert (depth == np.float32(1.002)).all()
    told = Robomimic(path=str(tmp_path), depth_unit="cm").read_episode(refs[2])
    assert np.allclose(told.depth["agentview_depth"][0], 10.02)
    assert episode.instructions == {"original": ["lift the cube"]}
    assert {name: (v.dtype.str, v.shape) for name, v in episode.lowdim.items()} == {
        "actions": ("<f8", (STEPS, 7)),
        "dones": ("<f8", (STEPS, 1)),
        "rewards": ("<f8", (STEPS, 1)),
        "obs/robot0_eef_pos": ("<f4", (STEPS, 3)),
    }
    assert episode.lowdim["rewards"][:, 0].tolist() == [0, 1, 2, 3]
    assert list(episode.images) == ["agentview_image"]
    assert [image.mean() for image in episode.images["agentview_image"]] == [2.0] * STEPS


def test_links_within_the_file_are_followed(tmp_path):
    """relative: from the group that holds the link. twice: a link to a link."""
    recording(tmp_path / "a.hdf5", ["demo_0"])
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["shared/tip"] = np.full((STEPS, 3), 7.0)
        file["data/demo_0/relative"] = h5py.SoftLink("obs/robot0_eef_pos")
        file["data/demo_0/obs/absolute"] = h5py.SoftLink("/shared/./tip")
        file["data/demo_0/twice"] = h5py.SoftLink("obs/absolute")
        file["data/demo_1"] = h5py.SoftLink("/data/demo_0")
    source = Robomimic(path=str(tmp_path))
    first, second = read_all(source)
    assert first.lowdim["relative"].tolist() == first.lowdim["obs/robot0_eef_pos"].tolist()
    assert first.lowdim["obs/absolute"].tolist() == [[7.0] * 3] * STEPS
    assert first.lowdim["twice"].tolist() == [[7.0] * 3] * STEPS
    assert second.lowdim.keys() == first.lowdim.keys()


def test_files_come_by_number_and_the_recipe_says_what_they_do_not(tmp_path):
    for name in ("part_10.hdf5", "part_9.h5"):
        recording(tmp_path / name, ["demo_0", "demo_1"], hz=None)
    source = Robomimic(path=str(tmp_path), hz=15, instruction="lift it")
    found = read_all(source)
    assert [one.id for one in found] == [
        "part_9_demo_0", "part_9_demo_1", "part_10_demo_0", "part_10_demo_1",
    ]  # fmt: skip
    assert [one.instructions["original"] for one in found[:2]] == [["lift it"], ["lift the cube"]]
    assert {one.hz for one in found} == {15.0}
    silent = Robomimic(path=str(tmp_path))
    with pytest.raises(FoundryError, match=r"control rate.*hz") as caught:
        silent.read_episode(silent.episodes()[0])
    assert not isinstance(caught.value, UnusableEpisode)


def test_a_rate_that_its_files_contradict_is_refused_with_both(tmp_path):
    recording(tmp_path / "a.hdf5", hz=20)
    assert {one.hz for one in read_all(Robomimic(path=str(tmp_path), hz=16))} == {20.0}
    source = Robomimic(path=str(tmp_path), hz=10)
    with pytest.raises(UnusableEpisode, match="hz is 10, its files state 20 Hz") as refused:
        read_bounded(source, source.episodes()[0])
    assert refused.value.hint.startswith("leave hz of the source out")


def test_a_mask_may_name_what_is_not_there(tmp_path):
    path = str(recording(tmp_path / "a.hdf5"))
    assert [r.name for r in Robomimic(path=path, mask="train").episodes()] == [
        "a.hdf5/demo_0", "a.hdf5/demo_10",
    ]  # fmt: skip
    lost = Robomimic(path=path, mask="lost")
    with pytest.raises(UnusableEpisode, match="demo_99 does not exist"):
        read_all(lost)
    with pytest.raises(FoundryError, match=r"no mask 'trian'.*train"):
        Robomimic(path=path, mask="trian").episodes()


def broken(path, change):
    recording(path, ["demo_0"])
    with h5py.File(path, "r+") as file:
        change(file["data/demo_0"])


def elsewhere(demo):
    """A dataset whose bytes are those of another file of this machine."""
    demo.create_dataset("obs/secret", (4, 2), "u1", external=[("/etc/hostname", 0, 8)])


def virtual(demo):
    layout = h5py.VirtualLayout((STEPS, 3), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "x", (STEPS, 3))
    demo.create_virtual_dataset("obs/virtual", layout)


def fan(demo):
    """Three groups that hold 30 names each of the next: few bytes, and 27,000 names."""
    for name in ("a", "b", "c", "d"):
        demo.file.create_group(f"fan/{name}")
    for name, other in (("a", "b"), ("b", "c"), ("c", "d")):
        for number in range(30):
            demo.file[f"fan/{name}"][f"to{number}"] = h5py.SoftLink(f"/fan/{other}")
    demo["fan"] = h5py.SoftLink("/fan/a")


def replace(name, values, **kwargs):
    def change(demo):
        if name in demo:
            del demo[name]
        demo.create_dataset(name, data=values, **kwargs)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda demo: demo.update(x=h5py.ExternalLink("b.hdf5", "/x")), "demo_0/x is a link .Ext"),
        (lambda demo: demo.update(x=h5py.SoftLink("/data")), "nested too deep"),
        (lambda demo: demo.update(x=h5py.SoftLink("gone")), "demo_0/gone does not exist"),
        (lambda demo: demo.update(x=h5py.SoftLink("../../../etc")), r"demo_0/\.\. does not exist"),
        (
            lambda demo: demo.update(y=h5py.ExternalLink("b.hdf5", "/x"), x=h5py.SoftLink("y")),
            "demo_0/y is a link .Ext",
        ),
        (
            lambda demo: demo.update(x=h5py.SoftLink("y"), y=h5py.SoftLink("./x")),
            "leads on to more than 16 links",
        ),
        (fan, "more than 10000 names"),
        (elsewhere, "obs/secret has its data in other files"),
        (virtual, "obs/virtual has its data in other files"),
        (lambda demo: demo.update(x=demo.parent), "nested too deep"),
        (lambda demo: demo.create_dataset(b"\xff", data=[1.0]), "demo_0 holds names that are not"),
        (replace("actions", np.array([b"a"] * STEPS)), "demo_0/actions holds .S1, not numbers"),
        (replace("actions", ["a"] * STEPS), "demo_0/actions holds object, not numbers"),
        (replace("actions", np.zeros(STEPS, "f4,i4")), "not numbers"),
        (replace("actions", np.zeros((STEPS + 1, 7))), "'dones' has 4 steps, 'actions' has 5"),
        (replace("rewards", np.zeros((0, 1))), "'rewards' has 0 steps"),
        (
            lambda demo: demo.create_dataset("obs/big", (10**9, 64), "f8", chunks=(1, 64)),
            "big takes 512,000,000,000 bytes",
        ),
        (
            lambda demo: demo.create_dataset(
                "obs/wide", (STEPS, 10**5, 10**5, 3), "u1", chunks=(1, 1, 1, 3)
            ),
            "wide takes 30,000,000,000 bytes",
        ),
        (
            lambda demo: demo.parent.attrs.update(env_args="{"),
            "attribute 'env_args' of /data is not readable",
        ),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    broken(tmp_path / "a.hdf5", change)
    with pytest.raises(UnusableEpisode, match=message) as caught:
        read_all(Robomimic(path=str(tmp_path)))
    assert "a.hdf5" in str(caught.value)


def test_without_steps(tmp_path):
    recording(tmp_path / "a.hdf5", ["demo_0"], steps=0)
    with pytest.raises(UnusableEpisode, match="demo_0 has no steps"):
        read_all(Robomimic(path=str(tmp_path)))


def test_a_file_that_was_cut_costs_its_own_episodes_only(tmp_path):
    recording(tmp_path / "a.hdf5", ["demo_0"])
    recording(tmp_path / "b.hdf5")
    recording(tmp_path / "c.hdf5", [])
    os.truncate(tmp_path / "b.hdf5", 3000)
    source = Robomimic(path=str(tmp_path))
    refs = source.episodes()
    assert [ref.name for ref in refs] == ["a.hdf5/demo_0", "b.hdf5", "c.hdf5"]
    assert source.read_episode(refs[0]).length == STEPS
    with pytest.raises(UnusableEpisode, match=r"b.hdf5 is not readable: .*truncated"):
        source.read_episode(refs[1])
    with pytest.raises(UnusableEpisode, match=r"c.hdf5 holds no demonstrations"):
        source.read_episode(refs[2])


def test_a_damaged_picture_is_named_by_its_step(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (STEPS, 8, 8, 3), dtype=np.uint8)
    chunked = replace("obs/agentview_image", pixels, chunks=(1, 8, 8, 3), compression="gzip")
    broken(tmp_path / "a.hdf5", chunked)
    with h5py.File(tmp_path / "a.hdf5") as file:
        chunk = file["data/demo_0/obs/agentview_image"].id.get_chunk_info(2)
    with (tmp_path / "a.hdf5").open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(bytes(chunk.size))
    (episode,) = read_all(Robomimic(path=str(tmp_path)))
    images = episode.images["agentview_image"]
    assert np.array_equal(images[1], pixels[1])
    with pytest.raises(UnusableEpisode, match="agentview_image at step 2 is not readable"):
        images[2]
