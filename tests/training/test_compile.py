"""Whole losses trace into one graph, and compiled blocks train like uncompiled ones."""

import pytest
import torch
from model_zoo import IMAGE, OBS, TOKENS_PER_IMAGE, build, language_config, robot_batch, vla_config
from test_objectives import KEY, caption_batch, text_batch
from training_toy import toy_trainer, weights

from foundry_core.models.blocks import compile_blocks
from foundry_core.training.mixed_batch import MixedLoss
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss

TEXT = TextLoss(z_loss=1e-4)
CAPTIONS = CaptionLoss(image_token_id=IMAGE, tokens_per_image=TOKENS_PER_IMAGE)
ROBOT = ActionLoss(image_token_id=IMAGE, obs_token_id=OBS, tokens_per_image=TOKENS_PER_IMAGE)


def mixed(model, objectives, batch):
    """(loss module, what its forward takes)."""
    loss = MixedLoss(model, objectives, {})
    counts = {m: objectives[m].elements(part).sum().float() for m, part in batch.items()}
    return loss, ({m: objectives[m].prepare(p) for m, p in batch.items()}, counts, KEY)


@pytest.mark.parametrize("stage", ["llm", "vlm", "vla"])
def test_a_step_is_one_graph(stage):
    model = build(language_config() if stage == "llm" else vla_config())
    if stage == "vlm":
        model = model.backbone
    parts = {
        "llm": ({"text": TEXT}, {"text": text_batch()}),
        "vlm": ({"captions": CAPTIONS}, {"captions": caption_batch()}),
        "vla": (
            {"robot": ROBOT, "captions": CAPTIONS},
            {"robot": robot_batch([4, 4]), "captions": caption_batch()},
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
def test_a_run_that_compiles(tmp_path):
    """The recipe's option reaches the model: the toy has one block in a list."""
    plain = toy_trainer(tmp_path / "plain", steps=6)
    plain.train()
    compiled = toy_trainer(tmp_path / "compiled", steps=6, training={"compile": "blocks"})
    compiled.train()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-4, atol=1e-6)
