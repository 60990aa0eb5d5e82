"""CPU seconds of a training step: our language model beside transformers' Llama and a plain GPT.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py [--shape demo small] [--rounds 15]
                                                         [--precision bf16 fp32]

All in one process, in turn, so that what else the machine does meets all alike; each figure is the
median over the rounds of a round's ratio. A step is forward, backward, clipping to norm 1 and fused
AdamW on float32 weights; bf16 is autocast for all. Each model has the same width, layers, heads,
vocabulary, tied table and number of weights per block, and reads the same tokens: rows of one
document. `packed` is our model on rows of several documents, which the others cannot tell apart.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import torch
from rows import Row, add_rows_argument, write_rows
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.data.loading.config import TEXT
from foundry_core.models.build import build_model
from foundry_core.models.config import TransformerConfig
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.loop import Trainer
from foundry_core.training.objectives import TextLoss

Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Shape:
    dim: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    length: int
    rows: int


SHAPES: Mapping[str, Shape] = {
    "demo": Shape(dim=128, layers=4, heads=4, ffn=256, vocabulary=2048, length=128, rows=32),
    "small": Shape(dim=256, layers=6, heads=8, ffn=768, vocabulary=2048, length=256, rows=8),
    "wide": Shape(dim=512, layers=4, heads=8, ffn=1536, vocabulary=8192, length=512, rows=2),
    "words": Shape(dim=96, layers=8, heads=4, ffn=256, vocabulary=50432, length=128, rows=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=15)
    add_rows_argument(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in given.shape:
        for precision in given.precision:
            seconds = measured(SHAPES[name], precision, given.rounds)
            print(f"{name:6} {precision}  {in_words(seconds)}", flush=True)
            rows += [
                Row(
                    what=f"LLM step, shape {name}, {precision}",
                    unit="CPU ms",
                    ours=1e3 * median(seconds["ours"]),
                    beside=beside,
                    theirs=1e3 * median(seconds[other]),
                )
                for other, beside in (("llama", "LlamaForCausalLM"), ("gpt", "a plain GPT"))
            ]
    write_rows(given.rows, rows)


def measured(shape: Shape, precision: str, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each model's steps."""
    steps = {
        "llama": other(llama(shape), shape, precision),
        "gpt": other(PlainGPT(shape), shape, precision),
        "ours": ours(shape, precision, documents=1),
        "packed": ours(shape, precision, documents=4),
    }
    return in_turn(steps, rounds)


def in_words(seconds: Mapping[str, Sequence[float]]) -> str:
    shown = "  ".join(f"{n} {1e3 * median(s):7.1f} ms" for n, s in seconds.items())
    fastest = [min(pair) for pair in zip(seconds["llama"], seconds["gpt"], strict=True)]
    ratios = [
        f"{name} {median(f / s for f, s in zip(fastest, seconds[name], strict=True)):.2f} x"
        for name in ("ours", "packed")
    ]
    return f"{shown}  as fast as the faster of both: {', '.join(ratios)}"


def in_turn(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every step in every round, after two that warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            began = process_time()
            step()
            if turn >= 2:
                seconds[name].append(process_time() - began)
    return seconds


def tokens_of(shape: Shape) -> Tensor:
    """int64 [rows, length + 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(shape.vocabulary, (shape.rows, shape.length + 1), generator=generator)


def ours(shape: Shape, precision: str, *, documents: int) -> Step:
    """The trainer's own step; documents: of equal length in each row."""
    config = TransformerConfig(
        dim=shape.dim,
        n_layers=shape.layers,
        n_heads=shape.heads,
        ffn_dim=shape.ffn,
        norm="rms",
        tie_embeddings=True,
        vocab_size=shape.vocabulary,
        context=shape.length,
    )
    training = TrainingConfig.model_validate(
        {"steps": 1000, "precision": precision, "schedule": {"kind": "constant"}, "clip": 1.0}
    )
    trainer = Trainer(
        model=build_model(config, seed=0),
        objectives={TEXT: TextLoss()},
        batches=lambda first: [],
        config=training,
        total_steps=1000,
        seed=0,
        resources=TrainResources(),
        scratch=Path("."),
        records=Path("."),
        progress=lambda *_, **__: None,
    )
    trainer.build()
    tokens = tokens_of(shape)
    segments = torch.arange(shape.length + 1) * documents // (shape.length + 1)
    batch = {TEXT: {"tokens": tokens, "segments": segments.expand_as(tokens).contiguous()}}

    def step() -> None:
        trainer.step(0, batch)

    return step


def llama(shape: Shape) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.dim,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.ffn,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.length,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaLoss(LlamaForCausalLM(config))


class LlamaLoss(nn.Module):
    """transformers' own loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.model(input_ids=tokens, shift_labels=targets, labels=targets).loss


class PlainGPT(nn.Module):
    """What one writes in an afternoon: learned positions, LayerNorm, torch's fused attention, GELU,
    F.cross_entropy of all logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.dim)
        self.positions = nn.Embedding(shape.length, shape.dim)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.embedding.weight.t()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PlainBlock(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        hidden = 3 * shape.ffn // 2  # two matrices with the weights of SwiGLU's three
        self.norm_1, self.norm_2 = nn.LayerNorm(shape.dim), nn.LayerNorm(shape.dim)
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)
        self.up = nn.Linear(shape.dim, hidden, bias=False)
        self.down = nn.Linear(hidden, shape.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, dim))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


def other(model: nn.Module, shape: Shape, precision: str) -> Step:
    tokens = tokens_of(shape)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
