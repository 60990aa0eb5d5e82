"""A policy as rollouts drive it: noise, batching, and the way back to absolute targets."""

import json
import shutil

import numpy as np
import pytest
import torch
from training_stages import ROBOT, Bench

from foundry_core.data.config import ImageConfig, WindowConfig
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.matching import Conversion
from foundry_core.data.contract.statements import CameraContract, DataContract, ExamContract
from foundry_core.data.convert.robot_samples import RobotSettings, stored_episode
from foundry_core.data.images import decode_image
from foundry_core.data.robot.episodes import Episode
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.poses import absolute_pose, encode_rot6d
from foundry_core.data.robot.rotations import convert_rotation, to_matrix
from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.models.inference import Acceleration
from foundry_core.serving.adapted import AdaptedPolicy, convert_fields
from foundry_core.serving.policy import as_stored, load_policy

ARM = "robot__{}__poses__right::panda"
XYZ, ROT, GRIPPER = (
    ARM.format("action") + "__xyz",
    ARM.format("action") + "__rot_6d",
    "robot__action__grippers__right::panda_hand",
)
SEEN_XYZ, SEEN_ROT, SEEN_GRIPPER = (
    name.replace("action", "actual") for name in (XYZ, ROT, GRIPPER)
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


def plan(policy, seed=5, seen=None, times=1, client="a", absent=frozenset()):
    policy.reset(client, seed)
    more = [absent] if absent else []
    for _ in range(times):
        (targets,) = policy.infer([(client, seen or observation())], *more)
    return targets


def noise_targets(folder, seen, *, seed, replan, first=0):
    """What an untrained head says: its velocity is zero, so the chunk is the noise of (seed, replan
    index) itself, normalised, relative to the measured pose. first: the step it begins at."""
    key = noise.Key(torch.tensor([seed]), torch.tensor([replan]), torch.tensor([0]))
    z = noise.normal(key, (1, 8, 10), stream=2)[0, 0].double().numpy()
    rules = Normalizer.load(folder)
    measured = seen["lowdim"]
    xyz, rotation = absolute_pose(
        rules.denormalize(f"{XYZ}_relative", z[:, :3], first),
        rules.denormalize(f"{ROT}_relative", z[:, 3:9], first),
        measured[ARM.format("actual") + "__xyz"],
        measured[ARM.format("actual") + "__rot_6d"],
    )
    return {XYZ: xyz, ROT: rotation, GRIPPER: rules.denormalize(GRIPPER, z[:, 9:], first)}


def assert_targets(found, wanted):
    for name, atol in ((XYZ, 1e-5), (ROT, 1e-4), (GRIPPER, 1e-6)):
        np.testing.assert_allclose(found[name], wanted[name], atol=atol)


def test_an_untrained_head_returns_its_noise_as_absolute_targets(bench):
    policy, seen = load_policy(bench.root / "untrained"), observation(3)
    found = plan(policy, seed=11, seen=seen, times=2)
    assert_targets(found, noise_targets(bench.root / "untrained", seen, seed=11, replan=1))
    assert all(v.dtype == np.float64 and len(v) == 8 for v in found.values())


def test_steps_of_the_past_are_predicted_and_never_commanded(bench):
    """A chunk of 8 that begins a step ago: its second row is the first to carry out, denormalised
    with the statistics of its own place in the chunk."""
    inputs = {**ROBOT["inputs"], "action_past": 1}
    folder, _ = bench.vla(
        "past",
        changes={"data": {"robot": {**ROBOT, "inputs": inputs}}, "training": {"steps": 0}},
    )
    policy, seen = load_policy(folder), observation(3)
    assert (policy.contract.ahead, policy.transform.inputs.horizon) == (7, 8)
    wanted = noise_targets(folder, seen, seed=11, replan=0, first=-1)
    assert_targets(plan(policy, seed=11, seen=seen), {n: v[1:] for n, v in wanted.items()})


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


def test_an_exam_of_other_forms_gets_the_same_actions_in_its_own(bench):
    """Quaternions, millimetres, and a gripper that is 1 when closed and -1 when open."""
    plain, seen = load_policy(bench.root / "vla"), observation(4)
    wanted = plan(plain, seen=seen)
    contract = plain.contract
    hand = {"quantity": "gripper", "dims": 1}
    ours, theirs = (
        FieldContract(**hand, closed=0.0, open=0.1),
        FieldContract(**hand, closed=1, open=-1),
    )
    grippers = {GRIPPER: ours, SEEN_GRIPPER: ours}
    for side in ("observes", "commands"):
        stated = getattr(contract, side)
        changed = {name: grippers.get(name, field) for name, field in stated.items()}
        contract = contract.model_copy(update={side: changed})
    plain.contract = contract
    quaternion = FieldContract(quantity="rotation", form="quaternion_wxyz", dims=4)
    millimetres = FieldContract(quantity="position", unit="mm", dims=3)
    exam = ExamContract(
        observes={SEEN_XYZ: millimetres, SEEN_ROT: quaternion, SEEN_GRIPPER: theirs},
        commands={XYZ: millimetres, ROT: quaternion, GRIPPER: theirs},
    )
    lowdim = seen["lowdim"]
    shown = {
        SEEN_XYZ: 1000 * lowdim[SEEN_XYZ],
        SEEN_ROT: convert_rotation(lowdim[SEEN_ROT], "rot6d_rows", "quaternion_wxyz"),
        SEEN_GRIPPER: 1 - 20 * lowdim[SEEN_GRIPPER],
    }
    found = plan(AdaptedPolicy(plain, exam, "exam"), seen={**seen, "lowdim": shown})
    np.testing.assert_allclose(found[XYZ], 1000 * wanted[XYZ], rtol=1e-5)
    np.testing.assert_allclose(
        to_matrix(found[ROT], "quaternion_wxyz"), to_matrix(wanted[ROT], "rot6d_rows"), atol=1e-5
    )
    np.testing.assert_allclose(found[GRIPPER], 1 - 20 * wanted[GRIPPER], atol=1e-5)


def test_degrees_are_radians_before_they_become_another_form():
    euler = {"quantity": "rotation", "form": "euler_xyz", "dims": 3}
    degrees, radians = FieldContract(**euler, unit="deg"), FieldContract(**euler, unit="rad")
    rows = FieldContract(quantity="rotation", form="rot6d_rows", dims=6)
    quarter = {"a": np.array([0.0, 0.0, 90.0])}
    to_rows = Conversion(field="a", source=degrees, target=rows)
    found = convert_fields(quarter, [to_rows])
    np.testing.assert_allclose(found["a"], [0, -1, 0, 1, 0, 0], atol=1e-12)
    back = convert_fields(found, [Conversion(field="a", source=rows, target=degrees)])
    np.testing.assert_allclose(back["a"], quarter["a"])
    same = convert_fields(quarter, [Conversion(field="a", source=degrees, target=radians)])
    np.testing.assert_allclose(same["a"], [0, 0, np.pi / 2])


def test_what_the_robot_lacks_is_masked_as_in_training(bench):
    """An untrained head returns its noise: masked dimensions are zero before they are cut off, and
    nothing of the absent part is asked for."""
    policy, seen = load_policy(bench.root / "untrained"), observation(3)
    whole = plan(policy, seen=seen)
    del seen["lowdim"][SEEN_GRIPPER]
    found = plan(policy, seen=seen, absent=frozenset({GRIPPER, SEEN_GRIPPER}))
    assert found.keys() == {XYZ, ROT}
    np.testing.assert_allclose(found[XYZ], whole[XYZ], atol=1e-6)


def test_a_masked_dimension_never_reaches_the_head(bench, monkeypatch):
    policy, masks = load_policy(bench.root / "vla"), []
    sample = policy.model.head.sample
    monkeypatch.setattr(
        policy.model.head,
        "sample",
        lambda seen, request: masks.append(request.action_mask) or sample(seen, request),
    )
    plan(policy)
    plan(policy, absent=frozenset({GRIPPER}))
    assert masks[0] is None
    assert masks[1].shape == (1, 8, 10)
    assert masks[1][0].all(0).tolist() == [True] * 9 + [False]


@pytest.mark.parametrize("turn", [0, 180])
def test_pictures_take_the_way_that_the_data_took(bench, tmp_path, turn):
    """The same drawing through conversion and through the policy: alike but for JPEG."""
    rows, columns = np.mgrid[:32, :32]
    drawn = np.stack([8 * rows, 8 * columns, 4 * (rows + columns)], axis=-1).astype(np.uint8)
    episode = Episode(
        id="e",
        task="t",
        hz=16,
        success=True,
        instructions={},
        lowdim={"state": np.zeros((1, 1))},
        images={"front": drawn[None]},
    )
    image = ImageConfig(size=(16, 16), jpeg_quality=100)
    rotate = {"front": turn} if turn else {}
    contract = DataContract().converted(("front",), (), image, rotate)
    settings = RobotSettings(
        contract=contract, groups=(), window=WindowConfig(), image_steps=(0,), image=image,
        layout="episode", keep_failures=False,
    )  # fmt: skip
    (stored,) = stored_episode(episode, settings).images["front"]
    camera = CameraContract(drawn=(32, 32), rotated=turn, stored=image)
    found = as_stored(drawn, camera)
    difference = np.abs(found.astype(int) - decode_image(stored).astype(int))
    assert found.shape == (16, 16, 3)
    assert difference.max() <= 3
    upside_down = np.abs(found[::-1, ::-1].astype(int) - decode_image(stored).astype(int))
    assert upside_down.max() > 50


def test_another_normaliser_is_refused(bench, tmp_path):
    shutil.copytree(bench.root / "vla", tmp_path / "policy")
    path = tmp_path / "policy" / "normalizer.json"
    document = json.loads(path.read_text())
    entry = document["fields"][GRIPPER]
    entry["centre"] = (np.asarray(entry["centre"]) + 1).tolist()
    path.write_text(json.dumps(document))
    with pytest.raises(FoundryError, match="is not the normaliser that the policy was trained"):
        load_policy(tmp_path / "policy")


def test_a_contract_that_is_not_its_policys_is_refused(bench, tmp_path):
    shutil.copytree(bench.root / "vla", tmp_path / "policy")
    path = tmp_path / "policy" / "policy.json"
    document = json.loads(path.read_text())
    lies = {
        "cameras": ({"front": {}}, r"contract.cameras \['front'\] are not those of its inputs"),
        "commands": ({}, r"contract.commands \[\] are not"),
        "hz": (None, "acts at a rate"),
    }
    for name, (value, message) in lies.items():
        changed = {**document, "contract": {**document["contract"], name: value}}
        path.write_text(json.dumps(changed))
        with pytest.raises(FoundryError, match=message):
            load_policy(tmp_path / "policy")


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


def test_batches_of_recorded_shapes_give_the_same_targets(bench):
    """Spare rows and longer padding, as CUDA graphs want them, change nothing."""
    plain, padded = (load_policy(bench.root / "vla") for _ in range(2))
    padded._how = Acceleration(graphs=True)
    seen = [(name, observation(i, f"do {i}" * (i + 1))) for i, name in enumerate("abc")]
    chunks = []
    for policy in (plain, padded):
        for i, (client, _) in enumerate(seen):
            policy.reset(client, i)
        policy.infer(seen)
        chunks.append(policy.infer(seen))
    assert len(chunks[1]) == 3
    for one, other in zip(*chunks, strict=True):
        for field, values in one.items():
            np.testing.assert_allclose(other[field], values, atol=1e-5)
