"""Downstream fidelity on phantoms and on real radiographs, against scikit-learn and brute force."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.extraction_case import tiny_encoder
from helpers.planted import identity_sae
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sklearn.metrics import roc_auc_score

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.causal import Fidelity, fidelity, load_saes
from medsae_plugin.causal.retrieval import Texts, recall_at, texts_of
from medsae_plugin.cli import main
from medsae_plugin.data.images import read_image
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot
from medsae_plugin.encoders.cards import pretrained_folder

PATCHES, BRANCH = "stages.2.blocks.3.hook_resid_post", "stages.2.blocks.3.hook_mlp_out"


@pytest.fixture(scope="module")
def saes(demo_saes) -> dict[str, StandardSAE]:
    """With one at a branch beside the residual stream, whose ablation leaves something of the image."""
    return {**load_saes(demo_saes.encoder, [*demo_saes.folders.values()]), "branch": identity_sae(96, BRANCH)}


@pytest.fixture(scope="module")
def pixels(demo_saes) -> torch.Tensor:
    table = demo_saes.split("test")
    return demo_saes.encoder.preprocess([table.image_path(i) for i in range(len(table))])


def assert_aurocs(got: dict[str, float], zero_shot: ZeroShot, embeddings: torch.Tensor, table) -> None:
    """They are scikit-learn's of the scores in float64, but for pairs of images that rounding may put in either order.

    That may be few of the pairs, or little were asserted.
    """
    x = torch.nn.functional.normalize(embeddings.double(), dim=1)
    scores = (x @ (zero_shot.stated - zero_shot.denied).double().T).numpy().round(12)  # equal images tie
    for c, label in enumerate(table.label_names):
        y = table.labels[:, c]
        s, y = scores[~np.isnan(y), c], y[~np.isnan(y)]
        apart = np.abs(s[y == 1][:, None] - s[y == 0])
        close = ((apart > 0) & (apart < 3e-6)).mean()
        assert close < 0.05, label
        assert got[label] == pytest.approx(roc_auc_score(y, s), abs=close + 1e-9), label


@torch.no_grad()
def test_the_figures_are_those_of_passes_by_hand(demo_saes, saes, pixels):
    encoder, table = demo_saes.encoder, demo_saes.split("test")
    zero_shot = ZeroShot(encoder, load_prompts("phantoms"))
    got = fidelity(encoder, saes, table, progress=False)
    embedding, cache = encoder.run_with_cache(pixels, names_filter=[BRANCH, "hook_embedding"])
    assert_aurocs(got.original.auroc, zero_shot, embedding, table)
    assert [c.name for c in got.candidates] == ["embedding", "patches", "branch", "all together"]
    assert got["all together"].hooks == ["hook_embedding", PATCHES, BRANCH]

    def with_hooks(**by_hook) -> torch.Tensor:
        places = {"patches": PATCHES, "branch": BRANCH}
        hooks = [(places[name], lambda a, hook, put=put: put(a)) for name, put in by_hook.items()]
        return encoder.run_with_hooks(pixels, fwd_hooks=hooks)

    patched = with_hooks(patches=saes["patches"])
    for name, spliced in {
        "embedding": saes["embedding"](embedding),
        "patches": patched,
        "branch": embedding,  # the identity
        "all together": saes["embedding"](patched),
    }.items():
        assert_aurocs(got[name].spliced.auroc, zero_shot, spliced, table)
    mean = cache[BRANCH].double().mean(0).float()
    silenced = with_hooks(branch=mean.expand_as)
    assert_aurocs(got["branch"].ablated.auroc, zero_shot, silenced, table)
    assert got["embedding"].ablated.auroc == dict.fromkeys(table.label_names, 0.5)  # one embedding for all
    for candidate in got.candidates:
        original, spliced, ablated = (f.mean_auroc for f in (got.original, candidate.spliced, candidate.ablated))
        assert candidate.recovered.mean_auroc == pytest.approx((spliced - ablated) / (original - ablated))


def test_a_perfect_sae_recovers_all_and_one_that_knows_the_mean_alone_nothing(demo_saes):
    table = demo_saes.split("test").take(np.arange(60))
    images = [read_image(table.image_path(i)) for i in range(60)]
    with torch.no_grad():
        mean = demo_saes.encoder(demo_saes.encoder.preprocess(images)).mean(0)
    blank = identity_sae(96)
    with torch.no_grad():
        blank.W_dec.zero_()
        blank.b_dec.copy_(mean)
    saes = {"perfect": identity_sae(96), "blank": blank}
    got = fidelity(demo_saes.encoder, saes, table, progress=False)
    perfect, nothing = got.candidates  # at one hook, so not together
    for figure in ("auroc", "recall"):
        known = {k: v for k, v in getattr(perfect.recovered, figure).items() if v is not None}
        assert known and known == pytest.approx(dict.fromkeys(known, 1.0))
    assert nothing.recovered.mean_auroc == pytest.approx(0, abs=1e-6)
    assert demo_saes.encoder.acts_to_saes == {}


@pytest.mark.parametrize("with_reports", [False, True])
def test_recall_is_that_of_sorting_every_text(demo_saes, with_reports):
    encoder = demo_saes.encoder
    zero_shot = ZeroShot(encoder, load_prompts("phantoms"))
    table = demo_saes.split("test").take(np.arange(50))
    rng = np.random.default_rng(0)
    if with_reports:
        words = ["cardiomegaly", "no edema", "pleural effusion", "the lungs are clear", "", "rib fracture"]
        table.frame["report"] = rng.choice(words, 50)
    texts = texts_of(encoder, zero_shot, table)
    images = torch.from_numpy(rng.normal(size=(50, 96))).float()
    if with_reports:
        keys = table.frame["report"].tolist()
        embedded = {t: encoder.encode_text(t)[0].double().numpy() for t in set(keys) - {""}}
    else:
        keys = [tuple(np.flatnonzero(row == 1)) for row in table.labels]
        embedded = {k: zero_shot.stated[list(k)].double().mean(0).numpy() for k in set(keys) - {()}}
    assert len(texts.embeddings) == len(embedded) and texts.kind == ("reports" if with_reports else "label sets")
    hits = {k: [] for k in (1, 3, 5)}
    for key, image in zip(keys, images.double().numpy(), strict=True):
        if key not in embedded:
            continue
        ranked = sorted(embedded, key=lambda t: -image @ embedded[t] / np.linalg.norm(embedded[t]))
        for k in hits:
            hits[k].append(key in ranked[:k])
    assert recall_at(images, texts, (1, 3, 5)) == pytest.approx({k: np.mean(v) for k, v in hits.items()})
    nothing = Texts("reports", texts.embeddings, np.full(50, -1))
    assert np.isnan(recall_at(images, nothing, [1])[1])


def test_the_command_prints_the_table_and_writes_it(demo_saes, tmp_path, capsys):
    root = tmp_path / "phantoms"
    shutil.copytree(demo_saes.labels.parent, root)
    broken = demo_saes.split("test").frame["path"].iloc[3]
    (root / broken).write_text("not an image")
    out = tmp_path / "new" / "fidelity.json"
    command = ["fidelity", "phantom-swin", *map(str, demo_saes.folders.values()), "--table", str(root / "labels.csv")]
    command += ["--store", str(demo_saes.store.path), "--workers", "0", "--quiet"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(out.read_text())
    n = len(demo_saes.split("test")) - 1
    assert (figures["images"], figures["unreadable_images"]) == (n, 1)
    assert f"phantom-swin: {n} images of {figures['patients']} patients (1 unreadable); prompts: phantoms." in printed
    assert printed.startswith(str(Fidelity.open(out))) and "[3] all together" in printed and "recall@10" in printed
    row = next(line for line in printed.splitlines() if line.startswith("Pleural Effusion"))
    assert f"{figures['original']['auroc']['Pleural Effusion']:.3f}" in row
    assert str(tmp_path) not in out.read_text() and "patient0" not in out.read_text()


def test_what_cannot_be_measured_is_said(demo_saes, tmp_path, capsys):
    encoder, table = demo_saes.encoder, demo_saes.split("test").take(np.arange(4))
    saes = {"identity": identity_sae(96)}
    with pytest.raises(MedSAEError, match="no SAE"):
        fidelity(encoder, {}, table)
    with pytest.raises(MedSAEError, match=r"none of the table's labels \(Cavity\)"):
        unknown = table.__class__(table.root, table.frame, table.labels[:, :1], ("Cavity",))
        fidelity(encoder, saes, unknown, progress=False)
    with pytest.raises(MedSAEError, match="has no text tower"):
        fidelity(tiny_encoder(), {"a": identity_sae(6)}, table, progress=False)
    with pytest.raises(MedSAEError, match=r"takes 95 dimensions; .* has 96 at hook_embedding"):
        fidelity(encoder, {"a": identity_sae(95)}, table, progress=False)
    with encoder.saes(identity_sae(96)), pytest.raises(MedSAEError, match="reset_saes"):
        fidelity(encoder, saes, table, progress=False)
    missing = table.__class__(tmp_path, table.frame, table.labels, table.label_names)
    with pytest.raises(MedSAEError, match=r"no image of the table can be read; the first, .*no such file"):
        fidelity(encoder, saes, missing, progress=False)
    long = table.take(np.arange(2))
    long.frame["report"] = "the heart is enlarged and " * 9
    with pytest.raises(MedSAEError, match="cannot take a report"):
        fidelity(encoder, saes, long, progress=False)
    folder = str(demo_saes.folders["embedding"])
    command = ["fidelity", "phantom-swin", "--table", str(demo_saes.labels), "--quiet", "--workers", "0"]
    for arguments, message in {
        ("nowhere",): "nowhere holds no SAE",
        (folder, folder): "the same SAE is given twice",
        (folder, "--split", "absent", "--store", str(demo_saes.store.path)): "the store has: test, train",
        (folder, "--prompts", "nobody"): "no prompts named 'nobody'",
        (folder, "--batch-size", "0"): "batch_size must be at least 1",
    }.items():
        assert main([command[0], command[1], *arguments, *command[2:]]) == 1
        err = capsys.readouterr().err
        assert message in err and "Traceback" not in err
    other = SAE.load_from_disk(folder)
    other.cfg.metadata.encoder_sha256 = "f" * 64
    other.save_model(tmp_path / "other")
    with pytest.raises(MedSAEError, match="trained on encoder weights ffffffffffff"):
        load_saes(encoder, [tmp_path / "other"])


@torch.no_grad()
def test_medclip_with_saes_at_two_hooks_on_real_radiographs(shared: Path, golden_medclip, tmp_path, capsys):
    """Random SAEs and golden weights: what runs and what is equal, not what is found."""
    from tokenizers import BertWordPieceTokenizer

    hooks = {"hook_embedding": 512, "stages.3.blocks.1.hook_resid_post": 768}
    encoder = HookedVisionEncoder.from_pretrained("medclip-swin", weights=golden_medclip("swin"))
    saes = []
    for hook, d in hooks.items():
        torch.manual_seed(0)
        metadata = SAEMetadata(hook_name=hook, encoder_sha256=encoder.weights_sha256)
        saes.append(StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d, metadata=metadata)))
        saes[-1].save_model(tmp_path / hook)
    frame = pd.read_csv(shared / "realcxr" / "labels.csv", dtype=str, keep_default_na=False)
    has = frame["Pneumonia"] == "1.0"
    frame = pd.concat([frame[has].iloc[:2], frame[~has].iloc[:2]])
    frame.to_csv(tmp_path / "labels.csv", index=False)
    table = read_table(tmp_path / "labels.csv", root=shared / "realcxr")
    pixels = encoder.preprocess([table.image_path(i) for i in range(2)])
    plain, spliced = encoder(pixels), encoder.run_with_saes(pixels, saes=saes)
    exact, cache = encoder.run_with_cache_with_saes(pixels, saes=saes, use_error_term=True)
    torch.testing.assert_close(exact, plain, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(spliced, plain, rtol=0.1)
    assert cache["stages.3.blocks.1.hook_resid_post.hook_sae_acts_post"].shape == (2, 49, 2 * 768)
    assert cache["hook_embedding.hook_sae_error"].shape == (2, 512)

    # The whole command, with a tokenizer at hand: a WordPiece vocabulary of the prompts' own letters.
    texts = [t for ways in load_prompts("chexpert").sentences.values() for way in ways for t in way]
    tokenizer = BertWordPieceTokenizer(lowercase=False)
    tokenizer.train_from_iterator(texts, vocab_size=300, show_progress=False)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    card = yaml.safe_load((pretrained_folder().parent / "hooks" / "medclip-swin.yaml").read_text())
    card["text"] = {**card["text"], "tokenizer": str(folder), "revision": None}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    command = ["fidelity", str(tmp_path / "card.yaml"), *[str(tmp_path / hook) for hook in hooks]]
    command += ["--weights", str(golden_medclip("swin")), "--table", str(tmp_path / "labels.csv")]
    command += ["--root", str(shared / "realcxr"), "--workers", "0", "--quiet", "--out", str(tmp_path / "f.json")]
    assert main(command) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["images"] == 4 and [c["name"] for c in figures["candidates"]] == [*hooks, "all together"]
    assert figures["original"]["auroc"]["Pneumonia"] is not None
    assert "Pneumonia" in capsys.readouterr().out
