"""A policy as rollouts drive it: noise, batching, and the way back to absolute targets."""

import json
import shutil

import numpy as np
import pytest
import torch
from training_stages import Bench

from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.poses import absolute_pose, encode_rot6d
from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.serving.policy import load_policy

ARM = "robot__{}__poses__right::panda"
XYZ, ROT, GRIPPER = (
    ARM.format("action") + "__xyz",
    ARM.format("action") + "__rot_6d",
    "robot__action__grippers__right::panda_hand",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("policies"))
    bench.llm()
    bench.vlm()
    bench.vla()
    bench.vla("untrained", changes={"training": {"steps": 0}})
    return bench


def observation(number: int = 0, instruction: str = "do 1") -> dict:
    rng = np.random.default_rng(number)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    return {
        "images": {
            c: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for c in ("front", "wrist")
        },
        "lowdim": {
            ARM.format("actual") + "__xyz": rng.normal(size=3),
            ARM.format("actual") + "__rot_6d": encode_rot6d(rotation),
            "robot__actual__grippers__right::panda_hand": np.array([0.05]),
        },
        "instruction": instruction,
    }


def plan(policy, seed=5, seen=None, times=1, client="a"):
    policy.reset(client, seed)
    for _ in range(times):
        (targets,) = policy.infer([(client, seen or observation())])
    return targets


def test_an_untrained_head_returns_its_noise_as_absolute_targets(bench):
    """Its velocity is zero, so the chunk is the noise of (seed, replan index) itself: normalised,
    relative to the measured pose."""
    policy, seen = load_policy(bench.root / "untrained"), observation(3)
    found = plan(policy, seed=11, seen=seen, times=2)
    one, zero = torch.tensor([1]), torch.tensor([0])
    z = (
        noise.normal(noise.Key(torch.tensor([11]), one, zero), (1, 8, 10), stream=2)[0, 0]
        .double()
        .numpy()
    )
    rules = Normalizer.load(bench.root / "untrained")
    measured = seen["lowdim"]
    xyz, rotation = absolute_pose(
        rules.denormalize(f"{XYZ}_relative", z[:, :3]),
        rules.denormalize(f"{ROT}_relative", z[:, 3:9]),
        measured[ARM.format("actual") + "__xyz"],
        measured[ARM.format("actual") + "__rot_6d"],
    )
    np.testing.assert_allclose(found[XYZ], xyz, atol=1e-5)
    np.testing.assert_allclose(found[ROT], rotation, atol=1e-4)
    np.testing.assert_allclose(found[GRIPPER], rules.denormalize(GRIPPER, z[:, 9:]), atol=1e-6)
    assert all(v.dtype == np.float64 and len(v) == 8 for v in found.values())


def test_a_client_acts_alike_alone_and_in_any_company(bench):
    policy = load_policy(bench.root / "vla")
    alone = plan(policy, times=2)
    for client, seed in (("a", 5), ("b", 6), ("c", 7)):
        policy.reset(client, seed)
    others = [("b", observation(1, "a much longer instruction")), ("c", observation(2, "go"))]
    policy.infer([others[0], ("a", observation())])
    *_, together = policy.infer([*others, ("a", observation())])
    for field, values in alone.items():
        np.testing.assert_allclose(together[field], values, atol=1e-5)


def test_noise_is_a_function_of_reset_seed_and_replan_index(bench):
    policy = load_policy(bench.root / "vla")
    first, again = plan(policy), plan(policy)
    np.testing.assert_array_equal(first[XYZ], again[XYZ])
    assert np.abs(plan(policy, seed=6)[XYZ] - first[XYZ]).max() > 1e-3
    assert np.abs(plan(policy, times=2)[XYZ] - first[XYZ]).max() > 1e-3


def test_blanked_pictures_are_grey_ones(bench):
    grey = observation()
    grey["images"] = {c: np.full_like(i, 128) for c, i in grey["images"].items()}
    blind = plan(load_policy(bench.root / "vla", blank_images=True))
    np.testing.assert_array_equal(blind[XYZ], plan(load_policy(bench.root / "vla"), seen=grey)[XYZ])


def test_only_the_stored_normaliser_is_used(bench, tmp_path):
    shutil.copytree(bench.root / "vla", tmp_path / "policy")
    path = tmp_path / "policy" / "normalizer.json"
    document = json.loads(path.read_text())
    entry = document["fields"][GRIPPER]
    entry["centre"] = (np.asarray(entry["centre"]) + 1).tolist()
    path.write_text(json.dumps(document))
    moved, plain = plan(load_policy(tmp_path / "policy")), plan(load_policy(bench.root / "vla"))
    np.testing.assert_allclose(moved[GRIPPER], plain[GRIPPER] + 1, atol=1e-6)
    np.testing.assert_array_equal(moved[XYZ], plain[XYZ])


def test_mistakes_are_named(bench, tmp_path):
    policy = load_policy(bench.root / "vla")
    with pytest.raises(FoundryError, match="never reset"):
        policy.infer([("stranger", observation())])
    seen = observation()
    del seen["images"]["wrist"]
    policy.reset("a", 0)
    with pytest.raises(FoundryError, match="lacks camera 'wrist'"):
        policy.infer([("a", seen)])
    with pytest.raises(FoundryError, match=r"no policy\.json"):
        load_policy(bench.root / "vlm")
