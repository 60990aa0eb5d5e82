"""A step by its operators: self times from torch.profiler."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Operators whose arithmetic MFU counts. The names behind `aten::`.
_PRODUCTS = re.compile(
    r"^aten::(addmm|mm|bmm|baddbmm|_scaled_mm|_scaled_grouped_mm|_grouped_mm|_addmm_activation"
    r"|mkldnn_linear\w*|\w*convolution\w*|\w*conv[12]d\w*|slow_conv\w*|thnn_conv\w*"
    r"|_scaled_dot_product_\w+|_flash_attention_\w+|_efficient_attention_\w+)$"
    r"|^mkldnn::\w+|^onednn::\w+|^torch_attn::_varlen_attn\w*"
)
COMPILED = "compiled kernels"
TOP = 10


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Of one step: calls, seconds of its own (not of operators that it calls), and their share of
    the step."""

    name: str
    calls: float
    seconds: float
    share: float
    is_product: bool


@dataclass(frozen=True, kw_only=True)
class Operators:
    """step_seconds: of a step under the profiler, which slows it. top: the slowest operators.
    products, others: shares of the step; outside: the rest, when no operator ran: Python, a CPU's
    compiled kernels, and on a device whatever left it idle."""

    steps: int
    step_seconds: float
    top: Sequence[Operator]
    products: float
    others: float
    outside: float


def profile_operators(
    step: Callable[[], None], steps: int, device: torch.device, trace: Path | None = None
) -> Operators:
    """`step` is called `steps` + 1 times; the first call warms the profiler up. trace: a Chrome
    trace of the others is written here."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1)
    found: list[Operators] = []

    def ready(profiler: profile) -> None:
        found.append(_summed(profiler, steps, cuda))
        if trace is not None:
            profiler.export_chrome_trace(str(trace))

    with profile(activities=activities, schedule=schedule, on_trace_ready=ready) as profiler:
        for _ in range(steps + 1):
            step()
            if cuda:
                torch.cuda.synchronize(device)
            profiler.step()
    return found[0]


def _summed(profiler: profile, steps: int, cuda: bool) -> Operators:
    averages = profiler.key_averages()
    seconds = _span(profiler) / steps
    rows = [
        Operator(
            name=row.key,
            calls=row.count / steps,
            seconds=_own(row, cuda) / steps,
            share=_own(row, cuda) / steps / seconds,
            is_product=bool(_PRODUCTS.match(row.key)),
        )
        for row in averages
        if _is_operator(row)
    ]
    rows += _launched_by_none(averages, rows, steps, seconds) if cuda else []
    rows.sort(key=lambda row: (-row.seconds, row.name))
    products = sum(row.share for row in rows if row.is_product)
    others = sum(row.share for row in rows if not row.is_product)
    return Operators(
        steps=steps,
        step_seconds=seconds,
        top=rows[:TOP],
        products=products,
        others=others,
        outside=max(0.0, 1.0 - products - others),
    )


def _is_operator(row: Any) -> bool:
    """Not a range that somebody named, nor a kernel or a runtime's call."""
    if row.device_type != DeviceType.CPU or row.is_user_annotation:
        return False
    return "::" in row.key and not row.key.startswith("autograd::")


def _own(row: Any, cuda: bool) -> float:
    """Seconds: of the kernels that it launched, or of the host itself."""
    return (row.self_device_time_total if cuda else row.self_cpu_time_total) / 1e6


def _launched_by_none(
    averages: Iterable[Any], rows: Sequence[Operator], steps: int, seconds: float
) -> list[Operator]:
    """Kernels that no operator launched: those that a compiler made."""
    kernels = [
        row for row in averages if row.device_type == DeviceType.CUDA and not row.is_user_annotation
    ]
    total = sum(row.self_device_time_total for row in kernels) / 1e6 / steps
    rest = total - sum(row.seconds for row in rows)
    if rest <= 0.001 * seconds:
        return []
    calls = sum(row.count for row in kernels) / steps
    return [
        Operator(name=COMPILED, calls=calls, seconds=rest, share=rest / seconds, is_product=False)
    ]


def _span(profiler: profile) -> float:
    """Seconds of all steps."""
    steps = [e for e in profiler.events() or () if e.name.startswith("ProfilerStep")]
    own = [e for e in steps if e.device_type == DeviceType.CPU]
    return sum(e.time_range.elapsed_us() for e in own) / 1e6
