"""SAEs as users give them, paths, objects, or what `train_saes` returned, and the units that are scored of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import check_scorable, distinct_names, load_sae
from medsae_plugin.scores.baselines import Baselines, open_baselines
from medsae_plugin.scores.units import Latents, Neurons, Place, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.baselines import active_latents

if TYPE_CHECKING:
    from sae_lens import SAE


def open_latents(
    saes: Any, place: Place | None = None, device: str = "cpu", *, to_score: bool = True
) -> dict[str, tuple[Latents, Path | None]]:
    """The latents of each SAE by name, with the folder that it came from, if any.

    Args:
        saes: folders in SAE-Lens's format or SAEs, one or several, or a mapping by name such as `train_saes` returns.
            Folders are named by as many of their path's last parts as tell them apart, SAEs by their metadata's `name`.
            What this returned is taken as it is.
        place: the store or encoder that they must fit.
        to_score: whether their latents must be such as can be scored (`check_scorable`); to be spliced they need not.

    Raises:
        MedSAEError: none is given, one twice, a folder without an SAE, an SAE that does not fit `place`, or one that
            cannot be scored.
    """
    opened: dict[str, tuple[Latents, Path | None]] = {}
    for name, given in _named(saes).items():
        if isinstance(given, tuple):
            opened[name] = given
            continue
        folder = None if _is_sae(given) else Path(given)
        sae = given if folder is None else load_sae(folder, device)
        if to_score:
            check_scorable(sae, name)
        latents = replace(Latents.of(sae, name), folder=folder)
        if place is not None:
            latents.check_fits(place)
        opened[name] = latents, folder
    return opened


def open_units(
    store: ActivationStore, saes: Any, seed: int = 0, device: str = "cpu", baselines: Baselines = ()
) -> list[Units]:
    """Of each SAE its latents, an untrained SAE's, and its baselines among these; then each hook's raw neurons.

    Args:
        baselines: folders of `medsae baselines`, or what `open_baselines` returned.

    Raises:
        MedSAEError: what `open_latents` and `open_baselines` refuse.
    """
    units: list[Units] = []
    neurons: dict[str, Units] = {}
    opened = open_latents(saes, store, device)
    beside = open_baselines(baselines, {name: latents for name, (latents, _) in opened.items()}, store, device)
    for name, (latents, folder) in opened.items():
        blank = untrained(latents.sae, active_latents(latents.sae, folder), seed)
        units += [latents, Latents.of(blank, f"untrained {name}", "untrained", baseline_of=name)]
        units += beside.get(name, [])
        neurons.setdefault(latents.hook, Neurons.of(latents.hook, latents.d_in))
    return units + list(neurons.values())


def untrained(sae: SAE[Any], k: int, seed: int = 0) -> SAE[Any]:
    """An SAE of the same shape that has learnt nothing: random unit directions about the trained one's centre.

    It is a TopK SAE, `k` active latents a row, so that it can be as sparse as the trained one. That holds it down: the
    same directions without TopK, the baseline `random`, follow labels better, so it shows what is learnt at one
    sparsity, and is no measure of what random directions can do. Of data it knows nothing
    but the trained decoder's bias, so every site makes the same one.
    """
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    cfg = TopKSAEConfig(
        d_in=sae.cfg.d_in,
        d_sae=sae.cfg.d_sae,
        k=min(max(1, k), sae.cfg.d_sae),
        dtype="float32",
        device=str(sae.device),
        apply_b_dec_to_input=True,
        metadata=sae.cfg.metadata,
    )
    blank = TopKSAE(cfg)
    directions = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
    directions /= directions.norm(dim=1, keepdim=True)
    with torch.no_grad():
        blank.W_dec.copy_(directions)
        blank.W_enc.copy_(directions.T)
        blank.b_enc.zero_()
        blank.b_dec.copy_(sae.b_dec)
    return blank


def _is_sae(given: Any) -> bool:
    return hasattr(given, "cfg") and hasattr(given, "encode")


def _named(saes: Any) -> dict[str, Any]:
    if isinstance(saes, Mapping):
        named = dict(saes)
    else:
        given = [saes] if isinstance(saes, str | Path) or _is_sae(saes) else list(saes)
        paths = iter(distinct_names([Path(x) for x in given if not _is_sae(x)]))
        names = [str(x.cfg.metadata.get("name") or f"SAE {k}") if _is_sae(x) else next(paths)
                 for k, x in enumerate(given, 1)]  # fmt: skip
        if twice := {name for name in names if names.count(name) > 1}:
            raise MedSAEError(f"two SAEs are named {sorted(twice)[0]}; give them by name, as {{'a': sae, 'b': other}}")
        named = dict(zip(names, given, strict=True))
    if not named:
        raise MedSAEError("there is no SAE to evaluate")
    return named
