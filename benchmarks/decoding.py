"""Tokens per second that a language model writes, with keys and values kept and without.

    python benchmarks/decoding.py [--preset demo_llm llm_100m] [--prompt 64] [--tokens 64]
                                  [--batch 1 8] [--device cpu]

Random weights, the likeliest token, prompts of one length. Without: the whole row is read again for
each token, its logits are computed for the last position alone. Reading the prompt counts in both.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rows import Row, add_rows_argument, write_rows
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.models.build import build_model
from foundry_core.models.generation import generate
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import LanguageModel, Prompts
from foundry_core.models.presets import load_preset

_VOCABULARY = 2048
"""Of presets that leave it to the tokenizer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", nargs="+", default=["demo_llm", "llm_100m"])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu")
    add_rows_argument(parser)
    given = parser.parse_args()
    rows = []
    for preset in given.preset:
        model = built(preset).to(given.device)
        for batch in given.batch:
            prompts = torch.randint(2, 200, (batch, given.prompt)).tolist()
            text, ours, theirs = measured(model, Prompts.of(prompts), given.tokens)
            print(f"{preset}, batch {batch}: {text}")
            row = Row(
                what=f"{preset} writes {given.tokens} tokens, batch {batch}",
                unit="tokens/s",
                ours=ours,
                beside="the whole row read again",
                theirs=theirs,
                more=True,
            )
            rows.append(row)
    write_rows(given.rows, rows)


def measured(model: LanguageModel, prompts: Prompts, tokens: int) -> tuple[str, float, float]:
    """Both ways, which must write the same: in words, and tokens/s of each."""
    config = GenerationConfig(max_tokens=tokens)
    cached, kept = timed(lambda: with_cache(model, prompts, config))
    again, read = timed(lambda: without(model, prompts, config))
    assert torch.equal(kept, read), "both ways write the same"
    batch, length = prompts.tokens.shape
    first = seconds_of_prompt(model, prompts)
    text = (
        f"{length} + {tokens} tokens: {batch * tokens / cached:.0f}/s with, "
        f"{batch * tokens / again:.0f}/s without: {again / cached:.1f} x; "
        f"prompt {1e3 * first:.1f} ms, then {1e3 * (cached - first) / tokens:.2f} ms per step; "
        f"cache {cache_bytes(model, prompts, tokens) / 2**20:.1f} MiB"
    )
    return text, batch * tokens / cached, batch * tokens / again


def built(preset: str) -> LanguageModel:
    config = load_preset(preset)
    if getattr(config, "vocab_size", 0) is None:
        config = config.model_copy(update={"vocab_size": _VOCABULARY})
    model = build_model(config, seed=0).eval()
    assert isinstance(model, LanguageModel), f"{preset} is no language model"
    return model


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """(seconds, result) of the faster of two runs."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def with_cache(model: LanguageModel, prompts: Prompts, config: GenerationConfig) -> Tensor:
    return torch.tensor([one.tokens for one in generate(model, prompts, config)])


@torch.no_grad()
def without(model: LanguageModel, prompts: Prompts, config: GenerationConfig) -> Tensor:
    tokens = prompts.to(next(model.parameters()).device).tokens
    for _ in range(config.max_tokens):
        last = model.hidden(model.embed(tokens))[:, -1]
        tokens = torch.cat((tokens, model.logits(last).argmax(dim=-1)[:, None]), dim=1)
    return tokens[:, prompts.tokens.shape[1] :].cpu()


@torch.no_grad()
def seconds_of_prompt(model: LanguageModel, prompts: Prompts) -> float:
    there = prompts.to(next(model.parameters()).device)
    return timed(lambda: model.prefill(there, 0)[0].cpu())[0]


@torch.no_grad()
def cache_bytes(model: LanguageModel, prompts: Prompts, tokens: int) -> int:
    there = prompts.to(next(model.parameters()).device)
    return model.prefill(there, tokens - 1)[1].nbytes


if __name__ == "__main__":
    main()
