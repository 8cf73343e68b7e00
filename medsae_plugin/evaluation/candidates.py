"""SAE folders: found, loaded, named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from sae_lens import SAE


def load_sae(path: str | Path, device: str = "cpu") -> SAE[Any]:
    """The SAE in this folder, in SAE-Lens's format.

    Raises:
        MedSAEError: the folder holds none.
    """
    from sae_lens import SAE

    check_sae_folder(path)
    return SAE.load_from_disk(path, device=device)


def check_sae_folder(path: str | Path) -> None:
    """Raise a MedSAEError if the folder holds no SAE."""
    if not (Path(path) / "cfg.json").is_file():
        raise MedSAEError(f"{path} holds no SAE: there is no cfg.json in it")


def distinct_names(paths: list[Path]) -> list[str]:
    """Names that tell SAEs' folders apart: as many of each path's last components as that takes.

    Raises:
        MedSAEError: a folder that is given twice.
    """
    resolved = [p.resolve() for p in paths]
    if len(set(resolved)) < len(resolved):
        raise MedSAEError("the same SAE is given twice")
    depth = 1
    while len({p.parts[-depth:] for p in resolved}) < len(resolved):
        depth += 1
    return ["/".join(p.parts[-depth:]) for p in resolved]
