"""`foundry size PIPELINE [STAGE]`: what its trainings take, from their declarations alone."""

import argparse
from typing import Any

from flows.cli.commands.common import add_pipeline_argument, print_json
from foundry_core.config.overrides import parse_override
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.training.peaks import GPU, MFU, PEAKS, peak_of
from foundry_core.training.sizing.cost import StageCost

COLUMNS = ("parameters", "GPUs", "GiB each", "steps", "samples", "tokens", "FLOPs", "GPU hours")
_GIB = 2**30
_STEPS = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_argument(parser, "change one value, e.g. llm.resources.gpus=8")
    parser.add_argument("stage", nargs="?", help="one training stage, by part and by use of memory")
    parser.add_argument(
        "--gpu", default=GPU, help=f"whose peak counts (default {GPU}): {', '.join(PEAKS)}"
    )
    parser.add_argument(
        "--mfu", type=float, default=MFU, help=f"share of the peak that is reached (default {MFU})"
    )


def run(options: argparse.Namespace) -> int:
    from foundry_core.pipeline.graph import load_pipeline
    from foundry_core.pipeline.registry import stage_kind
    from foundry_core.training.sizing.stages import cost_of, training_stages

    peak = peak_of(options.gpu)
    if peak is None:
        raise FoundryError(
            f"the peak of a {options.gpu!r} is not known", nearest(options.gpu, list(PEAKS))
        )
    if not 0 < options.mfu <= 1:
        raise FoundryError(f"mfu {options.mfu:g} is not between 0 and 1", "e.g. --mfu 0.4")
    overrides = [parse_override(text) for text in options.override]
    pipeline = load_pipeline(options.pipeline, overrides, kinds=stage_kind)
    if options.stage and options.stage not in pipeline.stages:
        raise FoundryError(
            f"no stage {options.stage!r}", nearest(options.stage, training_stages(pipeline))
        )
    names = [options.stage] if options.stage else training_stages(pipeline)
    if not names:
        raise FoundryError("no stage of this pipeline trains a model", "foundry plan shows them")
    costs = {name: cost_of(pipeline, name) for name in names}
    if options.json:
        print_json({name: _as_json(cost, peak, options.mfu) for name, cost in costs.items()})
        return 0
    _show(costs, peak, options)
    if options.stage:
        _show_stage(costs[options.stage])
    return 0


def _as_json(cost: StageCost, peak: float, mfu: float) -> dict[str, Any]:
    return {
        "parameters": cost.parameters,
        "trained": cost.trained,
        "parts": {
            name: {
                "parameters": part.parameters,
                "trained": part.trained,
                "flops_per_step": part.flops,
                "flops_again_per_step": part.again,
            }
            for name, part in cost.parts.items()
        },
        "rows": [vars(row) for row in cost.rows],
        "gpus": cost.workers,
        "bytes_per_gpu": cost.bytes_per_gpu,
        "memory": dict(cost.memory),
        "steps": cost.steps,
        "samples": cost.samples,
        "tokens": cost.tokens,
        "flops": cost.flops,
        "gpu_hours": cost.gpu_hours(peak, mfu),
    }


def _show(costs: dict[str, StageCost], peak: float, options: argparse.Namespace) -> None:
    from rich.table import Table

    from flows.terminal import stdout

    table = Table("stage", *COLUMNS, "days")
    for name, cost in costs.items():
        days = cost.gpu_hours(peak, options.mfu) / cost.workers / 24
        table.add_row(name, *cells(cost, peak, options.mfu), f"{days:.2f}")
    out = stdout()
    out.print(table)
    out.print(
        f"GPU hours at {100 * options.mfu:g} % of {peak / 1e12:g} TFLOP/s ({options.gpu}, bf16); "
        "GiB of uncompiled code, without the device's context (1-2 GiB); rows as long as the "
        "recipe lets them be",
        highlight=False,
    )


def cells(cost: StageCost, peak: float, mfu: float) -> list[str]:
    """Of COLUMNS."""
    return [
        short(cost.parameters),
        str(cost.workers),
        f"{cost.bytes_per_gpu / _GIB:.1f}",
        f"{cost.steps:,}",
        short(cost.samples),
        short(cost.tokens),
        f"{cost.flops:.2e}",
        f"{cost.gpu_hours(peak, mfu):,.1f}",
    ]


def _show_stage(cost: StageCost) -> None:
    from rich.table import Table

    from flows.terminal import stdout

    parts = Table("part", "parameters", "trained", "FLOPs per step", "computed again")
    for name, part in cost.parts.items():
        again = f"{part.again:.2e}" if part.again else ""
        parts.add_row(name, f"{part.parameters:,}", f"{part.trained:,}", f"{part.flops:.2e}", again)
    rows = Table("rows of a step", "samples", "positions", "images", "with logits")
    for row in cost.rows:
        counts = (row.samples, row.positions, row.images, round(row.targets))
        rows.add_row(row.modality, *(f"{count:,}" for count in counts))
    memory = Table("memory of a GPU", "GiB")
    for name, count in cost.memory.items():
        memory.add_row(name, f"{count / _GIB:.2f}")
    memory.add_row("in all", f"{cost.bytes_per_gpu / _GIB:.2f}")
    for table in (parts, rows, memory):
        stdout().print(table)


def short(count: float) -> str:
    """1.44B: three digits and a letter."""
    for letter, unit in _STEPS:
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:g}"
