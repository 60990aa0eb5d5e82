import numpy as np
import pytest
import tokenizers
import torch
from model_zoo import build, language_config, vla_config, vlm_config

from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.models.generation import Generated
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.io import save_model
from foundry_core.models.text_model import TextPieces, load_text_model

PADDED = 264


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer.train(["some text"], 258)
    tokenizer.add_special(IMAGE)
    tokenizer.add_special(OBS)
    return tokenizer


def saved(folder, config, tokenizer):
    tokenizer.save(folder)
    model = build(config)
    save_model(folder, model)
    return model


@pytest.fixture(scope="module")
def language(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("language")
    saved(folder, language_config(vocab_size=PADDED), tokenizer)
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("seeing")
    config = vlm_config(
        language=language_config(vocab_size=PADDED), image_token_id=tokenizer.token_id(IMAGE)
    )
    saved(folder, config, tokenizer)
    return folder


def speaking(model, token: int) -> None:
    """A native language model says this token and no other, whatever it reads."""
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.copy_(torch.eye(model.dim)[0])
        model.head.weight.zero_()
        model.head.weight[token, 0] = 9.0


def test_a_language_model_reads_bare_text(language, tokenizer):
    model = load_text_model(language)
    assert model.prompt("a b").tokens.tolist() == [tokenizer.encode("a b")]
    assert model.prompt("").tokens.tolist() == [[tokenizer.eos_id]]
    assert model.stop == {tokenizer.eos_id}
    with pytest.raises(FoundryError, match="sees no images"):
        model.prompt("a b", [np.zeros((8, 8, 3), np.uint8)])


def test_a_vlm_reads_images_and_then_text(seeing, tokenizer):
    model = load_text_model(seeing)
    grey, large = np.full((32, 32, 3), 99, np.uint8), np.full((50, 70, 3), 7, np.uint8)
    prompt = model.prompt("a b", [grey, large])
    image = tokenizer.token_id(IMAGE)
    assert prompt.tokens.tolist() == [[image] * 8 + tokenizer.encode("a b")]
    assert prompt.images.shape == (1, 2, 3, 32, 32)
    assert (prompt.images[0, 0] == 99).all()
    assert (prompt.images[0, 1] == 7).all()
    assert model.prompt("a b").images is None


def test_no_token_without_a_text_is_written(seeing, tokenizer):
    model = load_text_model(seeing)
    assert tokenizer.vocab_size == 260
    assert model.banned == [tokenizer.token_id(IMAGE), 260, 261, 262, 263]


def test_writing_shows_what_it_returns(language, tokenizer):
    model = load_text_model(language)
    pieces = []
    config = GenerationConfig(max_tokens=30, temperature=1)
    written = model.write(model.prompt("some"), config, pieces.append)
    assert "".join(pieces) == tokenizer.decode(written.tokens, skip_special=True)
    assert len(pieces) > 20


def test_the_end_of_text_ends_it_unseen(language, tokenizer):
    model = load_text_model(language)
    speaking(model.model, tokenizer.eos_id)
    pieces = []
    written = model.write(model.prompt("some"), GenerationConfig(), pieces.append)
    assert written == Generated(tokens=(), ended="stop")
    assert "".join(pieces) == ""


TEXTS = ["plain", "naïve €uro 🦾 end", "e\u0301 \u4f60\u597d", "\n\ttabs"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_hold_whole_characters(tokenizer, text):
    pieces = TextPieces(tokenizer)
    shown = [pieces.add(token) for token in tokenizer.encode(text * 9)]
    assert "".join(shown) == text * 9
    assert not any("\ufffd" in piece for piece in shown)
    assert pieces.rest() == ""


def test_pieces_of_a_tokenizer_that_drops_the_first_space():
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<eos>": 0, "\u2581a": 1, "\u2581b": 2, "c": 3}, "<eos>")
    )
    backend.decoder = tokenizers.decoders.Metaspace()
    pieces = TextPieces(Tokenizer(backend, "<eos>", "<eos>"))
    assert [pieces.add(token) for token in (1, 2, 3, 1) * 9] == ["a", " b", "c", " a"] + [
        " a", " b", "c", " a"
    ] * 8  # fmt: skip


def test_bytes_that_are_no_text_do_not_wait_for_the_end(tokenizer):
    pieces = TextPieces(tokenizer)
    euro = tokenizer.encode("€")
    shown = [pieces.add(euro[1]) for _ in range(40)]
    assert "".join(shown) == "\ufffd" * 37
    shown += [pieces.add(token) for token in euro]
    assert "".join(shown) == "\ufffd" * 40 + "€"


def test_half_a_character_shows_at_the_end(tokenizer):
    pieces = TextPieces(tokenizer)
    shown = "".join(pieces.add(token) for token in tokenizer.encode("a€")[:-1])
    assert (shown, pieces.rest()) == ("a", "\ufffd")


def test_a_policy_writes_no_text(tmp_path, tokenizer):
    backbone = vlm_config(
        language=language_config(vocab_size=260), image_token_id=tokenizer.token_id(IMAGE)
    )
    saved(tmp_path, vla_config(backbone=backbone, obs_token_id=259), tokenizer)
    with pytest.raises(FoundryError, match="is a policy: it acts, and writes no text"):
        load_text_model(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, language):
    for path in language.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Tokenizer.train([f"{n:x} more text {n * n}" for n in range(999)], 300).save(tmp_path)
    with pytest.raises(FoundryError, match="264 vocabulary rows, the tokenizer has 300 tokens"):
        load_text_model(tmp_path)


def test_end_tokens_of_a_checkpoint(tmp_path, language):
    for path in language.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for stated, more in ((7, {7}), ([7, 8, "x"], {7, 8}), (None, set())):
        write_json(tmp_path / "processor" / "generation_config.json", {"eos_token_id": stated})
        model = load_text_model(tmp_path, raw=True)
        assert model.stop == {model.tokenizer.eos_id} | more
