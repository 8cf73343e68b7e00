"""Zero-shot findings: image embeddings against the text embeddings of findings prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsae_plugin.data.prompts import Prompts
from medsae_plugin.encoders.hooked import HookedVisionEncoder


class ZeroShot:
    """Scores of findings by an encoder's own text tower.

    An image's score for an observation is its cosine with the mean embedding of the sentences that state it, less that
    with the mean embedding of those that deny it: the difference in logits of CLIP's prompt ensembles (Radford et al.
    2021, section 3.1.4) for the two answers, without the scale.

    Attributes:
        prompts: the sentences. labels: their observations.
        stated, denied: `(labels, d)`, the directions of the two, of unit length.
    """

    def __init__(self, encoder: HookedVisionEncoder, prompts: Prompts) -> None:
        """Raises MedSAEError where the encoder has no text tower or no tokenizer."""
        self.prompts, self.labels = prompts, tuple(prompts.sentences)
        self.stated = torch.stack([_direction(encoder, s.present) for s in prompts.sentences.values()])
        self.denied = torch.stack([_direction(encoder, s.absent) for s in prompts.sentences.values()])

    def scores(self, embeddings: Float[Tensor, "images d"]) -> Float[Tensor, "images labels"]:
        """The scores of image embeddings, between -2 and 2."""
        return F.normalize(embeddings.float(), dim=-1) @ (self.stated - self.denied).T


def _direction(encoder: HookedVisionEncoder, texts: Sequence[str]) -> Float[Tensor, " d"]:
    embeddings = encoder.encode_text(list(texts)).float()
    return F.normalize(F.normalize(embeddings, dim=-1).mean(0), dim=-1)
