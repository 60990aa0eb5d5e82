"""What is asked of every action head, on policies of some ten thousand weights: it learns a set, in
two ways where there are two, and what it says of a row depends on that row and its seed alone."""

import copy
import math

import pytest
import torch
from model_zoo import OBS, build, language_config, robot_batch, vla_config

from foundry_core.errors import FoundryError
from foundry_core.models.config import ConvViTConfig, EncoderConfig, HFTextConfig, HFVisionConfig
from foundry_core.models.heads.act import ActHeadConfig
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.fast import FastHeadConfig
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.inference import Acceleration, Actor
from foundry_core.models.noise import Key

LEARNS = pytest.mark.slow("trains a head until it has learnt")
K, A = 3, 2
SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 32}
WORDS = {"bins": 16, "token_ids": tuple(range(8, 24))}
FEW = language_config(n_layers=2)
GENERATOR = torch.Generator().manual_seed(3)
# Four observations of one chunk each, and one of two chunks, twice as often.
CHUNKS = torch.rand(4, K, A, generator=GENERATOR) * 2 - 1
MODES = torch.ones(4, K, A) * torch.tensor([0.7, -0.7, 0.7, -0.7])[:, None, None]
ACTIONS = torch.cat((CHUNKS, MODES))


def fast(**changes) -> FastHeadConfig:
    config = FastHeadConfig(scale=10, pieces=32, token_ids=tuple(range(8, 41)), **changes)
    return config.fitted(ACTIONS.numpy())


HEADS = {
    "flow": FlowHeadConfig(**SHAPE, num_noise_samples=4),
    "flow_adaln": FlowHeadConfig(**SHAPE, num_noise_samples=4, time="adaln"),
    "flow_token": FlowHeadConfig(**SHAPE, num_noise_samples=4, time="token"),
    "diffusion": DiffusionHeadConfig(**SHAPE, num_noise_samples=8, train_steps=20, clip=1.0),
    "regression": RegressionHeadConfig(**SHAPE),
    "act": ActHeadConfig(**SHAPE, latent=4, style_layers=1),
    "pi0": Pi0HeadConfig(**SHAPE, num_noise_samples=4),
    "pi0_alternate": Pi0HeadConfig(
        **SHAPE, num_noise_samples=4, attention="alternate", time="adaln"
    ),
    "pi0_insulated": Pi0HeadConfig(
        **SHAPE, num_noise_samples=4, insulated=True, tokens=BinsHeadConfig(**WORDS)
    ),
    "bins": BinsHeadConfig(**WORDS, temperature=1.0),
    "fast": fast(temperature=1.0),
}
ONE_MODE = {"regression", "act"}


def policy(name: str, **changes):
    sizes = {"horizon": K, "action_dim": A, "tap_layers": 1, "head": HEADS[name]}
    backbone = vla_config().backbone.model_copy(update={"language": FEW})
    return build(vla_config(**(sizes | {"backbone": backbone} | changes)))


def observations(images: int = 0):
    """Words alone, unless images are asked for: the first four rows differ, the rest is one."""
    batch = robot_batch([2, 4, 3, 5] + [4] * 4, images=images)
    for name in ("images", "tokens", "token_mask", "proprio"):
        batch[name][5:] = batch[name][4]
    mask = torch.ones(8, K, A, dtype=torch.bool)
    return batch | {"actions": ACTIONS.clone(), "action_mask": mask}


def terms(model, batch, step=0):
    names = ("images", "tokens", "token_mask", "proprio", "actions", "action_mask")
    key = Key(0, step, batch["draw_ids"])
    rows, count = model.training_loss_terms(*(batch[name] for name in names), key)
    assert rows.shape == (len(batch["tokens"]),)
    return rows, count


