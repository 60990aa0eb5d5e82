"""A comparison as rows of text, for a terminal, for Markdown and for the report."""

from rich.table import Table

from foundry_core.evaluation.comparison.result import ComparedScore, Comparison


def score_text(score: ComparedScore) -> str:
    """'17/20  85 % [62, 97]': a rate never stands without its count and interval."""
    counted, (low, high) = score.counted, score.interval
    if counted.rate is None:
        return "no episodes"
    crashed = f", {counted.crashed} crashed" if counted.crashed else ""
    interval = f"[{100 * low:.0f}, {100 * high:.0f}]"
    return f"{counted.successes}/{counted.n}  {100 * counted.rate:.0f} % {interval}{crashed}"


def p_text(p: float) -> str:
    """Three decimals, or the power of ten below a thousandth."""
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"


def rows(comparison: Comparison) -> list[list[str]]:
    """Header and rows of the result table: tasks, all together, p against the base, letters."""
    labels, against_base = comparison.labels, comparison.against_base
    p_values = [
        p_text(against_base[label].p_corrected) if label in against_base else "base"
        for label in labels
    ]
    return [
        ["task", *labels],
        *(
            [task, *(score_text(comparison.scores[task][label]) for label in labels)]
            for task in comparison.tasks
        ),
        ["all tasks", *(score_text(comparison.pooled[label]) for label in labels)],
        ["p against base (exact, Holm)", *p_values],
        ["letters (shared = not separated)", *(comparison.letters[label] for label in labels)],
    ]


def comparison_table(comparison: Comparison) -> Table:
    """`rows` for a terminal."""
    header, *body = rows(comparison)
    table = Table(title="success, 95 % Clopper-Pearson intervals", title_justify="left")
    for column in header:
        table.add_column(column)
    for row in body:
        table.add_row(*row, end_section=row[0] == comparison.tasks[-1])
    return table


def markdown(comparison: Comparison) -> str:
    """`rows` as a Markdown table."""
    header, *body = rows(comparison)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)
