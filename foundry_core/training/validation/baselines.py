"""What actions that need no training are worth on the held-out samples: the training set's mean
action, and holding what is measured now.

Legend: B samples, K horizon steps, A action dims, S proprio steps, P proprio dims, D of one field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.data.robot.rotations import from_matrix
from foundry_core.data.robot.transform_config import RELATIVE, RobotInputs, pose_prefix
from foundry_core.data.robot.transforms import RobotTransform, Sample
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.training.validation.actions import ActionRuler, kind_of
from foundry_core.training.validation.measures import HOLD, MEAN

Sums = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class ActionBaselines:
    """mean: float32 [K,A], normalised. still: of fields whose numbers at rest are known, as targets
    in the field's units [D]. measured: of fields that stand still where they are measured, their
    dimensions of the proprio and the name there. now: which proprio step is the present."""

    ruler: ActionRuler
    mean: np.ndarray
    still: Mapping[str, np.ndarray]
    measured: Mapping[str, tuple[str, slice]]
    now: int

    @classmethod
    def of(
        cls,
        ruler: ActionRuler,
        transform: RobotTransform,
        contract: PolicyContract,
        statistics: DatasetStatistics,
        *,
        may_lack: bool = False,
    ) -> Self:
        """statistics: of the training set. may_lack: some datasets may lack what is measured;
        then relative fields and changes alone can be held."""
        inputs, meanings = transform.inputs, contract.fields
        now = inputs.proprio_steps.index(0) if 0 in inputs.proprio_steps else -1
        dims = _proprio_dims(transform) if now >= 0 and not may_lack else {}
        still, measured = {}, {}
        for name in ruler.parts:
            stored = name.removesuffix(RELATIVE)
            if name.endswith(RELATIVE) or ruler.fields[name].steps == "delta":
                size = ruler.parts[name].stop - ruler.parts[name].start
                still[name] = _at_rest(ruler.fields[name], size)
                continue
            there = _measured_as(stored, inputs)
            if there in dims and _alike(meanings[there], meanings[stored]):
                measured[name] = (there, dims[there])
        mean = [_mean(name, ruler, statistics, inputs) for name in ruler.parts]
        return cls(
            ruler=ruler,
            mean=np.concatenate(mean, axis=-1).astype(np.float32),
            still=still,
            measured=measured,
            now=now,
        )

    def sums(self, samples: Sample) -> Sums:
        """<baseline>/<measure> → (sum, how many steps it is of), of samples that hold actions
        [B,K,A], action_mask [B,K,A] and proprio [B,S,P]. A measure one of whose fields cannot be
        held is left out of `hold`."""
        actions, mask = samples["actions"], samples["action_mask"]
        mean = np.broadcast_to(self.mean, actions.shape)
        chunks = np.stack([mean, self._held(samples)])
        unheld = self.ruler.parts.keys() - self.still.keys() - self.measured.keys()
        unknown = {kind_of(self.ruler.fields[name]) for name in unheld}
        sums: Sums = {}
        for kind, one in self.ruler.errors(chunks, actions, mask).items():
            count = float(one.valid.sum())
            for whose, error in zip((MEAN, HOLD), one.error, strict=True):
                if whose == MEAN or kind not in unknown:
                    sums[f"{whose}/{kind}"] = (float(error.sum()), count)
        return sums

    def _held(self, samples: Sample) -> np.ndarray:
        """[B,K,A] normalised; 0 for fields that cannot be held."""
        shape = samples["actions"].shape
        chunk, normalizer = np.zeros(shape), self.ruler.normalizer
        for name, where in self.ruler.parts.items():
            if name in self.still:
                raw = self.still[name]
            elif name in self.measured:
                there, dims = self.measured[name]
                present = samples["proprio"][:, self.now : self.now + 1, dims]
                raw = normalizer.denormalize(there, np.asarray(present, np.float64))
            else:
                continue
            steps = np.broadcast_to(raw, (*shape[:2], where.stop - where.start))
            chunk[..., where] = normalizer.normalize(name, steps, self.ruler.first)
        return chunk


def _mean(
    name: str, ruler: ActionRuler, statistics: DatasetStatistics, inputs: RobotInputs
) -> np.ndarray:
    """[K,D] normalised: of each step, or over all where the statistics know none of a step."""
    found = statistics[name]
    steps = np.arange(inputs.horizon) + found.past + ruler.first
    known = (steps >= 0) & (steps < found.steps)
    known[known] = found.count[steps[known]] > 0
    raw = np.tile(found.mean, (len(steps), 1))
    raw[known] = found.mean_per_timestep[steps[known]]
    return ruler.normalizer.normalize(name, raw, ruler.first)


def _proprio_dims(transform: RobotTransform) -> dict[str, slice]:
    found, at = {}, 0
    for name, dims in transform.proprio_dims.items():
        found[name] = slice(at, at + dims)
        at += dims
    return found


def _at_rest(meaning: FieldContract, dims: int) -> np.ndarray:
    """[D] of a change that is none."""
    return np.zeros(dims) if meaning.form is None else from_matrix(np.eye(3), meaning.form)


def _measured_as(stored: str, inputs: RobotInputs) -> str:
    """The field in which a command's quantity is measured, by LBM's names and the references."""
    prefix = pose_prefix(stored)
    if prefix in inputs.references:
        return inputs.references[prefix] + stored.removeprefix(prefix)
    return stored.replace("__action__", "__actual__", 1)


def _alike(one: FieldContract, other: FieldContract) -> bool:
    """Whether their numbers mean the same."""
    return one.model_copy(update={"dims": 0}) == other.model_copy(update={"dims": 0}) and (
        one.dims == other.dims or 0 in (one.dims, other.dims)
    )
