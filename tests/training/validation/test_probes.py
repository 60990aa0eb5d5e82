"""What a caption's measures are, against decoding it."""

import pytest
import torch
from model_zoo import IMAGE, TOKENS_PER_IMAGE, build, plain_tokens, vlm_config

from foundry_core.models.generation import Continuation, generate, score
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Prompts
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.objectives import CaptionLoss
from foundry_core.training.validation.probes import CaptionProbe, means


def test_exact_is_what_greedy_decoding_writes():
    model = build(vlm_config()).eval()
    asked = plain_tokens(4, 3)
    images = torch.randint(0, 256, (4, 1, 3, 32, 32), dtype=torch.uint8)
    prompt = torch.cat([torch.full((4, TOKENS_PER_IMAGE), IMAGE), asked], dim=1)
    how = GenerationConfig(max_tokens=3)
    prompts = Prompts.of(prompt.tolist(), images=images)
    written = torch.tensor([one.tokens for one in generate(model, prompts, how)])
    answers = written.clone()
    answers[1, 2] = (answers[1, 2] + 1) % 40  # wrong at its end
    answers[2, 0] = (answers[2, 0] + 1) % 40  # wrong at its beginning
    tokens = torch.cat([prompt, answers], dim=1)
    targets = torch.zeros_like(tokens, dtype=torch.bool)
    targets[:, prompt.shape[1] :] = True
    targets[3] = False  # a row that repeats another one, for ranks' sake
    batch = {"images": images, "tokens": tokens, "target_mask": targets}
    batch["token_mask"] = torch.ones_like(targets)
    probe = CaptionProbe(
        objective=CaptionLoss(image_token_id=IMAGE, tokens_per_image=TOKENS_PER_IMAGE)
    )
    with torch.no_grad():
        found = probe(model, probe.prepare(batch), StepKey(seed=0, step=0))
    measured = means(probe.sums(batch, found))
    assert measured["exact"] == pytest.approx(1 / 3)
    items = [
        Continuation(context=prompt[i].tolist(), tokens=answers[i].tolist(), images=images[i])
        for i in range(3)
    ]
    likely = sum(one.total for one in score(model, items))
    assert measured["loss"] == pytest.approx(-likely / 9, rel=1e-5)
