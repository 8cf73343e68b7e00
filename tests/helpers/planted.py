"""Stores of activations with known sparse structure, and SAEs whose latents are known because they are set."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from medsae_plugin.data.splits import split_by_patient
from medsae_plugin.scores.matrix import MatrixManifest
from medsae_plugin.store import ActivationStore
from medsae_plugin.store.layout import EncoderInfo, HookInfo, ImagesInfo, Manifest
from medsae_plugin.store.writer import StoreWriter


def dictionary(d: int, n_features: int, seed: int = 0) -> np.ndarray:
    """Unit directions, `(n_features, d)`."""
    directions = np.random.default_rng(seed).normal(size=(n_features, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def planted_rows(n: int, d: int, n_features: int, seed: int = 0, offset: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are sparse sums of the dictionary's directions plus a common offset, and the sparse codes."""
    rng = np.random.default_rng(seed + 1)
    codes = rng.uniform(1, 2, (n, n_features)) * (rng.random((n, n_features)) < 2 / n_features)
    rows = codes @ dictionary(d, n_features, seed) + offset + 0.01 * rng.normal(size=(n, d))
    return rows.astype(np.float32), codes


def made_up_images(n: int, seed: int) -> pd.DataFrame:
    """Three images a patient, three splits."""
    patients = [f"patient{i // 3:05d}" for i in range(n)]
    return pd.DataFrame(
        {
            "image_id": np.arange(n),
            "path": [f"{p}/view{i % 3}.png" for i, p in enumerate(patients)],
            "patient": patients,
            "split": split_by_patient(patients, {"train": 0.6, "val": 0.2, "test": 0.2}, seed),
        }
    )


def write_store(
    folder: Path,
    activations: dict[str, np.ndarray],
    per_shard: int = 64,
    seed: int = 0,
    images: pd.DataFrame | None = None,
    preprocessing: dict[str, Any] | None = None,
) -> ActivationStore:
    """A store of `(images, d)` or `(images, positions, d)` arrays by hook, of these images or of made up ones."""
    n = len(next(iter(activations.values())))
    images = made_up_images(n, seed) if images is None else images
    infos = {}
    for hook, a in activations.items():
        positions = 1 if a.ndim == 2 else a.shape[1]
        side = round(positions**0.5)
        infos[hook] = HookInfo(a.shape[-1], positions, None if a.ndim == 2 else (side, side), 0, positions, "float32")
    manifest = Manifest(
        encoder=EncoderInfo(name="planted", weights_sha256="0" * 64, dtype="float32"),
        preprocessing=preprocessing or {},
        hooks=infos,
        positions="all",
        seed=0,
        images=ImagesInfo(count=n, sha256="1" * 64, per_shard=per_shard),
    )
    writer = StoreWriter(folder, manifest, images)
    for shard in writer.claims():
        ids = np.array(writer.shard_images(shard))
        tensors = {}
        for hook, a in activations.items():
            per_image = infos[hook].rows_per_image
            tensors[f"{hook}/activations"] = torch.from_numpy(a[ids].reshape(-1, a.shape[-1]).copy())
            tensors[f"{hook}/image_index"] = torch.from_numpy(np.repeat(ids, per_image).astype(np.int32))
            tensors[f"{hook}/position"] = torch.from_numpy(np.tile(np.arange(per_image), len(ids)).astype(np.int32))
        writer.write(shard, tensors, [])
        writer.release(shard)
    writer.finish()
    return ActivationStore(folder)


def matrix_manifest(n_latents: int, n_images: int) -> MatrixManifest:
    """Of a latent matrix that is written by hand, of no SAE."""
    return MatrixManifest(
        encoder=EncoderInfo(name="planted", weights_sha256="0" * 64, dtype="float32"),
        images_sha256="1" * 64,
        positions="all",
        hook="h",
        aggregate="max",
        sae_sha256=None,
        sae_config=None,
        n_latents=n_latents,
        n_images=n_images,
    )


def relu_sae(
    hook: str,
    encoder: torch.Tensor,
    decoder: torch.Tensor | None = None,
    b_enc: torch.Tensor | float = 0.0,
    b_dec: torch.Tensor | float = 0.0,
    **metadata: Any,
) -> StandardSAE:
    """An SAE whose latents are relu(x . encoder row + b_enc); the decoder's rows are the encoder's unless given."""
    n, d = encoder.shape
    metadata = SAEMetadata(hook_name=hook, **metadata)
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=n, apply_b_dec_to_input=False, metadata=metadata))
    with torch.no_grad():
        sae.W_enc.copy_(encoder.T)
        sae.W_dec.copy_(encoder if decoder is None else decoder)
        sae.b_enc.copy_(torch.as_tensor(b_enc).expand(n))
        sae.b_dec.copy_(torch.as_tensor(b_dec).expand(d))
    return sae


def save_sae(folder: Path, sae: StandardSAE) -> Path:
    """As SAE-Lens saves one."""
    folder.mkdir(parents=True)
    sae.save_model(folder)
    return folder


def identity_sae(d: int, hook: str = "hook_embedding") -> StandardSAE:
    """An SAE of 2d latents that reconstructs exactly: each component, and its negative."""
    return relu_sae(hook, torch.cat([torch.eye(d), -torch.eye(d)]))


def reading_weights(d: int, n_features: int, seed: int = 0, offset: float = 3.0) -> dict[str, torch.Tensor]:
    """`relu_sae`'s weights for latents that read the codes of `planted_rows` off: code k less 0.5, where it is there.

    A code is 0 or at least 1, so no rounding decides whether a latent fires.
    """
    directions = dictionary(d, n_features, seed)
    read = np.linalg.pinv(directions).T
    weights = {
        "encoder": read,
        "decoder": directions,
        "b_enc": -offset * read.sum(1) - 0.5,
        "b_dec": np.full(d, offset),
    }
    return {name: torch.from_numpy(value).float() for name, value in weights.items()}


def in_a_gap(values: np.ndarray, low: float = 0.5, high: float = 0.9) -> float:
    """A threshold that no rounding moves a value across: amid the widest gap between these quantiles of the values."""
    ordered = np.sort(values)[int(low * len(values)) : int(high * len(values))]
    k = int(np.diff(ordered).argmax())
    return float(ordered[k] + ordered[k + 1]) / 2
