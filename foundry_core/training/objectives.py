"""One loss per modality. All return sums over valid elements; the loop divides by global counts.

`prepare` runs on the host, before a micro-batch travels: it checks what a device could only check
by stalling, and finds the positions that carry a loss, so that logits are computed nowhere else
(at a vocabulary of 50k they would be the largest tensor of the step).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.models.interfaces import Backbone, Decoder, LanguageModel, Observer
from foundry_core.models.layers import Visibility, document_offsets
from foundry_core.models.noise import Key
from foundry_core.models.placeholders import check_image_tokens, drop_placeholders
from foundry_core.models.vla import VLA, check_obs_tokens
from foundry_core.training.mixed_batch import ROWS, Batch, StepKey
from foundry_core.training.packing import Packer

_PREPARED = "head."
"""In front of the names of what a head made of a batch."""


def reach_all(model: nn.Module, modalities: Collection[str]) -> bool:
    """Whether a batch of these modalities gives every weight a gradient. False where that is not
    certain."""
    words = {TEXT, CAPTIONS} & set(modalities)  # what the output layer learns from
    if isinstance(model, LanguageModel):
        return bool(words)
    if isinstance(model, Backbone):
        return CAPTIONS in modalities
    if isinstance(model, VLA):
        seen = CAPTIONS in modalities or model.config.use_images
        return bool(words) and ROBOT in modalities and seen
    return False


def text_targets(segments: Tensor) -> Tensor:
    """bool [B,T] of a packed row [B,T+1]: whether position t predicts t+1.

    The first token of a document has nothing before it to be predicted from.
    """
    return segments[:, 1:] == segments[:, :-1]


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """Next-token loss on packed documents, in the language part of whatever model it is given."""

    z_loss: float = 0.0

    def elements(self, batch: Batch) -> Tensor:
        return text_targets(batch["segments"]).sum(dim=1)

    def prepare(self, batch: Batch) -> Batch:
        mask = text_targets(batch["segments"])
        return {
            "tokens": batch["tokens"][:, :-1],
            "segments": batch["segments"][:, :-1],
            "offsets": document_offsets(batch["segments"][:, :-1]),
            "index": mask.flatten().nonzero()[:, 0],
            "targets": batch["tokens"][:, 1:][mask],
        }

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        decoder = model.backbone if isinstance(model, VLA) else model
        visible = Visibility(segments=batch["segments"], offsets=batch["offsets"])
        if isinstance(decoder, Backbone):
            hidden = decoder.hidden_text(batch["tokens"], visible)
        else:
            assert isinstance(decoder, LanguageModel)
            hidden = decoder.hidden(decoder.embed(batch["tokens"]), visible)
        return next_token_sums(decoder, hidden, batch, self.z_loss)


@dataclass(frozen=True, kw_only=True)
class CaptionLoss:
    """Next-token loss on the caption's tokens, never on images, padding or the prompt.

    packer: lays several samples into one row; None: each has its own.
    """

    image_token_id: int
    tokens_per_image: int
    z_loss: float = 0.0
    packer: Packer | None = None

    def elements(self, batch: Batch) -> Tensor:
        return batch["target_mask"][:, 1:].sum(dim=1)

    def prepare(self, batch: Batch) -> Batch:
        tokens, mask = batch["tokens"], batch["target_mask"][:, 1:]
        images = batch["images"].shape[1]
        check_image_tokens(tokens, self.image_token_id, images, self.tokens_per_image)
        if self.packer is not None:
            return self._packed(self.packer, batch)
        return {
            "images": batch["images"],
            "tokens": tokens[:, :-1],
            "prompt": (batch["target_mask"].cumsum(dim=1) == 0)[:, :-1],
            "token_mask": batch["token_mask"][:, :-1],
            "index": mask.flatten().nonzero()[:, 0],
            "targets": tokens[:, 1:][mask],
        }

    def _packed(self, packer: Packer, batch: Batch) -> Batch:
        """Targets in the order of the samples, images in that of their placeholders."""
        tokens, mask = batch["tokens"], batch["target_mask"][:, 1:]
        # Nothing is predicted from a sample's last token: it takes no place.
        real = batch["token_mask"][:, 1:]
        places = packer.places(real.sum(dim=1))
        lies = torch.zeros(mask.shape, dtype=torch.int64)
        lies[real] = places.of(real)
        empty = int(self.image_token_id == 0)  # anything but an image
        return {
            "images": batch["images"][places.order],
            "tokens": places.fill(tokens[:, :-1], real, empty),
            "index": lies[mask],
            "targets": tokens[:, 1:][mask],
            "samples": mask.nonzero()[:, 0],
            **places.visibility(),
        }

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        backbone, hidden = self.hidden(model, batch)
        return next_token_sums(backbone, hidden, batch, self.z_loss)

    def hidden(self, model: nn.Module, batch: Batch) -> tuple[Backbone, Tensor]:
        """What reads a prepared batch, and its final-normed hidden states [B,T,D], or [R,T,D] of
        packed rows."""
        backbone = model.backbone if isinstance(model, VLA) else model
        assert isinstance(backbone, Backbone)
        if "segments" in batch:
            visible = Visibility(segments=batch["segments"], offsets=batch["offsets"])
            return backbone, backbone.hidden_packed(batch["images"], batch["tokens"], visible)
        hidden = backbone.hidden(
            batch["images"], batch["tokens"], hiding(backbone, batch), prompt=batch["prompt"]
        )
        return backbone, hidden


@dataclass(frozen=True, kw_only=True)
class ActionLoss:
    """The head's own loss over valid action elements, averaged over its noise draws.

    sees: False for the blind control, whose rows lose images and their placeholders on the host.
    targets: what the head makes of actions and their mask on the host (ActionHead.prepare).
    """

    image_token_id: int
    obs_token_id: int
    tokens_per_image: int
    sees: bool = True
    targets: Callable[[Tensor, Tensor], Mapping[str, Tensor]] | None = None

    def elements(self, batch: Batch) -> Tensor:
        return batch["action_mask"].sum(dim=(1, 2))

    def prepare(self, batch: Batch) -> Batch:
        tokens, images = batch["tokens"], batch["images"].shape[1]
        check_obs_tokens(tokens, self.obs_token_id)
        check_image_tokens(tokens, self.image_token_id, images, self.tokens_per_image)
        if self.targets is not None:
            made = self.targets(batch["actions"], batch["action_mask"])
            batch = {**batch, **{f"{_PREPARED}{name}": rows for name, rows in made.items()}}
        if self.sees:
            return batch
        words, mask = drop_placeholders(tokens, batch["token_mask"], self.image_token_id)
        kept = {name: tensor for name, tensor in batch.items() if name != "images"}
        mask = torch.ones_like(words, dtype=torch.bool) if mask is None else mask
        return {**kept, "tokens": words, "token_mask": mask}

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        assert isinstance(model, VLA)
        total, count = model.training_loss_terms(
            batch.get("images"),
            batch["tokens"],
            hiding(model.backbone, batch),
            batch["proprio"],
            batch["actions"],
            batch["action_mask"],
            Key(key.seed, key.step, batch["draw_ids"]),
            prepared_of(batch),
        )
        draws = (count / batch["action_mask"].sum().clamp(min=1)).clamp(min=1)
        return {"loss": total.sum() / draws, ROWS: total.detach() / draws}


def prepared_of(batch: Batch) -> dict[str, Tensor] | None:
    """What a head's `prepare` made of a batch, if it makes anything."""
    made = {n.removeprefix(_PREPARED): rows for n, rows in batch.items() if n.startswith(_PREPARED)}
    return made or None


def hiding(backbone: Observer, batch: Batch) -> Tensor | None:
    """The mask of tokens that a backbone is given: padding is on the right, where plain causality
    hides it."""
    return batch["token_mask"] if backbone.needs_token_mask else None


def next_token_sums(
    decoder: Decoder, hidden: Tensor, batch: Batch, z_loss: float
) -> dict[str, Tensor]:
    """Cross-entropy (and z-loss, coef · logsumexp²) summed over the target positions.

    hidden [B,T,D]; index int64 [n] into B·T; targets int64 [n]. Softmax in float32. Where a row has
    several samples: samples int64 [n] that the targets are of, `images` a row each.
    """
    chosen = hidden.flatten(0, 1).index_select(0, batch["index"])
    loss, penalty, parts = decoder.next_token_sums(chosen, batch["targets"], z_loss)
    if "samples" in batch:
        samples, count = batch["samples"], len(batch["images"])
    else:
        samples, count = batch["index"] // hidden.shape[1], len(hidden)
    sums = {"loss": loss, ROWS: parts.new_zeros(count).index_add(0, samples, parts)}
    return sums | {"z_loss": penalty} if z_loss else sums
