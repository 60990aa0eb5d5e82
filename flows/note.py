"""What a stage says beside its bar: as much as the terminal has room for."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text


class NoteColumn(ProgressColumn):
    """The parts of a task's field `note`, in its field `style`. It is the only column that may be
    folded, so that rich takes room from it alone: names, percentages and times stay whole."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=False))

    def render(self, task: Task) -> "Note":
        """The note of a task."""
        return Note(task.fields["note"], task.fields["style"])


@dataclass(frozen=True)
class Note:
    """One line in whatever room there is: see `shortened`."""

    parts: Sequence[str]
    style: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(cell_len(" ".join(self.parts)), options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(shortened(self.parts, options.max_width), self.style, no_wrap=True)


def shortened(parts: Sequence[str], width: int) -> str:
    """Of the parts, the first ones that fit into so many cells, each whole; of a first one that
    does not, its first words and "…". Empty where not even a word fits."""
    found = ""
    for part in parts:
        longer = f"{found} {part}" if found else part
        if cell_len(longer) > width:
            break
        found = longer
    if found or not parts:
        return found
    words = parts[0].split()
    while words and cell_len(text := " ".join(words) + "…") > width:
        words.pop()
    return text if words else ""
