"""The stages that use the simulator: files as promised, equal for any number of workers."""

import json
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from training_stages import run_stage

from foundry_core.data.contract.statements import PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import Benchmark
from foundry_core.evaluation.benchmarks.metaworld import MetaWorld
from foundry_core.evaluation.facts import read_facts
from foundry_core.simulation import catalog, config
from tasks.collect_demos import CollectDemos, CollectDemosRecipe
from tasks.collect_scenes import CollectScenes, CollectScenesRecipe
from tasks.evaluate import Evaluate, EvaluateRecipe
from tasks.evaluate_control import EvaluateControl, EvaluateControlRecipe

RENDER = {"size": 32, "supersample": 1}
TASKS = ["door-unlock-v3", "drawer-open-v3"]


def run(kind, root: Path, recipe: dict, *, cpus=1, seed=0, inputs=None, **resources):
    calls = []
    metrics = run_stage(
        kind,
        root / "out",
        root / "scratch",
        recipe,
        inputs or {},
        seed=seed,
        resources={"cpus": cpus, **resources},
        progress=lambda done, total, message="", **values: calls.append((done, total)),
    )
    assert calls[-1][0] == calls[-1][1] == len(calls)
    return root / "out", metrics


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


DEMOS = {"tasks": TASKS, "episodes_per_task": 2, "render": RENDER}
SCENES = {"tasks": TASKS, "frames_per_task": 5, "render": RENDER}


def test_collect_demos_writes_the_agreed_folder(tmp_path):
    out, metrics = run(CollectDemos, tmp_path, DEMOS)
    document = json.loads((out / "demos.json").read_text())
    assert document["format"] == "foundry-demonstrations"
    assert document["contract"]["hz"] == 16.0
    assert document["contract"]["cameras"]["wrist"]["drawn"] == [32, 32]
    steps = sum(task["steps"] for task in document["tasks"].values())
    assert metrics["demonstrations"] == len(list(out.glob("episodes/*/*.tar"))) == 4
    assert metrics["steps"] == steps
    assert len((out / "records" / "demonstrations.jsonl").read_text().splitlines()) == 4


def test_collect_scenes_writes_one_line_per_frame(tmp_path):
    out, metrics = run(CollectScenes, tmp_path, SCENES)
    lines = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    assert metrics == {"scenes": 10, "images": 20}
    assert [line["task"] for line in lines] == [TASKS[0]] * 5 + [TASKS[1]] * 5
    assert all((out / image).is_file() for line in lines for image in line["image"])
    assert all(line["caption"].startswith(line["instruction"] + ". ") for line in lines)


def test_another_seed_gives_other_demonstrations(tmp_path):
    recipe = DEMOS | {"tasks": TASKS[:1], "episodes_per_task": 1}
    one, _ = run(CollectDemos, tmp_path / "a", recipe, seed=0)
    other, _ = run(CollectDemos, tmp_path / "b", recipe, seed=1)
    assert not set(tree_bytes(one / "episodes")) & set(tree_bytes(other / "episodes"))


@pytest.mark.slow("records and renders twice, in processes")
@pytest.mark.parametrize(("kind", "recipe"), [(CollectDemos, DEMOS), (CollectScenes, SCENES)])
def test_bytes_do_not_depend_on_the_number_of_workers(kind, recipe, tmp_path):
    one, _ = run(kind, tmp_path / "a", recipe)
    two, _ = run(kind, tmp_path / "b", recipe, cpus=2)
    assert tree_bytes(one) == tree_bytes(two)


class Opener:
    """A scripted stand-in for a trained policy: pulls whatever the hand is over towards -y."""

    execute_steps, cameras, hz = 3, ("workspace",), catalog.CONTROL_HZ
    contract = PolicyContract(
        hz=hz, cameras={}, observes={}, commands=config.COMMANDED, ahead=4, execute_steps=3
    )

    def __init__(self, path, device, blank_images):
        self.loaded = (path, device, blank_images)

    def reset(self, client, seed):
        pass

    def infer(self, requests, absent):
        assert not absent
        answers = []
        for _, observation in requests:
            here = observation["lowdim"][catalog.XYZ]
            path = here + np.outer(np.arange(1, 5), [0.0, -0.05, 0.0])
            answers.append({catalog.ACTION_XYZ: path, catalog.ACTION_GRIPPER: np.zeros((4, 1))})
        return answers


