"""Copies of an encoder: by `copy.deepcopy`, pickle, `torch.save`, and in another process. Each hooks by itself."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import next_transformer_lens  # noqa: F401  for the processes that are started here
from helpers.tiny_encoders import TINY, write_tiny_card
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor, nn

from medsae_plugin.encoders import HookedVisionEncoder, ablate, load_card

RESNET = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 1]}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
CONVNEXT = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32, "patch_size": 4}
STAGES = {"name": "stages.{}.hook_resid_post", "path": "encoder.stages.{}", "layout": "map"}
MAP = {"name": "hook_embed", "path": "0", "layout": "map"}


def fields(family: str, **more: Any) -> dict[str, Any]:
    preprocessing = {"mode": "L", "size": 32, "fit": "pad", "resample": "bilinear", "mean": [0.5], "std": [0.25]}
    base = {"name": family, "description": "for tests", "licence": "MIT", "family": family}
    return {**base, "source": {"format": "module"}, "preprocessing": preprocessing, **more}


class Gaussian(nn.Module):
    """A probabilistic encoder whose mean and log-variance are modules of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.logvar = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(64, 6), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x).flatten(1)
        return self.mean(h), self.logvar(h)


MODULES: dict[str, Callable[[], HookedVisionEncoder]] = {
    "swin": lambda: HookedVisionEncoder.from_module(tf.SwinModel(tf.SwinConfig(**SWIN)), fields("swin")),
    "resnet": lambda: HookedVisionEncoder.from_module(tf.ResNetModel(tf.ResNetConfig(**RESNET)), fields("resnet")),
    "custom": lambda: HookedVisionEncoder.from_module(
        tf.ConvNextModel(tf.ConvNextConfig(**CONVNEXT)), fields("custom", hooks=[STAGES])
    ),
    "module": lambda: HookedVisionEncoder.from_module(
        nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU()), fields("custom", hooks=[MAP])
    ),
    "gaussian": lambda: HookedVisionEncoder.from_module(
        Gaussian(),
        fields("custom", hooks=[{**MAP, "path": "body"}], outputs={"mean": "mean", "logvar": "logvar"}),
    ),
}


def saved_and_loaded(encoder: HookedVisionEncoder) -> HookedVisionEncoder:
    buffer = io.BytesIO()
    torch.save(encoder, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)  # of our own making


WAYS: dict[str, Callable[[HookedVisionEncoder], HookedVisionEncoder]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda encoder: pickle.loads(pickle.dumps(encoder)),  # noqa: S301
    "torch.save": saved_and_loaded,
}


@pytest.fixture(params=[*MODULES, *TINY])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> HookedVisionEncoder:
    """Of every family, of a module of one's own, and of every card of the package, from its kind of checkpoint."""
    torch.manual_seed(0)
    if request.param in MODULES:
        return MODULES[request.param]()
    if request.param == "xrv-densenet121":
        pytest.importorskip("monai")
    TINY[request.param].make(tmp_path)
    return HookedVisionEncoder.from_pretrained(write_tiny_card(request.param, tmp_path))


def pixels(encoder: HookedVisionEncoder, n: int = 2) -> Tensor:
    return torch.randn(n, 3, *encoder.preprocessor.shape, generator=torch.Generator().manual_seed(1))


def an_sae(encoder: HookedVisionEncoder, hook: str, kind: str = "standard", **options: Any) -> SAE[Any]:
    """An SAE of random weights that reconstructs badly, so that its presence shows."""
    cls, config = get_sae_class(kind)
    d = encoder.hook_specs[hook].d
    sae = cls(config(d_in=d, d_sae=2 * d, metadata=SAEMetadata(hook_name=hook), **options))
    with torch.no_grad():
        sae.b_dec.normal_(std=0.5)
    return sae


