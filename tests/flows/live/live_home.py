"""A home with runs that were told and never ran, and the pages over it, asked as a browser asks."""

import asyncio
import base64
import json

from flows.live.app import Live
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.records import committed_event
from foundry_core.store.manifest import Artifact, ArtifactInput, content_digest, scan
from foundry_core.store.open import open_store
from tests.lineage.history import History, stage

PASSWORD = "foundry:secret"
RUN = "20261127T082919-toy-df6a7d"


class Home:
    """Of the environment's FOUNDRY_HOME."""

    def __init__(self):
        home_dir().mkdir(parents=True)
        self.store = open_store(store_uri())
        self.told = History(EventLog(self.store.events_uri))
        self.live = Live(self._prefect, PASSWORD)
        self.passed = []

    async def _prefect(self, scope, receive, send):
        self.passed.append(scope["path"])

    def begin(self, *stages, run=RUN, **more):
        self.told.start(run, list(stages), **more)
        (home_dir() / "runs" / run).mkdir(parents=True, exist_ok=True)

    def built(self, one, files, run=RUN, **more):
        """A stage's artifact, with these files, committed by the run."""
        name, folder, _ = self.store.attempt(one["key"])
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data if isinstance(data, bytes) else data.encode())
        found = scan(folder)
        artifact = Artifact(
            **{k: one[k] for k in ("kind", "key", "recipe", "seed", "code", "code_fingerprint")},
            content=content_digest(found),
            input_content_key=one["key"],
            sources={},
            inputs=tuple(
                ArtifactInput(kind=e["stage"], content=e["key"], **e) for e in one["inputs"]
            ),
            files=found,
            attempt=name,
            run_id=run,
            created="2026-05-01T10:00:00.000000Z",
            seconds=12.5,
            **{"metrics": {}, **more},
        )
        event: ArtifactCommitted = committed_event(artifact.to_json(), folder.joinpath)[0]
        assert self.store.commit(artifact, folder)
        self.told.attempt(run, one, name)
        self.told.add(event)
        self.told.resolve(run, one, "run", one["key"])
        return artifact

    def ask(self, path, password=PASSWORD, method="GET", headers=()):
        """(status, headers, body); None where Prefect's application is asked."""
        sent = []

        async def send(message):
            sent.append(message)

        given = list(headers)
        if password is not None:
            given.append((b"authorization", b"Basic " + base64.b64encode(password.encode())))
        path, _, query = path.partition("?")
        scope = {"type": "http", "path": path, "method": method, "headers": given}
        asyncio.run(self.live(scope | {"query_string": query.encode()}, None, send))
        return (sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]) if sent else None

    def told_of(self, path):
        """The JSON below /foundry-live/."""
        status, _, body = self.ask(f"/foundry-live/{path}")
        assert status == 200, body
        return json.loads(body)

    def fresh(self):
        """The next question looks at the log, though the last one did so a moment ago."""
        if self.live._made:
            self.live._made._lineage._next = 0.0
        return self


def toy(*, says="never built"):
    """data → model → exam"""
    reasons = [{"category": "MISSING", "path": says}]
    data = stage("data", "draw", {"samples": 3}, {}, reasons=reasons)
    model = stage("model", "rehearse", {"steps": 40}, {"pictures": data}, reasons=reasons)
    exam = stage("exam", "play", {"episodes": 2}, {"model": model}, reasons=reasons)
    return data, model, exam
