"""BoolQ (Clark et al. 2019): yes or no, by a passage.

Fields of dev.jsonl: question, passage, answer (true or false). As SuperGLUE has them: question,
passage, label.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from foundry_core.evaluation.language.base import Question, QuestionFormat, after


class BoolQ(QuestionFormat):
    """The passage, `Question: …? Answer:`, then no and yes."""

    format: Literal["boolq"] = "boolq"
    normalised: ClassVar[bool] = False

    def question(self, record: Mapping[str, Any]) -> Question:
        gold = record["answer"] if "answer" in record else record["label"]
        if gold not in (0, 1):
            raise ValueError(f"answer {gold!r} is neither true nor false")
        context = f"{record['passage']}\nQuestion: {record['question']}?\nAnswer:"
        return after(context, ["no", "yes"], int(gold))


FORMAT = BoolQ
