"""Whether the patients that figures are of were seen before: by an SAE in its training, by the encoder in its own."""

from __future__ import annotations

from collections.abc import Sequence

from medsae_plugin.data.data_sets import same_data_set
from medsae_plugin.encoders.cards import load_card
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.memory import SPLIT_SHA256, TrainingPatients


def seen_patients(latents: Latents, store: ActivationStore, patients: Sequence[str]) -> set[str] | None:
    """Those of these patients that an SAE was trained on; None where it does not remember its training patients.

    They are known by its split, where that is the store's, else by the digests in its folder.
    """
    trained = store.training_patients.get(str(latents.sae.cfg.metadata.get(SPLIT_SHA256)))
    if trained is not None:
        return trained & set(patients)
    known = TrainingPatients.load(latents.folder) if latents.folder is not None else None
    if known is None:
        return None
    return {patient for patient, seen in zip(patients, known.among(patients), strict=True) if seen}


def check_held_out(
    units: Sequence[Units], store: ActivationStore, images: LabelledImages, leave_out: bool = False
) -> tuple[set[str], dict[str, str]]:
    """Whether SAEs were trained on the patients of `report`.

    Where a split of the SAE's own store is reported on that it was trained on, that was asked for, and is said.

    Args:
        leave_out: such patients are to be left out of `report`, instead of an error.

    Returns:
        The patients to leave out; and of each SAE by name, in words, what was seen of the others.

    Raises:
        MedSAEError: an SAE of a store that was split otherwise was trained on some, or with `leave_out` on all.
    """
    patients = sorted(set(images.patients[images.members == "report"]))
    encoder = encoder_has_seen(store.encoder_name, images.data_set)
    gone: set[str] = set()
    words = {}
    for one in (u for u in units if isinstance(u, Latents) and u.kind == "sae"):
        seen = seen_patients(one, store, patients)
        if seen is None:
            words[one.name] = (
                f"It is not known what the SAE was trained on, so it may have seen these patients{encoder}"
            )
        elif not seen or leave_out:
            gone |= seen
            words[one.name] = f"Held out from the SAE{encoder}"
        elif one.sae.cfg.metadata.get(SPLIT_SHA256) in store.training_patients:
            words[one.name] = (
                f"NOT held out from the SAE: it was trained on {len(seen)} of {len(patients)} patients{encoder}"
            )
        else:
            raise MedSAEError(
                f"{one.name} was trained on another split than that of {store.title}: {len(seen)} of the "
                f"{len(patients)} patients to report on are among its training patients, so they are not held out. "
                "Use the store that it was trained on, or leave these patients out (--leave-out-trained)"
            )
    if gone and len(gone) == len(patients):
        raise MedSAEError("the SAEs were trained on every patient to report on, so none is left")
    return gone, words


def encoder_has_seen(encoder: str, data_set: str) -> str:
    """The end of a sentence: whether an encoder was trained on a data set, as far as its card says."""
    try:
        trained_on = load_card(encoder).trained_on
    except MedSAEError:  # an encoder of one's own
        trained_on = []
    if not data_set:
        why = "the table's data set is not known (--data-set names it)"
    elif not trained_on:
        why = f"there is no word of what {encoder} was trained on"
    elif any(same_data_set(data_set, name) for name in trained_on):
        return f", seen by the encoder: {encoder} was trained on {data_set}."
    else:
        return f"; {data_set} is not among what {encoder} is known to be trained on ({', '.join(trained_on)})."
    return f"; whether the encoder has seen it is not known: {why}."
