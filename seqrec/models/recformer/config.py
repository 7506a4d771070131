"""The configuration of a Recformer."""

from __future__ import annotations

from dataclasses import dataclass

from seqrec.errors import InputError

CLS_TYPE = 0
TOKEN_TYPES = 4  # [CLS], attribute name, attribute value, padding (unused here, but in the authors' checkpoints)


@dataclass(frozen=True)
class RecformerConfig:
    """The defaults are the paper's: Longformer-base and its limits."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    attention_window: int = 64  # half of it on either side of a token
    max_token_num: int = 1024  # of a history, [CLS] included; 512 costs hardly any quality (the authors' README)
    max_item_embeddings: int = 51  # [CLS] and 50 items
    max_position_embeddings: int = 0  # 0: as many as max_token_num needs
    first_position: int = 2  # RoBERTa's padding index + 1
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    cls_id: int = 0
    mask_id: int = 50264
    lm_head: bool = False  # only pretraining uses it
    # Embeddings that the paper's ablations leave out.
    token_types: bool = True
    item_positions: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.attention_window < 2 or self.attention_window % 2:
            raise InputError(f"attention_window {self.attention_window} is not an even number above 0")
        if min(self.num_layers, self.max_token_num, self.max_item_embeddings - 1) < 1:
            raise InputError("num_layers and max_token_num must be at least 1, max_item_embeddings at least 2")
        if not self.max_position_embeddings:
            object.__setattr__(self, "max_position_embeddings", self.max_token_num + self.first_position)
        if self.max_position_embeddings < self.max_token_num + self.first_position:
            raise InputError(
                f"max_position_embeddings {self.max_position_embeddings} is too small for max_token_num "
                f"{self.max_token_num}: positions begin at {self.first_position}"
            )
