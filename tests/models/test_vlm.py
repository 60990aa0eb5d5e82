import pytest
import torch
from model_zoo import build, language_config, plain_tokens, robot_batch, vlm_config

from foundry_core.errors import FoundryError
from foundry_core.models.layers import Visibility
from foundry_core.models.vlm import VLM, check_vocabulary


def test_text_alone_is_the_language_model():
    model = build(vlm_config())
    tokens = plain_tokens(2, 5)
    torch.testing.assert_close(model(None, tokens), model.language(tokens))


def test_images_matter_and_only_their_own_row():
    model = build(vlm_config())
    batch = robot_batch([4, 4])
    before = model(batch["images"], batch["tokens"])
    other = batch["images"].clone()
    other[0, 1] = 255 - other[0, 1]
    after = model(other, batch["tokens"])
    torch.testing.assert_close(before[1], after[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(before[0, :4], after[0, :4], atol=1e-5, rtol=0)  # the first image
    assert (before[0, 4:] - after[0, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "sees"), [("causal", False), ("bidirectional", True)])
def test_bidirectional_images_look_ahead_within_one_image(kind, sees):
    model = build(vlm_config(image_attention=kind))
    batch = robot_batch([4])
    embedded, is_image = model.embed(batch["images"], batch["tokens"])
    before = model(batch["images"], batch["tokens"])
    for moved, others in ((3, slice(0, 3)), (7, slice(4, 7))):  # the last patch of each image
        changed = embedded.clone()
        changed[0, moved, :5] += 1.0
        visible = Visibility(spans=model._spans(is_image))
        after = model.logits(model.language.hidden(changed, visible))
        difference = (after - before)[0].abs()
        assert (difference[others].max() > 1e-4) == sees
        assert difference[:moved].max() < 1e-4 or sees
        assert moved == 3 or difference[:4].max() < 1e-4  # never the image before
        assert difference[moved:].amax(dim=1).min() > 1e-4


def test_wrong_number_of_placeholders():
    model = build(vlm_config())
    batch = robot_batch([4], images=2)
    with pytest.raises(FoundryError, match=r"8 image tokens .* 1 images make 4"):
        model(batch["images"][:, :1], batch["tokens"])


def test_from_a_language_model_words_keep_their_embeddings():
    language = build(language_config(vocab_size=40))
    tokens = plain_tokens(1, 6) % 40
    before = language(tokens)
    config = vlm_config(language=None, image_token_id=40)
    language.resize_vocabulary(41, 40)
    model = VLM.from_language_model(config, language)
    assert model.config.language.vocab_size == 41
    torch.testing.assert_close(model(None, tokens)[..., :40], before)


def test_another_architecture_is_spelled_out():
    with pytest.raises(FoundryError, match="n_heads: 2 ≠ 4"):
        VLM.from_language_model(
            vlm_config(language=language_config(n_heads=2)), build(language_config())
        )


def test_vocabulary_disagreement_is_spelled_out():
    check_vocabulary(tokenizer=("aa", 40), model=("aa", 48))
    with pytest.raises(FoundryError, match=r"tokenizer bb .*encoded with aa"):
        check_vocabulary(tokenizer=("aa", 40), model=("bb", 40))
    with pytest.raises(FoundryError, match=r"40 vocabulary rows.*41 tokens"):
        check_vocabulary(tokenizer=("aa", 41), model=("aa", 40))


def test_next_token_sums_equal_cross_entropy():
    model = build(vlm_config())
    batch = robot_batch([5, 5])
    hidden = model.hidden(batch["images"], batch["tokens"]).flatten(0, 1)
    targets = torch.arange(len(hidden)) % 40
    loss, _, each = model.next_token_sums(hidden, targets)
    expected = torch.nn.functional.cross_entropy(model.logits(hidden), targets, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(each.sum(), expected)
