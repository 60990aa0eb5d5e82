import copy

import pytest
import torch
from model_zoo import build, flow_config, robot_batch, vla_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foundry_core.errors import FoundryError
from foundry_core.models.heads.act import ActHeadConfig
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.inference import Acceleration, Actor, hold_bf16

BATCH = robot_batch([4, 3])
SEEDS, STEPS = torch.tensor([5, 6]), torch.tensor([0, 3])


def chunk(act, batch=BATCH):
    parts = (batch[name] for name in ("images", "tokens", "token_mask", "proprio"))
    device = batch["tokens"].device
    return act(*parts, seeds=SEEDS.to(device), steps=STEPS.to(device))


def test_plain_is_the_models_own():
    model = build(vla_config()).eval()
    assert torch.equal(chunk(Actor(model)), chunk(model.act))


def test_weights_held_in_bf16_give_autocasts_own_bits():
    model = build(vla_config()).eval()
    with torch.autocast("cpu", torch.bfloat16):
        expected = chunk(model.act)
    held = Actor(copy.deepcopy(model), Acceleration(precision="bf16"))
    assert torch.equal(chunk(held), expected)
    assert not torch.equal(chunk(model.act), expected)
    assert held.model.head.trunk.out.weight.dtype is torch.bfloat16
    norms = [p for n, p in held.model.named_parameters() if "norm" in n]
    assert norms and all(p.dtype is torch.float32 for p in norms)


def test_half_the_bytes():
    model = build(vla_config())
    before = sum(p.numel() * p.element_size() for p in model.head.parameters())
    hold_bf16(model)
    after = sum(p.numel() * p.element_size() for p in model.head.parameters())
    assert after < 0.6 * before


@pytest.mark.slow("compiles")
def test_a_compiled_chunk_acts_like_an_eager_one():
    model = build(vla_config()).eval()
    expected = chunk(model.act)
    compiled = Actor(copy.deepcopy(model), Acceleration(compiled=True))
    torch.testing.assert_close(chunk(compiled), expected, rtol=1e-4, atol=1e-5)
    wrong = BATCH | {"tokens": torch.zeros_like(BATCH["tokens"])}
    with pytest.raises(FoundryError, match="0 observation tokens"):
        chunk(compiled, wrong)


def test_a_chunk_is_one_graph():
    """Whatever broke it in two would cost Python in between, and copies."""
    model = build(vla_config()).eval()

    def act(images, tokens, mask, proprio, seeds, steps):
        return model.act(images, tokens, mask, proprio, seeds=seeds, steps=steps)

    parts = [BATCH[name] for name in ("images", "tokens", "token_mask", "proprio")]
    with torch.inference_mode():
        found = torch._dynamo.explain(act)(*parts, SEEDS, STEPS)
    assert (found.graph_count, found.break_reasons) == (1, [])


def test_graphs_want_a_gpu():
    with pytest.raises(FoundryError, match=r"CUDA graphs need .* on cpu"):
        Actor(build(vla_config()), Acceleration(graphs=True))


class FromTheHost(TorchDispatchMode):
    """Counts operations that meet a CPU tensor: each is a copy that a recording cannot hold."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cpu" for x in tensors):
            self.found.append(str(func))
        return result


SMALL = {"dim": 32, "n_layers": 1, "n_heads": 4, "ffn_dim": 32}
RECORDED = [
    flow_config(),
    DiffusionHeadConfig(dim=32, n_layers=1, n_heads=2),
    ActHeadConfig(**SMALL),
    Pi0HeadConfig(**SMALL),
    BinsHeadConfig(bins=8, token_ids=tuple(range(10, 18)), temperature=1.0),
]


@pytest.mark.parametrize("head", RECORDED, ids=lambda head: head.kind)
def test_a_second_chunk_takes_nothing_from_the_host(head):
    """What a CUDA graph needs: all constants are on the device after the first."""
    model = build(vla_config(head=head)).to("meta").eval()
    batch = {name: tensor.to("meta") for name, tensor in BATCH.items()}
    seeds = torch.empty(2, dtype=torch.int64, device="meta")
    parts = [batch[name] for name in ("images", "tokens", "token_mask", "proprio")]
    model.act(*parts, seeds=seeds, steps=seeds)
    with FromTheHost() as host:
        model.act(*parts, seeds=seeds, steps=seeds)
    assert host.found == []


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 16)])
def test_rows_of_recorded_batches(count, rows):
    assert Acceleration(graphs=True).rows(count) == rows
    assert Acceleration(compiled=True).rows(count) == rows
    assert Acceleration().rows(count) == count


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_a_replayed_chunk_is_the_eager_one(compiled):
    model = build(vla_config()).eval().cuda()
    how = Acceleration(precision="bf16", compiled=compiled)
    eager = Actor(copy.deepcopy(model), how)
    graphs = Actor(model, Acceleration(precision="bf16", compiled=compiled, graphs=True))
    for lengths, seed in (([4, 3], 0), ([4, 3], 1), ([2, 6], 2), ([4, 3], 3)):
        batch = {n: t.cuda() for n, t in robot_batch(lengths, seed=seed).items()}
        torch.testing.assert_close(chunk(graphs, batch), chunk(eager, batch))


@cuda
@pytest.mark.parametrize("head", RECORDED[2:], ids=lambda head: head.kind)
def test_what_other_heads_replay_is_what_they_say(head):
    model = build(vla_config(head=head)).eval().cuda()
    eager, graphs = Actor(copy.deepcopy(model)), Actor(model, Acceleration(graphs=True))
    for lengths, seed in (([4, 3], 0), ([4, 3], 1), ([2, 6], 2)):
        batch = {n: t.cuda() for n, t in robot_batch(lengths, seed=seed).items()}
        torch.testing.assert_close(chunk(graphs, batch), chunk(eager, batch))
