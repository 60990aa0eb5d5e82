"""What `foundry profile` prints: at most 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flows.reports.profiling import StageProfile
from flows.terminal import stdout

if TYPE_CHECKING:
    from rich.table import Table

    from foundry_core.training.profiling.counting import HostRead
    from foundry_core.training.profiling.graphs import Graphs
    from foundry_core.training.profiling.result import Profile

_WIDTH, _INDENT = 80, 12
_SHOWN = 8  # names in a list; the others are in the JSON
_PARTS = {"output": "output layer", "": "elsewhere"}
_PHASES = {
    "prepare": "batch to device",
    "norm": "gradient norm",
    "optimizer": "optimizer",
    "average": "average",
    "data": "wait for data",
    "rest": "rest",
}


def show(found: StageProfile) -> None:
    """On standard output."""
    console = stdout()
    for piece in rendered(found):
        if isinstance(piece, str):
            console.print(piece, markup=False, soft_wrap=True)
        else:
            console.print(piece)


def rendered(found: StageProfile) -> "Iterator[str | Table]":
    """Lines and tables, in order."""
    profile = found.profile
    yield from _heading(found)
    yield ""
    yield _parts(profile)
    watched = _time(profile.watched_seconds)
    yield from _lines("", f"of a watched step of {watched}; held: for the backward pass")
    yield ""
    yield _operators(profile)
    yield from _lines("", _of_operators(profile))
    yield ""
    yield from _lines("memory", _memory(profile))
    yield from _lines("arithmetic", _arithmetic(profile))
    yield from _ceiling(profile)
    yield from _lines("unused", _unused(profile))
    yield from _host_waits(profile.host_reads)
    yield from _graphs(profile.graphs)
    for note in profile.notes:
        yield from _lines("note", note)


def _heading(found: StageProfile) -> Iterator[str]:
    setting, times = found.profile.setting, found.profile.times
    batch = " + ".join(f"{m} {n}" for m, n in setting.batch.items())
    threads = f", {setting.threads} thread{'s' * (setting.threads > 1)}"
    words = [setting.device + threads, setting.precision, f"a batch of {batch}"]
    words += [f"micro-batches of {setting.micro_batch}"] if setting.micro_batch else []
    words += ["compiled blocks"] if setting.compile == "blocks" else []
    words += [f"recomputes {', '.join(setting.recompute)}"] if setting.recompute else []
    words += [f"{setting.loader_workers} loader workers"] if setting.loader_workers else []
    yield f"{found.stage} of {found.pipeline} ({found.kind})"
    yield from _lines("measured", f"{', '.join(words)}; torch {setting.torch}")
    yield from _lines(
        "step",
        f"{_time(times.median)} median, {_time(times.least)} least of {len(times.each)} after "
        f"{times.warmup} to warm up",
    )
    tokens = f", {times.tokens_per_second:,.0f} tokens/s" if times.tokens_per_second else ""
    yield from _lines("rate", f"{times.samples_per_second:,.1f} samples/s{tokens}")
    yield from _lines(
        "data wait", f"{_time(times.data_wait)} a step, {_percent(times.data_wait_share)}"
    )


def _parts(profile: "Profile") -> "Table":
    table = _table("part", "weights", "forward", "backward", "share", "FLOP", "FLOP/s", "held")
    whole = profile.watched_seconds
    for part in profile.parts:
        if not (part.parameters or part.seconds or part.activation_bytes):
            continue
        rate = part.flops / part.seconds if part.seconds else 0.0
        table.add_row(
            _PARTS.get(part.name, part.name),
            _count(part.parameters) if part.parameters else "",
            _time(part.forward_seconds),
            _time(part.backward_seconds),
            _percent(part.seconds / whole),
            _count(part.flops) if part.flops else "",
            _count(rate) if rate else "",
            _size(part.activation_bytes) if part.activation_bytes else "",
        )
    for phase, name in _PHASES.items():
        if phase in profile.phases:
            seconds = profile.phases[phase]
            table.add_row(name, "", _time(seconds), "", _percent(seconds / whole), "", "", "")
    table.add_row(
        "all",
        _count(sum(part.parameters for part in profile.parts)),
        _time(sum(part.forward_seconds for part in profile.parts)),
        _time(sum(part.backward_seconds for part in profile.parts)),
        "100 %",
        _count(sum(part.flops for part in profile.parts)),
        "",
        _size(sum(part.activation_bytes for part in profile.parts)),
        style="bold",
    )
    return table


def _operators(profile: "Profile") -> "Table":
    table = _table("operator, its own time", "calls", "time", "share")
    for row in profile.operators.top:
        name = f"{row.name.removeprefix('aten::')}{' *' if row.is_product else ''}"
        table.add_row(name, f"{row.calls:,.0f}", _time(row.seconds), _percent(row.share))
    return table


def _of_operators(profile: "Profile") -> str:
    found, compiled = profile.operators, profile.setting.compile == "blocks"
    outside = "compiled kernels, Python" if compiled else "Python"
    return (
        f"of a profiled step of {_time(found.step_seconds)}: products (*) "
        f"{_percent(found.products)}, other operators {_percent(found.others)}, outside of "
        f"operators ({outside}) {_percent(found.outside)}"
    )


def _memory(profile: "Profile") -> str:
    memory = profile.memory
    kept = {
        "weights": sum(memory.weights.values()) + memory.buffers,
        "gradients": memory.gradients,
        "moments": memory.moments,
        "average": memory.average,
        "held for backward": sum(memory.activations.values()),
        "copies of weights": memory.weight_copies,
    }
    text = ", ".join(f"{name} {_size(size)}" for name, size in kept.items() if size)
    peaks = memory.peaks
    if peaks.allocated is not None and peaks.reserved is not None:
        text += (
            f"; most at once {_size(peaks.allocated)}, taken from the device "
            f"{_size(peaks.reserved)}"
        )
    return text


def _arithmetic(profile: "Profile") -> str:
    found, peaks = profile.arithmetic, profile.ceiling.peaks
    text = f"{_count(found.flops)}FLOP a step ({found.how}), {_count(found.rate)}FLOP/s"
    if found.mfu is not None:
        return f"{text}: MFU {_percent(found.mfu)} of {_count(peaks.flops)}FLOP/s"
    share = _percent(found.rate / peaks.flops)
    return f"{text}: {share} of what products reach here; no MFU, as no peak is known"


def _ceiling(profile: "Profile") -> Iterator[str]:
    found = profile.ceiling
    peaks = found.peaks
    yield from _lines(
        "ceiling",
        f"estimated, with P = {_count(peaks.flops)}FLOP/s and B = {_count(peaks.bandwidth)}B/s "
        f"({peaks.how}); F = FLOP of a step",
    )
    rows = (
        (found.eager, "F / (P · Σ max(FLOP/P, bytes/B)) over operators, uncompiled"),
        (found.products, "the same over products alone: all else fused away"),
        (found.now, "F/P / (F/P + time outside of products): all else as slow as now"),
    )
    for share, what in rows:
        yield from _lines("", f"{_percent(share):>8}  {what}", hang=10)


def _unused(profile: "Profile") -> str:
    frozen = f"; {profile.frozen} parameters are frozen" if profile.frozen else ""
    if not profile.unused:
        return f"no parameter: a step gives all that train a gradient{frozen}"
    count = len(profile.unused)
    return f"{count} parameters get no gradient: {_some(profile.unused)}{frozen}"


def _host_waits(reads: "Sequence[HostRead]") -> Iterator[str]:
    if not reads:
        yield from _lines("host waits", "none: no value of a step is read before the next")
        return
    yield from _lines("host waits", f"{sum(read.count for read in reads)} a step")
    for read in reads[:_SHOWN]:
        yield from _lines("", f"{read.count} × {read.what} at {read.where}", hang=2)


def _graphs(graphs: "Sequence[Graphs] | None") -> Iterator[str]:
    if graphs is None:
        return
    label = "graphs"
    for found in graphs:
        breaks = f"{found.breaks or 'no'} break{'s' * (found.breaks > 1)}"
        count = f"{found.graphs} graph{'s' * (found.graphs != 1)}, {breaks}"
        said = f"cannot be traced: {found.error}" if found.error else count
        yield from _lines(label, f"{found.what}: {said}")
        for reason in found.reasons:
            yield from _lines("", reason, hang=2)
        label = ""


def _lines(label: str, text: str, hang: int = 0) -> list[str]:
    """Wrapped, with the label in the first column. hang: further indent of the lines after."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{label:<{_INDENT}}",
        subsequent_indent=" " * (_INDENT + hang),
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True, max_width=34)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _time(seconds: float) -> str:
    return f"{seconds:.4g} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _count(value: float) -> str:
    """With the unit's letter, and the space before it: '8.11 G'."""
    for letter, unit in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{_three(value / unit)} {letter}"
    return f"{_three(value)} "


def _size(count: int) -> str:
    for name, unit in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= unit:
            return f"{_three(count / unit)} {name}"
    return f"{_three(count / 2**10)} KiB"


def _three(value: float) -> str:
    """Three digits, or the whole ones."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"
