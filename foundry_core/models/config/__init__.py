"""Model architectures as data: torch-free, frozen, chosen by `kind`.

Sizes left null are filled by a formula (properties) or by the stage that knows them (`vocab_size`
from the tokenizer, `language`/`backbone` from the upstream artifact).
"""
