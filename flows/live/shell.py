"""The pages' HTML: a head, an empty body, one script and one style, each named by its digest in the
page's policy. They hold nothing of any run."""

from dataclasses import dataclass
from functools import cache
from importlib import resources

from flows.prefect.http import ASKING, CLOSED, digest_source
from foundry_core.evaluation.comparison.report import page_style
from foundry_core.lineage.graph import style as graph_style

_SHARED = ("page", "tables")
_PAGES = {
    "runs": ("Foundry runs", ("runs",)),
    "run": (
        "Foundry run",
        ("stages", "curves", "verdict", "rollouts", "graph", "artifact", "search", "run"),
    ),
}


@dataclass(frozen=True)
class Shell:
    """body: of the page. policy: its Content-Security-Policy."""

    body: bytes
    policy: str


@cache
def shell(name: str) -> Shell:
    """The page `run` or `runs`."""
    return _shell(*_PAGES[name])


def _shell(title: str, parts: tuple[str, ...]) -> Shell:
    # Each file keeps its names to itself, but for what it puts into `foundry`.
    script = '"use strict";\nconst foundry = {};\n{' + ASKING + "foundry.headers = headers;\n}\n"
    script += "".join(f"{{\n{_static(f'{one}.js')}}}\n" for one in (*_SHARED, *parts))
    style = f"{page_style()}\n{graph_style()}\n{_static('live.css')}"
    body = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body>{_static(f'{parts[-1]}.html')}"
        f"<script>{script}</script></body></html>\n"
    )
    policy = (
        f"{CLOSED}; script-src {digest_source(script)}; style-src {digest_source(style)}; "
        "connect-src 'self'; img-src blob: data:; media-src blob:"
    )
    return Shell(body.encode(), policy)


def _static(name: str) -> str:
    return resources.files("flows.live").joinpath("static", name).read_text(encoding="utf-8")
