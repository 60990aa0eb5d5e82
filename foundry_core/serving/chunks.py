"""From chunks to one target per control step: exact replanning, averages, delays. NumPy only.

Legend: K steps of a chunk, D dimensions of a field, N execute_steps, t the control step since the
episode's start. With a delay d, chunk j > 0 is predicted from the observation of step jN - d and
used from step jN on, at its index d; so M steps of an episode take ceil(M / N) inferences without a
delay, the first at its first step.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.data.contract.fields import FieldContract, RotationForm
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.data.robot.rotations import from_matrix, to_matrix
from foundry_core.errors import FoundryError
from foundry_core.serving.options import ChunkOptions

Targets = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Of steps start .. end - 1; carried out from used_from on."""

    start: int
    used_from: int
    end: int
    targets: Targets

    def at(self, t: int) -> dict[str, np.ndarray]:
        return {name: values[t - self.start] for name, values in self.targets.items()}


class ChunkPlayer:
    """One client's chunks and where it stands in them.

    Each control step: `plans` says whether to infer from its observation, `waits` whether it cannot
    go on without the chunk; `add` takes one; `take` gives the step's target and goes on.
    """

    def __init__(self, options: ChunkOptions, contract: PolicyContract) -> None:
        self.execute, self.delay = _checked(options, contract)
        self._options = options
        self._rotations = {
            name: one.form for name, one in contract.commands.items() if one.form is not None
        }
        self._switches = _grippers(options, contract.commands)
        self._chunks: deque[_Chunk] = deque()
        self._step = 0
        self._closed: dict[str, np.ndarray] = {}

    @property
    def step(self) -> int:
        return self._step

    def plans(self) -> bool:
        """Whether a chunk is to be predicted from the observation of this step."""
        ahead = self._step + self.delay
        return self._step == 0 or (ahead >= self.execute and ahead % self.execute == 0)

    def waits(self) -> bool:
        """Whether this step's target needs a chunk that is not there yet."""
        newest = self._chunks[-1].start if self._chunks else -self.execute
        return self._step % self.execute == 0 and newest < max(0, self._step - self.delay)

    def add(self, start: int, chunk: Targets) -> None:
        """chunk: {field: [K, D]}, predicted from the observation of step `start`."""
        used_from = -(-start // self.execute) * self.execute
        end = start + len(next(iter(chunk.values())))
        self._chunks.append(_Chunk(start=start, used_from=used_from, end=end, targets=chunk))

    def take(self) -> dict[str, np.ndarray]:
        """{field: [D]} of this step, which is over then."""
        t = self._step
        self._step += 1
        while len(self._chunks) > 1 and self._spent(t):
            self._chunks.popleft()
        used = [chunk for chunk in self._chunks if chunk.used_from <= t]
        if self._options.ensemble is not None:
            weights = np.exp(-self._options.ensemble * np.arange(len(used)))
            target = self._mean(used, weights, t)
        elif self.delay and len(used) > 1:
            target = self._faded(used[-2], used[-1], t)
        else:
            target = used[-1].at(t)
        return self._switched(target)

    def _spent(self, t: int) -> bool:
        """Whether the oldest chunk says nothing of step t or later that is still wanted."""
        if self._options.ensemble is None and not self.delay:
            return True
        return t >= self._chunks[0].end

    def _faded(self, before: "_Chunk", chunk: "_Chunk", t: int) -> dict[str, np.ndarray]:
        """The share of the chunk before falls from the switch to its own end: two plans of one
        motion need not agree, and a robot cannot jump."""
        left = before.end - chunk.used_from
        share = 1 - (t - chunk.used_from + 1) / (left + 1)
        if t >= before.end or share <= 0:
            return chunk.at(t)
        return self._mean([before, chunk], np.array([share, 1 - share]), t)

    def _mean(
        self, chunks: "Sequence[_Chunk]", weights: np.ndarray, t: int
    ) -> dict[str, np.ndarray]:
        weights = weights / weights.sum()
        found = {}
        for name in chunks[0].targets:
            values = np.stack([chunk.at(t)[name] for chunk in chunks])
            form = self._rotations.get(name)
            found[name] = weights @ values if form is None else mean_rotation(values, weights, form)
        return found

    def _switched(self, target: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, (closed, opened) in self._switches.items():
            band = self._options.gripper_hysteresis or 0.0
            share = (target[name] - closed) / (opened - closed)
            was = self._closed.get(name, share < 0.5)
            is_closed = np.where(was, share < 0.5 + band, share < 0.5 - band)
            self._closed[name] = is_closed
            target = {**target, name: np.where(is_closed, closed, opened)}
        return target


def mean_rotation(values: np.ndarray, weights: np.ndarray, form: RotationForm) -> np.ndarray:
    """values [n, D] of a form, weights [n] that sum to 1 → [D]: the rotation that is nearest to the
    weighted mean of the matrices."""
    mean = np.tensordot(weights, to_matrix(values, form), axes=1)
    u, _, vt = np.linalg.svd(mean)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    return from_matrix(u @ vt, form)


def _checked(options: ChunkOptions, contract: PolicyContract) -> tuple[int, int]:
    """(N, d)."""
    steps = options.execute_steps or contract.execute_steps
    if steps > contract.ahead:
        raise FoundryError(
            f"execute_steps = {steps} exceeds the {contract.ahead} steps that the policy predicts",
            f"at most {contract.ahead}",
        )
    if options.delay >= steps:
        raise FoundryError(
            f"delay = {options.delay} is not below execute_steps = {steps}: a chunk would be asked "
            "for before the one before it is in use",
            "raise execute_steps, or lower the delay",
        )
    if steps + options.delay > contract.ahead:
        raise FoundryError(
            f"execute_steps = {steps} and delay = {options.delay} need {steps + options.delay} "
            f"steps ahead, the policy predicts {contract.ahead}",
            "lower one of them",
        )
    return steps, options.delay


def _grippers(
    options: ChunkOptions, commands: Mapping[str, FieldContract]
) -> dict[str, tuple[float, float]]:
    """gripper → (closed, open), where they are to switch."""
    if options.gripper_hysteresis is None:
        return {}
    grippers = {name: one for name, one in commands.items() if one.quantity == "gripper"}
    found = {}
    for name, one in grippers.items():
        if one.closed is None or one.open is None:
            raise FoundryError(
                f"gripper_hysteresis: the policy's contract does not say where {name!r} is open "
                "and where closed",
                "leave the option out, or train on data that state closed and open",
            )
        found[name] = (one.closed, one.open)
    return found
