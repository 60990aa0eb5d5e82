"""Captions that share rows: the same losses and gradients, and nothing else moves."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from model_zoo import IMAGE, TOKENS_PER_IMAGE, build, language_config, vla_config
from model_zoo import vlm_config as make_vlm_config
from test_distributed import _curve, _run
from test_objectives import KEY, captions
from training_toy import toy_trainer, weights

from foundry_core.config.canonical import canonical_bytes
from foundry_core.data.loading.config import CaptionData
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig
from foundry_core.models.layers import Documents, Visibility
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import MixedBatch, split_batch
from foundry_core.training.packing import Packer, first_fit
from foundry_core.training.recipes import ModelFacts, check_captions

IMAGES = 2
HEAD = IMAGES * TOKENS_PER_IMAGE


def caption_rows(words: list[int], *, seed: int = 0, spare: int = 0) -> dict[str, torch.Tensor]:
    """Samples of two images, a word that is the prompt, and so many words that are learnt."""
    generator = torch.Generator().manual_seed(seed)
    width = HEAD + 1 + max(words) + spare
    tokens = torch.zeros(len(words), width, dtype=torch.int64)
    mask, target = (torch.zeros_like(tokens, dtype=torch.bool) for _ in range(2))
    for row, count in enumerate(words):
        end = HEAD + 1 + count
        tokens[row, :HEAD] = IMAGE
        tokens[row, HEAD:end] = torch.randint(1, 40, (count + 1,), generator=generator)
        mask[row, :end] = True
        target[row, HEAD + 1 : end] = True
    pixels = torch.randint(0, 256, (len(words), IMAGES, 3, 32, 32), generator=generator)
    return {
        "images": pixels.to(torch.uint8),
        "tokens": tokens,
        "token_mask": mask,
        "target_mask": target,
    }


def packed(length: int, **changes):
    return captions(packer=Packer(length=length, **changes))


def learnt(model, objective, batch) -> dict[str, torch.Tensor]:
    """Sums of the losses, and the gradient of each parameter."""
    model.zero_grad(set_to_none=True)
    found = objective(model, objective.prepare(batch), KEY)
    found["loss"].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in found.items()} | gradients


def test_the_longest_come_first_and_each_goes_where_there_is_room():
    """6, 5, 4, 3, 1 into rows of 8: 6 | 5 | 4, then 3 beside 5 and 1 beside 6."""
    begins, rows = first_fit([6, 3, 5, 1, 4], 8)
    assert (begins, rows) == ([0, 13, 8, 6, 16], 3)
    assert first_fit([8, 8], 8) == ([0, 8], 2)
    places = Packer(length=8).places(torch.tensor([6, 3, 5, 1, 4]))
    assert places.order.tolist() == [0, 3, 2, 1, 4]
    assert places.segments().tolist() == [
        [1, 1, 1, 1, 1, 1, 2, 3],
        [1, 1, 1, 1, 1, 2, 2, 2],
        [1, 1, 1, 1, 2, 2, 2, 2],
    ]
    assert places.visibility()["offsets"].tolist()[:8] == [0, 6, 7, 8, 13, 16, 20, 24]


def test_tokens_lie_in_rows_without_their_last():
    batch = caption_rows([2, 1, 3])
    found = packed(24).prepare(batch)
    rows = [batch["tokens"][i][: HEAD + n] for i, n in enumerate([2, 1, 3])]
    assert found["tokens"].shape == (2, 24)
    assert found["tokens"][0].tolist() == [*rows[2].tolist(), *rows[0].tolist(), 0, 0, 0]
    assert found["tokens"][1].tolist() == [*rows[1].tolist(), *[0] * (24 - HEAD - 1)]
    assert torch.equal(found["images"], batch["images"][[2, 0, 1]])
    assert torch.equal(found["targets"], captions().prepare(batch)["targets"])


@pytest.mark.parametrize("length", [15, 32, 48, 80])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_packed_captions_give_the_losses_and_gradients_of_padded_ones(length, attention):
    model = build(make_vlm_config(image_attention=attention))
    batch = caption_rows([6, 3, 5, 1, 4])
    expected = learnt(model, captions(z_loss=0.1), batch)
    found = learnt(model, captions(z_loss=0.1, packer=Packer(length=length)), batch)
    assert found.keys() == expected.keys() and len(found) > 20
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=name)


def test_so_do_captions_beside_a_policy():
    model, batch = build(vla_config()), caption_rows([6, 3, 5, 1])
    expected, found = (learnt(model, one, batch) for one in (captions(), packed(40)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=name)


def test_padding_changes_nothing():
    short, long = (packed(48).prepare(caption_rows([6, 3, 5], spare=n)) for n in (0, 17))
    assert short.keys() == long.keys()
    assert all(torch.equal(short[name], long[name]) for name in short)


def test_a_sample_is_blind_to_those_beside_it():
    model, batch = build(make_vlm_config()), caption_rows([6, 3, 5])
    objective = packed(48)
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    changed["tokens"][0, HEAD:] = torch.where(batch["token_mask"][0, HEAD:], 7, 0)
    changed["images"][0] = 255 - batch["images"][0]
    rows = []
    for one in (batch, changed):
        prepared = objective.prepare(one)
        hidden = objective.hidden(model, prepared)[1].flatten(0, 1)
        rows.append(hidden[prepared["index"]])
    assert not torch.allclose(rows[0][:6], rows[1][:6], atol=1e-2)
    torch.testing.assert_close(rows[0][6:], rows[1][6:], atol=0, rtol=0)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_shares_of_a_batch_sum_to_it(parts):
    """Micro-batches are packed each for itself, and so are the ranks' shares."""
    model, batch = build(make_vlm_config()), caption_rows([6, 3, 5, 1, 4, 2, 2, 6])
    whole = learnt(model, captions(), batch)["loss"]
    pieces = split_batch({"captions": batch}, 8 // parts)
    assert len(pieces) == parts
    found = sum(learnt(model, packed(32), piece["captions"])["loss"] for piece in pieces)
    torch.testing.assert_close(found, whole)


def test_compiled_rows_are_of_few_numbers():
    counts = set()
    for seed in range(200):
        words = torch.randint(1, 20, (64,), generator=torch.Generator().manual_seed(seed))
        places = Packer(length=64, fixed=True).places(words + HEAD)
        assert places.rows % 4 == 0
        counts.add(places.rows)
    assert len(counts) <= 3
    batch = caption_rows([6, 3, 5, 1] * 8)
    model = build(make_vlm_config())
    expected, found = (learnt(model, one, batch) for one in (captions(), packed(80, fixed=True)))
    torch.testing.assert_close(found["loss"], expected["loss"])


def test_rows_take_the_kernel_for_documents():
    """Where images are read causally no dense mask stands in its way."""
    found = packed(48).prepare(caption_rows([6, 3, 5]))
    visible = Visibility(segments=found["segments"], offsets=found["offsets"])
    assert isinstance(visible.look(48, torch.device("meta")), Documents)


def test_what_does_not_fit_says_so():
    with pytest.raises(FoundryError, match=r"has 14 tokens .*packing.length is 12"):
        packed(12).prepare(caption_rows([6, 3]))


def test_a_recipe_learns_at_planning_what_cannot_be_packed():
    class Recipe:
        class data:
            captions = CaptionData(packing={"length": 64}, images=("a", "b"), max_tokens=20)

    vlm = make_vlm_config()
    check_captions(Recipe, {}, ModelFacts(model=vlm))
    theirs = HFLanguageConfig(config={"model_type": "llama"})
    with pytest.raises(FoundryError, match="transformers' do not read packed rows"):
        check_captions(Recipe, {}, ModelFacts(model=vlm.model_copy(update={"language": theirs})))
    Recipe.data.captions = CaptionData(
        packing={"length": 24}, images=("a", "b", "c"), max_tokens=20
    )
    with pytest.raises(FoundryError, match=r"up to 31 tokens .*packing.length is 24"):
        check_captions(Recipe, {}, ModelFacts(model=vlm))


def test_off_it_is_no_part_of_a_recipe():
    assert b"packing" not in canonical_bytes(CaptionData())
    assert b"packing" in canonical_bytes(CaptionData(packing={"length": 64}))


def caption_trainer(folder: Path, world: World = World(), length: int | None = 48, **changes):
    """A small VLM on random captions, eight a step over all ranks."""
    model = build(make_vlm_config(language=language_config(n_layers=2)))

    def batches(first: int) -> Iterator[MixedBatch]:
        for step in itertools.count(first):
            words = torch.randint(1, 9, (8,), generator=torch.Generator().manual_seed(step))
            batch = caption_rows(words.tolist(), seed=step)
            yield {"captions": {n: t.chunk(world.size)[world.rank] for n, t in batch.items()}}

    objective = captions(packer=None if length is None else Packer(length=length))
    return toy_trainer(
        folder,
        model=model,
        objectives={"captions": objective},
        weights={},
        world=world,
        batches=batches,
        steps=6,
        training={"optimizer": {"eps": 1e-4}},
        **changes,
    )


def test_a_packed_training_follows_the_padded_one(tmp_path):
    curves = []
    for name, length in (("padded", None), ("packed", 48)):
        trainer: Trainer = caption_trainer(tmp_path / name, length=length)
        trainer.train()
        curves.append(weights(trainer))
    for name, value in curves[0].items():
        torch.testing.assert_close(curves[1][name], value, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.slow("processes that train together")
def test_two_ranks_equal_one(tmp_path):
    alone = caption_trainer(tmp_path / "alone")
    alone.train()
    both = _run(tmp_path / "both", make=caption_trainer, resources={"micro_batch": 2})
    for name, value in weights(alone).items():
        torch.testing.assert_close(both[name], value, atol=1e-5, rtol=1e-3)
    for one, two in zip(_curve(tmp_path / "alone"), _curve(tmp_path / "both"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
