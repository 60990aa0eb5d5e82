"""What the documentation's pages hold: files to write, commands to run, commands shown."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
_BLOCK = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block. language: as fenced; title: of the block, where it has one."""

    language: str
    title: str
    text: str

    @property
    def is_run(self) -> bool:
        """`bash` is run, in the order of the page; `sh` and `console` are shown."""
        return self.language == "bash"

    @property
    def file(self) -> str:
        """The file that the block is, '' for none."""
        return self.title if re.fullmatch(r"[\w/.-]+\.\w+", self.title) else ""


def blocks(page: Path) -> list[Block]:
    found = []
    for indent, language, more, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        title = _TITLE.search(more)
        lines = [line.removeprefix(indent) for line in text.splitlines(keepends=True)]
        found.append(Block(language, title[1] if title else "", "".join(lines)))
    return found


def commands(block: Block) -> list[str]:
    """Lines of a shell block that call `foundry`, continued lines joined, prompts and comments cut
    off."""
    if block.language not in ("bash", "sh", "console", "shell", ""):
        return []
    joined = re.sub(r"\\\n\s*", " ", block.text)
    # A quoted query may go over several lines.
    joined = re.sub(r'"[^"]*"', lambda quoted: " ".join(quoted[0].split()), joined)
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    return [line for line in lines if re.match(r"foundry [a-z]", line)]