def test_a_copy_computes_the_same_and_its_hooks_are_its_own(encoder: HookedVisionEncoder):
    """At every hook point, either way: a hook fires in the one it was given to, and never in the other."""
    x = pixels(encoder)
    with torch.no_grad():
        expected, cache = encoder.run_with_cache(x)
        for way, copied in WAYS.items():
            twin = copied(encoder)
            out, seen = twin.run_with_cache(x)
            assert torch.equal(out, expected) and twin.hook_specs == encoder.hook_specs, way
            assert list(seen) == list(cache) and all(torch.equal(seen[name], cache[name]) for name in cache), way
            for one, other in ((encoder, twin), (twin, encoder)):
                for hook in encoder.hook_specs:
                    fired: list[str] = []
                    with one.hooks(fwd_hooks=[(hook, lambda a, hook, fired=fired: fired.append(hook.name))]):
                        other(x)
                        assert not fired, (way, hook)
                        one(x)
                        assert fired == [hook], (way, hook)
            (first, *_, last) = encoder.hook_specs
            assert torch.equal(twin(x, stop_at_hook=first), cache[first]), way
            zeroed = twin.run_with_hooks(x, fwd_hooks=[(last, lambda a, hook: a * 0)])
            assert not zeroed.any() and torch.equal(encoder(x), expected), way


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_has_weights_of_its_own(way: str):
    encoder = MODULES["swin"]()
    x = pixels(encoder)
    with torch.no_grad():
        before = encoder(x)
        for parameter in WAYS[way](encoder).parameters():
            parameter.zero_()
        assert torch.equal(encoder(x), before)


def test_spliced_saes_come_along_as_the_copys_own(encoder: HookedVisionEncoder):
    hooks = [hook for hook in encoder.hook_specs if "resid_post" in hook or "embed" in hook]
    hooks = [hooks[0], "hook_embedding"]
    x = pixels(encoder)
    with torch.no_grad():
        plain = encoder(x)
        for hook in hooks:
            encoder.add_sae(an_sae(encoder, hook))
        expected, cache = encoder.run_with_cache(x)
        for way, copied in WAYS.items():
            twin = copied(encoder)
            out, seen = twin.run_with_cache(x)
            assert torch.equal(out, expected) and list(seen) == list(cache), way
            latents = f"{hooks[0]}.hook_sae_acts_post"
            fired: list[int] = []
            with twin.hooks(fwd_hooks=[(latents, lambda a, hook, fired=fired: fired.append(1))]):
                encoder(x)
                assert not fired, way
                twin(x)
                assert fired == [1], way
            assert all(twin.acts_to_saes[hook] is not encoder.acts_to_saes[hook] for hook in hooks), way
            twin.acts_to_saes[hooks[1]].W_dec.zero_()
            assert torch.equal(encoder(x), expected) and not torch.equal(twin(x), expected), way
            sae = twin.acts_to_saes[hooks[0]]
            with twin.latent_edits({sae: {0: ablate()}}):
                assert not twin.run_with_cache(x, names_filter=latents)[1][latents][..., 0].any(), way
            twin.reset_saes()
            assert torch.equal(twin(x), plain) and not twin.acts_to_saes, way
            assert list(sae.hook_dict) == list(an_sae(encoder, hooks[0]).hook_dict), way
            assert sae.run_with_cache(torch.ones(1, sae.cfg.d_in))[1].keys() >= {"hook_sae_acts_post"}, way
            twin.add_sae(sae, use_error_term=True)
            torch.testing.assert_close(twin(x), plain, rtol=1e-5, atol=1e-5)
        assert torch.equal(encoder(x), expected)


