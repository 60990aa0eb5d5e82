"""What must not re-run anything, and what must, beyond values of a recipe."""

import copy

import pytest

from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.errors import FoundryError
from foundry_core.pipeline import registry
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.spec import identify

DEMO = load_document(find_pipeline("demo"))


def keys(document, kinds=registry.stage_kind):
    return {
        name: spec.key for name, spec in identify(build_pipeline(document, kinds=kinds)).items()
    }


def test_what_a_stage_is_called_where_one_alone_can_stand():
    stages = copy.deepcopy(DEMO["stages"])
    stages["language"] = stages.pop("llm")
    for stage in stages.values():
        inputs = stage.get("inputs", {})
        inputs.update({slot: "language" for slot, name in inputs.items() if name == "llm"})
    assert sorted(keys(DEMO | {"stages": stages}).values()) == sorted(keys(DEMO).values())


def test_another_seed_converts_nothing_again():
    before, after = keys(DEMO), keys(DEMO | {"seed": 7})
    moved = {name for name in before if before[name] != after[name]}
    assert {"demos", "scenes", "llm", "vlm", "vla", "evaluate"} <= moved
    assert not {"tokenizer", "text"} & moved
    stages = copy.deepcopy(DEMO["stages"])
    stages["tokenizer"]["seed"] = 1
    with pytest.raises(FoundryError, match=r"tokenizer\.seed: kind 'train_tokenizer' draws no"):
        keys(DEMO | {"stages": stages})


KIND = """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage

class Work(Stage):
    kind = "{kind}"
    code = "1"
    output = ArtifactType.TEXT
    Recipe = Recipe

    @staticmethod
    def run(ctx):
        return {{}}

STAGE = Work
"""


@pytest.fixture
def labs(tmp_path, monkeypatch):
    """Makes lab packages of {package: {file: kind}} known as stage kinds."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)

    def make(packages):
        for package, files in packages.items():
            (tmp_path / package).mkdir(exist_ok=True)
            for file, kind in files.items():
                (tmp_path / package / f"{file}.py").write_text(KIND.format(kind=kind))
        monkeypatch.setenv("FOUNDRY_KINDS", ",".join(packages))

    return make


def test_two_labs_may_count_their_versions_alike(labs):
    document = {"stages": {"a": {"kind": "same_kind"}}}
    labs({"one_lab": {"same_kind": "same_kind"}})
    first = keys(document)
    labs({"other_lab": {"same_kind": "same_kind"}})
    assert keys(document) != first


def test_a_kind_is_called_as_its_file_and_once(labs):
    labs({"copying_lab": {"mine": "copied"}})
    with pytest.raises(FoundryError, match=r"copying_lab\.mine defines kind 'copied'"):
        registry.stage_kind("mine")
    labs({"shadow_lab": {"train_llm": "train_llm"}})
    with pytest.raises(FoundryError, match=r"shadow_lab\.train_llm and tasks\.train_llm are both"):
        registry.stage_kind("train_llm")
