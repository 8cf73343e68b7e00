"""SAEs spliced into an encoder, with the verbs of SAE-Lens's `HookedSAETransformer`, and edits of their latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.hook_points import HookPoint

from medsae_plugin.encoders.edits import LatentEdit, editing_hook
from medsae_plugin.encoders.hook_names import select_hooks
from medsae_plugin.encoders.measuring import HookSpec
from medsae_plugin.encoders.root import HookedRoot, PortableHookPoint
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from sae_lens import SAE

_OWN_POINTS = ("hook_sae_error", "hook_sae_output")


class SplicedSAE(nn.Module):
    """An SAE, or a transcoder, in the place of the hook point `output_hook`.

    The SAE's hook points are its children, so they are named `<output_hook>.hook_sae_acts_post` and so on; the error
    and the output have points of their own, since they are made here.
    """

    sae: SAE[Any]
    hook_sae_error: HookPoint
    hook_sae_output: HookPoint

    def __init__(
        self,
        sae: SAE[Any],
        input_hook: str,
        output_hook: str,
        use_error_term: bool,
        excluded: Bool[Tensor, "position 1"] | None = None,
    ) -> None:
        super().__init__()
        self.__dict__["sae"] = sae  # not a submodule: its weights are not the encoder's, its hooks keep short names
        self.input_hook, self.output_hook = input_hook, output_hook
        self.use_error_term, self.excluded = use_error_term, excluded
        for name, point in sae.hook_dict.items():
            point.__class__ = PortableHookPoint
            if name not in _OWN_POINTS:
                self.add_module(name, point)
        for name in _OWN_POINTS:
            self.add_module(name, PortableHookPoint())
        self._captured: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # An SAE's constructor makes functions of its own, which pickle refuses and which may hold the SAE they are of.
        kept = {key: value for key, value in vars(self.sae).items() if not isinstance(value, FunctionType)}
        return {**vars(self), "sae": (type(self.sae), kept)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kind, kept = state["sae"]
        sae = kind(dataclasses.replace(kept["cfg"], device="meta"))
        vars(sae).update(kept)
        super().__setstate__({**state, "sae": sae})

    def capture(self, activation: Tensor) -> None:
        """Keep a transcoder's input until the pass reaches its output."""
        self._captured = activation

    def forward(self, original: Float[Tensor, "batch *position d"]) -> Float[Tensor, "batch *position d"]:
        """The reconstruction; with the error term, plus what the unedited reconstruction lacks of the original.

        The error counts as a constant: gradients flow through the latents alone.
        """
        x = original if self._captured is None else self._captured
        self._captured = None
        out = self._reconstruct(x)
        if self.use_error_term:
            with torch.no_grad():
                with _without_hooks(self.sae):
                    error = original - self._reconstruct(x)
                if self.excluded is not None:
                    error = error.masked_fill(self.excluded.to(error.device), 0)
            out = out + self.hook_sae_error(error)
        if self.excluded is not None:
            out = torch.where(self.excluded.to(out.device), original, out)
        return self.hook_sae_output(out.to(original.dtype))

    def _reconstruct(self, x: Tensor) -> Tensor:
        out = self.sae.decode(self.sae.encode(x))
        skip = getattr(self.sae, "W_skip", None)  # SkipTranscoder adds it in `forward` alone
        return out if skip is None else out + x.to(skip.dtype) @ skip.T


