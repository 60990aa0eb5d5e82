"""What mkdocs calls while it builds the site: generated pages, and links that leave the folder."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HOOKS = Path(__file__).parent
REPOSITORY = HOOKS.parents[1]
sys.path[:0] = [str(HOOKS), str(REPOSITORY)]

import commands  # noqa: E402
import settings  # noqa: E402

# Files of the repository that are pages of the site, too.
INCLUDED = {
    "measured.md": "benchmarks/results.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def generated() -> list[tuple[str, str, str]]:
    """(path in the site, title, Markdown) of all pages that no person writes."""
    found = []
    for path, title, text in (*settings.pages(), *commands.pages()):
        up = "../" if path.count("/") else ""
        linked = re.sub(r"PAGE:([a-z-]+)", rf"{up}\1.md", text)
        found.append((f"reference/{path}", title, linked + "\n"))
    return found


def on_config(config: Any) -> Any:
    """The generated pages go below Reference in the navigation."""
    made = generated()
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    groups: dict[str, list[Any]] = {"Stage kinds": [], "Members of open sets": [], "Commands": []}
    for path, title, _ in made:
        folder = path.split("/")[1]
        group = {"stages": "Stage kinds", "commands": "Commands"}.get(
            folder, "Members of open sets"
        )
        groups[group].append(path if path.endswith("index.md") else {title: path})
    reference += [{name: pages} for name, pages in groups.items()]
    config["generated_pages"] = made
    return config


def on_files(files: Files, config: Any) -> Files:
    for path, _, text in config["generated_pages"]:
        files.append(File.generated(config, path, content=text))
    for path, source in INCLUDED.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=linked(text, source, path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    at = page.file.src_uri
    written = (REPOSITORY / "docs" / at).is_file()
    return linked(markdown, f"docs/{at}", at) if written else markdown


def linked(markdown: str, source: str, at: str) -> str:
    """A page's text with links as the site has them: to a page where the file is one, and in place
    of other files of the repository their names. source: the page's file in the repository; at: its
    place in the site."""
    pages = {file: path for path, file in INCLUDED.items()}

    def replace(match: re.Match[str]) -> str:
        words, target, fragment = match[1], match[2], match[3] or ""
        file = os.path.normpath(os.path.join(os.path.dirname(source), target))
        page = pages.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else "")
        if page:
            return f"[{words}]({os.path.relpath(page, os.path.dirname(at) or '.')}{fragment})"
        if (REPOSITORY / file).exists():
            return words if file in words else f"{words} (`{file}`)"
        return match[0]

    return _LINK.sub(replace, markdown)
