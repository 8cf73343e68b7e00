"""transformer-lens's root module over hook points that can be copied, pickled and named by patterns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities import Slice

from medsae_plugin.encoders.hook_names import ALL, select_hooks
from medsae_plugin.errors import MedSAEError

NamesFilter = str | Iterable[str] | Callable[[str], bool] | None
NamedHooks = Iterable[tuple[str | Callable[[str], bool], Callable[..., Any]]]


class PortableHookPoint(HookPoint):
    """A hook point that can be copied and pickled with its hooks.

    transformer-lens registers a closure over the hook point itself, which pickle refuses, and which in a copy is still
    the original's. So a copy takes the hooks as they were given, and registers them itself.
    """

    def __getstate__(self) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
        hooks = [(h.user_hook, way, h.is_permanent, h.context_level) for way, h in self._handles()]
        registered = {handle.hook.id for _, handle in self._handles()}
        own = {
            key: OrderedDict((i, hook) for i, hook in value.items() if i not in registered)
            if isinstance(value, OrderedDict)
            else value
            for key, value in vars(self).items()
        }
        return {**own, "fwd_hooks": [], "bwd_hooks": []}, hooks

    def __setstate__(self, state: tuple[dict[str, Any], list[tuple[Any, ...]]]) -> None:
        own, hooks = state
        super().__setstate__(own)
        for hook in hooks:
            self.add_hook(*hook)

    def _handles(self) -> list[tuple[str, LensHandle]]:
        return [("fwd", handle) for handle in self.fwd_hooks] + [("bwd", handle) for handle in self.bwd_hooks]


class HookedRoot(HookedRootModule):
    """What `HookedVisionEncoder` has of transformer-lens, with its arguments.

    Wherever transformer-lens takes the name of a hook point, a pattern will do as well (`hook_names.select_hooks`), and
    an unknown one is a MedSAEError that names near ones.
    """

    name: str
    vision_model: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.map_grids: dict[str, tuple[int, int]] = {}  # of the hook points that have seen a map
        self._points: dict[str, HookPoint] = {}  # the encoder's own, whatever stands in their places

    def _hooks_in_order(self) -> list[str]:
        """The names in `hook_dict`, in the order of a forward pass."""
        raise NotImplementedError

    def add_hook(self, name: str | Callable[[str], bool], hook: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """transformer-lens's `add_hook`.

        Raises:
            MedSAEError: an unknown hook point.
        """
        for point, _ in self._each([(name, hook)]):
            super().add_hook(point, hook, *args, **kwargs)

    @contextmanager
    def hooks(self, fwd_hooks: NamedHooks = (), bwd_hooks: NamedHooks = (), *args: Any, **kwargs: Any) -> Iterator[Any]:
        """transformer-lens's `hooks`.

        Raises:
            MedSAEError: an unknown hook point.
        """
        with super().hooks(self._each(fwd_hooks), self._each(bwd_hooks), *args, **kwargs) as model:
            yield model

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list[tuple[str, Any]], list[tuple[str, Any]]]:
        """transformer-lens's `get_caching_hooks`: a cache, and the forward and backward hooks that fill it.

        `remove_batch_dim` and `pos_slice` know `(batch, d)` from `(batch, position, d)`: at an image-level hook there
        are no positions to slice.

        Raises:
            MedSAEError: an unknown hook point. When a pass runs: a batch to remove that holds several images.
        """
        cache = {} if cache is None else cache
        self.is_caching = True
        save = partial(_save, cache, device, remove_batch_dim, Slice.unwrap(pos_slice))
        names = self._selected(names_filter)
        backward = [(name, partial(save, "_grad")) for name in names] if incl_bwd else []
        return cache, [(name, partial(save, "")) for name in names], backward

    def add_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """transformer-lens's `add_caching_hooks`: those of `get_caching_hooks`, added, and the cache they fill."""
        cache, forward, backward = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for name, save in forward:
            self.add_hook(name, save)
        for name, save in backward:
            self.add_hook(name, save, dir="bwd")
        return cache

    def _selected(self, names_filter: NamesFilter) -> list[str]:
        """The hook points that a filter asks for, in the order of a forward pass."""
        known = self._hooks_in_order()
        if names_filter is None:
            return known
        if callable(names_filter):
            return [name for name in known if names_filter(name)]
        asked = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        hidden = [] if ALL in asked else [name for name in self._points if name not in self.hook_dict]
        chosen = select_hooks(asked, [*known, *hidden], self.name)
        for name in chosen:
            if name in hidden:
                points = ", ".join(point for point in known if point.startswith(f"{name}."))
                raise MedSAEError(f"an SAE stands at {name}; its hook points are {points}")
        return chosen

    def _each(self, hooks: NamedHooks) -> list[tuple[Any, Callable[..., Any]]]:
        """The hooks, those of a pattern once for each hook point that it stands for."""
        return [
            (point, hook)
            for name, hook in hooks
            for point in (self._selected(name) if isinstance(name, str) and name not in self.hook_dict else [name])
        ]


def _save(
    cache: dict[str, Tensor],
    device: str | torch.device | None,
    remove_batch_dim: bool,
    pos_slice: Slice,
    suffix: str,
    activation: Float[Tensor, "batch ..."],
    hook: HookPoint,
) -> None:
    kept = activation.detach().to(device)
    if kept.ndim == 3:
        kept = pos_slice.apply(kept, dim=1)
    if remove_batch_dim:
        if len(kept) != 1:
            raise MedSAEError(f"remove_batch_dim is for one image; the batch has {len(kept)}")
        kept = kept[0]
    cache[f"{hook.name}{suffix}"] = kept


def backward_from(output: Tensor) -> None:
    """Go back from an output of one number.

    Raises:
        MedSAEError: it is of several.
    """
    if output.numel() != 1:
        raise MedSAEError(
            f"incl_bwd goes back from one number, and the output is {tuple(output.shape)}. With a number of your own: "
            "cache, forward, backward = encoder.get_caching_hooks(incl_bwd=True), and with "
            "encoder.hooks(forward, backward): encoder(pixels).sum().backward()"
        )
    output.backward()
