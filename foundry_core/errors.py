"""The one exception a user is meant to read."""

from foundry_core.masking import mask_urls

_LONGEST = 4000


class FoundryError(Exception):
    """A mistake the user can mend: shown as one line, exit code 2, no traceback.

    `message` says what is wrong, where, and which rule it breaks; `hint` says how to mend it. What
    a file or a name brings along that no terminal shows (line ends, control sequences, lone
    surrogates) stands in them escaped, passwords in URLs masked, and the middle of a text without
    end as its length.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = printable(message)
        self.hint = printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def printable(text: str) -> str:
    """What any file and any terminal can show: nothing unprintable, no passwords, bounded."""
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} ... {len(text) - _LONGEST} characters ... {text[-half:]}"
    text = mask_urls(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
