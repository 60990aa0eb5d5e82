import pytest
import torch
from model_zoo import awake

from foundry_core.errors import FoundryError
from foundry_core.models.config import ConvViTConfig, ImageNormalization, ProjectorConfig, ViTConfig
from foundry_core.models.vision import Projector, VisionTransformer, normalize_images, pixel_shuffle


def test_pixel_shuffle_known_values():
    grid = torch.arange(16.0).view(1, 16, 1)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert pixel_shuffle(grid, 2)[0].tolist() == expected


def test_pixel_shuffle_keeps_channels_together():
    tokens = torch.arange(8.0).view(1, 4, 2)
    assert pixel_shuffle(tokens, 2)[0].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize(("length", "factor", "words"), [(12, 2, "square"), (9, 2, "divisible")])
def test_pixel_shuffle_refuses_other_grids(length, factor, words):
    with pytest.raises(FoundryError, match=words):
        pixel_shuffle(torch.zeros(1, length, 3), factor)


def test_normalisation_known_values():
    images = torch.zeros(1, 3, 1, 2, dtype=torch.uint8)
    images[..., 1] = 255
    out = normalize_images(images, ImageNormalization(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0)))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([-1.0, -0.5, 0.0]))
    torch.testing.assert_close(out[0, :, 0, 1], torch.tensor([1.0, 1.5, 1.0]))


def test_normalised_images_are_refused():
    with pytest.raises(FoundryError, match="uint8"):
        normalize_images(torch.zeros(1, 3, 2, 2), ImageNormalization())


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(image_size=32, patch_size=8, dim=16, n_layers=2, n_heads=2),
        ConvViTConfig(
            image_size=32, dim=16, n_layers=2, n_heads=2, stem_dims=(8, 8), stem_groups=4
        ),
    ],
    ids=["vit", "conv_vit"],
)
def test_towers(config):
    tower = awake(VisionTransformer(config))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    out = tower(images)
    assert out.shape == (3, 16, 16)
    torch.testing.assert_close(out[1:2], tower(images[1:2]), atol=1e-5, rtol=0)
    larger = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    assert tower(larger).shape == (1, 36, 16)
    out.sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


def test_interpolated_positions_keep_their_order():
    tower = VisionTransformer(ViTConfig(image_size=32, patch_size=8, dim=4, n_layers=1, n_heads=1))
    with torch.no_grad():
        rows = torch.arange(4.0).repeat_interleave(4)
        tower.positions.copy_(rows[:, None].expand(-1, 4))
    wide = tower._positions(8, 8)[0, :, 0].view(8, 8)
    assert (wide.diff(dim=0) > 0).all()
    torch.testing.assert_close(wide.diff(dim=1), torch.zeros(8, 7), atol=1e-5, rtol=0)


def test_projectors():
    linear = Projector(ProjectorConfig(pixel_shuffle=2), 3, 5)
    assert [tuple(p.shape) for p in linear.parameters()] == [(5, 12)]
    assert linear(torch.randn(2, 16, 3)).shape == (2, 4, 5)
    mlp = Projector(ProjectorConfig(kind="mlp", hidden_dim=7, bias=True), 3, 5)
    assert [tuple(p.shape) for p in mlp.parameters()] == [(7, 3), (7,), (5, 7), (5,)]
