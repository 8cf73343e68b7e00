"""Vision towers that transformers does not bring as one module."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from medsae_plugin.encoders.families import FAMILIES, Family
from medsae_plugin.errors import MedSAEError


class VisionTower(nn.Module):
    """A transformers vision model and the projection to the image embedding, under MedCLIP's key names.

    Args:
        projection_dim: None where the pooled output is the embedding.
        pooler: whether the model's own is used; where it has weights and is not, it has to go.
    """

    def __init__(self, family: str, config: dict[str, Any], projection_dim: int | None, pooler: bool = True) -> None:
        super().__init__()
        whole = build_model(FAMILIES[family], config_of(FAMILIES[family], config), pooler)
        model: Any = parts_of(FAMILIES[family], whole)[0]
        unused = None if pooler else getattr(model, "pooler", None)
        if unused is not None and any(True for _ in unused.parameters()):
            model.pooler = None  # as transformers' models have it that are made without one
        self.model: nn.Module = model
        self.projection_head: nn.Module = nn.Identity()
        if projection_dim is not None:
            shapes = model.config
            width = shapes.hidden_size if hasattr(shapes, "hidden_size") else shapes.hidden_sizes[-1]
            self.projection_head = nn.Linear(width, projection_dim, bias=False)


class Gemma3VisionTower(nn.Module):
    """Gemma 3's image path: the SigLIP tower, and the projector to the soft tokens that its language model reads.

    The pooled output is the mean of the soft tokens, `(batch, mm_tokens_per_image, d)`, which a hook point carries.
    """

    def __init__(self, config: Any) -> None:
        import transformers
        from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

        super().__init__()
        self.config = config
        self.vision_tower = transformers.AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = Gemma3MultiModalProjector(config)

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens d"]:
        return self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)


class DenseNetConfig(SimpleNamespace):
    """Shapes of a DenseNet; by default DenseNet-121 on images of one channel, as TorchXRayVision's."""

    def __init__(self, **fields: Any) -> None:
        shapes = {"num_channels": 1, "init_features": 64, "growth_rate": 32, "block_config": [6, 12, 24, 16]}
        super().__init__(**{**shapes, **fields})


class DenseNetTower(nn.Module):
    """MONAI's DenseNet up to the rectified last maps, whose mean is TorchXRayVision's feature vector."""

    def __init__(self, config: DenseNetConfig) -> None:
        try:
            from monai.networks.nets import DenseNet
        except ImportError:
            raise MedSAEError("a DenseNet needs MONAI: pip install 'medsae-plugin[xrv]'") from None
        super().__init__()
        self.config = config
        shapes = {k: v for k, v in vars(config).items() if k != "num_channels"}
        self.features = DenseNet(spatial_dims=2, in_channels=config.num_channels, out_channels=1, **shapes).features

    def forward(self, pixel_values: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch d rows columns"]:
        return F.relu(self.features(pixel_values))


_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
_OWN = {cls.__name__: cls for cls in (Gemma3VisionTower, DenseNetConfig, DenseNetTower)}


def classes_of(family: Family) -> tuple[Any, Any]:
    """A family's config and model class."""
    import transformers

    config, model = (_OWN.get(name) or getattr(transformers, name) for name in family.model)
    return config, model


def config_of(family: Family, fields: dict[str, Any]) -> Any:
    """A family's config from a card's fields.

    Raises:
        MedSAEError: fields that make no config.
    """
    import transformers

    config_class = classes_of(family)[0]
    try:
        if config_class is transformers.AutoConfig:
            return config_class.for_model(**fields)
        return config_class(**{**fields, **family.settings})
    except Exception as error:  # the configs raise errors of many kinds, from packages of their own too
        raise MedSAEError(f"vision makes no {family.model[0]}: {_first_line(error)}") from None


def saved_config(family: Family, folder: Path) -> Any:
    """A family's config from a folder's `config.json`.

    Raises:
        MedSAEError: the file is damaged, or of another kind of model.
    """
    try:
        return classes_of(family)[0].from_pretrained(folder, **family.settings)
    except Exception as error:  # as above
        raise MedSAEError(f"config.json in {folder} makes no {family.model[0]}: {_first_line(error)}") from None


def build_model(family: Family, config: Any, pooler: bool = True) -> Any:
    """A family's model with random weights; without its pooler, where it can do without.

    Raises:
        MedSAEError: a config of which no model can be made.
    """
    import transformers

    model_class = classes_of(family)[1]
    try:
        if model_class is transformers.AutoModel:
            return model_class.from_config(config)
        return model_class(config, **model_options(family, pooler))
    except (TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, MedSAEError):
            raise
        raise MedSAEError(f"vision makes no {family.model[1]}: {_first_line(error)}") from None


def model_options(family: Family, pooler: bool) -> dict[str, bool]:
    """Arguments of the model class beside the config."""
    return {"add_pooling_layer": False} if family.optional_pooler and not pooler else {}


def pretrained_model(
    name: str, model_class: Any, folder: Path, source: Path | None, pooler: bool = True, **options: Any
) -> Any:
    """A transformers model in float32; every weight of it must be there, but for those of a pooler that is not used.

    Args:
        name: the card's, for messages.
        folder: holds the checkpoint, for messages.
        source: the folder again; or None, where the options say it all.
        pooler: whether the model's own is used.

    Raises:
        MedSAEError: a checkpoint that is damaged, or lacks weights.
    """
    options |= {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, report = model_class.from_pretrained(source, dtype=torch.float32, **options)
    except _UNREADABLE as error:
        raise MedSAEError(f"card {name}: {folder} cannot be loaded: {error}") from None
    lacking = sorted(map(str, [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]))
    only_pooler = bool(lacking) and all(key.startswith("pooler.") for key in lacking)
    if only_pooler and not pooler:
        model.pooler = None  # as transformers' models have it that are made without one
    elif lacking:
        hint = "; a checkpoint without a pooler needs a card with pooling: cls (or mean)" if only_pooler else ""
        raise MedSAEError(
            f"card {name}: {folder} lacks weights, or has them in other shapes: {', '.join(lacking[:20])}{hint}"
        )
    return model


def parts_of(family: Family, model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The vision tower in a family's model, and the projection to the image embedding."""
    projection = model.get_submodule(family.projection) if family.projection else nn.Identity()
    return model.get_submodule(family.tower), projection


def take_off_capturing_hooks(module: nn.Module) -> None:
    """Take off the hooks that transformers adds when hidden states are first asked for; it adds them again if need be.

    They are functions of a function, which pickle refuses.
    """
    for part in module.modules():
        for number, hook in list(part._forward_hooks.items()):
            if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
                del part._forward_hooks[number]
        part.__dict__.pop("_output_capturing_hooks_installed", None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' report of what is missing, which is told in words, and its progress bar."""
    import transformers

    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
