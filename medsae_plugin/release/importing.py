"""Checkpoints of other libraries into folders in SAE-Lens's format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import refuse_other_content, replacing_folder
from medsae_plugin.sae_folders import check_sound, load_errors
from medsae_plugin.scores.units import Latents

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.encoders import EncoderCard


def import_checkpoint(checkpoint: str | Path, format: str, encoder: str | Path, hook: str, out: str | Path) -> SAE[Any]:
    """Write an SAE that another library saved to `out`, in SAE-Lens's format, and return it.

    It encodes and decodes as the original does. The encoder's checksum is the one that its card names, if any: that
    the SAE was trained on these weights is the caller's word.

    Args:
        checkpoint: the file of weights, or its folder.
        format: `dictionary_learning`, `vit_prisma`, or one that `register_format` was given.
        encoder: the card of the encoder, by name or path.
        hook: the hook point that the SAE stands at.

    Raises:
        MedSAEError: no such checkpoint or card, one that does not convert, a hook that the encoder does not have or
            that has another width, or `out` is taken.
    """
    from sae_lens import SAE

    from medsae_plugin.encoders import load_card
    from medsae_plugin.release.formats import FORMATS

    if format not in FORMATS:
        raise MedSAEError(f"{format!r} is not one of the formats {', '.join(FORMATS)}")
    out = Path(out)
    refuse_other_content(out)
    card = load_card(encoder)
    with load_errors(checkpoint):
        sae: SAE[Any] = SAE.load_from_disk(checkpoint, converter=FORMATS[format].disk_loader)
    check_sound(sae, checkpoint)
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name, metadata.medsae_plugin_version = card.name, hook, __version__
    if card.source.get("sha256"):
        metadata.encoder_sha256 = card.source["sha256"]
    _check_hook(sae, card, str(checkpoint))
    with replacing_folder(out) as folder:
        sae.save_model(folder)
    return sae


def _check_hook(sae: SAE[Any], card: EncoderCard, what: str) -> None:
    """Compare with the encoder's shapes, which its card gives without its weights."""
    from medsae_plugin.encoders import build_encoder

    if not card.vision or card.projection_dim is None:
        return  # the shapes come with the weights, and are compared when the SAE is spliced in
    encoder = build_encoder(dataclasses.replace(card, text=None))
    if (hook := sae.cfg.metadata.hook_name) not in encoder.hook_specs:
        raise MedSAEError(f"{card.name} has no hook point {hook!r}; it has {', '.join(encoder.hook_specs)}")
    Latents.of(sae, what).check_shape(encoder)
