"""Which SAE to train, and how: specifications, checked before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import AliasChoices, ConfigDict, Field

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import CHECKPOINTS, RUN
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.memory import SPLIT_SEED, SPLIT_SHA256
from medsae_plugin.yaml_files import STRICT, FieldError, problem_with

if TYPE_CHECKING:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import TrainingSAE, TrainingSAEConfig

CENTER_AND_SCALE = "center_and_scale"
SAE_LENS_NORMALIZATIONS = ("none", "expected_average_only_in", "covariance_whitening", "layer_norm")
_OURS = {"d_in", "d_sae", "dtype", "device", "metadata", "normalize_activations", "reshape_activations"}

# Other names that a recipe may have for a field.
_SAMPLES = Field(validation_alias=AliasChoices("samples", "total_training_samples"))
_EPOCHS = Field(validation_alias=AliasChoices("epochs", "passes"))


@dataclass(frozen=True)
class SAESpec:
    """One SAE.

    name: of its folder; letters, digits, `.`, `_`, `-`.
    hook: the hook point of the store that it stands at.
    architecture: a name that SAE-Lens registers (standard, gated, jumprelu, topk, batchtopk, matryoshka_batchtopk...);
        `medsae_topk` is `topk` with faster steps, and is saved as such.
    expansion: d_sae as a multiple of the hook's width. Left out, it follows from the width and the training rows.
    normalize: `center_and_scale` (MedSAE's: subtract the training mean, scale so that E||x||^2 = d) or one of
        SAE-Lens's own. Either way it is folded into the weights, and the saved SAE takes raw activations (but for
        `layer_norm`, which SAE-Lens applies at run time).
    options: further fields of SAE-Lens's config of this architecture, such as `k` or `l1_coefficient`. Where it has a
        `k` and none is given, that follows from the hook's width; `aux_loss_coefficient` left out is 32.
    seed: of the initial weights.
    lr: its learning rate. Left out, that of the training.
    decoder: `free`; for baselines `frozen` as it was drawn, or `soft-frozen`, see `training.decoders`.
    """

    name: str
    hook: str
    architecture: str = "standard"
    expansion: int | float | None = None
    normalize: str = CENTER_AND_SCALE
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    lr: float | None = None
    decoder: Literal["free", "frozen", "soft-frozen"] = "free"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def width(self, d_in: int) -> int:
        """d_sae at a hook of width d_in; a width that is left out has to be filled in first, see `defaults`."""
        assert self.expansion is not None
        return round(d_in * self.expansion)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", self.name):
            what = "is no name for an SAE's folder: use letters, digits, '.', '_' and '-'"
            raise FieldError(f"{self.name!r} {what}", "name")
        if self.normalize not in (CENTER_AND_SCALE, *SAE_LENS_NORMALIZATIONS):
            raise FieldError(
                f"SAE {self.name}: normalize {self.normalize!r} is not one of "
                f"{', '.join((CENTER_AND_SCALE, *SAE_LENS_NORMALIZATIONS))}",
                "normalize",
            )
        if self.name in (CHECKPOINTS, RUN):
            what = "is no name for an SAE's folder: training writes one of that name"
            raise FieldError(f"{self.name!r} {what}", "name")
        if self.expansion is not None and self.expansion <= 0:
            raise FieldError(f"SAE {self.name}: expansion {self.expansion} is not above 0", "expansion")


@dataclass(frozen=True)
class TrainingConfig:
    """How SAEs are trained: the fields of SAE-Lens's `SAETrainerConfig` that matter here, and a few of ours.

    total_training_samples: rows that are trained on, with repetition; in a recipe also `samples`. This or `epochs`.
    batch_size: rows a step, of each hook.
    lr: learning rate of Adam.
    lr_end: where a schedule other than constant ends. Left out, a tenth of `lr`.
    lr_scheduler_name: `constant`, `cosineannealing` or `cosineannealingwarmrestarts`.
    lr_warm_up_steps: steps in which the learning rate rises from 0. Left out, a twentieth of the steps.
    lr_decay_steps: last steps, in which it falls to 0. Left out, a fifth of the steps.
    adam_beta1: of Adam.
    adam_beta2: of Adam.
    dead_feature_window: steps without firing after which a latent counts as dead, and the auxiliary loss of TopK and
        its kin begins to revive it. Left out, a fiftieth of the steps, at least 10 and at most 1,000.
    feature_sampling_window: steps over which SAE-Lens counts how often each latent fires.
    n_checkpoints: checkpoints to keep, evenly spread.
    n_batches_for_norm_estimate: batches that SAE-Lens's own normalisations are estimated on.
    validate_every: steps between measurements on the validation split.
    seed: of the order of the rows.
    device: `cpu`, `cuda`, `cuda:1`, `mps`; `--device` of the command line comes before it.
    autocast: SAE-Lens's mixed precision, in bfloat16; weights stay float32. `--precision` of the command line comes
        before it.
    epochs: how often all training rows are passed over; in a recipe also `passes`, its old name. Or `samples`.
    """

    total_training_samples: Annotated[int | None, _SAMPLES] = None
    batch_size: int = 1024
    lr: float = 3e-4
    lr_end: float | None = None
    lr_scheduler_name: str = "constant"
    lr_warm_up_steps: int | None = None
    lr_decay_steps: int | None = None
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    dead_feature_window: int | None = None
    feature_sampling_window: int = 2000
    n_checkpoints: int = 0
    n_batches_for_norm_estimate: int = 100
    validate_every: int = 1000
    seed: int = 0
    device: str = "cpu"
    autocast: bool = False
    epochs: Annotated[int | float | None, _EPOCHS] = None

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        if (self.total_training_samples is None) == (self.epochs is None):
            raise FieldError("give either epochs or samples (total_training_samples)", "total_training_samples")
        if self.epochs is not None and self.epochs <= 0:
            raise FieldError(f"{self.epochs} epochs are none", "epochs")
        samples = self.total_training_samples
        if self.batch_size < 1 or (samples is not None and samples < self.batch_size):
            raise FieldError(
                f"{self.total_training_samples} training samples do not fill one batch of {self.batch_size}",
                "total_training_samples",
            )
        if self.validate_every < 1:
            raise FieldError("validate_every should be at least 1, and n_checkpoints not negative", "validate_every")
        if self.n_checkpoints < 0:
            raise FieldError("validate_every should be at least 1, and n_checkpoints not negative", "n_checkpoints")

    @property
    def steps(self) -> int:
        """Of batches that make up the samples; epochs have to be counted first."""
        assert self.total_training_samples is not None
        return -(-self.total_training_samples // self.batch_size)

    def counted_in(self, store: ActivationStore, hooks: Sequence[str]) -> TrainingConfig:
        """The same with its epochs counted as samples, rows of the store's training split, and what follows from them.

        Raises:
            MedSAEError: hooks with other counts of rows, of which one number cannot make as many epochs; too few rows.
        """
        if self.epochs is None:
            return self.in_steps()
        counts = {store.n_rows(hook, "train") for hook in hooks}
        if len(counts) > 1:
            raise MedSAEError(
                "epochs are passes over the rows of one hook, and these have other counts of rows; train them one by "
                "one, or give samples"
            )
        samples = round(self.epochs * counts.pop())
        if samples < self.batch_size:
            raise MedSAEError(f"{self.epochs:g} epochs are {samples} rows, less than one batch of {self.batch_size}")
        return dataclasses.replace(self, epochs=None, total_training_samples=samples).in_steps()

    def in_steps(self) -> TrainingConfig:
        """The same with the fields that are left out and follow from the number of steps."""
        follow: dict[str, Any] = {
            "lr_warm_up_steps": self.steps // 20,
            "lr_decay_steps": self.steps // 5,
            "dead_feature_window": min(max(self.steps // 50, 10), 1000),
        }
        return dataclasses.replace(self, **{key: n for key, n in follow.items() if getattr(self, key) is None})

    def for_sae_lens(self, checkpoint_path: str) -> SAETrainerConfig:
        """The same as SAE-Lens's config, which checkpoints under `checkpoint_path`; its epochs are counted already."""
        from sae_lens.config import LoggingConfig, SAETrainerConfig

        values = dataclasses.asdict(self.in_steps())
        for ours in ("validate_every", "seed", "epochs"):
            del values[ours]
        values["train_batch_size_samples"] = values.pop("batch_size")
        values["lr_end"] = self.lr / 10 if self.lr_end is None else self.lr_end
        return SAETrainerConfig(
            **values,
            checkpoint_path=checkpoint_path,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        )


