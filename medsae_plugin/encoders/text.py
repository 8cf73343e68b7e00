"""Text towers: token ids to the space of image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class TextTower(nn.Module):
    """Token ids to text embeddings in the space of the image embeddings, not normalised."""

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch d"]:
        """Text embeddings, not normalised."""
        raise NotImplementedError

    def encode(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "texts d"]:
        """Embeddings of texts given as token ids. Texts of one length go together, so none is padded."""
        device = next(self.parameters()).device
        embeddings: dict[int, Tensor] = {}
        for length in sorted({len(t) for t in tokens}):
            rows = [i for i, t in enumerate(tokens) if len(t) == length]
            ids = torch.tensor([tokens[i] for i in rows], device=device)
            embeddings |= dict(zip(rows, self(ids).float(), strict=True))
        return torch.stack([embeddings[i] for i in range(len(tokens))])


class MedCLIPTextTower(TextTower):
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


class TransformersTextTower(TextTower):
    """A text tower of transformers that ends in its embedding: CLIP's with its projection, SigLIP's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch d"]:
        """Text embeddings, not normalised."""
        output = self.model(input_ids, attention_mask=attention_mask)
        return output.text_embeds if "text_embeds" in output else output.pooler_output


class OpenClipTextTower(TextTower):
    """open_clip's text tower around a BERT, as BiomedCLIP has it: the first token's last state through an MLP.

    The MLP is half as wide as its input and output together, has no biases, and a GELU between its two layers.
    """

    def __init__(self, config: dict[str, Any], projection_dim: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        self.model = BertModel(BertConfig(**config), add_pooling_layer=False)
        width = self.model.config.hidden_size
        hidden = (width + projection_dim) // 2
        self.projection_head = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, projection_dim, bias=False)
        )

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch d"]:
        """Text embeddings, not normalised; without a mask the padding tokens are masked, as open_clip does."""
        if attention_mask is None:
            attention_mask = (input_ids != self.model.config.pad_token_id).long()
        return self.projection_head(self.model(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])
