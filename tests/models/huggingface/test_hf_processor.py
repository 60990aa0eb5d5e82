"""What we make of a checkpoint's processor and chat template, against transformers' processors."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, PaliGemmaProcessor
from transformers.models.gemma3 import Gemma3Processor
from transformers.models.idefics3 import Idefics3Processor

from foundry_core.data.robot.prompts import OBS, PromptBuilder
from foundry_core.data.robot.transform_config import Prompt, PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, ImageNormalization
from foundry_core.models.huggingface.checkpoint import imported_tokenizer
from foundry_core.models.huggingface.processor import free_side
from foundry_core.models.huggingface.vlm import HFVLM
from tests.hf_checkpoints import FAMILIES, make_vlm


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make_vlm(root / name, name) for name in FAMILIES}


def loaded(folder, **changes) -> HFVLM:
    return HFVLM(HFVLMConfig(path=str(folder), **changes)).eval()


PROMPTS = {
    "qwen3_vl": "<|im_start|>user\n{image}{image}open it<|im_end|>\n<|im_start|>assistant\n",
    "smolvlm": "<|im_start|>User:{image}{image}open it<end_of_utterance>\nAssistant:",
    "paligemma": "{image}{image}<bos>open it\n",
    "gemma3": "<bos><start_of_turn>user\n{image}{image}open it<end_of_turn>\n"
    "<start_of_turn>model\n",
}
IMAGES = {
    "qwen3_vl": ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    "smolvlm": ("<fake_token_around_image><global-img>", "<image>", "<fake_token_around_image>"),
    "paligemma": ("", "<image>", ""),
    "gemma3": ("\n\n<start_of_image>", "<image_soft_token>", "<end_of_image>\n\n"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_the_chat_template_s(folders, name):
    model, tokenizer = loaded(folders[name]), imported_tokenizer(folders[name])
    obs = tokenizer.add_special(OBS)
    builder = PromptBuilder(tokenizer, model.tokens_per_image, Prompt(), model.marks)
    tokens, cut = builder.robot("open it", 2, 50)
    before, image, after = IMAGES[name]
    expected = PROMPTS[name].replace("{image}", before + image * 4 + after)
    theirs = AutoTokenizer.from_pretrained(folders[name])
    assert tokens == [*theirs.encode(expected, add_special_tokens=False), obs]
    assert not cut
    tokens, targets, _ = builder.caption("a door", 1, 50)
    said = [t for t, target in zip(tokens, targets, strict=True) if target]
    assert said == [*tokenizer.encode("a door"), tokenizer.eos_id]


def processor(folder, name):
    images = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if name == "idefics3":
        return Idefics3Processor(images, tokenizer, image_seq_len=4)
    if name == "gemma3":
        return Gemma3Processor(images, tokenizer, image_seq_length=4)
    return PaliGemmaProcessor(images, tokenizer)


@pytest.mark.parametrize("name", ["idefics3", "gemma3", "paligemma"])
def test_ids_and_pixels_are_those_of_the_processor(folders, name):
    """SmolVLM's processor is Idefics 3's, and needs a package that nothing else does."""
    model, tokenizer = loaded(folders[name]), imported_tokenizer(folders[name])
    theirs = processor(folders[name], name)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.uint8)
    if name == "paligemma":
        text = "<image><image>open it"
    else:
        turn = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "open it"}]
        text = theirs.tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
        )
    inputs = theirs(
        text=[text], images=[list(pictures)], return_tensors="pt", add_special_tokens=False
    )
    tokenizer.add_special(OBS)
    builder = PromptBuilder(tokenizer, model.tokens_per_image, Prompt(), model.marks)
    assert builder.robot("open it", 2, 50)[0][:-1] == inputs["input_ids"][0].tolist()
    ours = model._pixels(torch.from_numpy(pictures).permute(0, 3, 1, 2)[None])
    levels = (ours.flatten(0, 1) - inputs["pixel_values"].reshape(ours[0].shape)).abs() * 127.5
    assert levels.max() < 1.01  # one level of 255, where a rounding went the other way
    assert (levels < 0.01).float().mean() > 0.98


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "smolvlm"])
def test_pixels_are_those_of_the_image_processor(folders, name):
    model = loaded(folders[name])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    theirs = AutoImageProcessor.from_pretrained(folders[name])(
        images=list(pictures) if name != "smolvlm" else [list(pictures)], return_tensors="pt"
    )
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)[None]
    tokens = torch.full((1, 8), model.image_token_id)
    ours = model.inputs(images, tokens, torch.ones_like(tokens, dtype=torch.bool), None)
    std = min(model.config.normalization.std)
    values = theirs["pixel_values"]
    levels = (ours["pixel_values"] - values.reshape(ours["pixel_values"].shape)).abs() * 255 * std
    assert levels.max() < 1.01
    assert (levels < 0.01).float().mean() > 0.98
    if name != "smolvlm":
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_transformers_own_on_images(folders, name):
    """The whole way from pixels and the template's ids, with transformers' masks and positions."""
    model, tokenizer = loaded(folders[name]), imported_tokenizer(folders[name])
    tokenizer.add_special(OBS)
    builder = PromptBuilder(tokenizer, model.tokens_per_image, Prompt(), model.marks)
    tokens = torch.tensor([builder.robot("open it", 2, 50)[0][:-1]])
    side = model.config.image_size
    images = torch.randint(0, 256, (1, 2, 3, side, side), dtype=torch.uint8)
    is_image = tokens == model.image_token_id
    mask = torch.ones_like(tokens)
    prompt = torch.ones_like(tokens, dtype=torch.bool)
    inputs = model.inputs(images, tokens, mask.bool(), prompt)
    # What we make ourselves and transformers makes too is left to it.
    inputs.pop("position_ids", None)
    if name == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(tokens)
    elif name == "gemma3":
        inputs["token_type_ids"] = is_image.long()
    elif name.startswith("qwen"):
        inputs["mm_token_type_ids"] = is_image.int()
    with torch.no_grad():
        theirs = model.model(input_ids=tokens, attention_mask=mask, **inputs).logits
        ours = model.logits(model.hidden(images, tokens, prompt=prompt))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_prefix_is_read_both_ways_and_what_follows_is_not(folders):
    model = loaded(folders["paligemma"])
    images = torch.randint(0, 256, (1, 1, 3, 16, 16), dtype=torch.uint8)
    tokens = torch.tensor([[model.image_token_id] * 4 + [10, 11, 12, 13]])
    prompt = torch.tensor([[True] * 6 + [False] * 2])
    other = tokens.clone()
    other[0, 5] = 20
    with torch.no_grad():
        one, two = (model.hidden(images, t, prompt=prompt) for t in (tokens, other))
        assert (one[:, 0] - two[:, 0]).abs().max() > 1e-4
        blind = [model.hidden(None, t, prompt=prompt) for t in (tokens, other)]
        assert (blind[0][:, 0] - blind[1][:, 0]).abs().max() > 1e-4
        other = tokens.clone()
        other[0, 7] = 20
        one, two = (model.hidden(images, t, prompt=prompt) for t in (tokens, other))
    torch.testing.assert_close(one[:, :7], two[:, :7], atol=1e-6, rtol=0)


def test_the_recipe_has_the_last_word(folders):
    changes = {"image_size": 64, "resample": "bilinear"}
    halves = ImageNormalization(mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    model = loaded(folders["qwen3_vl"], normalization=halves, **changes)
    assert model.tokens_per_image == 16
    assert model.config.normalization == halves
    assert model.config.resample == "bilinear"


def test_free_sides_are_qwen_s():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    for wanted, factor, low, high in [
        (224, 28, 56**2, 12845056),
        (224, 32, 65536, 16777216),
        (224, 28, 56**2, 20000),
        (224, 28, 4 * 224**2, 12845056),
    ]:
        theirs = smart_resize(wanted, wanted, factor, low, high)
        assert theirs == (free_side(wanted, factor, low, high),) * 2


def test_a_checkpoint_without_a_processor_needs_a_size(folders, tmp_path):
    folder = make_vlm(tmp_path / "bare", "qwen3_vl")
    (folder / "preprocessor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(FoundryError, match="the size of its images is unknown"):
        loaded(folder)
    model = loaded(folder, image_size=32)
    tokenizer = imported_tokenizer(folder)
    assert model.marks.image_before == (tokenizer.token_id("<|vision_start|>"),)
    assert model.marks.opening == ()


def test_templates_that_say_something_else_are_refused(tmp_path):
    folder = make_vlm(tmp_path / "odd", "qwen3_vl")
    template = folder / "chat_template.jinja"
    template.write_text("{{ messages[0].role }}")
    with pytest.raises(FoundryError, match="for a turn with two images and a text"):
        loaded(folder)
    assert loaded(folder, marks=PromptMarks(opening=(7,))).marks.opening == (7,)
    template.write_text("{{ raise_exception('no') }}")
    with pytest.raises(FoundryError, match="chat template fails: no"):
        loaded(folder)


def test_processors_that_scale_otherwise_are_refused(tmp_path):
    folder = make_vlm(tmp_path / "odd", "gemma3")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_factor": 1.0}))
    with pytest.raises(FoundryError, match="does not scale pixels by 1/255"):
        loaded(folder)
