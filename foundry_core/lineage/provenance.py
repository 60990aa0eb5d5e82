"""What an attempt ran on: code, packages, hardware, environment. No torch, no secrets."""

import os
import platform
import socket
from collections.abc import Sequence
from typing import Any

from foundry_core.identity.environment import cpu_model
from foundry_core.identity.packages import package_versions
from foundry_core.lineage.checkout import git_state, output
from foundry_core.masking import mask_command, mask_environment

_ENVIRONMENT = (
    *("CUBLAS_", "CUDA_", "FOUNDRY_", "HF_HOME", "HF_HUB_OFFLINE", "KMP_", "MASTER_", "MKL_"),
    *("MUJOCO_", "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PREFECT_", "PYOPENGL_", "PYTHON"),
    *("PYTORCH_", "RANK", "LOCAL_RANK", "RAY_", "SLURM_", "TORCH", "TRITON_", "WORLD_SIZE", "XLA_"),
)


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
        "environment": mask_environment(os.environ, _ENVIRONMENT),
        "command": mask_command(command),
    }


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
    listed, _ = output("nvidia-smi", query, "--format=csv,noheader,nounits")
    gpus = []
    for line in listed.splitlines():
        name, memory, driver = (part.strip() for part in line.split(","))
        gpus.append({"name": name, "memory": f"{memory} MiB", "driver": driver})
    return gpus
