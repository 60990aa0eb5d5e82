import pytest
import torch
from model_zoo import IMAGE, OBS, build, robot_batch, vla_config, vlm_config

from foundry_core.errors import FoundryError
from foundry_core.models.noise import Key
from foundry_core.models.vla import VLA


def test_padding_does_not_change_the_condition():
    model = build(vla_config())
    batch = robot_batch([7, 2, 4])
    together = model.condition(batch["images"], batch["tokens"], batch["token_mask"])
    assert together.shape == (3, 1, 4 * 32)
    for row, length in enumerate((7, 2, 4)):
        end = 8 + length + 1
        alone = model.condition(
            batch["images"][row : row + 1], batch["tokens"][row : row + 1, :end]
        )
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
    unmasked = model.condition(batch["images"], batch["tokens"])
    torch.testing.assert_close(together, unmasked, atol=1e-5, rtol=0)


def test_left_padding_does_not_either():
    model = build(vla_config())
    batch = robot_batch([3])
    padded = torch.cat((torch.zeros(1, 4, dtype=torch.int64), batch["tokens"]), dim=1)
    mask = torch.cat((torch.zeros(1, 4, dtype=torch.bool), batch["token_mask"]), dim=1)
    torch.testing.assert_close(
        model.condition(batch["images"], padded, mask),
        model.condition(batch["images"], batch["tokens"]),
        atol=1e-5,
        rtol=0,
    )


def test_the_blind_control_sees_words_and_nothing_else():
    model = build(vla_config(use_images=False))
    batch = robot_batch([5, 3])
    seen = model.condition(batch["images"], batch["tokens"], batch["token_mask"])
    other = model.condition(255 - batch["images"], batch["tokens"], batch["token_mask"])
    assert torch.equal(seen, other)
    words = batch["tokens"][:1, 8:]
    torch.testing.assert_close(model.condition(None, words)[0], seen[0], atol=1e-5, rtol=0)
    changed = batch["tokens"].clone()
    changed[:, 8] = 41
    assert (
        model.condition(batch["images"], changed, batch["token_mask"]) - seen
    ).abs().max() > 1e-3


def test_loss_terms_reach_every_weight():
    model = build(vla_config())
    batch = robot_batch([4, 2])
    total, count = loss_terms(model, batch)
    assert count.item() == batch["action_mask"].sum().item()
    (total.sum() / count).backward()
    unused = {"backbone.language.head.weight"}  # no text in this step
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == unused


def loss_terms(model, batch, step=0):
    return model.training_loss_terms(
        batch["images"],
        batch["tokens"],
        batch["token_mask"],
        batch["proprio"],
        batch["actions"],
        batch["action_mask"],
        Key(0, step, batch["draw_ids"]),
    )


def test_loss_is_a_sum_over_samples_wherever_they_are():
    model = build(vla_config())
    batch = robot_batch([4, 2, 5])
    whole, count = loss_terms(model, batch)
    rows = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(3)]
    parts = [loss_terms(model, row) for row in rows]
    torch.testing.assert_close(whole, torch.cat([p[0] for p in parts]), rtol=1e-5, atol=1e-5)
    assert count == sum(p[1] for p in parts)


def test_acting_in_any_company_is_the_same():
    model = build(vla_config())
    batch = robot_batch([4, 2, 5])
    seeds, steps = torch.tensor([3, 4, 3]), torch.tensor([0, 1, 7])

    def act(rows):
        inputs = [batch[k][rows] for k in ("images", "tokens", "token_mask", "proprio")]
        return model.act(*inputs, seeds=seeds[rows], steps=steps[rows])

    together = act([0, 1, 2])
    assert together.shape == (3, 3, 5)
    for row in range(3):
        torch.testing.assert_close(act([row])[0], together[row], atol=1e-5, rtol=0)
    model.backbone.requires_grad_(False)
    again = model.act(
        *(batch[k][[0, 0]] for k in ("images", "tokens", "token_mask", "proprio")),
        seeds=torch.tensor([3, 3]),
        steps=torch.tensor([0, 1]),
    )
    torch.testing.assert_close(again[0], together[0], atol=1e-5, rtol=0)
    assert (again[0] - again[1]).abs().max() > 1e-3


def test_from_a_vlm_obs_starts_as_the_mean():
    vlm = build(vlm_config(language=vlm_config().language.model_copy(update={"vocab_size": 49})))
    rows = vlm.language.embedding.weight.clone()
    vlm.resize_vocabulary(50, 49)
    model = VLA.from_vlm(vla_config(backbone=None), vlm)
    torch.testing.assert_close(model.backbone.language.embedding.weight[OBS], rows.mean(0))
    assert model.config.backbone.image_token_id == IMAGE
    with pytest.raises(FoundryError, match=r"backbone\.language.*dim: 16 ≠ 32"):
        changed = vlm_config(
            language=vlm_config().language.model_copy(update={"dim": 16}), image_token_id=None
        )
        VLA.from_vlm(vla_config(backbone=changed), vlm)


@pytest.mark.parametrize("count", [0, 2])
def test_each_row_has_one_obs(count):
    model = build(vla_config())
    batch = robot_batch([4])
    batch["tokens"][0, 8:] = torch.tensor([1, 1, OBS, 2, OBS]) if count else 1
    with pytest.raises(FoundryError, match=f"has {count} observation tokens"):
        model.condition(batch["images"], batch["tokens"])


def test_nulls_are_named():
    with pytest.raises(FoundryError, match=r"VLAConfig\.action_dim is null"):
        build(vla_config(action_dim=None))
