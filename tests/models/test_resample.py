"""Against Pillow, whose filters the processors of models are defined by."""

import numpy as np
import pytest
import torch
from PIL import Image

from foundry_core.models.resample import resize


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(16, 16), (48, 64), (37, 100), (33, 32), (300, 200)])
def test_resizing_is_pillow_s(method, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    theirs = np.asarray(
        Image.fromarray(picture).resize((32, 32), Image.Resampling[method.upper()])
    ).astype(int)
    ours = resize(torch.from_numpy(picture).permute(2, 0, 1)[None], 32, method)
    difference = np.abs(ours[0].permute(1, 2, 0).numpy().astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.98


def test_half_precision_around_it_changes_nothing():
    pictures = torch.randint(0, 256, (2, 3, 24, 20), dtype=torch.uint8)
    plain = resize(pictures, 32, "bicubic")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resize(pictures, 32, "bicubic"), plain)
    assert resize(pictures, 32, "bicubic").dtype == torch.uint8
