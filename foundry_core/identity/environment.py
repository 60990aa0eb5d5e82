"""What a stage ran on that its key does not know: packages, environment variables, numerics.

A patch release must not train a language model again, so none of this is identity. It is recorded
with each artifact, and where it is another one now, the plan says so (drift).

Limits, what is NOT seen: packages that only other packages import, variables whose names are put
together at run time or that only other packages read, drivers and system libraries.
"""

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from foundry_core.files import sha256_hex
from foundry_core.identity.packages import versions_of
from foundry_core.masking import is_secret

# Where an artifact's provenance holds it.
BUILT_ON = "built_on"
# Where things lie, who runs them, and with how much: no result may depend on these.
_NO_SETTINGS = ("AWS_", "FOUNDRY_", "PREFECT_", "RAY_", "HOME", "TMPDIR", "PYTHONUNBUFFERED")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# What torch and its libraries read.
_NUMERIC = (
    *("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_NUM_THREADS"),
)
_OTHER_MAKES = ("/dev/kfd", "/dev/dxg")
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One fact that was another one. what: package, variable or numerics. old, new: for variables
    whether they were set, for values are nobody's business."""

    what: str
    name: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """packages: name → version, '' where not installed. variables: name → digest of the value, ''
    where unset; never the value. numerics: name → what decides how floats are rounded."""

    packages: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    numerics: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> "Environment":
        """Knows nothing where there is nothing: artifacts of earlier versions have none."""
        known = data or {}
        return cls(**{name: known.get(name, {}) for name in cls.__dataclass_fields__})

    def drift_to(self, now: "Environment") -> list[Drift]:
        """What both know, and know differently."""
        return [
            Drift(what=what, name=name, old=old, new=new[name])
            for what, before, new in (
                ("package", self.packages, now.packages),
                ("variable", self.variables, now.variables),
                ("numerics", self.numerics, now.numerics),
            )
            for name, old in before.items()
            if name in new and new[name] != old
        ]


def environment_of(
    packages: Iterable[str],
    variables: Iterable[str],
    gpus: float = 0,
    numerics: Mapping[str, str] = MappingProxyType({}),
) -> Environment:
    """What a stage would run on in this process's place. packages, variables: as its code
    fingerprint names them. numerics: what it says of its resources."""
    imported = list(packages)
    torch = "torch" in imported
    names = {*variables, *(_NUMERIC if torch else ())}
    return Environment(
        packages=versions_of(imported) | {"python": ".".join(map(str, sys.version_info[:3]))},
        variables={name: _digest(os.environ.get(name)) for name in sorted(names) if _counts(name)},
        numerics={**numerics, **(_device(gpus > 0) if torch else {})},
    )


def torch_flags() -> dict[str, str]:
    """Of the torch that this process has imported, how it rounds; {} without one."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    flags = {
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "float32_matmul": torch.get_float32_matmul_precision,
        "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
        "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
        "cudnn.tf32": lambda: torch.backends.cudnn.allow_tf32,
    }
    found = {}
    for name, read in flags.items():
        try:
            found[name] = str(read())
        except RuntimeError as error:  # set through two interfaces that contradict each other
            found[name] = str(error).splitlines()[0]
    return found


def _counts(name: str) -> bool:
    return not (name.startswith(_NO_SETTINGS) or name in _THREADS or is_secret(name))


def _digest(value: str | None) -> str:
    return "" if value is None else sha256_hex(value)[:12]


def _device(gpu: bool) -> Mapping[str, str]:
    """{} for GPUs that another machine has."""
    if not gpu:
        return {"cpu": cpu_model()}
    names = gpu_names()
    return {"gpu": ", ".join(sorted(set(names)))} if names else {}


@cache
def gpu_names() -> Sequence[str]:
    """The NVIDIA GPUs of this machine, as its driver calls them."""
    lines = [line for file in _GPUS.glob("*/information") for line in file.read_text().splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def visible_gpus() -> float:
    """How many GPUs a process of this machine may use; infinity where they are of another make,
    which only their own tools can count."""
    if any(map(os.path.exists, _OTHER_MAKES)):
        return math.inf
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(gpu_names()) or len(list(Path("/dev").glob("nvidia[0-9]*")))
    if chosen is None:
        return present
    named = [part for part in chosen.split(",") if part.strip() not in ("", "-1")]
    return min(len(named), present)


@cache
def cpu_model() -> str:
    """As the kernel calls it; the architecture where it does not."""
    try:
        with open("/proc/cpuinfo") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine
