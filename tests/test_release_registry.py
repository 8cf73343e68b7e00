"""Releases are SAE-Lens's own once the plugin is imported, in either order, and importing it costs nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory, get_releases_for_repo_id
from safetensors.torch import load_file, save_file

from medsae_plugin import HookedVisionEncoder, MedSAEError, load_medsae, register_releases
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.release import registry
from medsae_plugin.release.cards import bundled_releases

RELEASE = "medsae-phantom"
SAES = tuple(bundled_releases()[0].saes)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Releases that a test registers are forgotten after it."""
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    directory = get_pretrained_saes_directory()
    before, registered = dict(directory), dict(registry._registered)
    yield
    for known, saved in ((directory, before), (registry._registered, registered)):
        known.clear()
        known.update(saved)


@pytest.fixture
def own(tmp_path) -> Path:
    """A copy of the bundled release under another name: a user's card and folder."""
    card = yaml.safe_load((pretrained_folder() / f"{RELEASE}.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"mine": card[RELEASE]}))
    shutil.copytree(pretrained_folder() / RELEASE, tmp_path / RELEASE)
    return tmp_path / "mine.yaml"


def change(card: Path, **fields: object) -> Path:
    content = yaml.safe_load(card.read_text())
    (entry,) = content.values()
    entry |= fields
    card.write_text(yaml.safe_dump(content))
    return card


def run(code: str) -> list[str]:
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()


def test_importing_reads_no_card_and_no_sae_lens():
    heavy = ("yaml", "torch", "numpy", "sae_lens", "huggingface_hub", "medsae_plugin.release.registry")
    assert run(f"import sys, medsae_plugin; print([m for m in {heavy} if m in sys.modules])") == ["[]"]


_KNOWN = f"""
look_up = get_pretrained_saes_directory
assert {RELEASE!r} in look_up() and len(look_up()) > 50
sae = SAE.from_pretrained({RELEASE!r}, {SAES[0]!r})
print(sae.cfg.metadata.model_name)
"""


def test_imported_before_sae_lens():
    code = (
        "import sys, medsae_plugin, importlib.util\n"
        "assert importlib.util.find_spec('sae_lens') is not None\n"  # as other libraries do, without importing it
        "from sae_lens import SAE\n"
        "from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory\n"
        "assert not get_pretrained_saes_directory.__wrapped__.cache_info().currsize\n"
        "assert 'medsae_plugin.release.registry' not in sys.modules\n"
        "assert not any('_sae_lens' in type(f).__module__ for f in sys.meta_path)\n"
    )
    assert run(code + _KNOWN) == ["phantom-swin"]


def test_imported_after_sae_lens_and_after_its_function_was_taken_by_name():
    code = (
        "import sys\nfrom sae_lens import SAE\n"
        "from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory\n"
        "import medsae_plugin\n"
        "assert not get_pretrained_saes_directory.__wrapped__.cache_info().currsize\n"
        "assert 'medsae_plugin.release.registry' not in sys.modules\n"
    )
    assert run(code + _KNOWN) == ["phantom-swin"]


@pytest.mark.parametrize("sae_id", SAES)
def test_the_bundled_release_holds_what_its_card_says(sae_id):
    sae = SAE.from_pretrained(RELEASE, sae_id)
    card = bundled_releases()[0].saes[sae_id]
    weights = load_file(pretrained_folder() / RELEASE / card.path / "sae_weights.safetensors")
    x = torch.randn(20, sae.cfg.d_in) * 2
    pre = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    codes = torch.relu(pre) * (pre > weights["threshold"])
    assert (codes > 0).any()
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x), codes, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(sae(x), codes @ weights["W_dec"] + weights["b_dec"], rtol=1e-4, atol=1e-3)
    lookup = get_pretrained_saes_directory()[RELEASE]
    assert (lookup.expected_l0[sae_id], lookup.expected_var_explained[sae_id]) == (card.l0, card.variance_explained)
    assert sae.cfg.metadata.hook_name == card.hook and card.metrics["mean_top_r"] > 0.3


def test_the_bundled_release_is_two_layers_in_three_megabytes():
    files = [p for p in (pretrained_folder() / RELEASE).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 3e6
    assert len({sae.hook for sae in bundled_releases()[0].saes.values()}) == len(SAES) == 2


def test_sae_lens_messages_know_it():
    with pytest.raises(ValueError, match=f"ID nope not found in release {RELEASE}.*{SAES[0]}"):
        SAE.from_pretrained(RELEASE, "nope")


def test_a_card_of_ones_own(own):
    assert register_releases(own) == ["mine"]
    assert register_releases(own.parent) == ["mine"]  # again, and as a folder: the same card
    assert SAE.from_pretrained("mine", SAES[0]).cfg.d_sae == SAE.from_pretrained(RELEASE, SAES[0]).cfg.d_sae


def test_a_repository_of_a_card_is_known_by_its_id(own):
    content = yaml.safe_load(own.read_text())
    del content["mine"]["folder"]
    own.write_text(yaml.safe_dump(content))
    register_releases(change(own, repo_id="lab/saes", revision="0" * 40))
    assert get_releases_for_repo_id("lab/saes") == ["mine"]


def test_a_name_that_is_taken(own, tmp_path):
    register_releases(own)
    (tmp_path / "other").mkdir()
    other = shutil.copy(own, tmp_path / "other" / "other.yaml")
    with pytest.raises(MedSAEError, match=r"a release mine is registered from .*mine\.yaml; rename the one in .*other"):
        register_releases(change(Path(other), licence="other"))
    theirs = next(name for name in get_pretrained_saes_directory() if name not in registry._registered)
    content = yaml.safe_load(own.read_text())
    own.write_text(yaml.safe_dump({"fresh": content["mine"], theirs: content["mine"]}))
    with pytest.raises(MedSAEError, match=f"SAE-Lens has a release {theirs} of its own"):
        register_releases(own)
    assert "fresh" not in get_pretrained_saes_directory()


def test_a_bundled_name_that_sae_lens_takes_is_left_to_it(monkeypatch):
    directory = {RELEASE: "theirs"}
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.warns(UserWarning, match=f"SAE-Lens has a release {RELEASE} of its own.*left out"):
        registry.add_to(directory)
    assert directory == {RELEASE: "theirs"}


def test_the_environment_names_cards(own, monkeypatch):
    monkeypatch.setenv(registry.ENVIRONMENT, str(own))
    assert "mine" in get_pretrained_saes_directory()
    monkeypatch.setenv(registry.ENVIRONMENT, str(own.with_name("absent.yaml")))
    with pytest.raises(MedSAEError, match=r"MEDSAE_RELEASES: there is no release card at .*absent"):
        get_pretrained_saes_directory()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repo_id": "a/b"}, "either repo_id or folder"),
        ({"saes": []}, "saes: list should have at least 1 item"),
        ({"saes": [{"id": "x"}]}, "saes, entry 1 lacks hook"),
        ({"conversion_func": "pickle"}, "conversion_func 'pickle' is not one of"),
        ({"colour": "red"}, "unknown field colour"),
        ({"saes": [{"id": "x", "path": "x", "hook": "h", "sha256": {"cfg.json": "0"}}]}, "64 hex digits"),
        ({"saes": [{"id": "x", "path": "x", "hook": "h", "sha256": {"cfg.json": "0" * 64}}]}, "lacks sae_weights"),
    ],
)
def test_a_card_that_is_wrong(own, fields, message):
    with pytest.raises(MedSAEError, match=message):
        register_releases(change(own, **fields))


