"""One policy, many clients: their state, batches across them, one inference thread.

Front-ends call `reset`, then `step` for each control step (the server owns the chunk) or `chunk`
(the client does), from any thread. Both answer with a Future; what is wrong with a request is a
FoundryError of one line, raised or in the Future, and touches no other client.
"""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from foundry_core.data.contract.statements import PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.serving.adapted import Adapter
from foundry_core.serving.checks import blank_observation, check_observation, own_exam
from foundry_core.serving.chunks import ChunkPlayer
from foundry_core.serving.latency import Latency
from foundry_core.serving.options import ServingOptions

Observation = Mapping[str, Any]
Targets = dict[str, np.ndarray]

_ACTIVE_SECONDS = 0.5
"""A client that asked within this time may ask again now: a batch waits for it."""
_SWEEP_SECONDS = 1.0
_SAID_PER_CLIENT = 5


class ServedPolicy(Protocol):
    """What is served: foundry_core.serving.policy.Policy, or a stand-in. Its calls come from one
    thread. history: how many past observations it wants, one per control step. One whose
    `reads_words` is False is told nothing by a prompt; who has no such attribute may be."""

    contract: PolicyContract
    history: int

    def reset(self, client: str, seed: int) -> None: ...

    def forget(self, client: str) -> None: ...

    def infer(
        self, requests: Sequence[tuple[str, Observation]], absent: frozenset[str] = frozenset()
    ) -> list[Targets]: ...


@dataclass(eq=False, kw_only=True)
class _Session:
    """A client's episode. name: what the policy calls it; another episode has another one."""

    client: str
    name: str
    adapter: Adapter
    player: ChunkPlayer
    past: deque[Observation]
    last: float
    busy: bool = False
    said: int = 0
    pending: "_Job | None" = None


@dataclass(eq=False, kw_only=True)
class _Job:
    """One inference that a client waits for, or will. answer: of the request that waits for it now;
    whole: it wants the chunk, not a step of it."""

    session: _Session
    observation: Observation
    start: int
    whole: bool = False
    answer: "Future[Targets] | None" = None
    error: Exception | None = None
    begun: float = field(default_factory=time.perf_counter)


