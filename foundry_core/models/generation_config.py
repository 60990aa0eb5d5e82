"""How tokens are chosen. No torch: recipes hold it and planning imports it."""

from pydantic import Field

from foundry_core.models.sizes import positive
from foundry_core.pipeline.stage import Config


class GenerationConfig(Config):
    """temperature 0 takes the likeliest token. Above it, tokens are drawn from softmax(logits /
    temperature), cut to the top_k likeliest and then to the fewest whose probabilities reach top_p;
    ties with the last one stay."""

    max_tokens: int = positive(256, description="at most so many are written")
    temperature: float = Field(
        0.0,
        ge=0,
        description="0: the likeliest token; above: drawn from softmax(logits / temperature)",
    )
    top_k: int | None = positive(None, description="drawn from the k likeliest; null: all")
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="drawn from the fewest whose probabilities reach this; null: all",
    )
    seed: int = Field(0, description="of the draws")
