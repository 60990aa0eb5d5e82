"""Recording scripted experts: one deterministic tar per demonstration.

A step holds what is seen and measured at it and the absolute target commanded from it until the
next one; commanding the targets again from the same start repeats the demonstration exactly.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from foundry_core.data.images import encode_jpeg
from foundry_core.data.shards.tar import TarWriter
from foundry_core.errors import FoundryError
from foundry_core.files import json_text
from foundry_core.simulation import catalog
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.scenarios import MAX_RETRIES, demonstration_scenario
from foundry_core.simulation.simulator import (
    HAND_ROT6D,
    Simulator,
    scenario_entropy,
    shared_simulator,
)

JPEG_QUALITY = 95
# Far outside of what the robot reaches.
JUMP_METRES = 2.0
DRAWN_RETRIES = min(8, MAX_RETRIES)
"""Of an expert that is drawn as it plays: one that hardly fails wastes few pictures."""
Job = CollectJob[CollectDemosRecipe]


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """instructions: {kind: texts}. attempts: experts that ran until one succeeded. fields: float64
    [L, D] by name."""

    task: str
    episode_id: str
    instructions: Mapping[str, list[str]]
    hz: float
    scenario: int
    attempts: int
    fields: dict[str, np.ndarray]
    images: dict[str, list[bytes]]
    wandered: int

    @property
    def length(self) -> int:
        return len(next(iter(self.fields.values())))


def record(job: Job) -> Demonstration:
    """The slot's first successful expert; every odd slot starts after some random steps.
    FoundryError after MAX_RETRIES failures in a row."""
    simulator = shared_simulator(job.task, job.recipe.render)
    spec = simulator.spec
    wander = job.recipe.random_start_steps if job.slot % 2 else 0
    for retry in range(MAX_RETRIES):
        scenario = demonstration_scenario(job.seed, job.slot, retry)
        wandered = start_wandered(simulator, scenario, wander)
        # Drawn once it has succeeded: drawing is most of the cost, and failures need none.
        steps = _expert_steps(simulator, job.recipe)
        if steps is None:
            continue
        fields, images = _drawn(simulator, steps)
        if job.slot < job.recipe.broken_episodes:
            fields = with_jump(fields)
        return Demonstration(
            task=job.task,
            episode_id=f"{job.task}_{job.seed}_{job.slot:05d}",
            instructions={"original": [spec.original], "randomized": list(spec.randomized)},
            hz=catalog.CONTROL_HZ,
            scenario=scenario,
            attempts=retry + 1,
            fields=fields,
            images=images,
            wandered=wandered,
        )
    raise FoundryError(
        f"the expert of {job.task} failed {MAX_RETRIES} times in a row (slot {job.slot})",
        "collect another task, or lower random_start_steps",
    )


class Playing(Protocol):
    """What `first_success` asks of a simulator."""

    success: bool

    def reset(self, scenario: int) -> None: ...

    def wander(self, steps: int, rng: np.random.Generator) -> None: ...


Recorded = tuple[dict[str, np.ndarray], dict[str, list[bytes]]]
"""Fields [T, D] and JPEGs of each camera."""


def first_success(
    job: Job,
    simulator: Playing,
    play: Callable[[np.random.Generator], Recorded | None],
    *,
    instruction: str,
    hz: float,
    hint: str,
) -> Demonstration:
    """The slot's first success of an expert that is drawn as it plays; every odd slot starts after
    some random steps, a start that is solved already counts as a failure. play: an episode from
    where the simulator is, with its own randomness; None where the expert fails. FoundryError after
    eight failures in a row."""
    wander = job.recipe.random_start_steps if job.slot % 2 else 0
    for retry in range(DRAWN_RETRIES):
        scenario = demonstration_scenario(job.seed, job.slot, retry)
        rng = np.random.default_rng(scenario_entropy(job.task, scenario, 1))
        simulator.reset(scenario)
        wandered = int(rng.integers(0, wander + 1))
        simulator.wander(wandered, rng)
        played = None if simulator.success else play(rng)
        if played is None:
            continue
        fields, images = played
        return Demonstration(
            task=job.task,
            episode_id=f"{job.task}_{job.seed}_{job.slot:05d}",
            instructions={"original": [instruction]},
            hz=hz,
            scenario=scenario,
            attempts=retry + 1,
            fields=fields,
            images=images,
            wandered=wandered,
        )
    raise FoundryError(
        f"the expert of {job.task} failed {DRAWN_RETRIES} times in a row (slot {job.slot})", hint
    )


class Recording:
    """Rows of an episode as it is played, before each command."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {}
        self._images: dict[str, list[bytes]] = {}

    def add(self, values: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            self._rows.setdefault(name, []).append(value)
        for camera, frame in images.items():
            self._images.setdefault(camera, []).append(encode_jpeg(frame, JPEG_QUALITY))

    def recorded(self) -> Recorded:
        fields = {name: np.stack(values) for name, values in sorted(self._rows.items())}
        return fields, self._images


def with_jump(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with the target of the middle step JUMP_METRES away on each axis: what was carried
    out is not touched, so that the demonstration is right and its record is not."""
    targets = fields[catalog.ACTION_XYZ].copy()
    targets[len(targets) // 2] += JUMP_METRES
    return {**fields, catalog.ACTION_XYZ: targets}


def start_wandered(simulator: Simulator, scenario: int, most: int) -> int:
    """Resets and wanders up to `most` steps, as the scenario's own generator says."""
    simulator.reset(scenario)
    rng = np.random.default_rng(scenario_entropy(simulator.spec.name, scenario, 1))
    steps = int(rng.integers(0, most + 1))
    simulator.wander(steps, rng)
    return steps


def pack(demonstration: Demonstration) -> bytes:
    """The tar of an episode: sorted members, no clock in it."""
    meta = {
        "id": demonstration.episode_id,
        "task": demonstration.task,
        "instructions": dict(demonstration.instructions),
        "success": True,
        "hz": demonstration.hz,
        "seed": demonstration.scenario,
        "length": demonstration.length,
        "wandered": demonstration.wandered,
    }
    members = {"meta.json": json_text(meta).encode(), "lowdim.npz": _npz(demonstration.fields)}
    for camera, frames in demonstration.images.items():
        members |= {f"{camera}/{i:06d}.jpg": frame for i, frame in enumerate(frames)}
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for name in sorted(members):
        writer.add(name, members[name])
    writer.finish()
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Step:
    """moment: the simulator's state before the command of xyz [3] m and the gripper's opening."""

    moment: Any
    xyz: np.ndarray
    opening: float


def _expert_steps(simulator: Simulator, recipe: CollectDemosRecipe) -> list[_Step] | None:
    """Until success and `tail_steps` beyond, or None if the expert fails or has nothing left to
    do."""
    if simulator.success:
        return None
    steps = []
    tail = recipe.tail_steps
    while tail and simulator.steps < recipe.max_steps:
        tail -= simulator.success
        xyz, opening = simulator.expert_target()
        steps.append(_Step(moment=simulator.moment(), xyz=xyz, opening=opening))
        simulator.command(xyz, opening)
    return steps if simulator.success else None


def _drawn(simulator: Simulator, steps: Iterable[_Step]) -> Recorded:
    recording = Recording()
    for step in steps:
        commanded = {
            catalog.ACTION_XYZ: step.xyz,
            catalog.ACTION_ROT6D: HAND_ROT6D,
            catalog.ACTION_GRIPPER: np.array([step.opening]),
        }
        with simulator.as_of(step.moment):
            recording.add(simulator.lowdim() | commanded, simulator.images())
    return recording.recorded()


def _npz(arrays: Mapping[str, Any]) -> bytes:
    """NumPy stamps 1980 into an uncompressed npz, so equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
