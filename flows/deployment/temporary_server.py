"""Prefect's temporary server, where none is configured: it ends with the run that started it.

Prefect stops it at a normal exit only: a killed run would leave it behind, with its port and 200 MB
of memory, for ever.
"""

import os
import subprocess
import sys
import threading
import time

import flows.prefect.settings  # noqa: F401  (Prefect reads its settings once, on import)
from flows.processes import PARENT

_LOOK_SECONDS = 1.0


def tie() -> None:
    """From now on a temporary server of this process is started so that it cannot outlive it."""
    if "PREFECT_API_URL" not in os.environ:
        from prefect.server.api.server import SubprocessASGIServer

        SubprocessASGIServer._run_uvicorn_command = _start


def _start(server) -> subprocess.Popen:
    """As Prefect starts it, but for the process around it."""
    from prefect.settings import get_current_settings

    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    role = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "flows.deployment.entry", "temporary", str(server.port)],
        env={**os.environ, **role, **settings, PARENT: str(os.getpid())},
    )


def serve(port: int, parent: int) -> None:
    """The server itself, in a process of its own."""
    import uvicorn

    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


def _watch(parent: int) -> None:
    """The kernel's signal would come when the thread ends that started the server, so: looking."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
