"""The protocol of MedSAE (arXiv 2510.26411), to compare with its numbers. It is optimistic: nothing is held out.

As in the reference: an observation that is not mentioned is 0, one that is uncertain stays -1; eight observations; a
subset of images is taken greedily in the table's order, until every observation has 200 positive ones; Pearson's r over
that subset; only latents with |r| > 0.2 for some observation count; and an observation's latent is chosen on the images
that it is reported on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation import metrics
from medsae_plugin.evaluation.candidates import Candidate, load_candidates
from medsae_plugin.evaluation.latents import Aggregate, LatentMatrix
from medsae_plugin.evaluation.output import header, number, write_metrics
from medsae_plugin.evaluation.scores import candidate_matrices
from medsae_plugin.evaluation.table import without_rows
from medsae_plugin.evaluation.targets import align_labels, rows_of
from medsae_plugin.evaluation.text_table import aligned

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

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


def paper_scores(
    activations: sparse.csr_array, labels: Float[np.ndarray, "images labels"], names: Sequence[str]
) -> dict[str, Any]:
    """The paper's figures of latents on a subset of images.

    Args:
        activations: `(images, latents)`; labels: in {-1, 0, 1}.

    Returns:
        latents, kept: how many there are, and how many have |r| above 0.2; mean_top_r, mean_entropy over the kept; and
        of each observation its latent of the largest r, with r and its entropy (None where no latent is kept).
    """
    r = metrics.pearson_of(sparse.csr_array(activations.T.astype(np.float64)), labels)
    h = metrics.entropy(r)
    kept = np.nan_to_num(np.abs(r)).max(1) > LEAST_R
    top = metrics.top_latent(r, kept)
    observations = [
        {
            "label": name,
            "positives": int((labels[:, c] == 1).sum()),
            "latent": int(j) if j >= 0 else None,
            "r": number(r[j, c]) if j >= 0 else None,
            "entropy": number(h[j]) if j >= 0 else None,
        }
        for c, (name, j) in enumerate(zip(names, top, strict=True))
    ]
    found = r[top[top >= 0], np.flatnonzero(top >= 0)]
    return {
        "latents": len(r),
        "kept": int(kept.sum()),
        "mean_top_r": float(found.mean()) if len(found) else None,
        "mean_entropy": float(h[kept].mean()) if kept.any() else None,
        "observations": observations,
    }


def evaluate_as_paper(
    store: ActivationStore,
    sae_paths: Sequence[str | Path],
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    report: str = "test",
    progress: bool = True,
) -> dict[str, Any]:
    """Score SAEs by the paper's protocol on the split `report`; `metrics.json` goes to `out`.

    Args:
        table: read with `uncertain="keep"`.

    Raises:
        MedSAEError: a table without the eight observations, a split without images, and what `load_candidates` refuses.
    """
    missing = [name for name in LABELS if name not in table.label_names]
    if missing:
        raise MedSAEError(f"the protocol {PROTOCOL} needs the observations {', '.join(missing)}, which the table lacks")
    columns = [table.label_names.index(name) for name in LABELS]
    images = store.readable_images
    mine = np.flatnonzero(images["split"] == report)
    paths = list(images["path"])
    labels = np.nan_to_num(align_labels(paths, table)[mine][:, columns])
    subset = greedy_subset(labels, PER_CLASS)
    if len(subset) < 2:
        raise MedSAEError(f"split {report!r} has fewer than two images with one of the eight observations")
    candidates = load_candidates(store, sae_paths)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        matrices = candidate_matrices(store, candidates, folder / "latents", aggregate, progress)
        entries = [_entry(c, matrices[c.name], mine[subset], labels[subset]) for c in candidates]
    counts = {
        "split": report,
        "images": len(subset),
        "patients": int(images["patient"].iloc[mine[subset]].nunique()),
        "without_row": int((rows_of(paths, table)[mine] < 0).sum()),
    }
    result = {
        **header(store.manifest["encoder"], aggregate, {"select": counts, "report": counts}),
        "protocol": PROTOCOL,
        "optimistic": True,
        "candidates": entries,
    }
    if out is not None:
        write_metrics(result, Path(out))
    return result


def _entry(candidate: Candidate, matrix: LatentMatrix, rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    parts = []
    for at, activations in matrix.shards():
        within = rows[(rows >= at.start) & (rows < at.stop)] - at.start
        parts.append(sparse.csr_array(activations)[within])
    scores = paper_scores(sparse.csr_array(sparse.vstack(parts, format="csr")), labels, LABELS)
    for observation in scores["observations"]:
        latent = observation["latent"]
        observation["latent"] = None if latent is None else candidate.index(latent)
    return {"name": candidate.name, "kind": candidate.kind, "hook": candidate.hook, **scores}


def format_paper_table(metrics: Mapping[str, Any]) -> str:
    """The paper's table, `r (H)` of every observation, said to be optimistic."""
    candidates = metrics["candidates"]
    rows = [["observation", "+", *[c["name"] for c in candidates]]]
    for k, o in enumerate(candidates[0]["observations"]):
        rows.append([o["label"], str(o["positives"]), *[_cell(c["observations"][k]) for c in candidates]])
    rows.append(["latents with |r| > 0.2", "", *[f"{c['kept']} of {c['latents']}" for c in candidates]])
    rows.append(["mean r", "", *["-" if c["mean_top_r"] is None else f"{c['mean_top_r']:.2f}" for c in candidates]])
    report = metrics["report"]
    head = (
        f"Protocol {PROTOCOL}, r (H) as in arXiv 2510.26411, on {report['images']} images of {report['split']}.\n"
        "OPTIMISTIC: each latent is chosen on the images that it is reported on, out of all latents, so these figures\n"
        "are larger than new patients would give; compare them with that paper's alone."
    )
    return "\n".join([head, *without_rows(report), "", *aligned(rows, rule_after=(1, len(rows) - 2))])


def _cell(observation: Mapping[str, Any]) -> str:
    return "-" if observation["r"] is None else f"{observation['r']:.2f} ({observation['entropy']:.2f})"
