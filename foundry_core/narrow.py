"""Tables on a terminal that is too narrow for them.

Columns that are empty in every row go first, then long texts are folded, the widest first, between
words and after dots, slashes and equals signs. Where names and numbers would have to be cut, too, a
record stands in lines of `name  value`. A table that fits stays as it is.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WORDS = re.compile(r"\s*\S+\s*")
# After a space, and inside `vlm.training.steps=8` or a path, but not inside 0.5.
_FOLDS = re.compile(r"\s+|(?<=[^\d\W])[./=](?=\w)|/(?=\w)")
# A text that is folded keeps this much; less is hard to read.
_READABLE = 20
_ANY = 100_000


@dataclass(frozen=True)
class Fitting:
    """A table of texts, printed as wide as the output allows."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        columns = [[_text(console, cell) for cell in column.cells] for column in table.columns]
        heads = [_text(console, column.header) for column in table.columns]
        whole = Measurement.get(console, options.update(max_width=_ANY), table).maximum
        if whole <= options.max_width or not table.row_count:
            yield table
            return
        kept = [i for i, cells in enumerate(columns) if any(cell.plain.strip() for cell in cells)]
        columns, heads = [columns[i] for i in kept], [heads[i] for i in kept]
        frame = (whole - sum(_natural(table, console))) / max(1, len(table.columns))
        room = options.max_width - round(frame * len(kept))
        fixed = [table.columns[i].no_wrap for i in kept]
        widths = _widths(heads, columns, fixed, room)
        if widths is None:
            yield from _blocks(table, heads, columns, options.max_width)
            return
        narrow = Table(
            title=table.title,
            title_justify=table.title_justify,
            caption=table.caption,
            caption_justify=table.caption_justify,
            box=table.box,
            padding=table.padding,
            pad_edge=table.pad_edge,
            header_style=table.header_style,
            show_header=table.show_header,
        )
        for i, head, width in zip(kept, heads, widths, strict=True):
            column = table.columns[i]
            justify, style = column.justify, column.style
            narrow.add_column(head, width=width, justify=justify, style=style)
        for row in zip(*columns, strict=True):
            narrow.add_row(*map(folded, row, widths))
        yield narrow


def folded(text: Text, width: int) -> Text:
    """In lines of at most so many cells; only a piece that is longer is left as it is."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        taken = ""
        cuts: list[int] = []
        at = 0
        for word in _WORDS.findall(line.plain):
            whole = cell_len(word.rstrip()) <= width
            for piece in [word] if whole else _pieces(word):
                if taken and cell_len((taken + piece).rstrip()) > width:
                    cuts.append(at)
                    taken = ""
                taken += piece
                at += len(piece)
        lines += line.divide(cuts)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _pieces(text: str) -> list[str]:
    ends = [found.end() for found in _FOLDS.finditer(text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if b > a]


def _widths(
    heads: Sequence[Text], columns: Sequence[Sequence[Text]], fixed: Sequence[bool], room: int
) -> list[int] | None:
    """Of the columns, the widest narrowed first; None where pieces would have to be cut."""
    widths, least = [], []
    for head, cells, whole in zip(heads, columns, fixed, strict=True):
        texts = [head, *cells]
        widest = max(map(_width, texts))
        longest = max(cell_len(p.rstrip()) for text in texts for p in ["", *_pieces(text.plain)])
        widths.append(widest)
        least.append(widest if whole else min(widest, max(longest, _READABLE)))
    if sum(least) > room:
        return None
    widths = [min(width, max(room, low)) for width, low in zip(widths, least, strict=True)]
    while sum(widths) > room:
        spare = [i for i, width in enumerate(widths) if width > least[i]]
        widths[max(spare, key=lambda i: widths[i])] -= 1
    return widths


def _blocks(
    table: Table, heads: Sequence[Text], columns: Sequence[Sequence[Text]], width: int
) -> Iterator[Text | Table]:
    """A record after the other, its blank values left out."""
    if table.title:
        yield Text.from_markup(str(table.title), style="italic")
    names = max(map(_width, heads))
    for number, row in enumerate(zip(*columns, strict=True)):
        if number:
            yield Text("")
        block = Table.grid(padding=(0, 2, 0, 0))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for head, cell in zip(heads, row, strict=True):
            if cell.plain.strip():
                block.add_row(head, folded(cell, width - names - 2))
        yield block
    if table.caption:
        yield Text.from_markup(str(table.caption), style="dim italic")


def _natural(table: Table, console: Console) -> list[int]:
    cells = [[column.header, *column.cells] for column in table.columns]
    return [max(_width(_text(console, cell)) for cell in column) for column in cells]


def _text(console: Console, cell: object) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)


def _width(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.split("\n")), default=0)
