"""HellaSwag (Zellers et al. 2019): how a described activity goes on.

Fields of hellaswag_val.jsonl: activity_label, ctx_a, ctx_b, endings [4], label.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from foundry_core.evaluation.language.base import Question, QuestionFormat, after

_BRACKETED = re.compile(r"\[.*?\]")


class HellaSwag(QuestionFormat):
    """`<activity>: <context>`, then each ending; without the marks that WikiHow's pages left."""

    format: Literal["hellaswag"] = "hellaswag"

    def question(self, record: Mapping[str, Any]) -> Question:
        begun = f"{record['ctx_a']} {record['ctx_b'].capitalize()}"
        endings = [_clean(ending) for ending in record["endings"]]
        return after(_clean(f"{record['activity_label']}: {begun}"), endings, int(record["label"]))


def _clean(text: str) -> str:
    titled = text.strip().replace(" [title]", ". ")
    return _BRACKETED.sub("", titled).replace("  ", " ")


FORMAT = HellaSwag
