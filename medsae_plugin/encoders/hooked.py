"""`HookedVisionEncoder`: a transformers vision model as transformer-lens knows hooked models."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from transformer_lens.hook_points import HookedRootModule, HookPoint

from medsae_plugin.data.images import read_image
from medsae_plugin.encoders.cards import EncoderCard
from medsae_plugin.encoders.families import FAMILIES, HookRow, hook_places
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.encoders.text import TextTower
from medsae_plugin.errors import MedSAEError

POOLED, EMBEDDING = "hook_pooled", "hook_embedding"


@dataclass(frozen=True)
class HookSpec:
    """What a hook point carries: `(batch, n_positions, d)`, or `(batch, d)` where `grid` is None.

    The positions are `n_prefix` prefix tokens (CLS) and then the `grid` of (rows, columns), row by row.
    """

    name: str
    d: int
    grid: tuple[int, int] | None
    n_prefix: int = 0

    @property
    def is_image_level(self) -> bool:
        return self.grid is None

    @property
    def n_positions(self) -> int:
        return 1 if self.grid is None else self.n_prefix + math.prod(self.grid)


class _Stopped(Exception):
    def __init__(self, activation: Tensor) -> None:
        self.activation = activation


class HookedVisionEncoder(HookedRootModule):
    """A vision encoder with transformer-lens's hook points, each carrying `(batch, position, d)` or `(batch, d)`.

    `run_with_hooks`, `hooks`, `add_hook` and `run_with_cache` are transformer-lens's. `hook_specs` tells, in the order
    of the forward pass, what each hook point carries. Make one with `from_pretrained`.
    """

    def __init__(
        self,
        card: EncoderCard,
        vision_model: nn.Module,
        projection_head: nn.Module,
        *,
        weights_sha256: str = "",
        text_tower: Callable[[], TextTower] | TextTower | None = None,
        tokenizer: Callable[[], Any] | None = None,
        logit_scale: float | None = None,
    ) -> None:
        with warnings.catch_warnings():  # transformer-lens 3 calls its own root module deprecated; 4 is excluded
            warnings.simplefilter("ignore", DeprecationWarning)
            super().__init__()
        self.name, self.card, self.weights_sha256 = card.name, card, weights_sha256
        self.logit_scale = logit_scale
        self.preprocessor = Preprocessor.from_config(card.preprocessing)
        self.vision_model, self.projection_head = vision_model, projection_head
        self._text_tower, self._tokenizer = text_tower, tokenizer
        self._stop_at: str | None = None
        family = FAMILIES[card.family]
        for row, module in hook_places(family, vision_model):
            point = self._add_point(row.name)
            if row.side == "input":
                module.register_forward_pre_hook(self._input_router(point), with_kwargs=True)
            else:
                module.register_forward_hook(self._output_router(point, row))
        for name in (POOLED, EMBEDDING):
            self._add_point(name)
        self.eval()
        self.setup()
        self.hook_specs = self._measure(family.n_prefix(vision_model.config))

    @classmethod
    def from_pretrained(
        cls,
        name_or_card_path: str | Path,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> HookedVisionEncoder:
        """The encoder of a card.

        Args:
            name_or_card_path: a card of the package (`medclip-swin`, `medclip-resnet50`, `phantom-swin`), or the path
                of one of your own.
            weights: for MedCLIP, the official `pytorch_model.bin`, the official zip, or a folder holding either; None
                fetches the card's URL to the cache (`MEDSAE_CACHE`, or `~/.cache/medsae`) once.
            device, dtype: where the vision tower lives and what it computes in.

        Raises:
            MedSAEError: no such card, no weights, or weights that do not fit it key by key.
        """
        from medsae_plugin.encoders.loading import load_encoder

        return load_encoder(name_or_card_path, weights).to(device=torch.device(device), dtype=dtype)

    @property
    def device(self) -> torch.device:
        return next(self.vision_model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.vision_model.parameters()).dtype

    def preprocess(
        self, images: Image.Image | str | Path | Sequence[Image.Image | str | Path]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixel values of PIL images or of image files, float32 on the CPU.

        Raises:
            UnreadableImage: a file that cannot be read.
        """
        several = [images] if isinstance(images, Image.Image | str | Path) else images
        opened = [image if isinstance(image, Image.Image) else read_image(image) for image in several]
        return self.preprocessor.normalize(np.stack([self.preprocessor.to_array(image) for image in opened]))

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 height width"], stop_at_hook: str | None = None
    ) -> Float[Tensor, "batch ..."]:
        """The image embedding `(batch, d)`, not normalised; or the activation at `stop_at_hook`, and nothing after it.

        Raises:
            MedSAEError: an unknown hook point.
        """
        if stop_at_hook is not None:
            self._check_hook(stop_at_hook)
        outer, self._stop_at = self._stop_at, stop_at_hook
        try:
            output = self.vision_model(pixel_values.to(device=self.device, dtype=self.dtype))
            pooled = output.pooler_output
            pooled = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
            pooled = self._through(self.hook_dict[POOLED], pooled)
            return self._through(self.hook_dict[EMBEDDING], self.projection_head(pooled))
        except _Stopped as stop:
            return stop.activation
        finally:
            self._stop_at = outer

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
        incl_bwd: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """transformer-lens's `run_with_cache`; with a `names_filter` the pass ends at the deepest hook asked for.

        Returns:
            The image embedding, or None where the pass ended before it; and the activations by hook name.

        Raises:
            MedSAEError: an unknown hook point.
        """
        names = self._selected(names_filter)
        deepest = names[-1] if names else EMBEDDING
        if incl_bwd or deepest == EMBEDDING:
            return super().run_with_cache(*model_args, names_filter=names, incl_bwd=incl_bwd, **kwargs)
        _, cache = super().run_with_cache(*model_args, names_filter=names, stop_at_hook=deepest, **kwargs)
        return None, cache

    @torch.no_grad()
    def activations(
        self, pixel_values: Float[Tensor, "batch 3 height width"], hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The activations at `hooks`, from one pass without gradients that ends at the deepest of them."""
        return self.run_with_cache(pixel_values, names_filter=list(hooks))[1]

    @contextmanager
    def hooks(self, fwd_hooks: Any = (), bwd_hooks: Any = (), *args: Any, **kwargs: Any) -> Iterator[Any]:
        """transformer-lens's `hooks`; an unknown hook point is a MedSAEError that suggests near ones."""
        for name, _ in (*fwd_hooks, *bwd_hooks):
            if isinstance(name, str):
                self._check_hook(name)
        with super().hooks(list(fwd_hooks), list(bwd_hooks), *args, **kwargs) as model:
            yield model

    @property
    def text_tower(self) -> TextTower:
        """The text tower, loaded when first asked for.

        Raises:
            MedSAEError: the encoder has none.
        """
        if self._text_tower is None:
            raise MedSAEError(f"{self.name} has no text tower")
        if isinstance(self._text_tower, TextTower):
            return self._text_tower
        tower = self._text_tower().to(device=self.device, dtype=self.dtype).eval()
        self._text_tower = tower
        return tower

    @torch.no_grad()
    def encode_text(
        self,
        texts: str | Sequence[str] | Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch d"]:
        """Text embeddings in the space of `hook_embedding`, not normalised, of token ids or of strings.

        Strings need the card's tokenizer; each is encoded without padding, so its embedding does not depend on others.

        Raises:
            MedSAEError: no text tower, or strings and no tokenizer at hand.
        """
        if isinstance(texts, Tensor):
            mask = None if attention_mask is None else attention_mask.to(self.device)
            return self.text_tower(texts.to(self.device), mask)
        return self.text_tower.encode(self.tokenize([texts] if isinstance(texts, str) else texts))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens included, not padded.

        Raises:
            MedSAEError: the card has no tokenizer, or it cannot be had.
        """
        if self._tokenizer is None:
            raise MedSAEError(f"{self.name} has no tokenizer; give token ids")
        tokenize = self._tokenizer()
        return [tokenize(text) for text in texts]

    def _add_point(self, name: str) -> HookPoint:
        """A hook point whose module path is `name`, so that transformer-lens names it so."""
        *path, leaf = name.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        point = HookPoint()
        parent.add_module(leaf, point)
        point.name = name
        return point

    def _input_router(self, point: HookPoint) -> Callable[..., Any]:
        def route(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (self._through(point, args[0]), *args[1:]), kwargs
            first = next(iter(kwargs))
            return args, {**kwargs, first: self._through(point, kwargs[first])}

        return route

    def _output_router(self, point: HookPoint, row: HookRow) -> Callable[..., Any]:
        def route(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (self._through(point, output[0], row.layout == "map"), *output[1:])
            return self._through(point, output, row.layout == "map")

        return route

    def _through(self, point: HookPoint, x: Tensor, is_map: bool = False) -> Tensor:
        """`x` after the hook point's hooks, which see `(batch, position, d)` whatever the module's layout."""
        stops = point.name == self._stop_at
        if not (stops or point.has_hooks()):
            return x
        seen = x.flatten(2).transpose(1, 2) if is_map else x
        y = point(seen)
        if stops:
            raise _Stopped(y)
        # Contiguous again, so that what follows computes bit for bit what it would without a hook.
        return y.transpose(1, 2).reshape(x.shape).contiguous() if is_map else y

    @torch.no_grad()
    def _measure(self, n_prefix: int) -> dict[str, HookSpec]:
        """Every hook point's shape, in the order of one forward pass over a black image."""
        size = self.preprocessor.size
        specs: dict[str, HookSpec] = {}

        def note(activation: Tensor, hook: HookPoint) -> None:
            name, n, d = str(hook.name), activation.shape[1], activation.shape[-1]
            if activation.ndim == 2:
                specs[name] = HookSpec(name, d, None)
            else:
                side = math.isqrt(n - n_prefix)
                if side * side != n - n_prefix:
                    raise MedSAEError(f"{name} has {n} positions, which are no square and {n_prefix} prefix tokens")
                specs[name] = HookSpec(name, d, (side, side), n_prefix)

        with super().hooks(fwd_hooks=[(name, note) for name in self.hook_dict]):
            self(torch.zeros(1, 3, size, size))
        return specs

    def _selected(self, names_filter: str | Sequence[str] | Callable[[str], bool] | None) -> list[str]:
        if names_filter is None:
            return list(self.hook_specs)
        if callable(names_filter):
            return [name for name in self.hook_specs if names_filter(name)]
        asked = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        for name in asked:
            self._check_hook(name)
        return [name for name in self.hook_specs if name in asked]

    def _check_hook(self, name: str) -> None:
        known = self.hook_dict
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or list(known)[-3:]
            raise MedSAEError(f"{self.name} has no hook point {name!r}; near it: {', '.join(near)}")