def check_specs(store: ActivationStore, specs: Sequence[SAESpec]) -> None:
    """Raise if specs of which nothing is left out (`defaults.fitted`) cannot be trained over the store, or could not be
    saved in the end.

    Raises:
        MedSAEError: none, two of one name, an unknown architecture or option, options that SAE-Lens refuses, a
            normalisation that cannot be folded into this architecture's weights.
    """
    if not specs:
        raise MedSAEError("there is no SAE to train")
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedSAEError(f"two SAEs have the name {', '.join(twice)}")
    for spec in specs:
        _check_end(spec, store.hooks[spec.hook].d)


def build_sae(store: ActivationStore, spec: SAESpec, config: TrainingConfig) -> TrainingSAE[Any]:
    """The untrained SAE of a spec, its weights drawn from the spec's seed, with the metadata that is saved with it."""
    import torch
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(spec.seed)
    sae = _untrained(spec, store.hooks[spec.hook].d, config.device)
    sae.cfg.metadata = SAEMetadata(**_metadata(store, spec, config))
    return sae


def _untrained(spec: SAESpec, d_in: int, device: str) -> TrainingSAE[Any]:
    from sae_lens.registry import get_sae_training_class

    theirs = "none" if spec.normalize == CENTER_AND_SCALE else spec.normalize
    settings = config_class(spec)
    try:
        cfg = settings(
            d_in=d_in,
            d_sae=spec.width(d_in),
            dtype="float32",
            device=device,
            normalize_activations=theirs,
            **spec.options,
        )
        return get_sae_training_class(spec.architecture)[0](cfg)
    except (ValueError, TypeError, AssertionError) as error:
        raise MedSAEError(f"SAE {spec.name}: SAE-Lens refuses these options: {error}") from None


