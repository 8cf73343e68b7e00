"""SAEs loaded from a Hub: pinned, offline, checked; what is refused says what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.hub_server import Fault, Hub
from safetensors.torch import load, save

from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.files import sha256_of
from medsae_plugin.release.cards import bundled_releases

SAE_ID = next(iter(bundled_releases()[0].saes))
FOLDER = pretrained_folder() / "medsae-phantom" / SAE_ID
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


@pytest.fixture
def repo(hub, request) -> str:
    """A repository of this test's own, with the bundled SAE."""
    repo_id = f"lab/{re.sub('[^a-z0-9]+', '-', request.node.name)[:80].strip('-')}"
    hub.create(repo_id)
    fill(hub, repo_id)
    return repo_id


def fill(hub: Hub, repo_id: str) -> None:
    for name in (CONFIG, WEIGHTS):
        hub.add_file(repo_id, f"{SAE_ID}/{name}", (FOLDER / name).read_bytes())


def moved_weights() -> bytes:
    """Other weights of the same shapes."""
    tensors = load((FOLDER / WEIGHTS).read_bytes())
    tensors["b_dec"] = tensors["b_dec"] + 1
    return save(tensors)


LOAD = "from medsae_plugin import load_medsae\nresult = load_medsae({!r}, {!r}{}).sae.b_dec.sum().item()"


def loading(repo_id: str, sae_id: str = SAE_ID, more: str = "") -> str:
    return LOAD.format(repo_id, sae_id, more)


def expected_sum() -> float:
    return load((FOLDER / WEIGHTS).read_bytes())["b_dec"].sum().item()


def test_by_repository_and_pinned_revision(hub, client, repo):
    pinned = hub.commits(repo)[-1].oid
    assert client.run(loading(repo)) == pytest.approx(expected_sum(), abs=1e-3)
    hub.add_file(repo, f"{SAE_ID}/{WEIGHTS}", moved_weights())
    assert client.run(loading(repo)) == pytest.approx(expected_sum() + 96, abs=1e-3)
    assert client.run(loading(repo, more=f", revision={pinned!r}")) == pytest.approx(expected_sum(), abs=1e-3)


def card_of(hub: Hub, repo_id: str, folder: Path, name: str) -> Path:
    """A release's card for the repository, pinned to its present commit."""
    release = {
        "repo_id": repo_id,
        "revision": hub.commits(repo_id)[-1].oid,
        "model": "phantom-swin",
        "encoder": "phantom-swin",
        "licence": "MIT",
        "saes": [
            {
                "id": "first",
                "path": SAE_ID,
                "hook": "hook_embedding",
                "sha256": {name: sha256_of(FOLDER / name) for name in (CONFIG, WEIGHTS)},
            }
        ],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({name: release}))
    return folder / f"{name}.yaml"


REGISTER = "from medsae_plugin import register_releases\nfrom sae_lens import SAE\nregister_releases({!r})\n"


def test_a_release_is_pinned_to_its_cards_revision(hub, client, repo, tmp_path):
    card = card_of(hub, repo, tmp_path, "pinned")
    hub.add_file(repo, f"{SAE_ID}/{WEIGHTS}", moved_weights())
    code = REGISTER.format(str(card)) + "result = SAE.from_pretrained('pinned', 'first').b_dec.sum().item()"
    assert client.run(code) == pytest.approx(expected_sum(), abs=1e-3)
    assert client.run(loading("pinned", "first")) == pytest.approx(expected_sum(), abs=1e-3)
    assert "the card of pinned pins its revision" in client.run(loading("pinned", "first", ", revision='main'"))


def test_a_repository_that_was_tampered_with_is_found_by_the_cards_checksum(hub, client, repo, tmp_path):
    hub.add_file(repo, f"{SAE_ID}/{WEIGHTS}", moved_weights())
    card = card_of(hub, repo, tmp_path, "tampered")
    answer = client.run(REGISTER.format(str(card)) + "SAE.from_pretrained('tampered', 'first')")
    assert answer.startswith("MedSAEError") and "is damaged or has been changed" in answer


def test_a_download_that_was_damaged_is_found_by_its_etag(hub, client):
    repo = "lab/damaged"
    hub.create(repo)
    hub.add_file(repo, f"{SAE_ID}/{CONFIG}", (FOLDER / CONFIG).read_bytes())
    hub.add_file(
        repo, f"{SAE_ID}/{WEIGHTS}", save(load(moved_weights()) | {"b_enc": load(moved_weights())["b_enc"] * 2})
    )
    hub.faults.append(Fault("GET", "/cdn/", damage=True))
    answer = client.run(loading(repo))
    assert answer.startswith("MedSAEError") and "is damaged or has been changed: its checksum is" in answer


def test_a_cached_file_that_was_changed_is_found(client, repo):
    client.run(loading(repo))
    (cached,) = (client.home / "hub" / f"models--{repo.replace('/', '--')}").glob(f"snapshots/*/{SAE_ID}/{CONFIG}")
    blob = cached.resolve()
    blob.write_text(blob.read_text().replace("hook_", "hook-"))
    answer = client.run(loading(repo))
    assert answer.startswith("MedSAEError") and f"delete {blob}" in answer


