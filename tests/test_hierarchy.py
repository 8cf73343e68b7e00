"""Absorption and splitting planted at known rates; shares against float64 image by image."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import made_up_images, relu_sae, save_sae, write_store
from jsonschema import Draft202012Validator
from scipy.stats import t

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.hierarchy import Hierarchy, read_tree, score_hierarchy
from medsae_plugin.hierarchy.tree import beneath, line, pairs
from medsae_plugin.observations import HIERARCHY, OBSERVATIONS
from medsae_plugin.scores import LabelledImages
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.scoring import HeldOut

N, D, LATENTS, IDLE = 540, 20, 12, 8
LABELS = ("whole", "first", "second")
TREE = {"whole": ["first", "second"]}
WHOLE, ONE, OTHER, SECOND = range(4)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """`whole` is there with either child; `first` looks one of two ways. In `absorbing` a latent reads `whole`, but not
    where `first` looks the one way: the latent of that writes `whole` instead. `twin` is the same, its latents in
    another order; `plain` has a latent of `whole` alone, which always fires where it is there."""
    folder, rng = tmp_path_factory.mktemp("hierarchy"), np.random.default_rng(1)
    images = made_up_images(N, 0)
    first, second = rng.random((2, N)) < 0.3
    whole, one = first | second | (rng.random(N) < 0.06), first & (rng.random(N) < 0.6)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    codes = np.column_stack([whole, one, first & ~one, second, rng.random((N, IDLE)) < 0.3])
    rows = (codes * rng.uniform(1, 1.5, codes.shape)) @ axes[:LATENTS] + 0.02 * rng.normal(size=(N, D))
    store = write_store(folder / "store", {"h": rows.astype(np.float32)}, images=images)
    frame = pd.DataFrame(np.column_stack([whole, first, second]).astype(float), columns=list(LABELS))
    frame.insert(0, "Path", images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    encoder, decoder = axes[:LATENTS].copy(), axes[:LATENTS].copy()
    encoder[WHOLE] -= 10 * axes[ONE]
    decoder[ONE] += axes[WHOLE]
    order = np.roll(np.arange(LATENTS), 5)
    plain = axes[[WHOLE, *range(4, LATENTS)]]
    made = {"absorbing": (encoder, decoder, 0), "twin": (encoder[order], decoder[order], 1), "plain": (plain, plain, 0)}
    saes = {}
    for name, (read, write, seed) in made.items():
        weights = [torch.from_numpy(w).float() for w in (read, write)]
        sae = relu_sae("h", *weights, b_enc=-0.3, encoder_sha256="0" * 64, seed=seed)
        saes[name] = save_sae(folder / name, sae)
    shown = SimpleNamespace(one=one, first=first, second=second, whole=whole)
    return SimpleNamespace(
        folder=folder, store=store, saes=saes, shown=shown, axes=axes, encoder=encoder, decoder=decoder
    )


@pytest.fixture(scope="module")
def table(case):
    return read_table(case.folder / "labels.csv", label_columns=LABELS)


@pytest.fixture(scope="module")
def found(case, table) -> Hierarchy:
    return score_hierarchy(case.store, list(case.saes.values()), table, TREE, progress=False)


def units_of(found, name):
    return next(u for u in found.units if u.name == name)


def test_each_label_has_the_latents_that_it_is_split_into(found):
    of = {c.label: c for c in units_of(found, "absorbing").carried}
    assert {label: set(c.latents) for label, c in of.items()} == {
        "whole": {WHOLE},
        "first": {ONE, OTHER},
        "second": {SECOND},
    }
    assert of["first"].auroc[1] > of["first"].auroc[0] + 0.1 and of["first"].auroc[1] > 0.95
    plain = {c.label: c.latents for c in units_of(found, "plain").carried}
    assert plain == {"whole": [0], "first": [], "second": []}  # it follows the parent more


def test_absorption_is_found_at_the_planted_rate(case, table, found):
    """Image by image in float64: silent where `first` looks the one way, and the latent of that stands instead."""
    images = LabelledImages.of(case.store, table).held_out()
    (choice,) = Choice.each_of(HeldOut(images), 0)
    x = np.concatenate([part for _, part in image_means(case.store, "h")])
    head = choice.fit(x[choice.select].astype(np.float32), 0)
    report = images.rows("report")
    seen, shown = head(x[report]) > 0, {k: v[report] for k, v in vars(case.shown).items()}
    a = np.maximum(x[report] @ case.encoder.T - 0.3, 0)
    v = head.weights / np.linalg.norm(head.weights)
    part = a * (case.decoder @ v) / (x[report] @ v)[:, None]
    silent = a[:, WHOLE] == 0
    top = part.argmax(1)
    absorbed = silent & (part.max(1) >= 0.4)
    first, second = units_of(found, "absorbing").absorption
    of = seen & shown["first"]
    assert first.found == of.sum() > 15 and first.images == shown["first"].sum()
    assert first.silent == pytest.approx(silent[of].mean()) == pytest.approx(shown["one"][of].mean())
    assert first.absorbed == pytest.approx(absorbed[of].mean()) and first.absorbed > 0.9 * first.silent > 0.3
    assert first.by_child == 1 and first.instead[0].latent == ONE and first.instead[0].childs
    assert first.instead[0].images == (absorbed & of & (top == ONE)).sum()
    assert first.instead[0].part == pytest.approx(part[absorbed & of, ONE].mean(), abs=1e-4)
    cosine = case.decoder[ONE] @ v / np.linalg.norm(case.decoder[ONE])
    assert first.instead[0].cosine == pytest.approx(cosine, abs=1e-5)
    others = seen & shown["whole"] & ~shown["first"]
    assert first.others == others.sum() and first.others_silent == 0 == first.others_absorbed
    # Over patients, each left out in turn.
    patients = images.patients[report]
    left_out = np.array([silent[of & (patients != p)].mean() for p in np.unique(patients)])
    spread = np.sqrt((len(left_out) - 1) / len(left_out) * ((left_out - left_out.mean()) ** 2).sum())
    fewer = min(len(np.unique(patients[some])) for some in (of, others))
    half = t.ppf(0.975, fewer - 1) * spread
    assert (first.low, first.high) == pytest.approx((first.silent - half, first.silent + half), abs=1e-6)
    # Of `second` the parent is silent only where `first` is there as well.
    assert second.silent == pytest.approx(shown["one"][seen & shown["second"]].mean())


def test_nothing_is_absorbed_where_the_parents_latent_fires(found):
    plain = units_of(found, "plain")
    for one in plain.absorption:
        assert one.silent == one.absorbed == one.others_silent == 0 and one.instead == []
        assert "silent on fewer than 5" in one.no_interval
    assert {u.baseline_of for u in found.units if u.kind == "untrained"} == {"absorbing", "twin", "plain"}


def test_another_seed_has_the_same_latents_and_a_wider_sae_a_childs_in_the_parents_place(found):
    rows = {(s.a, s.b, s.label): s for s in found.splitting}
    for label, n in {"whole": 1, "first": 2, "second": 1}.items():
        twin = rows["absorbing", "twin", label]
        assert (twin.latents_a, twin.latents_b, twin.again, twin.into) == (n, n, n, {})
    wider = rows["plain", "absorbing", "whole"]
    assert (wider.latents_a, wider.latents_b) == (1, 1) and wider.into == {"second": 1}
    assert rows["plain", "absorbing", "first"].latents_a == 0
    assert ("absorbing", "plain", "whole") not in rows  # from the narrower to the wider
    assert "Splitting between SAEs" in str(found) and "1 of second" in str(found)


def test_the_trees_of_others_and_what_is_wrong_with_one(case, table, tmp_path):
    assert beneath(HIERARCHY, "Lung Opacity") == {"Lung Lesion", "Edema", "Consolidation", "Atelectasis", "Pneumonia"}
    assert line(HIERARCHY, "Consolidation") == {"Lung Opacity", "Pneumonia"}
    assert {label for pair in pairs(HIERARCHY, OBSERVATIONS) for label in pair} <= set(OBSERVATIONS)
    file = tmp_path / "tree.yaml"
    file.write_text("whole: [first, absent]\nnobody: [second]\n")
    assert pairs(read_tree(file), LABELS) == [("whole", "first")]
    with pytest.raises(MedSAEError, match="no parent with a child; it has whole, first, second"):
        score_hierarchy(case.store, case.saes["plain"], table, progress=False)
    for text, wrong in (
        ("a: [b]\nb: [c]\nc: [a]\n", "'a' is beneath itself"),
        ("a: b\n", "tree.yaml:1: "),
        ("- a\n", "tree.yaml:1: "),
    ):
        file.write_text(text)
        with pytest.raises(MedSAEError, match=wrong):
            read_tree(file)


def test_the_command_writes_what_it_prints(case, tmp_path, capsys):
    tree = tmp_path / "tree.yaml"
    tree.write_text("whole: [first]\n")
    out = tmp_path / "out"
    command = ["hierarchy", str(case.store.path), str(case.saes["absorbing"]), "--out", str(out), "--quiet"]
    command += ["--table", str(case.folder / "labels.csv"), "--labels", ",".join(LABELS), "--tree", str(tree)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    made = Hierarchy.open(out)
    assert str(made) in printed and made.tree == {"whole": ["first"]} and made.splitting == []
    assert main(["schema", "hierarchy"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator(schema).validate(json.loads((out / "hierarchy.json").read_text()))
    (row,) = pd.read_parquet(out / "hierarchy.parquet").query("kind == 'sae'").to_dict("records")
    assert row["absorbed"] == made.units[0].absorption[0].absorbed and list(row["instead"]) == [ONE]
    assert main([*command[:-1], str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().err
