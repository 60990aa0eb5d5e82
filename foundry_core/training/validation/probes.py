"""What is measured of each modality. A measure is a mean: its sum and count add up over batches,
datasets and ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundry_core.models.generation import of_targets
from foundry_core.models.noise import Key
from foundry_core.models.vla import VLA
from foundry_core.training.mixed_batch import Batch, StepKey
from foundry_core.training.objectives import (
    ActionLoss,
    CaptionLoss,
    TextLoss,
    hiding,
    prepared_of,
)
from foundry_core.training.validation.actions import ActionErrors, ActionRuler

Sums = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class TextProbe:
    """loss: mean of −log p of a token, without z-loss."""

    objective: TextLoss

    def prepare(self, batch: Batch) -> Batch:
        return self.objective.prepare(batch)

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        return self.objective(model, batch, key)

    def sums(self, batch: Batch, found: Batch) -> Sums:
        return {"loss": (float(found["loss"]), float(self.objective.elements(batch).sum()))}


@dataclass(frozen=True, kw_only=True)
class CaptionProbe:
    """loss: as of text, of the captions' tokens. exact: share of captions (answers) each token of
    which, its end too, is the likeliest one after those before it: what greedy decoding would write
    word for word."""

    objective: CaptionLoss

    def prepare(self, batch: Batch) -> Batch:
        return self.objective.prepare(batch)

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        backbone, hidden = self.objective.hidden(model, batch)
        spoken = hidden.flatten(0, 1).index_select(0, batch["index"])
        likelihoods, best = of_targets(backbone, spoken, batch["targets"])
        return {"likelihoods": likelihoods, "best": best}

    def sums(self, batch: Batch, found: Batch) -> Sums:
        targets = batch["target_mask"][:, 1:]
        wrong = torch.zeros_like(targets)
        wrong[targets] = ~found["best"]
        spoken = targets.any(dim=1)
        exact = spoken & ~wrong.any(dim=1)
        return {
            "loss": (-float(found["likelihoods"].sum()), float(targets.sum())),
            "exact": (float(exact.sum()), float(spoken.sum())),
        }


@dataclass(frozen=True, kw_only=True)
class RobotProbe:
    """loss: the head's own. Errors of what the policy would do, its first chunk, in the ruler's
    units: over all steps, and of each by its offset from the present (position_mm/0). best_<error>:
    of the chunk that is nearest, among `draws`."""

    objective: ActionLoss
    ruler: ActionRuler
    draws: int

    def prepare(self, batch: Batch) -> Batch:
        return self.objective.prepare(batch)

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        assert isinstance(model, VLA)
        total, count, chunks = model.measure(
            batch.get("images"),
            batch["tokens"],
            hiding(model.backbone, batch),
            batch["proprio"],
            batch["actions"],
            batch["action_mask"],
            Key(key.seed, key.step, batch["draw_ids"]),
            prepared_of(batch),
            draws=self.draws,
        )
        return {"loss": total.sum(), "count": count, "chunks": chunks}

    def sums(self, batch: Batch, found: Batch) -> Sums:
        chunks = found["chunks"].float().cpu().numpy()
        errors = self.ruler.errors(chunks, batch["actions"].numpy(), batch["action_mask"].numpy())
        sums: Sums = {"loss": (float(found["loss"]), float(found["count"]))}
        for kind, one in errors.items():
            sums |= self._of(kind, one)
        return sums

    def _of(self, kind: str, one: ActionErrors) -> Sums:
        first = one.error[0]
        sums: Sums = {kind: (float(first.sum()), float(one.valid.sum()))}
        for step in range(first.shape[1]):
            name = f"{kind}/{step + self.ruler.first}"
            sums[name] = (float(first[:, step].sum()), float(one.valid[:, step].sum()))
        nearest = one.error.sum(axis=-1).min(axis=0)
        return sums | {f"best_{kind}": (float(nearest.sum()), float(one.valid.sum()))}


def means(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Of measures that were of anything."""
    return {name: total / count for name, (total, count) in sums.items() if count}
