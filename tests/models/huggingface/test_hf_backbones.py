import pytest
import torch
from model_zoo import VOCABULARY, awake, build, plain_tokens, robot_batch, vla_config, vlm_config
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig, HFVisionConfig, ProjectorConfig
from foundry_core.models.huggingface.language import HFLanguage
from foundry_core.models.interfaces import Tap
from foundry_core.models.io import load_model, save_model
from foundry_core.models.layers import Visibility
from foundry_core.models.vlm import check_same_architecture

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
LANGUAGE = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "final_logit_softcapping": 2.0, "sliding_window": 64},
}


def language(name: str) -> HFLanguageConfig:
    return HFLanguageConfig(config={**SMALL, **LANGUAGE[name]})


@pytest.mark.parametrize("name", LANGUAGE)
def test_logits_are_transformers_own(name):
    model = awake(HFLanguage(language(name))).eval()
    tokens = plain_tokens(2, 9)
    torch.testing.assert_close(model(tokens), model.model(tokens).logits, atol=1e-5, rtol=0)
    hidden = model.hidden(model.embed(tokens)).flatten(0, 1)
    loss, _, rows = model.next_token_sums(hidden, tokens.flatten())
    expected = torch.nn.functional.cross_entropy(
        model.logits(hidden), tokens.flatten(), reduction="sum"
    )
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(rows.sum(), loss)


@pytest.mark.parametrize("name", LANGUAGE)
def test_packed_documents_equal_separate_ones(name):
    model = awake(HFLanguage(language(name))).eval()
    first, second = plain_tokens(1, 4, seed=1), plain_tokens(1, 6, seed=2)
    visible = Visibility(segments=torch.tensor([[0] * 4 + [1] * 6]))
    packed = model(torch.cat((first, second), dim=1), visible)
    separate = torch.cat((model(first), model(second)), dim=1)
    torch.testing.assert_close(packed, separate, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", LANGUAGE)
def test_tap_norms_every_layer_alike(name):
    model = awake(HFLanguage(language(name))).eval()
    tokens, positions = plain_tokens(2, 7), torch.tensor([3, 6])
    embeddings = model.embed(tokens)
    raw = model.tap(embeddings, Tap(positions=positions, layers=3, norm="none")).view(2, 3, 32)
    normed = model.tap(embeddings, Tap(positions=positions, layers=3, norm="final")).view(2, 3, 32)
    torch.testing.assert_close(normed, model.model.model.norm(raw))
    states = model.model(tokens, output_hidden_states=True).hidden_states
    rows = torch.arange(2)
    for index, layer in enumerate((-3, -2)):  # transformers leaves these raw
        torch.testing.assert_close(raw[:, index], states[layer][rows, positions])
    torch.testing.assert_close(normed[:, 2], states[-1][rows, positions])


def test_growing_the_vocabulary():
    for name in ("llama", "qwen3"):
        model = awake(HFLanguage(language(name))).eval()
        tokens = plain_tokens(1, 4)
        table, before = model.embed(torch.arange(VOCABULARY)).clone(), model(tokens)
        model.resize_vocabulary(VOCABULARY + 2, VOCABULARY)
        assert model.vocab_size == model.config.vocab_size == VOCABULARY + 2
        torch.testing.assert_close(model.embed(torch.tensor(VOCABULARY + 1)), table.mean(0))
        torch.testing.assert_close(model(tokens)[..., :VOCABULARY], before)


VISION = {
    "siglip": {"model_type": "siglip_vision_model"},
    "clip": {"model_type": "clip_vision_model"},
    "dinov2": {"model_type": "dinov2", "mlp_ratio": 2},
}


@pytest.mark.parametrize("name", VISION)
def test_policy_on_transformers_parts(tmp_path, name):
    vision = HFVisionConfig(
        image_size=32,
        patch_size=8,
        width=16,
        config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            **VISION[name],
        },
    )
    backbone = vlm_config(
        language=language("llama"), vision=vision, projector=ProjectorConfig(pixel_shuffle=2)
    )
    model = build(vla_config(backbone=backbone)).eval()
    batch = robot_batch([5, 2])
    together = model.condition(batch["images"], batch["tokens"], batch["token_mask"])
    alone = model.condition(batch["images"][1:], batch["tokens"][1:, :11])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    save_model(tmp_path, model)
    loaded, config = load_model(tmp_path)
    assert config.backbone.language.source is None
    again = loaded.eval().condition(batch["images"], batch["tokens"], batch["token_mask"])
    torch.testing.assert_close(again, together)


def test_pretrained_directories(tmp_path):
    settings = AutoConfig.for_model(**SMALL, **LANGUAGE["llama"])
    theirs = AutoModelForCausalLM.from_config(settings)
    theirs.save_pretrained(tmp_path / "llama")
    model = HFLanguage(HFLanguageConfig(source=str(tmp_path / "llama")))
    tokens = plain_tokens(1, 5)
    torch.testing.assert_close(model(tokens), theirs.eval()(tokens).logits)
    assert str(tmp_path) not in model.config.model_dump_json()
    save_model(tmp_path / "saved", model)
    (tmp_path / "llama" / "model.safetensors").unlink()
    loaded, _ = load_model(tmp_path / "saved")
    torch.testing.assert_close(loaded(tokens), model(tokens))
    with pytest.raises(FoundryError, match="cannot be loaded"):
        HFLanguage(HFLanguageConfig(source=str(tmp_path / "llama")))


def test_a_folder_is_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoundryError, match=f"weights '{tmp_path}/some/model' cannot be loaded"):
        HFLanguage(HFLanguageConfig(path="some/model"))


def test_where_an_upstream_models_weights_lay_is_no_difference(tmp_path):
    wanted = HFLanguageConfig(path=str(tmp_path))
    check_same_architecture("language", wanted, language("llama"))


def test_a_whole_clip_gives_its_vision_part(tmp_path):
    part = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    settings = AutoConfig.for_model(
        "siglip", vision_config={**part, "image_size": 32, "patch_size": 8}, text_config=part
    )
    AutoModel.from_config(settings).save_pretrained(tmp_path)
    wrong = HFVisionConfig(image_size=32, patch_size=8, width=20, source=str(tmp_path))
    with pytest.raises(FoundryError, match=r"vision\.width is 20, the tower's hidden size 16"):
        build(vlm_config(vision=wrong))
    model = build(vlm_config(vision=wrong.model_copy(update={"width": 16})))
    assert model.vision(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 16, 16)
    save_model(tmp_path / "saved", model)
    loaded, _ = load_model(tmp_path / "saved")
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_unknown_architecture():
    with pytest.raises(FoundryError, match="no model_type"):
        HFLanguage(HFLanguageConfig(config={"hidden_size": 3}))
    with pytest.raises(FoundryError, match="notamodel"):
        HFLanguage(HFLanguageConfig(config={"model_type": "notamodel"}))
