"""Answers that are made once as long as nothing has moved, each with a tag of its bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foundry_core.files import sha256_hex
from foundry_core.lineage.events import encode

_KEPT = 64
_KEPT_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Question:
    """name: under which the answer is kept. stamp: cheap; while it is the same, so is the answer.
    answer: as JSON."""

    name: str
    stamp: Callable[[], Any]
    answer: Callable[[], Any]


class Answers:
    """The latest answers; those not asked for the longest go first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Any, bytes, bytes]] = OrderedDict()

    def to(self, question: Question) -> tuple[bytes, bytes]:
        """(entity tag, bytes)"""
        stamp = question.stamp()
        with self._lock:
            known = self._known.get(question.name)
            if known and known[0] == stamp:
                self._known.move_to_end(question.name)
                return known[1], known[2]
        body = encode(question.answer())
        tag = f'"{sha256_hex(body)[:32]}"'.encode()
        with self._lock:
            self._known[question.name] = (stamp, tag, body)
            self._known.move_to_end(question.name)
            while len(self._known) > 1 and self._too_many():
                self._known.popitem(last=False)
        return tag, body

    def _too_many(self) -> bool:
        size = sum(len(body) for _, _, body in self._known.values())
        return len(self._known) > _KEPT or size > _KEPT_BYTES
