"""Release cards: YAML in the schema of SAE-Lens's `pretrained_saes.yaml`, and what a MedSAE needs beyond it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.formats import SAE_LENS, files_of, names
from medsae_plugin.yaml_files import STRICT, Problem, Problems, read_yaml

# Every release of the package has a name, and its card a file, that begins so; `pretrained/` holds recipes too.
_BUNDLED = "medsae-*.yaml"


def _sums(value: dict[str, Any]) -> dict[str, Any]:
    if not value or not all(
        re.fullmatch(r"[\w.-]+", file) and re.fullmatch(r"[0-9a-f]{64}", str(sha)) for file, sha in value.items()
    ):
        raise Problem("sha256 maps each file's name to its SHA-256, 64 hex digits")
    return value


_Text = Annotated[str, BeforeValidator(str)]  # YAML takes a name of digits for a number


@dataclass(frozen=True)
class SAECard:
    """One SAE of a release.

    path: of its folder, in the repository or in the release's folder.
    hook: the encoder's hook point that it stands at.
    sha256: of each of its files, by name; these are what is fetched.
    variance_explained, l0, neuronpedia, norm_scaling_factor: SAE-Lens's fields of these names.
    metrics: held-out figures.
    """

    id: _Text
    path: _Text
    hook: str
    sha256: Annotated[dict[str, _Text], BeforeValidator(_sums)]
    variance_explained: float = 1.0
    l0: float = 0.0
    neuronpedia: str | None = None
    norm_scaling_factor: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class ReleaseCard:
    """What a card says of a release: SAEs of one encoder, in a Hub repository or in a folder beside the card.

    repo_id, revision: of the repository, and the commit it is pinned to; or
    folder: where the release lies on this machine.
    model: SAE-Lens's field; encoder: a card of an encoder, by name or (beside this card) by path.
    conversion_func: how the files are read, one of `formats.names()`.
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
    conversion_func: str = SAE_LENS
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


class _Release(BaseModel):
    model_config = STRICT
    model: str
    encoder: str
    licence: str
    saes: Annotated[list[SAECard], Field(min_length=1)]
    repo_id: str | None = None
    folder: str | None = None
    revision: str | None = None
    conversion_func: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fit_together(self) -> _Release:
        found = []
        if (self.repo_id is None) == (self.folder is None):
            found.append(Problem("a release has either repo_id or folder"))
        if (conversion := self.conversion_func or SAE_LENS) not in names():
            known = ", ".join(names())
            found.append(Problem(f"conversion_func {conversion!r} is not one of {known}", "conversion_func"))
        else:
            for k, sae in enumerate(self.saes):
                if missing := files_of(conversion) - sae.sha256.keys():
                    found.append(Problem(f"sha256 lacks {', '.join(sorted(missing))}", "saes", k, "sha256"))
        if len({sae.id for sae in self.saes}) < len(self.saes):
            found.append(Problem("two SAEs have one id", "saes"))
        if found:
            raise Problems(found)
        return self


def _read_file(path: Path) -> list[ReleaseCard]:
    releases: dict[str, _Release] = read_yaml(path, dict[str, _Release], "release card")
    if not releases:
        raise MedSAEError(f"{path} is no release card: it should map names of releases to their fields")
    return [_card(name, release, path) for name, release in releases.items()]


def _card(name: str, release: _Release, path: Path) -> ReleaseCard:
    fields = release.model_dump(exclude={"saes", "folder", "conversion_func"})
    return ReleaseCard(
        name=name,
        saes={sae.id: sae for sae in release.saes},
        folder=path.resolve().parent / release.folder if release.folder is not None else None,
        conversion_func=release.conversion_func or SAE_LENS,
        where=str(path),
        **fields,
    )
