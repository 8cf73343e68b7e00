"""`PaperEvaluation`: what the protocol of MedSAE finds, typed, and as the paper's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder
from medsae_plugin.scores.models import Encoder, Figures, Result
from medsae_plugin.scores.results import METRICS_FILE
from medsae_plugin.scores.units import Kind
from medsae_plugin.text import aligned, fixed

PROTOCOL = "medsae-paper"
_MOST_COLUMNS = 8


class PaperObservation(Figures):
    """An observation's latent of the largest r; `latent`, `r` and `entropy` are None where no latent is kept.

    positives, uncertain: images of the subset where it is 1, and where it is -1.
    """

    label: str
    positives: int
    uncertain: int
    latent: int | str | None
    r: float | None
    entropy: float | None


class PaperScores(Figures):
    """Of one SAE or of a hook's neurons, over the subset.

    kept: of the latents, those with |r| above 0.2 for some label; bce: over these.
    mean_top_r, mean_top_entropy: means over the eight labels' top latents, one as often as it is top.
    l0_rate: the share of latents that are not 0, a mean over images; dead_rate: of those that are 0 on every image.
    explained_variance: of the split `val`; None of neurons, and without that split.
    rank_r, rank_entropy: mean ranks among the candidates, 1 for the largest r, and 1 for the largest H.
    order_mean_top_r, order_mean_top_entropy: the same means over the subsets of other orders, of the seeds 0, 1, ...
    """

    name: str
    kind: Kind
    hook: str
    latents: int
    kept: int
    mean_top_r: float | None
    mean_top_entropy: float | None
    bce: float | None
    l0_rate: float
    explained_variance: float | None
    dead_rate: float
    rank_r: float | None = None
    rank_entropy: float | None = None
    order_mean_top_r: list[float | None]
    order_mean_top_entropy: list[float | None]
    observations: list[PaperObservation]


class PaperEvaluation(Result):
    """What `evaluate_as_paper` found; `str()` is the paper's table, said to be optimistic.

    seed: of the order; None where it is the table's. table_images: images of the table, of which without_activations
    are not in the store or could not be read. positives: of each of the 14 observations in the subset.
    order_images: how many images the subsets of other orders have.
    candidates: SAEs and neurons, sorted by the mean rank of H as the paper's code sorts them.
    """

    FILE: ClassVar[str] = METRICS_FILE
    COMMAND: ClassVar[str] = f"medsae evaluate --protocol {PROTOCOL}"

    schema_version: Literal[4] = Field(default=4, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    protocol: str = PROTOCOL
    optimistic: bool = True
    seed: int | None
    table_images: int
    without_activations: int
    images: int
    patients: int
    positives: dict[str, int]
    order_images: list[int]
    candidates: list[PaperScores]

    def save(self, path: str | Path) -> None:
        """Write `metrics.json` into a folder."""
        super().save(make_folder(Path(path)))

    def __str__(self) -> str:
        return "\n".join([*self._head(), "", *self._of_labels(), "", *self._of_candidates(), "", *self._notes()])

    def _head(self) -> list[str]:
        order = "in its order" if self.seed is None else f"shuffled with seed {self.seed}"
        low, high = min(self.positives.values()), max(self.positives.values())
        each = f"{low}" if low == high else f"{low} to {high}"
        lines = [
            f"Protocol {PROTOCOL} (arXiv 2510.26411): r (H) of each label's top latent, on {self.images:,} images of "
            f"{self.patients:,} patients,",
            f"a greedy subset of the table's {self.table_images:,} images, {order}: {each} of each of "
            f"{len(self.positives)} labels. Uncertain is -1, not mentioned 0.",
        ]
        if self.without_activations:
            lines.append(f"Passed over, for the store has no activations of them: {self.without_activations:,} images.")
        return [
            *lines,
            "OPTIMISTIC: each latent is chosen on the images that it is reported on, out of all latents, so these "
            "figures",
            "are larger than new patients would give; compare them with that paper's alone.",
        ]

    def _of_labels(self) -> list[str]:
        shown = self.candidates[:_MOST_COLUMNS]
        rows = [["label", "+", "-1", *(f"[{k}]" for k in range(1, len(shown) + 1))]]
        for k, label in enumerate(self.candidates[0].observations):
            cells = [_pair(c.observations[k].r, c.observations[k].entropy) for c in shown]
            rows.append([label.label, str(label.positives), str(label.uncertain), *cells])
        rows.append(["mean r (H)", "", "", *(_pair(c.mean_top_r, c.mean_top_entropy) for c in shown)])
        more = len(self.candidates) - len(shown)
        last = [f"and {more} more, below; all of their cells are in {METRICS_FILE}"] if more else []
        return [*aligned(rows, rule_after=(1, len(rows) - 1)), *last]

    def _of_candidates(self) -> list[str]:
        heads = [
            "mean r (H)",
            f"of {len(self.order_images)} orders",
            "BCE",
            "L0 rate",
            "explained",
            "dead rate",
            "rank r",
            "rank H",
            "kept",
        ]
        rows = [["", *heads]]
        for k, c in enumerate(self.candidates, 1):
            spread = f"{_range(c.order_mean_top_r)} ({_range(c.order_mean_top_entropy)})"
            figures = (c.bce, c.l0_rate, c.explained_variance, c.dead_rate, c.rank_r, c.rank_entropy)
            cells = [fixed(x, 3) for x in figures]
            means = _pair(c.mean_top_r, c.mean_top_entropy)
            rows.append([f"[{k}] {c.name}", means, spread, *cells, f"{c.kept} of {c.latents}"])
        return aligned(rows, rule_after=(1,))

    def _notes(self) -> list[str]:
        n = len(self.order_images)
        images = _range(self.order_images, lambda x: f"{x:,.0f}")
        return [
            f"of {n} orders: smallest and largest over shuffles with seeds 0 to {n - 1} ({images} images); the paper's",
            "own order is a shuffle that was not published. rank r, rank H: 1 is the largest and 0 the smallest of",
            "these columns, so of H a small rank is the better one; sorted by it, as there. kept: of |r| > 0.2.",
        ]


def _pair(r: float | None, entropy: float | None) -> str:
    return "-" if r is None else f"{r:.2f} ({fixed(entropy)})"


def _range(values: Sequence[float | int | None], form: Callable[[float], str] = lambda x: f"{x:.2f}") -> str:
    known = [x for x in values if x is not None]
    return f"{form(min(known))} to {form(max(known))}" if known else "-"