def test_evaluate_writes_results_pictures_and_metrics(tmp_path, monkeypatch):
    loaded = []

    def load_policy(path, device="cpu", blank_images=False, how=None):
        assert not how.compiled
        loaded.append((path, device, blank_images))
        return Opener(path, device, blank_images)

    stand_in = types.SimpleNamespace(load_policy=load_policy)
    monkeypatch.setitem(sys.modules, "foundry_core.serving.policy", stand_in)
    policy = {"policy": {"policy": tmp_path / "policy"}}
    recipe = {
        "tasks": TASKS,
        "episodes_per_task": 2,
        "record_per_task": 1,
        "blank_images": True,
        "options": {"render": RENDER},
    }
    out, metrics = run(Evaluate, tmp_path / "run", recipe, inputs=policy, env_workers=2)
    assert loaded == [(tmp_path / "policy", "cpu", True)]
    assert metrics["n"] == 4
    assert metrics["crashed"] == 0
    assert metrics["success_rate"] == metrics["successes"] / 4
    document = json.loads((out / "evaluation.json").read_text())
    facts = read_facts(out)
    assert facts.to_json().items() <= document.items()
    # By content: an equal policy under another key makes an equal evaluation.
    assert facts.policy == "policy"
    assert (facts.benchmark, facts.success, facts.hz) == ("metaworld", "ever", 16.0)
    assert facts.options["render"]["size"] == RENDER["size"]
    assert facts.packages == {name: version(name) for name in ("metaworld", "mujoco")}
    assert set(facts.max_steps) == set(TASKS)
    assert (facts.first_scenario, facts.episodes_per_task, document["budget"]) == (0, 2, 2)
    assert (facts.seed, facts.execute_steps, facts.blank_images) == (0, 3, True)
    assert (document["crashes"], facts.imported) == ({}, None)
    assert set(document["tasks"]) == set(TASKS)
    assert len(list(out.glob("results/DrawerOpenV3/rollouts/*/results.json"))) == 1
    assert len(list(out.glob("frames/*/000000_*.png"))) == 2
    assert len((out / "records" / "episodes.jsonl").read_text().splitlines()) == 4
    measured = (out / "records" / "measures.jsonl").read_text().splitlines()
    assert [json.loads(row)["name"] for row in measured] == ["chunk_ms", "chunk_cpu_ms"]


def test_a_control_is_played_without_a_policy_a_seed_or_a_picture(tmp_path):
    recipe = {"tasks": TASKS[:1], "episodes_per_task": 2, "options": {"success": {"held": 4}}}
    out, metrics = run(EvaluateControl, tmp_path, recipe)
    assert (metrics["n"], metrics["successes"]) == (2, 0)
    document = json.loads((out / "evaluation.json").read_text())
    assert (document["control"], document["success"]) == ("still", {"held": 4})
    assert document["criterion"] == "success held for 4 steps within 100 steps"
    assert not {"policy", "seed"} & set(document)
    assert not (out / "frames").exists()
    assert (EvaluateControl.seeded, dict(EvaluateControl.inputs)) == (False, {})
    assert EvaluateControl.sources(EvaluateControlRecipe()) == Evaluate.sources(EvaluateRecipe())


def test_a_benchmark_without_a_way_to_stay_still_has_no_control(monkeypatch):
    EvaluateControl.check(EvaluateControlRecipe(), {})
    monkeypatch.setattr(MetaWorld, "still", Benchmark.still)
    with pytest.raises(FoundryError, match="does not say what keeps its robot where it is"):
        EvaluateControl.check(EvaluateControlRecipe(), {})


def test_evaluate_refuses_before_anything_runs():
    with pytest.raises(FoundryError, match="did you mean 'drawer-open-v3'"):
        Evaluate.check(EvaluateRecipe(tasks=("drawer-opn-v3",)), {})
    with pytest.raises(FoundryError, match="belong to collected"):
        Evaluate.check(EvaluateRecipe(first_scenario=1 << 20), {})
    with pytest.raises(FoundryError, match="cameras"):
        Evaluate.check(EvaluateRecipe(options={"render": {"cameras": ["eye"]}}), {})
    with pytest.raises(ValidationError, match="exceeds the budget 10"):
        EvaluateRecipe(episodes_per_task=11, budget=10)


def test_identity_covers_simulator_and_benchmark_code():
    sources = Evaluate.sources(EvaluateRecipe())
    assert set(sources) == {"benchmark:metaworld", "metaworld", "mujoco"}
    assert set(CollectDemos.sources(CollectDemosRecipe())) == {"metaworld", "mujoco"}
    assert set(CollectScenes.sources(CollectScenesRecipe())) == {"metaworld", "mujoco"}
