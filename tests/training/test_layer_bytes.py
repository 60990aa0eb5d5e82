"""Activation bytes per layer: what one block keeps of each position for the backward pass, counted
by autograd's own hooks, against bytes written out by hand and those that sizes are reckoned from.

A block's own share is a difference of differences: of models with a block more, and of batches with
a row more. Copies of weights, embeddings, heads and losses are not in it.
"""

import pytest
import torch
from test_sizing import (  # noqa: F401
    as_on_a_gpu,
    caption_case,
    kept_bytes,
    language,
    robot_case,
    text_case,
    vla,
    vlm,
)

from foundry_core.models.build import build_model
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.parts import recompute
from foundry_core.training.sizing.models import parts_of
from foundry_core.training.sizing.shapes import Bytes

# D 64, four heads of 16, F 160 in the language part; D 48, four heads of 12, F 192 in the tower.
NORM = 4 * 64 + 2 * 4  # its input and two statistics, in float32
PLAIN = {
    # Two norms and what they hand on; q, k, v; rotated q and k; the output and its log-sum; gate
    # and up, silu(gate), their product.
    "bf16": 2 * (NORM + 2 * 64) + 2 * 3 * 64 + 2 * 2 * 64 + 2 * 64 + 4 * 4 + 2 * 4 * 160,
    "fp32": 2 * (NORM + 4 * 64) + 4 * 3 * 64 + 4 * 2 * 64 + 4 * 64 + 4 * 4 + 4 * 4 * 160,
}
# Half the keys and values; of q and k before their norms, float32 copies and statistics per head.
GROUPED = (
    2 * (NORM + 2 * 64)
    + (2 * 2 * 64 + 4 * 1.5 * 64 + 4 * 2 * 6)
    + 2 * 1.5 * 64
    + (2 * 64 + 4 * 4)
    + 2 * 4 * 160
)
# No rotation; a feed-forward of GELU, whose input and output are kept.
TOWER = 2 * (4 * 48 + 2 * 4 + 2 * 48) + 2 * 3 * 48 + 2 * 48 + 4 * 4 + 2 * 2 * 192
PATCHES = 18 * 18


def kept(case, config, rows: int, precision: str, again: tuple[str, ...]) -> int:
    objective, batch, _ = case(config)
    model = build_model(config, seed=0)
    recompute(model, again)
    if precision == "bf16_weights":  # as FSDP's copies are
        model = model.to(torch.bfloat16)
    batch = objective.prepare({name: value[:rows] for name, value in batch.items()})

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            return objective(model, batch, StepKey(seed=0, step=0))["loss"]

    return kept_bytes(model, loss)


def by_a_block(case, configs, precision: str, again: tuple[str, ...] = ()) -> int:
    """Bytes that a row adds to what a block adds. configs: without it, with it."""
    found = [[kept(case, c, rows, precision, again) for rows in (1, 2)] for c in configs]
    (first, second), (longer, both) = found
    return (both - longer) - (second - first)


def languages(**changes):
    return [language(n_layers=n, **changes) for n in (2, 3)]


def of_part(config, name: str):
    return next(part for part in parts_of(config) if part.name == name)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["bf16", "fp32", "bf16_weights"])
def test_a_decoder_block_keeps_so_much_of_a_token(precision):
    *_, row = text_case(language())
    counted = by_a_block(text_case, languages(), precision) / row.positions
    assert counted == PLAIN["fp32" if precision == "fp32" else "bf16"]
    assert of_part(language(), "language").shape.kept(Bytes.of(precision)) == counted


@pytest.mark.usefixtures("as_on_a_gpu")
def test_grouped_keys_that_are_normed():
    changes = {"n_kv_heads": 2, "qk_norm": True}
    *_, row = text_case(language())
    counted = by_a_block(text_case, languages(**changes), "bf16") / row.positions
    assert counted == GROUPED
    assert of_part(language(**changes), "language").shape.kept(Bytes.of("bf16")) == counted


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    ("case", "configs"),
    [
        (caption_case, [vlm(language=one) for one in languages()]),
        (robot_case, [vla(backbone=vlm(language=one)) for one in languages()]),
    ],
    ids=["vlm", "vla"],
)
def test_the_same_block_under_images_and_under_a_head(case, configs):
    *_, row = case(configs[0])
    assert by_a_block(case, configs, "bf16") / row.positions == PLAIN["bf16"]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_block_of_the_tower():
    towers = [vlm().vision.model_copy(update={"n_layers": n}) for n in (1, 2)]
    configs = [vlm(vision=tower) for tower in towers]
    *_, row = caption_case(configs[0])
    counted = by_a_block(caption_case, configs, "bf16") / (row.images * PATCHES)
    assert counted == TOWER
    assert of_part(configs[0], "vision").shape.kept(Bytes.of("bf16")) == counted


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_block_that_runs_again_keeps_its_input_alone():
    *_, row = text_case(language())
    for precision, each in (("bf16", 2), ("fp32", 4)):
        counted = by_a_block(text_case, languages(), precision, ("language",)) / row.positions
        assert counted == each * 64
        passed = of_part(language(n_layers=3), "language").passed(row, Bytes.of(precision))
        assert passed.inputs == 3 * row.positions * counted
