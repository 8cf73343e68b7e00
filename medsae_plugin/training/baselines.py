"""Baselines of an SAE: other units at its hook, made of the same rows and, where they can be, as many.

What each one's activation is, x being a row and m the mean of the training rows:

    random                relu(v . (x - m)), v drawn at random, of length 1
    rows                  the same, v a training row less m, brought to length 1
    pca, ica              relu(s) and relu(-s) of every component s; for ica FastICA's (Hyvarinen and Oja 2000)
    nmf                   the weights h >= 0 of the least |x - h W|, W of NMF (Lee and Seung 1999); rows must be >= 0
    k-means               relu(mean distance to all centroids - distance to this one): "triangle" of Coates, Lee and Ng
                          (2011), whose dictionaries of k-means were as good as sparse coding's
    frozen-decoder,       the SAE's own recipe, its decoder kept as it was drawn, or near (arXiv 2602.14111); of an SAE
    soft-frozen-decoder   without a recipe a TopK SAE's
    random-encoder        that recipe on the activations of the same images in the encoder with random weights (Heap et
                          al. 2025, arXiv 2501.17727): what the architecture and the images give without any learning

A recipe keeps its sparsity. The first six are not made sparse: chosen for one label they are the stronger for it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, refuse_other_content, replacing_folder
from medsae_plugin.sae_folders import load_sae, sae_sha256, save_sae
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.baseline_folders import NOTE, PARTS, STORE, BaselineKind, Note
from medsae_plugin.training.records import read_training
from medsae_plugin.training.run import train_saes
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAESpec, TrainingConfig

if TYPE_CHECKING:
    from sae_lens import SAE

KINDS: tuple[BaselineKind, ...] = get_args(BaselineKind)
MOST_ROWS = 20_000  # of the training split that pca, ica, nmf and k-means are made of
_DEFAULT_K = 32
_EPOCHS, _BATCH_ROWS = 50, 512  # of a recipe for an SAE that has none


@dataclass(frozen=True)
class Like:
    """The SAE that baselines are made for: its name, weights, folder (None: none) and the store of its rows."""

    name: str
    sae: SAE[Any]
    folder: Path | None
    store: ActivationStore
    hook: str
    seed: int = 0

    @classmethod
    def of(cls, folder: str | Path, store: ActivationStore, seed: int = 0) -> Like:
        """The SAE in a folder, trained over this store.

        Raises:
            MedSAEError: what `load_sae` refuses.
        """
        sae = load_sae(folder)
        return cls(Path(folder).name, sae, Path(folder), store, str(sae.cfg.metadata.hook_name), seed)

    @property
    def n(self) -> int:
        return int(self.sae.cfg.d_sae)

    @property
    def d_in(self) -> int:
        return int(self.sae.cfg.d_in)

    def rows(self, most: int = MOST_ROWS) -> Float[Tensor, "rows d_in"]:
        """Rows of the training split without replacement, by the seed: all, or so many."""
        count = min(self.store.n_rows(self.hook, "train"), most)
        return next(self.store.batches(self.hook, max(1, count), split="train", seed=self.seed))[self.hook]

    def note(self, kind: BaselineKind) -> Note:
        """Of a baseline as wide as the SAE."""
        return Note(
            kind=kind,
            of=self.name,
            of_sha256=sae_sha256(self.sae),
            hook=self.hook,
            d_in=self.d_in,
            n=self.n,
            seed=self.seed,
            rows=0,
            images_sha256=self.store.manifest.images.sha256,
            encoder=self.store.encoder_name,
            encoder_sha256=self.store.weights_sha256,
        )


@dataclass(frozen=True)
class Images:
    """Where a random encoder's images are, and of which card it is; None for the store's."""

    root: Path
    card: str | Path | None = None


def make_baselines(
    like: Like,
    out: str | Path,
    kinds: Sequence[str] | None = None,
    *,
    images: Images | None = None,
    device: str = "cpu",
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Path]:
    """Make baselines of an SAE, a folder each in `out`; one that is there already is kept.

    Args:
        kinds: of `KINDS`; by default all but nmf where rows are below 0, and random-encoder without `images`.
        say: told which are not made, and why.

    Raises:
        MedSAEError: an unknown kind, or one that cannot be made here; `out` holds something else, or baselines of
            another SAE, seed or store.
    """
    out, chosen = Path(out), _chosen(like, kinds, images, say)
    refuse_other_content(out, "baselines", lambda folder: any(folder.glob(f"*/{NOTE}")))
    make_folder(out)
    made: dict[str, Path] = {}
    for kind in chosen:
        folder = made[kind] = out / kind
        if folder.is_dir():
            _check_same(folder, like.note(kind))
            continue
        with replacing_folder(folder) as temporary:
            if kind in ("frozen-decoder", "soft-frozen-decoder", "random-encoder"):
                _trained(kind, like, temporary, images, device, progress)
            else:
                _computed(kind, like, temporary)
    return made


def _chosen(
    like: Like, kinds: Sequence[str] | None, images: Images | None, say: Callable[[str], None]
) -> list[BaselineKind]:
    """The kinds to make, in their order."""
    if unknown := sorted({*(kinds or ())} - {*KINDS}):
        raise MedSAEError(f"there is no baseline {unknown[0]!r}; there are {', '.join(KINDS)}")
    not_here: dict[str, str] = {}
    if images is None:
        not_here["random-encoder"] = "it reads the images again: give their folder (--images)"
    lowest = float(like.rows().min())
    if lowest < 0:
        not_here["nmf"] = f"rows of {like.hook} go down to {lowest:.3g}, and NMF is of what is at least 0"
    for kind in KINDS:
        if kind in not_here and kind in (kinds or ()):
            raise MedSAEError(f"the baseline {kind} cannot be made: {not_here[kind]}")
        if kind in not_here and kinds is None:
            say(f"{kind} is not made: {not_here[kind]}")
    return [kind for kind in KINDS if kind not in not_here and (kinds is None or kind in kinds)]


def _check_same(folder: Path, wanted: Note) -> None:
    there = Note.open(folder)
    different = [
        field
        for field in ("kind", "of_sha256", "hook", "seed", "images_sha256", "encoder_sha256")
        if getattr(there, field) != getattr(wanted, field)
    ]
    if different:
        raise MedSAEError(
            f"{folder} is a baseline of something else (it differs in: {', '.join(different)}); choose another folder"
        )


def _computed(kind: BaselineKind, like: Like, folder: Path) -> None:
    """A baseline that no SAE is trained for."""
    rows = like.rows()
    if kind in ("nmf", "k-means"):
        parts = (_nmf if kind == "nmf" else _k_means)(rows, like)
        _save_parts(parts, folder)
        n = len(parts)
    else:
        read, write = {"random": _random, "rows": _rows, "pca": _pca, "ica": _ica}[kind](rows, like)
        save_sae(_linear(read, write, rows.double().mean(0).float(), like), folder)
        n = len(read)
    like.note(kind).model_copy(update={"n": n, "rows": len(rows)}).save(folder)


def _save_parts(parts: Float[Tensor, "n d_in"], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"parts": parts.contiguous()}, folder / PARTS)


Directions = tuple[Float[Tensor, "n d_in"], Float[Tensor, "n d_in"]]  # what latents read, and what they write


def _linear(read: Tensor, write: Tensor, mean: Float[Tensor, " d_in"], like: Like) -> SAE[Any]:
    """relu(read (x - mean)), which writes `write`, as SAE-Lens's standard SAE."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    store = like.store
    here = {"model_name": store.encoder_name, "encoder_sha256": store.weights_sha256, "hook_name": like.hook}
    known = {k: v for k, v in like.sae.cfg.metadata.to_dict().items() if k not in ("name", "l0", "num_dead_features")}
    metadata = SAEMetadata(**{**known, **here, "seed": like.seed})
    cfg = StandardSAEConfig(d_in=like.d_in, d_sae=len(read), apply_b_dec_to_input=True, metadata=metadata)
    sae = StandardSAE(cfg)
    with torch.no_grad():
        sae.W_enc.copy_(read.T)
        sae.W_dec.copy_(write)
        sae.b_enc.zero_()
        sae.b_dec.copy_(mean)
    return sae


