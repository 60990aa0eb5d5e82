"""Whether the log still says what was written to it: its chains, walked.

Each writer's events are numbered and name the digest of the one before; a writer's first event
names the newest event of the log when it began. So an event that was edited, taken out or moved is
found by the next one of its writer, the end of a writer's chain by a writer that began after it,
and what a compaction packed by the digest in the segment's name. What cannot be seen: the loss of
the last events of the log, when nobody wrote after them and this home's index never took them in;
and a log whose writer could rewrite all that followed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from foundry_core.files import sha256_hex
from foundry_core.lineage.events import EventLog, encode
from foundry_core.lineage.segments import read_segment, segment_digest

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Chains:
    """events: how many distinct ones. unchained: those of them that earlier versions wrote, without
    a chain. problems: what is wrong, a line per chain or file: what, where."""

    events: int
    unchained: int
    writers: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Link:
    number: int
    previous: str
    digest: str
    shown: str


@dataclass
class ChainCheck:
    """Takes the events of a log, in any order and as often as they are there."""

    problems: list[str] = field(default_factory=list)
    _digests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _links: dict[str, set[_Link]] = field(default_factory=lambda: defaultdict(set))
    _after: dict[tuple[str, str], str] = field(default_factory=dict)
    _unchained: set[str] = field(default_factory=set)

    def add(self, event: Event) -> None:
        digest, shown = sha256_hex(encode(event)), _shown(event)
        self._digests[event["id"]].add(digest)
        if "chain" not in event:
            self._unchained.add(event["id"])
            return
        try:
            chain = event["chain"]
            writer, number, previous = chain["writer"], chain["number"], chain["previous"]
            if not (type(number) is int and isinstance(writer, str) and isinstance(previous, str)):
                raise TypeError("of another form")
            if chain.get("after"):
                self._after[chain["after"]["id"], chain["after"]["sha256"]] = shown
        except (KeyError, TypeError, AttributeError):
            self.problems.append(f"{shown} names no place in a chain")
            return
        link = _Link(number=number, previous=previous, digest=digest, shown=shown)
        self._links[writer].add(link)

    def result(self, known: Iterable[tuple[str, str]] = ()) -> Chains:
        """known: (id, what is shown of it) of events that were in the log once."""
        problems = list(self.problems)
        for writer, links in sorted(self._links.items()):
            problems += _first_broken(writer, links)
        for (event, digest), witness in sorted(self._after.items(), key=lambda one: one[1]):
            if digest not in self._digests.get(event, ()):
                fate = "was changed" if event in self._digests else "is gone"
                problems.append(f"event {event} {fate}: it was the newest before {witness}")
        gone = [shown for event, shown in known if event not in self._digests]
        if gone:
            problems.append(
                f"{len(gone)} events that this home's index took in are gone, the first: {gone[0]}"
            )
        return Chains(
            events=len(self._digests),
            unchained=len(self._unchained),
            writers=len(self._links),
            problems=tuple(problems),
        )


def _first_broken(writer: str, links: Iterable[_Link]) -> list[str]:
    """Of one chain: the first place where it does not hold."""
    expected, previous, before = 0, "", "its beginning"
    for link in sorted(links, key=lambda link: (link.number, link.digest)):
        if link.number < expected:
            return [
                f"writer {writer}: two events are its number {link.number}, one is {link.shown}"
            ]
        if link.number > expected:
            return [
                f"writer {writer}: number {expected} is gone, between {before} and {link.shown}"
            ]
        if link.previous != previous:
            return [f"writer {writer}: {before} was changed: {link.shown} names another digest"]
        expected, previous, before = link.number + 1, link.digest, link.shown
    return []


def _shown(event: Event) -> str:
    return f"{event['type']} {event['id']} of {event['time']}"


def events_of(log: EventLog, problems: list[str]) -> Iterator[Event]:
    """Every event, some twice. What cannot be read, or is another segment's, is added to problems.
    Loose ones first: an event is loose until its segment is durable, and a segment is there until
    the one that it was merged into is."""
    for name in log.loose():
        try:
            yield log.read(name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{name} cannot be read: {error}")
    done: set[str] = set()
    while fresh := [name for name in log.segments() if name not in done]:
        done.update(fresh)
        for name in fresh:
            try:
                events = read_segment(log, name)
            except FileNotFoundError:
                continue
            except ValueError as error:
                problems.append(str(error))
                continue
            parts = name.removesuffix(".parquet").split("-")
            if len(parts) == 4 and segment_digest(events) != parts[2]:
                problems.append(f"{name} holds other events than were packed")
            yield from events
