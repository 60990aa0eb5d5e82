"""Which scenario index belongs to whom: evaluation never meets what a policy was trained on.

Indices below 2^20 are evaluation's. Above, each collection seed owns a block of 2^20: its lower
half holds demonstrations (slot + retry · 2^14), its upper half the scenes of captions.
"""

from foundry_core.errors import FoundryError

BLOCK = 1 << 20
MAX_SLOTS = 1 << 14
MAX_RETRIES = 1 << 5
_SCENES = 1 << 19


def demonstration_scenario(seed: int, slot: int, retry: int) -> int:
    """A failed expert moves its slot to another scenario and leaves the other slots alone, so
    the result is the same however the slots are shared out."""
    if not (0 <= slot < MAX_SLOTS and 0 <= retry < MAX_RETRIES):
        raise FoundryError(
            f"demonstration slot {slot}, retry {retry}: slots end at {MAX_SLOTS}, retries at "
            f"{MAX_RETRIES}",
            "collect more demonstrations in a second stage with another seed",
        )
    return (1 + seed) * BLOCK + retry * MAX_SLOTS + slot


def scene_scenario(seed: int, slot: int) -> int:
    """The scenario of a slot's captioned pictures."""
    if not 0 <= slot < _SCENES:
        raise FoundryError(f"scene slot {slot} is not below {_SCENES}")
    return (1 + seed) * BLOCK + _SCENES + slot


def check_evaluation(first: int, count: int) -> None:
    """FoundryError unless scenarios first .. first + count - 1 are evaluation's."""
    if first < 0 or first + count > BLOCK:
        raise FoundryError(
            f"evaluation scenarios {first}..{first + count - 1} leave 0..{BLOCK - 1}",
            "indices above belong to collected demonstrations",
        )
