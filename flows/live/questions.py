"""What the live pages ask, below /foundry-live/:

    runs?words=        search?words=                        lists
    run/RUN            run/RUN/{curves,rollouts,verdict,graph}
    artifact/KEY       ancestry/KEY
    file/KIND/KEY/PATH       a picture or video of an artifact
    made/KEY/PATH            one of an evaluation that goes on
    preview/KIND/KEY/N       sample N of a dataset

JSON has an entity tag: a page that has the answer is told so, at the price of a look at what moves.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import duckdb

from flows.live.answers import Answers, Question
from flows.live.app import NO_PAGE, Reply
from flows.live.artifacts import artifact_answer, graph_answer, run_graph_answer
from flows.live.curves import Tails, curves_answer
from flows.live.files import committed_file, file_under_way
from flows.live.lineage import LiveLineage
from flows.live.previews import preview_answer
from flows.live.rollouts import rollouts_answer
from flows.live.runs import dead_stamp, runs_answer, search_answer
from flows.live.stages import run_answer, run_stamp
from flows.live.verdict import verdict_answer
from flows.prefect.http import CLOSED
from flows.prefect.pages import RUN_NAME
from foundry_core.errors import FoundryError
from foundry_core.lineage.events import encode

_JSON = b"application/json"
_KIND = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_KEY = "[0-9a-f]{64}"
_FILE = re.compile(rf"file/({_KIND})/({_KEY})/(.{{1,1024}})")
_MADE = re.compile(rf"made/({_KEY})/(.{{1,1024}})")
_PREVIEW = re.compile(rf"preview/({_KIND})/({_KEY})/([0-9]{{1,9}})")
_ABOUT_ARTIFACT = {"artifact": artifact_answer, "ancestry": graph_answer}
_LONGEST_WORDS = 200
# Of pictures and videos, should one be opened as a page.
_SANDBOX = f"sandbox; {CLOSED}"
Told = Callable[[duckdb.DuckDBPyConnection], Any]


class Questions:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lineage, self._tails, self._answers = LiveLineage(), Tails(), Answers()

    def reply(self, asked: str, query: bytes, known: Sequence[bytes]) -> Reply:
        """asked: the path below /foundry-live/. known: entity tags of answers that the page has."""
        try:
            if (question := self._question(asked, query)) is not None:
                return self._tagged(question, known)
            return _file(asked)
        except FoundryError as error:
            return _error(404, error.message, error.hint or "")
        except (OSError, ValueError, duckdb.Error) as error:
            # A store that is away, an index that is replaced: the page asks again.
            return _error(503, f"not to be told now: {type(error).__name__}")

    def _tagged(self, question: Question, known: Sequence[bytes]) -> Reply:
        tag, body = self._answers.to(question)
        if tag in known:
            return Reply(status=304, content_type=_JSON, more=[(b"etag", tag)])
        return Reply(content_type=_JSON, body=body, more=[(b"etag", tag)])

    def _question(self, asked: str, query: bytes) -> Question | None:
        words = parse_qs(query.decode("latin-1")).get("words", [""])[0][:_LONGEST_WORDS]
        what, _, rest = asked.partition("/")
        if asked == "runs":
            return self._about(f"runs?{words}", lambda c: runs_answer(c, words), dead_stamp)
        if asked == "search":
            return self._about(f"search?{words}", lambda c: search_answer(c, words))
        if what in _ABOUT_ARTIFACT and re.fullmatch(_KEY, rest):
            told = _ABOUT_ARTIFACT[what]
            return self._about(asked, lambda c: told(c, rest))
        run, _, part = rest.partition("/")
        if what == "run" and RUN_NAME.fullmatch(run):
            return self._of_run(asked, run, part)
        return None

    def _of_run(self, asked: str, run: str, part: str) -> Question | None:
        def moved() -> Any:
            return run_stamp(run)

        match part:
            case "":
                return self._about(asked, lambda c: run_answer(c, run), moved)
            case "curves":
                tails = self._tails
                return self._about(asked, lambda c: curves_answer(c, run, tails), tails.stamp)
            case "rollouts":
                return self._about(asked, lambda c: rollouts_answer(c, run), moved)
            case "verdict":
                return self._about(asked, lambda c: verdict_answer(c, run))
            case "graph":
                return self._about(asked, lambda c: run_graph_answer(c, run))
        return None

    def _about(self, name: str, told: Told, moved: Callable[[], Any] = tuple) -> Question:
        """moved: gives what else than the lineage the answer depends on."""
        return Question(
            name=name,
            stamp=lambda: (self._lineage.version(), moved()),
            answer=lambda: self._lineage.ask(told),
        )


def _file(asked: str) -> Reply:
    if named := _FILE.fullmatch(asked):
        content_type, body = committed_file(*named.groups())
    elif named := _MADE.fullmatch(asked):
        content_type, body = file_under_way(*named.groups())
    elif named := _PREVIEW.fullmatch(asked):
        kind, key, number = named.groups()
        return Reply(content_type=_JSON, body=encode(preview_answer(kind, key, int(number))))
    else:
        return NO_PAGE
    return Reply(content_type=content_type, body=body, policy=_SANDBOX)


def _error(status: int, message: str, hint: str = "") -> Reply:
    return Reply(status=status, content_type=_JSON, body=encode({"error": message, "hint": hint}))