def _unit(directions: Tensor) -> Directions:
    """Directions of length 1. What random ones write adds up to x - mean in expectation: half of them fire."""
    n, d = directions.shape
    unit = torch.nn.functional.normalize(directions, dim=-1)
    return unit, unit * (2 * d / n)


def _random(rows: Tensor, like: Like) -> Directions:
    return _unit(torch.randn(like.n, like.d_in, generator=torch.Generator().manual_seed(like.seed)))


def _rows(rows: Tensor, like: Like) -> Directions:
    return _unit(rows[: like.n] - rows.double().mean(0).float())


def _signed(read: Any, write: Any) -> Directions:
    both = [torch.as_tensor(x).float() for x in (read, write)]
    return torch.cat([both[0], -both[0]]), torch.cat([both[1], -both[1]])


def _n_components(rows: Tensor, like: Like) -> int:
    """Two units a component, and no more components than directions in which the rows vary."""
    values = torch.linalg.svdvals(rows.double() - rows.double().mean(0))
    return max(1, min(like.n // 2, int((values > 1e-5 * values[0]).sum())))


def _pca(rows: Tensor, like: Like) -> Directions:
    from sklearn.decomposition import PCA

    components = PCA(_n_components(rows, like), svd_solver="full").fit(rows.double().numpy()).components_
    return _signed(components, components)


def _ica(rows: Tensor, like: Like) -> Directions:
    from sklearn.decomposition import FastICA
    from threadpoolctl import threadpool_limits

    n = _n_components(rows, like)
    ica = FastICA(n, whiten="unit-variance", max_iter=300, tol=1e-3, random_state=like.seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged, components are still a rotation of the whitened rows
        ica.fit(rows.double().numpy())
    return _signed(ica.components_, ica.mixing_.T)


def _nmf(rows: Tensor, like: Like) -> Float[Tensor, "n d_in"]:
    from sklearn.decomposition import NMF
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `_ica`
        nmf = NMF(min(like.n, len(rows)), init="random", max_iter=200, random_state=like.seed)
        nmf.fit(rows.double().numpy())
    return torch.from_numpy(nmf.components_).float()


def _k_means(rows: Tensor, like: Like) -> Float[Tensor, "n d_in"]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads add up in an order of their own, so that the last bits would differ
        k_means = KMeans(min(like.n, len(rows)), n_init=1, random_state=like.seed).fit(rows.double().numpy())
    return torch.from_numpy(k_means.cluster_centers_).float()


def _trained(kind: BaselineKind, like: Like, folder: Path, images: Images | None, device: str, progress: bool) -> None:
    """A baseline that SAE-Lens trains by the SAE's own recipe, as one of the seed given."""
    store = like.store
    if kind == "random-encoder":
        assert images is not None
        store = _random_activations(like, images, folder / STORE, device, progress)
    spec, config = _recipe(like, device)
    decoder = {"frozen-decoder": "frozen", "soft-frozen-decoder": "soft-frozen"}.get(kind, "free")
    spec = replace(spec, name=kind, seed=like.seed, decoder=decoder)  # type: ignore[arg-type]
    run = folder / "run"
    trained = train_saes(store, [spec], config, run, progress=progress)[kind]
    for file in trained.iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(run)
    like.note(kind).model_copy(update={"rows": store.n_rows(like.hook, "train")}).save(folder)


def _recipe(like: Like, device: str) -> tuple[SAESpec, TrainingConfig]:
    """What the SAE was trained by; of one from elsewhere TopK of as many latents and as many active."""
    record = read_training(like.folder) if like.folder else None
    if record is not None:
        return record.sae, replace(record.training, n_checkpoints=0, device=device)
    options = {"k": min(active_latents(like.sae, like.folder), like.n)}
    spec = SAESpec("like", like.hook, "topk", like.n / like.d_in, CENTER_AND_SCALE, options)
    rows = like.store.n_rows(like.hook, "train")
    return spec, TrainingConfig(max(_BATCH_ROWS, _EPOCHS * rows), _BATCH_ROWS, lr=1e-3, device=device)


def _random_activations(like: Like, images: Images, folder: Path, device: str, progress: bool) -> ActivationStore:
    """The store's images in an encoder of its card's shapes with random weights, at the hook alone."""
    import numpy as np

    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders.cards import load_card
    from medsae_plugin.encoders.loading import build_encoder
    from medsae_plugin.encoders.sources import state_sha256
    from medsae_plugin.store.extraction import extract

    store = like.store
    torch.manual_seed(like.seed)
    encoder = build_encoder(load_card(images.card or store.encoder_name), device)
    encoder.weights_sha256 = state_sha256(encoder.vision_model)
    if encoder.width_at(like.hook) != like.d_in:
        raise MedSAEError(
            f"{encoder.title} has {encoder.width_at(like.hook)} dimensions at {like.hook}, not {like.d_in}"
        )
    table = ImageTable(images.root, store.images, np.zeros((len(store.images), 0), np.float32), ())
    extracted = extract(
        encoder,
        table,
        like.hook,
        folder,
        positions=store.manifest.positions,
        seed=store.manifest.seed,
        progress=progress,
    )
    if not extracted.readable_images.equals(store.readable_images):
        raise MedSAEError(f"{images.root} does not hold the images of {store.path}: not the same ones can be read")
    return extracted


def active_latents(sae: SAE[Any], folder: Path | None) -> int:
    """How many latents of an SAE are active a row: its k, else the L0 that training measured, else 32."""
    if k := getattr(sae.cfg, "k", None):
        return int(k)
    record = read_training(folder) if folder else None
    l0 = record.validation.get("l0") if record and record.validation else None
    return _DEFAULT_K if l0 is None else round(l0)
