"""Tables of the dimensions of fields. A field's name is long and stands in a line of its own, so
that its numbers fit 80 columns and no name is cut: xyz and rot_6d differ at their ends."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from foundry_core.narrow import Fitting


def field_table(
    name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], about: str = ""
) -> Iterator[RenderableType]:
    """The field, what is said of it as a whole, and a row per dimension. Columns are numbers, but
    for those without a head."""
    yield Text.assemble((name, "bold"), f"  {about}" if about else "")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for row in rows:
        table.add_row(*row)
    yield Fitting(table)
