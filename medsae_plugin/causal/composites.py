"""Whether an embedding of two radiographs side by side is a sum of their own (MedSAE's `linearity_sanity_check`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from medsae_plugin._version import __version__
from medsae_plugin.data.images import UnreadableImage, read_image
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.models import Encoder, Figures, Result
from medsae_plugin.scores.registry import number
from medsae_plugin.text import aligned, fixed

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder


class Fit(Figures):
    """Means over pairs: the weights of the least squares fit w_l left + w_r right to the composite, its cosine with
    it."""

    left: float | None
    right: float | None
    cosine: float | None


class Linearity(Result):
    """Composites fitted by their parts' embeddings, and by those of two other images; `str()` is the table.

    pairs: of patients apart. unreadable_pairs: left out, for an image of theirs could not be read.
    """

    FILE: ClassVar[str] = "linearity.json"
    COMMAND: ClassVar[str] = "medsae linearity"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    pairs: int
    unreadable_pairs: int
    seed: int
    parts: Fit
    others: Fit

    def __str__(self) -> str:
        rows = [["fitted by", "weight left", "weight right", "cosine"]]
        for title, fit in (("its parts", self.parts), ("two other images", self.others)):
            figures = (fit.left, fit.right, fit.cosine)
            rows.append([title, *(fixed(x, 3) for x in figures)])
        unread = f"; {self.unreadable_pairs} more could not be read" if self.unreadable_pairs else ""
        head = f"{self.encoder.name}: embeddings of {self.pairs} pairs of radiographs side by side{unread}."
        return "\n".join([head, "", *aligned(rows, rule_after=(1,))])


def linearity(
    encoder: HookedVisionEncoder,
    table: ImageTable,
    *,
    pairs: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Linearity:
    """Fit the embedding of two radiographs side by side by their own two embeddings, without a constant term.

    A composite is square: each radiograph is stretched to a square of half its side, left and right of its middle, the
    rest black, so that no encoder's cropping or padding takes any of it away. Each fit is least squares over the
    dimensions of one embedding, not normalised; beside it stands the fit by the embeddings of two images of another
    pair.

    Args:
        pairs: of images of two patients, drawn with the seed; a patient can be in several.

    Raises:
        MedSAEError: fewer than two patients, fewer than two pairs, no pair that can be read.
    """
    if pairs < 2 or batch_size < 1:
        raise MedSAEError("linearity takes two pairs or more, and a batch of 1 or more")
    drawn = _draw(table, pairs, seed)
    left, right, both = [], [], []
    with tqdm(total=pairs, desc="composites", unit="pair", disable=not progress) as bar:
        for first in range(0, pairs, batch_size):
            read = [pair for i, j in drawn[first : first + batch_size] if (pair := _read(table, i, j)) is not None]
            bar.update(len(drawn[first : first + batch_size]))
            if read:
                side = [_side_by_side(a, b) for a, b in read]
                left.append(_embed(encoder, [a for a, _ in read]))
                right.append(_embed(encoder, [b for _, b in read]))
                both.append(_embed(encoder, side))
    if len(read_pairs := torch.cat(both) if both else torch.empty(0, 1)) < 2:
        raise MedSAEError("of fewer than two pairs both images can be read")
    a, b = torch.cat(left), torch.cat(right)
    return Linearity(
        encoder=Encoder(name=encoder.name, weights_sha256=encoder.weights_sha256),
        pairs=len(read_pairs),
        unreadable_pairs=pairs - len(read_pairs),
        seed=seed,
        parts=fit(a, b, read_pairs),
        others=fit(a.roll(1, 0), b.roll(1, 0), read_pairs),
    )


def fit(left: Float[Tensor, "pairs d"], right: Float[Tensor, "pairs d"], both: Float[Tensor, "pairs d"]) -> Fit:
    """Of each row of `both` its least squares fit by `left` and `right`; means over rows. In float64."""
    parts = torch.stack([left, right], dim=-1).double()
    weights = torch.linalg.lstsq(parts, both.double()[..., None]).solution
    fitted = (parts @ weights)[..., 0]
    cosine = torch.nn.functional.cosine_similarity(fitted, both.double(), dim=-1)
    means = [number(float(x.mean())) for x in (*weights[..., 0].T, cosine)]
    return Fit(left=means[0], right=means[1], cosine=means[2])


def _draw(table: ImageTable, pairs: int, seed: int) -> list[tuple[int, int]]:
    patients = table.frame["patient"].to_numpy()
    if len(np.unique(patients)) < 2:
        raise MedSAEError("linearity pairs images of two patients; the table has one")
    rng = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []
    while len(drawn) < pairs:
        i, j = (int(x) for x in rng.integers(len(patients), size=2))
        if patients[i] != patients[j]:
            drawn.append((i, j))
    return drawn


def _read(table: ImageTable, i: int, j: int) -> tuple[Image.Image, Image.Image] | None:
    try:
        return read_image(table.image_path(i)), read_image(table.image_path(j))
    except UnreadableImage:
        return None


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    side = max(*left.size, *right.size)
    whole = Image.new("L", (2 * side, 2 * side))
    for k, image in enumerate((left, right)):
        half = image.convert("L").resize((side, side), Image.Resampling.BICUBIC)
        whole.paste(half, (k * side, side // 2))
    return whole


@torch.no_grad()
def _embed(encoder: HookedVisionEncoder, images: list[Image.Image]) -> Float[Tensor, "images d"]:
    return encoder(encoder.preprocess(images).to(encoder.device)).float().cpu()
