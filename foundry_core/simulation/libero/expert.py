"""A scripted expert for LIBERO's pick-and-place problems: a state machine over what MuJoCo knows.

It solves libero_object whole and most of libero_spatial (benchmarks/results.md). Lengths are metres
in the world; the controlled frame is the grip point, whose first axis is that of the fingers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foundry_core.errors import FoundryError
from foundry_core.simulation.catalog import ACTION_GRIPPER, ACTION_ROT6D, ACTION_XYZ
from foundry_core.simulation.libero.config import OPEN_M
from foundry_core.simulation.libero.osc import STEP_M, STEP_RAD, rotation_of, rotation_vector
from foundry_core.simulation.libero.simulator import LiberoSimulator

_GAIN, _TURN_GAIN = 2.5, 1.0
_ABOVE = 0.08
_CLEARANCE = 0.03
_NEAR_XY, _NEAR_Z = 0.012, 0.006
_CLOSE_STEPS, _OPEN_STEPS, _PATIENCE = 9, 12, 60
# The hand's outline around the grip point, along the fingers' axis and across, and how far above
# the tips it begins.
_HAND_LONG, _HAND_ACROSS, _HAND_ABOVE = 0.105, 0.032, 0.045
_TIP_LONG, _TIP_ACROSS, _TIP_BELOW = 0.060, 0.014, 0.012
_WIDEST = 0.075
_FINGER_DEPTH, _TIP_DEPTH = 0.035, 0.008
_YAWS = np.deg2rad([0, 20, -20, 35, -35, 50, -50, 90])
_SHIFTS = (0.0, 0.015, -0.015)
_POINTING_DOWN = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])

Body = np.ndarray
"""[N, 3]: the corners of an object's colliding shapes in the world."""


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """xyz: of the grip point when the fingers close. yaw: radians, 0 closes along the world's y."""

    xyz: np.ndarray
    yaw: float


@dataclass
class Waypoint:
    """Where the hand is to be, and what ends the wait: nearness, or `steps` control steps."""

    xyz: np.ndarray
    opening: float
    steps: int = 0
    spent: int = field(default=0, init=False)


class Expert:
    """Plays one episode: `target` after each `LiberoSimulator.reset`, once per control step."""

    def __init__(self, simulator: LiberoSimulator) -> None:
        self._simulator = simulator
        thing, place = problem_goal(simulator)
        scene = _Scene(simulator)
        self._grasp = choose_grasp(scene.body(thing), scene.others(thing))
        self._route = self._waypoints(scene.body(thing), scene.body(place), _is_basket(place))
        self._at = next(self._route)

    def action(self) -> np.ndarray:
        """LIBERO's action [7] that the expert wants now, each part within [-1, 1]."""
        xyz, rotation = self._hand()
        self._advance(xyz)
        move = _GAIN * (self._at.xyz - xyz) / STEP_M
        wanted = rotation_of(np.array([0, 0, self._grasp.yaw])) @ _POINTING_DOWN
        turn = _TURN_GAIN * rotation_vector(wanted @ rotation.T) / STEP_RAD
        effort = -1.0 if self._at.opening > 0 else 1.0
        return np.concatenate([np.clip(move, -1, 1), np.clip(turn, -1, 1), [effort]])

    def _hand(self) -> tuple[np.ndarray, np.ndarray]:
        data, site = self._simulator.data, self._simulator.robot.eef_site_id
        return data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()

    def _advance(self, xyz: np.ndarray) -> None:
        at = self._at
        error = np.abs(at.xyz - xyz)
        near = np.hypot(*error[:2]) < _NEAR_XY and error[2] < _NEAR_Z
        over = at.spent >= at.steps if at.steps else near or at.spent >= _PATIENCE
        if over:
            self._at = next(self._route, at)
        self._at.spent += 1

    def _waypoints(self, thing: Body, place: Body, basket: bool) -> Iterator[Waypoint]:
        grasp = self._grasp.xyz
        above_bottom = grasp[2] - thing[:, 2].min()
        rim = place[:, 2].max()
        carry = max(rim, thing[:, 2].min()) + above_bottom + _CLEARANCE
        lowered = (rim - 0.05 if basket else rim + 0.012) + above_bottom
        # What is held is put over the middle of the place, not the fingers.
        middle = (place.min(axis=0) + place.max(axis=0)) / 2
        held = grasp - (thing.min(axis=0) + thing.max(axis=0)) / 2
        over = np.array([*(middle + held)[:2], carry])
        yield Waypoint(grasp + np.array([0, 0, _ABOVE]), OPEN_M)
        yield Waypoint(grasp, OPEN_M)
        yield Waypoint(grasp, 0.0, _CLOSE_STEPS)
        yield Waypoint(np.array([*grasp[:2], carry]), 0.0)
        yield Waypoint(over, 0.0)
        yield Waypoint(np.array([*over[:2], lowered]), 0.0)
        yield Waypoint(np.array([*over[:2], lowered]), OPEN_M, _OPEN_STEPS)
        yield Waypoint(over, OPEN_M)


