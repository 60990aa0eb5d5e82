"""VLA.act at the speed of its device: weights kept in the type they compute in, compiled blocks or
chunks, the whole chunk as one CUDA graph.

A chunk is some thousand small kernels, most of them the head's at batch 1: launched one by one,
they wait for the host. A graph launches them all at once, on the buffers it was recorded with. On a
CPU the host is all there is: there the whole chunk is compiled, which leaves one call.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models.blocks import compile_blocks
from foundry_core.models.placeholders import on_host
from foundry_core.models.vla import VLA

_RECORDINGS = 16
_WARM_UP = 3
TOKENS_MULTIPLE = 16
"""Graphs are of fixed shapes: token rows are padded to this, batches to a power of two."""
COMPILED_MULTIPLE = 8
"""As is compiled code, which computes the padding, too."""


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """precision bf16: products in bfloat16, as training does them. compiled: on a GPU each kind of
    block once, some seconds at the first chunk; on a CPU the whole chunk, a minute or two for each
    shape that no process has compiled before; rounding differs. graphs: CUDA alone; same numbers.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False
    graphs: bool = False

    def rows(self, count: int) -> int:
        """How many rows a batch of `count` is computed with."""
        return 1 << (count - 1).bit_length() if self.graphs or self.compiled else count

    @property
    def tokens_multiple(self) -> int:
        """What rows of tokens are padded to."""
        if self.graphs:
            return TOKENS_MULTIPLE
        return COMPILED_MULTIPLE if self.compiled else 1


def hold_bf16(model: nn.Module) -> None:
    """Keeps in bfloat16, in place, what autocast would cast at each use: the weights of products.
    Same results, half the memory, no casts."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)


@dataclass(kw_only=True)
class _Recording:
    inputs: dict[str, Tensor]
    graph: Any
    output: Tensor


class Actor:
    """Calls `model.act` as `how` asks for. The model is changed in place: train another copy.

    FoundryError for graphs without CUDA, or of a model that cannot be recorded.
    """

    def __init__(self, model: VLA, how: Acceleration = Acceleration()) -> None:
        self.model = model.eval()
        self.how = how
        self._device = next(model.parameters()).device
        if how.graphs and self._device.type != "cuda":
            raise FoundryError(
                f"CUDA graphs need a model on a CUDA device, this one is on {self._device}",
                "load the policy with device=cuda, or leave graphs out",
            )
        kind = model.config.head.kind
        for wanted, possible, what, name in (
            (how.graphs, model.head.records, "recorded as CUDA graphs", "graphs"),
            (how.compiled, model.head.compiles, "compiled", "compiled"),
        ):
            if wanted and not possible:
                raise FoundryError(
                    f"chunks of the action head {kind!r} cannot be {what}: it says them token by "
                    "token, each step of another length or as long as it takes",
                    f"leave {name} out",
                )
        if how.precision == "bf16":
            hold_bf16(model)
        self._chunk: Callable[..., Tensor] = self.model.act
        if how.compiled and self._device.type == "cpu":
            self._chunk = torch.compile(self.model.act, dynamic=False)
        elif how.compiled:
            compile_blocks(model)
        self._recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self._pool: Any = None

    def __call__(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        proprio: Tensor | None,
        *,
        seeds: Tensor,
        steps: Tensor,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        """As VLA.act: float32 [B,K,A]."""
        given = {
            "images": images,
            "tokens": tokens,
            "token_mask": token_mask,
            "proprio": proprio,
            "seeds": seeds,
            "steps": steps,
            "action_mask": action_mask,
        }
        inputs = {name: tensor for name, tensor in given.items() if tensor is not None}
        if self.how.compiled and on_host(tokens):  # in compiled code nobody counts
            self.model.check_tokens(images, tokens)
        with torch.inference_mode():
            if not self.how.graphs:
                return self._act(inputs, solver_steps)
            return self._replay(inputs, solver_steps)

    def _act(self, inputs: dict[str, Tensor], solver_steps: int | None) -> Tensor:
        absent: dict[str, Any] = dict.fromkeys(("images", "token_mask", "proprio", "action_mask"))
        half = self.how.precision == "bf16"
        # A cache of casts would be read by a graph after autocast has emptied it.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=half, cache_enabled=not self.how.graphs
        ):
            return self._chunk(**(absent | inputs), solver_steps=solver_steps)

    def _replay(self, inputs: dict[str, Tensor], solver_steps: int | None) -> Tensor:
        shapes = ((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items())
        key = (solver_steps, *shapes)
        recording = self._recordings.pop(key, None) or self._record(inputs, solver_steps)
        self._recordings[key] = recording
        if len(self._recordings) > _RECORDINGS:
            self._recordings.popitem(last=False)
        for name, tensor in inputs.items():
            recording.inputs[name].copy_(tensor, non_blocking=True)
        recording.graph.replay()
        return recording.output.clone()

    def _record(self, inputs: dict[str, Tensor], solver_steps: int | None) -> _Recording:
        held = {name: tensor.clone() for name, tensor in inputs.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):  # compiles, fills the caches of constants
                self._act(held, solver_steps)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                output = self._act(held, solver_steps)
        except RuntimeError as error:
            raise FoundryError(
                f"this model's chunk cannot be recorded as a CUDA graph: {error}",
                "leave graphs out: something in the model asks the device while it runs",
            ) from error
        # One pool for all: no two graphs run at once, and what they give is copied at once.
        self._pool = self._pool or graph.pool()
        return _Recording(inputs=held, graph=graph, output=output)
