"""How a policy is served: seeds, batches, chunks, bounds. Torch-free: `--help` reads it."""

from typing import Self

from pydantic import Field, model_validator

from foundry_core.pipeline.stage import Config


class ChunkOptions(Config):
    """What becomes of the chunks that a policy predicts. Without any of these the first
    `execute_steps` targets of a chunk are carried out, then the next one is predicted.

    ensemble: targets of one step that several chunks predicted are averaged with weights
    exp(-ensemble · i), i = 0 for the oldest chunk (Zhao et al. 2023, who take 0.01 and
    execute_steps 1). delay: real-time chunking: the next chunk is predicted from what is observed
    `delay` steps before it is needed, while the robot goes on with the last one; those steps of
    the new chunk are passed over, and what follows fades over from the old chunk. gripper_
    hysteresis: a gripper only opens and closes, and changes when its target leaves the middle by
    more than this share of the stroke.
    """

    execute_steps: int | None = Field(None, ge=1, description="default: the policy's")
    ensemble: float | None = Field(
        None,
        ge=0,
        description="m: targets of one step are averaged over chunks by exp(-m · i), oldest "
        "first; null: not",
    )
    delay: int = Field(
        0,
        ge=0,
        description="control steps between what a chunk is predicted from and its first use",
    )
    gripper_hysteresis: float | None = Field(
        None,
        ge=0,
        lt=0.5,
        description="share of the stroke from the middle that a target must pass; null: a gripper "
        "moves freely",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.ensemble is not None and self.delay:
            raise ValueError("ensemble and delay both decide how chunks meet: give one of them")
        return self


class ServingOptions(Config):
    """seed: of clients whose protocol names none. batch_ms: how long a request waits for those of
    other clients that are active. idle_seconds: after which a silent client is forgotten."""

    seed: int = Field(0, ge=0, lt=1 << 32, description="of clients whose protocol names none")
    chunks: ChunkOptions = Field(ChunkOptions(), description="what becomes of predicted chunks")
    batch_ms: float = Field(
        3.0, ge=0, description="milliseconds that a request waits for those of other active clients"
    )
    max_batch: int = Field(64, ge=1, description="requests in one forward pass")
    max_clients: int = Field(256, ge=1, description="clients at one time")
    idle_seconds: float = Field(
        600.0, gt=0, description="of silence, after which a client is forgotten"
    )
