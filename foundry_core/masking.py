"""Secrets are masked before anything is written down: by the names of variables, options and
settings, by the values that the environment holds under such names, and by well-known shapes.

What masks too much costs a word of a record; what masks too little cannot be taken back, for
events are immutable.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"
_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASS|PWD|CREDENTIAL|AUTH(?!OR)|JWT|COOKIE|HEADERS|BEARER|PRIVATE|SIGNATURE"
    r"|WEBHOOK|DSN|CONNECTION_(URL|STRING)|DATABASE_URL",
    re.I,
)
# Words of settings in which one of those stands by chance.
_HARMLESS = re.compile(
    r"tokeni[sz]\w*|tokens|token_(ids?|tars)|keyframes?|passes|^(old)?pwd$", re.I
)
# The bounds keep a long line without an end to these from costing its length squared.
_USERINFO = re.compile(r"(://)(?:[^/\s]{0,500}|[^/\s:]{0,100}:[^\s@]{0,400})@")
_PASSWORD = re.compile(r"://[^/\s:@]*:([^\s/]+)@")
_NAMED = re.compile(r"(?<![\w.\-])([\w.\-]++)[\"']?\s*[:=]\s*")
_VALUE = re.compile(
    r"\"[^\"]*\"?|'[^']*'?|\[[^\]]*\]?|\{[^}]*\}?|((Bearer|Basic)\s+)?[^\s\"',;&}\]]+"
)
_SHAPES = re.compile(
    r"\beyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]*"  # a JSON web token
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b(?:gh[a-z]_|github_pat_|glpat-|hf_|xox[a-z]-|sk-)[\w-]{20,}"
    r"|(?<=Bearer )[\w.~+/=-]{8,}|(?<=Basic )[A-Za-z0-9+/=]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
# A shorter value stands in too many texts by chance.
_SHORTEST = 6
_SHORTEST_FOUND = 10
# Of settings: what can mean nothing else. (`mask_token` and `key` are words of recipes.)
_NAMED_SECRET = re.compile(
    r"(^|_)(password|passwd|secrets?|credentials?|(api|access|auth|secret|private)_?(key|token))$",
    re.I,
)
_LONGEST_WORD, _MOST_WORDS = 2000, 500


def is_secret(name: str) -> bool:
    """Whether what a variable, an option or a setting of this name holds is for nobody's eyes."""
    return _NAME.search(_HARMLESS.sub("", name)) is not None


def mask_urls(text: str) -> str:
    """A text without the user:password part of any URL in it."""
    return _USERINFO.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def mask_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text without the secrets of the environment, without what has the shape of one, and without
    the user:password part of URLs."""
    return masker(environment)(text)


def masker(environment: Mapping[str, str]) -> Callable[[str], str]:
    """`mask_text` for many texts: the environment is looked through once."""
    values = _secret_values(environment)

    def mask(text: str) -> str:
        for value in values:
            text = text.replace(value, HIDDEN)
        return _SHAPES.sub(HIDDEN, mask_urls(text))

    return mask


def secrets_in(document: Any, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Where a document of settings holds a secret, and which kind of one: 'stages.x.recipe.url (a
    password in a URL)'. Of the environment's values only long ones count here, which stand nowhere
    by chance: what is found is refused."""
    values = {
        value: name
        for name in environment
        for value in _secret_values({name: environment[name]})
        if len(value) >= _SHORTEST_FOUND
    }
    for path, name, text in _settings(document, ()):
        if _NAMED_SECRET.search(name) and text:
            yield f"{path} (called a secret)"
        elif _PASSWORD.search(text) and f":{HIDDEN}@" not in text:
            yield f"{path} (a password in a URL)"
        elif _SHAPES.search(text):
            yield f"{path} (the form of a key or token)"
        elif found := next((values[value] for value in values if value in text), None):
            yield f"{path} (the value of ${found})"


def _settings(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(path, last name of it, text) of every text in a document, its keys included."""
    if isinstance(value, str):
        yield ".".join(path), path[-1] if path else "", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield ".".join(path), "", str(key)
            yield from _settings(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _settings(item, (*path, str(number)))


def _secret_values(environment: Mapping[str, str]) -> list[str]:
    """What must stand nowhere, longest first: values of secret variables, the words in them (a
    header's token), passwords in URLs. A file that is there is a place, not a secret."""
    found: set[str] = set()
    for name, value in environment.items():
        found.update(_PASSWORD.findall(value))
        if is_secret(name) and not (value.startswith("/") and os.path.exists(value)):
            found.add(value.strip())
            found.update(re.findall(r"[^\s\"',;:{}]{16,}", value))
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)


def mask_environment(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables with these prefixes, less those with a secret's name; values masked."""
    return {
        name: _mask_pairs(_shortened(mask_text(value, environment)))
        for name, value in sorted(environment.items())
        if name.startswith(prefixes) and not is_secret(name)
    }


def mask_command(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """A command line without the values of secret options and settings: `--password x`,
    `--password=x`, `-o stage.token=x`, `{"token": "x"}`."""
    masked: list[str] = []
    hide_next = False
    for part in command[:_MOST_WORDS]:
        is_option = part.startswith("-") and "=" not in part and " " not in part
        if hide_next and not (is_option and part.startswith("--")):
            masked.append(HIDDEN)
            hide_next = False
            continue
        hide_next = is_option and is_secret(part)
        masked.append(part if hide_next else _mask_word(part, environment))
    more = len(command) - _MOST_WORDS
    return [*masked, f"... {more} more words"] if more > 0 else masked


def _mask_word(part: str, environment: Mapping[str, str]) -> str:
    """One word; of NAME=VALUE with a secret's name the whole value, of several the last name's."""
    name, equals, value = part.partition("=")
    if equals and is_secret(name):
        return f"{name}={HIDDEN}"
    if equals and name.startswith("-") and "=" in value:
        return f"{name}={_mask_word(value, environment)}"
    return _mask_pairs(_shortened(mask_text(part, environment)))


def _mask_pairs(text: str) -> str:
    """A text without the values that stand behind a secret's name and : or =."""
    kept, end = [], 0
    for name in _NAMED.finditer(text):
        if name.start() >= end and is_secret(name[1]) and (value := _VALUE.match(text, name.end())):
            kept += [text[end : name.end()], HIDDEN]
            end = value.end()
    return "".join([*kept, text[end:]])


def _shortened(text: str) -> str:
    more = len(text) - _LONGEST_WORD
    return f"{text[:_LONGEST_WORD]}... {more} more characters" if more > 0 else text


def mask_settings(value: Any, name: str = "") -> Any:
    """JSON in which a secret is masked: what a mapping's key, or the path of a (path, value) pair,
    calls one, and what `mask_text` finds in any text."""
    if value is not None and is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return {key: mask_settings(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], str) and "." in value[0]:
            return [mask_text(value[0]), mask_settings(value[1], value[0])]
        return [mask_settings(item) for item in value]
    return value
