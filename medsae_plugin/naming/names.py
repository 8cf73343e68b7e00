"""Names on disk: `names.json` and `names.csv`, which hold no path, no image and no patient."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_text
from medsae_plugin.naming.schema import LatentName
from medsae_plugin.naming.subject import Kind

SCHEMA_VERSION = 1
JSON, CSV = "names.json", "names.csv"


@dataclass(frozen=True)
class NamedUnit:
    """A latent or neuron and its name, or why it has none.

    Attributes:
        latent: its index; "-j" for the negative of neuron j.
        status: `named`; `skipped`, for it fires too seldom; `unanswered`, for no usable answer came.
        category: of the concept in the vocabulary, "" where it is not there.
        similarity: what the name was chosen by, where it was: the cosine of a term, the held-out r of a label.
        problem: why there is no name.
        round: the round of refinement that the name is from; 0 is the first proposal.
    """

    kind: Kind
    latent: str
    status: Literal["named", "skipped", "unanswered"]
    concept: str = ""
    description: str = ""
    category: str = ""
    similarity: float | None = None
    problem: str = ""
    round: int = 0

    @property
    def name(self) -> LatentName:
        return LatentName(concept=self.concept, description=self.description)

    def renamed(self, name: LatentName, category: str) -> NamedUnit:
        """The same unit under this name."""
        return replace(self, concept=name.concept, description=name.description, category=category)


@dataclass(frozen=True)
class Names:
    """Names of latents and, beside them, of raw neurons.

    made: how: encoder, hook, SAE (by hash), namer, split, seed, counts of evidence.
    """

    made: dict[str, Any]
    units: tuple[NamedUnit, ...] = field(default=())

    def of(self, kind: Kind) -> list[NamedUnit]:
        """The named units of a kind."""
        return [unit for unit in self.units if unit.kind == kind and unit.status == "named"]

    def counts(self) -> str:
        """How many were named, in words."""
        lines = []
        for kind in ("latent", "neuron"):
            statuses = [unit.status for unit in self.units if unit.kind == kind]
            if statuses:
                told = (f"{statuses.count(status)} {status}" for status in ("named", "unanswered", "skipped"))
                lines.append(f"{len(statuses)} {kind}s: {', '.join(told)}")
        return "\n".join(lines)

    def write(self, folder: str | Path) -> None:
        """Write `names.json` and `names.csv` into the folder."""
        folder = Path(folder)
        make_folder(folder)
        text = io.StringIO()
        fields = list(NamedUnit.__dataclass_fields__)
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(unit) for unit in self.units)
        write_text(folder / CSV, text.getvalue())
        self.write_json(folder / JSON)

    def write_json(self, path: Path) -> None:
        """Write `names.json` alone."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "medsae_plugin": __version__,
            "made": self.made,
            "names": [asdict(unit) for unit in self.units],
        }
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Names:
        """Read a `names.json`, or the one in a folder.

        Raises:
            MedSAEError: there is none, or it is none.
        """
        path = Path(path)
        path = path / JSON if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema_version"] != SCHEMA_VERSION:
                raise MedSAEError(
                    f"{path} has schema version {content['schema_version']}; this version of medsae-plugin reads "
                    f"{SCHEMA_VERSION}"
                )
            return cls(content["made"], tuple(NamedUnit(**unit) for unit in content["names"]))
        except FileNotFoundError:
            raise MedSAEError(f"there are no names at {path}; make them with medsae name") from None
        except MedSAEError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise MedSAEError(f"{path} is damaged or no list of names ({error})") from None
