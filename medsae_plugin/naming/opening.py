"""Namers and judges by name, ready to work in a folder that keeps their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.answers import Answers
from medsae_plugin.naming.asking import Asker
from medsae_plugin.naming.backends import is_model, open_chat
from medsae_plugin.naming.heatmaps import Style
from medsae_plugin.naming.namers import ChatNamer, LabelNamer, Namer, VocabularyNamer
from medsae_plugin.naming.trials import Judge
from medsae_plugin.naming.vocabulary import Vocabulary
from medsae_plugin.store.reader import ActivationStore

NAMERS: dict[str, Callable[[], Namer]] = {"label": LabelNamer}
"""Namers that need nothing but the evidence, by the name that `--backend` takes: a class, or what makes one.

Another is another entry: `NAMERS["mine"] = MyNamer`.
"""


def open_namer(
    backend: str,
    folder: str | Path,
    store: ActivationStore,
    *,
    vocabulary: Vocabulary | None = None,
    by: Literal["decoder", "images"] | None = None,
    encoder: str | None = None,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
    heatmaps: Style = "overlay",
    device: str = "cpu",
    progress: bool = True,
    **model: Any,
) -> Namer:
    """The namer that a backend's name means.

    Args:
        backend: `vocabulary`, an entry of `NAMERS` such as `label`, or a model as `open_chat` takes it.
        folder: where names are written, and a model's answers kept, so that nothing is asked twice.
        vocabulary, by, encoder, weights, tokenizer: of `vocabulary`; by default the package's terms and the encoder
            that the store is of. See `VocabularyNamer`.
        heatmaps: how a model is shown where a latent fires; see `ChatNamer`.
        device: of the encoder or the model. model: see `open_chat`.

    Raises:
        MedSAEError: no backend of the name, and what it refuses itself.
    """
    if backend in NAMERS:
        return NAMERS[backend]()
    if backend == "vocabulary":
        opened = HookedVisionEncoder.from_pretrained(
            encoder or store.encoder_name, weights, device=device, tokenizer=tokenizer
        )
        return VocabularyNamer(opened, vocabulary or Vocabulary.seed(), by)
    if not is_model(backend):
        raise MedSAEError(
            f"there is no way to name called {backend!r}: there are vocabulary, {', '.join(NAMERS)}, and models: "
            "medgemma, medgemma:ID-OR-FOLDER, server:MODEL@URL"
        )
    return ChatNamer(open_asker(backend, folder, device=device, progress=progress, **model), heatmaps)


def open_judge(spec: str, folder: str | Path, *, group: int = 1, **model: Any) -> Judge:
    """The judge that is this model, as `open_chat` takes it; see `Judge` and `open_asker`."""
    return Judge(open_asker(spec, folder, **model), group)


def open_judges(specs: Sequence[str], folder: str | Path, *, group: int = 1, **model: Any) -> dict[str, Judge]:
    """Judges by their names in `scores.json`: a model's without its address, unless two would be called the same.

    Raises:
        MedSAEError: one comes twice.
    """
    if len(set(specs)) < len(specs):
        raise MedSAEError("the same judge is given twice")
    short = [spec.partition("@")[0] for spec in specs]
    names = [name if short.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(short, 1)]
    return {name: open_judge(spec, folder, group=group, **model) for name, spec in zip(names, specs, strict=True)}


def open_asker(spec: str, folder: str | Path, *, progress: bool = True, **model: Any) -> Asker:
    """A model whose answers are kept in `answers/` of a folder; `spec` and `model` as `open_chat` takes them."""
    return Asker(open_chat(spec, **model), Answers(Path(folder) / "answers"), progress=progress)
