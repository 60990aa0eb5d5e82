import json

import pytest
import torch
from model_zoo import build, count_parameters, language_config, robot_batch, vla_config, vlm_config
from safetensors.torch import load_file, save_file

from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.io import load_config, load_model, save_model

CONFIGS = {
    "language": language_config(),
    "tied": language_config(tie_embeddings=True, norm="rms"),
    "vlm": vlm_config(),
    "vla": vla_config(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_round_trip(tmp_path, config):
    model = build(config)
    save_model(tmp_path, model)
    loaded, read = load_model(tmp_path)
    assert read == config == model.config == load_config(tmp_path)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in loaded.parameters())


def test_equal_weights_equal_bytes(tmp_path):
    for name in "ab":
        save_model(tmp_path / name, build_model(vla_config(), seed=3))
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_seed_decides_and_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    a, b = build_model(language_config(), seed=3), build_model(language_config(), seed=4)
    assert torch.equal(torch.rand(1), expected)
    assert (a.embedding.weight != b.embedding.weight).any()


def test_a_loaded_policy_acts_as_the_saved_one(tmp_path):
    model = build(vla_config())
    save_model(tmp_path, model)
    loaded, _ = load_model(tmp_path)
    batch = robot_batch([4, 2])
    inputs = [batch[k] for k in ("images", "tokens", "token_mask", "proprio")]
    assert torch.equal(model.act(*inputs, seeds=1, steps=0), loaded.act(*inputs, seeds=1, steps=0))


def test_averaged_weights_can_be_saved_instead(tmp_path):
    model = build(language_config())
    average = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    save_model(tmp_path, model, state=average)
    loaded, _ = load_model(tmp_path)
    assert not any(p.any() for p in loaded.parameters())
    average.popitem()
    with pytest.raises(FoundryError, match="lacks"):
        save_model(tmp_path, model, state=average)


def test_every_disagreement_is_named(tmp_path):
    save_model(tmp_path, build(language_config()))
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["extra"] = tensors.pop("norm.weight")
    tensors["head.weight"] = torch.zeros(3, 3)
    save_file(tensors, path)
    with pytest.raises(FoundryError) as error:
        load_model(tmp_path)
    for words in ("missing ['norm.weight']", "unexpected ['extra']", "head.weight: [3, 3] for"):
        assert words in error.value.message


def test_broken_directories(tmp_path):
    with pytest.raises(FoundryError, match="not a saved model"):
        load_model(tmp_path)
    save_model(tmp_path, build(language_config()))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FoundryError, match="no weights"):
        load_model(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["model"]["n_head"] = 4
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(FoundryError, match="n_head"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "foundry-model", "version": 9}')
    with pytest.raises(FoundryError, match="version 9"):
        load_model(tmp_path)
    for damaged, message in (('{"format": "fou', "is not JSON"), ("[]", "is not a mapping")):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(FoundryError, match=message):
            load_config(tmp_path)


def test_counting_allocates_nothing():
    config = language_config(dim=8192, n_layers=64, n_heads=64, ffn_dim=28672, vocab_size=128256)
    assert count_parameters(config) > 60e9
