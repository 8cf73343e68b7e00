"""What users of transformer-lens and SAE-Lens rely on, seen to hold on the demo encoder.

The list is of the behaviours that transformer-lens tests of its `HookedRootModule` and `HookPoint`, and SAE-Lens of its
`HookedSAETransformer`.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig
from torch import Tensor
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder

EARLY, LATE, POOLED = "stages.0.blocks.0.hook_resid_post", "stages.2.blocks.3.hook_resid_post", "hook_pooled"
EMBEDDING = "hook_embedding"
SITES = ("hook_embed", EARLY, "stages.1.blocks.1.hook_mlp_out", LATE, POOLED, EMBEDDING)


class Counter:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, activation: Tensor, hook: HookPoint) -> None:
        self.names.append(str(hook.name))


@pytest.fixture(scope="module")
def loaded() -> HookedVisionEncoder:
    return HookedVisionEncoder.from_pretrained("phantom-swin")


@pytest.fixture
def model(loaded: HookedVisionEncoder) -> Iterator[HookedVisionEncoder]:
    """Without hooks and SAEs, before and, whatever a test leaves, after."""
    yield loaded
    loaded.reset_hooks(including_permanent=True)
    loaded.reset_saes()
    assert not any(point.has_hooks() for point in loaded.hook_points())


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
@torch.no_grad()
def plain(loaded: HookedVisionEncoder, x: Tensor) -> Tensor:
    return loaded(x)


def at(name: str) -> Any:
    return lambda other: other == name


# HookedRootModule and HookPoint


def test_it_is_a_hooked_root_module_and_says_nothing_of_being_out_of_date():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        model = HookedVisionEncoder.from_pretrained("phantom-swin")
    assert isinstance(model, HookedRootModule)


def test_every_hook_point_knows_its_name_and_its_module_path(model: HookedVisionEncoder):
    assert set(model.hook_dict) == set(model.hook_specs)
    for name, point in model.hook_dict.items():
        assert isinstance(point, HookPoint) and point.name == name
        assert model.mod_dict[name] is point and model.get_submodule(name) is point
    assert model.hook_dict[LATE].layer() == 2 and LATE in repr(model.hook_dict[LATE])
    assert set(model.hook_points()) == set(model.hook_dict.values())


@pytest.mark.parametrize("site", SITES)
def test_a_hook_of_a_run_fires_once_and_is_gone(model, x, site):
    for name in (site, at(site)):
        count = Counter()
        model.run_with_hooks(x, fwd_hooks=[(name, count)])
        assert count.names == [site]
        model(x)
        assert count.names == [site] and not model.hook_dict[site].fwd_hooks


def test_a_predicate_hooks_all_that_it_holds_for(model, x):
    count = Counter()
    model.run_with_hooks(x, fwd_hooks=[(lambda name: name.endswith("mlp_out"), count)])
    assert count.names == [name for name in model.hook_specs if name.endswith("mlp_out")] and len(count.names) == 7
    model.add_hook(lambda name: "embed" in name, count)
    assert [name for name, point in model.hook_dict.items() if point.fwd_hooks] == [
        "hook_embed",
        EMBEDDING,
        f"{EMBEDDING}_unit",
    ]


def test_a_permanent_hook_stays_until_it_is_taken_off_by_name(model, x):
    count = Counter()
    model.add_perma_hook(LATE, count)
    model.run_with_hooks(x, fwd_hooks=[(LATE, lambda a, hook: a)])
    model.reset_hooks()
    model.remove_all_hook_fns()
    model(x)
    assert len(count.names) == 2 and len(model.hook_dict[LATE].fwd_hooks) == 1
    model.remove_all_hook_fns(including_permanent=True)
    model(x)
    assert len(count.names) == 2


def test_contexts_nest_and_an_error_ends_the_inner_one_alone(model, x):
    def fail(activation: Tensor, hook: HookPoint) -> None:
        raise ZeroDivisionError

    count, point = Counter(), model.hook_dict[EARLY]
    model.add_perma_hook(EARLY, count)
    with model.hooks(fwd_hooks=[(EARLY, count)]) as same:
        assert same is model and len(point.fwd_hooks) == 2
        with model.hooks(fwd_hooks=[(at(EARLY), count)]):
            model(x)
            assert len(count.names) == 3
        with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=[(EARLY, fail)]):
            model(x)
        assert len(point.fwd_hooks) == 2
        model.run_with_cache(x)
        assert len(point.fwd_hooks) == 2
    assert len(point.fwd_hooks) == 1 and model.context_level == 0


def test_reset_hooks_works_within_a_context(model, x):
    count = Counter()
    with model.hooks(fwd_hooks=[(EARLY, count)]):
        model.reset_hooks()
        model(x)
    assert not count.names


def test_hooks_of_a_context_can_be_left(model, x):
    count = Counter()
    model.run_with_hooks(x, fwd_hooks=[(EARLY, count)], reset_hooks_end=False)
    model(x)
    assert len(count.names) == 2
    model.reset_hooks()
    model(x)
    assert len(count.names) == 2


@torch.no_grad()
def test_what_a_hook_returns_goes_on_and_in_the_order_of_adding(model, x, plain):
    model.add_hook(EMBEDDING, lambda a, hook: a + 1)
    model.add_hook(EMBEDDING, lambda a, hook: a * 2)
    torch.testing.assert_close(model(x), (plain + 1) * 2)
    model.add_hook(EMBEDDING, lambda a, hook: a * 3, prepend=True)
    torch.testing.assert_close(model(x), (plain * 3 + 1) * 2)
    model.reset_hooks()
    model.add_hook(EMBEDDING, lambda a, hook: None)
    model.add_hook(EMBEDDING, lambda a, hook: a.mul_(5))
    torch.testing.assert_close(model(x), plain * 5)


def test_a_hook_points_context_lasts_until_it_is_cleared(model, x):
    def note(activation: Tensor, hook: HookPoint) -> None:
        hook.ctx["calls"] = hook.ctx.get("calls", 0) + 1

    model.run_with_hooks(x, fwd_hooks=[(EARLY, note)])
    model.run_with_hooks(x, fwd_hooks=[(EARLY, note)])
    assert model.hook_dict[EARLY].ctx == {"calls": 2}
    model.run_with_hooks(x, fwd_hooks=[(EARLY, note)], clear_contexts=True)
    assert model.hook_dict[EARLY].ctx == {}
    model.run_with_hooks(x, fwd_hooks=[(EARLY, note)])
    model.clear_contexts()
    assert model.hook_dict[EARLY].ctx == {}


def test_has_hooks_and_list_hooks_tell_what_is_there(model):
    point = model.hook_dict[EARLY]
    model.add_hook(EARLY, Counter())
    model.add_perma_hook(EARLY, Counter(), dir="bwd")
    assert point.has_hooks() and point.has_hooks("fwd") and point.has_hooks("bwd") and point.has_hooks("both")
    assert not point.has_hooks("bwd", including_permanent=False) and not point.has_hooks(level=3)
    assert {name: len(handles) for name, handles in model.list_hooks().items()} == {EARLY: 2}
    assert len(model.list_hooks(EARLY, dir="fwd")[EARLY]) == 1 and not model.list_hooks([LATE])
    point.remove_hooks("fwd")
    assert not point.has_hooks("fwd") and point.has_hooks("bwd")
    for use in (lambda: point.has_hooks("up"), lambda: point.remove_hooks("up"), lambda: point.add_hook(print, "up")):
        with pytest.raises(ValueError, match="Invalid direction"):
            use()


def test_a_backward_hook_sees_and_changes_the_gradient(model, x):
    gradients: dict[str, Tensor] = {}

    def keep(gradient: Tensor, hook: HookPoint) -> None:
        gradients[str(hook.name)] = gradient

    pixels = x.clone().requires_grad_()
    with model.hooks(bwd_hooks=[(EMBEDDING, keep), (LATE, keep)]):
        model(pixels).sum().backward()
    assert (gradients[EMBEDDING] == 1).all() and gradients[LATE].shape == (2, 36, 96)
    before, pixels.grad = pixels.grad, None
    with model.hooks(bwd_hooks=[(EMBEDDING, lambda gradient, hook: gradient * 2)]):
        model(pixels).sum().backward()
    torch.testing.assert_close(pixels.grad, 2 * before)
    out = model.run_with_hooks(pixels, bwd_hooks=[(POOLED, keep)], reset_hooks_end=False)
    out.sum().backward()
    assert gradients[POOLED].shape == (2, 96)


def test_a_conversion_is_what_a_hook_sees(model, x, plain):
    class Halves:
        def convert(self, activation: Tensor) -> Tensor:
            return activation / 2

        def revert(self, activation: Tensor) -> Tensor:
            return activation * 2

    point = model.hook_dict[EMBEDDING]
    point.enable_reshape(Halves())
    with torch.no_grad():
        torch.testing.assert_close(
            model.run_with_hooks(x, fwd_hooks=[(EMBEDDING, lambda a, hook: a + 1)]), (plain / 2 + 1) * 2
        )
    point.enable_reshape(None)


# Caching


def test_the_cache_holds_what_hooks_see_detached(model, x):
    seen: dict[str, Tensor] = {}
    out, cache = model.run_with_cache(x)
    model.run_with_hooks(x, fwd_hooks=[(lambda name: True, lambda a, hook: seen.update({hook.name: a}))])
    assert list(cache) == list(model.hook_specs) == list(seen)
    for name, value in cache.items():
        assert torch.equal(value, seen[name]) and not value.requires_grad and seen[name].requires_grad, name
    assert torch.equal(out, cache[EMBEDDING]) and out.requires_grad


@pytest.mark.parametrize(
    "names_filter",
    [LATE, [LATE], (LATE,), {LATE}, at(LATE), "stages.2.blocks.3.*resid*", iter([LATE])],
    ids=["name", "list", "tuple", "set", "predicate", "glob", "iterator"],
)
def test_a_filter_is_a_name_names_or_a_predicate(model, x, names_filter):
    out, cache = model.run_with_cache(x, names_filter=names_filter)
    assert list(cache) == [LATE] and torch.equal(out, model(x))  # whatever is cached, the output is the embedding
    assert torch.equal(cache[LATE], model.run_with_cache(x)[1][LATE])


def test_nothing_asked_for_is_nothing_cached(model, x, plain):
    for nothing in ([], lambda name: False):
        out, cache = model.run_with_cache(x, names_filter=nothing)
        assert cache == {}
        torch.testing.assert_close(out, plain)


@torch.no_grad()
def test_one_images_cache_without_its_batch_axis(model, x):
    """At every hook point, image-level ones too; and with several images it is refused, where one would be taken."""
    _, whole = model.run_with_cache(x[:1])
    out, cache = model.run_with_cache(x[:1], remove_batch_dim=True)
    assert out.shape == (1, 96) and list(cache) == list(whole)
    for name, spec in model.hook_specs.items():
        assert cache[name].shape == ((spec.d,) if spec.is_image_level else (spec.n_positions, spec.d))
        assert torch.equal(cache[name], whole[name][0])
    with pytest.raises(MedSAEError, match="remove_batch_dim is for one image; the batch has 2"):
        model.run_with_cache(x, remove_batch_dim=True)
    assert not any(point.fwd_hooks for point in model.hook_points())
    filled = model.add_caching_hooks(POOLED, remove_batch_dim=True)
    model(x[:1])
    assert filled[POOLED].shape == (96,)


@torch.no_grad()
@pytest.mark.parametrize("pos_slice", [3, (1, 5), (4,), [0, 7, 2]])
@pytest.mark.parametrize("remove_batch_dim", [False, True])
def test_a_slice_is_of_positions_and_leaves_images_alone(model, x, pos_slice, remove_batch_dim):
    images = x[:1] if remove_batch_dim else x
    _, whole = model.run_with_cache(images)
    _, cache = model.run_with_cache(images, pos_slice=pos_slice, remove_batch_dim=remove_batch_dim)
    index: Any = [3] if pos_slice == 3 else slice(*pos_slice) if isinstance(pos_slice, tuple) else pos_slice
    for name, spec in model.hook_specs.items():
        expected = whole[name] if spec.is_image_level else whole[name][:, index]
        assert torch.equal(cache[name], expected[0] if remove_batch_dim else expected), name


def test_a_device_to_cache_on(model, x):
    _, cache = model.run_with_cache(x, device="meta", names_filter=[EARLY, POOLED])
    assert {name: (value.device.type, value.shape) for name, value in cache.items()} == {
        EARLY: ("meta", (2, 576, 24)),
        POOLED: ("meta", (2, 96)),
    }


def test_the_pass_can_be_told_where_to_stop(model, x):
    _, whole = model.run_with_cache(x)
    out, cache = model.run_with_cache(x, stop_at_hook=LATE)
    assert torch.equal(out, whole[LATE])
    assert list(cache) == list(whole)[: list(whole).index(LATE) + 1]
    out, cache = model.run_with_cache(x, names_filter=EARLY, stop_at_hook=LATE)
    assert torch.equal(out, whole[LATE]) and list(cache) == [EARLY]
    with pytest.raises(MedSAEError, match=f"{POOLED} comes after {LATE}, where the pass is to stop"):
        model.run_with_cache(x, names_filter=[EARLY, POOLED], stop_at_hook=LATE)


def test_gradients_are_cached_beside_activations(model, x):
    with pytest.raises(MedSAEError, match=r"incl_bwd goes back from one number, and the output is \(2, 96\)"):
        model.run_with_cache(x, incl_bwd=True)
    cache, forward, backward = model.get_caching_hooks([LATE, POOLED], incl_bwd=True)
    with model.hooks(forward, backward):
        model(x)[:, 0].sum().backward()
    assert set(cache) == {LATE, f"{LATE}_grad", POOLED, f"{POOLED}_grad"}
    weight = model.projection_head.weight[0]
    torch.testing.assert_close(cache[f"{POOLED}_grad"], weight.expand(2, -1).detach())
    assert cache[f"{LATE}_grad"].shape == cache[LATE].shape


def test_caching_hooks_fill_a_cache_of_ones_own_until_they_are_reset(model, x):
    mine: dict[str, Tensor] = {"other": torch.ones(1)}
    assert model.add_caching_hooks(lambda name: "embed" in name, cache=mine) is mine
    assert model.is_caching
    model(x)
    assert set(mine) == {"other", "hook_embed", EMBEDDING, f"{EMBEDDING}_unit"}
    model.reset_hooks()
    assert not model.is_caching
    mine.clear()
    model(x)
    assert mine == {}
    model.cache_some(mine, at(EARLY))
    model(x)
    assert list(mine) == [EARLY]
    model.reset_hooks()
    _, cache = model.run_with_cache(x, names_filter=EARLY, reset_hooks_end=False)
    before = cache.pop(EARLY)
    model(x)
    assert torch.equal(cache[EARLY], before)


# HookedSAETransformer


def an_sae(hook: str, d: int, seed: int = 0) -> StandardSAE:
    torch.manual_seed(seed)
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d, metadata=SAEMetadata(hook_name=hook)))
    with torch.no_grad():
        sae.b_dec.normal_()
        sae.b_enc.normal_()
    return sae


@pytest.fixture
def saes(loaded: HookedVisionEncoder) -> dict[str, SAE[Any]]:
    return {site: an_sae(site, loaded.hook_specs[site].d, seed) for seed, site in enumerate(SITES)}


@torch.no_grad()
@pytest.mark.parametrize("site", SITES)
def test_an_sae_takes_the_place_of_its_hook_point_and_gives_it_back(model, x, plain, saes, site):
    first, second = saes[site], an_sae(site, model.hook_specs[site].d, seed=50)
    model.add_sae(first)
    assert model.acts_to_saes == {site: first} and not isinstance(model.get_submodule(site), HookPoint)
    with_first = model(x)
    assert not torch.allclose(with_first, plain)
    model.add_sae(second)
    assert model.acts_to_saes == {site: second} and not torch.allclose(model(x), with_first)
    model.reset_saes(site)
    assert model.acts_to_saes == {} and isinstance(model.get_submodule(site), HookPoint)
    assert torch.equal(model(x), plain)
    model.reset_saes(site)  # there is nothing to take out, and nothing goes wrong


@torch.no_grad()
def test_saes_of_a_context_go_and_what_they_displaced_comes_back(model, x, plain, saes):
    with model.saes(list(saes.values())):
        assert model.acts_to_saes == saes
        together = model(x)
        model.run_with_cache(x)
        assert model.acts_to_saes == saes
    assert model.acts_to_saes == {} and torch.equal(model(x), plain)
    assert torch.equal(model.run_with_saes(x, saes=list(saes.values())), together)
    for sae in saes.values():
        model.add_sae(sae)
    others = [an_sae(site, model.hook_specs[site].d, seed=60 + i) for i, site in enumerate(SITES)]
    with pytest.raises(ZeroDivisionError), model.saes(others):
        assert [*model.acts_to_saes.values()] == others
        raise ZeroDivisionError
    assert model.acts_to_saes == saes and torch.equal(model(x), together)
    model.reset_saes([EARLY, LATE])
    assert set(model.acts_to_saes) == set(SITES) - {EARLY, LATE}
    model.reset_saes()
    assert torch.equal(model.run_with_saes(x, saes=saes[EARLY], reset_saes_end=False), model(x))
    assert model.acts_to_saes == {EARLY: saes[EARLY]}


@torch.no_grad()
def test_caches_with_saes_name_their_latents(model, x, saes):
    spliced = list(saes.values())
    out, cache = model.run_with_cache_with_saes(x, saes=spliced)
    assert isinstance(cache, ActivationCache) and torch.equal(out, model.run_with_saes(x, saes=spliced))
    for site in SITES:
        assert f"{site}.hook_sae_acts_post" in cache and site not in cache
    _, plain_cache = model.run_with_cache_with_saes(x, saes=spliced, return_cache_object=False)
    assert type(plain_cache) is dict and list(plain_cache) == list(cache.keys())
    _, one = model.run_with_cache_with_saes(x[:1], saes=spliced, remove_batch_dim=True)
    assert not one.has_batch_dim
    for name in one.keys():  # noqa: SIM118
        torch.testing.assert_close(one[name], cache[name][0], rtol=1e-4, atol=1e-5, msg=name)
    for sae in spliced:
        model.add_sae(sae)
    _, attached = model.run_with_cache(x)
    assert list(attached) == list(plain_cache)
    assert all(torch.equal(attached[name], plain_cache[name]) for name in attached)


@torch.no_grad()
def test_hooks_on_latents_fire_once_and_can_change_them(model, x, saes):
    latents = [f"{site}.hook_sae_acts_post" for site in SITES]
    count = Counter()
    model.run_with_hooks_with_saes(x, saes=list(saes.values()), fwd_hooks=[(name, count) for name in latents])
    assert count.names == latents and model.acts_to_saes == {}
    for sae in saes.values():
        model.add_sae(sae)
    model.run_with_hooks(x, fwd_hooks=[("*.hook_sae_acts_post", count)])
    assert count.names == 2 * latents and model.acts_to_saes == saes
    silent = model.run_with_hooks(x, fwd_hooks=[(latents[-1], lambda a, hook: a * 0)])
    torch.testing.assert_close(silent, saes[EMBEDDING].b_dec.expand(2, -1))


@torch.no_grad()
@pytest.mark.parametrize("site", SITES)
def test_the_error_term_makes_the_output_the_models_own_and_is_no_setting_of_the_sae(model, x, plain, saes, site):
    sae = saes[site]
    exact, cache = model.run_with_cache_with_saes(x, saes=sae, use_error_term=True)
    torch.testing.assert_close(exact, plain, rtol=1e-4, atol=1e-4)
    _, whole = model.run_with_cache(x)
    torch.testing.assert_close(cache[f"{site}.hook_sae_output"], whole[site], rtol=1e-4, atol=1e-4)
    _, without = model.run_with_cache_with_saes(x, saes=sae, use_error_term=False)
    assert f"{site}.hook_sae_error" in cache and f"{site}.hook_sae_error" not in without
    assert not torch.allclose(without[f"{site}.hook_sae_output"], whole[site])
    with pytest.raises(ZeroDivisionError), model.saes([sae], use_error_term=True):
        raise ZeroDivisionError
    assert sae.use_error_term is False and model.acts_to_saes == {}


@torch.no_grad()
def test_positions_that_are_left_out_pass_as_they_are(model, x, saes):
    _, whole = model.run_with_cache(x, names_filter=LATE)
    _, cache = model.run_with_cache_with_saes(x, saes=saes[LATE], exclude_special_tokens=[0, 35])
    out = cache[f"{LATE}.hook_sae_output"]
    assert torch.equal(out[:, [0, 35]], whole[LATE][:, [0, 35]])
    torch.testing.assert_close(out[:, 1:35], saes[LATE](whole[LATE])[:, 1:35])


@torch.no_grad()
def test_a_transcoder_joins_two_hooks(model, x, plain):
    into, out_of = "stages.2.blocks.0.hook_mlp_out", LATE
    metadata = SAEMetadata(hook_name=into, hook_name_out=out_of)
    torch.manual_seed(0)
    transcoder = Transcoder(
        TranscoderConfig(d_in=96, d_out=96, d_sae=64, apply_b_dec_to_input=False, metadata=metadata)
    )
    _, whole = model.run_with_cache(x)
    out, cache = model.run_with_cache_with_saes(x, saes=transcoder)
    torch.testing.assert_close(cache[f"{out_of}.hook_sae_acts_post"], transcoder.encode(whole[into]))
    expected = model.run_with_hooks(x, fwd_hooks=[(out_of, lambda a, hook: transcoder(whole[into]))])
    torch.testing.assert_close(out, expected)
    exact = model.run_with_saes(x, saes=transcoder, use_error_term=True)
    torch.testing.assert_close(exact, plain, rtol=1e-4, atol=1e-4)
    model.add_sae(transcoder)
    model.reset_saes()
    assert torch.equal(model(x), plain)
