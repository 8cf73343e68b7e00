"""An SAE of a release together with its encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import hub_errors, hub_file
from medsae_plugin.release.cards import ReleaseCard
from medsae_plugin.release.reading import hub_options
from medsae_plugin.release.registry import find_release
from medsae_plugin.sae_folders import CONFIG, WEIGHTS, check_sound, load_errors, load_sae
from medsae_plugin.scores.units import Latents

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
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
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
        cache_dir: where the Hub's files are kept, the encoder's too; None is huggingface_hub's place.
        local_files_only: take files that are there already, and ask no server.
        encoder: a loaded one, or a card's name or path; None is the one that the SAE names.
        weights: the encoder's weights, as for `HookedVisionEncoder.from_pretrained`.
        strict: an encoder with other weights than the SAE was trained on is an error instead of a warning.

    Raises:
        MedSAEError: no such release or SAE; a file that is damaged or was tampered with; a repository that is private,
            gated, or neither in the cache nor in reach; an encoder that the SAE does not fit.
    """
    from medsae_plugin.encoders import HookedVisionEncoder

    options: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    options = {name: value for name, value in options.items() if value}
    sae, named = _opened(release, sae_id, revision, device, options)
    what = f"SAE {sae_id} of {release}"
    if isinstance(encoder, HookedVisionEncoder):
        hooked = encoder
    elif name := encoder or named or sae.cfg.metadata.model_name:
        hooked = HookedVisionEncoder.from_pretrained(name, weights=weights, device=device, **options)
    else:
        raise MedSAEError(f"{what} does not name its encoder; give one")
    Latents.of(sae, what).check_fits(hooked, strict)
    hooked.add_sae(sae)
    return MedSAE(sae, hooked)


def _opened(
    release: str, sae_id: str, revision: str | None, device: str, options: dict[str, Any]
) -> tuple[SAE[Any], str | None]:
    """The SAE, and the encoder that its release's card names."""
    card = find_release(release)
    if card is not None:
        if revision is not None and revision != card.revision:
            raise MedSAEError(f"the card of {release} pins its revision; give the repository's id to choose one")
        if sae_id not in card.saes:
            raise MedSAEError(f"release {release} has no SAE {sae_id!r}; it has {', '.join(card.saes)}")
        with hub_options(**options):
            return _registered(release, sae_id, device), _encoder_of(card)
    if "/" in release:
        folder = hub_file(release, f"{sae_id}/{CONFIG}", revision, **options).parent
        hub_file(release, f"{sae_id}/{WEIGHTS}", revision, **options)
        return load_sae(folder, device), None
    if options:
        raise MedSAEError(
            f"{release} is not a release of ours, and SAE-Lens, which fetches its own, takes no {', '.join(options)}: "
            "set HF_HOME or HF_HUB_OFFLINE=1 in the environment instead"
        )
    return _registered(release, sae_id, device), None


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
