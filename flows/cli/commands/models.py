"""`foundry models`: the presets, their sizes, and what training them takes at least."""

import argparse

from flows.cli.commands.common import print_json
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

# AdamW with float32 weights: weights, gradients and two moments; activations come on top.
_TRAINED_BYTES = 16
_HELD_BYTES = 2  # bfloat16
_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one preset: its whole configuration")


def run(options: argparse.Namespace) -> int:
    from foundry_core.models.presets import load_preset, preset_names

    names = [options.name] if options.name else preset_names()
    presets = {name: load_preset(name) for name in names}
    if options.json or options.name:
        print_json({name: preset.model_dump(mode="json") for name, preset in presets.items()})
        return 0
    from rich.table import Table

    from flows.terminal import stdout

    table = Table("preset", "kind", "width", "layers", "parameters", "GiB held", "GiB trained")
    for name, preset in presets.items():
        table.add_row(name, *_cells(preset))
    out = stdout()
    out.print(table)
    out.print(
        "held: weights in bf16. trained: weights, gradients and AdamW's moments in float32; "
        "activations come on top. No figures where the size depends on data or on a backbone: "
        "`foundry size PIPELINE` knows them, with memory per GPU, FLOPs and GPU hours."
    )
    return 0


def _cells(preset: Config) -> list[str]:
    from flows.cli.commands.size import short

    shown = preset if hasattr(preset, "dim") else getattr(preset, "head", None)
    widths = [str(getattr(shown, size, "")) for size in ("dim", "n_layers")]
    count = _parameters(preset)
    kind = str(getattr(preset, "kind", ""))
    if count is None:
        return [kind, *widths, "", "", ""]
    gib = (f"{count * each / _GIB:.2f}" for each in (_HELD_BYTES, _TRAINED_BYTES))
    return [kind, *widths, short(count), *gib]


def _parameters(preset: Config) -> int | None:
    """None where data or a backbone decide."""
    from foundry_core.training.sizing.models import parts_of

    try:
        return sum(part.parameters for part in parts_of(preset))
    except FoundryError:
        return None
