"""The one exception a user is meant to read."""


class FoundryError(Exception):
    """A mistake the user can mend: shown as one line, exit code 2, no traceback.

    `message` says what is wrong, where, and which rule it breaks; `hint` says how to mend it. What
    a file or a name brings along that no terminal shows (line ends, control sequences, lone
    surrogates) stands in them escaped.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = _printable(message)
        self.hint = _printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
