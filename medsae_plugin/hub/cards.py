"""Release cards: YAML in the schema of SAE-Lens's `pretrained_saes.yaml`, and what a MedSAE needs beyond it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.errors import MedSAEError

# How an SAE's files are read, and which it has at least.
FORMATS = {
    "sae_lens": {"cfg.json", "sae_weights.safetensors"},
    "dictionary_learning": {"ae.pt"},
    "vit_prisma": {"weights.pt"},
}
_RELEASE = {"repo_id", "folder", "revision", "model", "conversion_func", "description", "encoder", "licence", "saes"}
_SAE = {"id", "path", "hook", "sha256", "variance_explained", "l0", "neuronpedia", "norm_scaling_factor", "metrics"}
_REQUIRED = {"model", "encoder", "licence", "saes"}
_REQUIRED_OF_SAE = {"id", "path", "hook", "sha256"}
# Every release of the package has a name, and its card a file, that begins so; `pretrained/` holds recipes too.
_BUNDLED = "medsae-*.yaml"


@dataclass(frozen=True)
class SAECard:
    """One SAE of a release.

    path: of its folder, in the repository or in the release's folder.
    hook: the encoder's hook point that it stands at.
    sha256: of each of its files, by name; these are what is fetched.
    variance_explained, l0, neuronpedia, norm_scaling_factor: SAE-Lens's fields of these names.
    metrics: held-out figures.
    """

    id: str
    path: str
    hook: str
    sha256: dict[str, str]
    variance_explained: float = 1.0
    l0: float = 0.0
    neuronpedia: str | None = None
    norm_scaling_factor: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReleaseCard:
    """What a card says of a release: SAEs of one encoder, in a Hub repository or in a folder beside the card.

    repo_id, revision: of the repository, and the commit it is pinned to; or
    folder: where the release lies on this machine.
    model: SAE-Lens's field; encoder: a card of an encoder, by name or (beside this card) by path.
    conversion_func: how the files are read, one of `FORMATS`.
    where: the card's file, for messages.
    """

    name: str
    model: str
    encoder: str
    licence: str
    saes: dict[str, SAECard]
    repo_id: str | None = None
    revision: str | None = None
    folder: Path | None = None
    conversion_func: str = "sae_lens"
    description: str = ""
    where: str = field(default="", compare=False)


def bundled_releases() -> list[ReleaseCard]:
    """The releases that the package has cards of, by file name."""
    return [card for path in sorted(pretrained_folder().glob(_BUNDLED)) for card in _read_file(path)]


def read_releases(path: str | Path) -> list[ReleaseCard]:
    """The releases in a card file, or in all `*.yaml` of a folder.

    Raises:
        MedSAEError: nothing there, or a card that says something wrong.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.yaml"))
        if not files:
            raise MedSAEError(f"{path} holds no release card: there is no .yaml file in it")
        return [card for file in files for card in _read_file(file)]
    if not path.is_file():
        raise MedSAEError(f"there is no release card at {path}")
    return _read_file(path)


def _read_file(path: Path) -> list[ReleaseCard]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MedSAEError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not content:
        raise MedSAEError(f"{path} is no release card: it should map names of releases to their fields")
    return [_release(str(name), entry, path) for name, entry in content.items()]


def _release(name: str, entry: Any, path: Path) -> ReleaseCard:
    where = f"{path}, release {name}"
    _check_fields(entry, _REQUIRED, _RELEASE, where)
    if ("repo_id" in entry) == ("folder" in entry):
        raise MedSAEError(f"{where} should have either repo_id or folder")
    if not isinstance(entry["saes"], list) or not entry["saes"]:
        raise MedSAEError(f"{where}: saes is a list of SAEs")
    if (conversion := entry.get("conversion_func") or "sae_lens") not in FORMATS:
        raise MedSAEError(f"{where}: conversion_func {conversion!r} is not one of {', '.join(FORMATS)}")
    saes = [_sae(sae, f"{where}, SAE {k + 1}") for k, sae in enumerate(entry["saes"])]
    for sae in saes:
        if missing := FORMATS[conversion] - sae.sha256.keys():
            raise MedSAEError(f"{where}, SAE {sae.id}: sha256 lacks {', '.join(sorted(missing))}")
    if len({sae.id for sae in saes}) < len(saes):
        raise MedSAEError(f"{where}: two SAEs have one id")
    fields = {k: v for k, v in entry.items() if k not in ("saes", "folder", "conversion_func")}
    folder = path.resolve().parent / entry["folder"] if "folder" in entry else None
    return ReleaseCard(
        name=name,
        saes={sae.id: sae for sae in saes},
        folder=folder,
        conversion_func=conversion,
        where=str(path),
        **fields,
    )


def _sae(entry: Any, where: str) -> SAECard:
    _check_fields(entry, _REQUIRED_OF_SAE, _SAE, where)
    sums = entry["sha256"]
    if not (
        isinstance(sums, dict)
        and sums
        and all(re.fullmatch(r"[\w.-]+", str(k)) and re.fullmatch(r"[0-9a-f]{64}", str(v)) for k, v in sums.items())
    ):
        raise MedSAEError(f"{where}: sha256 maps each file's name to its SHA-256, 64 hex digits")
    return SAECard(**{**entry, "id": str(entry["id"]), "path": str(entry["path"])})


def _check_fields(content: Any, required: set[str], known: set[str], where: str) -> None:
    """Raise a MedSAEError unless a card's mapping has the required fields and no unknown ones."""
    if not isinstance(content, dict):
        raise MedSAEError(f"{where} should hold the fields {', '.join(sorted(known))}")
    missing, extra = sorted(required - content.keys()), sorted(map(str, content.keys() - known))
    if missing:
        raise MedSAEError(f"{where} lacks {', '.join(missing)}")
    if extra:
        raise MedSAEError(f"{where} has unknown fields {', '.join(extra)}; known are {', '.join(sorted(known))}")
