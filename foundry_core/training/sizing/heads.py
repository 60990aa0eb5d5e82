"""Action heads as parts: what each kind of them costs, and how it has its backbone read. No torch.

Legend: K horizon, A action dim, S proprio steps, r noise draws, n tokens of a draw, P positions of
the prompt.
"""

from dataclasses import dataclass, replace

from foundry_core.data.loading.config import ROBOT
from foundry_core.errors import FoundryError
from foundry_core.models.heads.act import ActHeadConfig
from foundry_core.models.heads.base import HeadConfig, HeadSizes, KeyValueShape
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.fast import FastHeadConfig
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.heads.tokens import TokenHeadConfig
from foundry_core.training.sizing.parts import (
    HeadPart,
    Part,
    Pass,
    Reading,
    transformer_head_part,
    waves,
)
from foundry_core.training.sizing.shapes import FP32, BlockShape, Bytes, head_block
from foundry_core.training.sizing.workload import Rows

_TRANSFORMERS = (FlowHeadConfig, DiffusionHeadConfig, RegressionHeadConfig)


def head_part(config: HeadConfig, sizes: HeadSizes, tokens: int = 1) -> Part:
    """tokens: of the condition. FoundryError for a head of another make."""
    if isinstance(config, _TRANSFORMERS):
        return transformer_head_part(config, sizes, tokens)
    if isinstance(config, ActHeadConfig):
        return _act_part(config, sizes, tokens)
    if isinstance(config, Pi0HeadConfig):
        return _expert_part(config, sizes)
    if isinstance(config, TokenHeadConfig):
        return _Speech(name="head", place="head", own=0)
    raise FoundryError(f"the size of an action head {config.kind!r} is not known here")


def reading_of(config: HeadConfig, sizes: HeadSizes) -> Reading:
    """How the backbone is read. Of `fast`, whose chunks are as long as they have news, a token per
    action element: an upper bound."""
    speaks = config.tokens if isinstance(config, Pi0HeadConfig) else config
    spoken = vocabulary = 0
    if isinstance(speaks, BinsHeadConfig | FastHeadConfig):
        spoken, vocabulary = sizes["horizon"] * sizes["action_dim"], speaks.vocabulary
    return Reading(
        looks=bool({"features", "keys_values"} & config.needs),
        layers=_layers_read(config) if isinstance(config, Pi0HeadConfig) else None,
        insulated=getattr(config, "insulated", False),
        spoken=spoken,
        vocabulary=vocabulary,
    )


def _layers_read(config: Pi0HeadConfig) -> int:
    """Up to the last one whose keys and values it looks at: by turns every other."""
    return config.n_layers - (config.attention == "alternate" and config.n_layers % 2 == 0)


@dataclass(frozen=True, kw_only=True)
class _Speech(Part):
    """A head without weights: what it says costs the decoder."""

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        return Pass()


@dataclass(frozen=True, kw_only=True)
class _ActPart(HeadPart):
    """The trunk and, in front of it, the encoder of the style. style_blocks: of the latter."""

    style_blocks: int
    latent: int

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return Pass()
        shape, sizes, dim = self.shape, self.sizes, self.dim
        trunk = replace(self, n_blocks=self.n_blocks - self.style_blocks)
        found = HeadPart.passed(trunk, rows, size)
        steps = sizes["proprio_steps"] if sizes["proprio_dim"] else 0
        positions = 1 + steps + sizes["horizon"]
        given = steps * sizes["proprio_dim"] + sizes["horizon"] * sizes["action_dim"]
        data = 2.0 * dim * given
        style = Pass(
            linear=data
            + self.style_blocks * shape.linear_flops(positions)
            + 2.0 * 3 * dim * self.latent,
            leaf=data,
            scores=self.style_blocks * shape.score_flops(positions),
            blocks=self.style_blocks * positions * shape.kept(size),
            rest=shape.kept_by_norm + size.product * given + FP32 * 8 * self.latent,
            inputs=self.style_blocks * positions * size.residual * dim,
            block=positions * shape.kept(size),
        )
        return found + style


