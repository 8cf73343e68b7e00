"""A recipe that fits a store, written with a comment on each value."""

from __future__ import annotations

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.defaults import AUX_LOSS, FIRINGS, WIDEST, fitting_expansion, fitting_k
from medsae_plugin.training.specs import TrainingConfig

STEPS = 3000
"""Steps enough for latents to settle, on the data that docs/training.md tells of."""
LEAST_BATCH, MOST_BATCH = 128, 1024
LR = 3e-3
MOST_EPOCHS = 300


def recipe_for(store: ActivationStore, hook: str) -> str:
    """A recipe of one SAE at a hook of a store, as YAML with comments; `load_recipe` reads it.

    Raises:
        MedSAEError: an unknown hook; no training rows.
    """
    if hook not in store.hooks:
        raise MedSAEError(f"the store has no hook {hook!r}; it has {', '.join(store.hooks)}")
    d, rows = store.hooks[hook].d, store.n_rows(hook, "train")
    if not rows:
        raise MedSAEError(f"the store has no training rows of {hook}; extract with a split named train")
    k = fitting_k(d)
    expansion = fitting_expansion(d, rows, k)
    batch = fitting_batch(rows)
    epochs = min(max(round(STEPS * batch / rows), 1), MOST_EPOCHS)
    config = TrainingConfig(batch_size=batch, lr=LR, epochs=epochs).counted_in(store, [hook])
    return f"""\
# One SAE at {hook} of {store.encoder_name}: {rows:,} training rows of {d} dimensions.
#   medsae train STORE --recipe THIS_FILE --out saes          (--plan: what it takes, without training)
# docs/training.md says what every field means. What is commented out is left to follow from the rest.
saes:
  - name: {hook.replace(".", "-").removeprefix("hook_")}
    hook: {hook}
    architecture: batchtopk  # keeps the k strongest latents a row, on average over a batch
    expansion: {expansion}  # {round(expansion * d):,} latents, of {FIRINGS} firings a pass; at most {WIDEST} x {d}
    normalize: center_and_scale  # folded into the weights in the end
    options:
      k: {k}  # latents that fire on a row: the square root of {d}, to a multiple of 4
      # aux_loss_coefficient: {AUX_LOSS:g}  # of what brings dead latents back
    seed: 0
training:
  epochs: {epochs}  # {config.total_training_samples:,} samples, {config.steps:,} steps
  batch_size: {batch}  # about a 64th of the rows, {LEAST_BATCH} to {MOST_BATCH}
  lr: {LR}
  # lr_warm_up_steps: {config.lr_warm_up_steps}  # a twentieth of the steps
  # lr_decay_steps: {config.lr_decay_steps}  # a fifth of the steps
  # dead_feature_window: {config.dead_feature_window}  # a fiftieth of the steps
  validate_every: {max(config.steps // 20, 1)}  # steps
"""


def fitting_batch(rows: int) -> int:
    """Rows a step: the power of two at most a 64th of the training rows, between 128 and 1,024, never above them."""
    batch = LEAST_BATCH
    while batch < MOST_BATCH and batch * 2 <= rows / 64:
        batch *= 2
    return min(batch, rows)
