"""What a model sees of an observation, and what its output means. No NumPy: planning imports this.

These configs are written into recipes and, with the policy, into policy.json: training and serving
build the same transforms from the same object.
"""

import fnmatch
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

RELATIVE = "_relative"
# Tokens that a model has beside its tokenizer's: of images, and where an action head reads.
IMAGE, OBS = "<|image|>", "<|obs|>"
Steps = Annotated[tuple[int, ...], Field(min_length=1)]
Mode = Literal["percentile_1_99", "percentile_5_95", "min_max", "std", "identity"]


def pose_prefix(field: str) -> str:
    """Pose that a field is one half of: ..__xyz, ..__rot_6d, relative or not."""
    return field.removesuffix(RELATIVE).removesuffix("__xyz").removesuffix("__rot_6d")


def pose_pair(field: str) -> tuple[str, str]:
    """The two stored fields of the pose that a field is one half of."""
    prefix = pose_prefix(field)
    return f"{prefix}__xyz", f"{prefix}__rot_6d"


class ImageInput(Config):
    """Geometry of one image: the part `crop` of it that is kept (centred, unless augmented), then
    brought to `size`. size None keeps the stored size; 1.0 keeps everything."""

    size: tuple[int, int] | None = Field(None, description="(height, width) the model takes")
    crop: float = Field(1.0, gt=0, le=1, description="kept fraction of each side")


class Prompt(Config):
    """Text around what a sample says. Images always come first, one block of placeholders each."""

    instruction: str = Field("{instruction}", description="must contain {instruction}")
    caption_prefix: str = Field("", description="before the caption; never a target")

    @model_validator(mode="after")
    def _has_place(self) -> Self:
        if "{instruction}" not in self.instruction:
            raise ValueError(f"template {self.instruction!r} has no {{instruction}}")
        return self


class PromptMarks(Config):
    """Token ids that a pretrained model expects around what a sample shows and says, as its chat
    template places them: [opening] ([image_before] image [image_after])* [text_before] text
    [closing]. image: id of its image token, null: that of <|image|>."""

    opening: tuple[int, ...] = Field((), description="token ids before everything")
    image_before: tuple[int, ...] = Field((), description="token ids before each image")
    image_after: tuple[int, ...] = Field((), description="token ids after each image")
    text_before: tuple[int, ...] = Field((), description="token ids before the text")
    closing: tuple[int, ...] = Field((), description="token ids after the text")
    image: int | None = Field(
        None, ge=0, description="id of the image token; null: that of <|image|>"
    )