def test_a_download_that_was_cut_goes_on(hub, client):
    repo, weights = "lab/cut", save(load(moved_weights()) | {"b_enc": load(moved_weights())["b_enc"] * 3})
    hub.create(repo)
    hub.add_file(repo, f"{SAE_ID}/{CONFIG}", (FOLDER / CONFIG).read_bytes())
    hub.add_file(repo, f"{SAE_ID}/{WEIGHTS}", weights)
    hub.faults.append(Fault("GET", "/cdn/", cut=len(weights) // 2))
    assert client.run(loading(repo)) == pytest.approx(expected_sum() + 96, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"private": True}, "there is no repository"), ({"gated": True}, "is gated: ask for access at https://")],
)
def test_private_and_gated_repositories_say_what_to_do(hub, client, settings, advice):
    repo = f"lab/{next(iter(settings))}"
    hub.create(repo, readers={"hf_reader"}, **settings)
    fill(hub, repo)
    answer = client.run(loading(repo))
    assert answer.startswith("MedSAEError") and advice in answer and "hf auth login" in answer
    stranger = client.run(loading(repo), token="hf_stranger")
    assert stranger.startswith("MedSAEError") and advice in stranger
    assert client.run(loading(repo), token="hf_reader") == pytest.approx(expected_sum(), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lab/absent", SAE_ID), "there is no repository lab/absent"),
        (("REPO", "absent"), "absent/cfg.json of REPO cannot be had: there is no such file"),
        (("REPO", SAE_ID, ", revision='v9'"), "has no such revision"),
        (("not a repo/x", SAE_ID), "is no repository"),
    ],
)
def test_what_is_not_there(client, repo, arguments, message):
    answer = client.run(loading(*(text.replace("REPO", repo) for text in arguments)))
    assert answer.startswith("MedSAEError") and message.replace("REPO", repo) in answer


def test_a_server_in_trouble_is_said(hub, client, repo):
    hub.faults.append(Fault("HEAD", f"/{repo}/", status=501, times=20))
    answer = client.run(loading(repo))
    hub.faults.clear()
    assert answer.startswith("MedSAEError") and ("501" in answer or "cannot be reached" in answer)


def test_a_foreign_release_on_the_hub(hub, client, tmp_path):
    """A card whose conversion_func is one of the converters, and the converter by hand."""
    import torch

    state = {"bias": torch.ones(96), "encoder.weight": torch.eye(96), "encoder.bias": torch.zeros(96)}
    torch.save(state | {"decoder.weight": torch.eye(96)}, tmp_path / "ae.pt")
    hub.create("lab/foreign")
    hub.add_file("lab/foreign", "run/ae.pt", (tmp_path / "ae.pt").read_bytes())
    sae = {"id": "run", "path": "run", "hook": "hook_embedding", "sha256": {"ae.pt": sha256_of(tmp_path / "ae.pt")}}
    fields = {"repo_id": "lab/foreign", "model": "phantom-swin", "encoder": "phantom-swin", "licence": "MIT"}
    card = {"foreign": {**fields, "conversion_func": "dictionary_learning", "saes": [sae]}}
    (tmp_path / "foreign.yaml").write_text(yaml.safe_dump(card))
    code = REGISTER.format(str(tmp_path / "foreign.yaml"))
    assert client.run(code + "result = SAE.from_pretrained('foreign', 'run').b_dec.sum().item()") == 96
    code = (
        "from sae_lens import SAE\nfrom medsae_plugin.release import dictionary_learning_huggingface_loader as loader\n"
        "result = SAE.from_pretrained('lab/foreign', 'run', converter=loader).cfg.d_sae"
    )
    assert client.run(code) == 96


def test_another_cache_and_its_files_only(hub, client, repo, tmp_path):
    """huggingface_hub's words, for a repository and, through SAE-Lens, for a release."""
    card = card_of(hub, repo, tmp_path, "elsewhere")
    encoder = "medsae_plugin.HookedVisionEncoder.from_pretrained('phantom-swin')"
    code = f"import medsae_plugin\nmedsae_plugin.register_releases({str(card)!r})\n" + LOAD
    for place, sae_id in ((repo, SAE_ID), ("elsewhere", "first")):
        cache = tmp_path / f"cache-{sae_id}"
        more = f", cache_dir={str(cache)!r}, encoder={encoder}"
        only = code.format(place, sae_id, more + ", local_files_only=True")
        n_requests = len(hub.requests)
        assert "is not in the cache, and local_files_only is set" in client.run(only)
        assert len(hub.requests) == n_requests and not cache.exists()
        assert client.run(code.format(place, sae_id, more)) == pytest.approx(expected_sum(), abs=1e-3)
        assert [path.name for path in cache.glob("models--*")] == [f"models--{repo.replace('/', '--')}"]
        n_requests = len(hub.requests)
        assert client.run(only) == pytest.approx(expected_sum(), abs=1e-3) and len(hub.requests) == n_requests
    answer = client.run(LOAD.format("gpt2-small-res-jb", "x", ", local_files_only=True"))
    assert "takes no local_files_only" in answer


def test_offline_from_the_cache(hub, client, repo):
    client.run(loading(repo))
    environment = hub.environment(client.home, HF_HUB_OFFLINE="1") | {"PATH": os.environ["PATH"]}
    absent = "\ntry:\n    load_medsae('lab/never-seen', 'x')\nexcept ValueError as error:\n    print(error)"
    code = loading(repo).replace("result = ", "print(") + ")" + absent
    n_requests = len(hub.requests)
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    value, refused = out.stdout.splitlines()
    assert float(value) == pytest.approx(expected_sum(), abs=1e-3)
    assert "is not in the cache, and the Hub cannot be reached" in refused and len(hub.requests) == n_requests
