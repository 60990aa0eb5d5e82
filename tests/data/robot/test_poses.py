"""Poses: published known values, inverse, and the relative arrays that others computed."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.config import PoseGroup, WindowConfig
from foundry_core.data.robot.poses import (
    absolute_pose,
    add_relative_fields,
    decode_rot6d,
    encode_rot6d,
    relative_pose,
)
from foundry_core.data.robot.windows import anchors, cut_windows, source_steps
from foundry_core.data.shards.read import ShardSet
from foundry_core.errors import FoundryError


def test_known_values():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        decode_rot6d(np.array([1.0, 1, 0, 0, 1, 0])),
        [[half, half, 0], [-half, half, 0], [0, 0, 1]],
        atol=1e-12,
    )
    np.testing.assert_array_equal(
        decode_rot6d(np.array([0.0, 1, 0, -1, 0, 0])), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    )


def test_relative_arrays_of_a_published_episode(shared_data):
    """The real shard's *_relative arrays were computed by another implementation."""
    groups = [
        PoseGroup(
            reference=f"robot__actual__poses__{arm}::panda",
            poses=tuple(
                f"robot__{k}__poses__{arm}::panda" for k in ("actual", "desired", "action")
            ),
        )
        for arm in ("left", "right")
    ]
    shards = ShardSet(shared_data / "lbm_robotics_shard")
    for sample in range(len(shards)):
        with np.load(io.BytesIO(shards.member(sample, "lowdim.npz"))) as stored:
            published = {name: stored[name] for name in stored.files}
        wanted = {name: v for name, v in published.items() if name.endswith("_relative")}
        raw = {name: v for name, v in published.items() if name not in wanted}
        ours = add_relative_fields(raw, 1, groups)
        assert len(wanted) == 12 and set(ours) == set(published)
        for name, values in wanted.items():
            assert np.abs(ours[name] - values).max() < 1e-12, name


def rotations(seed: int, *shape: int) -> np.ndarray:
    return decode_rot6d(np.random.default_rng(seed).normal(size=(*shape, 6)))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_there_and_back(seed):
    rng = np.random.default_rng(seed)
    xyz, rot = rng.normal(size=(4, 8, 3)), encode_rot6d(rotations(seed, 4, 8))
    xyz0, rot0 = rng.normal(size=(4, 1, 3)), encode_rot6d(rotations(seed + 1, 4, 1))
    back = absolute_pose(*relative_pose(xyz, rot, xyz0, rot0), xyz0, rot0)
    np.testing.assert_allclose(back[0], xyz, atol=1e-12)
    np.testing.assert_allclose(back[1], rot, atol=1e-12)
    matrices = decode_rot6d(rot)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-12)
    np.testing.assert_allclose(decode_rot6d(3.0 * rot), matrices, atol=1e-12)


def test_relative_to_itself_is_the_identity_and_moves_with_no_world_frame():
    rot = encode_rot6d(rotations(3, 5))
    xyz = np.random.default_rng(3).normal(size=(5, 3))
    here = relative_pose(xyz, rot, xyz, rot)
    np.testing.assert_allclose(here[0], 0, atol=1e-12)
    np.testing.assert_allclose(here[1], [[1, 0, 0, 0, 1, 0]] * 5, atol=1e-12)
    world = rotations(9)
    moved = [(world @ p[..., None])[..., 0] + [1, 2, 3] for p in (xyz[1:], xyz[:1])]
    turned = [encode_rot6d(world @ decode_rot6d(r)) for r in (rot[1:], rot[:1])]
    before = relative_pose(xyz[1:], rot[1:], xyz[:1], rot[:1])
    after = relative_pose(moved[0], turned[0], moved[1], turned[1])
    np.testing.assert_allclose(after[0], before[0], atol=1e-12)
    np.testing.assert_allclose(after[1], before[1], atol=1e-12)


@pytest.mark.parametrize("padding", ["copy", "reflect", "zero"])
def test_padded_steps_of_every_kind_become_relative(padding: str) -> None:
    """L = 12, past 1, future 14: reflected and repeated steps are those of the episode again, zeros
    stay zeros, and no real step depends on the padding."""
    rng, length = np.random.default_rng(2), 12
    episode = {"a__xyz": rng.normal(size=(length, 3)), "a__rot_6d": encode_rot6d(rotations(4, 12))}
    window = WindowConfig(
        past=1, future=14, max_padding_left=1, max_padding_right=14, padding=padding
    )
    steps = anchors(length, window)
    cut, past, future = cut_windows(episode, steps, window)
    real, sources = past | future, source_steps(length, steps, window)
    assert not real[9, 4:].any() and real[9, 1:4].all()
    made = add_relative_fields(cut, 1, [PoseGroup(reference="a", poses=("a",))], real)
    for row, anchor in enumerate(steps):
        expected = relative_pose(
            *(values[sources[row]] for values in episode.values()),
            *(values[anchor] for values in episode.values()),
        )
        for name, values in zip(("a__xyz_relative", "a__rot_6d_relative"), expected, strict=True):
            shown = np.where(sources[row][:, None] < 0, 0.0, values)
            np.testing.assert_allclose(made[name][row], shown, atol=1e-12)
    if padding == "zero":
        with pytest.raises(FoundryError, match="no rotation"):
            add_relative_fields(cut, 1, [PoseGroup(reference="a", poses=("a",))])


def test_degenerate_rotations_and_missing_fields_are_named():
    bad = np.tile([1.0, 0, 0, 0, 1, 0], (2, 3, 1))
    bad[1, 2] = [1, 0, 0, 2, 0, 0]
    with pytest.raises(FoundryError, match=r"\(1, 2\).*no rotation"):
        decode_rot6d(bad)
    group = PoseGroup(reference="a", poses=("b",))
    with pytest.raises(FoundryError, match="'b__xyz'"):
        add_relative_fields({"a__xyz": np.zeros((4, 3)), "a__rot_6d": bad[0]}, 0, [group])
