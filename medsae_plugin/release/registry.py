"""Which releases there are: the package's, those of `MEDSAE_RELEASES`, and the user's own."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.cards import ReleaseCard, bundled_releases, read_releases

ENVIRONMENT = "MEDSAE_RELEASES"
_registered: dict[str, ReleaseCard] = {}


def register_releases(path: str | Path) -> list[str]:
    """Make SAE-Lens know the releases of a card file, or of all `*.yaml` in a folder.

    Returns:
        Their names. A release that is registered already, with the same card, stays as it is.

    Raises:
        MedSAEError: no such card, one that says something wrong, or a name that another release has; then none is
            registered.
    """
    directory = _directory()
    cards = read_releases(path)
    names = [card.name for card in cards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedSAEError(f"{path} has two releases named {', '.join(twice)}; rename one")
    for card in cards:
        _check(card, directory)
    for card in cards:
        _add(card, directory)
    return names


def find_release(name: str) -> ReleaseCard | None:
    """The card of a registered release of ours, if there is one of this name."""
    _directory()
    return _registered.get(name)


def add_to(directory: dict[str, Any]) -> None:
    """Add the package's releases, those of `MEDSAE_RELEASES` and the user's to SAE-Lens's directory, in place.

    Raises:
        MedSAEError: `MEDSAE_RELEASES` names no card, a bad one, or a release whose name is taken.
    """
    for card in _bundled():
        try:
            _check(card, directory)
        except MedSAEError as error:  # not the user's doing, and SAE-Lens should go on working
            warnings.warn(f"{error}; the bundled one is left out", stacklevel=2)
        else:
            _add(card, directory)
    for card in _of_environment(os.environ.get(ENVIRONMENT)):
        _check(card, directory)
        _add(card, directory)
    for card in _registered.values():
        _add(card, directory)


@functools.cache
def _bundled() -> list[ReleaseCard]:
    return bundled_releases()


@functools.cache
def _of_environment(path: str | None) -> list[ReleaseCard]:
    if not path:
        return []
    try:
        return read_releases(path)
    except MedSAEError as error:
        raise MedSAEError(f"{ENVIRONMENT}: {error}") from None


def _directory() -> dict[str, Any]:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory: dict[str, Any] = get_pretrained_saes_directory()
    return directory


def _check(card: ReleaseCard, directory: dict[str, Any]) -> None:
    ours = _registered.get(card.name)
    if ours is not None and ours != card:
        raise MedSAEError(f"a release {card.name} is registered from {ours.where}; rename the one in {card.where}")
    if ours is None and card.name in directory:
        raise MedSAEError(f"SAE-Lens has a release {card.name} of its own; rename the one in {card.where}")


def _add(card: ReleaseCard, directory: dict[str, Any]) -> None:
    if card.name in directory:
        return
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup

    from medsae_plugin.release.reading import read_config, read_sae

    # A conversion function a release: it is handed no release's name, and two may share a repository.
    conversion = f"medsae:{card.name}"
    loaders.NAMED_PRETRAINED_SAE_LOADERS[conversion] = functools.partial(read_sae, card)
    loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS[conversion] = functools.partial(read_config, card)
    scaling = {k: sae.norm_scaling_factor for k, sae in card.saes.items() if sae.norm_scaling_factor is not None}
    directory[card.name] = PretrainedSAELookup(
        release=card.name,
        repo_id=card.repo_id or card.name,
        model=card.model,
        conversion_func=conversion,
        saes_map={k: sae.path for k, sae in card.saes.items()},
        expected_var_explained={k: sae.variance_explained for k, sae in card.saes.items()},
        expected_l0={k: sae.l0 for k, sae in card.saes.items()},
        neuronpedia_id={k: sae.neuronpedia for k, sae in card.saes.items()},
        norm_scaling_factor=scaling,
        config_overrides=None,
    )
    _registered[card.name] = card
