"""Every card of the package, on a tiny random model of its class that is saved and loaded as its source is."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from helpers.reference_models import biomedclip_text
from helpers.tiny_encoders import HOOKS, TINY, write_tiny_card
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, HookSpec, Preprocessor, describe_encoder, list_cards, load_card
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.files import sha256_of

OFFICIAL = ("medclip-resnet50", "medclip-swin")  # tested against the official code's values
AS_MEDSAE = ("medclip-resnet50-medsae", "medclip-swin-medsae")  # the same, with the pictures of test_encoders_unit.py
Case = tuple[str, HookedVisionEncoder, Callable[[torch.Tensor], torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module", params=TINY)
def case(request, tmp_path_factory) -> Case:
    name, folder = request.param, tmp_path_factory.mktemp("tiny")
    features = TINY[name].make(folder)
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card(name, folder))
    torch.manual_seed(1)
    x = torch.randn(2, 3, *encoder.preprocessor.shape)
    if name.startswith("xrv"):  # gray, in three equal channels, as the preprocessor makes it
        x = x[:, :1].expand(-1, 3, -1, -1).contiguous()
    return name, encoder, features, x


def test_no_card_goes_without_a_test():
    assert set(list_cards()) == {*TINY, *OFFICIAL, *AS_MEDSAE, "phantom-swin"}
    assert {load_card(name).family for name in TINY} | {"swin", "custom"} == set(FAMILIES)


def test_hook_points_tell_name_width_grid_and_prefix_in_forward_order(case: Case):
    name, encoder, _, x = case
    assert list(encoder.hook_specs.values()) == [HookSpec(n, *spec) for n, spec in TINY[name].expected.items()]
    with torch.no_grad():
        _, cache = encoder.run_with_cache(x)
    assert list(cache) == list(TINY[name].expected)
    for spec in encoder.hook_specs.values():
        assert cache[spec.name].shape == ((2, spec.d) if spec.is_image_level else (2, spec.n_positions, spec.d))


def test_hook_embedding_is_the_models_own_image_features(case: Case):
    name, encoder, features, x = case
    with torch.no_grad():
        expected, got = features(x), encoder(x)
    if TINY[name].exact:
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert expected.std(0).max() > 1e-3  # not the same for every image


def test_identity_hooks_everywhere_change_no_bit(case: Case):
    _, encoder, _, x = case
    with torch.no_grad():
        plain = encoder(x)
        for identity in (lambda a, hook: a, lambda a, hook: a.clone(), lambda a, hook: None):
            hooked = encoder.run_with_hooks(x, fwd_hooks=[(name, identity) for name in encoder.hook_specs])
            assert torch.equal(hooked, plain)


def test_an_edit_at_any_hook_reaches_the_output(case: Case):
    _, encoder, _, x = case
    with torch.no_grad():
        plain = encoder(x)
        for name in encoder.hook_specs:
            edited = encoder.run_with_hooks(
                x, fwd_hooks=[(name, lambda a, hook: a + torch.linspace(0, 3, a.shape[-1]))]
            )
            assert not torch.equal(edited, plain), name


def test_blocks_add_up_to_the_residual_stream(case: Case):
    _, encoder, _, x = case
    if "blocks.0.hook_attn_out" not in encoder.hook_specs:
        pytest.skip("not a pre-norm transformer")
    with torch.no_grad():
        _, cache = encoder.run_with_cache(x)
    for i in (0, 1):
        parts = [cache[f"blocks.{i}.hook_{kind}"] for kind in ("resid_pre", "attn_out", "mlp_out")]
        torch.testing.assert_close(sum(parts), cache[f"blocks.{i}.hook_resid_post"])
    assert torch.equal(cache["blocks.0.hook_resid_post"], cache["blocks.1.hook_resid_pre"])


def test_the_shapes_are_told_without_weights(case: Case, tmp_path: Path):
    """From the config alone, copied to a folder that has no weights."""
    name, encoder, _, _ = case
    assert encoder.card.folder is not None
    (tmp_path / "model").mkdir()
    config = encoder.card.folder / "model" / "config.json"
    if config.is_file():
        shutil.copy(config, tmp_path / "model")
    specs, origin = describe_encoder(write_tiny_card(name, tmp_path))
    assert specs == encoder.hook_specs
    assert origin == ("config.json in model" if config.is_file() else "the card")


@pytest.mark.parametrize("name", [*TINY, *OFFICIAL, *AS_MEDSAE])
def test_the_real_cards_shapes_are_told_from_the_card(name: str):
    """Real sizes, no weights: a model of 400 million parameters takes no memory. The prefix is the family's own."""
    specs, origin = describe_encoder(name)
    card = load_card(name)
    assert origin == "the card"
    if card.prefix_tokens is not None:
        assert max(spec.n_prefix for spec in specs.values()) == card.prefix_tokens
    d, grid, last = {
        "medsiglip-448": (1152, (32, 32), "blocks.26.hook_resid_post"),
        "medgemma-4b-vision": (1152, (64, 64), "blocks.26.hook_resid_post"),
        "rad-dino": (768, (37, 37), "blocks.11.hook_resid_post"),
        "dinov2-base": (768, (16, 16), "blocks.11.hook_resid_post"),
        "dinov2-registers-base": (768, (16, 16), "blocks.11.hook_resid_post"),
        "xrv-densenet121": (1024, (7, 7), "stages.3.blocks.15.hook_resid_post"),
        "xrv-resnet50": (2048, (16, 16), "stages.3.blocks.2.hook_resid_post"),
        "medclip-resnet50": (2048, (7, 7), "stages.3.blocks.2.hook_resid_post"),
        "medclip-swin": (768, (7, 7), "stages.3.blocks.1.hook_resid_post"),
    }.get(name.removesuffix("-medsae"), (768, (14, 14), "blocks.11.hook_resid_post"))
    assert [n for n in specs if n.endswith("resid_post")][-1] == last
    assert (specs[last].d, specs[last].grid) == (d, grid)
    widths = {"medclip": 512, "biomedclip": 512, "clip": 512, "medgemma": 2560, "medsiglip": 1152, "xrv-resnet50": 2048}
    width = next((w for start, w in widths.items() if name.startswith(start)), 1024 if "dense" in name else 768)
    assert specs["hook_embedding"].d == width


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        (
            "medsiglip-448",
            tf.SiglipImageProcessorPil(
                size={"height": 448, "width": 448}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
            ),
        ),
        ("siglip-base", tf.SiglipImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3)),
        ("clip-vit-base", tf.CLIPImageProcessorPil()),
        ("biomedclip", tf.CLIPImageProcessorPil()),
        (
            "rad-dino",
            tf.BitImageProcessorPil(
                size={"shortest_edge": 518},
                crop_size={"height": 518, "width": 518},
                image_mean=[0.5307] * 3,
                image_std=[0.2583] * 3,
            ),
        ),
        (
            "dinov2-base",
            tf.BitImageProcessorPil(
                size={"shortest_edge": 256}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
            ),
        ),
        ("vit-base", tf.ViTImageProcessorPil()),
        ("vit-mae-base", tf.ViTImageProcessorPil(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])),
        (
            "medgemma-4b-vision",
            tf.SiglipImageProcessorPil(
                size={"height": 896, "width": 896}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
            ),
        ),
    ],
)
def test_preprocessing_is_that_of_transformers_own_processors(name: str, processor: Any):
    rng = np.random.default_rng(0)
    for shape in ((300, 700), (700, 500), (120, 90)):
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize((shape[1] + 3, shape[0] + 3))
        preprocessor = Preprocessor.from_config(load_card(name).preprocessing)
        ours = preprocessor.normalize(np.stack([preprocessor.to_array(image)]))
        theirs = processor(image.convert("RGB"), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_vit_mae_sees_its_patches_in_their_order(tmp_path: Path):
    TINY["vit-mae-base"].make(tmp_path)
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card("vit-mae-base", tmp_path))
    model = tf.ViTMAEModel.from_pretrained(tmp_path / "model", mask_ratio=0.0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = model(x)
        order = theirs.ids_restore.unsqueeze(-1).expand(-1, -1, 16)
        tokens = theirs.last_hidden_state[:, 1:].gather(1, order)
        ours = encoder.activations(x, ["hook_final_norm"])["hook_final_norm"]
    torch.testing.assert_close(ours[:, 1:], tokens)


def test_medgemma_carries_the_soft_tokens_of_its_language_model(tmp_path: Path):
    TINY["medgemma-4b-vision"].make(tmp_path)
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card("medgemma-4b-vision", tmp_path))
    model = tf.Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        soft = model.model.get_image_features(x).pooler_output
        assert torch.equal(encoder.run_with_cache(x)[1]["hook_projected"], soft)


