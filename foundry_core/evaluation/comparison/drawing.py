"""How pictures are drawn: one style, by matplotlib, the same bytes for the same numbers.

Ink and grid lines are CSS variables with fallbacks, so that a page's pictures follow its light or
dark scheme.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

# Told apart with any colour vision, on light and on dark paper; labels beyond begin again.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#7f7f7f",
)
HATCH = "//"  # of controls
INK, LINE = "#1a202c", "#cbd5e0"
_SIZE = 12  # of letters
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.prop_cycle": f"cycler('color', {COLOURS})",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": _SIZE,
    "axes.titleweight": "bold",
    "font.size": _SIZE,
    "grid.color": LINE,
    "legend.fontsize": _SIZE,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "foundry",
    "text.color": INK,
    "xtick.bottom": False,
    "xtick.labelcolor": INK,
    "ytick.left": False,
    "ytick.labelcolor": INK,
}
# What savefig would stamp: clock, version, and addresses that a page without links must not hold.
_OPTIONS: dict[str, dict[str, Any]] = {
    "svg": {
        "transparent": True,
        "metadata": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    },
    "png": {"dpi": 144, "metadata": {"Software": None}},
}


@dataclass(frozen=True)
class Picture:
    """draw: is given a matplotlib figure. width, height: pixels."""

    title: str
    width: float
    height: float
    draw: Callable[[Any], None]

    def svg(self) -> str:
        """The <svg> element alone, for a page."""
        return self.render("svg")[0].decode()

    def render(self, *forms: str) -> list[bytes]:
        """As "svg", and as "png": twice as fine, on white, for slides. Importing matplotlib takes
        half a second, and laying a picture out as long as drawing it."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        found = []
        with rc_context(_STYLE):
            size = (self.width / 72, self.height / 72)
            figure = Figure(figsize=size, dpi=72, layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure)
            for form in forms:
                written = io.BytesIO()
                figure.savefig(written, format=form, **_OPTIONS[form])
                figure.set_layout_engine("none")
                data = written.getvalue()
                found.append(data if form == "png" else _inline(data.decode(), self.title).encode())
        return found


def percents(axis: Any, set_limits: Callable[[float, float], Any], unit: str = " %") -> None:
    """An axis of rates. unit: behind all numbers but the last, which has it in any case."""
    set_limits(0, 1)
    words = [*(f"{percent}{unit}" for percent in range(0, 100, 25)), "100 %"]
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], words)
    axis.grid(True)
    axis.axes.set_axisbelow(True)


def _inline(document: str, title: str) -> str:
    """The <svg> element alone, as a page can hold several: no ids that two pictures share, lengths
    in pixels, the page's letters and colours."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = svg.replace(INK, f"var(--ink, {INK})").replace(LINE, f"var(--line, {LINE})")
    return svg.replace(">", f' role="img"><title>{escape(title)}</title>', 1)
