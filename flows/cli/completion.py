"""Completion in bash, zsh and fish: `eval "$(register-python-argcomplete foundry)"`.

The shell asks the command itself, so what is offered is what would be accepted: commands, their
options, pipelines, stage kinds and model presets.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.project import enter


def complete(parser_of: Callable[[str | None], argparse.ArgumentParser]) -> None:
    """Answers the shell and ends the process."""
    import argcomplete

    with contextlib.suppress(FoundryError):  # the command itself says what is wrong
        enter()
    words = os.environ.get("COMP_LINE", "").split()[1:]
    named = next((word for word in words if not word.startswith("-")), None)
    parser = parser_of(named)
    offers = {"pipeline": _pipelines, "kind": _kinds}
    for action in _positional(parser):
        if action.dest in offers:
            action.completer = offers[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _positional(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _positional(inner)
        elif not action.option_strings:
            yield action


def _pipelines(prefix: str, **_: Any) -> list[str]:
    """By name, and YAML files."""
    from argcomplete.completers import FilesCompleter

    from foundry_core.config.documents import pipeline_names

    return [*pipeline_names(), *FilesCompleter(("yaml", "yml"))(prefix)]


def _kinds(**_: Any) -> list[str]:
    from foundry_core.pipeline.registry import stage_kinds

    return stage_kinds()
