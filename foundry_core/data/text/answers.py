"""Whether an answer is right: normalised exact match, and the VQA challenge's rule.

One place for training's validation and for exams of finished models.
"""

import re
from collections import Counter
from collections.abc import Sequence

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_PUNCTUATION = re.compile(r"""[;/\[\]"{}()=+\\_\-<>@`,?!.:'’‘“”]""")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_COMMA = re.compile(r"(?<=\d),(?=\d{3}\b)")
_HELD = "\0"
ENOUGH = 3
"""People who must have said the same for an answer to be wholly right."""


def normalised(answer: str) -> str:
    """Lower case, no punctuation and articles, numbers to ten as digits, single spaces: what two
    spellings of one answer have in common. Decimal points stay, thousands lose their comma."""
    text = _COMMA.sub("", answer.lower())
    text = _POINT.sub(_HELD, text)
    # An apostrophe leaves no gap ("don't"); what separates words does.
    text = _PUNCTUATION.sub(lambda mark: "" if mark.group() in "'’" else " ", text)
    words = (_NUMBERS.get(word, word) for word in text.replace(_HELD, ".").split())
    return " ".join(word for word in words if word not in _ARTICLES)


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """Whether it is one of the references, both normalised."""
    said = normalised(answer)
    return any(said == normalised(one) for one in references)


def vqa_score(answer: str, references: Sequence[str]) -> float:
    """The VQA rule (Antol et al. 2015), in [0, 1]: the mean, over leaving out each reference in
    turn, of min(1, those of the others that say the same / 3). With fewer than four references, of
    which three others cannot agree: whether it is one of them."""
    if len(references) <= ENOUGH:
        return float(exact_match(answer, references))
    said = normalised(answer)
    same = [normalised(one) == said for one in references]
    agreeing = sum(same)
    return sum(min(1.0, (agreeing - one) / ENOUGH) for one in same) / len(same)


def token_f1(said: str, reference: str) -> float:
    """In [0, 1]: the harmonic mean of the shares of words that the two have in common, both
    normalised; a word counts as often as it stands there."""
    one, other = Counter(normalised(said).split()), Counter(normalised(reference).split())
    common, words = (one & other).total(), one.total() + other.total()
    return 2 * common / words if words else 1.0
