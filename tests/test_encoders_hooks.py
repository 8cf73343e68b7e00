"""Hook points of the families, on tiny random models: names, shapes, edits, early stop, gradients."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import ResNetConfig, ResNetModel, SwinConfig, SwinModel, ViTConfig, ViTModel

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, HookSpec, list_cards, load_card, save_encoder

PREPROCESSING = {"mode": "L", "size": 32, "fit": "pad", "resample": "bilinear", "mean": [0.5], "std": [0.25]}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "swin": lambda: SwinModel(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4)
    ),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1])),
    "vit": lambda: ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            pooler_output_size=16,
        )
    ),
}
EXPECTED = {
    "swin": {
        "hook_embed": (8, (16, 16), 0),
        "stages.0.blocks.0.hook_mlp_out": (8, (16, 16), 0),
        "stages.0.blocks.0.hook_resid_post": (8, (16, 16), 0),
        "stages.0.blocks.1.hook_mlp_out": (8, (16, 16), 0),
        "stages.0.blocks.1.hook_resid_post": (8, (16, 16), 0),
        "stages.1.blocks.0.hook_mlp_out": (16, (8, 8), 0),
        "stages.1.blocks.0.hook_resid_post": (16, (8, 8), 0),
        "hook_final_norm": (16, (8, 8), 0),
        "hook_pooled": (16, None, 0),
        "hook_embedding": (16, None, 0),
        "hook_embedding_unit": (16, None, 0),
    },
    "resnet": {
        "hook_embed": (8, (8, 8), 0),
        "stages.0.blocks.0.hook_resid_post": (16, (8, 8), 0),
        "stages.0.blocks.1.hook_resid_post": (16, (8, 8), 0),
        "stages.1.blocks.0.hook_resid_post": (32, (4, 4), 0),
        "hook_pooled": (32, None, 0),
        "hook_embedding": (32, None, 0),
        "hook_embedding_unit": (32, None, 0),
    },
    "vit": {
        "hook_embed": (16, (4, 4), 1),
        **{
            f"blocks.{i}.hook_{kind}": (16, (4, 4), 1)
            for i in (0, 1)
            for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        },
        "hook_final_norm": (16, (4, 4), 1),
        "hook_pooled": (16, None, 0),
        "hook_embedding": (16, None, 0),
        "hook_embedding_unit": (16, None, 0),
    },
}


def write_card(folder: Path, family: str, /, **changes: object) -> Path:
    card = {
        "name": f"tiny-{family}",
        "description": "for tests",
        "licence": "MIT",
        "family": family,
        "source": {"format": "transformers", "path": "./model"},
        "preprocessing": PREPROCESSING,
        **changes,
    }
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


@pytest.fixture(params=MODELS)
def case(request, tmp_path) -> tuple[str, HookedVisionEncoder, torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    model.save_pretrained(tmp_path / "model")
    encoder = HookedVisionEncoder.from_pretrained(write_card(tmp_path, request.param))
    return request.param, encoder, model, torch.randn(2, 3, 32, 32)


def test_hook_specs_tell_name_width_and_grid_in_forward_order(case):
    family, encoder, _, x = case
    specs = [HookSpec(name, *spec) for name, spec in EXPECTED[family].items()]
    assert list(encoder.hook_specs.values()) == specs
    _, cache = encoder.run_with_cache(x)
    assert list(cache) == list(EXPECTED[family])
    for spec in specs:
        shape = (2, spec.d) if spec.is_image_level else (2, spec.n_positions, spec.d)
        assert cache[spec.name].shape == shape, spec.name


def test_the_embedding_is_the_models_own_pooled_output(case):
    _, encoder, model, x = case
    torch.testing.assert_close(encoder(x), model(x).pooler_output.flatten(1), rtol=0, atol=0)


def test_hooks_carry_what_the_model_itself_reports(case):
    family, encoder, model, x = case
    _, cache = encoder.run_with_cache(x)
    with torch.no_grad():
        out = model(x, output_hidden_states=True)
    if family == "vit":
        for i in range(2):
            torch.testing.assert_close(cache[f"blocks.{i}.hook_resid_pre"], out.hidden_states[i])
            whole = cache[f"blocks.{i}.hook_resid_pre"] + cache[f"blocks.{i}.hook_attn_out"]
            torch.testing.assert_close(whole + cache[f"blocks.{i}.hook_mlp_out"], cache[f"blocks.{i}.hook_resid_post"])
        torch.testing.assert_close(cache["hook_final_norm"], out.last_hidden_state)
    elif family == "swin":
        torch.testing.assert_close(cache["hook_embed"], out.hidden_states[0])
        torch.testing.assert_close(cache["hook_final_norm"], out.last_hidden_state)
        torch.testing.assert_close(cache["hook_pooled"], out.last_hidden_state.mean(1))
    else:
        as_map = cache["stages.0.blocks.1.hook_resid_post"].transpose(1, 2).reshape(2, 16, 8, 8)
        torch.testing.assert_close(as_map, out.hidden_states[1])


@pytest.mark.parametrize("identity", [lambda x, hook: x, lambda x, hook: x.clone(), lambda x, hook: None])
def test_identity_hooks_everywhere_change_no_bit(case, identity):
    _, encoder, _, x = case
    with torch.no_grad():
        hooked = encoder.run_with_hooks(x, fwd_hooks=[(name, identity) for name in encoder.hook_specs])
        assert torch.equal(hooked, encoder(x))


def test_an_edit_at_any_hook_reaches_the_output(case):
    _, encoder, _, x = case
    with torch.no_grad():
        plain = encoder(x)
        for name in encoder.hook_specs:
            edited = encoder.run_with_hooks(
                x, fwd_hooks=[(name, lambda a, hook: a + torch.linspace(0, 3, a.shape[-1]))]
            )
            assert not torch.equal(edited, plain), name
    assert all(not point.fwd_hooks for point in encoder.hook_points())


def test_an_edit_lands_at_its_position_and_component(case):
    """Zero all but one position and component at the last residual; what follows sees just that."""
    family, encoder, model, x = case
    name = [n for n in encoder.hook_specs if n.endswith("hook_resid_post")][-1]
    block = dict(model.named_modules())[
        {"swin": "encoder.layers.1.blocks.0", "resnet": "encoder.stages.1.layers.0", "vit": "layers.1"}[family]
    ]

    def ours(a, hook):
        b = torch.zeros_like(a)
        b[:, 5, 3] = 2.0
        return b

    def theirs(module, args, output):
        a = output[0] if isinstance(output, tuple) else output
        b = torch.zeros_like(a)
        if a.ndim == 4:
            b[:, 3, 5 // a.shape[3], 5 % a.shape[3]] = 2.0
        else:
            b[:, 5, 3] = 2.0
        return (b, *output[1:]) if isinstance(output, tuple) else b

    with torch.no_grad():
        edited = encoder.run_with_hooks(x, fwd_hooks=[(name, ours)])
        handle = block.register_forward_hook(theirs)
        torch.testing.assert_close(edited, model(x).pooler_output.flatten(1), rtol=0, atol=0)
        handle.remove()


def test_the_pass_ends_at_the_deepest_hook_asked_for(case):
    _, encoder, _, x = case
    names = list(encoder.hook_specs)
    calls: list[str] = []
    for name, module in encoder.vision_model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    counts = []
    for name in names:
        calls.clear()
        assert set(encoder.activations(x, [names[0], name])) == {names[0], name}
        counts.append(len(calls))
    assert counts[0] < counts[1] < counts[-3] <= counts[-1] and counts == sorted(counts)
    torch.testing.assert_close(encoder(x, stop_at_hook=names[1]), encoder.run_with_cache(x)[1][names[1]])
    assert torch.equal(encoder(x), encoder.run_with_cache(x)[0])  # a stopped pass leaves nothing behind


def test_activations_are_the_caches_without_gradients(case):
    _, encoder, _, x = case
    names = [*encoder.hook_specs][1:3]
    got = encoder.activations(x, names)
    _, cache = encoder.run_with_cache(x, names_filter=lambda name: name in names)
    assert list(got) == names and not any(a.requires_grad for a in got.values())
    for name in names:  # attention without gradients takes another kernel, so the last bits may differ
        torch.testing.assert_close(got[name], cache[name])


def test_gradients_flow_to_the_pixels_and_through_hooks(case):
    _, encoder, _, x = case
    x.requires_grad_()
    encoder(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    seen: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def keep(a, hook):
        a.retain_grad()
        seen[hook.name] = a

    def keep_gradient(g, hook):
        gradients[hook.name] = g[0] if isinstance(g, tuple) else g

    names = list(encoder.hook_specs)
    with encoder.hooks(fwd_hooks=[(n, keep) for n in names], bwd_hooks=[(n, keep_gradient) for n in names]):
        encoder(x.detach().requires_grad_()).square().sum().backward()
    for name in names:
        assert seen[name].grad is not None and gradients[name].shape == seen[name].shape, name
    torch.testing.assert_close(gradients["hook_embedding"], 2 * seen["hook_embedding"].detach())


def test_an_unknown_hook_suggests_near_ones(case):
    _, encoder, _, x = case
    for use in (
        lambda: encoder(x, stop_at_hook="hook_embeding"),
        lambda: encoder.run_with_cache(x, names_filter="hook_embeding"),
        lambda: encoder.run_with_hooks(x, fwd_hooks=[("hook_embeding", lambda a, hook: a)]),
    ):
        with pytest.raises(MedSAEError, match="no hook point 'hook_embeding'; near it: hook_embed"):
            use()


def test_a_saved_encoder_loads_with_its_text_tower(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    from medsae_plugin.encoders import build_encoder

    text = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    vision = {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    }
    path = write_card(
        tmp_path,
        "swin",
        source={"format": "medsae", "path": "saved"},
        vision=vision,
        projection_dim=6,
        text={"config": text},
    )
    torch.manual_seed(1)
    built = build_encoder(load_card(path))
    built.logit_scale = 2.5
    folder = save_encoder(built, tmp_path / "saved")
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[UNK]", "no", "edema", "of", "the", "heart"])}, "[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    loaded = HookedVisionEncoder.from_pretrained(path)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), built(x), rtol=0, atol=0)
    assert loaded.hook_specs["hook_embedding"].d == 6 and loaded.logit_scale == 2.5
    alone = [loaded.encode_text(t) for t in ("no edema", "edema of the heart")]
    together = loaded.encode_text(["no edema", "edema of the heart"])
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together[:1], built.text_tower(torch.tensor([[1, 2]])).detach())
    states = loaded.text_tower.model(torch.tensor([[1, 2]]), output_hidden_states=True).hidden_states
    by_hand = torch.stack([states[k].mean(1) for k in (1, 2, -1)]).mean(0) @ loaded.text_tower.projection_head.weight.T
    torch.testing.assert_close(together[:1], by_hand.detach())


def test_preprocessing_fits_any_aspect(tmp_path):
    MODELS["vit"]().save_pretrained(tmp_path / "model")
    encoder = HookedVisionEncoder.from_pretrained(write_card(tmp_path, "vit"))
    wide, small = Image.new("RGB", (200, 50), (255, 255, 255)), Image.new("L", (10, 20), 255)
    x = encoder.preprocess([wide, small])
    assert x.shape == (2, 3, 32, 32) and x.dtype == torch.float32
    assert x.min() == -2 and x.max() == 2  # (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25
    assert (x[0, 0, 16] == 2).all() and (x[0, 0, :8] == -2).all()
    inside = x[1, 0] == 2  # not enlarged
    assert inside.sum() == 200 and inside[6:26, 11:21].all()
    for fit, expected in (("stretch", 1024), ("crop", 1024)):
        other = dataclasses.replace(encoder.preprocessor, fit=fit, mode="RGB")
        assert other.to_array(wide).shape == (32, 32, 3)
        assert (other.normalize(np.stack([other.to_array(wide)])) == 2)[0, 0].sum() == expected


def test_what_is_wrong_with_a_card_is_said(tmp_path):
    with pytest.raises(MedSAEError, match=r"no card named 'medclip-vit'.*medclip-resnet50, .*medclip-swin, "):
        load_card("medclip-vit")
    assert {"medclip-swin", "medclip-resnet50"} <= set(list_cards())
    wrong = {
        "lacks": {"source": {"format": "transformers"}},
        "format is not one of": {"source": {"format": "pickle", "path": "x"}},
        "family 'cnn' is not one of": {"family": "cnn"},
        "unknown field colour": {"colour": 1},
        "mode is L or RGB": {"preprocessing": {**PREPROCESSING, "mode": "CMYK"}},
        "mean is a list": {"preprocessing": {**PREPROCESSING, "mean": 0.5}},
        "cannot be loaded: there is no such folder": {},
    }
    for text, change in wrong.items():
        path = write_card(tmp_path, "swin", **change)
        with pytest.raises(MedSAEError, match=text):
            HookedVisionEncoder.from_pretrained(path)
    (tmp_path / "card.yaml").write_text("a: [")
    with pytest.raises(MedSAEError, match="not YAML"):
        load_card(tmp_path / "card.yaml")


def test_a_model_without_some_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    MODELS["vit"]().save_pretrained(tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    gone = next(key for key in state if key.endswith("layernorm.weight"))
    del state[gone]
    save_file(state, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MedSAEError, match="lacks weights"):
        HookedVisionEncoder.from_pretrained(write_card(tmp_path, "vit"))
