"""What happens in two steps of three hundred is learnt: recorded, converted, trained, served."""

import json
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.data.images import encode_jpeg
from foundry_core.data.robot.poses import encode_rot6d
from foundry_core.data.shards.tar import TarWriter
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.parallel import ray_session
from foundry_core.simulation.config import COMMANDED, MEASURED
from tasks.convert_robot import ConvertRobot
from tasks.merge_stats import MergeStats
from tasks.train_vla import TrainVla
from tests.synthetic import ARM, GRIPPER, npz
from tests.tasks.training_stages import LANGUAGE, VLM, run_stage

EPISODES, LENGTH, TURN = 6, 100, 0.3
CLOSED = {(0, 30), (2, 71), (3, 12), (5, 50)}  # 2 of 300 steps
TURNED = {(1, 40), (2, 5), (4, 88)}  # half a percent


def picture(closed: bool, turned: bool, rng: np.random.Generator) -> np.ndarray:
    """Grey with noise; what is about to happen shows as a bright half."""
    image = rng.integers(90, 110, size=(16, 16, 3), dtype=np.uint8)
    if closed:
        image[:, :8] = 240
    if turned:
        image[8:] = 240
    return image


def rotation(angle: float) -> np.ndarray:
    """rot6d of a turn about z."""
    c, s = np.cos(angle), np.sin(angle)
    return encode_rot6d(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]))


def recorded(folder: Path) -> Path:
    """Demonstrations as the simulator stages record them: the hand rests, but for those steps."""
    rng = np.random.default_rng(0)
    (folder / "episodes" / "t").mkdir(parents=True)
    for number in range(EPISODES):
        steps = [(number, step) for step in range(LENGTH)]
        fields = {
            f"{ARM.format('actual')}__xyz": rng.normal(0, 0.01, size=(LENGTH, 3)),
            f"{ARM.format('actual')}__rot_6d": np.tile(rotation(0), (LENGTH, 1)),
            GRIPPER.format("actual"): np.full((LENGTH, 1), 0.1),
            f"{ARM.format('action')}__rot_6d": np.stack(
                [rotation(TURN if step in TURNED else 0) for step in steps]
            ),
            GRIPPER.format("action"): np.array([[0.0 if s in CLOSED else 0.1] for s in steps]),
        }
        fields[f"{ARM.format('action')}__xyz"] = fields[f"{ARM.format('actual')}__xyz"]
        meta = {"id": f"e{number}", "task": "t", "hz": 16.0, "success": True}
        meta["instructions"] = {"original": ["do it"]}
        members = {"meta.json": json.dumps(meta).encode(), "lowdim.npz": npz(fields)}
        for step in range(LENGTH):
            shown = picture((number, step) in CLOSED, (number, step) in TURNED, rng)
            members[f"top/{step:06d}.jpg"] = encode_jpeg(shown, 95)
        with (folder / "episodes" / "t" / f"e{number}.tar").open("wb") as stream:
            writer = TarWriter(stream)
            for name in sorted(members):
                writer.add(name, members[name])
            writer.finish()
    contract = DataContract(
        hz=16.0, cameras={"top": CameraContract(drawn=(16, 16))}, fields={**MEASURED, **COMMANDED}
    )
    document = {"contract": contract.model_dump(mode="json")}
    (folder / "demos.json").write_text(json.dumps(document))
    return folder


def trained(root: Path) -> Path:
    """A tiny policy that predicts one step, after convert_robot and merge_stats."""
    shards, scratch = root / "shards", root / "scratch"
    source = {"format": "demonstrations", "path": str(recorded(root / "demos"))}
    window = {"future": 0, "max_padding_right": 0}
    with ray_session(1):
        run_stage(ConvertRobot, shards, scratch, {"source": source, "window": window}, {})
    run_stage(MergeStats, root / "stats", scratch, {}, {"datasets": {"robot": shards}})
    Tokenizer.train(["some text"], 258).save(root / "tokenizer")
    inputs = {
        "cameras": ["top"],
        "horizon": 1,
        "proprio_fields": [GRIPPER.format("actual")],
        "action_fields": [
            f"{ARM.format('action')}__xyz_relative",
            f"{ARM.format('action')}__rot_6d_relative",
            GRIPPER.format("action"),
        ],
    }
    recipe = {
        "model": {
            "backbone": {"kind": "vlm", **VLM, "language": {"kind": "transformer", **LANGUAGE}},
            "head": {"kind": "regression", "dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64},
        },
        "data": {"robot": {"batch_size": 64, "inputs": inputs}},
        "training": {
            "steps": 400,
            "optimizer": {"lr": 3e-3},
            "schedule": {"warmup": 20},
        },
        "execute_steps": 1,
    }
    places = {"robot": shards, "stats": root / "stats", "tokenizer": root / "tokenizer"}
    inputs_ = {slot: {slot: place} for slot, place in places.items()}
    run_stage(TrainVla, root / "policy", root / "train", recipe, inputs_)
    return root / "policy"


@pytest.mark.slow("trains until it has learnt")
def test_a_policy_closes_and_turns_where_the_demonstrations_do(tmp_path: Path) -> None:
    from foundry_core.serving.policy import load_policy

    policy = load_policy(trained(tmp_path))
    rng = np.random.default_rng(7)
    policy.reset("a", 0)
    state = {
        f"{ARM.format('actual')}__xyz": np.zeros(3),
        f"{ARM.format('actual')}__rot_6d": rotation(0),
        GRIPPER.format("actual"): np.array([0.1]),
    }

    def said(closed: bool, turned: bool) -> tuple[float, float]:
        """(gripper in metres, turn in radians) for a picture that was never seen."""
        images = {"top": picture(closed, turned, rng)}
        seen = {"images": images, "lowdim": state, "instruction": "do it"}
        (answer,) = policy.infer([("a", seen)])
        rows = answer[f"{ARM.format('action')}__rot_6d"][0]
        return float(answer[GRIPPER.format("action")][0, 0]), float(np.arctan2(rows[3], rows[0]))

    for _ in range(5):
        assert said(False, False) == (pytest.approx(0.1, abs=0.01), pytest.approx(0, abs=0.03))
        assert said(True, False)[0] == pytest.approx(0.0, abs=0.01)
        assert said(False, True)[1] == pytest.approx(TURN, abs=0.03)
