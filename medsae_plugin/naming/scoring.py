"""Names put to the test: does a judge who knows a name alone tell the images on which its latent fires?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medsae_plugin._old_names import renamed_argument
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.figures import (
    Confusion,
    bootstrap_interval,
    cohen_kappa,
    combined_p_value,
    fleiss_kappa,
    majority,
)
from medsae_plugin.naming.firing import Firing, open_firing
from medsae_plugin.naming.names import Names
from medsae_plugin.naming.results import (
    CONDITIONS,
    Agreement,
    Condition,
    JudgeScores,
    Kappa,
    Leak,
    NameFigures,
    NameScores,
    TriedName,
)
from medsae_plugin.naming.run import EVIDENCE, MATRICES
from medsae_plugin.naming.schema import LatentName
from medsae_plugin.naming.trials import FIRING_QUANTILE, Judge, Trial, TrialRule, Trials
from medsae_plugin.sae_folders import read_object
from medsae_plugin.scores.registry import mean_known, number

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

MAJORITY = "majority"
_FIGURES = ("balanced_accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class Claim:
    """A name said of a unit: its own (`latents`, `neurons`), or another latent's (`shuffled`)."""

    condition: Condition
    latent: str
    name: LatentName
    trial: Trial


@renamed_argument("sae_path", "sae")
def score_names(
    store: ActivationStore,
    sae: Any,
    table: ImageTable,
    folder: str | Path,
    judges: Mapping[str, Judge],
    *,
    split: str | None = None,
    each: int = 10,
    rule: TrialRule | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> NameScores:
    """Score the names in a folder by what judges make of them, and write `scores.json` and `scores.csv` there.

    For every name, up to `each` images on which the unit fires and as many on which it is silent are shown, none of a
    patient that names were made from, one a patient. The same images are judged by another latent's name (`shuffled`):
    what any name would get. Raw neurons are judged by their own names.

    Args:
        judges: by a name for the report, such as the model's. With several there are kappas and a majority.
        split: the images that names are tried on; default `test`, or under a rule that holds no patient out that which
            the names were made from.
        rule: another way to choose images than `Trials(each)`, such as `PaperTrials()`.

    Returns:
        What `scores.json` holds: for every judge and for the majority, the mean balanced accuracy (its 95 % bootstrap
        interval over names), precision, recall and F1 of latents, shuffled names and neurons, the exact permutation p
        value of all names together, and counts of what was unanswered; Cohen's kappa of each pair of judges and Fleiss'
        of all, on latents; and a line for each name and judge. `print` it for its table.

    Raises:
        MedSAEError: no names, names of another SAE, a split that shares patients with that of the names or
            with one that they were chosen on, no judge.
    """
    folder = Path(folder)
    names = Names.open(folder)
    if not judges:
        raise MedSAEError("there is no judge")
    rule = rule or Trials(each)
    split = split or ("test" if rule.held_out else names.splits[0])
    latents, neurons = open_firing(store, sae, table, folder / MATRICES, device=device, progress=progress)
    check_same_sae(names, latents)
    for made_from in names.splits if rule.held_out else ():
        latents.images.check_apart(made_from, split)
    _check_not_chosen_on(names, latents, split)
    claims, untested = _claims(names, latents, neurons, split, rule, seed)
    if not claims:
        raise MedSAEError(f"no unit that has a name fires and is silent on enough patients of split {split!r}")
    # Latents and neurons stand over the same images, and a judge is shown nothing else of either.
    asked = [(claim.name, claim.trial) for claim in claims]
    answers = {name: judge.answers(latents, asked) for name, judge in judges.items()}
    for name, given in answers.items():
        if np.isnan(np.concatenate(given)).all():
            raise MedSAEError(f"{name} gave no answer that can be used on any image, so it scores nothing")
    if rule.unread_is_no:
        answers = {name: [np.nan_to_num(said, nan=0.0) for said in given] for name, given in answers.items()}
    if len(judges) > 1:
        answers[MAJORITY] = [majority(np.stack(said)) for said in zip(*answers.values(), strict=True)]
    scores = NameScores(
        names=names.made,
        split=split,
        trial=rule.name,
        images_each=rule.each,
        firing_quantile=FIRING_QUANTILE,
        seed=seed,
        untested=untested,
        leak=None if rule.held_out else _leak(folder, claims, latents),
        judges=[
            JudgeScores(
                judge=name,
                identity=judges[name].identity if name in judges else {"majority_of": list(judges)},
                **{condition: _summary(claims, said, condition, seed) for condition in CONDITIONS},
            )
            for name, said in answers.items()
        ],
        agreement=_agreement({name: answers[name] for name in judges}, claims),
        by_name=_lines(claims, answers),
    )
    scores.save(folder)
    return scores


def check_same_sae(names: Names, latents: Firing) -> None:
    """Raises MedSAEError where the names are those of another SAE."""
    if names.made.get("sae_sha256") != latents.units.sae_sha256:
        raise MedSAEError("the names were made for another SAE than this one")


def _check_not_chosen_on(names: Names, latents: Firing, split: str) -> None:
    """Raises MedSAEError where names were chosen on images of patients that they are now to be tried on."""
    frame = latents.images.frame
    tried = set(frame.loc[frame["split"] == split, "patient"])
    for chosen, why in names.chosen_on.items():
        if tried & set(frame.loc[frame["split"] == chosen, "patient"]):
            raise MedSAEError(
                f"these names cannot be tried on {split!r}: {why}, so that they would look better than they are; "
                "try them on patients of another split, such as test"
            )


def _claims(
    names: Names, latents: Firing, neurons: Firing, split: str, rule: TrialRule, seed: int
) -> tuple[list[Claim], dict[str, int]]:
    """What the judges are asked, and how many units of a kind have a name and fire too seldom in the split."""
    claims: list[Claim] = []
    untested: dict[str, int] = {}
    for condition, firing in (("latents", latents), ("neurons", neurons)):
        rows = firing.images.rows_in([split])
        patients = firing.images.patient_codes[rows]
        named = names.of(firing.kind)
        for named_unit in named:
            unit = firing.units.index(named_unit.latent)
            trial = rule.sample(firing.column(unit, rows), rows, patients, [seed, unit, len(condition)])
            if trial is not None:
                claims.append(Claim(condition, named_unit.latent, named_unit.name, trial))  # type: ignore[arg-type]
        untested[condition] = len(named) - sum(claim.condition == condition for claim in claims)
    own = [claim for claim in claims if claim.condition == "latents"]
    return claims + _shuffled(own, seed), untested


def _leak(folder: Path, claims: Sequence[Claim], latents: Firing) -> Leak | None:
    """How many of the images on which a latent fires, over all latents, its name was made from; None if not known."""
    if not (folder / EVIDENCE).is_file():
        return None
    shown = read_object(folder / EVIDENCE).get("latents", {})
    ids = latents.images.frame["image_id"].to_numpy()
    images = in_evidence = 0
    for claim in claims:
        if claim.condition == "latents":
            own = {image for kind in shown.get(claim.latent, {}).values() for image in kind}
            firing = ids[[row for row, fires in zip(claim.trial.rows, claim.trial.truth, strict=True) if fires]]
            images += len(firing)
            in_evidence += sum(int(image) in own for image in firing)
    return Leak(firing_images=images, in_evidence=in_evidence)


def _shuffled(claims: Sequence[Claim], seed: int) -> list[Claim]:
    """Each trial under the name of another latent, of another concept; a name is used as often as there are latents.

    Latents are put in an order in which equal concepts stand together, and names move on by the largest of these
    groups, so that no latent keeps its concept unless more than half of them share one.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(claims))
    concepts = [claim.name.concept.casefold() for claim in claims]
    first = {concept: k for k, concept in reversed(list(enumerate(concepts[i] for i in order)))}
    together = sorted(order.tolist(), key=lambda i: first[concepts[i]])
    step = max((concepts.count(concept) for concept in set(concepts)), default=0)
    given = {i: together[(k + step) % len(together)] for k, i in enumerate(together)}
    return [
        Claim("shuffled", claim.latent, claims[given[i]].name, claim.trial)
        for i, claim in enumerate(claims)
        if concepts[given[i]] != concepts[i]
    ]


def _summary(
    claims: Sequence[Claim], answers: Sequence[np.ndarray], condition: Condition, seed: int
) -> NameFigures | None:
    """The figures of one condition; None where no name was tried in it."""
    confusions = [
        Confusion.of(claim.trial.truth, said)
        for claim, said in zip(claims, answers, strict=True)
        if claim.condition == condition
    ]
    if not confusions:
        return None
    accuracies = np.array([c.balanced_accuracy for c in confusions])
    defined = accuracies[~np.isnan(accuracies)]
    low, high = bootstrap_interval(defined, seed)
    return NameFigures(
        names=len(confusions),
        answers=sum(c.tp + c.fp + c.fn + c.tn for c in confusions),
        unanswered=sum(c.unanswered for c in confusions),
        **{figure: number(mean_known([getattr(c, figure) for c in confusions])) for figure in _FIGURES},
        interval=(number(low), number(high)),
        p_value=number(combined_p_value(confusions)),
    )


def _agreement(answers: Mapping[str, Sequence[np.ndarray]], claims: Sequence[Claim]) -> Agreement | None:
    """Kappas of the judges over every image of every latent under its own name; None of one judge alone."""
    if len(answers) < 2:
        return None
    own = [k for k, claim in enumerate(claims) if claim.condition == "latents"]
    if not own:
        return None
    said = {judge: np.concatenate([given[k] for k in own]) for judge, given in answers.items()}
    return Agreement(
        images=len(next(iter(said.values()))),
        cohen_kappa=[
            Kappa(judges=(a, b), kappa=number(cohen_kappa(said[a], said[b]))) for a, b in combinations(said, 2)
        ],
        fleiss_kappa=number(fleiss_kappa(np.stack(list(said.values())))),
    )


def _lines(claims: Sequence[Claim], answers: Mapping[str, Sequence[np.ndarray]]) -> list[TriedName]:
    lines = []
    for judge, given in answers.items():
        for claim, said in zip(claims, given, strict=True):
            c = Confusion.of(claim.trial.truth, said)
            figures: dict[str, Any] = {f: number(getattr(c, f)) for f in (*_FIGURES, "p_value")}
            of_claim = {"condition": claim.condition, "latent": claim.latent, "concept": claim.name.concept}
            lines.append(TriedName.model_validate({"judge": judge, **of_claim, **asdict(c), **figures}))
    return lines
