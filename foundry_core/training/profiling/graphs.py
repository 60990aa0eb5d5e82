"""Where torch.compile would break a training's graph, and why."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from foundry_core.training.parts import Parts, transformer_blocks
from foundry_core.training.profiling.counting import place


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """What compiling `what` would come to. A break in a function that is inlined cuts its callers,
    too. reasons: of the breaks, each place once; error: why it could not be traced at all."""

    what: str
    graphs: int
    breaks: int
    reasons: Sequence[str]
    error: str = ""


def explained(what: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Graphs:
    """Traces one call of it, which is carried out. Forgets all that was compiled before."""
    try:
        found = torch._dynamo.explain(call)(*args, **kwargs)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        return Graphs(what=what, graphs=0, breaks=0, reasons=(), error=_first_line(str(error)))
    return Graphs(
        what=what,
        graphs=found.graph_count,
        breaks=max(0, found.graph_break_count),
        reasons=tuple(dict.fromkeys(map(_told, found.break_reasons))),
    )


def _told(reason: Any) -> str:
    stack = list(reason.user_stack)
    where = f" at {place(stack[-1].filename, stack[-1].lineno)}" if stack else ""
    return f"{_first_line(str(reason.reason))}{where}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a module, which can be made again."""

    what: str
    module: nn.Module
    args: Any
    kwargs: Any

    def explained(self) -> Graphs:
        return explained(self.what, self.module, *self.args, **self.kwargs)


@contextmanager
def recorded_calls(loss: nn.Module, parts: Parts) -> Iterator[list[Call]]:
    """The first calls inside of the block: of the loss, and of each part's transformer blocks, of
    one per class."""
    found: list[Call] = []
    handles = [_recording(loss, "the whole loss", found)]
    for part, modules in parts.items():
        by_class: dict[type[nn.Module], list[nn.Module]] = {}
        for module in modules:
            for block in transformer_blocks(module):
                by_class.setdefault(type(block), []).append(block)
        for kind, blocks in by_class.items():
            what = f"{part}: {kind.__name__}, one of {len(blocks)}"
            handles.append(_recording(blocks[0], what, found))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _recording(module: nn.Module, what: str, found: list[Call]) -> RemovableHandle:
    def record(module: nn.Module, args: Any, kwargs: Any) -> None:
        if all(call.what != what for call in found):
            found.append(Call(what=what, module=module, args=args, kwargs=kwargs))

    return module.register_forward_pre_hook(record, with_kwargs=True)
