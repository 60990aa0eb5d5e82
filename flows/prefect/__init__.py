"""The only door to Prefect. Everybody else imports what they need of it from here: `flows` (what
flows are made of), `api` (runs on the server), `pools` (pools, deployments), `page` (what a run
shows).

Prefect reads its settings once, when it is first imported; they are applied here, before that.
"""

import contextlib
import os
import warnings

from flows.processes import entries
from foundry_core.home import home_dir

HOST, PORT = "127.0.0.1", 4200
QUIET = "WARNING"
_DEFAULTS = {
    # Without a configured server, Prefect would start one of its own.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": QUIET,
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def api_url(host: str, port: int) -> str:
    return f"http://{host}:{port}/api"


def _apply() -> None:
    """Sets what the user has not set; Prefect's database lies in the home folder. A `foundry serve`
    that runs for this home is the server of everything else that does."""
    if "PREFECT_HOME" not in os.environ:
        prefect_home = home_dir() / "prefect"
        os.environ["PREFECT_HOME"] = str(prefect_home)
        # Prefect makes the folder but not its parents. Who cannot write hears it from what must,
        # and who only asks (`status`) makes none.
        if home_dir().is_dir():
            with contextlib.suppress(OSError):
                prefect_home.mkdir(exist_ok=True)
        else:
            warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        for entry in entries("serve"):
            if entry.local and not entry.dead:
                os.environ["PREFECT_API_URL"] = entry.facts["url"]


_apply()
