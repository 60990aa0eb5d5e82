"""The vision-language-action model: a backbone tapped at `<obs>`, and an action head."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models.config import BackboneConfig, HFVLMConfig, VLAConfig, VLMConfig
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.interfaces import Backbone, Tap, check_tap
from foundry_core.models.lora import apply_lora
from foundry_core.models.noise import Coordinate, Key
from foundry_core.models.placeholders import drop_placeholders, on_host, wrong_row
from foundry_core.models.sizes import required, unresolved
from foundry_core.models.vlm import VLM, check_same_architecture


def build_backbone(config: BackboneConfig) -> Backbone:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, HFVLMConfig):
        from foundry_core.models.huggingface.vlm import HFVLM

        return HFVLM(config)
    return VLM(config)


def _head_sizes(config: VLAConfig, backbone: Backbone) -> HeadSizes:
    proprio_dim = required(config, "proprio_dim", config.proprio_dim)
    return HeadSizes(
        condition_dim=config.tap_layers * backbone.dim,
        proprio_dim=proprio_dim,
        proprio_steps=(
            required(config, "proprio_steps", config.proprio_steps) if proprio_dim else 0
        ),
        horizon=required(config, "horizon", config.horizon),
        action_dim=required(config, "action_dim", config.action_dim),
    )


class VLA(nn.Module):
    """Images and instruction in, action chunk [K, A] out (normalised, relative)."""

    def __init__(self, config: VLAConfig, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.obs_token_id = required(config, "obs_token_id", config.obs_token_id)
        if backbone is None:
            if config.backbone is None:
                raise unresolved(config, "backbone")
            backbone = build_backbone(config.backbone)
        self.backbone = backbone
        check_tap(config.tap_layers, backbone.n_layers)
        self.head = config.head.build(**_head_sizes(config, backbone))
        self._config = config
        if config.lora is not None:
            apply_lora(self.backbone, config.lora)

    @classmethod
    def from_vlm(cls, config: VLAConfig, backbone: Backbone) -> Self:
        """A policy on top of a VLM whose vocabulary has room for `<obs>`. config.backbone may be
        null."""
        if config.backbone is not None:
            _check_backbone(config.backbone, backbone.config)
        return cls(config.model_copy(update={"backbone": backbone.config}), backbone)

    @property
    def config(self) -> VLAConfig:
        return self._config.model_copy(update={"backbone": self.backbone.config})

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Those of the backbone (Decoder.parts), and the head."""
        return {**self.backbone.parts, "head": [self.head]}

    def condition(
        self, images: Tensor | None, tokens: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """[B, 1, tap_layers·D] at each row's `<obs>`, the last real token.

        Padding (token_mask False) on either side changes nothing. The blind control never looks at
        `images`: it drops their placeholders from the rows first. images None: there are none.
        """
        if images is not None and not self._config.use_images:
            tokens, token_mask = drop_placeholders(tokens, token_mask, self.backbone.image_token_id)
            images = None
        if on_host(tokens):
            check_obs_tokens(tokens, self.obs_token_id)
        is_obs = tokens == self.obs_token_id
        positions = is_obs.to(torch.int8).argmax(dim=1)
        tap = Tap(positions=positions, layers=self._config.tap_layers, norm=self._config.tap_norm)
        # All that is before `<obs>`: where a model would begin to speak.
        prompt = is_obs.cumsum(dim=1) == 0
        return self.backbone.features(images, tokens, token_mask, tap, prompt)

    def training_loss_terms(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
    ) -> tuple[Tensor, Tensor]:
        """ActionHead.training_loss_terms on what the backbone sees."""
        condition = self.condition(images, tokens, token_mask)
        return self.head.training_loss_terms(condition, proprio, actions, action_mask, key)

    @torch.no_grad()
    def measure(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
        *,
        draws: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`training_loss_terms`, and so many sampled chunks float32 [draws,B,K,A] in dimensions
        that the row's robot has: of one look."""
        condition = self.condition(images, tokens, token_mask)
        total, count = self.head.training_loss_terms(condition, proprio, actions, action_mask, key)
        present = action_mask.any(dim=1, keepdim=True).expand_as(action_mask)
        chunks = [
            self.head.sample(condition, proprio, key._replace(step=number), action_mask=present)
            for number in range(draws)
        ]
        return total, count, torch.stack(chunks)

    @torch.no_grad()
    def act(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        proprio: Tensor | None,
        *,
        seeds: Coordinate,
        steps: Coordinate,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        """float32 [B,K,A]. seeds, steps int64 [B]: each client's reset seed and replan index; a
        row's noise depends on nothing else, so clients may be batched in any company."""
        return self.head.sample(
            self.condition(images, tokens, token_mask),
            proprio,
            Key(seeds, steps, torch.zeros_like(tokens[:, 0])),
            action_mask=action_mask,
            solver_steps=solver_steps,
        )


def check_obs_tokens(tokens: Tensor, obs_token_id: int) -> None:
    """Every row must hold exactly one `<obs>`; for batches still on the CPU."""
    wrong = wrong_row(tokens, obs_token_id, 1)
    if wrong:
        raise FoundryError(
            f"row {wrong[0]} of the batch has {wrong[1]} observation tokens (id {obs_token_id}), "
            "each needs exactly one, at its end"
        )


def _check_backbone(wanted: BackboneConfig, found: BackboneConfig) -> None:
    if isinstance(wanted, VLMConfig) and isinstance(found, VLMConfig):
        if wanted.language is not None and found.language is not None:
            check_same_architecture("backbone.language", wanted.language, found.language)
        wanted = wanted.model_copy(update={"language": found.language})
    check_same_architecture("backbone", wanted, found)
