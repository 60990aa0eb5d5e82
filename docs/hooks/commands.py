"""Reference pages of every command, made from the parsers of the command line."""

import argparse
from collections.abc import Iterator

import marks as md

from flows.cli import COMMANDS, argument_parser


def pages() -> Iterator[tuple[str, str, str]]:
    """(path below reference/, title, Markdown), in the order of the navigation."""
    rows = [(f"[`foundry {name}`]({name}.md)", md.text(what)) for name, what in COMMANDS.items()]
    yield (
        "commands/index.md",
        "Commands",
        "# Commands\n\nEvery command takes `--json` and `--debug`. Exit codes: 0 done, 1 a stage "
        "failed or something was found, 2 a mistake of yours, 130 interrupted.\n\n"
        + md.table(("command", "does"), rows),
    )
    for name in COMMANDS:
        yield f"commands/{name}.md", f"foundry {name}", "\n\n".join(_page(name))


def parser_of(name: str) -> argparse.ArgumentParser:
    """Of one command, with all its arguments."""
    found: argparse.ArgumentParser = _inner(argument_parser(name))[name]
    return found


def _inner(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _page(name: str) -> Iterator[str]:
    parser = parser_of(name)
    yield f"# foundry {name}"
    yield md.text(COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".")
    yield from _told(parser, f"foundry {name}", 2)


def _told(parser: argparse.ArgumentParser, called: str, level: int) -> Iterator[str]:
    inner = _inner(parser)
    if not inner:
        yield f"```text\n{_usage(parser, called)}\n```"
    groups = [[a for a in parser._actions if bool(a.option_strings) is o] for o in (False, True)]
    for head, actions in zip(("argument", "option"), groups, strict=True):
        rows = [_row(action) for action in actions if _is_told(action)]
        if rows:
            yield md.table((head, "meaning", "default"), rows)
    for name, one in inner.items():
        yield f"{'#' * level} {called} {name} {{#{md.anchor(name)}}}"
        if one.description:
            yield md.text(one.description)
        yield from _told(one, f"{called} {name}", level + 1)
    if parser.epilog:
        yield f"```text\n{parser.epilog}\n```"


def _is_told(action: argparse.Action) -> bool:
    hidden = isinstance(action, (argparse._SubParsersAction, argparse._HelpAction))
    return not hidden and action.help != argparse.SUPPRESS


def _usage(parser: argparse.ArgumentParser, called: str) -> str:
    formatter = argparse.HelpFormatter(prog=called, width=88)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _row(action: argparse.Action) -> tuple[str, str, str]:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    takes_value = action.nargs != 0
    spelled = (
        ", ".join(action.option_strings) + (f" {name.upper()}" if takes_value else "")
        if action.option_strings
        else name
    )
    shown = action.default not in (None, False, argparse.SUPPRESS, [], ())
    default = md.code(str(action.default)) if shown and takes_value else ""
    return md.code(spelled), md.text((action.help or "").replace("%%", "%")), default
