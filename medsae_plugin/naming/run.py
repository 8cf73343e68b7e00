"""Naming the latents of an SAE, from a store to `names.csv`, `names.json` and the SAE's release folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medsae_plugin._old_names import renamed_argument
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_text
from medsae_plugin.naming.evidence import Counts, Evidence, Sample, TooSeldom
from medsae_plugin.naming.firing import Firing, open_firing
from medsae_plugin.naming.namers import Namer
from medsae_plugin.naming.names import JSON, KINDS, NamedUnit, Names, differences, merged
from medsae_plugin.naming.vocabulary import Vocabulary

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

EVIDENCE = "evidence.json"
MATRICES = "matrices"


@dataclass(frozen=True)
class Chosen:
    """Units with their evidence: places in `rows`, the rows of the naming split."""

    firing: Firing
    rows: np.ndarray
    samples: dict[int, Sample | TooSeldom]

    @property
    def sampled(self) -> dict[int, Sample]:
        return {unit: sample for unit, sample in self.samples.items() if isinstance(sample, Sample)}


@renamed_argument("sae_path", "sae")
def name_latents(
    store: ActivationStore,
    sae: Any,
    table: ImageTable,
    out: str | Path,
    namer: Namer,
    *,
    latents: Sequence[int] | None = None,
    neurons: int = 0,
    split: str = "train",
    counts: Evidence | None = None,
    vocabulary: Vocabulary | None = None,
    seed: int = 0,
    replace_others: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> Names:
    """Name latents of an SAE, and raw neurons of its hook beside them.

    Writes into `out`: `names.json` and `names.csv`, `evidence.json` (the ids of the images that each name was made
    from) and `matrices/` (image-level activations, reused by the next call); and `names.json`, latents alone, into the
    SAE's folder, if it has one. Names that are there of other units stay beside these.

    Args:
        sae: its folder, itself, or what `train_saes` returned of one.
        latents: which; default all.
        neurons: how many neurons, drawn with the seed from those that fire on enough patients.
        split: the images that names are made from. Names are tried on another.
        counts: how many images a unit's evidence has, or another way to choose them, such as `PaperEvidence`; a unit
            that fires on too few is skipped, and said to be.
        vocabulary: gives names their categories; default the package's.
        replace_others: take the place of names in the SAE's folder that were made otherwise (of another namer, split,
            seed or evidence), which else stay.
        device: where the SAE is computed.

    Returns:
        The names of the units asked for.

    Raises:
        MedSAEError: an SAE, table or split that does not fit the store, a latent that the SAE does not have, `out` with
            names that were made otherwise, an SAE's folder with names of another SAE, and what the namer raises.
    """
    out, counts = Path(out), counts or Counts()
    vocabulary = vocabulary or Vocabulary.seed()
    make_folder(out)
    of_latents, of_neurons = open_firing(store, sae, table, out / MATRICES, device=device, progress=progress)
    chosen = [choose(of_latents, _checked(of_latents, latents), split, counts, seed)]
    if neurons:
        chosen.append(_draw_neurons(of_neurons, neurons, split, counts, seed))
    check_room(out, of_latents.sae_folder, _made(of_latents, namer, split, seed, counts))
    units = [unit for part in chosen for unit in _named(part, namer, vocabulary)]
    names = Names(made=_made(of_latents, namer, split, seed, counts), units=tuple(units))
    keep(names, out, of_latents.sae_folder, replace_others=replace_others)
    write_evidence(out, chosen, split)
    return names


def _made(firing: Firing, namer: Namer, split: str, seed: int, counts: Evidence) -> dict[str, Any]:
    """How names are made, as JSON holds it."""
    made = {
        "encoder": firing.store.manifest.encoder.model_dump(),
        "hook": firing.units.hook,
        "sae_sha256": firing.units.sae_sha256,
        "namer": dict(namer.identity),
        "split": split,
        "seed": seed,
        "evidence": counts.made(),
    }
    return dict(json.loads(json.dumps(made)))


def check_room(out: Path, sae: Path | None, made: Mapping[str, Any]) -> None:
    """See that names made so can be written to both folders, of names and of an SAE, without loss of what is there.

    Raises:
        MedSAEError: `out` has names that were made otherwise, or the SAE's folder those of another SAE.
    """
    if (out / JSON).is_file():
        there = Names.open(out)
        if other := differences(there, made):
            raise MedSAEError(
                f"{out} holds {len(there.units)} names that were made otherwise (another {', '.join(other)}); choose "
                "another folder for these (--out), or delete that one"
            )
    if sae is not None and (sae / JSON).is_file():
        there = Names.open(sae)
        if there.made.get("sae_sha256") != made["sae_sha256"]:
            raise MedSAEError(
                f"{sae / JSON} holds {len(there.units)} names of an SAE with other weights; move it away, and "
                "name again"
            )


def keep(names: Names, out: Path, sae: Path | None, *, replace_others: bool = False) -> None:
    """Write names into their folder, and those of latents into the SAE's, without what a server said to fail.

    Either folder keeps the names that it has already, as `merged` says.
    """
    check_room(out, sae, names.made)
    (merged(Names.open(out), names) if (out / JSON).is_file() else names).save(out)
    if sae is None:
        return
    latents = (unit for unit in names.units if unit.kind == "latent")
    units = (unit if unit.status != "unanswered" else unit.model_copy(update={"problem": ""}) for unit in latents)
    released = Names(made=names.made, units=tuple(units))
    if (sae / JSON).is_file():
        released = merged(Names.open(sae), released, replace_others=replace_others)
    released.save_json(sae)


def choose(firing: Firing, units: Sequence[int], split: str, counts: Evidence, seed: int) -> Chosen:
    """The evidence of each unit, from the images of a split."""
    rows = firing.images.rows_in([split])
    patients = firing.images.patient_codes[rows]
    samples = {
        unit: counts.sample(firing.column(unit, rows), patients, [seed, unit, int(firing.kind == "neuron")])
        for unit in units
    }
    return Chosen(firing, rows, samples)


def write_evidence(out: Path, chosen: Sequence[Chosen], split: str) -> None:
    """Write the ids of the images of each unit's evidence, beside what is there of other units.

    They stay in this folder and go into no release.
    """
    content: dict[str, Any] = {"split": split}
    try:
        there = json.loads((out / EVIDENCE).read_text(encoding="utf-8"))
        content |= {f"{kind}s": dict(there[f"{kind}s"]) for kind in KINDS if f"{kind}s" in there}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):  # none yet, or damaged by hand: made anew
        pass
    for part in chosen:
        ids = part.firing.images.frame["image_id"].to_numpy()[part.rows]
        of_unit = content.setdefault(f"{part.firing.kind}s", {})
        for unit, sample in part.sampled.items():
            shown = {kind: [int(ids[p]) for p in places] for kind, places in sample.kinds.items()}
            of_unit[str(part.firing.units.label(unit))] = shown
    write_text(out / EVIDENCE, json.dumps(content) + "\n")


def _named(chosen: Chosen, namer: Namer, vocabulary: Vocabulary) -> list[NamedUnit]:
    sampled, firing = chosen.sampled, chosen.firing
    proposals = namer.propose(firing, list(sampled), list(sampled.values()), chosen.rows) if sampled else []
    of_unit = dict(zip(sampled, proposals, strict=True))
    units = []
    for unit, sample in chosen.samples.items():
        kind, latent, proposal = firing.kind, str(firing.units.label(unit)), of_unit.get(unit)
        if proposal is None:
            units.append(NamedUnit(kind=kind, latent=latent, status="skipped", problem=str(sample)))
        elif (name := proposal.name) is None:
            units.append(NamedUnit(kind=kind, latent=latent, status="unanswered", problem=proposal.problem))
        else:
            units.append(
                NamedUnit(
                    kind=kind,
                    latent=latent,
                    status="named",
                    concept=name.concept,
                    description=name.description,
                    category=vocabulary.category_of(name.concept),
                    similarity=proposal.similarity,
                )
            )
    return units


def _checked(firing: Firing, latents: Sequence[int] | None) -> list[int]:
    n = firing.matrix.n_latents
    if latents is None:
        return list(range(n))
    wrong = sorted({latent for latent in latents if not 0 <= latent < n})
    if wrong:
        raise MedSAEError(f"the SAE has latents 0 to {n - 1}, and no latent {', '.join(map(str, wrong))}")
    return sorted(set(latents))


def _draw_neurons(firing: Firing, n: int, split: str, counts: Evidence, seed: int) -> Chosen:
    """`n` neurons, drawn from those that fire on enough patients; fewer where there are not so many."""
    order = np.random.default_rng([seed, 1]).permutation(firing.matrix.n_latents)
    samples: dict[int, Sample | TooSeldom] = {}
    rows = firing.images.rows_in([split])
    for unit in order.tolist():
        sample = choose(firing, [unit], split, counts, seed).samples[unit]
        if isinstance(sample, Sample):
            samples[unit] = sample
        if len(samples) == n:
            break
    return Chosen(firing, rows, dict(sorted(samples.items())))
