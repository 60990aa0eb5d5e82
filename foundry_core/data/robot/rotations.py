"""Rotations in the forms that data sets, simulators and protocols use. NumPy and SciPy.

Everything goes through the matrix R [..., 3, 3]; shapes broadcast over leading dimensions.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from foundry_core.data.contract.fields import ROTATION_DIMS, RotationForm
from foundry_core.data.robot.poses import decode_rot6d, encode_rot6d
from foundry_core.errors import FoundryError

# To the two rows r00 r01 r02 r10 r11 r12 of R, or of its transpose for columns.
_INTERLEAVED = [0, 2, 4, 1, 3, 5]


def to_matrix(values: np.ndarray, form: RotationForm) -> np.ndarray:
    """values [..., D] of a form → R [..., 3, 3]. A quaternion of either sign is the same rotation.
    FoundryError for a wrong D, and for values that are no rotation."""
    values = np.asarray(values, np.float64)
    dims = ROTATION_DIMS[form]
    if values.shape[-1:] != (dims,):
        raise FoundryError(f"{form} has {dims} values, not {list(values.shape[-1:])}")
    if form.startswith("rot6d"):
        two = values[..., _INTERLEAVED] if form.endswith("interleaved") else values
        matrix = decode_rot6d(two)
        return np.swapaxes(matrix, -1, -2) if "columns" in form else matrix
    flat = values.reshape(-1, dims)
    try:
        return _rotation(flat, form).as_matrix().reshape(*values.shape[:-1], 3, 3)
    except ValueError as error:
        raise FoundryError(f"{form} {flat[0].tolist()} is no rotation: {error}") from None


def _rotation(flat: np.ndarray, form: str) -> Rotation:
    if form == "matrix":
        matrix = flat.reshape(-1, 3, 3)
        if not np.allclose(np.linalg.det(matrix), 1, atol=1e-3):
            raise ValueError("its determinant is not 1")
        return Rotation.from_matrix(matrix)
    if form == "quaternion_xyzw":
        return Rotation.from_quat(flat)
    if form == "quaternion_wxyz":
        return Rotation.from_quat(flat[:, [1, 2, 3, 0]])
    if form == "axis_angle":
        return Rotation.from_rotvec(flat)
    return Rotation.from_euler("xyz", flat)


def from_matrix(matrix: np.ndarray, form: RotationForm) -> np.ndarray:
    """R [..., 3, 3] → [..., D]. Quaternions have w ≥ 0, axis-angle a length of at most π."""
    matrix = np.asarray(matrix, np.float64)
    if form.startswith("rot6d"):
        two = encode_rot6d(np.swapaxes(matrix, -1, -2) if "columns" in form else matrix)
        return two[..., np.argsort(_INTERLEAVED)] if form.endswith("interleaved") else two
    lead = matrix.shape[:-2]
    if form == "matrix":
        return matrix.reshape(*lead, 9)
    rotation = Rotation.from_matrix(matrix.reshape(-1, 3, 3))
    if form.startswith("quaternion"):
        flat = rotation.as_quat(canonical=True)
        flat = flat[:, [3, 0, 1, 2]] if form == "quaternion_wxyz" else flat
    else:
        flat = rotation.as_rotvec() if form == "axis_angle" else rotation.as_euler("xyz")
    return flat.reshape(*lead, ROTATION_DIMS[form])


def convert_rotation(values: np.ndarray, source: RotationForm, target: RotationForm) -> np.ndarray:
    """[..., D] of one form → [..., E] of another."""
    return from_matrix(to_matrix(values, source), target)
