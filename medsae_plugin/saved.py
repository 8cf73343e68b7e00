"""What commands save as JSON: pydantic models, read and written in one way, and refused in words where they are not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, read_json, write_text

S = TypeVar("S", bound="Saved")


class Saved(BaseModel):
    """A JSON file that a command writes; a subclass says which of both, and as `schema_version` in which form."""

    model_config = ConfigDict(protected_namespaces=())

    FILE: ClassVar[str]
    COMMAND: ClassVar[str]

    @classmethod
    def open(cls: type[S], path: str | Path) -> S:
        """What the JSON file in a folder, or a JSON file, holds.

        Raises:
            MedSAEError: there is none, a damaged one, or one of another kind or version.
        """
        file = cls.file_at(path)
        if not file.is_file():
            where = "in" if Path(path).is_dir() else "at"
            raise MedSAEError(f"there is no {cls.FILE} {where} {path}; {cls.COMMAND} writes it")
        return cls.read(read_json(file), file)

    @classmethod
    def read(cls: type[S], content: Any, where: Path | str | None = None) -> S:
        """That whose `to_json` this is; `where` begins the message where it is not.

        Raises:
            MedSAEError: it is not what `save` writes, or what a newer version writes.
        """
        cls._refuse_newer(content, where or cls.FILE)
        try:
            return cls.model_validate_json(json.dumps(content))  # as JSON, so that strict parts take its lists
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            at = ".".join(map(str, first["loc"])) or "the file"
            what = f"{where or cls.FILE} is not what {cls.COMMAND} writes"
            raise MedSAEError(f"{what} ({at}: {first['msg']})") from None

    @classmethod
    def _refuse_newer(cls, content: Any, where: Path | str) -> None:
        field = cls.model_fields.get("schema_version")
        if field is None or not isinstance(content, Mapping):
            return
        version = content.get(field.alias or "schema_version")
        if isinstance(version, int) and version > field.default:
            raise MedSAEError(
                f"{where} has schema version {version}, and this version of medsae-plugin reads {field.default}; "
                "install the newer one that wrote it"
            )

    @classmethod
    def file_at(cls, path: str | Path) -> Path:
        """The JSON file at a path: in it where it is a folder."""
        return Path(path) / cls.FILE if Path(path).is_dir() else Path(path)

    def save(self, path: str | Path) -> None:
        """Write the JSON file; into `path` where that is a folder."""
        file = self.file_at(path)
        make_folder(file.parent)
        write_text(file, self.text())

    def text(self) -> str:
        """The JSON file's, the same for the same content."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The contents of the JSON file; undefined figures are null."""
        return self.model_dump(mode="json", by_alias=True)


class WasDict(BaseModel):
    """All fields known and fixed, of what version 0.1 had as a dict: its keys are taken for one release more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def keys(self) -> list[str]:
        return list(type(self).model_fields)

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise KeyError(key)
        warnings.warn(
            f"a manifest is typed now: take .{key} for [{key!r}]; the old spelling goes with 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(self, key)
