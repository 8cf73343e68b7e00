"""The protocol of MedSAE (arXiv 2510.26411), to compare with its numbers. It is optimistic: nothing is held out.

As in the reference: an observation that is not mentioned is 0, one that is uncertain stays -1; eight observations; a
subset of images is taken greedily in the table's order, until every observation has 200 positive ones; Pearson's r over
that subset; only latents with |r| > 0.2 for some observation count; and an observation's latent is chosen on the images
that it is reported on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy import sparse

from medsae_plugin._version import __version__
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder
from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.results import METRICS_FILE
from medsae_plugin.scores.table import without_rows
from medsae_plugin.scores.units import Kind, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.text import aligned

PROTOCOL = "medsae-paper"
# The paper's count is eight; which eight is our reading: those that radiology benchmarks on CheXpert share.
LABELS = (
    "No Finding",
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
)
PER_CLASS = 200
LEAST_R = 0.2


def greedy_subset(labels: Float[np.ndarray, "images labels"], per_class: int) -> Int[np.ndarray, " kept"]:
    """The images kept, in order: one is kept if it is positive for a label that has fewer than `per_class` so far."""
    counts = np.zeros(labels.shape[1], dtype=np.int64)
    kept = []
    for i in np.flatnonzero((labels == 1).any(1)):
        positive = labels[i] == 1
        if (counts[positive] < per_class).any():
            kept.append(i)
            counts += positive
    return np.array(kept, dtype=np.int64)


class PaperObservation(Figures):
    """An observation's latent of the largest r; `latent`, `r` and `entropy` are None where no latent is kept."""

    label: str
    positives: int
    latent: int | str | None
    r: float | None
    entropy: float | None


class PaperScores(Figures):
    """Of one SAE, baseline or hook: how many latents there are and have |r| above 0.2, and the means over those."""

    name: str
    kind: Kind
    hook: str
    latents: int
    kept: int
    mean_top_r: float | None
    mean_entropy: float | None
    observations: list[PaperObservation]


class PaperEvaluation(Result):
    """What `evaluate_as_paper` found; `str()` is the paper's table, said to be optimistic."""

    FILE: ClassVar[str] = METRICS_FILE
    COMMAND: ClassVar[str] = f"medsae evaluate --protocol {PROTOCOL}"

    schema_version: Literal[3] = Field(default=3, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    protocol: str = PROTOCOL
    optimistic: bool = True
    candidates: list[PaperScores]

    def save(self, path: str | Path) -> None:
        """Write `metrics.json` into a folder."""
        super().save(make_folder(Path(path)))

    def __str__(self) -> str:
        of = self.candidates
        rows = [["observation", "+", *[c.name for c in of]]]
        for k, o in enumerate(of[0].observations):
            rows.append([o.label, str(o.positives), *[_cell(c.observations[k]) for c in of]])
        rows.append(["latents with |r| > 0.2", "", *[f"{c.kept} of {c.latents}" for c in of]])
        rows.append(["mean r", "", *["-" if c.mean_top_r is None else f"{c.mean_top_r:.2f}" for c in of]])
        head = (
            f"Protocol {PROTOCOL}, r (H) as in arXiv 2510.26411, on {self.report.images} images of "
            f"{self.report.split}.\n"
            "OPTIMISTIC: each latent is chosen on the images that it is reported on, out of all latents, so these "
            "figures\nare larger than new patients would give; compare them with that paper's alone."
        )
        return "\n".join([head, *without_rows(self.report), "", *aligned(rows, rule_after=(1, len(rows) - 2))])


def evaluate_as_paper(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    report: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> PaperEvaluation:
    """Score SAEs by the paper's protocol on the split `report`; `metrics.json` goes to `out`.

    Args:
        table: read with `uncertain="keep"`.
        seed: of the untrained SAEs.

    Raises:
        MedSAEError: a table without the eight observations, a split without images, and what `open_units` refuses.
    """
    missing = [name for name in LABELS if name not in table.label_names]
    if missing:
        raise MedSAEError(f"the protocol {PROTOCOL} needs the observations {', '.join(missing)}, which the table lacks")
    columns = [table.label_names.index(name) for name in LABELS]
    images = LabelledImages.of(store, table)
    mine = np.flatnonzero(images.frame["split"] == report)
    labels = np.nan_to_num(images.as_told())[mine][:, columns]
    subset = greedy_subset(labels, PER_CLASS)
    if len(subset) < 2:
        raise MedSAEError(f"split {report!r} has fewer than two images with one of the eight observations")
    units = open_units(store, saes, seed, device)
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        entries = [_entry(one, m, mine[subset], labels[subset]) for one, m in zip(units, matrices, strict=True)]
    kept = Split(
        split=report,
        images=len(subset),
        patients=len(set(images.patient_codes[mine[subset]])),
        without_row=0 if images.in_table is None else int((~images.in_table[mine]).sum()),
    )
    result = PaperEvaluation(
        encoder=Encoder(**store.manifest["encoder"]), aggregate=aggregate, select=kept, report=kept, candidates=entries
    )
    if out is not None:
        result.save(out)
    return result


def _entry(
    units: Units, matrix: LatentMatrix, rows: Int[np.ndarray, " kept"], labels: Float[np.ndarray, "kept labels"]
) -> PaperScores:
    """The paper's figures of units on a subset of images, labels in {-1, 0, 1}."""
    parts = []
    for at, activations in matrix.shards():
        within = rows[(rows >= at.start) & (rows < at.stop)] - at.start
        parts.append(sparse.csr_array(activations)[within])
    activations = sparse.csr_array(sparse.vstack(parts, format="csr"))
    r = metrics.pearson_of(sparse.csr_array(activations.T.astype(np.float64)), labels)
    h = metrics.entropy(r)
    kept = np.nan_to_num(np.abs(r)).max(1) > LEAST_R
    top = metrics.top_latent(r, kept)
    observations = [
        PaperObservation(
            label=name,
            positives=int((labels[:, c] == 1).sum()),
            latent=units.label(int(j)),
            r=number(r[j, c]) if j >= 0 else None,
            entropy=number(h[j]) if j >= 0 else None,
        )
        for c, (name, j) in enumerate(zip(LABELS, top, strict=True))
    ]
    found = r[top[top >= 0], np.flatnonzero(top >= 0)]
    return PaperScores(
        name=units.name,
        kind=units.kind,
        hook=units.hook,
        latents=len(r),
        kept=int(kept.sum()),
        mean_top_r=float(found.mean()) if len(found) else None,
        mean_entropy=number(mean_known(h[kept])),
        observations=observations,
    )


def _cell(observation: PaperObservation) -> str:
    return "-" if observation.r is None else f"{observation.r:.2f} ({observation.entropy:.2f})"
