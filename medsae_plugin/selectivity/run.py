"""The job of `medsae selectivity`: units chosen on `select`, silenced on `report`, and every label read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.logistic import Head
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Units
from medsae_plugin.selectivity.ablation import DRAWS, Sets, Written
from medsae_plugin.selectivity.concepts import Concept, with_covariates
from medsae_plugin.selectivity.effects import Unedited
from medsae_plugin.selectivity.models import AblatedUnits
from medsae_plugin.selectivity.results import Selectivity
from medsae_plugin.selectivity.summary import summarise
from medsae_plugin.selectivity.zero_shot import Scorer
from medsae_plugin.store.reader import ActivationStore

KS = (1, 2, 5, 10, 20)


def score_selectivity(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    covariates: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    ks: Sequence[int] = KS,
    zero_shot: tuple[HookedVisionEncoder, ZeroShot] | None = None,
    batch_size: int = 32,
    workers: int | None = 0,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    folds: Folds | None = None,
    leave_out_trained: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Selectivity:
    """Silence the units that carry each label, and see its probe fall and the others stay.

    Of every label, and every covariate, the k units of the largest r on `select` are ablated at every position, with
    what the SAE does not reconstruct kept: x - sum_j a_j d_j. Every label's probe (logistic, on the unedited mean over
    positions, fitted on `select`) is read on `report` before and after. Beside an SAE's latents stand an untrained
    SAE's, the hook's neurons (x with the neuron at 0), and of each as many live units drawn at random, ten times.

    For labels it is targeted probe perturbation, for covariates spurious correlation removal (Karvonen et al. 2024,
    arXiv 2411.18895), with AUROC in place of accuracy, since labels are rare and several at once, and probes fitted on
    all of `select` in place of biased ones.

    Args:
        covariates: of the table's covariates or labels.
        out: a folder, for `selectivity.json`, `selectivity.parquet` and the latent matrices.
        zero_shot: the store's encoder and its zero-shot findings, which are then measured too, by splicing.
        batch_size, workers: of the encoder's passes. folds, leave_out_trained: as of `evaluate`.
        seed: of the untrained SAEs, the draws, the resamples and the halves that penalties are chosen between.

    Raises:
        MedSAEError: what `evaluate` refuses; a covariate that is not there or does not vary; a k below 1; an image that
            cannot be read again.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise MedSAEError("--k is how many units to silence: 1 or more, such as 1,2,5")
    images = LabelledImages.of(store, table).with_roles(select, report, folds).without_embeddings()
    images, concepts = with_covariates(images, covariates)
    units = open_units(store, saes, seed, device)
    trained_on, seen = check_held_out(units, store, images, leave_out_trained)
    held_out = HeldOut(images.without_reported(trained_on))
    again = None
    if zero_shot is not None:
        again = Scorer.of(*zero_shot, held_out.images, table, batch_size=batch_size, workers=workers, progress=progress)
    choices = Choice.each_of(held_out, seed)
    probes = {hook: _Probes.of(store, hook, choices, held_out) for hook in dict.fromkeys(u.hook for u in units)}
    made = []
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        for one, matrix in zip(tqdm(units, "silencing", disable=not progress), matrices, strict=True):
            scene = _Scene(store, one, matrix, held_out, choices, concepts, ks, seed)
            made += list(scene.ablated(probes[one.hook], again))
    for ablated in made:
        ablated.held_out_from = seen.get(ablated.name)
    splits, findings = counts(held_out.images), [c.name for c in concepts if not c.is_covariate]
    names, y = held_out.images.label_names, held_out.labels
    result = Selectivity(
        encoder=Encoder.of(store),
        prompts=None if again is None else again.prompts,
        aggregate=aggregate,
        select=splits["select"],
        report=splits["report"],
        ks=ks,
        draws=DRAWS,
        labels=findings,
        covariates={c.name: [names[i] for i in c.columns] for c in concepts if c.is_covariate},
        positives={name: int((column == 1).sum()) for name, column in zip(names, y.T, strict=True)},
        units=made,
    )
    if out is not None:
        result.save(out)
    return result


class _Probes:
    """Probes of all neurons of a hook: by choice and label, and what they say of `report`."""

    def __init__(self, heads: list[list[Head | None]], unedited: Unedited, d: int) -> None:
        self.unedited = unedited
        blank = np.zeros(d)
        self.weights = [np.stack([blank if h is None else h.weights for h in one], axis=1) for one in heads]

    @classmethod
    def of(cls, store: ActivationStore, hook: str, choices: Sequence[Choice], held_out: HeldOut) -> _Probes:
        x = np.concatenate([part.astype(np.float32) for _, part in image_means(store, hook)])
        said, heads = np.full(held_out.labels.shape, np.nan), []
        for choice in choices:
            on_select, on_report = x[choice.select], x[choice.report]
            heads.append([choice.fit(on_select, c) for c in range(len(held_out.images.label_names))])
            for c, head in enumerate(heads[-1]):
                if head is not None:
                    said[choice.place, c] = head(on_report)
        return cls(heads, Unedited(held_out, said), store.hooks[hook].d)


class _Scene:
    """Some units with all that is asked of them."""

    def __init__(
        self,
        store: ActivationStore,
        units: Units,
        matrix: LatentMatrix,
        held_out: HeldOut,
        choices: Sequence[Choice],
        concepts: Sequence[Concept],
        ks: Sequence[int],
        seed: int,
    ) -> None:
        self.store, self.units, self.held_out, self.choices = store, units, held_out, choices
        self.concepts, self.ks, self.seed = concepts, ks, seed
        self.sets = Sets.each_of(units, matrix, held_out, concepts, ks[-1], seed)

    def ablated(self, probes: _Probes, again: Scorer | None) -> Iterator[AblatedUnits]:
        """By probes, and by zero-shot scores where they are asked for."""
        yield self._of_probes(probes)
        if again is not None:
            yield self._of_zero_shot(again)

    def _of_probes(self, probes: _Probes) -> AblatedUnits:
        written = Written.by(
            self.store, self.units, self.held_out, np.unique(np.concatenate([j for one in self.sets for j in one.all]))
        )
        before = probes.unedited.scores

        def silenced(s: int, k: int) -> tuple[Float[np.ndarray, "rows labels"], Bool[np.ndarray, " rows"]]:
            after, fires = before.copy(), np.zeros(len(before), dtype=bool)
            for choice, of_choice, weights in zip(self.choices, self.sets, probes.weights, strict=True):
                chosen = of_choice.all[s][:k]
                after[choice.place] += written.moves(chosen, choice.place, weights)
                fires[choice.place] = written.any_fires(chosen, choice.place)
            return after, fires

        rest = (self.sets, self.concepts, self.ks, probes.unedited, silenced, self.seed)
        return summarise(self.units, "probe", *rest)

    def _of_zero_shot(self, again: Scorer) -> AblatedUnits:
        found, n = again.silence(self.units, self.held_out, self.sets, self.ks), len(self.ks)

        def silenced(s: int, k: int) -> tuple[Float[np.ndarray, "rows labels"], Bool[np.ndarray, " rows"]]:
            place = s * n + list(self.ks).index(k)
            return found.after[place].astype(np.float64), found.fires[place]

        unedited = Unedited(self.held_out, found.before.astype(np.float64))
        rest = (self.sets, self.concepts, self.ks, unedited, silenced, self.seed)
        return summarise(self.units, "zero-shot", *rest)
