"""The vision-language-action model: a backbone tapped at `<obs>`, and an action head."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    BackboneConfig,
    EncoderConfig,
    HFVLMConfig,
    VLAConfig,
    VLMConfig,
    offers,
)
from foundry_core.models.encoder import Encoder
from foundry_core.models.heads.base import HeadSizes, check_needs
from foundry_core.models.heads.networks.base import Observation, Request, Targets
from foundry_core.models.interfaces import Backbone, Observer, Prompts, Tap
from foundry_core.models.lora import apply_lora
from foundry_core.models.noise import Coordinate, Key
from foundry_core.models.placeholders import (
    check_image_tokens,
    drop_placeholders,
    on_host,
    wrong_row,
)
from foundry_core.models.sizes import kind_of, required, unresolved
from foundry_core.models.vlm import VLM, check_same_architecture


def build_backbone(config: BackboneConfig) -> Observer:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, HFVLMConfig):
        from foundry_core.models.huggingface.vlm import HFVLM

        return HFVLM(config)
    return Encoder(config) if isinstance(config, EncoderConfig) else VLM(config)


def _head_sizes(config: VLAConfig, backbone: Observer) -> HeadSizes:
    proprio_dim = required(config, "proprio_dim", config.proprio_dim)
    sizes = HeadSizes(
        condition_dim=backbone.features_dim(config.tap_layers),
        proprio_dim=proprio_dim,
        proprio_steps=(
            required(config, "proprio_steps", config.proprio_steps) if proprio_dim else 0
        ),
        horizon=required(config, "horizon", config.horizon),
        action_dim=required(config, "action_dim", config.action_dim),
    )
    if "keys_values" in config.head.needs:
        assert isinstance(backbone, Backbone)
        config.head.check_keys_values(backbone.key_values)
        sizes["keys_values"] = backbone.key_values
    return sizes


class VLA(nn.Module):
    """Images and instruction in, action chunk [K, A] out (normalised, relative)."""

    def __init__(self, config: VLAConfig, backbone: Observer | None = None) -> None:
        super().__init__()
        self.obs_token_id = required(config, "obs_token_id", config.obs_token_id)
        if backbone is None:
            if config.backbone is None:
                raise unresolved(config, "backbone")
            backbone = build_backbone(config.backbone)
        self.backbone = backbone
        check_needs(config.head, offers(backbone.config), kind_of(backbone.config))
        self._needs = config.head.needs
        self.head = config.head.build(**_head_sizes(config, backbone))
        self._config = config
        if config.lora is not None:
            apply_lora(decoder_of(backbone), config.lora)

    @classmethod
    def from_vlm(cls, config: VLAConfig, backbone: Observer) -> Self:
        """A policy on top of a backbone whose vocabulary has room for `<obs>`. config.backbone may
        be null."""
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

    def observe(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        proprio: Tensor | None = None,
    ) -> Observation:
        """What the head reads: of the backbone, what it needs.

        Each row's last real token is `<obs>`. Padding (token_mask False) changes nothing; heads
        that read keys and values or the decoder take it on the right alone. The blind control
        never looks at `images`: it drops their placeholders first. images None: none.
        """
        backbone = self.backbone
        if images is not None and not self._config.use_images:
            if backbone.tokens_per_image:
                tokens, token_mask = drop_placeholders(tokens, token_mask, backbone.image_token_id)
            images = None
        if on_host(tokens):
            check_obs_tokens(tokens, self.obs_token_id)
        is_obs = tokens == self.obs_token_id
        ends = is_obs.to(torch.int8).argmax(dim=1)
        prompts = Prompts(tokens=tokens, lengths=ends + 1, images=images)
        condition = keys_values = None
        if "features" in self._needs:
            tap = Tap(positions=ends, layers=self._config.tap_layers, norm=self._config.tap_norm)
            # All that is before `<obs>`: where a model would begin to speak.
            prompt = is_obs.cumsum(dim=1) == 0
            condition = backbone.features(images, tokens, token_mask, tap, prompt)
        if "keys_values" in self._needs:
            _, keys_values = decoder_of(backbone).prefill(prompts, room=0)
        return Observation(
            prompts=prompts,
            proprio=proprio,
            condition=condition,
            keys_values=keys_values,
            decoder=decoder_of(backbone) if "decoder" in self._needs else None,
        )

    def check_tokens(self, images: Tensor | None, tokens: Tensor) -> None:
        """FoundryError unless every row [B,T] has one `<obs>` and the placeholders of its images;
        for batches still on the CPU."""
        check_obs_tokens(tokens, self.obs_token_id)
        backbone = self.backbone
        if images is not None and self._config.use_images and backbone.tokens_per_image:
            per_image = backbone.tokens_per_image
            check_image_tokens(tokens, backbone.image_token_id, images.shape[1], per_image)

    def condition(
        self, images: Tensor | None, tokens: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """The features of an observation, [B,C,Dc]: of a VLM one token, tap_layers·D wide."""
        return self.observe(images, tokens, token_mask).features

    def training_loss_terms(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
        prepared: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """ActionHead.training_loss_terms, a sum for each row, on what is observed. prepared: by
        ActionHead.prepare; None: made here."""
        if prepared is None:
            prepared = self.head.prepare(actions, action_mask)
        targets = Targets(actions=actions, mask=action_mask, prepared=prepared)
        seen = self.observe(images, tokens, token_mask, proprio)
        return self.head.training_loss_terms(seen, targets, key)

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
        prepared: Mapping[str, Tensor] | None = None,
        *,
        draws: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`training_loss_terms`, and so many sampled chunks float32 [draws,B,K,A] in dimensions
        that the row's robot has: of one look."""
        if prepared is None:
            prepared = self.head.prepare(actions, action_mask)
        seen = self.observe(images, tokens, token_mask, proprio)
        targets = Targets(actions=actions, mask=action_mask, prepared=prepared)
        total, count = self.head.training_loss_terms(seen, targets, key)
        present = action_mask.any(dim=1, keepdim=True).expand_as(action_mask)
        chunks = []
        for number in range(draws):
            asked = Request(key=key._replace(step=number), action_mask=present)
            chunks.append(self.head.sample(seen, asked))
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
        key = Key(seeds, steps, torch.zeros_like(tokens[:, 0]))
        request = Request(key=key, action_mask=action_mask, solver_steps=solver_steps)
        return self.head.sample(self.observe(images, tokens, token_mask, proprio), request)


def decoder_of(backbone: Observer) -> Backbone:
    """The backbone, which must speak. FoundryError for encoders."""
    if not isinstance(backbone, Backbone):
        raise FoundryError(
            f"a backbone of kind {kind_of(backbone.config)!r} has no language model",
            "take a vision-language model, or leave out what needs one (lora, text, captions)",
        )
    return backbone


def check_obs_tokens(tokens: Tensor, obs_token_id: int) -> None:
    """Every row must hold exactly one `<obs>`; for batches still on the CPU."""
    wrong = wrong_row(tokens, obs_token_id, 1)
    if wrong:
        raise FoundryError(
            f"row {wrong[0]} of the batch has {wrong[1]} observation tokens (id {obs_token_id}), "
            "each needs exactly one, at its end"
        )


def _check_backbone(wanted: BackboneConfig, found: BackboneConfig) -> None:
    if isinstance(found, EncoderConfig):
        return  # It is what was described: encoders come from no other stage.
    if isinstance(wanted, VLMConfig) and isinstance(found, VLMConfig):
        if wanted.language is not None and found.language is not None:
            check_same_architecture("backbone.language", wanted.language, found.language)
        wanted = wanted.model_copy(update={"language": found.language})
    check_same_architecture("backbone", wanted, found)
