"""What a profile is asked for. No torch: the command line makes one before torch is imported."""

from dataclasses import dataclass
from pathlib import Path

from foundry_core.errors import FoundryError


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """steps: measured ones, after `warmup` others. graph_breaks: trace what torch.compile would
    break, which can take minutes. trace: file for a Chrome trace. FoundryError for no steps."""

    steps: int = 10
    warmup: int = 3
    graph_breaks: bool = False
    trace: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 0:
            raise FoundryError(
                f"{self.steps} steps after {self.warmup} to warm up cannot be measured",
                "measure at least 1 step, after 0 or more",
            )
