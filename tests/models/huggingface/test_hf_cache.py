"""Transformers' cache behind ours."""

import pytest
import torch
from decoding import assert_cached_is_full, assert_row_alone
from model_zoo import IMAGE, build, vlm_config
from test_hf_vlm import FAMILIES, TEXT, hf_vlm

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig
from foundry_core.models.generation import generate
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Prompts

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}
LANGUAGES = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3"},
    "gemma2": {"model_type": "gemma2"},
    "gemma2, short window": {"model_type": "gemma2", "sliding_window": 4},
    "gemma3, short window": {"model_type": "gemma3_text", "sliding_window": 4, **MIXED},
    "gemma3, filled later": {"model_type": "gemma3_text", "sliding_window": 9, **MIXED},
    "mistral, short window": {"model_type": "mistral", "sliding_window": 4},
    "learned positions": {"model_type": "gpt2", "n_embd": 32, "n_layer": 4, "n_head": 4},
}


def language(**changes):
    return build(HFLanguageConfig(config={**TEXT, **changes}))


def seeing(name: str) -> Prompts:
    """Images next to each other, apart, and at the end of a row."""
    side = 16 if name == "paligemma" else 32
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 3, side, side), generator=generator).to(torch.uint8)
    first = [1, *[IMAGE] * 4, 2, *[IMAGE] * 4, 3, 4, 5, 6, 7]
    return Prompts.of([first, [IMAGE] * 8], images=images)


@pytest.mark.parametrize("changes", LANGUAGES.values(), ids=LANGUAGES.keys())
def test_reading_on_is_reading_all_again(changes):
    assert_cached_is_full(language(**changes), Prompts.of(ROWS))


@pytest.mark.parametrize("name", FAMILIES)
def test_reading_on_after_images(name):
    assert_cached_is_full(build(hf_vlm(name)), seeing(name), avoid=IMAGE)


@pytest.mark.parametrize("name", FAMILIES)
def test_reading_on_after_text_alone(name):
    assert_cached_is_full(build(hf_vlm(name)), Prompts.of(ROWS), avoid=IMAGE, steps=3)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_native_vlm_on_a_language_model_of_others(attention):
    config = HFLanguageConfig(config={"model_type": "llama", **TEXT})
    model = build(vlm_config(language=config, image_attention=attention))
    assert_cached_is_full(model, seeing("native"), avoid=IMAGE)


@pytest.mark.parametrize("row", range(2))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_alone_is_the_row_in_a_batch(name, row):
    assert_row_alone(build(hf_vlm(name)), seeing(name), row)


@pytest.mark.parametrize("row", range(3))
def test_a_window_counts_no_padding(row):
    assert_row_alone(language(model_type="mistral", sliding_window=4), Prompts.of(ROWS), row)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_generates(name):
    """The same tokens as its own generate."""
    model, prompts = build(hf_vlm(name)).eval(), seeing(name)
    length = int(prompts.lengths[0])
    tokens = prompts.tokens[:1, :length]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    inputs = model.inputs(prompts.images[:1], tokens, mask, prompt=mask)
    if "position_ids" in inputs:  # it makes its own, of the images' places
        inputs["mm_token_type_ids"] = (tokens == IMAGE).int()
        del inputs["position_ids"]
    theirs = model.model.generate(
        input_ids=tokens, attention_mask=mask.long(), **inputs, max_new_tokens=5, do_sample=False
    )
    hidden, cache = model.prefill(Prompts.of([tokens[0].tolist()], images=prompts.images[:1]), 4)
    ours = []
    for _ in range(5):
        ours.append(int(model.logits(hidden).argmax()))
        if len(ours) < 5:
            hidden = model.step(torch.tensor(ours[-1:]), cache)
    assert theirs[0, length:].tolist() == ours


def test_keys_and_values_by_layer():
    model = language(model_type="llama").eval()
    kept = []
    hook = model.text.layers[1].self_attn.v_proj.register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    with torch.no_grad():
        _, cache = model.prefill(Prompts.of(ROWS), 3)
        hook.remove()
        found = cache.layer(1)
        assert found.keys.shape == found.values.shape == (3, 2, 10, 8)
        assert cache.nbytes == 2 * 4 * 3 * 2 * 8 * 10 * 4
        assert found.filled.sum(dim=1).tolist() == [7, 2, 4]
        values = kept[0].view(3, 7, 2, 8).transpose(1, 2)
        for row, length in enumerate((7, 2, 4)):
            ours = found.values[row][:, found.filled[row]]
            torch.testing.assert_close(ours, values[row, :, 7 - length :])
        model.step(torch.tensor([1, 2, 3]), cache)
    assert cache.layer(1).filled.sum(dim=1).tolist() == [8, 3, 5]
    assert cache.lengths.tolist() == [8, 3, 5]


def test_a_layer_with_a_window_keeps_the_last_tokens():
    model = language(model_type="gemma3_text", sliding_window=4, **MIXED).eval()
    with torch.no_grad():
        _, cache = model.prefill(Prompts.of(ROWS), 3)
        windowed, whole = cache.layer(0), cache.layer(1)
        assert windowed.keys.shape[2] == 4
        assert whole.keys.shape[2] == 10
        assert windowed.filled.sum(dim=1).tolist() == [4, 2, 4]
        model.step(torch.tensor([1, 2, 3]), cache)
        assert cache.layer(0).filled.sum(dim=1).tolist() == [4, 3, 4]


def test_a_row_at_the_end_of_its_context_does_not_stop_the_others():
    model = language(model_type="gpt2", n_embd=32, n_layer=4, n_head=4, n_positions=12)
    found = generate(model, Prompts.of(ROWS), GenerationConfig(max_tokens=9))
    ends = [(len(one.tokens), one.ended) for one in found]
    assert ends == [(5, "context"), (9, "length"), (8, "context")]
    assert generate(model, Prompts.of(ROWS[1:2]), GenerationConfig(max_tokens=9)) == found[1:2]


def test_a_full_cache_says_so():
    model = language(model_type="llama").eval()
    with torch.no_grad():
        _, cache = model.prefill(Prompts.of(ROWS), 0)
        with pytest.raises(FoundryError, match="cache is full"):
            model.step(torch.tensor([1, 2, 3]), cache)
