"""`HookedVisionEncoder`: a transformers vision model as transformer-lens knows hooked models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformer_lens.hook_points import HookPoint

from medsae_plugin.data.images import read_image
from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.cards import load_card, parse_card
from medsae_plugin.encoders.families import FAMILIES, Family, HookRow, hook_places
from medsae_plugin.encoders.layouts import Parts, load_parts
from medsae_plugin.encoders.measuring import measure
from medsae_plugin.encoders.outputs import NamedOutputs, along_unit, pooled_output
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.encoders.root import NamesFilter, PortableHookPoint, backward_from
from medsae_plugin.encoders.saving import save_parts
from medsae_plugin.encoders.sources import Source, state_sha256
from medsae_plugin.encoders.splicing import SAESplicing
from medsae_plugin.encoders.text import TextTower
from medsae_plugin.encoders.towers import take_off_capturing_hooks
from medsae_plugin.errors import MedSAEError

POOLED, EMBEDDING, LOGVAR = "hook_pooled", "hook_embedding", "hook_embedding_logvar"
UNIT = "hook_embedding_unit"

_EXPECTED = {True: "a map (batch, d, rows, columns)", False: "a tensor"}


class _Stopped(Exception):
    def __init__(self, activation: Tensor) -> None:
        self.activation = activation


def _stop(activation: Tensor, hook: HookPoint) -> None:
    raise _Stopped(activation)


class HookedVisionEncoder(SAESplicing):
    """A vision encoder with transformer-lens's hook points, each carrying `(batch, position, d)` or `(batch, d)`.

    `run_with_hooks`, `hooks`, `add_hook` and `run_with_cache` are transformer-lens's; `add_sae`, `saes`,
    `run_with_saes` and their like are SAE-Lens's. `hook_specs` tells, in the order of the forward pass, what each hook
    point carries. Make one with `from_pretrained`. A copy (`copy.deepcopy`), and what pickle or `torch.save` brings
    back, has hooks and SAEs of its own, those that the original had.
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
        super().__init__()
        self.name, self.card, self.weights_sha256 = card.name, card, weights_sha256
        self.logit_scale = logit_scale
        self.preprocessor = Preprocessor.from_config(card.preprocessing)
        self.vision_model, self.projection_head = vision_model, projection_head
        self._text_tower, self._tokenizer = text_tower, tokenizer
        self._stop_at: str | None = None
        self._config = getattr(vision_model, "config", None)
        self._n_channels = getattr(self._config, "num_channels", 3)
        rows = (*self._family.rows, *(HookRow(**row) for row in card.hooks))
        # Kept, since pickled handles tell torch which ids are taken: else a hook that is registered in another process
        # could take the place of one of these.
        self._handles = [self._route(row, module) for row, module in hook_places(rows, vision_model)]
        self._outputs = NamedOutputs(vision_model, card.outputs or {})
        for name in (LOGVAR, EMBEDDING, UNIT) if card.outputs else (POOLED, EMBEDDING, UNIT):
            self._add_point(name)
        self.eval()
        self.setup()
        of_family = self._family.n_prefix(self._config)
        self._n_prefix = of_family if card.prefix_tokens is None else card.prefix_tokens
        self.hook_specs = measure(self, self.preprocessor.shape, self._n_prefix)

    def __getstate__(self) -> dict[str, Any]:
        take_off_capturing_hooks(self)
        return vars(self).copy()

    @classmethod
    def from_pretrained(
        cls,
        name_or_card_path: str | Path,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> HookedVisionEncoder:
        """The encoder of a card.

        Args:
            name_or_card_path: a card of the package (`medclip-swin`, `rad-dino`, ...: `list_cards()`), the path of one
                of your own, or a folder that `save_pretrained` wrote.
            weights: a folder or file that holds the card's checkpoint: for MedCLIP, the official `pytorch_model.bin`,
                the official zip, or a folder of either. None fetches the card's source, once: a Hub id to the Hub's
                cache, a URL to `MEDSAE_CACHE` (or `~/.cache/medsae`).
            device, dtype: where the vision tower lives and what it computes in.
            tokenizer: of the text tower: `vocab.txt` or `tokenizer.json`, or a folder that holds one. None takes what
                lies beside `weights`, else the one that the card names, fetched when a text is first encoded.
            revision: of a source on the Hub, in place of the card's: a branch, a tag or a commit.
            cache_dir: in place of the Hub's cache and of `MEDSAE_CACHE`.
            local_files_only: fetch nothing, take what the cache has.

        Raises:
            MedSAEError: no such card, weights or tokenizer, a Hub that refuses them, weights that do not fit it, key
                by key, or a revision of what is not on the Hub.
        """
        given = None if weights is None else Path(weights)
        source = Source(
            load_card(name_or_card_path), given, None if cache_dir is None else Path(cache_dir), local_files_only
        )
        parts = load_parts(source if revision is None else source.at(revision), tokenizer)
        return cls(**vars(parts)).to(device=torch.device(device), dtype=dtype)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write weights (`model.safetensors`, in `dtype`), shapes (`config.json`) and a card (`card.yaml`).

        `from_pretrained(folder)` gives the encoder back; hooks and SAEs are not saved. A tokenizer that is on this
        machine goes beside them. Returns the folder.

        Raises:
            MedSAEError: a module of your own, whose class no card can name.
        """
        text = self.text_tower if self.card.text and self._text_tower is not None else None
        modules = (self.vision_model, self.projection_head, self.weights_sha256, text)
        return save_parts(Parts(self.card, *modules, self._tokenizer, self.logit_scale), folder, dtype)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        card: EncoderCard | Mapping[str, Any] | str | Path,
        device: str | torch.device | None = None,
        **parts: Any,
    ) -> HookedVisionEncoder:
        """An encoder around a module of your own, with the hook points that the card's `hooks` name.

        Args:
            module: takes `(batch, 3, rows, columns)` and returns a tensor, or an output of transformers.
            card: of family `custom` and source format `module`: a card's path, or its fields.
            device: where to move it; None leaves it where it is.
            parts: `projection_head` (default: none), and the arguments of the class: `text_tower`, `logit_scale`, ...

        Raises:
            MedSAEError: a card that is wrong, or does not fit the module.
        """
        if isinstance(card, Mapping):
            card = parse_card(card)
        elif not isinstance(card, EncoderCard):
            card = load_card(card)
        head = parts.pop("projection_head", nn.Identity())
        encoder = cls(card, module, head, **{"weights_sha256": state_sha256(module), **parts})
        return encoder if device is None else encoder.to(torch.device(device))

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"encoder {self.name}"

    @property
    def encoder_name(self) -> str:
        """Its card's name."""
        return self.name

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How it prepares images, as a store's manifest says it."""
        return self.preprocessor.config

    def width_at(self, hook: str) -> int | None:
        """d of a hook point; None where there is no such one."""
        return self.hook_specs[hook].d if hook in self.hook_specs else None

    @property
    def _family(self) -> Family:
        return FAMILIES[self.card.family]

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

        What is done at `hook_embedding_unit`, by an SAE or a patch, is seen in the output: that is what leaves the hook
        point, times the embedding's norm.

        Raises:
            MedSAEError: an unknown hook point.
        """
        stop_at_hook = self._one(stop_at_hook)
        if stop_at_hook is not None and stop_at_hook not in self._points:  # within a spliced SAE
            with self.hooks(fwd_hooks=[(stop_at_hook, _stop)]):
                return self(pixel_values)
        outer, self._stop_at = self._stop_at, stop_at_hook
        try:
            pixels = pixel_values.to(device=self.device, dtype=self.dtype)[:, : self._n_channels]
            output = self.vision_model(pixels, **self._family.arguments(self._config, pixels))
            if self.card.outputs:
                self._through(self._points[LOGVAR], self._outputs.take("logvar", output))
                return self._embedding(self._outputs.take("mean", output))
            pooled = pooled_output(output, self._n_prefix, self.card.pooling)
            pooled = self._through(self._points[POOLED], pooled)
            return self._embedding(self.projection_head(pooled))
        except _Stopped as stop:
            return stop.activation
        finally:
            self._stop_at = outer

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        stop_at_hook: str | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """transformer-lens's `run_with_cache`: what `forward` returns, and the activations by hook name.

        The pass goes to its end whatever is cached, so that the first is the image embedding `(batch, d)`; it ends
        early at `stop_at_hook` alone, and the first is then the activation there. `activations` gives no embedding and
        stops by itself.

        Raises:
            MedSAEError: an unknown hook point, one beyond `stop_at_hook`, several images and `remove_batch_dim`, or
                `incl_bwd` where the output is not one number.
        """
        names, stop = self._selected(names_filter), self._one(stop_at_hook)
        if stop is not None:
            names = self._up_to(stop, names, names_filter is None)
        cache, forward, backward = self.get_caching_hooks(names, incl_bwd, device, remove_batch_dim, None, pos_slice)
        with self.hooks(forward, backward, reset_hooks_end, clear_contexts):
            out = self(*model_args, stop_at_hook=stop, **kwargs)
            if incl_bwd:
                backward_from(out)
        return out, cache

    @torch.no_grad()
    def activations(
        self, pixel_values: Float[Tensor, "batch 3 height width"], hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The activations at `hooks`, from one pass without gradients that ends at the deepest of them."""
        names = self._selected(list(hooks))
        stop = self._host(names[-1]) if names else None
        return self.run_with_cache(pixel_values, names_filter=names, stop_at_hook=stop)[1]

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

        Strings need the card's tokenizer. Each is encoded by itself, so its embedding does not depend on others:
        without padding, or padded to full length where the text tower was trained so (SigLIP).

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
        if leaf in parent._modules:
            raise MedSAEError(f"{name} is the name of two hook points")
        point = PortableHookPoint()
        parent.add_module(leaf, point)
        point.name = name
        self._points[name] = point
        return point

    def _route(self, row: HookRow, module: nn.Module) -> RemovableHandle:
        """Lead the module's input or output through a hook point of the row's name.

        By bound methods, which a copy has of its own, where a closure would stay the original's.
        """
        point = self._add_point(row.name)
        if row.side == "input":
            return module.register_forward_pre_hook(partial(self._route_input, point), with_kwargs=True)
        return module.register_forward_hook(partial(self._route_output, point, row.layout == "map"))

    def _route_input(self, point: HookPoint, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self._through(point, args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: self._through(point, kwargs[first])}

    def _route_output(self, point: HookPoint, is_map: bool, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self._through(point, output[0], is_map), *output[1:])
        return self._through(point, output, is_map)

    def _embedding(self, embedding: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """The embedding after the hooks on it, and those on it divided by its L2 norm."""
        embedding = self._through(self._points[EMBEDDING], embedding)
        point = self._points[UNIT]
        if not (point.name == self._stop_at or self._is_active(point)):
            return embedding
        return along_unit(embedding, partial(self._through, point))

    def _through(self, point: HookPoint, x: Tensor, is_map: bool = False) -> Tensor:
        """`x` after the hook point's hooks, which see `(batch, position, d)` whatever the module's layout."""
        stops = point.name == self._stop_at
        if not (stops or self._is_active(point)):
            return x
        if not isinstance(x, Tensor) or (is_map and x.ndim != 4):
            got = f"{x.ndim} axes" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise MedSAEError(f"{point.name}: its module gives {got}, not {_EXPECTED[is_map]}")
        seen = x
        if is_map:
            self.map_grids[str(point.name)] = (int(x.shape[2]), int(x.shape[3]))
            seen = rearrange(x, "batch d rows columns -> batch (rows columns) d")
        y = self._pass(point, seen)
        if stops:
            raise _Stopped(y)
        if not is_map:
            return y
        back = rearrange(y, "batch (rows columns) d -> batch d rows columns", rows=x.shape[2])
        # In memory as before, so that what follows computes bit for bit what it would without a hook.
        return back if back.stride() == x.stride() else torch.empty_like(x, dtype=y.dtype).copy_(back)