class SAESplicing(HookedRoot):
    """What `HookedVisionEncoder` knows of SAEs. One SAE stands at a hook point; a transcoder between two.

    As in SAE-Lens, a spliced SAE takes the hook point's place: `hook_dict` and caches have `<hook>.hook_sae_input`,
    `hook_sae_acts_pre`, `hook_sae_acts_post`, `hook_sae_recons`, `hook_sae_error` and `hook_sae_output`, not `<hook>`;
    of a transcoder, at its output hook. Special tokens are the prefix tokens (CLS, registers).
    """

    hook_specs: dict[str, HookSpec]

    def __init__(self) -> None:
        super().__init__()
        self._spliced: dict[str, SplicedSAE] = {}  # by input hook

    @property
    def acts_to_saes(self) -> dict[str, SAE[Any]]:
        """The spliced SAEs, by (input) hook."""
        return {hook: spliced.sae for hook, spliced in self._spliced.items()}

    def add_sae(
        self, sae: SAE[Any], use_error_term: bool | None = None, exclude_special_tokens: bool | list[int] = False
    ) -> None:
        """Splice in an SAE at its `cfg.metadata.hook_name`, or a transcoder from there to `hook_name_out`.

        It takes the place of one that stands there already, and stays until `reset_saes`.

        Args:
            use_error_term: add what the SAE does not reconstruct, so that the output is that of the encoder alone, but
                for edits of latents. None is the SAE's own setting, by default False.
            exclude_special_tokens: leave prefix tokens as they are; or the positions to leave.

        Raises:
            MedSAEError: an unknown hook, another width or count of positions, a transcoder that runs backwards.
        """
        self._attach(self._splice(sae, use_error_term, exclude_special_tokens))

    def reset_saes(self, act_names: str | list[str] | None = None) -> None:
        """Take out the SAEs at these (input) hooks, or all.

        Raises:
            MedSAEError: an unknown hook. One without an SAE is left as it is.
        """
        names = [*self._spliced] if act_names is None else [act_names] if isinstance(act_names, str) else act_names
        for name in names:
            self._check_own(name)
            if name in self._spliced:
                self._detach(self._spliced[name])

    @contextmanager
    def saes(
        self,
        saes: SAE[Any] | Sequence[SAE[Any]] = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
    ) -> Iterator[Any]:
        """`add_sae` for the time of the context; SAEs that these displace come back at its end.

        Args:
            reset_saes_end: False leaves the SAEs in.
        """
        with ExitStack() as stack:
            for sae in _several(saes):
                spliced = self._splice(sae, use_error_term, exclude_special_tokens)
                displaced = self._attach(spliced)
                if reset_saes_end:
                    stack.callback(self._restore, spliced, displaced)
            yield self

    def run_with_saes(
        self,
        *model_args: Any,
        saes: SAE[Any] | Sequence[SAE[Any]] = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        **model_kwargs: Any,
    ) -> Float[Tensor, "batch ..."]:
        """A forward pass with these SAEs spliced in; see `saes`."""
        with self.saes(saes, reset_saes_end, use_error_term, exclude_special_tokens):
            return self(*model_args, **model_kwargs)

    def run_with_cache_with_saes(
        self,
        *model_args: Any,
        saes: SAE[Any] | Sequence[SAE[Any]] = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, ActivationCache | dict[str, Tensor]]:
        """`run_with_cache` with these SAEs spliced in; see `saes`.

        Args:
            return_cache_object: transformer-lens's `ActivationCache`, else a plain dict.
        """
        with self.saes(saes, reset_saes_end, use_error_term, exclude_special_tokens):
            out, cache = self.run_with_cache(*model_args, remove_batch_dim=remove_batch_dim, **kwargs)
        return out, ActivationCache(cache, self, not remove_batch_dim) if return_cache_object else cache

    def run_with_hooks_with_saes(
        self,
        *model_args: Any,
        saes: SAE[Any] | Sequence[SAE[Any]] = (),
        reset_saes_end: bool = True,
        exclude_special_tokens: bool | list[int] = False,
        **kwargs: Any,
    ) -> Float[Tensor, "batch ..."]:
        """`run_with_hooks` with these SAEs spliced in; see `saes`."""
        with self.saes(saes, reset_saes_end, exclude_special_tokens=exclude_special_tokens):
            return self.run_with_hooks(*model_args, **kwargs)

    @contextmanager
    def latent_edits(self, edits: Mapping[SAE[Any], Mapping[int, LatentEdit]]) -> Iterator[Any]:
        """Edit latents in every forward pass of the context: `{sae: {index: ablate()}}`.

        An SAE that is not spliced in yet is, with the error term, so that the edits alone change the output.

        Raises:
            MedSAEError: an SAE without such a latent, and what `add_sae` refuses. When a pass runs: a value or mask
                that does not fit its images and positions.
        """
        for sae, by_index in edits.items():
            if wrong := [index for index in by_index if not 0 <= index < sae.cfg.d_sae]:
                raise MedSAEError(f"there is no latent {wrong[0]}: the SAE has latents 0 to {sae.cfg.d_sae - 1}")
        there = {id(sae) for sae in self.acts_to_saes.values()}
        with self.saes([sae for sae in edits if id(sae) not in there], use_error_term=True):
            hooks = [(f"{output_hook(sae)}.hook_sae_acts_post", editing_hook(e)) for sae, e in edits.items()]
            with self.hooks(fwd_hooks=hooks):
                yield self

    def hook_points(self) -> Iterable[HookPoint]:
        """transformer-lens's; and those under a spliced SAE, so that hooks on them are taken off as well."""
        return {**self._points, **self.hook_dict}.values()

    def _hooks_in_order(self) -> list[str]:
        """The names in `hook_dict`, in the order of a forward pass."""
        order = []
        for hook in self.hook_specs:
            spliced = self._standing_at(hook)
            order += [hook] if spliced is None else [f"{hook}.{name}" for name, _ in spliced.named_children()]
        return order

    def _one(self, stop: str | None) -> str | None:
        """The hook point that a pass is to stop at; where an SAE stands there, after it."""
        if stop is None or stop in self._points:
            return stop
        found = self._selected(stop)
        if len(found) != 1:
            raise MedSAEError(f"a pass stops at one hook point; {stop!r} stands for {len(found)}")
        return found[0]

    def _up_to(self, stop: str, names: list[str], leave_out: bool) -> list[str]:
        """The names that a pass which ends at `stop` reaches."""
        order = self._hooks_in_order()
        last = max(i for i, name in enumerate(order) if stop in (name, self._host(name)))
        beyond = [name for name in names if order.index(name) > last]
        if beyond and not leave_out:
            raise MedSAEError(f"{beyond[0]} comes after {stop}, where the pass is to stop")
        return [name for name in names if name not in beyond]

    def _host(self, hook: str) -> str:
        """The encoder's hook point that a hook point belongs to: itself, or the place of the spliced SAE."""
        return hook if hook in self._points else hook.rpartition(".")[0]

    def _check_own(self, hook: str) -> None:
        """Raise where the encoder itself has no such hook point, whether an SAE stands at it or not."""
        if hook not in self._points:
            select_hooks([hook], [*self._points], self.name)
            raise MedSAEError(f"{hook!r} is a pattern; an SAE stands at one hook point")

    def _is_active(self, point: HookPoint) -> bool:
        """Whether `_pass` does anything."""
        reads_or_writes = {hook for s in self._spliced.values() for hook in (s.input_hook, s.output_hook)}
        return point.name in reads_or_writes or point.has_hooks()

    def _pass(self, point: HookPoint, activation: Tensor) -> Tensor:
        """What leaves a hook point after its hooks, or the SAE in its place."""
        spliced = self._standing_at(str(point.name))
        activation = point(activation) if spliced is None else spliced(activation)
        for other in self._spliced.values():
            if other.input_hook == point.name != other.output_hook:
                other.capture(activation)
        return activation

    def _standing_at(self, hook: str) -> SplicedSAE | None:
        return next((s for s in self._spliced.values() if s.output_hook == hook), None)

    def _splice(
        self, sae: SAE[Any], use_error_term: bool | None, exclude_special_tokens: bool | list[int]
    ) -> SplicedSAE:
        for hook in (input_hook(sae), output_hook(sae)):
            self._check_own(hook)
        into, out_of, order = self.hook_specs[input_hook(sae)], self.hook_specs[output_hook(sae)], [*self.hook_specs]
        for spec, d in ((into, sae.cfg.d_in), (out_of, getattr(sae.cfg, "d_out", sae.cfg.d_in))):
            if spec.d != d:
                raise MedSAEError(f"the SAE has {d} dimensions at {spec.name}, where {self.name} has {spec.d}")
        if order.index(into.name) > order.index(out_of.name):
            raise MedSAEError(f"{into.name} comes after {out_of.name}, so nothing can be transcoded to there")
        if into.n_positions != out_of.n_positions:
            raise MedSAEError(
                f"{into.name} has {into.n_positions} positions and {out_of.name} {out_of.n_positions}: a transcoder "
                "maps position to position"
            )
        wanted = sae.use_error_term if use_error_term is None else use_error_term
        return SplicedSAE(sae, into.name, out_of.name, wanted, _excluded(out_of, exclude_special_tokens))

    def _attach(self, spliced: SplicedSAE) -> list[SplicedSAE]:
        """Splice in, and return what stood there before."""
        hooks = (spliced.input_hook, spliced.output_hook)
        displaced = [s for s in self._spliced.values() if s.input_hook == hooks[0] or s.output_hook == hooks[1]]
        for other in displaced:
            self._detach(other)
        self._spliced[spliced.input_hook] = spliced
        self._put(spliced.output_hook, spliced)
        return displaced

    def _detach(self, spliced: SplicedSAE) -> None:
        del self._spliced[spliced.input_hook]
        self._put(spliced.output_hook, self._points[spliced.output_hook])
        spliced.sae.setup()  # its hook points have their own names again

    def _restore(self, spliced: SplicedSAE, displaced: list[SplicedSAE]) -> None:
        if spliced.input_hook in self._spliced:
            self._detach(self._spliced[spliced.input_hook])
        for other in displaced:
            self._attach(other)

    def _put(self, hook: str, module: nn.Module) -> None:
        parent, _, leaf = hook.rpartition(".")
        setattr(self.get_submodule(parent), leaf, module)
        self.setup()


