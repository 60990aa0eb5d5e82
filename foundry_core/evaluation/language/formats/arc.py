"""ARC (Clark et al. 2018), easy and challenge: questions of school exams in science.

Fields of ARC-*.jsonl: question {stem, choices [{text, label}]}, answerKey. As the hub has them:
question, choices {text [], label []}, answerKey.
"""

from collections.abc import Mapping
from typing import Any, Literal

from foundry_core.evaluation.language.base import Question, QuestionFormat, after


class Arc(QuestionFormat):
    """`Question: … Answer:`, then each choice."""

    format: Literal["arc"] = "arc"

    def question(self, record: Mapping[str, Any]) -> Question:
        stated = record["question"]
        if isinstance(stated, Mapping):
            stem, choices = stated["stem"], stated["choices"]
            texts = [choice["text"] for choice in choices]
            labels = [choice["label"] for choice in choices]
        else:
            stem, texts, labels = stated, record["choices"]["text"], record["choices"]["label"]
        gold = labels.index(record["answerKey"])
        return after(f"Question: {stem}\nAnswer:", texts, gold)


FORMAT = Arc