def act(model, batch, rows, seeds, steps=None, mask=None):
    inputs = [batch[name][rows] for name in ("images", "tokens", "token_mask", "proprio")]
    steps = torch.zeros_like(seeds) if steps is None else steps
    return model.act(*inputs, seeds=seeds, steps=steps, action_mask=mask)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=LEARNS if "_" in name else ()) for name in HEADS]
)
def test_it_learns_a_set_and_both_modes_where_it_can(name):
    model, batch = policy(name), observations()
    optimizer = torch.optim.Adam(model.parameters(), 7e-3)
    steps = 220
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        total, count = terms(model, batch, step)
        optimizer.zero_grad()
        (total.sum() / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    learnt = act(model, batch, torch.arange(4), torch.arange(4))
    assert (learnt - CHUNKS).abs().mean() < 0.08
    same = torch.full((32,), 4)
    said = act(model, batch, same, torch.arange(32))
    if name in ONE_MODE:
        # The same whatever the seed: the mean of both, or one of them.
        assert (said - said[0]).abs().max() < 1e-4
        return
    up, down = ((said - sign * 0.7).abs().amax(dim=(1, 2)) < 0.3 for sign in (1, -1))
    # Whole chunks of one mode; a few that set out between them.
    assert (up | down).float().mean() > 0.7
    assert min(up.sum(), down.sum()) >= 4


@pytest.mark.parametrize("name", HEADS)
def test_a_row_is_the_same_in_any_company_and_of_one_seed(name):
    model, batch = policy(name), observations(images=1)
    seeds, steps = torch.tensor([3, 4, 3]), torch.tensor([0, 1, 7])
    rows = torch.tensor([0, 1, 3])
    together = act(model, batch, rows, seeds, steps)
    assert together.shape == (3, K, A)
    assert together.dtype is torch.float32
    for row in range(3):
        one = slice(row, row + 1)
        alone = act(model, batch, rows[one], seeds[one], steps[one])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    assert torch.equal(act(model, batch, rows, seeds, steps), together)
    draws = name not in ONE_MODE
    other = act(model, batch, rows, seeds + 1, steps)
    assert ((other - together).abs().max() > 1e-3) == draws
    pictures = batch | {"images": 255 - batch["images"]}
    blind = act(model, pictures, rows, seeds, steps)
    assert (blind - together).abs().max() > 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_what_is_masked_changes_nothing_and_rows_add_up(name):
    model, batch = policy(name), observations(images=1)
    mask = torch.rand(8, K, A, generator=torch.Generator().manual_seed(1)) > 0.4
    batch["action_mask"] = mask
    total, count = terms(model, batch)
    draws = getattr(HEADS[name], "num_noise_samples", 1)
    assert count == draws * mask.sum()
    garbage = torch.where(mask, batch["actions"], float("nan"))
    again, _ = terms(model, batch | {"actions": garbage})
    torch.testing.assert_close(again, total)
    rows = [terms(model, {n: t[i : i + 1] for n, t in batch.items()})[0] for i in range(8)]
    torch.testing.assert_close(torch.cat(rows), total, rtol=1e-4, atol=1e-4)
    total.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    said = act(model, batch, torch.arange(8), torch.arange(8), mask=mask)
    assert said[~mask].eq(0).all()
    assert said[mask].ne(0).any()


@pytest.mark.parametrize("name", ["bins", "fast"])
def test_an_even_guess_costs_the_logarithm_of_the_vocabulary(name):
    model, batch = policy(name), observations()
    with torch.no_grad():
        model.backbone.language.head.weight.zero_()
    prepared = model.head.prepare(batch["actions"], batch["action_mask"])
    total, count = terms(model, batch)
    said = int((prepared["tokens"] >= 0).sum() if prepared else count)
    assert total.sum().item() == pytest.approx(said * math.log(HEADS[name].vocabulary), rel=1e-5)
    assert count == ACTIONS.numel()


def test_insulation_keeps_the_flow_out_of_the_backbone():
    """What reaches the backbone is the tokens' gradient, to the bit."""
    model, batch = policy("pi0_insulated"), observations()
    terms(model, batch)[0].sum().backward()
    weight = model.backbone.language.blocks[0].attention.qkv.weight
    both = weight.grad.clone()
    model.zero_grad()
    seen = model.observe(None, batch["tokens"], None, batch["proprio"])
    from foundry_core.models.heads.networks.base import Targets

    targets = Targets(actions=batch["actions"], mask=batch["action_mask"])
    nats, _ = model.head.words.training_loss_terms(seen, targets, Key(0, 0, batch["draw_ids"]))
    (nats.sum() * 4).backward()
    torch.testing.assert_close(weight.grad, both)
    free = policy("pi0")
    terms(free, batch)[0].sum().backward()
    assert free.backbone.language.blocks[0].attention.qkv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["pi0", "pi0_alternate"])
def test_the_expert_s_draws_do_not_see_each_other(name):
    model, batch = policy(name), observations()
    trunk = model.head.trunk
    context = trunk.observed(model.observe(None, batch["tokens"], None, batch["proprio"]))
    noised, times = torch.randn(8, 3, K, A), torch.rand(8, 3)
    together = model.head.predict(context, noised, times)
    for draw in range(3):
        one = slice(draw, draw + 1)
        alone = model.head.predict(context, noised[:, one], times[:, one])
        torch.testing.assert_close(together[:, one], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "what"), [("bins", "compiled"), ("fast", "compiled")])
