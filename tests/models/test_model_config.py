import pytest
from model_zoo import language_config, vlm_config
from pydantic import TypeAdapter, ValidationError

from foundry_core.models.config import ModelConfig, VLAConfig
from foundry_core.models.sizes import swiglu_dim


@pytest.mark.parametrize(
    ("dim", "hidden"), [(96, 256), (512, 1536), (1024, 2816), (2048, 5632), (128, 512)]
)
def test_swiglu_formula(dim, hidden):
    assert swiglu_dim(dim) == hidden


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 30}, "not divisible by n_heads"),
        ({"n_kv_heads": 3}, "not a multiple of n_kv_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"n_layer": 3}, "n_layer"),
    ],
)
def test_impossible_shapes_are_named(changes, words):
    with pytest.raises(ValidationError, match=words):
        language_config(**changes)


def test_grid_must_fit_the_shuffle():
    with pytest.raises(ValidationError, match="4×4 patches: side 4 is not a multiple"):
        vlm_config(projector={"pixel_shuffle": 3})


def test_kinds_are_told_apart_and_survive_json():
    adapter = TypeAdapter(ModelConfig)
    config = VLAConfig(
        backbone=vlm_config(),
        head={"kind": "flow", "dim": 8, "n_layers": 1, "n_heads": 1, "times": {"kind": "beta"}},
    )
    assert adapter.validate_python(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match="kind"):
        adapter.validate_python({"kind": "mamba"})
