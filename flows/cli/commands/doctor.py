"""`foundry doctor`: what this machine has, what is missing, and what mends it."""

import argparse
from dataclasses import asdict

from flows.cli.commands.common import print_json

_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at what this machine has, and what is missing. Exit code 1 if something is wrong."
    )


def run(options: argparse.Namespace) -> int:
    from flows.cli.commands.serve import HOST, PORT
    from flows.service.doctor import looks

    found = looks(HOST, PORT)
    if options.json:
        print_json([asdict(look) for look in found])
    else:
        from rich.markup import escape

        from flows.terminal import stdout

        out = stdout()
        for look in found:
            style = _STYLES[look.state]
            out.print(f"[{style}]{look.state:<5}[/] {look.name:<13} {escape(look.says)}")
            if look.remedy:
                # Whole, for it is copied: a command that is folded pastes as several.
                out.print(f"{'':<6}{escape(look.remedy)}", style="dim", soft_wrap=True)
    return 1 if any(look.state == "wrong" for look in found) else 0
