"""SAEs scored against clinical labels on held-out patients, beside an untrained SAE and the raw neurons of the hook."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.evaluation.candidates import Candidate, load_candidates
from medsae_plugin.evaluation.latents import Aggregate, LatentMatrix, latent_matrices
from medsae_plugin.evaluation.output import Scored, latent_frame, summarise, write
from medsae_plugin.evaluation.scoring import Resampling, score_ranks, score_sums, sum_up
from medsae_plugin.evaluation.targets import Targets, targets_of
from medsae_plugin.training.validation import fidelity_sums

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable


def evaluate_saes(
    store: ActivationStore,
    sae_paths: Sequence[str | Path],
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    q: float = 0.3,
    resampling: Resampling | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Score SAEs, untrained SAEs of their shape and the raw neurons beside them against the table's labels.

    The top latent of a label, and every detection threshold, are chosen on the images of the split `select`; all
    figures are those of the split `report`, whose patients are others. An image's activation at a spatial hook is the
    maximum (or the mean) over its positions. With `out`, `metrics.json` and `latents.parquet` are written there, and
    in `latents/` the sparse latent matrices, which a second evaluation of the same SAEs reuses.

    Args:
        q: a latent detects where it exceeds the (1 - q) quantile of its positive activations.
        resampling: permutations and bootstrap resamples, 200 and 1000 by default, with their seed.

    Returns:
        The contents of `metrics.json`. For every candidate: its fidelity and sparsity on `report`, the top latent of
        each label with its figures (`r`, its interval, the null, ...; `r_same_split` is the optimistic figure of the
        latent chosen on `report` itself), and their means.

    Raises:
        MedSAEError: what `targets_of` and `load_candidates` refuse.
    """
    targets = targets_of(store, table, select, report)
    resampling = resampling or Resampling()
    candidates = load_candidates(store, sae_paths, resampling.seed)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        matrices = candidate_matrices(store, candidates, folder / "latents", aggregate, progress)
        scored = [_score(store, c, matrices[c.name], targets, report, q, resampling) for c in candidates]
    metrics = summarise(store, scored, targets, {"select": select, "report": report}, aggregate, q, resampling)
    if out is not None:
        write(metrics, latent_frame(scored), Path(out))
    return metrics


def candidate_matrices(
    store: ActivationStore, candidates: Sequence[Candidate], folder: Path, aggregate: Aggregate, progress: bool
) -> dict[str, LatentMatrix]:
    """The latent matrix of each candidate, by its name, in folders of that name; a hook's from one pass."""
    matrices: dict[str, LatentMatrix] = {}
    for hook in dict.fromkeys(c.hook for c in candidates):
        here = [c for c in candidates if c.hook == hook]
        folders = [folder / c.folder_name for c in here]
        made = latent_matrices(store, hook, [c.sae for c in here], folders, aggregate=aggregate, progress=progress)
        matrices |= {c.name: matrix for c, matrix in zip(here, made, strict=True)}
    return matrices


def _score(
    store: ActivationStore,
    candidate: Candidate,
    matrix: LatentMatrix,
    targets: Targets,
    report: str,
    q: float,
    resampling: Resampling,
) -> Scored:
    sums = sum_up(matrix, targets)
    by_sums = score_sums(sums["select"], sums["report"])
    by_ranks = score_ranks(matrix, targets, by_sums, q, resampling)
    fidelity = fidelity_sums(store, candidate.sae, candidate.hook, report) if candidate.sae else None
    return Scored(candidate, by_sums, by_ranks, fidelity)
