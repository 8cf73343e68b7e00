"""`Fidelity`: what an encoder's findings and retrieval keep with SAEs spliced in, typed, as in `fidelity.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.scores.models import Encoder, Figures, Result
from medsae_plugin.text import aligned, fixed


class PromptSet(Figures):
    """The prompts that findings were scored with: their name, and who wrote them."""

    name: str
    source: str


class TextCounts(Figures):
    """What was retrieved among: `reports` or `label sets`, how many of them, and how many images have one."""

    kind: str
    texts: int
    images: int


class Labelled(Figures):
    """How many images show an observation, and of how many it is known."""

    label: str
    positives: int
    known: int


class ZeroShotFigures(Figures):
    """Zero-shot AUROC by observation, its mean over those where it is defined, and recall@k by k."""

    auroc: dict[str, float | None]
    mean_auroc: float | None
    recall: dict[str, float | None]


class Spliced(Figures):
    """An SAE, or several together: the figures with them in, with their hooks at the mean, and the share recovered.

    hooks: what they replace the activations of.
    """

    name: str
    hooks: list[str]
    spliced: ZeroShotFigures
    ablated: ZeroShotFigures
    recovered: ZeroShotFigures


class Fidelity(Result):
    """What an encoder's zero-shot findings and retrieval keep with SAEs spliced in; `str()` is the table.

    labels_without_prompts: of the table, so not scored. original: the encoder as it is. candidates: each SAE, and all
    together where their hooks differ.
    """

    FILE: ClassVar[str] = "fidelity.json"
    COMMAND: ClassVar[str] = "medsae fidelity"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    prompts: PromptSet
    images: int
    patients: int
    unreadable_images: int
    labels_without_prompts: list[str]
    texts: TextCounts
    observations: list[Labelled]
    original: ZeroShotFigures
    candidates: list[Spliced]

    def __getitem__(self, name: str) -> Spliced:
        """The figures of the SAE of this name."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def __str__(self) -> str:
        return "\n".join([*self._head(), "", *aligned(self._rows(), rule_after=(1, 1 + len(self.observations)))])

    def _rows(self) -> list[list[str]]:
        """A row an observation, then the mean and recall@k; three columns a candidate."""
        columns = [self.original]
        heads = ["original"]
        for i, c in enumerate(self.candidates, 1):
            columns += [c.spliced, c.ablated, c.recovered]
            heads += [f"[{i}] spliced", "ablated", "recovered"]

        def row(title: str, count: str, values: Sequence[float | None]) -> list[str]:
            return [title, count, *(fixed(value, 3) for value in values)]

        return [
            ["zero-shot AUROC", "+", *heads],
            *[row(o.label, str(o.positives), [f.auroc[o.label] for f in columns]) for o in self.observations],
            row("mean", "", [f.mean_auroc for f in columns]),
            *[row(f"recall@{k}", "", [f.recall[k] for f in columns]) for k in self.original.recall],
        ]

    def _head(self) -> list[str]:
        texts, without = self.texts, self.labels_without_prompts
        chance = ", ".join(f"{min(1.0, int(k) / max(texts.texts, 1)):.3f}" for k in self.original.recall)
        unreadable = f" ({self.unreadable_images} unreadable)" if self.unreadable_images else ""
        return [
            f"{self.encoder.name}: {self.images} images of {self.patients} patients{unreadable}; prompts: "
            f"{self.prompts.name}" + (f", with none for {', '.join(without)}." if without else "."),
            "ablated: the hook at its mean over the images. recovered: (spliced - ablated) / (original - ablated).",
            f"recall@k: the image's own among {texts.texts} texts ({texts.kind}), {texts.images} images; by chance "
            f"{chance}.",
            *[f"[{i}] {c.name}, at {', '.join(c.hooks)}" for i, c in enumerate(self.candidates, 1)],
        ]
