"""Rigid poses as position (m) + rot6d, and poses relative to a reference pose. NumPy, vectorised.

rot6d is the first two ROWS of the rotation matrix, flattened (Zhou et al. 2019 with rows instead
of columns, as LBM publishes it); decoding is Gram-Schmidt. Shapes: xyz [..., 3], rot6d [..., 6],
R [..., 3, 3]; leading dimensions broadcast.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from foundry_core.data.config import PoseGroup
from foundry_core.data.robot.transform_config import RELATIVE
from foundry_core.errors import FoundryError

# The sine of the angle between the rows of a rot6d below which they span no plane.
_FLAT = 1e-9


def encode_rot6d(rotation: np.ndarray) -> np.ndarray:
    """R [..., 3, 3] → rot6d [..., 6]."""
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def decode_rot6d(rot6d: np.ndarray) -> np.ndarray:
    """rot6d [..., 6], not necessarily orthonormal → R [..., 3, 3] with det 1.

    Degenerate input (a zero or parallel pair) has no rotation: FoundryError.
    """
    a1, a2 = rot6d[..., :3], rot6d[..., 3:]
    b1 = _unit(a1, rot6d)
    b2 = _unit(a2 - np.sum(b1 * a2, axis=-1, keepdims=True) * b1, rot6d)
    return np.stack([b1, b2, np.cross(b1, b2)], axis=-2)


def check_rotations(fields: Mapping[str, np.ndarray], groups: Sequence[PoseGroup]) -> None:
    """FoundryError names the field and the step, of fields [L, D], at which a pose of the groups
    has no rotation."""
    for name in dict.fromkeys(name for group in groups for name in group.names()):
        if name.endswith("__rot_6d") and name in fields:
            first, second = fields[name][..., :3], fields[name][..., 3:]
            area = np.linalg.norm(np.cross(first, second), axis=-1)
            sides = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
            bad = ~(area > _FLAT * np.maximum(sides, _FLAT))
            if bad.any():
                step = int(np.argmax(bad))
                raise FoundryError(
                    f"field {name!r} is no rotation at step {step}: "
                    f"{np.array2string(fields[name][step], precision=4)}",
                    "the two rows of rot6d must be finite, non-zero and not parallel",
                )


def relative_pose(
    xyz: np.ndarray,
    rot6d: np.ndarray,
    reference_xyz: np.ndarray,
    reference_rot6d: np.ndarray,
    real: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Poses seen from the reference: R_rel = R0^T R, p_rel = R0^T (p - p0).

    real, bool [...] without the last axis: False at padded steps. Those that hold zeros stay zero,
    for zeros are no rotation; without the mask they are refused.
    """
    inverse = np.swapaxes(decode_rot6d(reference_rot6d), -1, -2)
    blank = False if real is None else ~(real | rot6d.any(axis=-1))[..., None]
    position = (inverse @ (xyz - reference_xyz)[..., None])[..., 0]
    rotation = encode_rot6d(inverse @ decode_rot6d(np.where(blank, reference_rot6d, rot6d)))
    return np.where(blank, 0.0, position), np.where(blank, 0.0, rotation)


def absolute_pose(
    xyz: np.ndarray, rot6d: np.ndarray, reference_xyz: np.ndarray, reference_rot6d: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `relative_pose`: X = X0 X_rel."""
    reference = decode_rot6d(reference_rot6d)
    position = (reference @ xyz[..., None])[..., 0] + reference_xyz
    return position, encode_rot6d(reference @ decode_rot6d(rot6d))


def add_relative_fields(
    windows: Mapping[str, np.ndarray],
    reference_index: int,
    pose_groups: Sequence[PoseGroup],
    real: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """`windows` plus `<field>_relative` for every pose of every group.

    Fields are [..., T, D]; the reference is the group's MEASURED pose at step `reference_index` of
    the window, one for the whole window, also for desired and commanded poses, so that a policy
    only needs what it measures to turn its output into targets. real: bool [..., T], see
    `relative_pose`.
    """
    out = dict(windows)
    for group in pose_groups:
        for name in group.names():
            if name not in windows:
                raise FoundryError(
                    f"pose group of {group.reference!r} needs the field {name!r}, which is absent",
                    f"present: {', '.join(sorted(windows))}",
                )
        here = slice(reference_index, reference_index + 1)
        origin = windows[f"{group.reference}__xyz"][..., here, :]
        axes = windows[f"{group.reference}__rot_6d"][..., here, :]
        for pose in group.poses:
            xyz, rot6d = f"{pose}__xyz", f"{pose}__rot_6d"
            out[xyz + RELATIVE], out[rot6d + RELATIVE] = relative_pose(
                windows[xyz], windows[rot6d], origin, axes, real
            )
    return out


def _unit(vector: np.ndarray, rot6d: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not (norm > 1e-12).all():
        row = np.unravel_index(int(np.argmin(norm > 1e-12)), norm.shape)[:-1]
        raise FoundryError(
            f"rot6d {np.array2string(rot6d[row], precision=4)} at index {tuple(map(int, row))} "
            "spans no rotation",
            "its two rows must be finite, non-zero and not parallel",
        )
    return vector / norm
