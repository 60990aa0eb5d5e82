"""Captions that share rows: padding saved, and CPU seconds per caption.

    OMP_NUM_THREADS=1 python benchmarks/packing.py CAPTIONS TOKENIZER [--rounds 9] [--batch 32]

CAPTIONS and TOKENIZER are folders of the demo's store (store/convert_captions/<key>,
store/train_tokenizer/<key>). The model is the demo's VLM with fresh weights; a step is the host's
preparation, forward and backward, bf16 by autocast. Padded and packed rows take turns on the same
batches, and each figure is the median over the rounds of a round's ratio.

Lengths: "as they are", and "mixed": each caption cut after a number of words that is drawn between
four and all of them, as captions of the web differ.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import process_time

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import CaptionData, DataConfig
from foundry_core.data.robot.prompts import IMAGE
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.models.build import build_model
from foundry_core.models.interfaces import Backbone
from foundry_core.models.presets import load_preset
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.objectives import CaptionLoss
from foundry_core.training.packing import Packer

CAMERAS = ("workspace", "wrist")
LENGTHS = (128, 192, 256)
SEED = 0
Batch = dict[str, torch.Tensor]


def read(
    captions: Path, tokenizer: Tokenizer, model: Backbone, size: int, steps: int
) -> list[Batch]:
    """Batches of the first steps."""
    loader = build_loader(
        DataConfig(captions=CaptionData(batch_size=size, images=CAMERAS)),
        {"captions": {"captions": captions}},
        seed=SEED,
        tokenizer=tokenizer,
        tokens_per_image=model.tokens_per_image,
    )
    return [loader.batch(step)["captions"] for step in range(steps)]


def mixed(batch: Batch, seed: int) -> Batch:
    """Rows of other lengths: each caption ends after some of its words."""
    generator = torch.Generator().manual_seed(seed)
    held = batch["target_mask"].sum(dim=1)
    kept = 4 + (torch.rand(len(held), generator=generator) * (held - 3)).long()
    mask = batch["token_mask"].clone()
    mask &= batch["target_mask"].cumsum(dim=1) <= kept[:, None]
    width = -(-int(mask.sum(dim=1).max()) // 8) * 8
    named = {**batch, "token_mask": mask, "target_mask": batch["target_mask"] & mask}
    rows = ("tokens", "token_mask", "target_mask")
    return {name: t[:, :width] if name in rows else t for name, t in named.items()}


def seconds(model: Backbone, objective: CaptionLoss, batch: Batch) -> float:
    """Of CPU time, of a step."""
    begun = process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, objective.prepare(batch), StepKey(seed=0, step=0))["loss"]
    loss.backward()
    taken = process_time() - begun
    model.zero_grad(set_to_none=True)
    return taken


def positions(objective: CaptionLoss, batch: Batch) -> int:
    """That the decoder sees."""
    return objective.prepare(batch)["tokens"].numel()


def compare(name: str, model: Backbone, batches: list[Batch], rounds: int) -> None:
    plain = CaptionLoss(
        image_token_id=model.image_token_id, tokens_per_image=model.tokens_per_image
    )
    ways = {"padded": plain}
    for length in LENGTHS:
        packer = Packer(length=length)
        ways[f"packed, {length}"] = CaptionLoss(
            image_token_id=model.image_token_id,
            tokens_per_image=model.tokens_per_image,
            packer=packer,
        )
    real = sum(int(b["token_mask"][:, 1:].sum()) for b in batches)
    samples = len(batches[0]["tokens"])
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        batch = batches[number % len(batches)]
        once = {way: seconds(model, objective, batch) for way, objective in ways.items()}
        if number:  # the first one warms up
            for way, value in once.items():
                taken[way].append(value)
    for way, objective in ways.items():
        seen = sum(positions(objective, batch) for batch in batches)
        ratio = median(a / b for a, b in zip(taken[way], taken["padded"], strict=True))
        ms = 1e3 * median(taken[way]) / samples
        print(
            f"| {name} | {way} | {seen / len(batches) / samples:.1f} | "
            f"{100 * (seen - real) / seen:.1f} % | {ms:.2f} | {ratio:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="see the module's docstring")
    parser.add_argument("captions", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(options.tokenizer)
    image = tokenizer.add_special(IMAGE)
    language = load_preset("demo_llm").model_copy(update={"vocab_size": tokenizer.vocab_size})
    changes = {"language": language, "image_token_id": image}
    model = build_model(load_preset("demo_vlm").model_copy(update=changes), SEED)
    assert isinstance(model, Backbone)
    batches = read(options.captions, tokenizer, model, options.batch, 8)
    print(
        "| lengths | rows | positions per caption | of it padding | CPU ms per caption | x padded |"
    )
    print("|---|---|---|---|---|---|")
    compare("as they are", model, batches, options.rounds)
    compare("mixed", model, [mixed(b, i) for i, b in enumerate(batches)], options.rounds)


if __name__ == "__main__":
    main()
