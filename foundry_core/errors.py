"""The one exception a user is meant to read."""


class FoundryError(Exception):
    """A mistake the user can mend: shown as one line, exit code 2, no traceback.

    `message` says what is wrong, where, and which rule it breaks; `hint` says how to mend it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
