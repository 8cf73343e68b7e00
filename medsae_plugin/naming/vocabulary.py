"""Words for what radiographs show: the package's own, a user's file, or terms from reports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import write_text

if TYPE_CHECKING:
    from medsae_plugin.encoders import HookedVisionEncoder

SEED = "chest"


@dataclass(frozen=True)
class Vocabulary:
    """Terms, in order, and the category of each ("" where it has none). A term comes once, whatever its case."""

    terms: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.terms)

    @classmethod
    def seed(cls) -> Vocabulary:
        """The package's terms of chest radiology, whose categories are CheXpert's observations and some more."""
        text = (resources.files("medsae_plugin.naming") / "vocabularies" / f"{SEED}.tsv").read_text(encoding="utf-8")
        return cls._parse(text, SEED)

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """A UTF-8 file of one term a line; after a tab its category, after another tab what is not read.

        Raises:
            MedSAEError: no such file, not UTF-8, no terms.
        """
        path = Path(path)
        try:
            return cls._parse(path.read_text(encoding="utf-8-sig"), str(path))
        except FileNotFoundError:
            raise MedSAEError(f"there is no vocabulary at {path}") from None
        except UnicodeDecodeError as error:
            raise MedSAEError(f"{path} is not UTF-8 text (byte {error.start})") from None

    @classmethod
    def _parse(cls, text: str, where: str) -> Vocabulary:
        found: dict[str, tuple[str, str]] = {}
        for line in text.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            term, _, rest = line.partition("\t")
            term = " ".join(term.split())
            if not term:
                raise MedSAEError(f"{where} has a category without a term: {line.strip()!r}")
            found.setdefault(term.casefold(), (term, rest.partition("\t")[0].strip()))
        if not found:
            raise MedSAEError(f"{where} holds no terms")
        terms, categories = zip(*found.values(), strict=True)
        return cls(terms, categories)

    def write(self, path: str | Path, counts: Sequence[int] | None = None) -> None:
        """Write the file that `read` reads; with counts, a third column."""
        third = [""] * len(self) if counts is None else [str(count) for count in counts]
        rows = zip(self.terms, self.categories, third, strict=True)
        write_text(Path(path), "".join("\t".join(row).rstrip("\t") + "\n" for row in rows))

    def sha256(self) -> str:
        """The SHA-256 of the terms and their categories, in hex."""
        rows = zip(self.terms, self.categories, strict=True)
        return hashlib.sha256("".join(f"{term}\t{category}\n" for term, category in rows).encode()).hexdigest()

    def category_of(self, term: str) -> str:
        """The category of a term, whatever its case, or of itself if it is one; "" for a term that is not here."""
        return self._category.get(" ".join(term.split()).casefold(), "")

    @cached_property
    def _category(self) -> dict[str, str]:
        themselves = {category.casefold(): category for category in self.categories if category}
        return themselves | {t.casefold(): c for t, c in zip(self.terms, self.categories, strict=True)}

    def known_to(self, encoder: HookedVisionEncoder) -> Vocabulary:
        """The terms that the encoder's tokenizer has pieces for, none of which is its sign for the unknown.

        Raises:
            MedSAEError: the encoder has no tokenizer or text tower, or knows no term.
        """
        # The ids of a sign that no vocabulary has, less those that stand round every text.
        blank, unknown = encoder.tokenize(["", "\U0010fffd"])
        unknown_ids = set(unknown) - set(blank)
        ids = encoder.tokenize(self.terms)
        kept = [i for i, term in enumerate(ids) if not unknown_ids & set(term)]
        if not kept:
            raise MedSAEError(f"{encoder.name} knows none of the {len(self)} terms of the vocabulary; give another")
        return Vocabulary(tuple(self.terms[i] for i in kept), tuple(self.categories[i] for i in kept))
