"""The only door to Prefect. Everybody else imports what they need of it from here: `flows` (what
flows are made of), `api` (runs on the server), `pools` (pools, deployments), `page` (what a run
shows).

Prefect reads its settings once, when it is first imported; they are applied here, before that.
"""

import atexit
import contextlib
import os
import sys
import warnings

from flows.prefect import secret
from flows.processes import entries
from foundry_core.home import home_dir

HOST, PORT = "127.0.0.1", 4200
QUIET = "WARNING"
_END_SECONDS = 5.0
_PROFILES = "PREFECT_HOME" in os.environ or "PREFECT_PROFILE" in os.environ
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
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/api"


def server_named() -> bool:
    """Whether the environment, this home or a profile of Prefect's names a server. Prefect itself
    is imported only to read profiles, which count where PREFECT_HOME or PREFECT_PROFILE is set."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    if not _PROFILES:
        return False
    from flows.prefect.api import configured

    return configured()


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
    for entry in entries("serve"):
        if entry.local and not entry.dead:
            chosen = os.environ.setdefault("PREFECT_API_URL", entry.facts["url"])
            if chosen == entry.facts["url"] and (password := secret.known()):
                os.environ.setdefault(secret.CLIENT, password)


def _end_loops() -> None:
    """Ends Prefect's two event loops. They would run until the interpreter is gone, and what they
    hold of a run until then, DuckDB's classes among it, cannot be taken down any more: nanobind,
    which DuckDB is bound with, would report it below our last line."""
    threads = sys.modules.get("prefect._internal.concurrency.threads")
    for loop in (threads._global_loop, threads._run_sync_loop) if threads else ():
        if loop is not None:
            loop.shutdown()
            loop.thread.join(_END_SECONDS)


_apply()
# Before Prefect is imported: at exit it comes after all that Prefect itself has still to say.
atexit.register(_end_loops)
