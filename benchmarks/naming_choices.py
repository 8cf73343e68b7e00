"""By how much each choice of MedSAE's reference flatters names, on phantoms with a namer and a judge that tell the
truth.

    python benchmarks/naming_choices.py                   # 2,000 phantoms: some minutes
    python benchmarks/naming_choices.py --n 600 --seed 1

The bundled encoder and SAEs see drawn phantoms, whose findings are known. The namer says which finding is on most of
the images that it is shown, less its share on the silent ones if it is shown any; the judge says whether that finding
is on an image. Neither errs, so what changes between the lines is the choice of images and of counting. Every line is
over the same latents, and beside it stands what the names of other latents get from the same images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medsae_plugin import HookedVisionEncoder, extract, read_table
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.naming.evidence import Counts, Evidence, Sample
from medsae_plugin.naming.figures import Confusion
from medsae_plugin.naming.firing import Firing, open_firing
from medsae_plugin.naming.paper import PaperEvidence, PaperTrials
from medsae_plugin.naming.trials import Trial, TrialRule, Trials
from medsae_plugin.phantoms import FINDINGS, generate, read_truth
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.text import to_the_left

SPLITS = {"train": 0.5, "val": 0.1, "test": 0.4}
UNREAD = 0.1
FIGURES = ("balanced_accuracy", "precision", "recall", "f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="phantoms (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="of phantoms; the SAEs learnt from those of 0")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.n, args.seed)


def measure(folder: Path, n: int, seed: int) -> None:
    labels = generate(n, folder / "phantoms", seed=seed)
    table = read_table(labels).split_by_patient(seed=seed, fractions=SPLITS)
    truth = dict(read_truth(labels.parent / "truth.jsonl"))
    saes = [file.parent for file in sorted((pretrained_folder() / "medsae-phantom").glob("*/cfg.json"))]
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    hooks = [load_sae(sae).cfg.metadata.hook_name for sae in saes]
    store = extract(encoder, table, hooks, folder / "store", progress=False)
    for sae in saes:
        firing, _ = open_firing(store, sae, table, folder / sae.name, progress=False)
        paths = firing.images.frame["path"]
        present = np.array([[finding in truth[path].findings for finding in FINDINGS] for path in paths])
        Study(firing, present, seed).print(f"{sae.name}, {n} phantoms, seed {seed}")


class Study:
    """One SAE's latents, named and tried in every way. present: `(images, findings)`, what is truly on each."""

    def __init__(self, firing: Firing, present: np.ndarray, seed: int) -> None:
        self.firing, self.present, self.seed = firing, present, seed
        self.rows = {split: firing.images.rows_in([split]) for split in ("train", "test")}
        ours, theirs = self.names(Counts()), self.names(PaperEvidence())
        lines: list[tuple[str, dict[int, int], TrialRule, str, bool]] = [
            ("ours: 30 % strongest, one a patient, of other patients", ours, Trials(), "test", False),
            ("the 30 strongest images, of any patient", ours, PaperTrials(), "test", False),
            ("and of the images that names were made from", ours, PaperTrials(), "train", False),
            ("and names from no silent image: theirs", theirs, PaperTrials(), "train", False),
            (f"and {UNREAD:.0%} of answers unread, taken for no", theirs, PaperTrials(), "train", True),
            ("their names, tried as ours are", theirs, Trials(), "test", False),
        ]
        tried = [(title, names, self.trials(names, rule, split), unread) for title, names, rule, split, unread in lines]
        self.units = sorted(set.intersection(*({*trials} for _, _, trials, _ in tried)))
        self.lines = [(title, self.figures(names, trials, unread)) for title, names, trials, unread in tried]
        self.same = np.mean([ours[unit] == theirs[unit] for unit in self.units])

    def names(self, evidence: Evidence) -> dict[int, int]:
        """The finding that each unit's evidence shows most, less its share among silent images."""
        rows = self.rows["train"]
        patients = self.firing.images.patient_codes[rows]
        named = {}
        for unit in range(self.firing.matrix.n_latents):
            sample = evidence.sample(self.firing.column(unit, rows), patients, [self.seed, unit])
            if isinstance(sample, Sample):
                shown = self.present[rows[[*sample.strongest, *sample.spread]]].mean(0)
                silent = self.present[rows[list(sample.silent)]].mean(0) if sample.silent else 0.0
                named[unit] = int((shown - silent).argmax())
        return named

    def trials(self, names: dict[int, int], rule: TrialRule, split: str) -> dict[int, Trial]:
        rows = self.rows[split]
        patients = self.firing.images.patient_codes[rows]
        made = {
            unit: rule.sample(self.firing.column(unit, rows), rows, patients, [self.seed, unit, 1]) for unit in names
        }
        return {unit: trial for unit, trial in made.items() if trial is not None}

    def figures(self, names: dict[int, int], trials: dict[int, Trial], unread: bool) -> list[float]:
        """Means over units: each figure of their own names, then balanced accuracy of another's."""
        rng = np.random.default_rng(self.seed)
        moved = dict(zip(self.units, np.roll([names[unit] for unit in self.units], 1), strict=True))
        own = [self.judged(names[unit], trials[unit], unread, rng) for unit in self.units]
        other = [self.judged(moved[u], trials[u], unread, rng) for u in self.units if moved[u] != names[u]]
        return [*(_mean(own, figure) for figure in FIGURES), _mean(other, "balanced_accuracy")]

    def judged(self, finding: int, trial: Trial, unread: bool, rng: np.random.Generator) -> Confusion:
        answers = self.present[list(trial.rows), finding].astype(float)
        if unread:  # a question of five at once
            lost = rng.random(-(-len(answers) // PaperTrials.group)) < UNREAD
            answers[np.repeat(lost, PaperTrials.group)[: len(answers)]] = 0
        return Confusion.of(trial.truth, answers)

    def print(self, title: str) -> None:
        print(f"\n{title}: {len(self.units)} latents tried in every way, {self.same:.0%} named alike by both evidences")
        head = ("", "balanced accuracy", "over ours", "precision", "recall", "F1", "shuffled", "own over shuffled")
        rows: list[Sequence[str]] = [head]
        first = self.lines[0][1][0]
        for name, (accuracy, precision, recall, f1, shuffled) in self.lines:
            told = (accuracy, accuracy - first, precision, recall, f1, shuffled, accuracy - shuffled)
            rows.append([name, *(_signed[k](x) for k, x in enumerate(told))])
        print("\n".join(to_the_left(rows)))


_plain: Callable[[float], str] = "{:.3f}".format
_signed: list[Callable[[float], str]] = [_plain, "{:+.3f}".format, *[_plain] * 4, "{:+.3f}".format]


def _mean(confusions: Sequence[Confusion], figure: str) -> float:
    return float(np.nanmean([getattr(c, figure) for c in confusions]))


if __name__ == "__main__":
    main()
