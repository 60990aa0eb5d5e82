"""Observation → model inputs, and model outputs → targets: one object for training and serving.

Legend: N images (camera-major, then steps), S proprio steps, P proprio dims, K action steps,
A action dims, T tokens.
Every transform towards the model has its inverse beside it, both are built from the same
RobotInputs and Normalizer, and these travel with the policy: training and serving cannot drift.
"""

from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.augment import (
    View,
    apply_depth_view,
    apply_view,
    centre_view,
    random_view,
    shift_image,
)
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.poses import absolute_pose, relative_pose
from foundry_core.data.robot.prompts import PromptBuilder
from foundry_core.data.robot.transform_config import (
    RELATIVE,
    Augment,
    ImageInput,
    PromptMarks,
    RobotInputs,
    pose_pair,
)
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError

Sample = dict[str, np.ndarray]


def view_images(
    images: Sequence[np.ndarray],
    config: ImageInput,
    augment: Augment | None = None,
    sample_key: int = 0,
) -> np.ndarray:
    """uint8 [H, W, 3] each → uint8 [N, 3, h, w]. augment None is validation and serving."""
    pictures, shifts = [], []
    for image, view in zip(images, _views(images, config, augment, sample_key), strict=True):
        pictures.append(apply_view(image, view, config.size))
        shifts.append(view.shift)
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise FoundryError(
            f"images of one sample have different sizes {sorted(s[:2] for s in sizes)}",
            "set image.size to the (height, width) that the model takes",
        )
    stacked = np.stack(pictures)
    if len(set(shifts)) == 1:
        if shifts[0] != (0, 0):
            stacked = shift_image(stacked, *shifts[0])
    else:
        stacked = np.stack([shift_image(p, *s) for p, s in zip(stacked, shifts, strict=True)])
    return stacked.transpose(0, 3, 1, 2)


def view_depth(
    depth: Sequence[np.ndarray],
    config: ImageInput,
    augment: Augment | None = None,
    sample_key: int = 0,
) -> np.ndarray:
    """float32 [H, W] each → float32 [N, h, w], seen as `view_images` sees the images of their
    sizes."""
    views = _views(depth, config, augment, sample_key)
    made = [apply_depth_view(d, v, config.size) for d, v in zip(depth, views, strict=True)]
    if len({one.shape for one in made}) > 1:
        raise FoundryError(
            f"depth pictures of one sample have different sizes {[one.shape for one in made]}",
            "set image.size to the (height, width) that the model takes",
        )
    return np.stack(made)


def _views(
    images: Sequence[np.ndarray], config: ImageInput, augment: Augment | None, sample_key: int
) -> Iterator[View]:
    """One per image; images of one size share one, but for scope "image"."""
    drawn: dict[tuple[int, ...], View] = {}
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        one = augment is None or augment.scope == "sample"
        which = (height, width, 0 if one else number)
        if which not in drawn:
            drawn[which] = (
                centre_view(config, height, width)
                if augment is None
                else random_view(config, augment, height, width, sample_key, number)
            )
        yield drawn[which]


