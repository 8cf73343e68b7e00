"""SAEs of releases that have a card, as SAE-Lens's loaders read them: at the pinned revision, each file compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from medsae_plugin.fetch import check_files, hub_file
from medsae_plugin.release.cards import ReleaseCard
from medsae_plugin.release.formats import disk_loader


def read_sae(
    card: ReleaseCard,
    repo_id: str,
    folder_name: str,
    device: str = "cpu",
    force_download: bool = False,
    cfg_overrides: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, torch.Tensor], torch.Tensor | None]:
    """SAE-Lens's `PretrainedSaeHuggingfaceLoader` of a release of ours."""
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
    """SAE-Lens's `PretrainedSaeConfigHuggingfaceLoader` of a release of ours."""
    return read_sae(card, repo_id, folder_name, device, force_download, cfg_overrides)[0]


@contextmanager
def hub_options(**options: Any) -> Iterator[None]:
    """Options of `hub_file` for what is read within: SAE-Lens, which calls the loaders, hands none on."""
    token = _hub_options.set(options)
    try:
        yield
    finally:
        _hub_options.reset(token)


_hub_options: ContextVar[dict[str, Any] | None] = ContextVar("hub_options", default=None)


def _checked_folder(card: ReleaseCard, folder_name: str, force_download: bool) -> Path:
    sae = next(sae for sae in card.saes.values() if sae.path == folder_name)
    if card.folder is not None:
        folder = card.folder / folder_name
    else:
        assert card.repo_id is not None
        options = {"force_download": force_download, **(_hub_options.get() or {})}
        for name in sae.sha256:
            path = hub_file(card.repo_id, f"{folder_name}/{name}", card.revision, **options)
        folder = path.parent
    check_files(folder, sae.sha256)
    return folder
