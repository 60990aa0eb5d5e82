"""What an attempt ran on: code, packages, hardware, environment. No torch, no secrets."""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundry_core.files import sha256_hex, sha256_of
from foundry_core.identity.environment import SECRET, cpu_model
from foundry_core.identity.packages import package_versions

_ENVIRONMENT = (
    *("CUBLAS_", "CUDA_", "FOUNDRY_", "HF_HOME", "HF_HUB_OFFLINE", "KMP_", "MASTER_", "MKL_"),
    *("MUJOCO_", "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PREFECT_", "PYOPENGL_", "PYTHON"),
    *("PYTORCH_", "RANK", "LOCAL_RANK", "RAY_", "SLURM_", "TORCH", "TRITON_", "WORLD_SIZE", "XLA_"),
)
_USERINFO = re.compile(r"(://)[^/@\s]+@")
_MAX_DIFF = 4 * 1024 * 1024


def collect_provenance(command: Sequence[str]) -> dict[str, Any]:
    """{"git", "packages", "hardware", "host", "python", "environment", "command"}.

    About 40 ms, most of it git. `git.diff` holds the text of uncommitted changes; the event log
    stores it, and the package list, once per digest.
    """
    return {
        "git": git_state(),
        "packages": package_versions(),
        "hardware": hardware(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "environment": safe_environment(os.environ),
        "command": safe_command(command),
    }


def git_state(checkout: Path | None = None) -> dict[str, Any]:
    """{"commit", "dirty", "diff_digest", "diff"} of the checkout that holds this code; commit None
    where there is no git or no checkout. Untracked files count as changes, by digest."""
    root = checkout or Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None, "diff_digest": None, "diff": ""}
    diff = _git(root, "diff", "HEAD") or ""
    untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard") or ""
    for name in sorted(filter(None, untracked.split("\0"))):
        diff += f"\nuntracked {name} {_file_digest(root / name)}"
    encoded = diff.encode()
    if len(encoded) > _MAX_DIFF:
        kept = encoded[:_MAX_DIFF].decode(errors="ignore")
        diff = f"{kept}\n... {len(encoded) - _MAX_DIFF} more bytes"
    dirty = bool(diff.strip())
    digest = sha256_hex(encoded) if dirty else None
    diff = diff if dirty else ""
    return {"commit": commit.strip(), "dirty": dirty, "diff_digest": digest, "diff": diff}


def _git(root: Path, *arguments: str) -> str | None:
    return _output("git", "-C", str(root), *arguments)


def _output(*command: str) -> str | None:
    """What a program prints, or None where it is not installed or fails. git takes no locks."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _file_digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return "unreadable"


def hardware() -> dict[str, Any]:
    """{"cpu", "cores", "memory" (bytes), "gpus": [{"name", "memory", "driver"}], "system"}."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _gpus() -> list[dict[str, Any]]:
    query = "--query-gpu=name,memory.total,driver_version"
    listed = _output("nvidia-smi", query, "--format=csv,noheader,nounits") or ""
    gpus = []
    for line in listed.splitlines():
        name, memory, driver = (part.strip() for part in line.split(","))
        gpus.append({"name": name, "memory": f"{memory} MiB", "driver": driver})
    return gpus


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that can change a result, by an allow-list of prefixes, less every name that
    looks like a secret and the user:password part of any URL."""
    return {
        name: _USERINFO.sub(r"\1***@", value)
        for name, value in sorted(environment.items())
        if name.startswith(_ENVIRONMENT) and not SECRET.search(name)
    }


def safe_command(command: Sequence[str]) -> list[str]:
    """A command line with the values of secret-looking options masked."""
    masked: list[str] = []
    hide_next = False
    for part in command:
        name, equals, _ = part.partition("=")
        if hide_next:
            masked.append("***")
            hide_next = False
        elif equals and SECRET.search(name):
            masked.append(f"{name}=***")
        else:
            hide_next = part.startswith("-") and not equals and bool(SECRET.search(part))
            masked.append(_USERINFO.sub(r"\1***@", part))
    return masked