class RobotTransform:
    """What a policy sees and says, between measured fields (metres, rot6d) and model tensors."""

    def __init__(
        self,
        inputs: RobotInputs,
        normalizer: Normalizer,
        tokenizer: Tokenizer,
        tokens_per_image: int,
        marks: PromptMarks = PromptMarks(),
    ) -> None:
        self.inputs = inputs
        self.measured_fields, self.target_fields = inputs.measured_fields, inputs.target_fields
        self.normalizer = normalizer
        self.prompts = PromptBuilder(tokenizer, tokens_per_image, inputs.prompt, marks)
        self.action_dims = {name: normalizer[name].dims for name in inputs.action_fields}
        self.proprio_dims = {name: normalizer[name].dims for name in inputs.proprio_fields}

    @property
    def action_dim(self) -> int:
        return sum(self.action_dims.values())

    @property
    def proprio_dim(self) -> int:
        return sum(self.proprio_dims.values())

    def tokens(self, instruction: str) -> tuple[np.ndarray, bool]:
        """(int64 [T], whether the instruction was cut)."""
        tokens, cut = self.prompts.robot(
            instruction, self.inputs.images, self.inputs.max_instruction_tokens
        )
        return np.array(tokens, dtype=np.int64), cut

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """N images uint8 [H, W, 3], camera-major → uint8 [N, 3, h, w]."""
        return view_images(images, self.inputs.image)

    def proprio(
        self,
        fields: Mapping[str, np.ndarray],
        measured: Mapping[str, np.ndarray],
        lead: tuple[int, ...] = (),
        real: np.ndarray | None = None,
    ) -> np.ndarray:
        """{stored field: [*lead, S, D] at the proprio steps} → float32 [*lead, S, P] normalised.

        measured: {field: [*lead, D]} at the anchor, for relative poses. Absent fields become 0.
        real: bool [*lead, S], False at padded steps.
        """
        present = self._relative(self.inputs.proprio_fields, fields, measured, real)
        shape = (*lead, len(self.inputs.proprio_steps))
        parts = [np.zeros((*shape, 0))]
        for name, dims in self.proprio_dims.items():
            if name not in present:
                parts.append(np.zeros((*shape, dims)))
                continue
            steps = [
                self.normalizer.normalize(name, present[name][..., i : i + 1, :], step)
                for i, step in enumerate(self.inputs.proprio_steps)
            ]
            parts.append(np.concatenate(steps, axis=-2))
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def actions(
        self,
        targets: Mapping[str, np.ndarray],
        measured: Mapping[str, np.ndarray],
        real: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [..., K, A] normalised, bool [A] which dims the data has).

        targets: {stored action field: [..., K, D]}, absolute; measured: {field: [..., D]} at the
        anchor. Fields that `targets` lacks are 0 and False. real: bool [..., K], False at padded
        steps.
        """
        relative = self._relative(self.inputs.action_fields, targets, measured, real)
        shape = next(iter(targets.values())).shape[:-1]
        parts, known = [], []
        for name, dims in self.action_dims.items():
            has = name in relative
            known.append(np.full(dims, has))
            parts.append(
                self.normalizer.normalize(name, relative[name], -self.inputs.action_past)
                if has
                else np.zeros((*shape, dims))
            )
        return np.concatenate(parts, axis=-1).astype(np.float32), np.concatenate(known)

    def _relative(
        self,
        names: Sequence[str],
        stored: Mapping[str, np.ndarray],
        measured: Mapping[str, np.ndarray],
        real: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """The named fields that can be made of the stored ones, not normalised."""
        out: dict[str, np.ndarray] = {}
        for name in names:
            plain = name.removesuffix(RELATIVE)
            if name in out or plain not in stored:
                continue
            if not name.endswith(RELATIVE):
                out[name] = stored[plain]
                continue
            xyz, rotation = pose_pair(name)
            out[xyz + RELATIVE], out[rotation + RELATIVE] = relative_pose(
                stored[xyz], stored[rotation], *self._reference(name, measured), real
            )
        return out

    def present_actions(self, absent: Container[str]) -> np.ndarray:
        """bool [A]: False for the dimensions of absent stored fields."""
        dims = self.action_dims.items()
        parts = [np.full(size, f.removesuffix(RELATIVE) not in absent) for f, size in dims]
        return np.concatenate(parts)

    def targets(
        self,
        actions: np.ndarray,
        measured: Mapping[str, np.ndarray],
        absent: Container[str] = (),
    ) -> dict[str, np.ndarray]:
        """Inverse of `actions`: [..., K, A] normalised → {stored action field: float64 [..., K, D]}
        absolute, with rotations made orthonormal; without the absent fields."""
        raw, at = {}, 0
        for name, dims in self.action_dims.items():
            part = np.asarray(actions[..., at : at + dims], dtype=np.float64)
            if name.removesuffix(RELATIVE) not in absent:
                raw[name] = self.normalizer.denormalize(name, part, -self.inputs.action_past)
            at += dims
        out: dict[str, np.ndarray] = {}
        for name in raw:
            stored = name.removesuffix(RELATIVE)
            if stored in out:
                continue
            if not name.endswith(RELATIVE):
                out[stored] = raw[name]
                continue
            xyz, rotation = pose_pair(name)
            out[xyz], out[rotation] = absolute_pose(
                raw[xyz + RELATIVE], raw[rotation + RELATIVE], *self._reference(name, measured)
            )
        return out

    def _reference(
        self, name: str, measured: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """[..., 1, 3 and 6]: of the measured pose, for every step."""
        xyz, rotation = pose_pair(self.inputs.reference(name))
        for field in (xyz, rotation):
            if field not in measured:
                raise FoundryError(
                    f"{name!r} is relative to {field!r}, which is not measured",
                    nearest(field, measured),
                )
        return measured[xyz][..., None, :], measured[rotation][..., None, :]


def collate_robot(samples: Sequence[Sample], pad_id: int, pad_multiple: int = 1) -> Sample:
    """Samples {images, tokens, proprio, ...} → one batch; token rows are padded on the right.

    Keys other than `tokens` are stacked as they are, so serving collates observations with it.
    """
    tokens, mask = pad_tokens([s["tokens"] for s in samples], pad_id, pad_multiple)
    names = [name for name in samples[0] if name not in ("tokens", "images")]
    batch = {name: np.stack([sample[name] for sample in samples]) for name in names}
    if "images" in samples[0]:
        # Channels last in memory as decoders write them: moving them would cost as much as
        # decoding, and most models want channels_last anyway.
        stacked = np.stack([sample["images"].transpose(0, 2, 3, 1) for sample in samples])
        batch["images"] = stacked.transpose(0, 1, 4, 2, 3)
    return batch | {"tokens": tokens, "token_mask": mask}


def pad_tokens(
    rows: Sequence[np.ndarray], pad_id: int, pad_multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [B, T], bool [B, T] where a token is real)."""
    length = -(-max(len(row) for row in rows) // pad_multiple) * pad_multiple
    tokens = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        mask[number, : len(row)] = True
    return tokens, mask
