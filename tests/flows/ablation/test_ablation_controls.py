"""An ablation's verdict is given the controls that met the scenarios of what it compares."""

import pytest

from flows.ablation.plan import plan_ablation
from flows.ablation.table import plan_notes
from flows.ablation.variants import AblationRequest, parse_vary
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError

pytestmark = pytest.mark.usefixtures("known_code")


@pytest.mark.parametrize(
    ("overrides", "controls"),
    [
        ((), {"still": "base:evaluate_still"}),
        (("evaluate.first_scenario=7",), None),
        (("evaluate.options.success=final",), None),
    ],
)
def test_controls_on_the_same_scenarios_are_connected_once(
    tmp_path, monkeypatch, overrides, controls
):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    request = AblationRequest(
        pipeline="demo-fast",
        overrides=tuple(map(parse_override, overrides)),
        vary=(parse_vary("vla.training.steps=1,2"),),
    )
    ablation = plan_ablation(request)
    stages = ablation.merged.pipeline.stages
    assert stages["verdict"].inputs.get("controls") == controls
    played = [name for name, node in stages.items() if node.kind == "evaluate_control"]
    assert played == (["base:evaluate_still"] if controls else [])
    left_out = "control evaluate_still plays other scenarios than evaluate, and is left out"
    assert (left_out in plan_notes(ablation)) == (controls is None)


def test_a_race_has_the_controls_of_the_whole_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    vary = (parse_vary("vla.training.steps=1,2"),)
    ablation = plan_ablation(AblationRequest(pipeline="demo-fast", vary=vary, looks=2))
    stages = ablation.merged.pipeline.stages
    assert stages["verdict"].inputs["controls"] == {"still": "base:evaluate_still"}
    parts = [stages[f"base:evaluate.{number}"].recipe for number in (1, 2)]
    whole = sum(part.episodes_per_task for part in parts)
    assert stages["base:evaluate_still"].recipe.episodes_per_task == whole


def test_variants_whose_episodes_count_differently_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    vary = (parse_vary("evaluate.options.success=final"),)
    with pytest.raises(FoundryError, match="success = final, not ever as base demands"):
        plan_ablation(AblationRequest(pipeline="demo-fast", vary=vary))


@pytest.mark.parametrize(
    ("vary", "exams"),
    [
        ("vla.training.steps=1,2", ["base:exam_llm", "base:exam_vlm"]),
        (
            "vlm.training.steps=0",
            ["base:exam_llm", "base:exam_vlm", "steps=0:exam_vlm"],
        ),
    ],
)
def test_exams_of_the_models_that_policies_are_made_from_belong_to_it(
    tmp_path, monkeypatch, vary, exams
):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    ablation = plan_ablation(AblationRequest(pipeline="demo-fast", vary=(parse_vary(vary),)))
    stages = ablation.merged.pipeline.stages
    assert stages["verdict"].inputs["quality"] == {name: name for name in exams}
    for seed_run in ablation.seed_runs:
        assert {"exam_llm", "exam_vlm"} <= seed_run.names.keys()
