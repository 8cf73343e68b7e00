"""MedGemma through transformers, on this machine. MedGemma is a Gemma 3 with a SigLIP image encoder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.fetch import network_reason
from medsae_plugin.files import sha256_of
from medsae_plugin.naming.chat import Conversation, Failure, Picture, Turn

_MAX_TOKENS = 512


class MedGemma:
    """`google/medgemma-4b-it`, or any image-text-to-text model of transformers with a chat template.

    Answers are greedy. Nothing is loaded until the first question that has no answer yet.

    Args:
        model: an id of the Hub, or a folder that `save_pretrained` wrote.
        revision: the Hub's commit, tag or branch.
        load_in_4bit: with bitsandbytes, on CUDA.
        batch_size: conversations at once.

    Raises:
        MedSAEError: transformers older than 5.23; 4-bit without CUDA or without bitsandbytes. When first used: the
            model is gated and access has not been granted, or it cannot be had.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        load_in_4bit: bool = False,
        batch_size: int = 1,
    ) -> None:
        _check_transformers()
        if batch_size < 1:
            raise MedSAEError("a batch holds 1 conversation or more")
        if load_in_4bit:
            _check_4bit(device)
        self.model, self.revision, self.device, self.dtype = model, revision, device, dtype
        self.load_in_4bit, self.batch_size = load_in_4bit, batch_size

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The model by its id and commit, or by the name and contents of its folder; and how it is asked."""
        folder = Path(self.model)
        if folder.is_dir():
            digest = hashlib.sha256()
            for path in sorted(p for p in folder.iterdir() if p.is_file()):
                digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
            what: dict[str, str | None] = {"model": folder.resolve().name, "sha256": digest.hexdigest()}
        else:
            what = {"model": self.model, "commit": self._commit()}
        return {
            **what,
            "dtype": str(self.dtype).removeprefix("torch."),
            "load_in_4bit": self.load_in_4bit,
            "max_tokens": _MAX_TOKENS,
        }

    def replies(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, str | Failure]]:
        places = enumerate(conversations)
        while batch := list(islice(places, self.batch_size)):
            answers = self._generate([conversation for _, conversation in batch])
            yield from ((place, answer) for (place, _), answer in zip(batch, answers, strict=True))

    @torch.inference_mode()
    def _generate(self, conversations: list[Conversation]) -> list[str]:
        processor, model = self._loaded
        inputs = processor.apply_chat_template(
            [[_message(turn) for turn in conversation] for conversation in conversations],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            # A report or a name that spells a control token, such as <end_of_turn>, stays text.
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True},
        ).to(self.device, dtype=self.dtype)
        try:
            output = model.generate(**inputs, max_new_tokens=_MAX_TOKENS, do_sample=False)
        except torch.cuda.OutOfMemoryError:
            raise MedSAEError(
                f"{self.device} has not enough memory for {self.model} and {len(conversations)} conversations at once; "
                "take a smaller batch, fewer images, or 4 bits"
            ) from None
        new = output[:, inputs["input_ids"].shape[1] :]
        return list(processor.batch_decode(new, skip_special_tokens=True))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

        options: dict[str, Any] = {"dtype": self.dtype, "device_map": {"": self.device}}
        if self.load_in_4bit:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=self.dtype
            )
        common: dict[str, Any] = {"revision": self.revision, "trust_remote_code": False}
        try:
            # Pictures are resized by PIL, so that an answer does not depend on whether torchvision is installed.
            processor = AutoProcessor.from_pretrained(self.model, backend="pil", **common)
            model = AutoModelForImageTextToText.from_pretrained(self.model, use_safetensors=True, **common, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise self._unavailable(error) from None
        processor.tokenizer.padding_side = "left"  # so that every answer of a batch begins at its end
        model.generation_config.top_k = model.generation_config.top_p = None  # greedy
        return processor, model.eval()

    def _commit(self) -> str | None:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from None
        return getattr(config, "_commit_hash", None)

    def _unavailable(self, error: Exception) -> MedSAEError:
        text = str(error)
        if "gated repo" in text.lower() or "gatedrepo" in text.lower():
            return MedSAEError(
                f"{self.model} is gated: its owner lends it to those who accept its terms. Accept them at "
                f"https://huggingface.co/{self.model} with your account, then log in here with `hf auth login` "
                "(or set HF_TOKEN), and run this again"
            )
        return MedSAEError(f"{self.model} cannot be loaded: {(network_reason(error) or reason_of(error))[:300]}")


def _check_transformers() -> None:
    """Older releases ignore `sanitize_control_tokens`: a report could forge a turn, or a picture."""
    found = version("transformers")
    if tuple(int(part) for part in found.split(".")[:2]) < (5, 23):
        raise MedSAEError(
            f"MedGemma needs transformers 5.23 or later, which keeps a report's words from being read as control "
            f"tokens; here is {found}: pip install --upgrade transformers"
        )


def _check_4bit(device: str) -> None:
    from importlib.util import find_spec

    if not device.startswith("cuda"):
        raise MedSAEError(f"4 bits need an NVIDIA GPU, not {device!r}; give --device cuda, or leave 4 bits out")
    if find_spec("bitsandbytes") is None:
        raise MedSAEError("4 bits need bitsandbytes: pip install 'medsae-plugin[4bit]'")


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": [_part(part) for part in turn.parts]}


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": Image.open(io.BytesIO(part.png)).convert("RGB")}
