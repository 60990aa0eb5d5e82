"""What a policy's chunk depends on: how far it moves once a part of a picture, a whole camera or a
word is taken away.

The first successes and failures are played once more (an episode is a function of its scenario and
its seed), and at some of their plans every part is left out in turn: a cell of a picture takes the
picture's mean colour, a word is not said. The noise stays the same, so that nothing else moves the
chunk. What a policy does not look at can be left out without a trace.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.evaluation.benchmarks.base import Benchmark, Observation
from foundry_core.evaluation.rollout.episodes import EpisodePlan, PolicyProtocol, run_episodes
from foundry_core.evaluation.score import EpisodeResult
from foundry_core.files import write_json

FOLDER = "records/attribution"
FILE = "attribution.json"
_CELLS = 8
"""Of a picture, each way."""
_MOMENTS = (0.1, 0.5, 0.9)
"""Of an episode's plans."""
_AT_ONCE = 32
_SIDE = 192
"""Pixels of a picture in the file."""
_CLIENT = "attribution"
_WARM = np.array([255.0, 70.0, 20.0])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """whole: how far the chunk moves without the picture; cells [rows][columns]: without each."""

    whole: float
    cells: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """plan: number of the policy's plan in the episode. words: (word, how far the chunk moves
    without it), in their order; sentence: without all of them."""

    plan: int
    cameras: dict[str, Camera]
    sentence: float
    words: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Of an episode. unit: of all numbers: mm, mean over the chunk's steps and the commanded
    positions; "" where none is commanded, then of all commanded numbers. picture: its file."""

    task: str
    scenario: int
    success: bool
    instruction: str
    unit: str
    picture: str
    moments: list[Moment] = field(default_factory=list)


def attribute(
    out: Path,
    benchmark: Benchmark,
    policy: PolicyProtocol,
    plans: Sequence[EpisodePlan],
    results: Sequence[EpisodeResult],
    *,
    count: int,
    execute_steps: int | None,
) -> list[Attribution]:
    """Of the first `count` successes and as many failures, as far as there are any; writes a PNG
    for each and attribution.json below out/FOLDER, which is no part of the artifact's content."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    ruler = Ruler.of(benchmark.commands)
    found = []
    for plan, success in _chosen(plans, results, count):
        seen = Watched(policy)
        run_episodes(benchmark, seen, [plan], execute_steps=execute_steps)
        task, scenario = plan.key
        moments = [
            (number, seen.observations[number], _moment(policy, ruler, plan, seen, number))
            for number in _numbers(len(seen.observations))
        ]
        name = f"{task}_{scenario:06d}_{'success' if success else 'failure'}.png"
        (folder / name).write_bytes(_picture([(o, m) for _, o, m in moments], policy.cameras))
        found.append(
            Attribution(
                task=task,
                scenario=scenario,
                success=success,
                instruction=seen.observations[0]["instruction"],
                unit=ruler.unit,
                picture=name,
                moments=[moment for _, _, moment in moments],
            )
        )
    write_json(folder / FILE, {"episodes": [asdict(one) for one in found]})
    return found


def _chosen(
    plans: Sequence[EpisodePlan], results: Sequence[EpisodeResult], count: int
) -> Iterator[tuple[EpisodePlan, bool]]:
    by_key = {plan.key: plan for plan in plans}
    for wanted in (True, False):
        some = [one for one in results if one.success is wanted and one.failure_message is None]
        for one in some[:count]:
            yield by_key[one.key], wanted


def _numbers(plans: int) -> list[int]:
    return sorted({min(plans - 1, int(share * plans)) for share in _MOMENTS})


