"""What a policy asks of its action head.

Legend: B batch, C condition tokens, Dc their width, N images, S proprio steps, P proprio dim,
K horizon, A action dim.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from foundry_core.models.interfaces import Backbone, Prompts
from foundry_core.models.kv_cache import KeyValues
from foundry_core.models.noise import Key


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a head reads. Of the backbone there is what its config needs, and None else.

    prompts: tokens, padded on the right, `<obs>` last in each row, and images uint8 [B,N,3,H,W]
    (None: the policy is blind). proprio [B,S,P], None where the policy reads none. condition
    [B,C,Dc]: features. keys_values: of all tokens. decoder: the backbone itself, never a part of
    the head.
    """

    prompts: Prompts
    proprio: Tensor | None = None
    condition: Tensor | None = None
    keys_values: KeyValues | None = None
    decoder: Backbone | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.prompts.tokens)

    @property
    def features(self) -> Tensor:
        """The condition of a head that needs features."""
        assert self.condition is not None, "the head's config does not say that it needs features"
        return self.condition


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a training step is to predict: actions, and mask (bool, False at padding), [B,K,A].
    prepared: what the head's `prepare` made of them."""

    actions: Tensor
    mask: Tensor
    prepared: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def known(self) -> Tensor:
        """The actions in float32, 0 where masked: padding never reaches a network."""
        return torch.where(self.mask, self.actions.float(), 0.0)

    @property
    def count(self) -> Tensor:
        """Valid elements, a float32 scalar."""
        return self.mask.sum(dtype=torch.float32)

    def total(self, errors: Tensor) -> Tensor:
        """Sums over each row's valid elements of errors [B,K,A]: [B]."""
        return torch.where(self.mask, errors, 0.0).sum(dim=(1, 2))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a chunk is asked with. key: of its noise. action_mask [B,K,A]: False at dimensions that
    this robot lacks. solver_steps replaces the config's number of steps; heads that take none
    ignore it."""

    key: Key
    action_mask: Tensor | None = None
    solver_steps: int | None = None

    def masked(self, chunk: Tensor) -> Tensor:
        """0 at dimensions that the robot lacks."""
        return chunk if self.action_mask is None else torch.where(self.action_mask, chunk, 0.0)


class ActionHead(nn.Module, ABC):
    """From what is observed to a chunk of actions [B,K,A], normalised and relative.

    Whatever is random is drawn through foundry_core.models.noise: a function of seed, step and
    draw alone, so that batches may be cut and mixed in any way.

    records: whether a chunk can be recorded as a CUDA graph: one course of kernels, no look at the
    device on the way. compiles: whether its chunk calls blocks with few shapes.
    """

    records: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    def prepare(self, actions: Tensor, action_mask: Tensor) -> Mapping[str, Tensor]:
        """Host work on a batch's [B,K,A] before it travels; each tensor has a row per sample."""
        return {}

    @abstractmethod
    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: Key
    ) -> tuple[Tensor, Tensor]:
        """(each row's sum of errors over valid elements and draws, float32 [B]; the count of these
        elements in all rows, a float32 scalar): the caller divides by that of the global batch."""

    @abstractmethod
    def chunk(self, seen: Observation, request: Request) -> Tensor:
        """Actions [B,K,A]; what they are at dimensions that the robot lacks does not matter."""

    @torch.no_grad()
    def sample(self, seen: Observation, request: Request) -> Tensor:
        """Chunks float32 [B,K,A] to act on."""
        return request.masked(self.chunk(seen, request)).float()
