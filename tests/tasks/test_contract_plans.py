"""The contract in whole pipelines: what cannot work is refused while planning, what is converted is
shown."""

import re

import pytest

from flows.cli import main
from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import Pipeline, build_pipeline, load_pipeline
from foundry_core.pipeline.registry import stage_kind

POLICIES = ("vla", "vla_blind", "vla_untrained")


def loaded(*overrides: str) -> Pipeline:
    return load_pipeline("demo-fast", map(parse_override, overrides), kinds=stage_kind)


REFUSED = [
    (
        ["robot.image.size=[48,48]"],
        "stage 'vla': camera 'workspace' of the robot data reaches the vision tower at 48x48, "
        "which takes 64x64",
    ),
    (
        ["captions.image.size=[32,32]"],
        "stage 'vlm': camera 'workspace' of captions 'captions' reaches the vision tower at 32x32",
    ),
    (["vla.data.captions.image.size=[32,32]"], "stage 'vla': .*captions.* at 32x32"),
    (["vlm.model.vision.image_size=96"], "stage 'vlm': .* at 64x64, which takes 96x96"),
    (["evaluate.execute_steps=20"], "execute_steps = 20 exceeds the 8 steps that policy 'vla'"),
    (["vla.model.tap_layers=9"], "tap_layers = 9, the language model has 4 layers"),
    (
        ["evaluate.options.render.size=96"],
        "stage 'evaluate': camera 'workspace': the pictures of policy 'vla' are drawn at 64x64, "
        "those of metaworld at 96x96",
    ),
    (
        ["demos.render.supersample=1"],
        "drawn by MuJoCo, averaged over 1x1, those of metaworld by MuJoCo, averaged over 2x2",
    ),
    (
        ["evaluate.options.render.cameras=[workspace]"],
        "policy 'vla' looks through camera 'wrist'; metaworld shows workspace",
    ),
    (
        ["vlm.model.projector.pixel_shuffle=3"],
        "side 4 is not a multiple of projector.pixel_shuffle 3",
    ),
    (["vlm.model.vision.image_size=60"], "image_size 60 is not a multiple of the stem's stride 16"),
    (["vla.model.head.n_heads=7"], "vla.model.head.*dim 128 is not a multiple of n_heads 7"),
    (["llm.model.vocab_size=100"], "model.vocab_size = 100 is less than the 600 tokens of"),
    (["vla.data.robot.inputs.horizon=99"], "horizon 99 reaches .* the windows of 'robot' from"),
    (["llm.resources.num_workers=7"], "'llm': text batch of 32 does not divide among 7 workers"),
    (
        ["llm.resources={num_workers: 2, micro_batch: 3}"],
        r"'llm': text batch of 16 does not divide into 6 micro-batches \(micro_batch=3, 16 samples",
    ),
    (
        ["vla.resources={gpus: 3, num_workers: 2}"],
        "'vla': gpus = 3 among 2 workers are 1.5 for each",
    ),
    (["robot.cameras=[workspace, wirst]"], "stage 'robot': the source has no camera 'wirst'"),
    (
        [
            "robot.relative=[{reference: robot__desired__poses__right::panda, "
            "poses: [robot__action__poses__right::panda]}]"
        ],
        "is relative to 'robot__actual__poses__right::panda'; the conversion of .* takes it "
        "relative to 'robot__desired",
    ),
    (
        ["robot.still={fields: [robot__actual__poses__right::panda__xy]}"],
        "still.fields: 'robot__actual__poses__right::panda__xy' is not stored.*__xyz",
    ),
    (["vla.data.robot.inputs.depth=true"], "is converted without the depth of camera 'workspace'"),
    (
        ["robot.fields=[robot__actual__poses__right::panda__xyz]"],
        "dataset .* has no field 'robot__actual__poses__right::panda__rot_6d'",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[o[0][0] for o in REFUSED])
def test_what_cannot_work_is_refused_before_anything_runs(overrides, message):
    with pytest.raises(FoundryError, match=message) as error:
        loaded(*overrides)
    assert error.value.hint


@pytest.mark.parametrize("at", [0, 5, 12, 18])
def test_a_plan_that_is_refused_ends_with_2(at, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    overrides, message = REFUSED[at]
    changes = [word for override in overrides for word in ("-o", override)]
    assert main(["plan", "demo-fast", *changes]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "home").exists()


def test_accumulation_that_divides_is_taken():
    loaded("llm.resources={num_workers: 2, micro_batch: 4}", "vla.resources={gpus: 0.5}")
    loaded("vla.resources={gpus: 4, num_workers: 2}")


def test_the_pipelines_own_declaration_needs_no_conversion():
    assert loaded().notes == {}


def test_a_chain_of_sizes_is_carried_out_in_the_exam_too_and_shown():
    sized = [f"{name}.data.robot.inputs.image.size=[64,64]" for name in POLICIES]
    pipeline = loaded("robot.image.size=[48,48]", *sized)
    chain = "workspace, wrist: 64x64 → 48x48 (center_crop, as its data) → 64x64 (its own input)"
    exams = ("evaluate", "evaluate_blind", "evaluate_untrained")
    assert pipeline.notes == {exam: [chain] for exam in exams}


def extended(name: str, spec: dict, path: str, value: object) -> Pipeline:
    """With one more stage, and one input changed."""
    document = load_document(find_pipeline("demo-fast"))
    stages = {**document["stages"], name: spec}
    stage, _, slot = path.partition(".inputs.")
    inputs = {**stages[stage]["inputs"], slot: value}
    stages[stage] = {**stages[stage], "inputs": inputs}
    return build_pipeline({**document, "stages": stages}, kinds=stage_kind)


def test_text_of_another_tokenizer_is_refused():
    sources = [{"format": "packages", "packages": ["rich"]}]
    other = {"kind": "train_tokenizer", "recipe": {"sources": sources}}
    with pytest.raises(FoundryError, match="encoded with tokenizer 'other', the model has"):
        extended("other", other, "text.inputs.tokenizer", "other")


def test_statistics_of_other_data_are_shown():
    more = {"kind": "convert_robot", "inputs": {"demos": "demos"}}
    pipeline = extended("more", more, "stats.inputs.datasets", ["robot", "more"])
    assert pipeline.notes["vla"] == [
        "normalised with the statistics of more, robot, trained on robot"
    ]


def test_imported_demonstrations_are_known_when_they_are_read():
    """What to keep is not asked of a plan that cannot see them."""
    document = load_document(find_pipeline("demo-fast"))
    digest = "sha256:" + "0" * 64
    given = {"import": {"path": "/somewhere", "kind": "collect_demos", "digest": digest}}
    stages = {**document["stages"], "demos": given}
    pipeline = build_pipeline({**document, "stages": stages}, kinds=stage_kind)
    assert pipeline.stages["robot"].recipe.cameras is None


def test_evaluations_and_controls_that_meet_other_scenarios_are_shown():
    pipeline = loaded("evaluate.episodes_per_task=3")
    assert pipeline.notes["compare"] == [
        f"{label} is evaluated with episodes_per_task = 2, policy with 3"
        for label in ("blind", "untrained", "still")
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["evaluate.design={looks: 2}"],
            r"policy is registered with \{.*\} over 2 rounds, blind with no design",
        ),
        (
            [f"{one}.design={{alpha: 0.01}}" for one in ("evaluate", "evaluate_blind")]
            + ["evaluate_untrained.design={alpha: 0.01}"],
            "stage 'compare': alpha 0.05 of the table, 0.01 of the design",
        ),
    ],
)
def test_what_a_comparison_would_refuse_is_refused_before_training(overrides, message):
    with pytest.raises(FoundryError, match=message):
        loaded(*overrides)


def test_the_simulators_data_say_what_still_means():
    """Poses in metres and rot6d, grippers with their ends: no tolerance need be given."""
    loaded("robot.still={}", "robot.split={fraction: 0.2, group: '^episodes/[^/]+'}")


def test_a_plan_says_what_adapters_freeze_before_it_has_learnt():
    fresh = "start from random weights: name modules to be trained in full in lora.whole"
    notes = loaded("vlm.lora={rank: 4}", "llm.lora={rank: 4}").notes
    assert notes["vlm"] == [f"lora freezes vision and projector, which {fresh}"]
    assert notes["llm"] == [f"lora freezes the model, which {fresh}"]
    assert "vlm" not in loaded("vlm.lora={whole: [vision, projector]}").notes
