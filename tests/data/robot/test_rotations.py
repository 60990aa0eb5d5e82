"""Forms of rotations: known values, and every form there and back."""

import numpy as np
import pytest

from foundry_core.data.contract.fields import ROTATION_DIMS
from foundry_core.data.robot.rotations import convert_rotation, from_matrix, to_matrix
from foundry_core.errors import FoundryError

# A quarter turn about z: x → y, y → -x.
QUARTER = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
HALF = np.sqrt(0.5)
KNOWN = {
    "matrix": [0, -1, 0, 1, 0, 0, 0, 0, 1],
    "rot6d_rows": [0, -1, 0, 1, 0, 0],
    "rot6d_rows_interleaved": [0, 1, -1, 0, 0, 0],
    "rot6d_columns": [0, 1, 0, -1, 0, 0],
    "rot6d_columns_interleaved": [0, -1, 1, 0, 0, 0],
    "quaternion_xyzw": [0, 0, HALF, HALF],
    "quaternion_wxyz": [HALF, 0, 0, HALF],
    "axis_angle": [0, 0, np.pi / 2],
    "euler_xyz": [0, 0, np.pi / 2],
}


@pytest.mark.parametrize("form", KNOWN)
def test_a_quarter_turn(form):
    np.testing.assert_allclose(from_matrix(QUARTER, form), KNOWN[form], atol=1e-12)
    np.testing.assert_allclose(to_matrix(np.array(KNOWN[form], float), form), QUARTER, atol=1e-12)


@pytest.mark.parametrize("form", ROTATION_DIMS)
def test_there_and_back(form):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(4, 5, 3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))[..., None, None]
    stored = from_matrix(rotation, form)
    assert stored.shape == (4, 5, ROTATION_DIMS[form])
    np.testing.assert_allclose(to_matrix(stored, form), rotation, atol=1e-12)


def test_euler_angles_turn_about_fixed_axes_in_order():
    about_x_then_z = np.array([np.pi / 2, 0.0, np.pi / 2])
    turned = to_matrix(about_x_then_z, "euler_xyz") @ [0.0, 1.0, 0.0]
    np.testing.assert_allclose(turned, [0, 0, 1], atol=1e-12)  # y → z, which z leaves alone


def test_small_angles_hide_what_large_ones_show():
    """Euler angles taken for an axis-angle vector: half a percent off at .01, another pose at 1."""
    for size, wrong in ((0.01, False), (1.0, True)):
        angles = np.full(3, size)
        found = convert_rotation(angles, "euler_xyz", "axis_angle")
        assert (np.abs(found - angles).max() > 0.1 * size) == wrong


def test_both_signs_of_a_quaternion_are_one_rotation():
    q = np.array([0.1, -0.5, 0.3, 0.8])
    q /= np.linalg.norm(q)
    for sign in (q, -q):
        found = convert_rotation(sign, "quaternion_xyzw", "axis_angle")
        np.testing.assert_allclose(found, convert_rotation(q, "quaternion_xyzw", "axis_angle"))
        assert np.linalg.norm(found) <= np.pi


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [
        ([0.0] * 4, "quaternion_xyzw", "is no rotation"),
        ([1.0] * 9, "matrix", "determinant"),
        ([0.0] * 6, "rot6d_columns", "spans no rotation"),
        ([0.0] * 4, "axis_angle", "has 3 values"),
    ],
)
def test_what_is_no_rotation_is_refused(values, form, message):
    with pytest.raises(FoundryError, match=message):
        to_matrix(np.array(values), form)
