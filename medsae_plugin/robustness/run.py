"""The same units on images and on their perturbations: one pass of the reported images through the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.robustness.figures import Sources, described
from medsae_plugin.robustness.passing import Pass
from medsae_plugin.robustness.perturbations import PERTURBATIONS, Variants, checked
from medsae_plugin.robustness.results import Robustness
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.scoring import HeldOut, Scored, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.store.decoding import default_workers

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.store.reader import ActivationStore


def score_robustness(
    encoder: HookedVisionEncoder,
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    perturbations: Sequence[str] = tuple(PERTURBATIONS),
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    leave_out_trained: bool = False,
    batch_size: int = 8,
    workers: int | None = 0,
    seed: int = 0,
    progress: bool = True,
) -> Robustness:
    """Run images of `report` through the encoder again, unchanged and perturbed, and see what units make of both.

    Of every latent, of an untrained SAE's and of the hook's neurons: the Jaccard index of the images on which it fires,
    and r of its activation on an image with that on the perturbed one. Of each label's top unit (chosen on `select`, in
    the store): r with the label, on both. An image's activation is the maximum (or the mean) over its positions, of
    those that the store keeps.

    Images stream through; what is held are sums by `GROUPS` groups of patients, and the top units' activations. With
    `out`, the sums are written there every few minutes, and the same call goes on from them.

    Args:
        encoder: the store's.
        table: of the store's images, beside which they lie.
        perturbations: some of `PERTURBATIONS`.
        batch_size: images a pass, of each of which there are as many variants as perturbations, and one.
        workers: as of `PixelBatches`.
        seed: of what is drawn (noise, cells, groups of patients), and of the untrained SAEs.
        out: a folder, for `robustness.json` and `robustness.parquet`; one that `evaluate` wrote has the latent matrices
            already.

    Raises:
        MedSAEError: another encoder than the store's; images that are not those of the store, or cannot be read; a
            perturbation that there is not; and what `evaluate` refuses.
    """
    if batch_size < 1 or (workers is not None and workers < 0):
        raise MedSAEError("batch_size must be at least 1 and workers at least 0")
    names = checked(perturbations)
    images = LabelledImages.of(store, table).held_out(select, report).without_embeddings()
    units = open_units(store, saes, seed, str(encoder.device))
    _check_encoder(encoder, store)
    trained_on, seen = check_held_out(units, store, images, leave_out_trained)
    images = images.without_reported(trained_on)
    held_out = HeldOut(images)
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        scored = [
            Scored(one, sum_up(matrix, images), matrix=matrix, held_out=held_out)
            for one, matrix in zip(units, matrices, strict=True)
        ]
        variants = Variants(encoder.preprocessor, names, seed)
        run = Pass(encoder, store, images, variants, units, [one.top for one in scored], aggregate, batch_size)
        run.go_on_from(folder if out is not None else None)
        with tqdm(total=run.n_images, initial=run.done, desc="perturbed", unit="image", disable=not progress) as bar:
            for n in run.batches(default_workers() if workers is None else workers):
                bar.update(n)
    sources = [Sources(*each, seen.get(each[0].units.name)) for each in zip(scored, run.sums, run.tops, strict=True)]
    described_units, frame = described(sources, held_out, names)
    on = counts(images)
    found = Robustness(
        encoder=Encoder(name=encoder.name, weights_sha256=encoder.weights_sha256),
        aggregate=aggregate,
        seed=seed,
        groups=run.n_groups,
        perturbations={name: PERTURBATIONS[name] for name in names},
        units=described_units,
        select=on["select"],
        report=on["report"],
    )
    found._frame = frame
    if out is not None:
        found.save(out)
        run.finish()
    return found


def _check_encoder(encoder: HookedVisionEncoder, store: ActivationStore) -> None:
    """Raises MedSAEError unless the store is of this encoder."""
    if store.weights_sha256 != encoder.weights_sha256:
        raise MedSAEError(f"{store.path} is of {store.encoder_name} with other weights than {encoder.title} has")
    if dict(store.preprocessing) != encoder.preprocessing:
        raise MedSAEError(f"{store.path} has images that were prepared otherwise than {encoder.title} does")
