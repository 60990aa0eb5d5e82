"""Prefect's settings for Foundry. Import this before prefect: it reads them once."""

import os

from foundry_core.home import home_dir

# The ephemeral server's own 20 s are too short on a busy two-core machine.
_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def apply() -> None:
    """Sets what the user has not set; Prefect's database lies in the home folder."""
    os.environ.setdefault("PREFECT_HOME", str(home_dir() / "prefect"))
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


apply()
