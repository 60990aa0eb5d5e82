"""Marks in time: of the host, or of a device's queue."""

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks are compared once `finish` has returned."""

    def mark(self) -> Any: ...

    def seconds(self, start: Any, end: Any) -> float: ...

    def finish(self) -> None:
        """Waits for all that was marked."""


class HostClock:
    """What is done when the call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def finish(self) -> None:
        """Nothing is under way."""


class DeviceClock:
    """Events in the current stream: a mark costs no wait, and its time is the device's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end) / 1e3

    def finish(self) -> None:
        torch.cuda.synchronize(self._device)


def clock_of(device: torch.device) -> Clock:
    return DeviceClock(device) if device.type == "cuda" else HostClock()
