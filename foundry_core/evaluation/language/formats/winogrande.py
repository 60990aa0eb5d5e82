"""WinoGrande (Sakaguchi et al. 2020): which of two names a blank stands for.

Fields of dev.jsonl: sentence (with one `_`), option1, option2, answer ("1" or "2").
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from foundry_core.evaluation.language.base import Question, QuestionFormat


class WinoGrande(QuestionFormat):
    """What stands behind the blank is weighed, after the sentence with either name in it."""

    format: Literal["winogrande"] = "winogrande"
    normalised: ClassVar[bool] = False

    def question(self, record: Mapping[str, Any]) -> Question:
        before, blank, rest = record["sentence"].partition("_")
        if not blank:
            raise ValueError("its sentence has no blank `_`")
        begun = tuple(before + record[name] for name in ("option1", "option2"))
        asked = tuple((one, f" {rest.strip()}") for one in begun)
        return Question(asked=asked, choices=begun, gold=("1", "2").index(record["answer"]))


FORMAT = WinoGrande
