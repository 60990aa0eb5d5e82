"""What a policy asks of its action head.

Legend: B batch, C condition tokens, Dc their width, S proprio steps, P proprio dim, K horizon,
A action dim.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from foundry_core.models.noise import Key


class ActionHead(nn.Module, ABC):
    """From what the backbone saw, condition [B,C,Dc], and the robot's state, proprio [B,S,P] (None
    where the policy reads none), to a chunk of actions [B,K,A], normalised and relative.

    Whatever is random is drawn through foundry_core.models.noise: a function of seed, step and
    draw alone, so that batches may be cut and mixed in any way.
    """

    @abstractmethod
    def training_loss_terms(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
    ) -> tuple[Tensor, Tensor]:
        """(sum of errors over valid elements and draws, their count), float32 scalars on the
        batch's device: the caller divides by the count over the global batch.

        actions, action_mask (bool, False at padding) [B,K,A]; key: of its noise.
        """

    @abstractmethod
    def sample(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        key: Key,
        *,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        """Action chunks float32 [B,K,A].

        action_mask [B,K,A] zeroes dimensions this robot does not have. solver_steps replaces the
        config's number of steps; heads that take none ignore it.
        """
