"""What `foundry stages` lists can be set, and nothing else can."""

import pytest

from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.config.overrides import apply_overrides, parse_override
from foundry_core.config.parsing import parse_yaml
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.recipe_help import settings_of
from foundry_core.pipeline.registry import stage_kind, stage_kinds
from foundry_core.pipeline.stage import Config


def listed(kind):
    return {s.path: s for s in settings_of(stage_kind(kind).Recipe)}


def test_every_kind_is_described():
    assert {"convert_robot", "train_vla", "evaluate"} <= set(stage_kinds())
    for kind in stage_kinds():
        assert all(s.type for s in listed(kind).values())


def test_types_bounds_defaults_and_descriptions_are_the_fields():
    text, vla = listed("convert_text"), listed("train_vla")
    assert text["context"].type == "int (≥ 1)"
    assert text["context"].default == "256"
    assert text["source"].type.startswith("arrow | jsonl | packages | parquet")
    assert text["source"].default == ""
    assert "rows hold" in text["context"].description
    assert vla["training.schedule.decay_fraction"].type == "float (> 0, ≤ 1)"
    assert vla["images"].default == "true"
    assert "model.head[flow].steps" in vla


@pytest.mark.parametrize("name", ["text", "llm", "vla", "evaluate"])
def test_a_demo_stage_takes_them_by_these_paths(name):
    """Plain numbers, set to their defaults; those of parts that the demo leaves out aside."""
    demo = load_document(find_pipeline("demo"))
    stage = stage_kind(demo["stages"][name]["kind"])
    overrides = [
        (f"{name}.{path}", parse_yaml(setting.default, path))
        for path, setting in listed(stage.kind).items()
        if "." not in path or path.startswith("training.schedule.")
        if setting.type.startswith(("int (", "float (")) and setting.default
    ]
    assert overrides
    recipe = apply_overrides(demo, overrides)["stages"][name]["recipe"]
    validate(stage.Recipe, recipe, name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("llm.training.steps=true", "steps = True is not a number"),
        ("llm.training.optimizer.lr=yes", "lr = True is not a number"),
        ("vla.model.head.kind=regression", r"head\.dim' is required"),
    ],
)
def test_what_is_no_number_or_another_thing_is_told(override, message):
    with pytest.raises(FoundryError, match=message):
        load_pipeline("demo", [parse_override(override)], kinds=stage_kind)


def test_a_mapping_of_another_kind_and_an_import_start_anew(tmp_path):
    digest = "sha256:" + "0" * 64
    (tmp_path / "own.yaml").write_text(
        "include: pipelines/demo\n"
        "stages:\n"
        "  text: {recipe: {source: {format: jsonl, path: /data/a.jsonl}}}\n"
        f"  llm: {{import: {{path: /models/llm, kind: train_llm, digest: '{digest}'}}}}\n"
    )
    pipeline = load_pipeline(tmp_path / "own.yaml", kinds=stage_kind)
    assert pipeline.stages["text"].recipe.source.path == "/data/a.jsonl"
    assert pipeline.stages["llm"].recipe.content == "0" * 64
    value = f"{{path: /models/llm, kind: train_llm, digest: '{digest}'}}"
    again = load_pipeline("demo", [parse_override(f"llm.import={value}")], kinds=stage_kind)
    assert again.stages["llm"].recipe == pipeline.stages["llm"].recipe


def test_a_document_that_is_no_text_is_named_with_its_line(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"name: p\nstages: {a: {kind: \xe9}}\n")
    with pytest.raises(FoundryError, match=r"p\.yaml, line 2: not UTF-8"):
        load_pipeline(tmp_path / "p.yaml", kinds=stage_kind)


class Nested(Config):
    depth: int = 1
    inner: "Nested | None" = None


def test_a_config_within_itself_is_described_once():
    assert [setting.path for setting in settings_of(Nested)] == ["depth", "inner"]
