"""Sums, counts and masks of the objectives, against plain formulas."""

import pytest
import torch
from model_zoo import (
    IMAGE,
    OBS,
    TOKENS_PER_IMAGE,
    build,
    language_config,
    robot_batch,
    targets,
    vla_config,
)
from model_zoo import vlm_config as make_vlm_config
from torch.nn import functional as F

from foundry_core.errors import FoundryError
from foundry_core.models.layers import Visibility
from foundry_core.models.noise import Key
from foundry_core.training.mixed_batch import MixedLoss, StepKey, split_batch
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss, reach_all

KEY = StepKey(seed=5, step=7)


def text_batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 40, (4, 11), generator=generator)
    segments = torch.tensor([[0] * 11, [0] * 5 + [1] * 6, [0] * 11, [0, 1] + [2] * 9])
    return {"tokens": tokens, "segments": segments.int(), "sample_ids": torch.arange(4)}


def caption_batch():
    batch = robot_batch([6, 3, 5, 1])
    target = batch["tokens"] != IMAGE
    return {
        "images": batch["images"],
        "tokens": batch["tokens"],
        "token_mask": batch["token_mask"],
        "target_mask": target & batch["token_mask"],
        "sample_ids": batch["draw_ids"],
    }


def captions(**changes):
    return CaptionLoss(image_token_id=IMAGE, tokens_per_image=TOKENS_PER_IMAGE, **changes)


def actions(**changes):
    sizes = {"obs_token_id": OBS, "tokens_per_image": TOKENS_PER_IMAGE}
    return ActionLoss(image_token_id=IMAGE, **sizes, **changes)


def sums(objective, model, batch, key=KEY):
    return objective(model, objective.prepare(batch), key)


def test_text_loss_ignores_targets_in_another_document():
    model, batch = build(language_config()), text_batch()
    logits = model(batch["tokens"][:, :-1], Visibility(segments=batch["segments"][:, :-1]))
    expected, count = 0.0, 0
    for row in range(4):
        for t in range(10):
            if batch["segments"][row, t] == batch["segments"][row, t + 1]:
                expected += F.cross_entropy(logits[row, t], batch["tokens"][row, t + 1])
                count += 1
    objective = TextLoss()
    assert objective.elements(batch).sum() == count == 40 - 3
    torch.testing.assert_close(sums(objective, model, batch)["loss"], expected)


def test_caption_loss_counts_words_only():
    model, batch = build(make_vlm_config()), caption_batch()
    logits = model(
        batch["images"], batch["tokens"], batch["target_mask"].logical_or(batch["tokens"] == IMAGE)
    )
    mask = batch["target_mask"][:, 1:]
    expected = F.cross_entropy(logits[:, :-1][mask], batch["tokens"][:, 1:][mask], reduction="sum")
    assert captions().elements(batch).sum() == mask.sum() == 6 + 3 + 5 + 1 + 4
    torch.testing.assert_close(sums(captions(), model, batch)["loss"], expected)


def test_z_loss_is_the_mean_square_of_the_log_partition():
    model, batch = build(make_vlm_config()), caption_batch()
    plain, both = sums(captions(), model, batch), sums(captions(z_loss=0.1), model, batch)
    logits = model(batch["images"], batch["tokens"][:, :-1])
    z = torch.logsumexp(logits[batch["target_mask"][:, 1:]], dim=-1).square().sum()
    torch.testing.assert_close(both["z_loss"], 0.1 * z)
    torch.testing.assert_close(both["loss"], plain["loss"] + both["z_loss"])


@pytest.mark.parametrize("draws", [1, 3])
def test_action_loss_is_masked_and_averaged_over_draws(draws):
    config = vla_config()
    head = config.head.model_copy(update={"num_noise_samples": draws})
    model = build(config.model_copy(update={"head": head}))
    batch = robot_batch([2, 5, 3])
    changed = dict(batch, actions=torch.where(batch["action_mask"], batch["actions"], 9.0))
    first, second = (sums(actions(), model, b)["loss"] for b in (batch, changed))
    torch.testing.assert_close(first, second)
    assert actions().elements(batch).sum() == batch["action_mask"].sum()
    pairs = model.head.training_pairs(
        targets(batch["actions"], batch["action_mask"]), Key(5, 7, batch["draw_ids"])
    )
    context = model.head.trunk.context(
        model.condition(batch["images"], batch["tokens"], batch["token_mask"]), batch["proprio"]
    )
    error = model.head.predict(context, pairs.noised, pairs.times) - pairs.target
    expected = (error.square() * batch["action_mask"][:, None]).sum() / draws
    torch.testing.assert_close(first, expected)