class PolicyServer:
    """name: what clients are told they meet. say: takes one line for the log."""

    def __init__(
        self,
        policy: ServedPolicy,
        name: str,
        options: ServingOptions = ServingOptions(),
        *,
        say: Callable[[str], None] = lambda line: None,
        debug: bool = False,
    ) -> None:
        self.policy, self.name, self.options = policy, name, options
        self.contract, self.latency = policy.contract, Latency()
        self.reads_words = bool(getattr(policy, "reads_words", True))
        # Mistakes of the options are told before any client comes.
        self.execute_steps = ChunkPlayer(options.chunks, policy.contract).execute
        self._say, self._debug = say, debug
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._jobs: deque[_Job] = deque()
        self._chores: deque[Callable[[], None]] = deque()
        self._episodes, self._observations, self._inferences, self._batches = 0, 0, 0, 0
        self._stopping = False
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    # --- what front-ends call

    def reset(self, client: str, seed: int, adapter: Adapter) -> None:
        """Begins an episode of a client; adapter: what its observations and actions mean. Whatever
        it was waiting for is not answered any more."""
        with self._wake:
            self._running()
            before = self._sessions.pop(client, None)
            if before is None and len(self._sessions) >= self.options.max_clients:
                raise FoundryError(
                    f"{len(self._sessions)} clients are served, and no more than that",
                    "close some, or raise --max-clients",
                )
            self._end(before, "its episode was begun anew")
            self._episodes += 1
            session = _Session(
                client=client,
                name=f"{client}#{self._episodes}",
                adapter=adapter,
                player=ChunkPlayer(self.options.chunks, self.contract),
                past=deque(maxlen=max(1, self.policy.history)),
                last=time.monotonic(),
            )
            self._sessions[client] = session
            self._chores.append(lambda: self.policy.reset(session.name, seed))

    def knows(self, client: str) -> bool:
        """Whether an episode of the client is under way."""
        return client in self._sessions

    def forget(self, client: str) -> None:
        """Drops a client that is gone."""
        with self._wake:
            self._end(self._sessions.pop(client, None), "the client is gone")
            self._wake.notify()

    def step(self, client: str, observation: Observation) -> "Future[Targets]":
        """One control step: {field: [D]}."""
        session, begun = self._begin(client), time.perf_counter()
        try:
            seen = self._seen(session, observation)
            with self._wake:
                answer = self._next(session, seen, begun)
        except BaseException as error:
            self._failed(session, error)
            raise
        return answer

    def chunk(self, client: str, observation: Observation) -> "Future[Targets]":
        """All that is predicted from this observation: {field: [K, D]}."""
        session = self._begin(client)
        try:
            seen = self._seen(session, observation)
            with self._wake:
                self._running()
                answer: Future[Targets] = Future()
                job = _Job(session=session, observation=seen, start=0, whole=True, answer=answer)
                self._submit(job)
        except BaseException as error:
            self._failed(session, error)
            raise
        return answer

    def complain(self, client: str, text: str) -> None:
        """One line for the log, of the first few mistakes of a client."""
        session = self._sessions.get(client)
        if session is not None:
            session.said += 1
            if session.said > _SAID_PER_CLIENT:
                return
            if session.said == _SAID_PER_CLIENT:
                text += " (no more of this client is shown)"
        self._say(f"{client}: {text}")

    def say(self, text: str) -> None:
        self._say(text)

    def warm_up(self) -> None:
        """One inference, so that the first client does not wait for what is compiled or allocated
        once."""
        client = "warm-up"
        adapter = Adapter(self.contract, own_exam(self.contract), "itself")
        self.reset(client, 0, adapter)
        self.chunk(client, blank_observation(self.contract)).result()
        self.forget(client)
        self.latency = Latency()
        with self._lock:
            self._episodes = self._observations = self._inferences = self._batches = 0

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and latencies: of the policy's call, of requests that waited for
        one (planned), of those that did not (carried)."""
        with self._lock:
            counts = {
                "clients": len(self._sessions),
                "episodes": self._episodes,
                "observations": self._observations,
                "inferences": self._inferences,
                "batches": self._batches,
                "seconds": round(time.monotonic() - self._began, 1),
            }
        return {**counts, "latency": self.latency.summary()}

    def stop(self) -> None:
        """Ends the inference thread; requests that still wait fail with a line."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        with self._wake:
            for session in self._sessions.values():
                self._end(session, "the server stops")
            self._sessions.clear()

    # --- a request

    def _running(self) -> None:
        if self._stopping:
            raise FoundryError("the server stops")

    def _begin(self, client: str) -> _Session:
        """The client's session, taken by this request."""
        with self._lock:
            self._running()
            session = self._sessions.get(client)
            if session is None:
                raise FoundryError(
                    f"no episode of client {client!r} is under way: it was never reset, or silent "
                    f"for more than {self.options.idle_seconds:g} s",
                    "begin an episode first",
                )
            if session.busy:
                raise FoundryError(
                    f"a request of client {client!r} is in flight, and another one came",
                    "wait for the answer, or be two clients",
                )
            session.busy, session.last = True, time.monotonic()
            self._observations += 1
            return session

    def _seen(self, session: _Session, observation: Observation) -> Observation:
        """The observation as the policy takes it, with its history."""
        seen = session.adapter.observed(observation)
        check_observation(seen, self.contract, session.adapter.absent)
        if not self.policy.history:
            return seen
        past = list(session.past)
        session.past.append(seen)
        return {**seen, "history": past}

    def _next(self, session: _Session, seen: Observation, begun: float) -> "Future[Targets]":
        """The step's answer, at once where a chunk has it. Called with the lock held."""
        self._running()
        player, answer = session.player, Future[Targets]()
        if session.pending is None and (player.plans() or player.waits()):
            session.pending = _Job(session=session, observation=seen, start=player.step)
            self._submit(session.pending)
        if not player.waits():
            self._answered(session, answer, lambda: self._step_of(session), begun, "carried")
        elif session.pending is not None:
            # Predicted from this step, or from an earlier one, and needed now.
            session.pending.answer = answer
            self._settle(session.pending)
        return answer

    def _submit(self, job: _Job) -> None:
        self._jobs.append(job)
        self._wake.notify()

    def _step_of(self, session: _Session) -> Targets:
        return session.adapter.commanded(session.player.take())

    def _answered(
        self,
        session: _Session,
        answer: "Future[Targets]",
        targets: Callable[[], Targets],
        begun: float,
        what: str,
    ) -> None:
        session.busy, session.last = False, time.monotonic()
        try:
            found = targets()
        except Exception as error:
            _fail(answer, error)
            return
        self.latency.add(what, time.perf_counter() - begun)
        if answer.set_running_or_notify_cancel():
            answer.set_result(found)

    def _failed(self, session: _Session, error: BaseException) -> None:
        session.busy = False
        if self._debug and not isinstance(error, FoundryError):
            traceback.print_exc()

    def _end(self, session: _Session | None, why: str) -> None:
        """Called with the lock held."""
        if session is None:
            return
        waiting = [job for job in self._jobs if job.session is session]
        for job in waiting:
            self._jobs.remove(job)
        for job in {*waiting, *([session.pending] if session.pending else ())}:
            if job.answer is not None:
                _fail(job.answer, FoundryError(f"{session.client}: {why}"))
        name = session.name
        self._chores.append(lambda: self.policy.forget(name))

    # --- the inference thread

    def _work(self) -> None:
        while (batch := self._gather()) is not None:
            if batch:
                self._infer(batch)

    def _gather(self) -> list[_Job] | None:
        """The jobs of the next batch; [] where only time went by, None at the end."""
        with self._wake:
            if not self._jobs and not self._stopping:
                self._wake.wait(_SWEEP_SECONDS)
            self._sweep()
            if self._jobs and self.options.batch_ms:
                self._await_company()
            if self._stopping:
                return None
            most = min(len(self._jobs), self.options.max_batch)
            batch = [self._jobs.popleft() for _ in range(most)]
            chores, self._chores = self._chores, deque()
        for chore in chores:
            chore()
        return batch

    def _await_company(self) -> None:
        """Until every client that is active has asked, at most batch_ms."""
        until = time.monotonic() + self.options.batch_ms / 1e3
        while not self._stopping:
            now = time.monotonic()
            # One that is busy is in the queue already, or its step needs no inference.
            active = sum(1 for s in self._sessions.values() if now - s.last < _ACTIVE_SECONDS)
            if len(self._jobs) >= min(active, self.options.max_batch) or now >= until:
                return
            self._wake.wait(until - now)

    def _sweep(self) -> None:
        """Frees clients that have been silent for too long."""
        now = time.monotonic()
        silent = [
            s
            for s in self._sessions.values()
            if not s.busy and now - s.last > self.options.idle_seconds
        ]
        for session in silent:
            self._end(self._sessions.pop(session.client), "silent for too long")

    def _infer(self, batch: Sequence[_Job]) -> None:
        groups: dict[frozenset[str], list[_Job]] = {}
        for job in batch:
            groups.setdefault(job.session.adapter.absent, []).append(job)
        for absent, jobs in groups.items():
            for job, found in zip(jobs, self._chunks(jobs, absent), strict=True):
                with self._wake:
                    self._finish(job, found)

    def _chunks(
        self, jobs: Sequence[_Job], absent: frozenset[str]
    ) -> Iterable[Targets | Exception]:
        """One chunk per job, or why there is none. Where the batch fails each job is tried alone,
        for one of them may be to blame."""
        begun = time.perf_counter()
        try:
            requests = [(job.session.name, job.observation) for job in jobs]
            found = self.policy.infer(requests, absent)
        except Exception as error:
            if self._debug and not isinstance(error, FoundryError):
                traceback.print_exc()
            if len(jobs) == 1:
                return [error]
            return [one for job in jobs for one in self._chunks([job], absent)]
        self.latency.add("policy", time.perf_counter() - begun)
        with self._lock:
            self._inferences += len(jobs)
            self._batches += 1
        return [_finite(chunk) for chunk in found]

    def _finish(self, job: _Job, found: Targets | Exception) -> None:
        """Hands a chunk to its session. Called with the lock held."""
        session = job.session
        if self._sessions.get(session.client) is not session:
            return  # gone, or begun anew: its Future was told
        if isinstance(found, Exception):
            job.error = found
        elif job.whole:
            if job.answer is not None:
                commanded = session.adapter.commanded
                self._answered(session, job.answer, lambda: commanded(found), job.begun, "planned")
            return
        else:
            session.player.add(job.start, found)
        self._settle(job)

    def _settle(self, job: _Job) -> None:
        """Answers the request that waits for a job which is done. Called with the lock held."""
        session, answer = job.session, job.answer
        if job.error is not None:
            # Who does not wait for it yet is told when it does.
            if answer is not None:
                session.pending, session.busy = None, False
                _fail(answer, job.error)
        elif not session.player.waits():
            session.pending = None
            if answer is not None:
                self._answered(
                    session, answer, lambda: self._step_of(session), job.begun, "planned"
                )


def _fail(answer: "Future[Targets]", error: Exception) -> None:
    if not answer.done() and answer.set_running_or_notify_cancel():
        answer.set_exception(error)


def _finite(chunk: Targets) -> Targets | Exception:
    for name, values in chunk.items():
        if not np.isfinite(values).all():
            return FoundryError(f"the policy's target {name!r} is not finite")
    return chunk