@pytest.mark.parametrize("prefix", ["vision_tower.vision_model.", "model.vision_tower.vision_model."])
def test_medgemma_loads_in_the_layouts_it_was_published_in(prefix: str, tmp_path: Path):
    TINY["medgemma-4b-vision"].make(tmp_path)
    card = write_tiny_card("medgemma-4b-vision", tmp_path)
    x = torch.randn(2, 3, 32, 32)
    expected = HookedVisionEncoder.from_pretrained(card)(x)
    root = prefix.removesuffix("vision_tower.vision_model.")

    def published(key: str) -> str:
        return root + key.replace("vision_tower.", "vision_tower.vision_model.")

    index = tmp_path / "model" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {published(key): shard for key, shard in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    for shard in (tmp_path / "model").glob("*.safetensors"):
        save_file({published(key): value for key, value in load_file(shard).items()}, shard)
    assert torch.equal(HookedVisionEncoder.from_pretrained(card)(x), expected)


def test_a_pickled_checkpoint_of_tensors_alone_loads_too(tmp_path: Path):
    TINY["clip-vit-base"].make(tmp_path)
    card, model = write_tiny_card("clip-vit-base", tmp_path), tmp_path / "model"
    x, ids = torch.randn(2, 3, 32, 32), torch.tensor([[2, 3, 39]])
    safe = HookedVisionEncoder.from_pretrained(card)
    state = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(state, model / "pytorch_model.bin")
    pickled = HookedVisionEncoder.from_pretrained(card)
    assert torch.equal(pickled(x), safe(x)) and torch.equal(pickled.encode_text(ids), safe.encode_text(ids))
    assert pickled.logit_scale == safe.logit_scale

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(state | {"logit_scale": Hostile()}, model / "pytorch_model.bin")
    with pytest.raises(MedSAEError, match="cannot be loaded"):
        HookedVisionEncoder.from_pretrained(card)
    assert not (tmp_path / "ran").exists()


def test_half_precision_checkpoints_load_in_float32(tmp_path: Path):
    for name in ("vit-base", "medgemma-4b-vision"):
        TINY[name].make(tmp_path)
        for file in (tmp_path / "model").glob("*.safetensors"):
            save_file({k: v.to(torch.bfloat16) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
        encoder = HookedVisionEncoder.from_pretrained(write_tiny_card(name, tmp_path))
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
        assert encoder(torch.randn(1, 3, 32, 32)).dtype == torch.float32
        shutil.rmtree(tmp_path / "model")


def test_a_url_is_read_from_the_cache_it_was_fetched_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    features = TINY["xrv-resnet50"].make(tmp_path)
    monkeypatch.setenv("MEDSAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "xrv-resnet50").mkdir(parents=True)
    shutil.move(tmp_path / "model" / "pytorch_model.bin", tmp_path / "cache" / "xrv-resnet50" / "state.pt")
    source = {"format": "torchxrayvision", "url": "https://nowhere.invalid/v1/state.pt"}
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card("xrv-resnet50", tmp_path, source=source))
    x = torch.randn(2, 1, 32, 32).expand(-1, 3, -1, -1)
    torch.testing.assert_close(encoder(x), features(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("xrv-densenet121", 224), ("xrv-resnet50", 512)])
def test_torchxrayvision_gets_its_own_range(name, size):
    preprocessor = Preprocessor.from_config(load_card(name).preprocessing)
    for value, expected in ((0, -1024), (255, 1024)):
        pixels = preprocessor.normalize(preprocessor.to_array(Image.new("L", (70, 60), value))[None])
        assert pixels.shape == (1, 3, size, size) and (pixels == expected).all()


def test_without_monai_the_densenet_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(MedSAEError, match=r"pip install 'medsae-plugin\[xrv\]'"):
        describe_encoder("xrv-densenet121")


WORDS = ["<pad>", "<unk>", "no", "edema", "pleural", "effusion", "of", "the", "heart"]


def save_tokenizer(folder: Path, end: int) -> None:
    """Words to ids, then the id of the end of the text, as CLIP's and SigLIP's tokenizers have it."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)} | {"<end>": end}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    tf.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)


@pytest.mark.parametrize("name", ["clip-vit-base", "siglip-base", "medsiglip-448"])
def test_texts_are_the_models_own_text_features(name: str, tmp_path: Path):
    TINY[name].make(tmp_path)
    save_tokenizer(tmp_path / "model", end=39)
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card(name, tmp_path))
    model = tf.AutoModel.from_pretrained(tmp_path / "model").eval()
    texts = ["no pleural effusion", "edema", "edema of the heart and more than twelve words of text in one single line"]
    ids = [[2, 4, 5, 39], [3, 39], [3, 6, 7, 8, 1, 1, 1, 1, 1, 6, 1, 39]]
    if "siglip" in name:  # trained on texts padded to full length, without a mask
        ids = [row + [0] * (12 - len(row)) for row in ids]
    with torch.no_grad():
        expected = torch.cat([model.get_text_features(torch.tensor([row])).pooler_output for row in ids])
    torch.testing.assert_close(encoder.encode_text(texts), expected)
    torch.testing.assert_close(encoder.encode_text(texts[1]), expected[1:2])
    for row, one in zip(ids, expected, strict=True):
        torch.testing.assert_close(encoder.encode_text(torch.tensor([row]))[0], one)
    assert encoder.encode_text(texts).shape[1] == encoder.hook_specs["hook_embedding"].d
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach()))
    assert len(encoder.weights_sha256) == 64


def test_biomedclips_texts_are_open_clips(tmp_path: Path):
    TINY["biomedclip"].make(tmp_path)
    state = torch.load(tmp_path / "model" / "open_clip_pytorch_model.bin", weights_only=True)
    save_tokenizer(tmp_path / "words", end=2)
    text = TINY["biomedclip"].text | {"tokenizer": str(tmp_path / "words")}
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card("biomedclip", tmp_path, text=text))
    ids = torch.tensor([[5, 7, 9, 2], [5, 2, 0, 0]])  # the second padded
    expected = biomedclip_text(state, ids)
    torch.testing.assert_close(encoder.encode_text(ids), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.encode_text(["effusion"]), expected[1:], atol=1e-5, rtol=1e-5)
    assert encoder.logit_scale == pytest.approx(4.4)


@pytest.mark.parametrize(
    ("name", "file", "gone", "message"),
    [
        ("biomedclip", "open_clip_pytorch_model.bin", "visual.trunk.blocks.1.norm2.bias", "layernorm_after.bias"),
        ("biomedclip", "open_clip_pytorch_model.bin", "text.proj.2.weight", "projection_head.2.weight"),
        ("biomedclip", "open_clip_pytorch_model.bin", "logit_scale", "logit_scale"),
        ("xrv-densenet121", "pytorch_model.bin", "features.norm5.weight", "features.norm5.weight"),
        ("xrv-resnet50", "pytorch_model.bin", "layer2.0.bn3.running_var", "normalization.running_var"),
    ],
)
def test_every_key_of_a_converted_checkpoint_is_accounted_for(
    name: str, file: str, gone: str, message: str, tmp_path: Path
):
    TINY[name].make(tmp_path)
    card, path = write_tiny_card(name, tmp_path), tmp_path / "model" / file
    state = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in state.items() if k != gone}, path)
    with pytest.raises(MedSAEError, match=rf"missing: .*{message}"):
        HookedVisionEncoder.from_pretrained(card)
    torch.save({**state, "extra.weight": torch.zeros(1)}, path)
    with pytest.raises(MedSAEError, match=r"left over: .*extra\.weight"):
        HookedVisionEncoder.from_pretrained(card)


def test_weights_at_hand_take_the_place_of_the_hub(tmp_path: Path):
    """The package's own card, untouched, with a folder and with a file."""
    TINY["rad-dino"].make(tmp_path)
    encoder = HookedVisionEncoder.from_pretrained("rad-dino", weights=tmp_path / "model")
    assert encoder.hook_specs["hook_final_norm"].grid == (37, 37) and encoder.hook_specs["hook_pooled"].d == 16
    TINY["biomedclip"].make(tmp_path)
    file = tmp_path / "model" / "open_clip_pytorch_model.bin"
    card = write_tiny_card("biomedclip", tmp_path, source={"format": "open_clip", "path": "microsoft/BiomedCLIP"})
    folder, alone = (HookedVisionEncoder.from_pretrained(card, weights=path) for path in (file.parent, file))
    assert folder.weights_sha256 == alone.weights_sha256 == sha256_of(file)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("siglip-base", "model.safetensors"),
        ("medgemma-4b-vision", "model-*.safetensors"),
        ("medgemma-4b-vision", "model.safetensors.index.json"),
        ("xrv-resnet50", "pytorch_model.bin"),
        ("vit-base", "config.json"),
    ],
)
def test_a_damaged_file_is_an_error_in_words(name: str, file: str, tmp_path: Path):
    TINY[name].make(tmp_path)
    for path in (tmp_path / "model").glob(file):
        path.write_bytes(b"{" + path.read_bytes()[:100])
    with pytest.raises(MedSAEError, match=r"model|config"):
        HookedVisionEncoder.from_pretrained(write_tiny_card(name, tmp_path))


def test_an_index_cannot_name_files_outside_its_folder(tmp_path: Path):
    TINY["medgemma-4b-vision"].make(tmp_path)
    index = tmp_path / "model" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../elsewhere.safetensors")
    index.write_text(json.dumps(content))
    with pytest.raises(MedSAEError, match="names a file outside its folder"):
        HookedVisionEncoder.from_pretrained(write_tiny_card("medgemma-4b-vision", tmp_path))


def test_a_pickle_of_a_whole_module_is_refused(tmp_path: Path):
    """As TorchXRayVision's own DenseNet releases are: to read one is to run what it says."""
    (tmp_path / "model").mkdir()
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(MedSAEError, match="not a checkpoint of tensors alone"):
        HookedVisionEncoder.from_pretrained(write_tiny_card("xrv-densenet121", tmp_path))


def test_cards_pin_what_they_fetch_from_the_hub():
    """A commit each, but for the one whose card says that none is pinned."""
    unpinned = set()
    for name in TINY:
        source = load_card(name).source
        if "path" in source and len(source.get("revision") or "") != 40:
            unpinned.add(name)
            assert "none is pinned" in (HOOKS / f"{name}.yaml").read_text()
    assert unpinned == {"xrv-densenet121"}


@pytest.mark.parametrize("name", ["xrv-densenet121", "xrv-resnet50"])
def test_torchxrayvisions_networks_see_pixels_from_minus_1024_to_1024(name: str):
    preprocessor = Preprocessor.from_config(load_card(name).preprocessing)
    black, white = (
        preprocessor.normalize(preprocessor.to_array(Image.new("RGB", (700, 600), (v, v, v)))[None]) for v in (0, 255)
    )
    assert (black == -1024).all() and (white == 1024).all() and black.shape == (1, 3, *preprocessor.shape)
