"""Windows in which nothing moves: a teleoperator thinks, a scene waits to be reset.

What is left out are anchors, never steps. A policy that learns from a time axis with steps cut out
of it learns a jump that no robot can make: the window across the cut has one, and velocities there
are wrong. So an episode keeps all of its steps, its pictures and its rate, and only those anchors
go whose whole window is still; a window that begins or ends with a rest stays, since when to start
and when to stop is what it teaches.
"""

from collections.abc import Mapping

import numpy as np

from foundry_core.data.config import StillConfig, WindowConfig
from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.data.contract.motion import Meanings, tolerances
from foundry_core.data.robot.rotations import to_matrix
from foundry_core.data.robot.windows import anchors


def still_runs(
    lowdim: Mapping[str, np.ndarray], meanings: Meanings, window: WindowConfig, still: StillConfig
) -> tuple[tuple[int, int], ...]:
    """Runs [first, stop) of steps of an episode that are no anchors, because nothing that is
    watched leaves its tolerance around its value at the window's first step. A window that hangs
    over an end of the episode is moved inside: one real step alone would always be still.
    lowdim: {field: [L, D]}.

    Positions move by their distance, rotations by their angle, anything else by its largest
    dimension. Of neighbouring still anchors the first `keep` stay.
    """
    length = len(next(iter(lowdim.values())))
    at = anchors(length, window)
    first = np.clip(at - window.past, 0, max(0, length - window.length))
    around = first[:, None] + np.arange(min(window.length, length))
    moved = np.zeros(len(at), dtype=bool)
    for name, allowed in tolerances(meanings, still).items():
        moved |= (_moved(lowdim[name], meanings[name], around) > allowed).any(axis=1)
    kept = still.keep
    runs: list[tuple[int, int]] = []
    for begin, stop in _stretches(~moved):
        if stop - begin > kept:
            runs.append((int(at[begin + kept]), int(at[stop - 1]) + 1))
    return tuple(runs)


def _moved(values: np.ndarray, meaning: FieldContract, around: np.ndarray) -> np.ndarray:
    """around: steps [N, T] of windows. [N, T]: how far from the value at the first of them; of a
    step from what is measured, from none."""
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    if meaning.form is not None:
        return _angles(values, meaning, around)
    change = values[around]
    if meaning.steps == "absolute":
        change = change - change[:, :1]
    if meaning.quantity == "position":
        return np.linalg.norm(change, axis=-1)
    return np.abs(change).max(axis=-1)


def _angles(values: np.ndarray, meaning: FieldContract, around: np.ndarray) -> np.ndarray:
    """By the chord |R - R'| = 2√2 sin(angle / 2), which unlike the trace keeps small angles."""
    assert meaning.form is not None
    size = UNITS[meaning.unit][1] if meaning.unit else 1.0
    matrix = to_matrix(values * size if meaning.unit else values, meaning.form)
    windows = matrix[around]
    origin = windows[:, :1] if meaning.steps == "absolute" else np.eye(3)
    chord = np.linalg.norm(windows - origin, axis=(-2, -1))
    return 2 * np.arcsin(np.clip(chord / np.sqrt(8), 0, 1)) / size


def _stretches(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
