"""`EncoderCard`: what a card says of an encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsae_plugin.data.prompts import CHEXPERT, PHANTOMS, Prompts, load_prompts


@dataclass(frozen=True)
class EncoderCard:
    """What a card says of an encoder.

    source: `format` is one of `layouts.LAYOUTS`: `medclip` (an official checkpoint, fetched from `url` and checked
        against `sha256` where it is known), `medsae` (a folder that `save_pretrained` wrote, at `path`),
        `transformers`, `open_clip`, `gemma3` or `torchxrayvision` (a checkpoint in that layout: a Hub id with a
        `revision`, or a folder, at `path`; for torchxrayvision also a file at `url`), or `module` (an `nn.Module` that
        is given in Python). A path starts at the card, or in the package's pretrained folder for a card of the package.
    vision: fields of the family's config, where the source does not bring one, and to tell shapes without it.
    text: the text tower's config and tokenizer, or None where there is none.
    prefix_tokens: tokens before the image's own (CLS, registers); None leaves it to the family.
    pooling: `cls` or `mean` of the tokens beyond the prefix; None takes the model's own pooled output where there is
        one, else the first prefix token, else the mean.
    hooks: hook points beyond the family's: each a `name`, the `path` of a module, and where they are not output and
        tokens, a `side` and a `layout`.
    outputs: for a probabilistic encoder, what gives the `mean` and the `logvar` of its Gaussian embedding: the path
        of a module, or a field of the model's output.
    prompts: findings prompts in the words that its text tower knows: a set of the package, or a YAML file of one's own
        (`data.prompts.load_prompts`).
    access: how to get weights that are not open to all.
    trained_on: the data sets that it is publicly known to have been trained on, by the names of `data.data_sets` where
        they are there; empty where that is not known. What is held out from an SAE may have been seen by its encoder.
    """

    name: str
    description: str
    licence: str
    family: str
    source: dict[str, Any]
    preprocessing: dict[str, Any]
    vision: dict[str, Any] = field(default_factory=dict)
    projection_dim: int | None = None
    text: dict[str, Any] | None = None
    prefix_tokens: int | None = None
    pooling: str | None = None
    hooks: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, str] | None = None
    prompts: str = CHEXPERT
    access: str | None = None
    trained_on: list[str] = field(default_factory=list)
    folder: Path | None = None  # that relative paths start from

    @property
    def source_path(self) -> Path | None:
        """The source's local path, if it names one that exists."""
        if "path" not in self.source or self.folder is None:
            return None
        path = (self.folder / self.source["path"]).expanduser()
        return path if path.exists() else None

    def own_prompts(self) -> Prompts:
        """The findings prompts in the words that the encoder knows.

        Raises:
            MedSAEError: no such set or file, or a file that says something else.
        """
        own = None if self.folder is None or self.prompts in (CHEXPERT, PHANTOMS) else self.folder / self.prompts
        return load_prompts(own if own is not None and own.is_file() else self.prompts)
