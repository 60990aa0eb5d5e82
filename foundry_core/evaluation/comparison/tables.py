"""A comparison as rows of text, for a terminal, for Markdown, CSV and the report."""

import csv
import io

from rich.table import Table

from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.comparison.sentences import p_text, rounds_text
from foundry_core.evaluation.comparison.verdict import decision_text
from foundry_core.evaluation.score import Score


def score_text(score: Score | None) -> str:
    """'17/20  85 % [62, 97]': a rate never stands without its count and interval."""
    if score is None:
        return "not evaluated"
    more = [f"{score.crashed} crashed"] * (score.crashed > 0)
    more += [f"{score.pending} pending"] * (score.pending > 0)
    if score.rate is None:
        return ", ".join(["no episodes", *more])
    low, high = score.interval
    text = (
        f"{score.successes}/{score.n}  {100 * score.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    )
    return ", ".join([text, *more])


def rows(comparison: Comparison) -> list[list[str]]:
    """Header and rows: every task, all together, what each label's difference to the base says."""
    labels, overall = comparison.labels, comparison.overall
    body = []
    for task in [*comparison.tasks, *comparison.missing]:
        scores = comparison.scores[task]
        left_out = " (not compared)" if task in comparison.missing else ""
        body.append([task + left_out, *(score_text(scores.get(label)) for label in labels)])
    body.append(["all tasks", *(score_text(overall[label].counted) for label in labels)])
    if any(_uneven(comparison, label) for label in labels):
        rates = [overall[label].rate for label in labels]
        even = ["-" if rate is None else f"{100 * rate:.1f} %" for rate in rates]
        body.append(["mean of the tasks' rates", *even])
    if comparison.sequential is not None:
        played = comparison.sequential
        body.append(["rounds played", *(rounds_text(played, label) for label in labels)])
    if comparison.base is not None:
        found = [comparison.against_base(label) for label in labels]
        family = f"p against {comparison.base} (exact, Holm over {comparison.size})"
        body.append(
            [family, *("base" if one is None else p_text(one.p_corrected) for one in found)]
        )
        body.append(
            [
                "decision",
                *("" if one is None else decision_text(one.decision, one.basis) for one in found),
            ]
        )
    letters = "letters (shared = not separated)"
    if comparison.family == "base" and len(labels) > 2:
        letters = "letters (shared = not separated, or not compared)"
    body.append([letters, *(comparison.letters[label] for label in labels)])
    return [["task", *labels], *body]


def _uneven(comparison: Comparison, label: str) -> bool:
    overall = comparison.overall[label]
    counted = overall.counted.rate
    return counted is not None and overall.rate is not None and abs(counted - overall.rate) > 5e-4


def comparison_table(comparison: Comparison) -> Table:
    """`rows` for a terminal."""
    header, *body = rows(comparison)
    table = Table(title="success, 95 % Clopper-Pearson intervals", title_justify="left")
    for column in header:
        table.add_column(column, overflow="fold")
    last = len(comparison.tasks) + len(comparison.missing) - 1
    for number, row in enumerate(body):
        table.add_row(*row, end_section=number == last)
    return table


def markdown(comparison: Comparison) -> str:
    """`rows` as a Markdown table."""
    header, *body = rows(comparison)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def as_csv(comparison: Comparison) -> str:
    """One line per task and label, and per label over all tasks (task '')."""
    text = io.StringIO(newline="")
    names = ("task", "label", "n", "successes", "crashed", "pending", "rate", "low", "high")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "letters"])
    for task, scores in comparison.scores.items():
        for label, score in scores.items():
            row = score.to_json()
            writer.writerow([task, label, *(row[name] for name in names[2:]), ""])
    for label, overall in comparison.overall.items():
        row = overall.counted.to_json() | {"rate": overall.rate}
        writer.writerow(["", label, *(row[name] for name in names[2:]), comparison.letters[label]])
    return text.getvalue()
