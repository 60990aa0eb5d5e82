"""What the documentation says can be done: its commands parse, its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.cli import COMMANDS, argument_parser
from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS, blocks, commands
from tests.ui.browser import Browser, chromium

PAGES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "README.md"]
TYPED = [
    (page.relative_to(REPOSITORY).as_posix(), line)
    for page in PAGES
    for block in blocks(page)
    for line in commands(block)
]
_LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_every_command_is_one_that_the_command_line_takes(page, line):
    line = re.sub(r"\$\([^)]*\)", "X", line)
    words = shlex.split(line.rstrip(" &"), comments=True)
    ends = [words.index(sign) for sign in ("|", "<", ">") if sign in words]
    words = [word for word in words[: min(ends, default=None)] if word not in ("...", "…")]
    assert words[1] in COMMANDS, line
    try:
        argument_parser(words[1]).parse_args(words[1:])
    except SystemExit as end:
        assert end.code == 0, line


def test_there_are_many():
    assert len(TYPED) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    if page.parent.name == "reference":
        pytest.skip("its pages are made with the site, whose build checks them")
    for target, _ in _LINK.findall(text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_variable_is_told():
    text = (DOCS / "environment.md").read_text(encoding="utf-8")
    used = set()
    for package in ("flows", "tasks", "foundry_core"):
        for path in (REPOSITORY / package).rglob("*.py"):
            used |= set(re.findall(r"\bFOUNDRY_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8")))
    assert {name for name in used if f"`{name}`" not in text} == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    assert "WARNING" not in built.stdout + built.stderr
    return folder


class Page(HTMLParser):
    """loads: what a browser fetches to show it; links: what it may go to; ids: of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag in ("script", "img", "iframe", "source", "video"):
            self.loads += [found["src"]] if "src" in found else []
        elif tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.loads.append(found["href"])
        elif tag == "a" and "href" in found:
            self.links.append(found["href"])


@pytest.mark.slow("builds the whole site")
@pytest.mark.timeout(1200)
def test_the_site_is_whole_and_asks_nobody_else(site):
    """Built without a warning; each page loads files of the site alone, and each link and anchor
    within it exists."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 80
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for target in page.loads:
            assert "//" not in target, (path.name, target)
            assert (path.parent / target.partition("?")[0]).is_file(), (path.name, target)
        for link in page.links:
            if "://" in link or link.startswith(("mailto:", "javascript:")):
                continue
            place, _, fragment = link.partition("#")
            goal = (path.parent / place).resolve() if place else path
            assert goal.is_file(), (path.name, link)  # a folder would be listed by the browser
            if fragment and goal in pages and not fragment.startswith("__"):
                assert fragment in pages[goal].ids, (path.name, link)
    words = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    assert any("lr_scale" in one["text"] for one in words)


@pytest.mark.slow("builds the whole site")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_opens_it_from_a_folder(site, width, scheme):
    """Nothing is asked of the network or lies beyond the window's side, and the search finds."""
    with Browser(width, 900) as browser:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser._call("Emulation.setEmulatedMedia", features=media)
        browser._call("Emulation.setFocusEmulationEnabled", enabled=True)
        browser.open(f"file://{site}/reference/stages/train_vla.html")
        wanted = {"light": "default", "dark": "slate"}[scheme]
        browser.wait(f"document.body.dataset.mdColorScheme == {wanted!r}", 120)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.wait("document.documentElement.classList.contains('js')")
        browser.run("document.querySelector('[data-md-toggle=search]').click()")
        browser.run("document.querySelector('.md-search__input').focus()")
        browser.wait("!/Init/.test(document.querySelector('.md-search-result__meta').textContent)")
        # Keys, one by one: the theme's search looks when one is let go.
        for letter in "lr_scale":
            browser.press(letter)
        browser.wait("!!document.querySelector('.md-search-result__item a[href*=train_vla]')", 120)
        loaded = "performance.getEntriesByType('resource').map(e => e.name)"
        assert browser.run(f"{loaded}.filter(name => !name.startsWith('file:'))") == []