def input_hook(sae: SAE[Any]) -> str:
    """The hook that an SAE, or a transcoder, reads.

    Raises:
        MedSAEError: it does not say where it stands.
    """
    if not sae.cfg.metadata.hook_name:
        raise MedSAEError("the SAE does not say where it stands: its cfg.metadata has no hook_name")
    return str(sae.cfg.metadata.hook_name)


def output_hook(sae: SAE[Any]) -> str:
    """The hook that an SAE, or a transcoder, writes to.

    Raises:
        MedSAEError: it does not say where it stands.
    """
    return str(sae.cfg.metadata.hook_name_out or input_hook(sae))


@contextmanager
def _without_hooks(sae: SAE[Any]) -> Iterator[None]:
    points = dict(sae.hook_dict)
    try:
        for name in points:
            setattr(sae, name, nn.Identity())
        yield
    finally:
        for name, point in points.items():
            setattr(sae, name, point)


def _several(saes: SAE[Any] | Sequence[SAE[Any]]) -> Sequence[SAE[Any]]:
    return [saes] if isinstance(saes, nn.Module) else saes


def _excluded(spec: HookSpec, special: bool | list[int]) -> Bool[Tensor, "position 1"] | None:
    positions = list(range(spec.n_prefix)) if isinstance(special, bool) else special
    if special is False or not positions:
        return None
    if spec.is_image_level or not all(0 <= p < spec.n_positions for p in positions):
        has = "no positions" if spec.is_image_level else f"positions 0 to {spec.n_positions - 1}"
        raise MedSAEError(f"{spec.name} has {has}; {positions} cannot be excluded")
    mask = torch.zeros(spec.n_positions, 1, dtype=torch.bool)
    mask[positions] = True
    return mask
