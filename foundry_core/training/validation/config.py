"""What is asked of validation while training. No torch: recipes hold it and planning imports it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from foundry_core.pipeline.stage import Config


class BestRule(Config):
    """Which validation is the best one. It is judged on the weights that the stage leaves: the
    average with `ema`, else the live ones."""

    measure: str = Field(
        description="as validation.jsonl names it without the weights: robot/loss, "
        "robot/position_mm, captions/loss, captions/<label>/exact ..."
    )
    better: Literal["lower", "higher"] = Field(
        "lower", description="which way of the measure is better"
    )
    least_gain: float = Field(0.0, ge=0, description="in the measure's unit; smaller ones are none")
    keep: bool = Field(True, description="the stage leaves the best weights instead of the last")
    patience: int | None = Field(
        None, ge=1, description="validations in a row without a gain after which training ends"
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.keep and self.patience is None:
            raise ValueError("best with keep: false and no patience changes nothing: leave it out")
        return self


class ValidationConfig(Config):
    """Held-out samples are read before the first step, every so many steps, and after the last one.
    They are the same each time, evenly spaced over the validation side of each connected dataset
    that was converted with a `split`. Without `best` it changes nothing in the weights."""

    every: int = Field(200, ge=1, description="steps between two validations")
    share: float = Field(
        0.015,
        gt=0,
        le=1,
        description="samples that are read, as a part of those trained on in between; both weights "
        "count where there is an average",
    )
    samples: int | None = Field(
        None, ge=1, description="of each dataset and modality, in place of share"
    )
    best_of: int = Field(
        4, ge=1, le=64, description="chunks that a policy is asked for; the first one is its answer"
    )
    best: BestRule | None = Field(
        None,
        description="stop early, or keep the best weights; null: validations are only recorded",
    )
