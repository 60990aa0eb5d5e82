"""Flow matching."""

from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from pydantic import Field

from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig
from foundry_core.models.sizes import positive
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class UniformTimes(Config):
    """t ~ U[0, 1): the paper's."""

    kind: Literal["uniform"] = "uniform"


class BetaTimes(Config):
    """t ~ Beta(alpha, beta); (1, 1.5) puts more draws near the noise end t = 0."""

    kind: Literal["beta"] = "beta"
    alpha: float = Field(1.0, gt=0, description="first parameter of the Beta distribution")
    beta: float = Field(1.5, gt=0, description="second parameter of the Beta distribution")


class LogitNormalTimes(Config):
    """t = sigmoid(mean + std·n), n ~ N(0, 1)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(0.0, description="of the logit of t")
    std: float = Field(1.0, gt=0, description="of the logit of t")


TimesConfig = Annotated[UniformTimes | BetaTimes | LogitNormalTimes, Field(discriminator="kind")]


class FlowConfig(TransformerHeadConfig):
    """Base of heads that match flows: a_t = (1−t)·z + t·a, velocity a − z, mean squared error."""

    time: Literal["adaln", "sum", "token"] = Field(
        "sum",
        description="how the time comes in: adaln scales and shifts every block, sum adds to the "
        "action tokens, token is one more token",
    )
    times: TimesConfig = Field(
        UniformTimes(), description="which times are trained on; t = 0 is noise"
    )
    num_noise_samples: int = positive(1, description="draws per observation, sharing it")
    solver: Literal["euler", "heun"] = Field(
        "euler", description="of the flow when acting; heun asks the network twice a step"
    )
    steps: int = positive(10, description="solver steps per action chunk")


class FlowHeadConfig(FlowConfig):
    """Flow transformer on the features of the observation."""

    kind: Literal["flow"] = "flow"

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.flow import FlowHead

        return FlowHead(self, **sizes)


HEAD = FlowHeadConfig
