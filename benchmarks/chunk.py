"""CPU milliseconds of a policy's chunk, as written and compiled, in turn within one run.

    OMP_NUM_THREADS=1 python benchmarks/chunk.py [--batch 1 4] [--rounds 60] [--frozen]

The demo's shapes with random weights, float32, ten Euler steps. Compiling counts the compiler's
processes; it is cold where TORCHINDUCTOR_CACHE_DIR is an empty folder. frozen: weights as
constants of the code.
"""

import argparse
import copy
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.models.build import build_model
from foundry_core.models.inference import COMPILED_MULTIPLE, Acceleration, Actor
from foundry_core.models.presets import load_preset
from foundry_core.models.vla import VLA

_IMAGE, _OBS, _VOCABULARY = 2048, 2049, 2050
_LENGTH = 3 * COMPILED_MULTIPLE
"""Tokens of an observation: eight of two pictures, an instruction."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--frozen", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.frozen:
        torch._inductor.config.freezing = True
    model = demo_policy()
    ways = {
        "eager": Actor(copy.deepcopy(model)),
        "compiled": Actor(copy.deepcopy(model), Acceleration(compiled=True)),
    }
    for batch in given.batch:
        inputs = observations(model, batch)
        first = cpu_seconds()
        found = ways["compiled"](**inputs)
        seconds = cpu_seconds() - first
        apart = (found - ways["eager"](**inputs)).abs().max().item()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, actor in ways.items():
                start = time.process_time()
                actor(**inputs)
                times[name].append(1e3 * (time.process_time() - start))
        for name, all_of in times.items():
            print(
                f"batch {batch}, {name}: median {statistics.median(all_of):.1f}, "
                f"least {min(all_of):.1f} CPU ms"
            )
        ratios = [b / a for a, b in zip(*times.values(), strict=True)]
        print(
            f"batch {batch}: compiled / eager {statistics.median(ratios):.2f} (median of rounds); "
            f"apart {apart:.1e}; first chunk {seconds:.0f} CPU s"
        )


def demo_policy() -> VLA:
    """Of the demo's presets, with what its data settle."""
    language = load_preset("demo_llm").model_copy(update={"vocab_size": _VOCABULARY})
    backbone = load_preset("demo_vlm").model_copy(
        update={"language": language, "image_token_id": _IMAGE}
    )
    sizes = {"horizon": 8, "action_dim": 10, "proprio_dim": 10, "proprio_steps": 1}
    config = load_preset("demo_vla").model_copy(
        update={"backbone": backbone, "obs_token_id": _OBS, **sizes}
    )
    model = build_model(config, 0)
    assert isinstance(model, VLA)
    with torch.no_grad():  # a fresh head answers zeros
        model.head.trunk.out.weight.normal_(std=0.02)
    return model


def observations(model: VLA, batch: int) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 2000, (batch, _LENGTH), generator=drawn)
    tokens[:, 1 : 1 + 2 * model.backbone.tokens_per_image] = _IMAGE
    tokens[:, -1] = _OBS
    return {
        "images": torch.randint(0, 256, (batch, 2, 3, 64, 64), generator=drawn, dtype=torch.uint8),
        "tokens": tokens,
        "token_mask": torch.ones(batch, _LENGTH, dtype=torch.bool),
        "proprio": torch.randn(batch, 1, 10, generator=drawn),
        "seeds": torch.arange(batch),
        "steps": torch.zeros(batch, dtype=torch.int64),
    }


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
