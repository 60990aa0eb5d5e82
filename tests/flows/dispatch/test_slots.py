"""Who gets the machine's CPUs next: urgency, arrival, places kept for what is about to begin."""

import threading
import time

from flows.dispatch import slots as module
from flows.dispatch.slots import Slots


class Asking:
    """Stages that ask for CPUs in threads, one after the other, and note when they get them."""

    def __init__(self, slots):
        self._slots, self.order, self._threads = slots, [], []

    def ask(self, name, cpus=1, urgency=0.0):
        def stage():
            with self._slots.hold(cpus, name=name, urgency=urgency):
                self.order.append(name)
                time.sleep(0.01)

        before = len(self._slots._queue)
        thread = threading.Thread(target=stage, daemon=True)
        thread.start()
        self._threads.append(thread)
        deadline = time.monotonic() + 5
        while len(self._slots._queue) == before and name not in self.order:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def ended(self):
        for thread in self._threads:
            thread.join(20)
        return self.order


def test_the_most_urgent_goes_first_and_equals_in_the_order_of_arrival():
    slots = Slots(1)
    asking = Asking(slots)
    with slots.hold(1):
        for name, urgency in (("a", 1.0), ("b", 5.0), ("c", 5.0), ("d", 9.0)):
            asking.ask(name, urgency=urgency)
    assert asking.ended() == ["d", "b", "c", "a"]


def test_a_wide_stage_is_not_starved_by_narrow_ones_that_are_less_urgent():
    slots = Slots(2)
    asking = Asking(slots)
    with slots.hold(1):
        asking.ask("wide", cpus=2, urgency=2.0)
        asking.ask("narrow", urgency=1.0)  # a CPU is free, and kept for the wide one
        assert asking.order == []
        asking.ask("urgent", urgency=3.0)
    assert asking.ended() == ["urgent", "wide", "narrow"]


def test_a_place_is_kept_for_what_is_about_to_ask():
    slots = Slots(1)
    asking = Asking(slots)
    with slots.hold(1, name="llm"):
        asking.ask("demos", urgency=400.0)
        slots.expect("vlm", 1, urgency=600.0)
    time.sleep(0.05)
    assert asking.order == []
    asking.ask("vlm", urgency=600.0)
    assert asking.ended() == ["vlm", "demos"]


def test_other_cpus_are_not_kept_with_it():
    slots = Slots(2)
    asking = Asking(slots)
    with slots.hold(2):
        slots.expect("vlm", 1, urgency=600.0)
        asking.ask("demos", urgency=400.0)
    assert asking.ended() == ["demos"]


def test_what_never_asks_keeps_nobody_waiting_for_long(monkeypatch):
    monkeypatch.setattr(module, "_EXPECTED_SECONDS", 0.05)
    slots = Slots(1)
    asking = Asking(slots)
    slots.expect("vlm", 1, urgency=600.0)
    asking.ask("demos", urgency=400.0)
    assert asking.ended() == ["demos"]


def test_who_gives_up_takes_nothing():
    slots = Slots(1)
    with slots.hold(1), slots.hold(1, lambda: True) as held:
        assert not held
    with slots.hold(1) as held:
        assert held
