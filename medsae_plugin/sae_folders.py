"""Folders of SAEs in SAE-Lens's format: the one place that opens them, and says in words what is wrong with one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import read_json

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
# What training adds: its record and its validation history in an SAE's folder; what it is, and its checkpoints, in the
# folder of the run.
HISTORY = "history.parquet"
REPORT, RUN, CHECKPOINTS = "training.json", "run.json", "checkpoints"
_LFS = b"version https://git-lfs"
_FOREIGN = ("*.pt", "*.pth", "*.bin", "*.ckpt")


def load_sae(path: str | Path, device: str = "cpu") -> SAE[Any]:
    """The SAE in this folder, in SAE-Lens's format: in float32, whatever it was saved in, and of raw activations.

    Raises:
        MedSAEError: no SAE there; files that are missing, damaged, or do not fit each other; an architecture that
            SAE-Lens does not know; what `check_sound` refuses.
    """
    from sae_lens import SAE

    folder = Path(path)
    config = read_config(folder)
    with load_errors(folder):
        _check_architecture(config, folder)
        _check_weights(config, folder)
        sae: SAE[Any] = SAE.load_from_disk(folder, device=device, dtype="float32")
    check_sound(sae, folder)
    return sae


def save_sae(sae: SAE[Any], folder: Path) -> None:
    """Write an SAE into a folder in SAE-Lens's format; of one in training, what it is for inference.

    SAE-Lens writes the fields of `cfg.json` in the order of a set, another in each process; here they are sorted, so
    that the same SAE gives the same file.
    """
    from sae_lens.saes.sae import TrainingSAE

    sae.save_inference_model(folder) if isinstance(sae, TrainingSAE) else sae.save_model(folder)
    config = read_object(folder / CONFIG)
    (folder / CONFIG).write_text(json.dumps(config, sort_keys=True), encoding="utf-8")


def check_sound(sae: SAE[Any], what: str | Path) -> None:
    """Raise unless an SAE is of raw activations, and its weights are finite.

    Raises:
        MedSAEError: weights that take normalised activations without holding by what; nan or infinity among them.
    """
    import torch

    if (normalised := sae.cfg.normalize_activations) in ("expected_average_only_in", "covariance_whitening"):
        raise MedSAEError(
            f"{what} takes activations that are normalised ({normalised}) and does not hold by what, as SAE-Lens's "
            "checkpoints of an unfinished training do; take the finished SAE, or fold the normalisation into the "
            "weights (SAE-Lens's fold_activation_norm_scaling_factor, fold_activation_whitening) and save it"
        )
    bad = [name for name, weights in sae.state_dict().items() if not torch.isfinite(weights).all()]
    if bad:
        raise MedSAEError(f"{what} has nan or infinity among its weights ({', '.join(bad)}); its training diverged")


def check_scorable(sae: SAE[Any], what: str | Path) -> None:
    """Raise unless latents can be scored: at least 0, of one hook, each row's its own.

    Raises:
        MedSAEError: a transcoder, a temporal SAE, signed latents (abstopk).
    """
    from sae_lens import AbsTopKSAE, TemporalSAE, Transcoder

    if isinstance(sae, Transcoder):
        raise MedSAEError(
            f"{what} is a transcoder, which reads one hook and writes another, and is not scored as an SAE"
        )
    if isinstance(sae, TemporalSAE):
        raise MedSAEError(f"{what} is a temporal SAE: its latents hang on the order of rows, and images have none")
    if isinstance(sae, AbsTopKSAE):
        raise MedSAEError(
            f"{what} is an abstopk SAE, whose latents are signed; scores take a latent for present where it is above "
            "0. Make the same SAE with a latent for each sign: "
            "medsae_plugin.training.split_by_sign(SAE.load_from_disk(FOLDER)).save_model(OTHER_FOLDER)"
        )


def sae_sha256(sae: SAE[Any]) -> str:
    """SHA-256 over an SAE's weights and architecture, whatever file they came from."""
    digest = hashlib.sha256(sae.cfg.architecture().encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def check_sae_folder(path: str | Path) -> None:
    """Raise a MedSAEError if the folder holds no SAE."""
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return
    if not folder.is_dir():
        there = "it is a file; give the folder of an SAE" if folder.exists() else "there is no such folder"
        raise MedSAEError(f"{folder} holds no SAE: {there}")
    message = f"{folder} holds no SAE: there is no {CONFIG} in it"
    if inside := sorted(file.parent.name for file in folder.glob(f"*/{CONFIG}")):
        message += f"; there is in {', '.join(inside[:12])}: give these, as {folder}/{inside[0]}"
    elif any(file for pattern in _FOREIGN for file in folder.glob(pattern)):
        message += "; SAEs of other libraries are read by medsae import"
    raise MedSAEError(message)


def read_config(path: str | Path) -> dict[str, Any]:
    """What the `cfg.json` of an SAE's folder holds.

    Raises:
        MedSAEError: there is none, or it is damaged.
    """
    check_sae_folder(path)
    return read_object(Path(path) / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        MedSAEError: it does not.
    """
    refuse_lfs_pointer(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise MedSAEError(f"{path} should hold a JSON object")
    return content


def refuse_lfs_pointer(file: Path) -> None:
    """Raise a MedSAEError if a file is what git leaves of a large one where git-lfs is not installed."""
    with file.open("rb") as opened:
        if opened.read(len(_LFS)) == _LFS:
            raise MedSAEError(
                f"{file} is a git-lfs pointer and not the file itself: run git lfs pull in that clone, or download it"
            )


def without_training_files(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Paths such as a shell makes of `saes/*`: the SAEs' folders, and what else training leaves beside them."""
    given = [Path(path) for path in paths]
    aside = [path for path in given if path.name in (RUN, CHECKPOINTS) and (path.parent / RUN).is_file()]
    return [path for path in given if path not in aside], aside


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell SAEs' folders apart: as many of each path's last components as that takes.

    Raises:
        MedSAEError: a folder that is given twice.
    """
    resolved = [p.resolve() for p in paths]
    if len(set(resolved)) < len(resolved):
        raise MedSAEError("the same SAE is given twice")
    depth = 1
    while len({p.parts[-depth:] for p in resolved}) < len(resolved):
        depth += 1
    return ["/".join(p.parts[-depth:]) for p in resolved]


@contextmanager
def load_errors(what: str | Path) -> Iterator[None]:
    """What SAE-Lens, safetensors and torch raise for files that do not make an SAE, as a MedSAEError that names it."""
    try:
        yield
    except (MedSAEError, OSError):
        raise
    except Exception as error:  # of many classes: KeyError, TypeError, RuntimeError, SafetensorError...
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = f"{reason} is missing" if isinstance(error, KeyError) else reason
        raise MedSAEError(f"{what} does not load with SAE-Lens: {reason}") from error


def _check_architecture(config: dict[str, Any], folder: Path) -> None:
    from sae_lens import __version__ as installed
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    architecture, metadata = config.get("architecture", "standard"), config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise MedSAEError(f"{folder / CONFIG}: metadata should be an object")
    # A field of TrainingSAEConfig alone: this was saved in training, before normalisation was folded into the weights.
    if "decoder_init_norm" in config and metadata.get("normalize") == "center_and_scale":
        raise MedSAEError(
            f"{folder} is a checkpoint whose weights take centred and scaled activations, and it does not hold by "
            "what; take the finished SAE, or go on with its training (the same medsae train)"
        )
    if architecture in SAE_CLASS_REGISTRY:
        if architecture == "topk" and "k" not in config and "k" not in (config.get("activation_fn_kwargs") or {}):
            raise MedSAEError(f"{folder / CONFIG} does not say k, the number of active latents, of its topk SAE")
        return
    if architecture in SAE_TRAINING_CLASS_REGISTRY:
        raise MedSAEError(
            f"{folder} is a checkpoint of an unfinished {architecture} training; take the finished SAE, or finish this "
            f"one with SAE-Lens: TrainingSAE.load_from_disk({str(folder)!r}).save_inference_model(OTHER_FOLDER)"
        )
    raise MedSAEError(
        f"{folder} is an SAE of architecture {architecture!r}, which SAE-Lens {installed} does not know; it was saved "
        f"by SAE-Lens {metadata.get('sae_lens_version', 'of unknown version')}. Known are "
        f"{', '.join(sorted(SAE_CLASS_REGISTRY))}"
    )


def _check_weights(config: dict[str, Any], folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    if not file.is_file():
        raise MedSAEError(f"{folder} holds no SAE: there is no {WEIGHTS} in it")
    refuse_lfs_pointer(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            types = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except SafetensorError as error:
        raise MedSAEError(f"{file} is cut short or damaged ({error}); get it again") from None
    if whole := [f"{name} ({kind})" for name, kind in types.items() if not kind.startswith(("F", "BF"))]:
        raise MedSAEError(f"{file} holds weights that are no floating-point numbers: {', '.join(whole)}")
    wanted = config.get("d_sae"), config.get("d_out", config.get("d_in"))  # d_out: a transcoder's
    if "W_dec" in shapes and shapes["W_dec"] != wanted:
        raise MedSAEError(
            f"{folder}: its weights do not fit its {CONFIG}, which says d_sae {wanted[0]} and d_in {wanted[1]}; its "
            f"W_dec is {' x '.join(map(str, shapes['W_dec']))}"
        )
