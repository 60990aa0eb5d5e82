"""Parts of models: norms of their gradients, and blocks that run again in the backward pass."""

import weakref

import pytest
import torch
from model_zoo import build, language_config, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT, TEXT, mixed
from test_objectives import caption_batch, text_batch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foundry_core.errors import FoundryError
from foundry_core.models.blocks import compile_blocks
from foundry_core.training.flops import on_meta
from foundry_core.training.parts import part_norms, parts_of, recompute, transformer_blocks

ALL = ("language", "vision", "head")


def policy_step(model):
    batch = {"robot": robot_batch([4, 3]), "captions": caption_batch()}
    return mixed(model, {"robot": ROBOT, "captions": CAPTIONS}, batch)


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_every_weight_of_a_policy_is_in_one_part():
    model = build(vla_config())
    parts = parts_of(model)
    assert list(parts) == ["language", "vision", "projector", "head"]
    ids = [id(p) for modules in parts.values() for m in modules for p in m.parameters()]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_norms_of_the_parts_make_the_whole():
    model = build(vla_config())
    loss, inputs = policy_step(model)
    loss(*inputs)[0].backward()
    norms = part_norms(model)
    assert set(norms) == {f"grad_norm_{part}" for part in parts_of(model)}
    head = [p.grad for p in model.head.parameters() if p.grad is not None]
    assert norms["grad_norm_head"] == pytest.approx(sum(g.square().sum() for g in head).sqrt())
    whole = torch.nn.utils.get_total_norm(list(gradients(model).values()))
    assert sum(n.square() for n in norms.values()).sqrt() == pytest.approx(whole)


@pytest.mark.parametrize("bf16", [False, True])
def test_recomputed_blocks_give_the_same_bits(bf16):
    found = []
    for names in ((), ALL):
        model = build(vla_config())
        recompute(model, names)
        loss, inputs = policy_step(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total = loss(*inputs)[0]
        total.backward()
        found.append(gradients(model) | {"loss": total.detach()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())


def test_blocks_are_those_of_the_transformers():
    model = build(vla_config())
    assert list(transformer_blocks(model.backbone.language)) == list(model.backbone.text_layers)
    assert len(list(transformer_blocks(model.backbone.vision))) == 1  # no convolution of the stem
    with pytest.raises(FoundryError, match="names 'vision', of which this model has no blocks"):
        recompute(build(language_config()), ["vision"])


@pytest.mark.slow("compiles")
def test_recomputed_blocks_stay_one_graph():
    model = build(vla_config())
    recompute(model, ALL)
    loss, inputs = policy_step(model)
    torch._dynamo.reset()
    found = torch._dynamo.explain(loss)(*inputs)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.slow("compiles")
def test_recomputed_and_compiled_blocks_give_the_gradients_of_eager_ones():
    model = build(language_config(n_layers=2))
    loss, inputs = mixed(model, {"text": TEXT}, {"text": text_batch()})
    loss(*inputs)[0].backward()
    eager = gradients(model)
    model.zero_grad()
    recompute(model, ["language"])
    compile_blocks(model)
    loss(*inputs)[0].backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, eager[name], rtol=1e-4, atol=1e-6)


class Live(TorchDispatchMode):
    """Bytes of storages that operations made and somebody still holds."""

    def __init__(self):
        super().__init__()
        self._storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        old = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}  # weights, views
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in old:
                self._storages[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return out

    def bytes(self) -> int:
        return sum(size for ref, size in self._storages.values() if ref() is not None)


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def kept(layers: int, again: bool) -> int:
    """Bytes that the forward pass of a language model leaves for its backward pass."""
    model = on_meta(build(language_config(n_layers=layers)))
    if again:
        recompute(model, ["language"])
    tokens = torch.zeros(8, 16, dtype=torch.int64, device="meta")
    model.hidden(model.embed(tokens))  # the table of rotary positions is made once and cached
    with Live() as live:
        hidden = model.hidden(model.embed(tokens))
        held = live.bytes()
    assert hidden.requires_grad
    return held


def test_a_recomputed_layer_keeps_its_input_alone():
    """8 rows of 16 positions of width 32 in float32: 16,384 bytes."""
    assert kept(5, True) - kept(4, True) == 8 * 16 * 32 * 4
    plain = kept(5, False) - kept(4, False)
    # At least: two norms' inputs, qkv, both products of attention, gate, up, their product.
    assert plain > 8 * 16 * 4 * (2 * 32 + 3 * 32 + 2 * 32 + 3 * 48)
