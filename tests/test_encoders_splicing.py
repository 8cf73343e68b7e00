"""SAEs spliced in. The first tests hold of SAE-Lens's own `HookedSAETransformer`, and run on it beside our encoders."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from helpers import next_transformer_lens
from helpers.extraction_case import PREPROCESSING, VIT
from helpers.extraction_case import SWIN as SWIN_CONFIG
from sae_lens import SAE, HookedSAETransformer, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import EncoderCard, HookedVisionEncoder, ablate, build_encoder, clamp, scale, steer

POINTS = ("hook_sae_input", "hook_sae_acts_pre", "hook_sae_acts_post", "hook_sae_recons", "hook_sae_output")


class Subject(NamedTuple):
    """A model that SAEs are spliced into, its input, two of its hooks, and two that a transcoder may join."""

    model: Any
    x: torch.Tensor
    hooks: tuple[str, str]
    transcoder: tuple[str, str]

    def width(self, hook: str) -> int:
        return self.activation(hook).shape[-1]

    def activation(self, hook: str) -> torch.Tensor:
        return self.model.run_with_cache(self.x, names_filter=[hook])[1][hook]

    @torch.no_grad()
    def plain(self) -> torch.Tensor:
        return self.model(self.x)


def language_model() -> Subject:
    if next_transformer_lens.MAJOR >= 4:
        pytest.skip("transformer-lens 4 has no HookedTransformer, which SAE-Lens's HookedSAETransformer is")
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=8, d_head=8, n_heads=2, d_vocab=20, act_fn="relu", seed=0
    )
    model = HookedSAETransformer(config).eval()
    x = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(1))
    return Subject(
        model,
        x,
        ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"),
        ("blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out"),
    )


FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[str, str]]] = {
    "swin": (
        SWIN_CONFIG,
        ("stages.0.blocks.1.hook_resid_post", "hook_embedding"),
        ("stages.1.blocks.0.hook_mlp_out", "stages.1.blocks.0.hook_resid_post"),
    ),
    "resnet": (
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 1]},
        ("stages.0.blocks.0.hook_resid_post", "stages.1.blocks.0.hook_resid_post"),
        ("hook_embed", "stages.0.blocks.0.hook_resid_post"),
    ),
    "vit": (
        VIT,
        ("blocks.0.hook_resid_post", "hook_pooled"),
        ("blocks.0.hook_attn_out", "blocks.0.hook_mlp_out"),
    ),
}


def encoder(family: str) -> HookedVisionEncoder:
    card = EncoderCard(
        name=f"tiny-{family}",
        description="random weights",
        licence="MIT",
        family=family,
        source={"format": "medsae", "path": "."},
        preprocessing=PREPROCESSING,
        vision=FAMILIES[family][0],
        projection_dim=6,
    )
    torch.manual_seed(0)
    return build_encoder(card)


def vision_subject(family: str) -> Subject:
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Subject(encoder(family), x, *FAMILIES[family][1:])


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "language": language_model,
    **{family: (lambda family=family: vision_subject(family)) for family in FAMILIES},
}


@pytest.fixture(params=SUBJECTS)
def subject(request) -> Subject:
    return SUBJECTS[request.param]()


@pytest.fixture(params=FAMILIES)
def vision(request) -> Subject:
    return vision_subject(request.param)


def an_sae(hook: str, d: int, seed: int = 0, **changes: Any) -> StandardSAE:
    torch.manual_seed(seed)
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d, metadata=SAEMetadata(hook_name=hook), **changes))
    with torch.no_grad():
        sae.b_dec.normal_(std=0.1)
        sae.b_enc.normal_(std=0.1)
    return sae


def saes_at(subject: Subject) -> list[StandardSAE]:
    return [an_sae(hook, subject.width(hook), seed) for seed, hook in enumerate(subject.hooks)]


def a_transcoder(subject: Subject, kind: type[Transcoder] = Transcoder) -> Transcoder:
    into, out_of = subject.transcoder
    config = SkipTranscoderConfig if kind is SkipTranscoder else TranscoderConfig
    torch.manual_seed(0)
    return kind(
        config(
            d_in=subject.width(into),
            d_out=subject.width(out_of),
            d_sae=24,
            apply_b_dec_to_input=False,
            metadata=SAEMetadata(hook_name=into, hook_name_out=out_of),
        )
    )


@torch.no_grad()
def with_replaced(subject: Subject, hook: str, activation: torch.Tensor) -> torch.Tensor:
    """The output where this is the activation at the hook."""
    return subject.model.run_with_hooks(subject.x, fwd_hooks=[(hook, lambda a, hook: activation)])


@torch.no_grad()
def test_the_output_is_that_of_the_reconstruction_and_with_the_error_term_the_models_own(subject):
    plain = subject.plain()
    for sae in saes_at(subject):
        hook = sae.cfg.metadata.hook_name
        expected = with_replaced(subject, hook, sae(subject.activation(hook)))
        spliced = subject.model.run_with_saes(subject.x, saes=[sae])
        torch.testing.assert_close(spliced, expected)
        assert (spliced - plain).abs().max() > 1e-3
        exact = subject.model.run_with_saes(subject.x, saes=sae, use_error_term=True)
        torch.testing.assert_close(exact, plain, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_several_saes_at_once(subject):
    first, second = saes_at(subject)
    both = subject.model.run_with_saes(subject.x, saes=[first, second])
    subject.model.add_sae(first)
    after_first = subject.model.run_with_cache(subject.x)[1][subject.hooks[1]]
    expected = with_replaced(subject, subject.hooks[1], second(after_first))
    subject.model.reset_saes()
    torch.testing.assert_close(both, expected)
    exact = subject.model.run_with_saes(subject.x, saes=[first, second], use_error_term=True)
    torch.testing.assert_close(exact, subject.plain(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("use_error_term", [True, False])
def test_the_cache_names_the_saes_hook_points_in_the_place_of_the_models(subject, use_error_term):
    sae = saes_at(subject)[0]
    hook = sae.cfg.metadata.hook_name
    x = subject.activation(hook)
    out, cache = subject.model.run_with_cache_with_saes(subject.x, saes=[sae], use_error_term=use_error_term)
    error = {f"{hook}.hook_sae_error"} if use_error_term else set()
    assert {key for key in cache if key.startswith(hook)} == {f"{hook}.{name}" for name in POINTS} | error
    torch.testing.assert_close(cache[f"{hook}.hook_sae_input"], x)
    torch.testing.assert_close(cache[f"{hook}.hook_sae_acts_post"], sae.encode(x))
    torch.testing.assert_close(cache[f"{hook}.hook_sae_recons"], sae(x))
    if use_error_term:
        torch.testing.assert_close(cache[f"{hook}.hook_sae_error"], x - sae(x))
    torch.testing.assert_close(out, subject.model.run_with_saes(subject.x, saes=sae, use_error_term=use_error_term))
    latents = f"{hook}.hook_sae_acts_post"
    _, few = subject.model.run_with_cache_with_saes(
        subject.x, saes=[sae], names_filter=[latents], return_cache_object=False
    )
    assert type(few) is dict and list(few) == [latents]
    assert hook in subject.model.run_with_cache(subject.x)[1]


@torch.no_grad()
def test_saes_come_and_go(subject):
    model, (first, second), plain = subject.model, saes_at(subject), subject.plain()
    names = [sae.cfg.metadata.hook_name for sae in (first, second)]
    points = set(model.hook_dict)
    assert model.acts_to_saes == {}
    model.run_with_saes(subject.x, saes=[first, second])
    assert model.acts_to_saes == {} and set(model.hook_dict) == points and torch.equal(model(subject.x), plain)
    spliced = model.run_with_saes(subject.x, saes=[first, second], reset_saes_end=False)
    assert model.acts_to_saes == dict(zip(names, (first, second), strict=True))
    torch.testing.assert_close(model(subject.x), spliced)
    model.reset_saes(names[0])
    assert model.acts_to_saes == {names[1]: second}
    model.add_sae(first)
    model.reset_saes([names[1]])
    assert model.acts_to_saes == {names[0]: first}
    model.reset_saes()
    assert model.acts_to_saes == {} and set(model.hook_dict) == points and torch.equal(model(subject.x), plain)


@torch.no_grad()
def test_a_context_gives_back_what_it_displaced_with_its_setting(subject):
    model, sae = subject.model, saes_at(subject)[0]
    hook = subject.hooks[0]
    other = an_sae(hook, subject.width(hook), seed=9)
    expected = model.run_with_saes(subject.x, saes=other)
    model.add_sae(sae, use_error_term=True)
    exact = model(subject.x)
    with model.saes(other) as same:
        assert same is model and model.acts_to_saes == {hook: other}
        torch.testing.assert_close(model(subject.x), expected)
    assert model.acts_to_saes == {hook: sae}
    torch.testing.assert_close(model(subject.x), exact, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), model.saes([other]):
        raise ZeroDivisionError
    assert model.acts_to_saes == {hook: sae}
    model.add_sae(other)  # takes its place
    assert model.acts_to_saes == {hook: other}
    torch.testing.assert_close(model(subject.x), expected)


@torch.no_grad()
def test_a_transcoder_reads_one_hook_and_writes_another(subject):
    model, transcoder = subject.model, a_transcoder(subject)
    into, out_of = subject.transcoder
    expected = with_replaced(subject, out_of, transcoder(subject.activation(into)))
    plain, points = subject.plain(), set(model.hook_dict)
    spliced, cache = model.run_with_cache_with_saes(subject.x, saes=[transcoder])
    torch.testing.assert_close(spliced, expected)
    assert into in cache and out_of not in cache
    torch.testing.assert_close(cache[f"{out_of}.hook_sae_acts_post"], transcoder.encode(subject.activation(into)))
    exact = model.run_with_saes(subject.x, saes=[transcoder], use_error_term=True)
    torch.testing.assert_close(exact, plain, rtol=1e-5, atol=1e-6)
    model.add_sae(transcoder)
    assert model.acts_to_saes == {into: transcoder}
    model.reset_saes(into)
    assert set(model.hook_dict) == points and torch.equal(model(subject.x), plain)


@torch.no_grad()
def test_an_edit_of_a_latent_is_not_undone_by_the_error_term(subject):
    model, sae = subject.model, saes_at(subject)[0]
    hook = subject.hooks[0]
    x = subject.activation(hook)
    latents = sae.encode(x)
    j = int((latents > 0).flatten(0, -2).sum(0).argmax())
    expected = with_replaced(subject, hook, x - latents[..., j : j + 1] * sae.W_dec[j])

    def zero(a, hook):
        a[..., j] = 0
        return a

    edit = [(f"{hook}.hook_sae_acts_post", zero)]
    with model.saes(sae, use_error_term=True):
        torch.testing.assert_close(model.run_with_hooks(subject.x, fwd_hooks=edit), expected, rtol=1e-4, atol=1e-5)
    assert (expected - subject.plain()).abs().max() > 1e-3
    without_error = model.run_with_hooks_with_saes(subject.x, saes=[sae], fwd_hooks=edit)
    recons = with_replaced(subject, hook, sae(x) - latents[..., j : j + 1] * sae.W_dec[j])
    torch.testing.assert_close(without_error, recons, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_latents(subject):
    sae = saes_at(subject)[0]
    seen: list[torch.Tensor] = []

    def keep(a, hook):
        a.retain_grad()
        seen.append(a)

    with (
        subject.model.saes(sae, use_error_term=True),
        subject.model.hooks(fwd_hooks=[(f"{subject.hooks[0]}.hook_sae_acts_post", keep)]),
    ):
        subject.model(subject.x)[:, 0].square().sum().backward()
    assert seen[0].grad.shape == seen[0].shape and seen[0].grad.abs().sum() > 0


# From here on, what encoders do on their own.


@torch.no_grad()
def test_the_error_term_holds_at_every_hook_of_every_family(vision):
    plain = vision.plain()
    for hook, spec in vision.model.hook_specs.items():
        exact = vision.model.run_with_saes(vision.x, saes=[an_sae(hook, spec.d)], use_error_term=True)
        torch.testing.assert_close(exact, plain, rtol=1e-5, atol=1e-6, msg=hook)
    config = TopKSAEConfig(d_in=6, d_sae=12, k=2, metadata=SAEMetadata(hook_name="hook_embedding"))
    if vision.width("hook_embedding") == 6:
        spliced = vision.model.run_with_saes(vision.x, saes=[sae := TopKSAE(config)])
        torch.testing.assert_close(spliced, sae(plain))


@torch.no_grad()
def test_a_skip_transcoders_skip_is_not_lost(vision):
    transcoder = a_transcoder(vision, SkipTranscoder)
    transcoder.W_skip.normal_()
    expected = with_replaced(vision, vision.transcoder[1], transcoder(vision.activation(vision.transcoder[0])))
    torch.testing.assert_close(vision.model.run_with_saes(vision.x, saes=transcoder), expected)


@torch.no_grad()
def test_one_sae_at_a_place(vision):
    model, transcoder = vision.model, a_transcoder(vision)
    into, out_of = vision.transcoder
    at_input, at_output = an_sae(into, vision.width(into)), an_sae(out_of, vision.width(out_of))
    expected = model.run_with_saes(vision.x, saes=at_output)
    model.add_sae(at_input)
    model.add_sae(transcoder)  # of the same key
    assert model.acts_to_saes == {into: transcoder}
    model.add_sae(at_output)  # of the same place
    assert model.acts_to_saes == {out_of: at_output}
    torch.testing.assert_close(model(vision.x), expected)
    with model.saes([at_input, transcoder]):  # displaces all three
        assert model.acts_to_saes == {into: transcoder}
    assert model.acts_to_saes == {out_of: at_output}
    torch.testing.assert_close(model(vision.x), expected)


@torch.no_grad()
def test_a_transcoder_reads_what_another_wrote():
    vision = vision_subject("vit")
    hooks = ("blocks.0.hook_attn_out", "blocks.0.hook_mlp_out", "blocks.0.hook_resid_post")
    first = a_transcoder(vision._replace(transcoder=hooks[:2]))
    second = a_transcoder(vision._replace(transcoder=hooks[1:]))
    expected = with_replaced(vision, hooks[2], second(first(vision.activation(hooks[0]))))
    torch.testing.assert_close(vision.model.run_with_saes(vision.x, saes=[second, first]), expected)


@torch.no_grad()
def test_prefix_tokens_can_be_left_as_they_are():
    vision = vision_subject("vit")
    hook = "blocks.0.hook_resid_post"
    sae = an_sae(hook, vision.width(hook))
    x = vision.activation(hook)
    for special, n in ((True, 1), ([0, 2], None), (False, 0)):
        mask = torch.zeros(17, dtype=torch.bool)
        mask[special if isinstance(special, list) else slice(0, n)] = True
        expected = with_replaced(vision, hook, torch.where(mask[:, None], x, sae(x)))
        torch.testing.assert_close(
            vision.model.run_with_saes(vision.x, saes=[sae], exclude_special_tokens=special), expected
        )
        exact = vision.model.run_with_saes(vision.x, saes=[sae], exclude_special_tokens=special, use_error_term=True)
        torch.testing.assert_close(exact, vision.plain(), rtol=1e-5, atol=1e-6)
    with pytest.raises(MedSAEError, match="positions 0 to 16"):
        vision.model.add_sae(sae, exclude_special_tokens=[17])


@torch.no_grad()
def test_the_pass_ends_within_a_spliced_sae(vision):
    model, sae = vision.model, saes_at(vision)[0]
    hook = vision.hooks[0]
    x = vision.activation(hook)
    after: list[str] = []
    model.projection_head.register_forward_hook(lambda *_: after.append("projection"))
    with model.saes(sae):
        torch.testing.assert_close(model(vision.x, stop_at_hook=f"{hook}.hook_sae_acts_post"), sae.encode(x))
        torch.testing.assert_close(model(vision.x, stop_at_hook=hook), sae(x))
        assert list(model.activations(vision.x, [f"{hook}.hook_sae_acts_post"])) == [f"{hook}.hook_sae_acts_post"]
        with pytest.raises(MedSAEError, match=f"an SAE stands at {hook}; .*{hook}.hook_sae_output"):
            model.run_with_cache(vision.x, names_filter=[hook])
    assert not after
    assert all(not point.fwd_hooks for point in sae.hook_dict.values())


@torch.no_grad()
def test_hooks_under_an_sae_wait_for_it_to_leave_and_end_with_their_context(vision):
    model, sae, plain = vision.model, saes_at(vision)[0], vision.plain()
    hook = vision.hooks[0]
    with model.hooks(fwd_hooks=[(hook, lambda a, hook: a * 0)]):
        zeroed = model(vision.x)
        with model.saes(sae, use_error_term=True):
            torch.testing.assert_close(model(vision.x), plain, rtol=1e-5, atol=1e-6)
        assert torch.equal(model(vision.x), zeroed)
        model.add_sae(sae)
    model.reset_saes()
    assert torch.equal(model(vision.x), plain)
    assert sae.hook_sae_acts_post.name == "hook_sae_acts_post"  # its own run_with_cache has its own names again


@torch.no_grad()
def test_an_sae_of_float32_in_an_encoder_of_half_precision():
    vision = vision_subject("swin")
    model, x = vision.model.to(torch.bfloat16), vision.x
    spliced = model.run_with_saes(x, saes=saes_at(vision), use_error_term=True)
    assert spliced.dtype == torch.bfloat16
    torch.testing.assert_close(spliced, model(x), rtol=0.02, atol=0.02)


def test_what_cannot_be_spliced_is_said(vision):
    model, hook = vision.model, vision.hooks[0]
    d = vision.width(hook)
    with pytest.raises(MedSAEError, match="no hook point 'blocks_7'; near it"):
        model.add_sae(an_sae("blocks_7", d))
    with pytest.raises(MedSAEError, match="has no hook_name"):
        model.add_sae(StandardSAE(StandardSAEConfig(d_in=d, d_sae=4)))
    with pytest.raises(MedSAEError, match=f"{d + 1} dimensions at {hook}"):
        model.add_sae(an_sae(hook, d + 1))
    with pytest.raises(MedSAEError, match="no hook point"):
        model.reset_saes("embedding")
    into, out_of = vision.transcoder

    def transcoder(one: str, other: str) -> Transcoder:
        metadata = SAEMetadata(hook_name=one, hook_name_out=other)
        widths = {"d_in": vision.width(one), "d_out": vision.width(other)}
        return Transcoder(TranscoderConfig(**widths, d_sae=4, apply_b_dec_to_input=False, metadata=metadata))

    with pytest.raises(MedSAEError, match="comes after"):
        model.add_sae(transcoder(out_of, into))
    with pytest.raises(MedSAEError, match="maps position to position"):
        model.add_sae(transcoder(into, "hook_pooled"))
    assert model.acts_to_saes == {} and not any("hook_sae" in name for name in model.hook_dict)


class Case(NamedTuple):
    edit: Any
    expected: Callable[[torch.Tensor], torch.Tensor]


BY_IMAGE = torch.tensor([0.5, 0.0, 3.0])
CASES = {
    "ablate": Case(ablate(), lambda a: 0 * a),
    "clamp": Case(clamp(2.5), lambda a: 0 * a + 2.5),
    "scale": Case(scale(3), lambda a: 3 * a),
    "steer": Case(steer(-0.7), lambda a: a - 0.7),
    "each image its own": Case(
        clamp(BY_IMAGE), lambda a: torch.stack([0 * row + v for row, v in zip(a, BY_IMAGE, strict=True)])
    ),
    "one image": Case(ablate(torch.tensor([False, True, False])), lambda a: torch.stack([a[0], 0 * a[1], a[2]])),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_edits_do_what_they_say_and_nothing_else(vision, name):
    edit, become = CASES[name]
    for sae in saes_at(vision):
        hook = sae.cfg.metadata.hook_name
        x = vision.activation(hook)
        latents = sae.encode(x)
        j = int((latents > 0).flatten(0, -2).sum(0).argmax())
        change = become(latents[..., j]) - latents[..., j]
        expected = with_replaced(vision, hook, x + change[..., None] * sae.W_dec[j])
        with vision.model.latent_edits({sae: {j: edit}}) as model:
            torch.testing.assert_close(model(vision.x), expected, rtol=1e-4, atol=1e-5)
        assert vision.model.acts_to_saes == {}


@torch.no_grad()
def test_edits_by_position_of_several_latents_in_several_saes(vision):
    first, second = saes_at(vision)
    hook = vision.hooks[0]
    x = vision.activation(hook)
    latents = first.encode(x)
    a, b = (int(j) for j in (latents > 0).flatten(0, 1).sum(0).topk(2).indices)
    here = torch.zeros(3, x.shape[1], dtype=torch.bool)
    here[0, :4] = here[2, 5] = True
    amounts = torch.linspace(-1, 1, x.shape[1])[None]
    delta = -torch.where(here, latents[..., a], torch.zeros(()))[..., None] * first.W_dec[a]
    delta = delta + amounts.expand(3, -1)[..., None] * first.W_dec[b]
    moved = vision.model.run_with_hooks(
        vision.x, fwd_hooks=[(hook, lambda t, hook: t + delta), (vision.hooks[1], lambda t, hook: t + second.W_dec[3])]
    )
    with vision.model.latent_edits({first: {a: ablate(here), b: steer(amounts)}, second: {3: steer(1.0)}}):
        torch.testing.assert_close(vision.model(vision.x), moved, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_sae_that_is_there_stays_as_it_is_and_edits_end(vision):
    sae = saes_at(vision)[0]
    vision.model.add_sae(sae)  # without the error term
    spliced = vision.model(vision.x)
    with vision.model.latent_edits({sae: {0: scale(1.0)}}):
        torch.testing.assert_close(vision.model(vision.x), spliced)
    with vision.model.latent_edits({sae: {j: clamp(1.0) for j in range(sae.cfg.d_sae)}}):
        expected = sae.decode(torch.ones(1, sae.cfg.d_sae))
        out = vision.model(vision.x, stop_at_hook=vision.hooks[0])
        torch.testing.assert_close(out, expected.expand_as(out))
    assert torch.equal(vision.model(vision.x), spliced) and vision.model.acts_to_saes == {vision.hooks[0]: sae}


def test_edits_that_do_not_fit_are_refused(vision):
    sae = saes_at(vision)[0]
    with pytest.raises(MedSAEError, match="no latent 99999"), vision.model.latent_edits({sae: {99999: ablate()}}):
        pass
    for wrong in (torch.ones(4), torch.ones(3, 3), torch.ones(3, 1, 1), torch.ones(2, 3)):
        with (
            pytest.raises(MedSAEError, match=r"an edit of shape .* does not fit latents of \(batch, position\) = \(3"),
            vision.model.latent_edits({sae: {0: clamp(wrong)}}),
        ):
            vision.model(vision.x)
    assert vision.model.acts_to_saes == {}
    assert all(not point.fwd_hooks for point in SAE.hook_points(sae))
