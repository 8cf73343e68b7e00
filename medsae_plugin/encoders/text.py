"""The text tower: a BERT and a projection to the space of image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class TextTower(nn.Module):
    """MedCLIP's text encoder: the mean over tokens of the hidden states 1, 2 and last, projected.

    As in the official code the mean is over all positions, padding too; `HookedVisionEncoder.encode_text` therefore
    pads nothing when it is given strings.
    """

    def __init__(self, config: dict[str, Any], projection_dim: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        self.model = BertModel(BertConfig(**config))
        self.projection_head = nn.Linear(self.model.config.hidden_size, projection_dim, bias=False)

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch d"]:
        """Text embeddings, not normalised."""
        states = self.model(input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
        pooled = torch.stack([states[1], states[2], states[-1]], dim=1).mean(2).mean(1)
        return self.projection_head(pooled)

    def encode(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "texts d"]:
        """Embeddings of texts given as token ids. Texts of one length go together, so none is padded."""
        device = self.projection_head.weight.device
        embeddings = torch.empty(len(tokens), self.projection_head.out_features, device=device)
        for length in sorted({len(t) for t in tokens}):
            rows = [i for i, t in enumerate(tokens) if len(t) == length]
            embeddings[rows] = self(torch.tensor([tokens[i] for i in rows], device=device)).to(embeddings.dtype)
        return embeddings
