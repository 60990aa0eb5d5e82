"""Errors of actions in units that a person knows: values worked out by hand."""

import numpy as np
import pytest

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.robot.normalize import FieldNormalizer, Normalizer
from foundry_core.training.validation.actions import ActionRuler

POSE = {
    "p": FieldContract(dims=3, quantity="position", unit="m"),
    "r": FieldContract(dims=6, quantity="rotation", form="rot6d_rows"),
    "g": FieldContract(dims=1, quantity="gripper", closed=0.0, open=0.1),
}


def ruler(fields, scale=1.0, centre=0.0):
    parts, at, normalisers = {}, 0, {}
    for name, meaning in fields.items():
        parts[name] = slice(at, at + meaning.dims)
        at += meaning.dims
        ones = np.ones(meaning.dims)
        normalisers[name] = FieldNormalizer(centre=centre * ones, scale=scale * ones, clip=None)
    return ActionRuler(normalizer=Normalizer(normalisers), fields=fields, first=0, parts=parts)


def about_z(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [c, -s, 0.0, s, c, 0.0]


def chunk(*steps):
    return np.array(steps, dtype=np.float64)[None]


def test_millimetres_degrees_and_share_of_the_stroke():
    shown = chunk([0, 0, 0, *about_z(0), 0.0], [1, 0, 0, *about_z(90), 0.1])
    said = chunk([0.003, 0.004, 0, *about_z(30), 0.05], [1, 0, 0.01, *about_z(91e-4 + 90), 0.1])
    found = ruler(POSE).errors(said[None], shown, np.ones(shown.shape, bool))
    errors = {kind: one.error[0, 0].tolist() for kind, one in found.items()}
    assert errors["position_mm"] == pytest.approx([5, 10])
    assert errors["rotation_deg"] == pytest.approx([30, 91e-4], rel=1e-6)  # small ones, too
    assert errors["gripper"] == pytest.approx([0.5, 0])


def test_normalised_values_are_measured_in_the_fields_own_units():
    """centre 5, scale 0.002: a normalised difference of 1 is two millimetres."""
    fields = {"p": POSE["p"]}
    found = ruler(fields, scale=0.002, centre=5.0).errors(
        np.full((1, 1, 1, 3), [1.0, 0, 0]), np.zeros((1, 1, 3)), np.ones((1, 1, 3), bool)
    )
    assert found["position_mm"].error.item() == pytest.approx(2.0)


def test_masked_steps_count_for_nothing_and_may_hold_anything():
    shown = np.zeros((1, 2, 10))
    shown[0, 0] = [0, 0, 0, *about_z(0), 0]
    mask = np.zeros((1, 2, 10), bool)
    mask[0, 0] = True
    found = ruler(POSE).errors(np.zeros((2, 1, 2, 10)), shown, mask)
    for one in found.values():
        assert one.valid.tolist() == [[1, 0]]
        assert (one.error[..., 1] == 0).all()
    # An untrained policy's numbers that are no rotation: half a turn, and no end of the training.
    assert found["rotation_deg"].error[:, 0, 0].tolist() == [180, 180]


def test_two_arms_add_up():
    fields = {"left": POSE["p"], "right": POSE["p"]}
    said = np.zeros((1, 1, 1, 6))
    said[..., 0], said[..., 3] = 0.001, 0.003
    mask = np.ones((1, 1, 6), bool)
    one = ruler(fields).errors(said, np.zeros((1, 1, 6)), mask)["position_mm"]
    assert (one.error.item(), one.valid.item()) == (pytest.approx(4), 2)
    mask[..., :3] = False  # a robot without the left one
    one = ruler(fields).errors(said, np.zeros((1, 1, 6)), mask)["position_mm"]
    assert (one.error.item(), one.valid.item()) == (pytest.approx(3), 1)


@pytest.mark.parametrize(
    ("meaning", "apart", "kind", "error"),
    [
        (FieldContract(dims=2, quantity="joints", unit="rad"), np.pi, "joints_deg", 180),
        (FieldContract(dims=2, quantity="joints", unit="deg"), 3.0, "joints_deg", 3),
        (FieldContract(dims=3, quantity="position", unit="cm"), 1.0, "position_mm", 3**0.5 * 10),
        (FieldContract(dims=3, quantity="position"), 2.0, "other", 2),
        (FieldContract(dims=1, quantity="gripper"), 1.0, "gripper", 0.5),  # scale 1: range 2
    ],
)
def test_units(meaning, apart, kind, error):
    mask = np.ones((1, 1, meaning.dims), bool)
    said = np.full((1, 1, 1, meaning.dims), apart)
    (found,) = ruler({"f": meaning}).errors(said, np.zeros((1, 1, meaning.dims)), mask).items()
    assert found[0] == kind
    assert found[1].error.item() == pytest.approx(error)


def test_a_matrix_that_is_none_to_the_last_digit():
    meaning = FieldContract(dims=9, quantity="rotation", form="matrix")
    said = np.eye(3).ravel() * 1.1
    found = ruler({"f": meaning}).errors(
        said[None, None, None], np.eye(3).ravel()[None, None], np.ones((1, 1, 9), bool)
    )
    assert found["rotation_deg"].error.item() == pytest.approx(0, abs=1e-5)