def test_what_cannot_be_accelerated_is_refused_by_name(name, what):
    with pytest.raises(FoundryError, match=f"action head '{name}' cannot be {what}"):
        Actor(policy(name), Acceleration(**{what: True}))


@pytest.mark.parametrize("name", ["pi0", "act", "bins"])
def test_held_in_bf16_they_act_as_under_autocast(name):
    model, batch = policy(name).eval(), observations(images=1)
    parts = [batch[n] for n in ("images", "tokens", "token_mask", "proprio")]
    seeds = torch.arange(8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model.act(*parts, seeds=seeds, steps=seeds)
    held = Actor(copy.deepcopy(model), Acceleration(precision="bf16"))
    assert torch.equal(held(*parts, seeds=seeds, steps=seeds), expected)


CLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
ENCODERS = {
    "own": EncoderConfig(
        vision=ConvViTConfig(
            image_size=32, dim=16, n_layers=1, n_heads=2, stem_dims=(8, 8), stem_groups=4
        ),
        text=language_config(n_layers=1),
        images=2,
    ),
    "resnet": EncoderConfig(
        vision={"kind": "resnet", "image_size": 32, "dim": 8, "stages": [1, 1], "groups": 4},
        images=2,
    ),
    "clip": EncoderConfig(
        vision=HFVisionConfig(
            config={
                **CLIP,
                "model_type": "clip_vision_model",
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 16,
            },
            image_size=32,
            patch_size=16,
            width=16,
        ),
        text=HFTextConfig(
            config={
                **CLIP,
                "model_type": "clip_text_model",
                "num_attention_heads": 2,
                "vocab_size": 50,
                "eos_token_id": OBS,
            }
        ),
        pool="mean",
        images=2,
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ["act", "flow"])
def test_policies_without_a_language_model(name, encoder, tmp_path):
    from foundry_core.models.io import load_model, save_model

    config = ENCODERS[encoder]
    model = policy(name, backbone=config).eval()
    batch = robot_batch([2, 5, 3], images=2)
    # No placeholders among the words.
    words = {n: batch[n][:, 8:] for n in ("tokens", "token_mask")}
    batch |= words
    batch |= {"actions": ACTIONS[:3], "action_mask": torch.ones(3, K, A, dtype=torch.bool)}
    everything, seeds = torch.arange(3), torch.arange(3)
    tokens = 3 if encoder == "clip" else 1 + 2 * config.vision.grid**2
    seen = model.condition(batch["images"], batch["tokens"], batch["token_mask"])
    assert seen.shape == (3, tokens, config.width)
    together = act(model, batch, everything, seeds)
    for row, length in enumerate((2, 5, 3)):
        one = {n: t[row : row + 1] for n, t in batch.items()}
        one |= {n: one[n][:, : length + 1] for n in words}
        alone = act(model, one, slice(None), seeds[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    told = batch | {"tokens": torch.where(batch["tokens"] == OBS, OBS, 7)}
    reads = (act(model, told, everything, seeds) - together).abs().max() > 1e-5
    assert reads == (config.text is not None)
    sees = act(model, batch | {"images": 255 - batch["images"]}, everything, seeds)
    assert (sees - together).abs().max() > 1e-5
    total, count = terms(model, batch)
    (total.sum() / count).backward()
    learns = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n.split(".")[1] for n in learns if n.startswith("backbone.")} >= {"vision", "joined"}
    save_model(tmp_path, model)
    loaded, found = load_model(tmp_path)
    assert found == model.config
    torch.testing.assert_close(act(loaded.eval(), batch, everything, seeds), together)


def test_a_blind_policy_of_encoders_looks_at_no_image():
    model = policy("act", backbone=ENCODERS["resnet"], use_images=False)
    batch = robot_batch([2], images=2)
    parts = batch["tokens"][:, 8:], batch["token_mask"][:, 8:]
    seen = model.condition(batch["images"], *parts)
    assert seen.shape == (1, 1, ENCODERS["resnet"].width)
    assert torch.equal(seen, model.condition(255 - batch["images"], *parts))


@pytest.mark.parametrize(("name", "needs"), [("bins", "reads and says"), ("pi0", "keys and val")])
def test_a_head_that_needs_a_language_model_says_so(name, needs):
    with pytest.raises(FoundryError, match=f"'{name}' needs .*{needs}.*'encoder' does not have"):
        policy(name, backbone=ENCODERS["resnet"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n_layers": 3}, "has 2"), ({"n_heads": 2}, "not a multiple of the backbone's 4")],
)
def test_an_expert_that_does_not_fit_its_backbone(changes, message):
    with pytest.raises(FoundryError, match=message):
        policy("pi0", head=Pi0HeadConfig(**(SHAPE | changes)))
