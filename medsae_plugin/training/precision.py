"""The precision of a training's steps: SAE-Lens's own autocast, where a check of the first batch allows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.machine import to_device
from medsae_plugin.precision import AUTO, BF16, FP32, Agreement, Precision
from medsae_plugin.sae_folders import RUN
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.defaults import fitted
from medsae_plugin.training.normalization import CenterAndScale
from medsae_plugin.training.records import TrainingRun
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAESpec, TrainingConfig, build_sae


def in_precision(
    asked: str | None, store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig, begun: Path | None
) -> tuple[TrainingConfig, Precision]:
    """The config with the `autocast` that `asked` (auto, fp32 or bf16) comes to; None leaves it as it is.

    `auto` goes on in the precision of a run that was begun. Else it takes bfloat16 if the chip computes in it and, on
    the first batch, what every SAE's encoder makes of it is as near to float32 as `medsae_plugin.precision` says.
    Weights are float32 either way.

    Args:
        begun: the folder of a run, if there is one.

    Raises:
        MedSAEError: no such precision; the run was begun in another; specs that do not fit the store.
    """
    if asked is None:
        return config, Precision(BF16 if config.autocast else FP32, "as the recipe says")
    chosen = Precision.asked(asked, torch.device(config.device))
    if begun is not None and (begun / RUN).is_file():
        there = BF16 if TrainingRun.open(begun / RUN).training.autocast else FP32
        if asked not in (AUTO, there):
            raise MedSAEError(
                f"{begun} was begun in {there}; choose another folder, --precision {there}, or auto, which goes on so"
            )
        chosen = Precision(there, "auto: as the run was begun" if asked == AUTO else "")
    chosen = chosen or _checked(store, specs, config)
    return dataclasses.replace(config, autocast=chosen.name == BF16), chosen


@torch.no_grad()
def _checked(store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig) -> Precision:
    """What `auto` takes, by the untrained SAEs on the first batch."""
    device = torch.device(config.device)
    agreements = []
    with torch.random.fork_rng(devices=[]):
        for spec in fitted(store, specs):
            sae = build_sae(store, spec, config)
            rows = next(store.batches(spec.hook, config.batch_size, split="train", seed=config.seed))[spec.hook]
            if spec.normalize == CENTER_AND_SCALE:
                rows = CenterAndScale.of(store, spec.hook)(rows)
            x = to_device(rows, device)
            agreements.append(Agreement())
            exact = _encoded(sae.encode_with_hidden_pre(x))
            with torch.autocast(device.type, torch.bfloat16):
                agreements[-1].add(exact, _encoded(sae.encode_with_hidden_pre(x)))
    return Precision.checked(agreements)


def _encoded(latents_and_pre: tuple[Tensor, Tensor]) -> Tensor:
    """What an encoder makes before its nonlinearity; its latents where SAE-Lens gives zeros (matching pursuit)."""
    latents, pre = latents_and_pre
    return pre if pre.any() else latents
