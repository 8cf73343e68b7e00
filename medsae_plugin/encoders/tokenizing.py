"""Strings to token ids: a card's tokenizer, from files on this machine or from the Hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.sources import Source
from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.fetch import hub_errors, unreachable

TOKENIZER, VOCABULARY = "tokenizer.json", "vocab.txt"
_SETTINGS = "tokenizer_config.json"


class FileTokenizer:
    """Calling it gives what turns a text into token ids, by a `tokenizer.json`, which is read when first called."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Callable[[str], list[int]]:
        _ = self._tokenizer
        return self.encode

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, special tokens included."""
        return list(self._tokenizer.encode(text).ids)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.path))


class CardTokenizer:
    """Calling it gives what turns a text into token ids; the tokenizer is read, or fetched, when first called.

    Args:
        source: a folder or file (`vocab.txt`, `tokenizer.json`) on this machine, or an id of the Hub with its
            `revision`.
        pads: texts are padded to the card's `max_tokens`.
        given: by someone, not by the card: it has to have as many words as the card's text tower.
        cache_dir, local_files_only: huggingface_hub's, where it comes from the Hub.

    Raises:
        MedSAEError: when called: it cannot be had, or is not the one that the card's text tower was trained with.
    """

    def __init__(
        self,
        card: EncoderCard,
        source: str | Path,
        revision: str | None = None,
        *,
        pads: bool = False,
        given: bool = False,
        cache_dir: Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.card, self.source, self.revision, self.pads, self.given = card, source, revision, pads, given
        self.cache_dir, self.local_files_only = cache_dir, local_files_only

    def __call__(self) -> Callable[[str], list[int]]:
        _ = self._tokenizer
        return self.encode

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, special tokens included."""
        most = (self.card.text or {}).get("max_tokens")
        options = {"padding": "max_length" if self.pads else False, "truncation": most is not None, "max_length": most}
        return list(self._tokenizer(text, **options)["input_ids"])

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine."""
        place = Path(self.source)
        return place.is_file() or any((place / name).is_file() for name in (TOKENIZER, VOCABULARY, _SETTINGS))

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self._tokenizer.save_pretrained(folder)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._of_files(Path(self.source)) if Path(self.source).exists() else self._of_the_hub()

    def _of_files(self, path: Path) -> Any:
        try:
            tokenizer = _read(path)
        except Exception as error:  # tokenizers raises bare Exceptions, and each format's reader its own
            raise MedSAEError(f"the tokenizer at {path} cannot be read: {reason_of(error)}") from error
        expected = (self.card.text or {}).get("config", {}).get("vocab_size")
        if self.given and expected is not None and len(tokenizer) != expected:
            raise MedSAEError(
                f"the tokenizer at {path} has {len(tokenizer):,} words, the text tower of {self.card.name} has "
                f"{expected:,}: it is another's"
            )
        return tokenizer

    def _of_the_hub(self) -> Any:
        import transformers

        source, what = str(self.source), f"the tokenizer {self.source} of {self.card.name}"
        advice = (
            f"give {VOCABULARY} of {source}, or its folder, as the tokenizer (--tokenizer), or put it beside the "
            "weights; or give token ids"
        )
        # Asked once, since transformers asks for file after file.
        offline = "local_files_only is set" if self.local_files_only else unreachable()
        try:
            with hub_errors(source, what, note=advice):
                return transformers.AutoTokenizer.from_pretrained(
                    source,
                    revision=self.revision,
                    trust_remote_code=False,
                    cache_dir=self.cache_dir,
                    local_files_only=offline is not None,
                )
        except MedSAEError:
            raise
        except (OSError, ValueError) as error:  # transformers' own, around those of the Hub
            reason = f"the Hub cannot be reached: {offline}" if offline else reason_of(error)
            raise MedSAEError(f"{what} cannot be had ({reason}); {advice}") from error


def tokenizer_of(card: EncoderCard, source: Source, place: str | None = None) -> CardTokenizer | None:
    """The card's tokenizer: files beside the weights, else the one it names; without a name, the one at `place`."""
    named = card.text.get("tokenizer", place) if card.text else None
    pads, given = FAMILIES[card.family].pads_text, source.given
    if not card.text:
        return None
    if given is not None and (beside := tokenizer_beside(card, given.expanduser())):
        return CardTokenizer(card, beside, pads=pads, given=True)
    if named is None:
        return None
    revision = card.text.get("revision", None if "tokenizer" in card.text else card.source.get("revision"))
    fetching: dict[str, Any] = {"cache_dir": source.cache_dir, "local_files_only": source.local_files_only}
    return CardTokenizer(card, named, revision, pads=pads, **fetching)


def tokenizer_beside(card: EncoderCard, weights: Path) -> Path | None:
    """What lies beside a card's weights to be its tokenizer: files, or a folder named `tokenizer` or as on the Hub."""
    folder = weights if weights.is_dir() else weights.parent
    of_the_hub = str((card.text or {}).get("tokenizer", "")).rpartition("/")[2]
    for place in (folder, folder / "tokenizer", *([folder / of_the_hub] if of_the_hub else [])):
        if any((place / name).is_file() for name in (TOKENIZER, VOCABULARY)):
            return place
    return None


def _read(path: Path) -> Any:
    import transformers

    folder = path if path.is_dir() else path.parent
    if path.is_dir() and (folder / _SETTINGS).is_file():
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if path.is_dir():
        path = folder / (TOKENIZER if (folder / TOKENIZER).is_file() else VOCABULARY)
    if path.suffix == ".json":
        return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    if not path.is_file():
        raise MedSAEError(f"there is no {TOKENIZER} and no {VOCABULARY} in it")
    # BERT's, lower-casing as transformers does where nothing says otherwise.
    return transformers.BertTokenizer(vocab=str(path))