def _act_part(config: ActHeadConfig, sizes: HeadSizes, tokens: int) -> _ActPart:
    trunk = transformer_head_part(config, sizes, tokens)
    dim, shape, latent = config.dim, trunk.shape, config.latent
    style = config.style_layers * shape.parameters + shape.norm_parameters
    style += (1 + sizes["proprio_steps"] + sizes["horizon"]) * dim
    style += (sizes["action_dim"] + 1) * dim + (dim + 1) * 2 * latent
    if sizes["proprio_dim"]:
        style += (sizes["proprio_dim"] + 1) * dim
    values = vars(trunk) | {
        "own": trunk.own + style + (latent + 1) * dim,
        "n_blocks": trunk.n_blocks + config.style_layers,
        "more": 1,
    }
    return _ActPart(**values, style_blocks=config.style_layers, latent=latent)


@dataclass(frozen=True, kw_only=True)
class _ExpertPart(Part):
    """An expert on a decoder's keys and values. joint: every layer reads both."""

    dim: int
    shape: BlockShape
    sizes: HeadSizes
    time: str
    draws: int
    joint: bool

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return Pass()
        shape, sizes, dim, draws = self.shape, self.sizes, self.dim, self.draws
        horizon, actions = sizes["horizon"], sizes["action_dim"]
        steps = sizes["proprio_steps"] if sizes["proprio_dim"] else 0
        own = draws * (steps + horizon + (self.time == "token"))
        proprio = 2.0 * dim * steps * sizes["proprio_dim"]
        of_waves = draws * 2.0 * waves(dim) * 4 * dim
        ends = draws * 2.0 * horizon * actions * dim
        linear = self.n_blocks * (shape.linear_flops(own) + draws * shape.modulation_flops())
        kept = [self._kept(number, own, rows.positions, size) for number in range(self.n_blocks)]
        rest = own * shape.kept_by_norm
        rest += draws * horizon * (size.product * dim + 3 * FP32 * actions)
        return Pass(
            linear=linear + proprio + of_waves + draws * 2.0 * 4 * dim * dim + 2 * ends,
            leaf=proprio + of_waves + ends,
            scores=sum(
                4.0 * shape.heads * shape.head_dim * own * seen
                for seen in (self._seen(n, own, rows.positions) for n in range(self.n_blocks))
            ),
            blocks=float(sum(kept)),
            rest=float(rest),
            inputs=self.n_blocks * own * size.residual * dim,
            block=float(max(kept)),
        )

    def _seen(self, number: int, own: int, prompt: int) -> int:
        """Keys that a layer looks at."""
        if self.joint:
            return own + prompt
        return own if number % 2 else prompt

    def _kept(self, number: int, own: int, prompt: int, size: Bytes) -> int:
        """Of a block, and of what it looks at: keys and values of both together, which are copies,
        and who sees whom, as the kernel takes it."""
        shape, seen = self.shape, self._seen(number, own, prompt)
        found = own * shape.kept(size)
        if self.joint:
            found += 2 * size.product * shape.kv_heads * shape.head_dim * seen
        return found + own * seen * size.product


def _expert_part(config: Pi0HeadConfig, sizes: HeadSizes) -> _ExpertPart:
    keys: KeyValueShape | None = sizes.get("keys_values")
    if keys is None:
        raise FoundryError("the keys and values that a head of kind 'pi0' reads are not known here")
    dim = config.dim
    shape = head_block(config, modulated=config.time == "adaln", keys=keys)
    own = config.n_layers * shape.parameters + shape.norm_parameters
    own += (waves(dim) + 1) * 4 * dim + (4 * dim + 1) * dim
    own += (sizes["action_dim"] + 1) * dim + (dim + 1) * sizes["action_dim"]
    if sizes["proprio_dim"]:
        own += (sizes["proprio_dim"] + 1) * dim
    return _ExpertPart(
        name="head",
        place="head",
        own=own,
        block=shape.parameters,
        n_blocks=config.n_layers,
        dim=dim,
        shape=shape,
        sizes=sizes,
        time=config.time,
        draws=config.num_noise_samples,
        joint=config.attention == "joint",
    )