KINDS: dict[str, dict[str, Any]] = {
    "standard": {},
    "topk": {"k": 3},
    "jumprelu": {},
    "gated": {},
    "matching_pursuit": {},
    "transcoder": {"d_out": 8, "apply_b_dec_to_input": False},
    "skip_transcoder": {"d_out": 8, "apply_b_dec_to_input": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_saes_of_every_kind_come_along(kind: str, normalize: str):
    encoder = MODULES["swin"]()
    hook = "stages.0.blocks.0.hook_resid_post"
    x = pixels(encoder)
    sae = an_sae(encoder, hook, kind, normalize_activations=normalize, **KINDS[kind])
    sae.requires_grad_(False)
    encoder.add_sae(sae, exclude_special_tokens=[0, 5])
    for way, copied in WAYS.items():
        twin = copied(encoder)
        copied_sae = twin.acts_to_saes[hook]
        assert torch.equal(twin(x), encoder(x)), way
        assert type(copied_sae) is type(sae) and copied_sae.cfg == sae.cfg, way
        assert not any(parameter.requires_grad for parameter in copied_sae.parameters()), way


class Doubling:
    """A hook that pickle takes, and that counts."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, activation: Tensor, hook: Any) -> Tensor:
        self.calls.append(hook)
        return activation * 2


@pytest.mark.parametrize("way", WAYS)
def test_hooks_that_are_there_come_along(way: str):
    """Permanent and other ones, on the encoder's points and on an SAE's; the copy's get the copy's hook points."""
    encoder = MODULES["swin"]()
    hook, other = "stages.0.blocks.0.hook_resid_post", "hook_pooled"
    encoder.add_sae(an_sae(encoder, hook))
    latents = f"{hook}.hook_sae_acts_post"
    for name in (latents, other):
        encoder.add_hook(name, Doubling())
    encoder.add_perma_hook(other, Doubling())
    encoder.add_hook("hook_embedding", Doubling(), prepend=True)
    x = pixels(encoder)
    expected = encoder(x)
    twin = WAYS[way](encoder)
    assert torch.equal(twin(x), expected)
    for name in (latents, other, "hook_embedding"):
        point = twin.hook_dict[name]
        assert len(point.fwd_hooks) == len(encoder.hook_dict[name].fwd_hooks)
        for handle in point.fwd_hooks:
            assert handle.user_hook.calls[-1] is point
        for handle in encoder.hook_dict[name].fwd_hooks:
            assert handle.user_hook.calls == [encoder.hook_dict[name]]
    twin.reset_hooks()
    assert [name for name, point in twin.hook_dict.items() if point.fwd_hooks] == [other]
    twin.reset_hooks(including_permanent=True)
    twin.reset_saes()
    encoder.reset_saes()
    assert torch.equal(encoder(x), 4 * twin(x) * 2)


def test_a_backward_hook_comes_along():
    encoder = MODULES["resnet"]()
    gradients: list[Tensor] = []
    encoder.add_hook("hook_pooled", lambda gradient, hook: gradients.append(gradient), dir="bwd")
    twin = copy.deepcopy(encoder)
    twin(pixels(encoder)).sum().backward()
    assert len(gradients) == 1 and (gradients[0] == 1).all()
    encoder.reset_hooks()
    twin(pixels(encoder)).sum().backward()
    assert len(gradients) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_copys_copy_and_a_copy_of_its_tower_alone(way: str):
    encoder = MODULES["custom"]()
    x = pixels(encoder)
    twin = WAYS[way](WAYS[way](encoder))
    assert torch.equal(twin(x), encoder(x))
    tower = WAYS[way](encoder.vision_model)
    fired: list[str] = []
    with encoder.hooks(fwd_hooks=[("all", lambda a, hook: fired.append(hook.name))]):
        assert torch.equal(tower(x).pooler_output, encoder.vision_model(x).pooler_output)
    assert fired == ["stages.0.hook_resid_post", "stages.1.hook_resid_post"]  # of the encoder's own tower alone


def test_texts_and_tokens_come_along():
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    sentence = "no pneumothorax"
    expected = encoder.encode_text(sentence)
    for copied in WAYS.values():
        encoder.vision_model(pixels(encoder), output_hidden_states=True)
        twin = copied(encoder)
        assert torch.equal(twin.encode_text(sentence), expected) and twin.tokenize([sentence])
        states = [model.vision_model(pixels(encoder), output_hidden_states=True) for model in (encoder, twin)]
        assert all(map(torch.equal, *(s.hidden_states for s in states)))
        assert twin.card == encoder.card and twin.weights_sha256 == encoder.weights_sha256
    assert pickle.loads(pickle.dumps(load_card("phantom-swin"))) == load_card("phantom-swin")  # noqa: S301


def hooked_in_a_child(encoder: HookedVisionEncoder, x: Tensor, queue: Any) -> None:
    """Hooks of torch's own on every module, which must not take the place of the encoder's; then a pass."""
    torch.set_num_threads(1)
    modules = []
    for name, module in encoder.vision_model.named_modules():
        module.register_forward_hook(lambda *_, name=name: modules.append(name))
        module.register_forward_pre_hook(lambda *_, name=name: modules.append(name))
    with torch.no_grad():
        _, cache = encoder.run_with_cache(x)
        queue.put(({name: value.numpy() for name, value in cache.items()}, len(modules)))


def test_an_encoder_travels_to_a_worker_process():
    """Started anew, so that it unpickles the encoder, with an SAE in it and hooks on it."""
    torch.manual_seed(0)
    encoder = MODULES["swin"]()
    hook = "stages.0.blocks.1.hook_resid_post"
    encoder.add_sae(an_sae(encoder, hook))
    encoder.add_perma_hook(f"{hook}.hook_sae_acts_post", Doubling())
    x = pixels(encoder)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=hooked_in_a_child, args=(encoder, x, queue))
    process.start()
    seen, n_modules = queue.get(timeout=240)
    process.join()
    assert process.exitcode == 0 and n_modules > 0
    with torch.no_grad():
        _, cache = encoder.run_with_cache(x)
    assert seen.keys() == cache.keys()
    for name, value in cache.items():
        torch.testing.assert_close(torch.from_numpy(seen[name]), value, msg=name)
