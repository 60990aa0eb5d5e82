import pytest
from model_zoo import vlm_config
from pydantic import ValidationError

from foundry_core.config.canonical import canonical
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from foundry_core.models.config import (
    HFLanguageConfig,
    HFVisionConfig,
    HFVLMConfig,
    VLAConfig,
    weight_sources,
)
from foundry_core.models.presets import load_preset

COMMIT = "0123456789abcdef" * 2 + "01234567"
TOWER = {"kind": "hf", "image_size": 32, "patch_size": 8, "width": 16}
HEAD = {"kind": "regression", "dim": 8, "n_layers": 1, "n_heads": 1}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))


def folder(place, text="weights"):
    place.mkdir()
    (place / "model.safetensors").write_text(text)
    return str(place)


def test_every_folder_is_found_at_its_place(tmp_path):
    language, tower = folder(tmp_path / "language"), folder(tmp_path / "tower", "others")
    backbone = vlm_config(
        language={"kind": "hf_causal_lm", "path": language}, vision={**TOWER, "path": tower}
    )
    assert weight_sources(VLAConfig(backbone=backbone, head=HEAD)) == {
        "model.backbone.language": fingerprint(language),
        "model.backbone.vision": fingerprint(tower),
    }
    whole = VLAConfig(backbone=HFVLMConfig(image_size=32, path=tower), head=HEAD)
    assert weight_sources(whole) == {"model.backbone": fingerprint(tower)}
    assert weight_sources(VLAConfig(head=HEAD)) == weight_sources(vlm_config()) == {}


@pytest.mark.parametrize("place", ["/weights", "./weights", "../weights", "~/weights"])
def test_a_source_that_reads_as_a_path_is_one_and_stays_out_of_the_identity(place):
    found = HFLanguageConfig(source=place)
    assert found == HFLanguageConfig(path=place)
    assert canonical(found) == canonical(HFLanguageConfig(path="/elsewhere"))
    assert HFLanguageConfig.model_validate(found.model_dump(mode="json")) == found


def test_hub_name_and_commit_are_the_identity_as_they_were():
    one = HFLanguageConfig(source="some/model", revision=COMMIT)
    assert weight_sources(one) == {}
    assert canonical(one) == {
        "kind": "hf_causal_lm",
        "source": "some/model",
        "revision": COMMIT,
        "config": None,
        "origin": None,
        "vocab_size": None,
    }


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12], COMMIT.upper(), COMMIT + "0"])
def test_a_hub_name_without_a_commit_is_refused(revision):
    tower = HFVisionConfig(**TOWER, source="some/tower", revision=revision)
    with pytest.raises(FoundryError, match=r"model\.vision\.source = 'some/tower'") as error:
        weight_sources(vlm_config(vision=tower))
    assert f"revision {revision or 'null'}, which may mean other weights" in error.value.message
    assert "set model.vision.revision to the commit" in error.value.hint


def test_the_published_preset_loads_and_asks_for_a_commit():
    preset = load_preset("qwen3_vla")
    with pytest.raises(FoundryError, match="Qwen/Qwen3-VL-2B-Instruct"):
        weight_sources(preset)


def test_a_hub_name_that_is_a_folder_here_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "tower")
    with pytest.raises(FoundryError, match="a folder here"):
        weight_sources(HFLanguageConfig(source="tower", revision=COMMIT))
    (relative,) = weight_sources(HFLanguageConfig(path="tower")).values()
    assert relative == fingerprint(tmp_path / "tower")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FoundryError, match="gone' does not exist"):
        weight_sources(HFLanguageConfig(path=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "either source"),
        ({"source": "a", "path": "/a"}, "either source"),
        ({"source": "/a", "path": "/b"}, "either source"),
        ({"source": "a", "config": {"model_type": "llama"}}, "either source"),
        ({"path": "/a", "revision": COMMIT}, "revision belongs to a hub name"),
        ({"source": "s3://bucket/weights"}, "download these first"),
        ({"path": "s3://bucket/weights"}, "download these first"),
    ],
)
def test_contradictions_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        HFLanguageConfig(**given)
