"""Names made better by a judge's mistakes, and replaced only where the better name proves itself on other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medsae_plugin._old_names import renamed_argument
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.evidence import Counts, Evidence, Sample
from medsae_plugin.naming.figures import Confusion
from medsae_plugin.naming.firing import Firing, open_firing
from medsae_plugin.naming.namers import ChatNamer
from medsae_plugin.naming.names import NamedUnit, Names
from medsae_plugin.naming.paper import PaperEvidence
from medsae_plugin.naming.run import MATRICES, choose, keep
from medsae_plugin.naming.schema import LatentName
from medsae_plugin.naming.scoring import check_same_sae
from medsae_plugin.naming.trials import Judge, Trial, Trials
from medsae_plugin.naming.vocabulary import Vocabulary

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore


@dataclass(frozen=True)
class Mistakes:
    """Places in the naming split's rows: images that fire and were held not to fit, and the other way round."""

    missed: tuple[int, ...]
    mistaken: tuple[int, ...]


@renamed_argument("sae_path", "sae")
def refine_names(
    store: ActivationStore,
    sae: Any,
    table: ImageTable,
    folder: str | Path,
    namer: ChatNamer,
    judge: Judge,
    *,
    rounds: int = 1,
    check_split: str = "val",
    each: int = 10,
    vocabulary: Vocabulary | None = None,
    names: Names | None = None,
    replace_others: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> Names:
    """Refine the names in a folder, latents' and neurons', and write them where `name_latents` did.

    In each round the judge reads fresh images of the naming split, of patients that the unit's evidence does not show.
    The namer is shown those on which it went wrong, and gives the name anew. Both names are then judged on the same
    images of `check_split`, drawn anew in each round; the new one takes the old one's place if its balanced accuracy is
    higher. The split that names are scored on is not touched.

    Args:
        names: those to refine, as they were first proposed; default all in the folder.
        replace_others: as in `name_latents`.

    Raises:
        MedSAEError: no names, names of another SAE or of several runs, splits that share patients, and what the namer
            and judge raise.
    """
    folder = Path(folder)
    names = names or Names.open(folder)
    if rounds < 1:
        raise MedSAEError("refinement takes 1 round or more")
    if "runs" in names.made:
        raise MedSAEError(f"the names in {folder} are of several runs; give those of one")
    both = open_firing(store, sae, table, folder / MATRICES, device=device, progress=progress)
    check_same_sae(names, both[0])
    both[0].images.check_apart(names.made["split"], check_split)
    vocabulary = vocabulary or Vocabulary.seed()
    units = list(names.units)
    for round in range(1, rounds + 1):
        for firing in both:
            places = [i for i, u in enumerate(units) if u.kind == firing.kind and u.status == "named"]
            if places:
                refiner = _Refiner(firing, names, namer, judge, check_split, each, round)
                for i, better in zip(places, refiner.refine([units[i] for i in places]), strict=True):
                    if better is not None:
                        units[i] = units[i].renamed(better, vocabulary.category_of(better.concept), round)
    made = {**names.made, "refined": {"rounds": rounds, "judge": judge.identity, "check_split": check_split}}
    names = Names(made=made, units=tuple(units))
    keep(names, folder, both[0].sae_folder, replace_others=replace_others)
    return names


class _Refiner:
    """One round over the units of one kind."""

    def __init__(
        self, firing: Firing, names: Names, namer: ChatNamer, judge: Judge, check: str, each: int, round: int
    ) -> None:
        self.firing, self.namer, self.judge, self.each, self.round = firing, namer, judge, each, round
        self.split, self.seed = names.made["split"], names.made["seed"]
        made = names.made["evidence"]
        self.counts: Evidence = PaperEvidence() if "preset" in made else Counts(**made)
        self.rows, self.check_rows = firing.images.rows_in([self.split]), firing.images.rows_in([check])

    def refine(self, units: Sequence[NamedUnit]) -> list[LatentName | None]:
        """The better name of each unit, or None where its name stays."""
        columns = [self.firing.units.index(unit.latent) for unit in units]
        samples = choose(self.firing, columns, self.split, self.counts, self.seed).sampled
        mistakes = self._mistakes(units, columns, samples)
        wrong = [k for k, m in enumerate(mistakes) if m is not None and (m.missed or m.mistaken)]
        proposals = self.namer.refine(
            self.firing,
            self.rows,
            [columns[k] for k in wrong],
            [units[k].name for k in wrong],
            [samples[columns[k]] for k in wrong],
            [mistakes[k].missed for k in wrong],  # type: ignore[union-attr]
            [mistakes[k].mistaken for k in wrong],  # type: ignore[union-attr]
        )
        fresh = {k: p.name for k, p in zip(wrong, proposals, strict=True) if p.name and p.name != units[k].name}
        return self._proven(units, columns, fresh)

    def _mistakes(
        self, units: Sequence[NamedUnit], columns: Sequence[int], samples: dict[int, Sample]
    ) -> list[Mistakes | None]:
        """What the judge gets wrong on images of the naming split whose patients the evidence does not show."""
        patients = self.firing.images.patient_codes[self.rows]
        trials: dict[int, Trial] = {}
        for k, column in enumerate(columns):
            sample = samples[column]
            shown = patients[[*sample.strongest, *sample.spread, *sample.silent]]
            free = np.flatnonzero(~np.isin(patients, shown))
            trial = self._trial(column, self.rows[free], 0)
            if trial is not None:
                trials[k] = trial
        answers = self.judge.answers(self.firing, [(units[k].name, trial) for k, trial in trials.items()])
        place = {int(row): p for p, row in enumerate(self.rows)}
        found: list[Mistakes | None] = [None] * len(units)
        for (k, trial), said in zip(trials.items(), answers, strict=True):
            shown_rows = np.array(trial.rows)
            missed, mistaken = (shown_rows[(trial.truth == t) & (said == 1 - t)] for t in (1, 0))
            found[k] = Mistakes(tuple(place[r] for r in missed), tuple(place[r] for r in mistaken))
        return found

    def _proven(
        self, units: Sequence[NamedUnit], columns: Sequence[int], fresh: dict[int, LatentName]
    ) -> list[LatentName | None]:
        """Of the fresh names those that the judge reads better than the old on the same held-out images."""
        trials = {k: trial for k in fresh if (trial := self._trial(columns[k], self.check_rows, 1)) is not None}
        pairs = [(k, name) for k in trials for name in (units[k].name, fresh[k])]
        answers = self.judge.answers(self.firing, [(name, trials[k]) for k, name in pairs])
        better: list[LatentName | None] = [None] * len(units)
        for i, k in enumerate(trials):
            old, new = (Confusion.of(trials[k].truth, said).balanced_accuracy for said in answers[2 * i : 2 * i + 2])
            if new > old:
                better[k] = fresh[k]
        return better

    def _trial(self, unit: int, rows: np.ndarray, what: int) -> Trial | None:
        column, patients = self.firing.column(unit, rows), self.firing.images.patient_codes[rows]
        return Trials(self.each).sample(column, rows, patients, [self.seed, unit, self.round, what])
