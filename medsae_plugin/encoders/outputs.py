"""What a vision model returns, as an image embedding: pooled, or the mean and log-variance of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from medsae_plugin.errors import MedSAEError

_LEAST_NORM = 1e-12


def pooled_output(output: Any, n_prefix: int, pooling: str | None) -> Float[Tensor, "batch d"]:
    """The pooled output of a model: its own, unless `pooling` says how to pool its last states.

    Args:
        output: a model's output with `pooler_output` or `last_hidden_state`, or a tensor (or a tuple that starts with
            one) of `(batch, d)`, `(batch, position, d)` or `(batch, d, rows, columns)`.
        n_prefix: prefix tokens before the image's own.
        pooling: `cls` is the first token, `mean` that of the image's own tokens or of the map; None is the model's
            own, else the first token where there is a prefix, else the mean.

    Raises:
        MedSAEError: an output that holds none of these.
    """
    own = _field(output, "pooler_output")
    if pooling is None and own is not None:
        return rearrange(own, "batch d ... -> batch (d ...)")
    states = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(states, Tensor):
        states = _field(output, "last_hidden_state")
    if states is None or states.ndim not in (2, 3, 4):
        raise MedSAEError("the model's output is no tensor, and has no pooler_output and no last_hidden_state")
    if states.ndim == 4:
        return rearrange(F.adaptive_avg_pool2d(states, 1), "batch d 1 1 -> batch d")
    if states.ndim == 2:
        return states
    if pooling == "cls" or (pooling is None and n_prefix):
        return states[:, 0]
    return states[:, n_prefix:].mean(1)


def along_unit(embedding: Float[Tensor, "batch d"], change: Callable[[Tensor], Tensor]) -> Float[Tensor, "batch d"]:
    """The embedding with its direction changed: `change` of it divided by its L2 norm, times that norm.

    What `change` leaves as it is comes back to the bit; gradients flow through it.
    """
    norm = embedding.norm(dim=-1, keepdim=True).clamp_min(_LEAST_NORM)
    unit = embedding / norm
    changed = change(unit)
    # What dividing and multiplying round off.
    rounding = (embedding - norm * unit).detach().masked_fill(changed != unit, 0)
    return norm * changed + rounding


class NamedOutputs:
    """Parts of a model's output by role: each is what the module of that path gives, or a field of the output."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self._names, self._seen = names, dict[str, Any]()
        modules = dict(model.named_modules())
        self._handles = [  # kept for copies, as the encoder's are
            modules[name].register_forward_hook(partial(self._note, role))
            for role, name in names.items()
            if name in modules
        ]

    def take(self, role: str, output: Any) -> Float[Tensor, "batch d"]:
        """The part of this role in a pass that has given `output`.

        Raises:
            MedSAEError: the model has no such module, and its output no such field.
        """
        name = self._names[role]
        value = self._seen.pop(role, None)
        value = _field(output, name) if value is None else value
        if not isinstance(value, Tensor) or value.ndim != 2:
            raise MedSAEError(f"outputs: {role}: no module and no field {name!r} of the output gives (batch, d)")
        return value

    def _note(self, role: str, module: nn.Module, args: Any, output: Any) -> None:
        self._seen[role] = output


def _field(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