class RobotInputs(Config):
    """Inputs and outputs of a policy.

    Fields follow LBM's names. A field that ends in `_relative` is a pose relative to the MEASURED
    pose of the same arm at the anchor; `references` names the reference per pose prefix where it
    is not the one LBM's naming gives (robot__<kind>__poses__<arm> → robot__actual__poses__<arm>).
    Action steps run from -action_past to horizon - action_past - 1 around the anchor.
    """

    cameras: tuple[str, ...] = Field(
        min_length=1, description="whose pictures the policy sees, in this order"
    )
    depth: Annotated[bool, OmitWhen(False)] = Field(
        False, description="batches hold the depth of every image, in metres"
    )
    image_steps: Steps = Field(
        (0,),
        description="steps of the pictures, relative to the anchor; 0 is the present, none lies "
        "in the future",
    )
    image: ImageInput = Field(ImageInput(), description="crop and size of every picture")
    proprio_fields: tuple[str, ...] = Field(
        (
            "robot__actual__poses__right::panda__xyz",
            "robot__actual__poses__right::panda__rot_6d",
            "robot__actual__grippers__right::panda_hand",
        ),
        description="measured fields that the policy reads; empty: none",
    )
    proprio_steps: Steps = Field(
        (0,),
        description="steps of the measured fields, relative to the anchor; none lies in the future",
    )
    action_fields: tuple[str, ...] = Field(
        (
            "robot__action__poses__right::panda__xyz_relative",
            "robot__action__poses__right::panda__rot_6d_relative",
            "robot__action__grippers__right::panda_hand",
        ),
        min_length=1,
        description="fields that it predicts; `_relative`: a pose relative to the measured one at "
        "the anchor",
    )
    horizon: int = Field(8, ge=1, description="steps of a chunk of actions")
    action_past: int = Field(
        0, ge=0, description="steps of the chunk that lie before the anchor; below horizon"
    )
    references: dict[str, str] = Field(
        {},
        description="pose prefix → prefix of the measured pose it is relative to, where names do "
        "not say it",
    )
    prompt: Prompt = Field(Prompt(), description="words around the instruction")
    max_instruction_tokens: int = Field(64, ge=1, description="longer ones are cut, and counted")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("cameras", "image_steps", "proprio_fields", "proprio_steps", "action_fields"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} {values} name something twice")
        if max(self.image_steps) > 0 or max(self.proprio_steps) > 0:
            raise ValueError(
                f"image_steps {self.image_steps} and proprio_steps {self.proprio_steps} lie in the "
                "future of the anchor; a policy cannot observe it"
            )
        if self.action_past >= self.horizon:
            raise ValueError(f"action_past {self.action_past} leaves nothing of {self.horizon}")
        for field in self.fields:
            if field.endswith(RELATIVE):
                self.reference(field)
        for field in self.action_fields:
            if field.endswith(RELATIVE) and self.partner(field) not in self.action_fields:
                raise ValueError(
                    f"action field {field!r} cannot be turned into a target without its other "
                    f"half: add {self.partner(field)!r}"
                )
        return self

    @property
    def images(self) -> int:
        return len(self.cameras) * len(self.image_steps)

    @property
    def measured_fields(self) -> tuple[str, ...]:
        """Stored fields of the robot's state that a policy needs: proprio, references of poses."""
        names: list[str] = []
        for field in self.proprio_fields:
            names += pose_pair(field) if field.endswith(RELATIVE) else (field,)
        for field in self.fields:
            if field.endswith(RELATIVE):
                names += pose_pair(self.reference(field))
        return tuple(dict.fromkeys(names))

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Stored fields, absolute, that actions are made of and turned into."""
        return tuple(dict.fromkeys(f.removesuffix(RELATIVE) for f in self.action_fields))

    @property
    def ahead(self) -> int:
        """Steps that are predicted, from the present on."""
        return self.horizon - self.action_past

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that is normalised."""
        return tuple(dict.fromkeys((*self.proprio_fields, *self.action_fields)))

    @staticmethod
    def partner(field: str) -> str:
        """The other half of a relative pose: ..__xyz_relative ↔ ..__rot_6d_relative."""
        if field.endswith("__xyz" + RELATIVE):
            return field.removesuffix("__xyz" + RELATIVE) + "__rot_6d" + RELATIVE
        return field.removesuffix("__rot_6d" + RELATIVE) + "__xyz" + RELATIVE

    def reference(self, field: str) -> str:
        """Pose prefix of the measured pose that a relative field is relative to."""
        prefix = pose_prefix(field)
        if prefix in self.references:
            return self.references[prefix]
        parts = prefix.split("__")
        if len(parts) < 4 or parts[2] != "poses" or prefix == field.removesuffix(RELATIVE):
            raise ValueError(
                f"{field!r} does not follow robot__<kind>__poses__<arm>: give its reference"
            )
        return "__".join([parts[0], "actual", *parts[2:]])


