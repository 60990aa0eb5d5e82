"""Augmentations: pure, shared by the views of a sample, known values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_core.data.robot.augment import (
    apply_view,
    centre_view,
    jitter,
    random_view,
    shift_image,
)
from foundry_core.data.robot.transform_config import Augment, ImageInput
from foundry_core.data.robot.transforms import view_images


def noise(size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@given(down=st.integers(-20, 20), right=st.integers(-20, 20))
def test_shift_repeats_the_edge(down: int, right: int) -> None:
    image = np.stack([noise(seed=1), noise(seed=2)])
    rows = np.clip(np.arange(16) - down, 0, 15)
    columns = np.clip(np.arange(16) - right, 0, 15)
    np.testing.assert_array_equal(shift_image(image, down, right), image[:, rows[:, None], columns])


def test_centre_crop_keeps_the_middle() -> None:
    image = noise(20)
    view = centre_view(ImageInput(crop=0.5), 20, 20)
    assert view.box == (5, 5, 10, 10)
    np.testing.assert_array_equal(apply_view(image, view, (10, 10)), image[5:15, 5:15])
    whole = centre_view(ImageInput(), 20, 20)
    assert apply_view(image, whole, None) is image


def test_all_views_of_a_sample_move_alike_and_images_apart_where_asked() -> None:
    images = [noise(), noise()]
    together = Augment(shift=4, crop="random", brightness=0.3, hue=0.1)
    config = ImageInput(crop=0.75, size=(12, 12))
    for sample in range(20):
        one, two = view_images(images, config, together, sample)
        np.testing.assert_array_equal(one, two)
    apart = together.model_copy(update={"scope": "image"})
    differ = [
        not np.array_equal(*view_images(images, config, apart, sample)) for sample in range(20)
    ]
    assert np.mean(differ) > 0.9


def test_a_view_is_a_function_of_its_key_alone() -> None:
    config, augment = ImageInput(crop=0.8), Augment(shift=3, crop="ratio", contrast=0.5)
    views = [random_view(config, augment, 64, 64, sample, 0) for sample in range(200)]
    assert views == [random_view(config, augment, 64, 64, sample, 0) for sample in range(200)]
    assert len({view.box for view in views}) > 100
    shifts = {view.shift for view in views}
    assert {s[0] for s in shifts} == set(range(-3, 4)) == {s[1] for s in shifts}
    for top, left, height, width in (view.box for view in views):
        assert top >= 0 and left >= 0 and top + height <= 64 and left + width <= 64
        assert 0.8**2 * 0.8 / 1.35 <= height * width / 64**2 <= 0.8**2 * 1.05


def test_jitter_known_values() -> None:
    image = noise()
    np.testing.assert_array_equal(jitter(image, 1, 1, 1, 0), image)
    half = jitter(image, 0.5, 1, 1, 0)
    np.testing.assert_allclose(half, image / 2, atol=0.51)
    grey = jitter(image, 1, 1, 0, 0).astype(int)
    assert np.abs(grey[..., 0] - grey[..., 1]).max() <= 1
    flat = jitter(image, 1, 0, 1, 0)
    assert flat.std() < 1
    luma = image.reshape(-1, 3).mean(0) @ [0.299, 0.587, 0.114]
    assert flat.mean() == pytest.approx(luma, abs=1)
    turned = jitter(np.full((2, 2, 3), (200, 60, 60), np.uint8), 1, 1, 1, 0.5)
    assert turned[0, 0, 0] < turned[0, 0, 1]