def choose_grasp(thing: Body, others: Body) -> Grasp:
    """The first yaw and shift along the thing's longer side at which the fingers reach around it
    and the hand clears everything else; if there is none, the one that touches least."""
    low, high = thing.min(axis=0), thing.max(axis=0)
    if min(high[0] - low[0], high[1] - low[1]) > _WIDEST:
        return _rim_grasp(low, high, others)
    z = max(high[2] - _FINGER_DEPTH, low[2] + _TIP_DEPTH)
    best, least = None, np.inf
    for yaw in _YAWS:
        along, across = _axes(yaw)
        fingers, side = thing @ along, thing @ across
        if np.ptp(fingers) > _WIDEST:
            continue
        for shift in _SHIFTS:
            if shift and np.ptp(side) < 4 * abs(shift):
                continue
            middle = along * _mid(fingers) + across * (_mid(side) + shift)
            grasp = Grasp(xyz=np.array([*middle[:2], z]), yaw=float(yaw))
            touched = touching(grasp, others)
            if touched < least:
                best, least = grasp, touched
            if not touched:
                return grasp
    if best is None:
        raise FoundryError("the thing is too wide for the hand at every yaw")
    return best


def _rim_grasp(low: np.ndarray, high: np.ndarray, others: Body) -> Grasp:
    """Of a bowl: one finger inside, one outside, on the side that is free."""
    middle, half = (low + high) / 2, (high - low) / 2
    best, least = None, np.inf
    for yaw, axis in ((0.0, 1), (np.pi / 2, 0)):
        for side in (1, -1):
            xyz = middle + np.array([0, 0, 0.003])
            xyz[axis] += side * (half[axis] - 0.012)
            grasp = Grasp(xyz=xyz, yaw=yaw)
            touched = touching(grasp, others)
            if touched < least:
                best, least = grasp, touched
    assert best is not None
    return best


def touching(grasp: Grasp, others: Body) -> int:
    """How many corners of other things the hand or its fingers would meet."""
    along, across = _axes(grasp.yaw)
    offset = others - grasp.xyz
    u, v, z = np.abs(offset @ along), np.abs(offset @ across), offset[:, 2]
    hand = (u < _HAND_LONG) & (v < _HAND_ACROSS) & (z > _HAND_ABOVE)
    tips = (u < _TIP_LONG) & (v < _TIP_ACROSS) & (z > -_TIP_BELOW)
    return int((hand | tips).sum())


def _axes(yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Of the fingers, and across them, [3] each."""
    along = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    return along, np.array([np.cos(yaw), np.sin(yaw), 0.0])


def _mid(values: np.ndarray) -> float:
    return float(values.min() + values.max()) / 2


def absolute_targets(simulator: LiberoSimulator, action: np.ndarray) -> dict[str, np.ndarray]:
    """LIBERO's action [7] as the absolute targets that carry it out from where the hand is now."""
    xyz, rotation = simulator.pose()
    turned = rotation_of(STEP_RAD * action[3:6]) @ rotation
    return {
        ACTION_XYZ: xyz + STEP_M * action[:3],
        ACTION_ROT6D: turned[:2].ravel(),
        ACTION_GRIPPER: np.array([OPEN_M if action[6] < 0 else 0.0]),
    }


def problem_goal(simulator: LiberoSimulator) -> tuple[str, str]:
    """(thing, place) of a problem that says: put one on or into the other."""
    goals = simulator.domain.parsed_problem["goal_state"]
    if len(goals) != 1 or len(goals[0]) != 3 or goals[0][0] not in ("in", "on"):
        raise FoundryError(f"no expert for {simulator.spec.name}: its goal is {goals}")
    _, thing, place = goals[0]
    site = simulator.domain.object_sites_dict.get(place)
    return thing, site.parent_name if site is not None else place


def _is_basket(place: str) -> bool:
    return place.startswith("basket")


class _Scene:
    """Corners of every object and fixture, as they are now."""

    def __init__(self, simulator: LiberoSimulator) -> None:
        self._model, self._data = simulator.model, simulator.data
        roots: Mapping[str, int] = simulator.domain.obj_body_id
        self._bodies = {name: self._corners(root) for name, root in roots.items()}

    def body(self, name: str) -> Body:
        return self._bodies[name]

    def others(self, name: str) -> Body:
        return np.concatenate([b for other, b in self._bodies.items() if other != name])

    def _corners(self, root: int) -> Body:
        model: Any = self._model
        members = [b for b in range(model.nbody) if root in self._ancestry(b)]
        geoms = np.flatnonzero(np.isin(model.geom_bodyid, members) & (model.geom_contype > 0))
        found = [self._geom_corners(int(geom)) for geom in geoms]
        return np.concatenate(found) if found else np.zeros((0, 3))

    def _ancestry(self, body: int) -> Iterator[int]:
        while body:
            yield body
            body = int(self._model.body_parentid[body])

    def _geom_corners(self, geom: int) -> Body:
        """A mesh's vertices, of another shape the corners of its box."""
        model, data = self._model, self._data
        mesh = int(model.geom_dataid[geom])
        if int(model.geom_type[geom]) == 7 and mesh >= 0:  # mjGEOM_MESH
            first = int(model.mesh_vertadr[mesh])
            local = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])].astype(float)
        else:
            signs = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
            local = model.geom_aabb[geom, :3] + signs * model.geom_aabb[geom, 3:]
        return local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
