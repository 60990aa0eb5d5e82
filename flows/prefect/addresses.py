"""Where Foundry's own pages are, beside Prefect's."""

from flows.processes import entries

LOGIN, REPORTS = "/foundry-login", "/foundry-report/"
RUNS, RUN = "/foundry-runs", "/foundry-run/"


def report_page(run_id: str) -> str:
    """The address of a run's report on the server that shows it."""
    return f"{REPORTS}{run_id}"


def run_page(run_id: str) -> str:
    """The address of a run's live page there."""
    return f"{RUN}{run_id}"


def served() -> str | None:
    """Where this home's `foundry serve` is, while it runs on this machine."""
    for entry in entries("serve"):
        if entry.local and not entry.dead:
            return str(entry.facts["url"]).removesuffix("/api")
    return None
