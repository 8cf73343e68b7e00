"""An SAE of a release together with its encoder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import check_files, hub_errors, hub_file
from medsae_plugin.release.cards import ReleaseCard, SAECard
from medsae_plugin.sae_folders import CONFIG, WEIGHTS, check_sound, load_errors, load_sae

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.encoders import HookedVisionEncoder


class MedSAE(NamedTuple):
    """An SAE, and the encoder that it is spliced into."""

    sae: SAE[Any]
    encoder: HookedVisionEncoder


def load_medsae(
    release: str,
    sae_id: str,
    *,
    revision: str | None = None,
    encoder: HookedVisionEncoder | str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    strict: bool = False,
) -> MedSAE:
    """An SAE with its encoder, ready spliced: `encoder(images)` passes through the SAE.

    Args:
        release: of a card (`get_pretrained_saes_directory()` lists them), or a Hub repository, `org/name`.
        sae_id: of the SAE in the release, or its folder in the repository.
        revision: a commit, branch or tag of the repository; a release's card pins its own.
        encoder: a loaded one, or a card's name or path; None is the one that the SAE names.
        weights: the encoder's weights, as for `HookedVisionEncoder.from_pretrained`.
        strict: an encoder with other weights than the SAE was trained on is an error instead of a warning.

    Raises:
        MedSAEError: no such release or SAE; a file that is damaged or was tampered with; a repository that is private,
            gated, or neither in the cache nor in reach; an encoder that the SAE does not fit.
    """
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.release.registry import find_release

    card = find_release(release)
    what = f"SAE {sae_id} of {release}"
    if card is not None:
        if revision is not None and revision != card.revision:
            raise MedSAEError(f"the card of {release} pins its revision; give the repository's id to choose one")
        if sae_id not in card.saes:
            raise MedSAEError(f"release {release} has no SAE {sae_id!r}; it has {', '.join(card.saes)}")
        sae = _registered(release, sae_id, device)
    elif "/" in release:
        folder = hub_file(release, f"{sae_id}/{CONFIG}", revision).parent
        hub_file(release, f"{sae_id}/{WEIGHTS}", revision)
        sae = load_sae(folder, device)
    else:
        sae = _registered(release, sae_id, device)
    if isinstance(encoder, HookedVisionEncoder):
        hooked = encoder
    elif name := encoder or (card and _encoder_of(card)) or sae.cfg.metadata.model_name:
        hooked = HookedVisionEncoder.from_pretrained(name, weights=weights, device=device)
    else:
        raise MedSAEError(f"{what} does not name its encoder; give one")
    _check_encoder(sae, hooked, what, strict)
    hooked.add_sae(sae)
    return MedSAE(sae, hooked)


def read_sae(
    card: ReleaseCard,
    repo_id: str,
    folder_name: str,
    device: str = "cpu",
    force_download: bool = False,
    cfg_overrides: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, torch.Tensor], torch.Tensor | None]:
    """SAE-Lens's loader of a release of ours: the pinned revision, each file compared with the card's checksum."""
    from medsae_plugin.release.converters import disk_loader

    folder = _checked_folder(card, folder_name, force_download)
    return *disk_loader(card.conversion_func)(folder, device, cfg_overrides), None


def read_config(
    card: ReleaseCard,
    repo_id: str,
    folder_name: str,
    device: str = "cpu",
    force_download: bool = False,
    cfg_overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """SAE-Lens's config getter of a release of ours."""
    return read_sae(card, repo_id, folder_name, device, force_download, cfg_overrides)[0]


def _checked_folder(card: ReleaseCard, folder_name: str, force_download: bool) -> Path:
    sae: SAECard = next(sae for sae in card.saes.values() if sae.path == folder_name)
    if card.folder is not None:
        folder = card.folder / folder_name
    else:
        assert card.repo_id is not None
        for name in sae.sha256:
            path = hub_file(card.repo_id, f"{folder_name}/{name}", card.revision, force_download=force_download)
        folder = path.parent
    check_files(folder, sae.sha256)
    return folder


def _encoder_of(card: ReleaseCard) -> str:
    """The card's encoder: one beside it by path, else a name."""
    beside = Path(card.where).parent / card.encoder
    return str(beside) if card.encoder.endswith((".yaml", ".yml")) else card.encoder


def _registered(release: str, sae_id: str, device: str) -> SAE[Any]:
    """From SAE-Lens's directory, in which ours are too; SAE-Lens's message tells what there is."""
    from sae_lens import SAE

    what = f"SAE {sae_id} of {release}"
    with load_errors(what), hub_errors(release, what):
        sae: SAE[Any] = SAE.from_pretrained(release, sae_id, device=device)
    check_sound(sae, what)
    return sae


def _check_encoder(sae: SAE[Any], encoder: HookedVisionEncoder, what: str, strict: bool) -> None:
    metadata = sae.cfg.metadata
    hook, trained_on, given = metadata.hook_name, metadata.encoder_sha256, encoder.weights_sha256
    if hook not in encoder.hook_specs:
        raise MedSAEError(f"{what} stands at hook {hook!r}, which {encoder.name} does not have")
    if (d := encoder.hook_specs[hook].d) != sae.cfg.d_in:
        raise MedSAEError(f"{what} takes {sae.cfg.d_in} dimensions; {encoder.name} has {d} there")
    if trained_on and trained_on == given:
        return
    if trained_on and given:
        message = f"{what} was trained on encoder weights {trained_on[:12]}..., this {encoder.name} has {given[:12]}..."
    else:
        lacks = "the SAE does not say which" if given else f"this {encoder.name} has no checksum"
        message = f"{what} may have been trained on other weights than this encoder's: {lacks}"
    if strict:
        raise MedSAEError(message)
    warnings.warn(f"{message}; its latents may mean nothing here", stacklevel=3)
