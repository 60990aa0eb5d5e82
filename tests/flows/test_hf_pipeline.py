"""The whole pipeline over checkpoints of transformers: imported, trained on captions, bent into a
policy, examined in closed loop, loaded and driven."""

import json
from pathlib import Path

import numpy as np
import pytest

import flows
from foundry_core.evaluation.facts import read_facts
from foundry_core.serving.policy import load_policy
from tests.hf_checkpoints import make_vlm

PIPELINE = Path(__file__).parents[1] / "pipelines" / "hf.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One for all models: they share demonstrations and captions."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDRY_HOME", str(home))
        patch.delenv("FOUNDRY_STORE", raising=False)
        patch.delenv("PREFECT_API_URL", raising=False)
        yield home


@pytest.mark.slow("a whole pipeline of real stages")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm", "paligemma", "gemma3"])
def test_from_a_checkpoint_to_a_verdict(home, tmp_path, family):
    checkpoint = make_vlm(tmp_path / family, family)
    result = flows.run(str(PIPELINE), {"base.path": str(checkpoint)}, quiet=True)
    assert result["status"] == "succeeded", result
    made = {row["name"]: home / "store" / row["kind"] / row["key"] for row in result["stages"]}
    for stage, loss in (("vlm", "captions_loss"), ("vla", "robot_loss")):
        rows = (made[stage] / "records" / "metrics.jsonl").read_text().splitlines()
        values = [json.loads(row)[loss] for row in rows]
        assert values[-1] < 0.95 * values[0], (stage, values)
    assert read_facts(made["evaluate"]).benchmark == "metaworld"
    assert result["metrics"]["evaluate.n"] == 1
    policy = load_policy(made["vla"])
    policy.reset("a", 0)
    (targets,) = policy.infer([("a", seen(policy))])
    assert all(np.isfinite(values).all() for values in targets.values())
    assert policy.model.backbone.model.config.model_type == family


def seen(policy) -> dict:
    lowdim = {name: np.zeros(3) for name in policy.transform.measured_fields}
    for name in lowdim:
        if name.endswith("rot_6d"):
            lowdim[name] = np.array([1.0, 0, 0, 0, 1, 0])
        elif "grippers" in name:
            lowdim[name] = np.zeros(1)
    images = {camera: np.full((64, 64, 3), 90, np.uint8) for camera in policy.cameras}
    return {"images": images, "lowdim": lowdim, "instruction": "open the drawer"}
