"""Whole losses trace into one graph, and compiled blocks train like uncompiled ones."""

from dataclasses import replace

import pytest
import torch
from model_zoo import IMAGE, OBS, TOKENS_PER_IMAGE, build, language_config, robot_batch, vla_config
from test_objectives import KEY, caption_batch, text_batch
from test_packing import caption_rows
from torch._dynamo.utils import counters
from training_toy import toy_trainer, weights

from foundry_core.models.blocks import compile_blocks
from foundry_core.training.mixed_batch import MixedLoss
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss
from foundry_core.training.packing import Packer

TEXT = TextLoss(z_loss=1e-4)
CAPTIONS = CaptionLoss(image_token_id=IMAGE, tokens_per_image=TOKENS_PER_IMAGE)
ROBOT = ActionLoss(image_token_id=IMAGE, obs_token_id=OBS, tokens_per_image=TOKENS_PER_IMAGE)


PACKED = replace(CAPTIONS, packer=Packer(length=48, fixed=True))


def mixed(model, objectives, batch):
    """(loss module, what its forward takes)."""
    loss = MixedLoss(model, objectives, {})
    counts = {m: objectives[m].elements(part).sum().float() for m, part in batch.items()}
    return loss, ({m: objectives[m].prepare(p) for m, p in batch.items()}, counts, KEY)


@pytest.mark.parametrize("stage", ["llm", "vlm", "vla", "packed vlm", "packed vla"])
def test_a_step_is_one_graph(stage):
    model = build(language_config() if stage == "llm" else vla_config())
    if stage.endswith("vlm"):
        model = model.backbone
    parts = {
        "llm": ({"text": TEXT}, {"text": text_batch()}),
        "vlm": ({"captions": CAPTIONS}, {"captions": caption_batch()}),
        "vla": (
            {"robot": ROBOT, "captions": CAPTIONS},
            {"robot": robot_batch([4, 4]), "captions": caption_batch()},
        ),
        "packed vlm": ({"captions": PACKED}, {"captions": caption_rows([6, 3, 5, 1])}),
        "packed vla": (
            {"robot": ROBOT, "captions": PACKED},
            {"robot": robot_batch([4, 4]), "captions": caption_rows([6, 3, 5, 1])},
        ),
    }
    loss, inputs = mixed(model, *parts[stage])
    torch._dynamo.reset()
    found = torch._dynamo.explain(loss)(*inputs)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.slow("compiles")
def test_compiled_blocks_give_the_gradients_of_eager_ones():
    model = build(language_config(n_layers=2))
    loss, inputs = mixed(model, {"text": TEXT}, {"text": text_batch()})
    gradients = []
    for compiled in (False, True):
        if compiled:
            compile_blocks(model)
        model.zero_grad()
        loss(*inputs)[0].backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow("compiles")
def test_compiled_blocks_read_packed_rows_as_eager_ones():
    """Rows of robot samples beside packed captions, of several lengths one after the other: the
    gradients of the uncompiled model, no graph breaks, and no graph more for other lengths."""
    model = build(vla_config())
    objectives = {"robot": ROBOT, "captions": PACKED}
    batches = [
        {"robot": robot_batch([4, 4]), "captions": caption_rows(words, seed=seed)}
        for seed, words in enumerate([[6, 3, 5, 1], [4, 4, 1, 6], [2, 6, 6, 1]])
    ]
    torch._dynamo.reset()
    counters.clear()
    found, graphs = [], []
    for compiled in (False, True):
        if compiled:
            compile_blocks(model)
        for batch in batches:
            loss, inputs = mixed(model, objectives, batch)
            model.zero_grad()
            value = loss(*inputs)[0]
            value.backward()
            gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            found.append((float(value.detach()), torch.cat(gradient)))
            graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    assert graphs[:3] == [0, 0, 0] and graphs[3] == graphs[4] == graphs[5] > 0
    for (eager, wanted), (value, gradient) in zip(found[:3], found[3:], strict=True):
        assert value == pytest.approx(eager, rel=1e-5)
        assert (gradient - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.slow("compiles")
def test_a_run_that_compiles(tmp_path):
    """The recipe's option reaches the model: the toy has one block in a list."""
    plain = toy_trainer(tmp_path / "plain", steps=6)
    plain.train()
    compiled = toy_trainer(tmp_path / "compiled", steps=6, training={"compile": "blocks"})
    compiled.train()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-4, atol=1e-6)
