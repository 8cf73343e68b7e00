"""What an evaluation compares: SAEs and, beside them, an untrained SAE and the raw neurons of the same hook."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.latents import sae_sha256
from medsae_plugin.sae_folders import check_scorable, load_sae, read_report

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.activations import ActivationStore

Kind = Literal["sae", "untrained", "neurons"]
_DEFAULT_K = 32


@dataclass(frozen=True)
class Candidate:
    """What is scored: the latents of an SAE, trained or not, or the raw neurons of a hook.

    A neuron has no preferred sign, so both are candidates: neurons 0..d-1 are the activations, d..2d-1 their negatives.

    architecture, sae_sha256: None for neurons. sae: None for neurons, and where only sums of its latents are known.
    """

    name: str
    kind: Kind
    hook: str
    d_in: int
    n_latents: int
    architecture: str | None = None
    sae_sha256: str | None = None
    sae: SAE[Any] | None = None

    @classmethod
    def of_sae(cls, name: str, kind: Kind, hook: str, sae: SAE[Any]) -> Candidate:
        return cls(name, kind, hook, sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.architecture(), sae_sha256(sae), sae)

    @classmethod
    def of_neurons(cls, hook: str, d: int) -> Candidate:
        return cls(f"neurons of {hook}", "neurons", hook, d, 2 * d)

    @property
    def folder_name(self) -> str:
        """Of its latent matrix, within an evaluation's `latents/`."""
        return matrix_folder(self.name)

    def index(self, latent: int) -> int | str | None:
        """A latent as tables show it: its index; for the negative of neuron j, "-j"; None for none."""
        if latent < 0:
            return None
        return f"-{latent - self.d_in}" if self.kind == "neurons" and latent >= self.d_in else latent


def matrix_folder(name: str) -> str:
    """The folder of a candidate's latent matrix: its name as one path component."""
    return name.replace("/", "--").replace(" ", "-")


def load_candidates(store: ActivationStore, sae_paths: Sequence[str | Path], seed: int = 0) -> list[Candidate]:
    """The SAEs in these folders, in SAE-Lens's format, each followed by an untrained one; then each hook's raw neurons.

    Raises:
        MedSAEError: a folder that holds no SAE, an SAE of a hook, a width or an encoder that the store does not have.
    """
    if not sae_paths:
        raise MedSAEError("there is no SAE to evaluate")
    candidates: list[Candidate] = []
    neurons: dict[str, Candidate] = {}
    for name, path in zip(distinct_names([Path(p) for p in sae_paths]), sae_paths, strict=True):
        sae = load_sae(path)
        hook = checked_hook(store, sae, name)
        blank = untrained(sae, _active(sae, Path(path)), seed)
        candidates.append(Candidate.of_sae(name, "sae", hook, sae))
        candidates.append(Candidate.of_sae(f"untrained {name}", "untrained", hook, blank))
        neurons.setdefault(hook, Candidate.of_neurons(hook, sae.cfg.d_in))
    return candidates + list(neurons.values())


def untrained(sae: SAE[Any], k: int, seed: int = 0) -> SAE[Any]:
    """An SAE of the same shape that has learnt nothing: random unit directions about the trained one's centre.

    It is a TopK SAE, `k` active latents a row, so that it can be as sparse as the trained one. Of data it knows nothing
    but the trained decoder's bias, so every site makes the same one.
    """
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    cfg = TopKSAEConfig(
        d_in=sae.cfg.d_in,
        d_sae=sae.cfg.d_sae,
        k=min(max(1, k), sae.cfg.d_sae),
        dtype="float32",
        device=str(sae.device),
        apply_b_dec_to_input=True,
        metadata=sae.cfg.metadata,
    )
    blank = TopKSAE(cfg)
    directions = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
    directions /= directions.norm(dim=1, keepdim=True)
    with torch.no_grad():
        blank.W_dec.copy_(directions)
        blank.W_enc.copy_(directions.T)
        blank.b_enc.zero_()
        blank.b_dec.copy_(sae.b_dec)
    return blank


def _active(sae: SAE[Any], folder: Path) -> int:
    """How many latents of an SAE are active a row: its k, else the L0 that training measured, else 32."""
    if k := getattr(sae.cfg, "k", None):
        return int(k)
    validation = (read_report(folder) or {}).get("validation")
    return round(validation["l0"]) if validation else _DEFAULT_K


def checked_hook(store: ActivationStore, sae: SAE[Any], name: str) -> str:
    """The hook of the store that an SAE stands at.

    Raises:
        MedSAEError: the store lacks it, has another width there, or was made with another encoder; an SAE whose latents
            cannot be scored, see `check_scorable`.
    """
    check_scorable(sae, name)
    hook = sae.cfg.metadata.get("hook_name")
    if hook is None:
        raise MedSAEError(f"{name} does not say which hook it stands at; add metadata.hook_name to its cfg.json")
    if hook not in store.hooks:
        raise MedSAEError(f"{name} stands at hook {hook!r}; the store has {', '.join(store.hooks)}")
    if sae.cfg.d_in != store.hooks[hook].d:
        raise MedSAEError(f"{name} takes {sae.cfg.d_in} dimensions; the store has {store.hooks[hook].d} at {hook}")
    encoder = store.manifest["encoder"]
    check_encoder(sae, encoder["name"], encoder["weights_sha256"], name)
    return str(hook)


def check_encoder(sae: SAE[Any], encoder: str, weights_sha256: str, name: str) -> None:
    """Compare the encoder that an SAE was trained on with this one: by its weights, else by its name, with a warning.

    Raises:
        MedSAEError: it is another.
    """
    metadata = sae.cfg.metadata
    trained_on, model = metadata.get("encoder_sha256"), metadata.get("model_name")
    if trained_on and weights_sha256:
        if trained_on != weights_sha256:
            raise MedSAEError(
                f"{name} was trained on encoder weights {trained_on[:12]}..., "
                f"those of {encoder} here are {weights_sha256[:12]}..."
            )
        return
    if model and model != encoder:
        raise MedSAEError(
            f"{name} is an SAE of the encoder {model}, and this is {encoder}; if they are the same, say so in "
            "metadata.model_name of its cfg.json"
        )
    lacks = "it does not say on which weights it was trained" if weights_sha256 else "these weights have no checksum"
    warnings.warn(f"{name} is taken for an SAE of this {encoder}, unchecked: {lacks}", stacklevel=2)


def distinct_names(paths: list[Path]) -> list[str]:
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
