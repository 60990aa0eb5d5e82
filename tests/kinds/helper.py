"""Called by the kinds: part of their code fingerprints."""

TERMINATOR = "\n"


def render(word: str, lines: int) -> str:
    return (word + TERMINATOR) * lines
