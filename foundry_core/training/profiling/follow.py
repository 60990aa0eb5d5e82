"""Tells a ledger in which part of a model a step is, forward and backward."""

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

from torch import Tensor, nn
from torch.autograd import _get_sequence_nr
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from foundry_core.training.parts import entries_of, parameters_of, parts_of
from foundry_core.training.profiling.ledger import MEASURING, Ledger


class Follower:
    """While it is entered: the calls into a part say so (`entries_of`), and every node of the
    autograd graph belongs to the part that made it. Gradients of parameters are summed up in the
    parameter's part.

    loss: the module that the step calls; model: the one inside of it, which has parts.
    """

    def __init__(self, loss: nn.Module, model: nn.Module, ledger: Ledger) -> None:
        self._loss, self._model, self._ledger = loss, model, ledger
        self._undo = ExitStack()
        self._part_of = {
            id(parameter): part
            for part, modules in parts_of(model).items()
            for parameter in parameters_of(modules)
        }
        # Sequence numbers of autograd nodes, and the part that nodes from there on belong to.
        self._from: list[int] = []
        self._parts: list[str] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for part, module, name in entries_of(self._model):
            self._wrap(part, module, name)
        begins = self._loss.register_forward_pre_hook(self._begins)
        ends = self._loss.register_forward_hook(self._ends)
        self._undo.callback(begins.remove)
        self._undo.callback(ends.remove)
        self._undo.callback(self._unhook)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _wrap(self, part: str, module: nn.Module, name: str) -> None:
        inner: Callable[..., Any] = getattr(module, name)
        own = name in vars(module)

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = self._ledger.label.part
            self._enter(part)
            try:
                return inner(*args, **kwargs)
            finally:
                self._enter(before)

        setattr(module, name, call)
        self._undo.callback(setattr, module, name, inner) if own else self._undo.callback(
            delattr, module, name
        )

    def _enter(self, part: str) -> None:
        if part != self._ledger.label.part:
            self._from.append(_get_sequence_nr())
            self._parts.append(part)
            self._ledger.enter(part)

    def _begins(self, *_: object) -> None:
        self._unhook()
        self._from, self._parts = [_get_sequence_nr()], [self._ledger.label.part]

    def _ends(self, _: object, __: object, output: tuple[Tensor, object]) -> None:
        with self._ledger.phase(MEASURING):
            for node in _nodes(output[0].grad_fn):
                hook = functools.partial(self._at, self._maker(node))
                self._hooks.append(node.register_prehook(hook))

    def _unhook(self) -> None:
        """Nodes that gather the gradient of a parameter may outlive a step."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _maker(self, node: Node) -> str:
        """The part that made a node."""
        variable = getattr(node, "variable", None)
        if variable is not None:  # AccumulateGrad, whose sequence number says nothing
            return self._part_of.get(id(variable), "")
        return self._parts[max(0, bisect_right(self._from, node._sequence_nr()) - 1)]

    def _at(self, part: str, _: object) -> None:
        self._ledger.enter(part)


def _nodes(root: Node | None) -> Iterator[Node]:
    """Every node below."""
    seen: set[Node] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            pending += [before for before, _ in node.next_functions]
