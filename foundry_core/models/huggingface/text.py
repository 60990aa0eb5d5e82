"""Transformers text encoders with a causal mask: CLIP's, and those that are called as it is."""

from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFTextConfig
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.interfaces import TextTower


class HFText(TextTower):
    """Its final hidden state at the end of the text. `<obs>` stands where the end-of-text token
    does in what the encoder was trained on, and is read as that: its vocabulary stays as it is."""

    def __init__(self, config: HFTextConfig) -> None:
        super().__init__()
        model = load_or_build(AutoModel, config)
        self.tower: PreTrainedModel = getattr(model, "text_model", model)
        self._config = config
        end: int | None = self.tower.config.eos_token_id
        rows: int = self.tower.config.vocab_size
        if end is None or not 0 <= end < rows:
            raise FoundryError(
                f"hf_text: the end-of-text token is {end}, the encoder has {rows} rows",
                "set eos_token_id in its config",
            )
        self._end = end

    @property
    def config(self) -> HFTextConfig:
        return resolve(self._config, self.tower)

    @property
    def width(self) -> int:
        size: int = self.tower.config.hidden_size
        return size

    @property
    def opening(self) -> tuple[int, ...]:
        start = getattr(self.tower.config, "bos_token_id", None)
        pretrained = self._config.has_weights or self._config.origin is not None
        return (start,) if pretrained and start is not None else ()

    def forward(self, tokens: Tensor, token_mask: Tensor | None, ends: Tensor) -> Tensor:
        tokens = tokens.scatter(1, ends[:, None], self._end)
        mask = None if token_mask is None else token_mask.long()
        hidden = self.tower(input_ids=tokens, attention_mask=mask).last_hidden_state
        return hidden.gather(1, ends[:, None, None].expand(-1, 1, hidden.shape[-1]))