def _check_end(spec: SAESpec, d_in: int) -> None:
    """Fold the normalisation as when training is done, on an SAE that has shapes and no weights."""
    import torch

    from medsae_plugin.training.normalization import CenterAndScale

    if not (d_sae := spec.width(d_in)):
        raise MedSAEError(f"SAE {spec.name}: expansion {spec.expansion} of {d_in} dimensions leaves no latent")
    sae = _untrained(spec, d_in, "meta")
    if not 0 < (k := getattr(sae.cfg, "k", 1)) <= d_sae:
        raise MedSAEError(f"SAE {spec.name}: k is {k}, and there are {d_sae} latents; choose k between 1 and {d_sae}")
    if spec.normalize == "layer_norm" and hasattr(sae.cfg, "aux_loss_coefficient"):
        raise MedSAEError(
            f"SAE {spec.name}: normalize layer_norm does not go with {spec.architecture}, for SAE-Lens fails as soon "
            f"as a latent is dead (its auxiliary loss knows no such norm); normalize: {CENTER_AND_SCALE} does"
        )
    try:
        if spec.normalize in (CENTER_AND_SCALE, "covariance_whitening"):
            CenterAndScale(torch.zeros(d_in, dtype=torch.float64), 1.0).fold_into(sae)
        elif spec.normalize == "expected_average_only_in":
            sae.fold_activation_norm_scaling_factor(1.0)
    except NotImplementedError as error:
        raise MedSAEError(
            f"SAE {spec.name}: normalize {spec.normalize} does not go with {spec.architecture}, for it could not be "
            f"folded into the weights in the end ({error}); normalize: none does"
        ) from None


def config_class(spec: SAESpec) -> type[TrainingSAEConfig]:
    """SAE-Lens's config of the spec's architecture.

    Raises:
        MedSAEError: it trains none of this name, or the spec has options that the config has not, or of another kind.
    """
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

    if spec.architecture not in SAE_TRAINING_CLASS_REGISTRY:
        raise MedSAEError(
            f"SAE {spec.name}: SAE-Lens trains no architecture {spec.architecture!r}; "
            f"it trains {', '.join(sorted(SAE_TRAINING_CLASS_REGISTRY))}"
        )
    own = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1]
    known = [f.name for f in dataclasses.fields(own) if f.name not in _OURS]
    kinds = get_type_hints(own)
    for option, value in spec.options.items():
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
            raise MedSAEError(f"SAE {spec.name}: {spec.architecture} has no option {option!r}; {hint}")
        if problem := problem_with(value, kinds[option], option):
            raise MedSAEError(f"SAE {spec.name}: {problem}")
    return own


def _metadata(store: ActivationStore, spec: SAESpec, config: TrainingConfig) -> dict[str, Any]:
    """What is saved with an SAE: what it stands at and was trained on, in counts and a hash; no path, no patient."""
    images = store.images[~store.images["image_id"].isin(store.failures["image_id"])]
    train = images[images["split"] == "train"]
    return {
        "model_name": store.encoder_name,
        "encoder_sha256": store.weights_sha256,
        "hook_name": spec.hook,
        "positions": store.manifest.positions,
        "preprocessing": store.preprocessing,
        "normalize": spec.normalize,
        "seed": spec.seed,
        SPLIT_SHA256: store.split_sha256,
        SPLIT_SEED: store.manifest.seed,
        "training_images": len(train),
        "training_patients": int(train["patient"].nunique()),
        "training_rows": store.n_rows(spec.hook, "train"),
        "training_samples": config.total_training_samples,
        "medsae_plugin_version": __version__,
    }