def test_a_sample_drawn_twice_in_a_batch_is_noised_twice():
    """A small data set comes several times in one batch: 128 draws had 50 distinct noises."""
    model = build(vla_config())
    batch = {n: t[:1].expand(6, *t.shape[1:]).clone() for n, t in robot_batch([3]).items()}
    batch["sample_ids"] = torch.full((6,), 4)
    batch["draw_ids"] = torch.arange(6) + 60
    seen = []
    predict = model.head.predict

    def recording(context, noised, times):
        seen.extend((noised.flatten(0, 1), times.flatten()))
        return predict(context, noised, times)

    model.head.predict = recording
    sums(actions(), model, batch)
    noised, times = seen
    assert len(torch.unique(noised, dim=0)) == len(torch.unique(times)) == 6


def test_the_blind_control_gets_its_words_on_the_host():
    """Two images of 4 placeholders go; what the model would have dropped itself is dropped."""
    model, batch = build(vla_config(use_images=False)), robot_batch([6, 3])
    prepared = actions(sees=False).prepare(batch)
    assert "images" not in prepared
    assert prepared["tokens"].shape == (2, 7)
    words = batch["token_mask"] & (batch["tokens"] != IMAGE)
    kept = prepared["tokens"][prepared["token_mask"]]
    assert kept.tolist() == batch["tokens"][words].tolist()
    dropped = sums(actions(sees=False), model, batch)["loss"]
    assert torch.equal(dropped, sums(actions(), model, batch)["loss"])


@pytest.mark.parametrize(
    ("modalities", "all_of_them"),
    [
        ({"robot", "captions"}, True),
        ({"robot", "text"}, True),
        ({"robot"}, False),  # nothing is said: the output layer learns nothing
        ({"captions"}, False),  # nor does the head
    ],
)
def test_which_mixes_reach_every_weight(modalities, all_of_them):
    parts = {"robot": robot_batch([2, 3]), "captions": caption_batch(), "text": text_batch()}
    vlm = make_vlm_config(language=language_config(tie_embeddings=False))
    model = build(vla_config(backbone=vlm))
    found = gradients(model, {name: parts[name] for name in sorted(modalities)})
    assert (len(found) == len(list(model.parameters()))) == all_of_them
    assert reach_all(model, modalities) == all_of_them


def test_a_wrong_number_of_placeholders_is_named_before_the_forward_pass():
    batch = robot_batch([2, 3])
    batch["tokens"][1, 0] = 3
    with pytest.raises(FoundryError, match="7 image tokens"):
        actions().prepare(batch)
    with pytest.raises(FoundryError, match="observation tokens"):
        actions().prepare(
            dict(batch, tokens=torch.where(batch["tokens"] == OBS, 1, batch["tokens"]))
        )


def gradients(model, batch, micro_batch=None):
    objectives = {"robot": actions(), "captions": captions(), "text": TextLoss()}
    loss = MixedLoss(model, objectives, {"captions": 0.3, "text": 0.2})
    counts = {name: objectives[name].elements(part).sum() for name, part in batch.items()}
    model.zero_grad()
    for part in split_batch(batch, micro_batch):
        prepared = {name: objectives[name].prepare(b) for name, b in part.items()}
        loss(prepared, counts, KEY)[0].backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_a_mixed_step_of_three_modalities_does_not_depend_on_micro_batches():
    """Valid elements differ between the halves: averaging per micro-batch would show."""
    model = build(vla_config())
    batch = {
        "robot": robot_batch([2, 5, 3, 1]),
        "captions": caption_batch(),
        "text": text_batch(),
    }
    whole, halves = gradients(model, batch), gradients(model, batch, micro_batch=6)
    assert set(whole) == {n for n, _ in model.named_parameters()}
    for name, gradient in whole.items():
        torch.testing.assert_close(halves[name], gradient, atol=1e-5, rtol=1e-4)


def test_noise_belongs_to_the_sample_and_the_step():
    model, batch = build(vla_config()), robot_batch([2, 5, 3])
    single = [
        sums(actions(), model, {n: t[i : i + 1] for n, t in batch.items()})["loss"]
        for i in range(3)
    ]
    torch.testing.assert_close(sum(single), sums(actions(), model, batch)["loss"])
    other = sums(actions(), model, batch, StepKey(seed=5, step=8))["loss"]
    assert not torch.isclose(other, sums(actions(), model, batch)["loss"])
