"""`medsae_topk`: SAE-Lens's top-k SAE with steps that multiply what fires alone, and saved as plain `topk`.

Of a step's products only the encoder's forward one needs every latent. The k latents of a row that fire are summed from
the decoder's rows, and so are the gradients, which are zero elsewhere: weighted sums of gathered rows in place of dense
products, of k in d_sae of their cost. Loss and gradients are those of `topk`; sums run in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor
from torch.nn.functional import embedding_bag

ARCHITECTURE = "medsae_topk"


@dataclass
class SparseTopKConfig(TopKTrainingSAEConfig):
    """SAE-Lens's of `topk`; `use_sparse_activations` has no meaning here, and is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_sparse_activations:
            raise ValueError(f"{ARCHITECTURE} is sparse as it is: leave out use_sparse_activations")

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def get_inference_config_class(self) -> type[SAEConfig]:
        return TopKSAEConfig


class SparseTopKTrainingSAE(TopKTrainingSAE):
    """See the module. `encode`, `decode` and what is saved are `topk`'s."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """As SAE-Lens's, but for `feature_acts`, which are sparse, and `hidden_pre`, which has no gradient.

        With `rescale_acts_by_decoder_norm` the norms choose the latents, and cancel in what is reconstructed.
        """
        x = self.process_sae_in(step_input.sae_in)
        with torch.no_grad():
            pre = (x @ self.W_enc + self.b_enc).to(self.W_dec.dtype)
            norms = self.W_dec.norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else torch.ones_like(self.b_enc)
            chosen = (pre * norms).topk(self.cfg.k, sorted=False).indices
        firing = _Chosen.apply(x, self.W_enc, self.b_enc, pre, chosen).relu()
        out = _Summed.apply(firing, self.W_dec, chosen) + self.b_dec
        losses = {"mse_loss": self.mse_loss_fn(out, step_input.sae_in).sum(dim=-1).mean()}
        losses["auxiliary_reconstruction_loss"] = self._revival(step_input, x, out, norms)
        acts = firing.detach() * norms[chosen]
        at = torch.stack([torch.arange(len(x), device=x.device).repeat_interleave(self.cfg.k), chosen.flatten()])
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=out,
            feature_acts=torch.sparse_coo_tensor(at, acts.flatten(), pre.shape, check_invariants=False),
            hidden_pre=pre,
            loss=sum(losses.values(), start=out.new_zeros(())),
            losses=losses,
        )

    def _revival(self, step_input: TrainStepInput, x: Tensor, out: Tensor, norms: Tensor) -> Tensor:
        """SAE-Lens's auxiliary loss (`calculate_topk_aux_loss`), of the dead latents' products alone."""
        mask = step_input.dead_neuron_mask
        if mask is None or not (dead := mask.nonzero().squeeze(1)).numel():
            return out.new_zeros(())
        fitting = x.shape[-1] // 2
        pre = x @ self.W_enc[:, dead] + self.b_enc[dead]
        top = (pre * norms[dead]).topk(min(fitting, len(dead)), sorted=False).indices
        acts = torch.zeros_like(pre).scatter(-1, top, pre.gather(-1, top))
        error = (acts @ self.W_dec[dead] - (step_input.sae_in - out).detach()).square().sum(-1).mean()
        return self.cfg.aux_loss_coefficient * min(len(dead) / fitting, 1.0) * error


class _Chosen(torch.autograd.Function):
    """`pre` at the chosen latents, with the gradients of x @ W_enc + b_enc there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_enc: Tensor, b_enc: Tensor, pre: Tensor, chosen: Tensor) -> Tensor:
        ctx.save_for_backward(x, w_enc, chosen)
        return pre.gather(1, chosen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, w_enc, chosen = ctx.saved_tensors
        of_x = _sums(chosen, w_enc.T.contiguous(), grad) if ctx.needs_input_grad[0] else None
        of_b = grad.new_zeros(w_enc.shape[1]).index_add_(0, chosen.flatten(), grad.flatten())
        return of_x, _sums_by_latent(chosen, x, grad, w_enc.shape[1]).T, of_b, None, None


class _Summed(torch.autograd.Function):
    """sum_j firing_ij W_dec[chosen_ij]: what the decoder makes of the latents that fire."""

    @staticmethod
    def forward(ctx: Any, firing: Tensor, w_dec: Tensor, chosen: Tensor) -> Tensor:
        ctx.save_for_backward(firing, w_dec, chosen)
        return _sums(chosen, w_dec, firing)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        firing, w_dec, chosen = ctx.saved_tensors
        with torch.enable_grad():  # torch's own, which gathers no rows
            weights = firing.detach().requires_grad_()
            (of_firing,) = torch.autograd.grad(_sums(chosen, w_dec.detach(), weights), weights, grad)
        of_w = _sums_by_latent(chosen, grad, firing, len(w_dec)) if ctx.needs_input_grad[1] else None
        return of_firing, of_w, None


def _sums(
    chosen: Int[Tensor, "rows k"], table: Float[Tensor, "n d"], weights: Float[Tensor, "rows k"]
) -> Float[Tensor, "rows d"]:
    """Of each row the weighted sum of the table's rows that it chose."""
    return embedding_bag(chosen, table, per_sample_weights=weights, mode="sum")


def _sums_by_latent(
    chosen: Int[Tensor, "rows k"], x: Float[Tensor, "rows d"], weights: Float[Tensor, "rows k"], n: int
) -> Float[Tensor, "n d"]:
    """Of each of n latents the weighted sum of the rows that chose it."""
    order = chosen.flatten().argsort(stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=n)
    rows = order.div(chosen.shape[1], rounding_mode="floor")
    return embedding_bag(rows, x, counts.cumsum(0) - counts, per_sample_weights=weights.flatten()[order], mode="sum")


def register() -> None:
    """Tell SAE-Lens of it, once."""
    if ARCHITECTURE not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(ARCHITECTURE, SparseTopKTrainingSAE, SparseTopKConfig)