@pytest.mark.parametrize("content", ["", "- a list", "{", "mine: text"])
def test_a_file_that_is_no_card(tmp_path, content):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(MedSAEError, match=r"x\.yaml"):
        register_releases(tmp_path)


def test_a_file_that_was_changed_is_found_by_its_checksum(own):
    register_releases(own)
    weights = own.parent / RELEASE / SAES[0] / "sae_weights.safetensors"
    tensors = load_file(weights)
    tensors["W_dec"][0, 0] += 1e-3
    save_file(tensors, weights)
    with pytest.raises(MedSAEError, match=r"sae_weights\.safetensors is damaged or has been changed: its sha256 is"):
        SAE.from_pretrained("mine", SAES[0])
    (own.parent / RELEASE / SAES[1] / "cfg.json").unlink()
    with pytest.raises(MedSAEError, match=r"cfg\.json is missing"):
        SAE.from_pretrained("mine", SAES[1])


def test_load_medsae_splices_the_sae_in():
    sae, encoder = load_medsae(RELEASE, SAES[0], strict=True)
    images = torch.randn(2, 3, 96, 96)
    alone = HookedVisionEncoder.from_pretrained("phantom-swin")
    with torch.no_grad():
        expected = alone.run_with_hooks(images, fwd_hooks=[(sae.cfg.metadata.hook_name, lambda x, hook: sae(x))])
        assert not torch.allclose(expected, alone(images), atol=1e-3)
        torch.testing.assert_close(encoder(images), expected)


def test_load_medsae_compares_the_encoders_weights():
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    encoder.weights_sha256 = "0" * 64
    with pytest.warns(
        UserWarning, match=r"was trained on encoder weights a5960a19bccf\.\.\., those of phantom-swin here are 0000"
    ):
        load_medsae(RELEASE, SAES[0], encoder=encoder)
    with pytest.raises(MedSAEError, match="was trained on encoder weights"):
        load_medsae(RELEASE, SAES[0], encoder=encoder, strict=True)
    encoder.weights_sha256 = ""
    with pytest.raises(MedSAEError, match="not taken for an SAE of this phantom-swin, unchecked: these weights"):
        load_medsae(RELEASE, SAES[0], encoder=encoder, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RELEASE, "nope"), f"has no SAE 'nope'; it has {SAES[0]}, {SAES[1]}"),
        (("nope", "x"), "Release nope not found"),
    ],
)
def test_load_medsae_mistakes(arguments, message):
    with pytest.raises(MedSAEError, match=message):
        load_medsae(*arguments)
