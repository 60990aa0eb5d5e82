"""Prompts of imported models: as their chat templates place them."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, Pretrained
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.huggingface.pretrained import import_language, import_vlm
from foundry_core.models.text_model import load_text_model
from tests.hf_checkpoints import FAMILIES, make_llm, make_vlm

TURN = (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)


def imported(tmp_path, name: str = "llama", *, template: str | None = TURN, native=None):
    folder = make_llm(tmp_path / "checkpoint", name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    out = tmp_path / "artifact"
    out.mkdir()
    import_language(Pretrained(path=str(folder)), out, tmp_path, native)
    return out, tokenizer


@pytest.mark.parametrize("native", [True, False])
def test_a_turn_as_the_template_writes_it(tmp_path, native):
    folder, theirs = imported(tmp_path, native=native)
    model = load_text_model(folder)
    turn = [{"role": "user", "content": "how are you?"}]
    expected = theirs.apply_chat_template(
        turn, chat_template=TURN, tokenize=False, add_generation_prompt=True
    )
    ids = theirs.encode(expected, add_special_tokens=False)
    assert model.prompt("how are you?").tokens.tolist() == [ids]
    assert ids[0] == theirs.convert_tokens_to_ids("<bos>")
    assert ids[-1] == theirs.convert_tokens_to_ids("<|bot|>")


def test_what_a_person_types_is_no_special_token(tmp_path):
    folder, theirs = imported(tmp_path)
    model = load_text_model(folder)
    tokens = model.prompt("a <|bot|> b").tokens[0].tolist()
    assert tokens.count(theirs.convert_tokens_to_ids("<|bot|>")) == 1
    assert "<|bot|> b" in model.tokenizer.decode(tokens)


def test_raw_text_goes_without_the_template(tmp_path):
    folder, theirs = imported(tmp_path)
    model = load_text_model(folder, raw=True)
    ids = theirs.encode("how are you?", add_special_tokens=False)
    assert model.prompt("how are you?").tokens.tolist() == [ids]


def test_a_tokenizer_s_own_beginning(tmp_path):
    folder, theirs = imported(tmp_path, template=None)
    path = folder / "tokenizer.json"
    backend = Backend.from_str(path.read_text())
    bos = theirs.convert_tokens_to_ids("<bos>")
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    path.write_text(backend.to_str())
    model = load_text_model(folder)
    ids = theirs.encode("hey", add_special_tokens=False)
    assert model.prompt("hey").tokens.tolist() == [[bos, *ids]]


@pytest.mark.parametrize(
    ("template", "said"),
    [("nothing of it", "where it should stand once"), ("{{ oh.no.no }}", "chat template fails")],
)
def test_templates_that_cannot_be_used(tmp_path, template, said):
    folder, _ = imported(tmp_path, template=template)
    with pytest.raises(FoundryError, match=said):
        load_text_model(folder)
    load_text_model(folder, raw=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_turn_with_pictures(tmp_path, name):
    checkpoint, out = make_vlm(tmp_path / "checkpoint", name), tmp_path / "artifact"
    out.mkdir()
    import_vlm(HFVLMConfig(path=str(checkpoint)), out, tmp_path)
    model = load_text_model(out)
    pictures = [np.full((40, 50, 3), 7, np.uint8), np.full((32, 32, 3), 200, np.uint8)]
    prompt = model.prompt("what is it?", pictures)
    tokens = prompt.tokens[0].tolist()
    assert tokens.count(model.model.image_token_id) == 2 * model.model.tokens_per_image
    text = model.tokenizer.decode(tokens)
    family = FAMILIES[name]
    assert text.count("what is it?") == 1
    if family["turn"]:
        theirs = AutoTokenizer.from_pretrained(checkpoint)
        ending = theirs.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": "what is it?"}]}],
            chat_template=family["turn"],
            tokenize=False,
            add_generation_prompt=True,
        )
        assert text.endswith(ending[ending.index("what is it?") :])
    pieces = []
    written = model.write(prompt, GenerationConfig(max_tokens=6), pieces.append)
    assert len(written.tokens) == 6 or written.ended == "stop"
    assert model.model.image_token_id not in written.tokens
    raw = load_text_model(out, raw=True).prompt("what is it?").tokens[0].tolist()
    assert raw == model.tokenizer.encode("what is it?")


def test_checkpoints_with_the_template_in_the_tokenizer_s_config(tmp_path):
    folder, _ = imported(tmp_path, template=None)
    kept = folder / "processor" / "tokenizer_config.json"
    stated = json.loads(kept.read_text())
    kept.write_text(json.dumps({**stated, "chat_template": "<|user|>{{ messages[0].content }}"}))
    model = load_text_model(folder)
    user = model.tokenizer.token_id("<|user|>")
    assert model.prompt("hey").tokens.tolist() == [[user, *model.tokenizer.encode("hey")]]
