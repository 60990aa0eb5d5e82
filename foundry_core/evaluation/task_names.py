"""Names of tasks, as LBM Eval spells them in folders and in files."""

import re

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def pascal_case(name: str) -> str:
    """put_mug_on_saucer, pick-place-v3 → PutMugOnSaucer, PickPlaceV3. Idempotent."""
    return "".join(word[0].upper() + word[1:] for word in re.split(r"[_\-\s]+", name) if word)


def snake_case(name: str) -> str:
    """PutMugOnSaucer → put_mug_on_saucer."""
    return "_".join(_WORD_START.split(pascal_case(name))).lower()