class Augment(Config):
    """Random views of a training image; validation and serving never apply it.

    shift: up to that many pixels each way, edges repeated. crop "random" places the kept fraction
    anywhere; "ratio" also draws its area (crop_area of the whole) and aspect (up to crop_aspect).
    brightness, contrast, saturation: factor in 1 ± value; hue: turn by ± value (0.5 = half a turn).
    scope "sample": one draw for all views and steps of a sample; "image": each its own.
    """

    shift: int = Field(
        0, ge=0, description="pixels that a picture moves at most, each way; edges are repeated"
    )
    crop: Literal["none", "random", "ratio"] = Field(
        "none",
        description="none: as inputs.image.crop says, centred; random: the kept part anywhere; "
        "ratio: of random area and aspect, too",
    )
    crop_area: tuple[float, float] = Field(
        (0.8, 1.0), description="ratio: least and largest part of the picture's area"
    )
    crop_aspect: float = Field(
        1.333, ge=1, description="ratio: widest width to height, and its inverse the tallest"
    )
    brightness: float = Field(0.0, ge=0, lt=1, description="factor in 1 ± this")
    contrast: float = Field(0.0, ge=0, lt=1, description="factor in 1 ± this")
    saturation: float = Field(0.0, ge=0, lt=1, description="factor in 1 ± this")
    hue: float = Field(
        0.0, ge=0, le=0.5, description="turns of the colour circle, ± this; 0.5 is half a turn"
    )
    scope: Literal["sample", "image"] = Field(
        "sample", description="sample: one draw for all views and steps; image: one for each"
    )

    @model_validator(mode="after")
    def _area(self) -> Self:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area {self.crop_area} must be 0 < low <= high <= 1")
        return self

    @property
    def colour(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class FieldNormalization(Config):
    """Rule of one field.

    floor: least half-range (std: least deviation) of a dimension, in its own units; without it a
    constant dimension's scale is its sensor's noise. null: by what the field is, see `least_scale`.
    sparse "range": min and max bound a dimension whose rare values percentiles (or a deviation)
    would lose: one with few values, one with half of its values alike, and one that rests within
    its floor at that step. "percentile" treats these like all others.
    clip: bound on the normalised value; None never clips. identity ignores both.
    """

    mode: Mode = Field(
        "percentile_1_99",
        description="what becomes [-1, 1]: percentiles 1 to 99 or 5 to 95, least to largest; std: "
        "zero mean, deviation 1; identity: as it is",
    )
    per_timestep: bool = Field(
        True,
        description="a rule for each step of the window, from its own statistics; false: one for "
        "all",
    )
    clip: float | None = Field(
        1.5, gt=0, description="bound on the normalised value; null never clips"
    )
    floor: float | None = Field(
        None,
        gt=0,
        description="least half-range (std: least deviation), in the field's unit; null: by what "
        "the field is",
    )
    sparse: Literal["range", "percentile"] = Field(
        "range",
        description="range: least and largest bound dimensions whose rare values percentiles "
        "would lose; percentile: none is treated so",
    )


class FieldOverride(Config):
    """The settings of a rule that differ for some fields; None keeps the general one."""

    mode: Mode | None = Field(None, description="null: the general rule's")
    per_timestep: bool | None = Field(None, description="null: the general rule's")
    clip: float | None = Field(None, gt=0, description="null: the general rule's")
    no_clip: bool = Field(False, description="never clips, whatever the general rule says")
    floor: float | None = Field(
        None, gt=0, description="in the field's unit; null: the general rule's"
    )
    sparse: Literal["range", "percentile"] | None = Field(
        None, description="null: the general rule's"
    )


class NormalizationConfig(FieldNormalization):
    """The general rule, and overrides by exact field name or glob.

    An exact name wins over globs; among matching globs the longest pattern wins (then the
    alphabetically first), so that the order of a YAML mapping never matters.
    """

    fields: Mapping[str, FieldOverride] = Field(
        {},
        description="exact name or glob of fields → settings that differ; the exact name wins, "
        "then the longest pattern",
    )

    def rule(self, field: str) -> FieldNormalization:
        """The rule of one field, overrides applied."""
        rule = self.model_dump(exclude={"fields"})
        matching = [p for p in self.fields if p == field or fnmatch.fnmatchcase(field, p)]
        if matching:
            override = self.fields[min(matching, key=lambda p: (p != field, -len(p), p))]
            rule |= override.model_dump(exclude={"no_clip"}, exclude_none=True)
            if override.no_clip:
                rule["clip"] = None
        return FieldNormalization(**rule)

    def check_matches(self, fields: list[str]) -> None:
        """An override that matches no field is a typing error, not a wish."""
        for pattern in self.fields:
            if pattern not in fields and not any(fnmatch.fnmatchcase(f, pattern) for f in fields):
                raise FoundryError(
                    f"normalization override {pattern!r} matches none of the fields "
                    f"{', '.join(sorted(fields))}",
                    "use an exact field name or a glob such as '*__xyz*'",
                )