class Watched:
    """A policy that keeps what it was shown."""

    def __init__(self, policy: PolicyProtocol) -> None:
        self._policy = policy
        self.observations: list[Observation] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def infer(self, requests: Sequence[tuple[str, Observation]]) -> Any:
        self.observations += (observation for _, observation in requests)
        return self._policy.infer(requests)


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """How far two chunks are apart. scales: field → its unit in mm; "" of it: all fields count."""

    scales: Mapping[str, float]
    unit: str

    @classmethod
    def of(cls, commands: Mapping[str, FieldContract]) -> "Ruler":
        lengths = {
            name: 1000 * UNITS[one.unit][1]
            for name, one in commands.items()
            if one.quantity == "position" and one.unit and UNITS[one.unit][0] == "length"
        }
        if lengths:
            return cls(scales=lengths, unit="mm")
        return cls(scales=dict.fromkeys(commands, 1.0), unit="")

    def apart(self, one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
        """Mean over steps and fields of the Euclidean distance; both {field: [K, D]}."""
        distances = [
            scale * np.linalg.norm(np.asarray(one[name]) - other[name], axis=-1).mean()
            for name, scale in self.scales.items()
        ]
        return float(np.mean(distances))


def _moment(
    policy: PolicyProtocol, ruler: Ruler, plan: EpisodePlan, seen: Watched, number: int
) -> Moment:
    observation = seen.observations[number]
    words = observation["instruction"].split()
    cells = [(row, column) for row in range(_CELLS) for column in range(_CELLS)]
    changed: list[Observation] = [observation, _said(observation, "")]
    changed += (
        _said(observation, " ".join(words[:at] + words[at + 1 :])) for at in range(len(words))
    )
    for camera in policy.cameras:
        changed.append(_without(observation, camera, None))
        changed += (_without(observation, camera, cell) for cell in cells)
    chunks = _chunks(policy, changed, plan.seed)
    moved = [ruler.apart(chunk, chunks[0]) for chunk in chunks[1:]]
    sentence, by_word, rest = moved[0], moved[1 : 1 + len(words)], moved[1 + len(words) :]
    cameras = {}
    for at, camera in enumerate(policy.cameras):
        whole, *of_cells = rest[at * (len(cells) + 1) : (at + 1) * (len(cells) + 1)]
        rows = [of_cells[start : start + _CELLS] for start in range(0, len(of_cells), _CELLS)]
        cameras[camera] = Camera(whole=whole, cells=rows)
    said = list(zip(words, by_word, strict=True))
    return Moment(plan=number, cameras=cameras, sentence=sentence, words=said)


def _chunks(
    policy: PolicyProtocol, observations: Sequence[Observation], seed: int
) -> list[Mapping[str, np.ndarray]]:
    """One per observation, each as the first plan of a client of the same seed: of equal noise."""
    found: list[Mapping[str, np.ndarray]] = []
    for start in range(0, len(observations), _AT_ONCE):
        some = observations[start : start + _AT_ONCE]
        clients = [f"{_CLIENT}/{at}" for at in range(len(some))]
        for client in clients:
            policy.reset(client, seed)
        found += policy.infer(list(zip(clients, some, strict=True)))
    forget: Callable[[str], None] = getattr(policy, "forget", lambda client: None)
    for at in range(_AT_ONCE):
        forget(f"{_CLIENT}/{at}")
    return found


def _said(observation: Observation, instruction: str) -> Observation:
    return {**observation, "instruction": instruction}


def _without(observation: Observation, camera: str, cell: tuple[int, int] | None) -> Observation:
    """In the past that it is shown, too. cell: None for the whole picture."""
    picture = observation["images"][camera]
    past = observation.get("history", [])
    hidden: Observation = {
        **observation,
        "images": {**observation["images"], camera: _hidden(picture, cell)},
    }
    if past:
        hidden["history"] = [_without(one, camera, cell) for one in past]
    return hidden


def _hidden(picture: np.ndarray, cell: tuple[int, int] | None) -> np.ndarray:
    covered = np.array(picture)
    mean = picture.reshape(-1, picture.shape[-1]).mean(axis=0).round().astype(picture.dtype)
    covered[_box(picture, cell) if cell is not None else slice(None)] = mean
    return covered


def _box(picture: np.ndarray, cell: tuple[int, int]) -> tuple[slice, slice]:
    height, width = picture.shape[:2]
    row, column = cell
    return (
        slice(row * height // _CELLS, (row + 1) * height // _CELLS),
        slice(column * width // _CELLS, (column + 1) * width // _CELLS),
    )


def _picture(moments: Sequence[tuple[Observation, Moment]], cameras: Sequence[str]) -> bytes:
    """PNG: a row per moment; each camera as it is, and beside it with what counts in red, on one
    scale for the whole episode."""
    most = max(
        (max(map(max, one.cells)) for _, moment in moments for one in moment.cameras.values()),
        default=0.0,
    )
    rows = []
    for observation, moment in moments:
        row = []
        for camera in cameras:
            picture = np.asarray(_resized(observation["images"][camera]), dtype=np.float64)
            cells = np.array(moment.cameras[camera].cells) / (most or 1.0)
            heat = np.kron(cells, np.ones((_SIDE // _CELLS, _SIDE // _CELLS)))[..., None]
            grey = picture.mean(axis=-1, keepdims=True)
            row += [picture, grey * (1 - heat) + _WARM * heat]
        rows.append(np.concatenate(row, axis=1))
    buffer = io.BytesIO()
    sheet = np.concatenate(rows, axis=0) if rows and cameras else np.zeros((1, 1, 3))
    Image.fromarray(sheet.round().astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _resized(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
