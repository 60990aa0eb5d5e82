"""How far a model and its export are apart, measured on both as they lie on disk."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from foundry_core.errors import FoundryError
from foundry_core.models.huggingface.load import quiet
from foundry_core.models.interfaces import Backbone, Decoder, LanguageModel, Visibility
from foundry_core.models.io import load_model
from foundry_core.models.lora import merge_lora
from foundry_core.models.vla import VLA, decoder_of

TOKENS = (2, 64)
"""Rows and their length."""


def text_distance(model_dir: Path, exported: Path) -> float:
    """The largest difference of any logit over random text, in float32 on the CPU. FoundryError
    where the export cannot be loaded again, or answers with what is no number."""
    ours, _ = load_model(model_dir)
    if isinstance(ours, VLA):
        ours = decoder_of(ours.backbone)
    if isinstance(ours, Decoder):
        merge_lora(ours)
    family = AutoModelForImageTextToText if isinstance(ours, Backbone) else AutoModelForCausalLM
    with quiet():
        theirs = family.from_pretrained(exported, dtype=torch.float32).eval()
    ours = ours.eval()
    size = theirs.get_input_embeddings().num_embeddings
    drawn = torch.Generator().manual_seed(0)
    # Marks of images stand at one end of the table or the other: text has none.
    tokens = torch.randint(size // 8, size - size // 8, TOKENS, generator=drawn)
    with torch.no_grad():
        found = theirs(input_ids=tokens).logits.float()
        if isinstance(ours, Backbone):
            wanted = ours.logits(ours.hidden_text(tokens, Visibility())).float()
        else:
            assert isinstance(ours, LanguageModel)
            wanted = ours(tokens).float()
    shared = min(found.shape[-1], wanted.shape[-1])
    distance = (found[..., :shared] - wanted[..., :shared]).abs().max()
    if not torch.isfinite(distance):
        raise FoundryError(f"{exported} answers with what is no number", "do not use it")
    return float(distance)
