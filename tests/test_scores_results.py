"""`Evaluation`: opened as it was saved, linked by names, also from files of version 0.1; damage is said in words."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.planted import planted_rows, reading_weights, relu_sae, write_store

from medsae_plugin import Evaluation, MedSAEError, evaluate, read_table
from medsae_plugin.scores import Resampling

N, D, FEATURES = 180, 8, 5
LABELS = ("Edema", "Fracture")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Evaluation, str]:
    """Two SAEs at one hook and one at another, scored; and the folder."""
    folder = tmp_path_factory.mktemp("made")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"early": rows, "late": rows})
    frame = pd.DataFrame((codes[:, :2] > 0).astype(int), columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    weights = reading_weights(D, FEATURES)
    hooks = {"a": "early", "b": "early", "c": "late"}
    saes = {name: relu_sae(hook, **weights, encoder_sha256="0" * 64) for name, hook in hooks.items()}
    table = read_table(folder / "labels.csv", label_columns=LABELS)
    evaluation = evaluate(store, saes, table, folder / "out", resampling=Resampling(19, 30), progress=False)
    return evaluation, folder / "out"


def test_saes_are_linked_with_what_stands_beside_them(made):
    evaluation, _ = made
    assert [s.name for s in evaluation.saes] == ["a", "b", "c"] and evaluation.label_names == LABELS
    for name, hook in {"a": "early", "b": "early", "c": "late"}.items():
        sae = evaluation[name]
        assert sae.neurons is evaluation[f"neurons of {hook}"] and sae.neurons.d_sae is None
        assert sae.baselines == [sae.untrained] and sae.untrained is evaluation[f"untrained {name}"]
        assert sae.untrained.baseline_of == name and sae.untrained.baselines == []
        assert sae.value("explained_variance") == sae.fidelity["explained_variance"] > 0.8
        assert sae.of_label("Fracture").r == sae.observations[1].value("r") and sae.of_label("none") is None
    with pytest.raises(KeyError):
        evaluation["d"]


def test_links_hang_on_no_order(made):
    evaluation, _ = made
    content = evaluation.to_json()
    shuffled = Evaluation.read({**content, "candidates": content["candidates"][::-1]})
    assert [s.name for s in shuffled.saes] == ["c", "b", "a"]
    for sae in evaluation.saes:
        assert shuffled[sae.name].neurons.name == sae.neurons.name
        assert shuffled[sae.name].untrained.mean_top_r == sae.untrained.mean_top_r


def test_what_is_opened_is_what_was_saved(made, tmp_path):
    evaluation, out = made
    for path in (out, out / "metrics.json", str(out)):
        opened = Evaluation.open(path)
        assert opened.to_json() == evaluation.to_json() and str(opened) == str(evaluation)
        pd.testing.assert_frame_equal(opened.frame(), evaluation.frame())
    opened.save(tmp_path / "again")
    for name in ("metrics.json", "latents.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    of_b = evaluation.frame("b")
    assert list(of_b["latent"]) == [str(j) for j in range(FEATURES)] and set(of_b["name"]) == {"b"}
    neurons = evaluation.frame("neurons of late")
    assert list(neurons["latent"]) == [str(j) for j in range(D)] + [f"-{j}" for j in range(D)]
    top = evaluation["b"].observations[0]
    assert of_b.set_index("latent").at[str(top.latent), "r: Edema"] == pytest.approx(top.r)


def test_a_table_without_its_latents_is_said_to_be_incomplete(made, tmp_path):
    evaluation, out = made
    (tmp_path / "metrics.json").write_bytes((out / "metrics.json").read_bytes())
    assert str(Evaluation.open(tmp_path)) == str(evaluation)
    with pytest.raises(MedSAEError, match=r"incomplete: there is no latents\.parquet"):
        Evaluation.open(tmp_path).frame()


def test_files_of_schema_2_are_read():
    """As version 0.1 wrote them, of two observations."""
    file = Path(__file__).parent / "data" / "metrics-0.1.json"
    content = json.loads(file.read_text())
    assert content["schema"] == 2
    evaluation = Evaluation.open(file)
    (sae,) = evaluation.saes
    (old,) = [c for c in content["candidates"] if c["kind"] == "sae"]
    (blank,) = [c for c in content["candidates"] if c["kind"] == "untrained"]
    (neurons,) = [c for c in content["candidates"] if c["kind"] == "neurons"]
    assert sae.untrained.name == blank["name"] and sae.untrained.baseline_of == sae.name
    assert (sae.mean_top_r, sae.untrained.mean_top_r) == (old["mean_top_r"], blank["mean_top_r"])
    assert sae.neurons.mean_top_r == neurons["mean_top_r"]
    assert [sae.mean_top_r_low, sae.mean_top_r_high] == old["mean_top_r_interval"]
    for o, was in zip(sae.observations, old["observations"], strict=True):
        assert {key: getattr(o, key) for key in was} == was
    assert evaluation.to_json()["schema"] == 3 and old["observations"][0]["label"] in str(evaluation)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: len(text) // 2], r"metrics\.json is damaged"),
        (lambda text: "[1, 2]", r"not what medsae evaluate writes \(the file: "),
        (lambda text: text.replace('"schema": 3', '"schema": 1'), r"not what medsae evaluate writes \(schema: "),
        (lambda text: text.replace('"schema": 3', '"schema": 9'), r"schema version 9, and this .* reads 3; install"),
        (lambda text: edited(text, "candidates", []), None),
        (lambda text: edited(text, "candidates", 7), r"\(candidates: Input should be a valid array"),
        (lambda text: edited(text, "select", {"split": "train"}), r"\(select\.images: Field required"),
        (lambda text: text.replace('"kind": "sae"', '"kind": "seal"'), r"\(candidates\.0\.kind: Input should be"),
        (lambda text: text.replace('"positives": ', '"positives": "x", "was": ', 1), r"\(candidates\.0\.observations"),
    ],
)
def test_damage_is_said_in_words(made, tmp_path, spoil, said):
    text = spoil((made[1] / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(text)
    if said is None:
        opened = Evaluation.open(tmp_path)
        assert opened.saes == [] and opened.label_names == () and "Top latents" in str(opened)
        return
    with pytest.raises(MedSAEError, match=said):
        Evaluation.open(tmp_path)


def edited(text: str, key: str, value: object) -> str:
    return json.dumps({**json.loads(text), key: value})


def test_no_evaluation_and_that_of_another_protocol_are_said(tmp_path):
    with pytest.raises(MedSAEError, match=r"there is no metrics\.json in"):
        Evaluation.open(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"schema": 3, "protocol": "medsae-paper", "candidates": []}))
    with pytest.raises(MedSAEError, match="not what medsae evaluate writes"):
        Evaluation.open(tmp_path)


def test_undefined_figures_are_null_and_never_nan(made):
    text = (made[1] / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    content = json.loads(text)
    frame = pd.read_parquet(made[1] / "latents.parquet")
    dead = frame[(frame["name"] == "untrained a") & (frame["density"] == 0)]
    assert np.isnan(dead["r: Edema"]).all() and content["schema"] == 3
