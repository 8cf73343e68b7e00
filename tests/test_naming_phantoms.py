"""Names made and tried on phantoms, whose findings are known: an oracle, a coin, shuffled names, refinement."""

import csv
import json
import math
import shutil

import jsonschema
import numpy as np
import pytest
from helpers.naming_case import oracle_judge, oracle_namer

from medsae_plugin.cli import main
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming import Names, score_names
from medsae_plugin.naming.answers import Answers
from medsae_plugin.naming.asking import Asker
from medsae_plugin.naming.evidence import Counts
from medsae_plugin.naming.namers import ChatNamer, LabelNamer
from medsae_plugin.naming.refinement import refine_names
from medsae_plugin.naming.results import NameScores
from medsae_plugin.naming.run import name_latents
from medsae_plugin.naming.trials import Judge
from medsae_plugin.phantoms import FINDINGS

TRUE = dict(enumerate(FINDINGS))
WRONG = {k: FINDINGS[(k + 1) % len(FINDINGS)] for k in TRUE}


@pytest.fixture
def case(phantom_case):
    return phantom_case


def judge(model, folder, group=1):
    return Judge(Asker(model, Answers(folder / "answers"), progress=False), group)


def score(case, folder, judges, names, **options):
    names.save(folder)
    options = {"each": 6, "progress": False, **options}
    return score_names(case.store, case.sae, case.table, folder, judges, **options)


@pytest.mark.parametrize("group", [1, 5])
def test_an_oracle_is_right_and_shuffled_names_fall_to_chance(case, tmp_path, group):
    oracle = oracle_judge(case)
    scores = score(case, tmp_path, {"oracle": judge(oracle, tmp_path, group)}, case.names(TRUE, WRONG))
    (figures,) = scores.judges
    latents, shuffled, neurons = figures.latents, figures.shuffled, figures.neurons
    assert latents.names >= 10 and latents.unanswered == 0
    assert (latents.balanced_accuracy, latents.precision, latents.recall, latents.f1) == (1, 1, 1, 1)
    assert latents.p_value < 1e-12
    # Findings occur together, so another finding's name is not quite a coin.
    assert shuffled.names == latents.names and abs(shuffled.balanced_accuracy - 0.5) < 0.15
    assert shuffled.interval[0] <= 0.55 and shuffled.interval[1] < 0.8
    assert neurons.balanced_accuracy < 0.8, "neurons were given wrong names"
    names = latents.names + shuffled.names + neurons.names
    assert names * 2 / group < len(oracle.asked) <= names * math.ceil(12 / group), "what it costs in requests"


def test_a_coin_is_a_coin(case, tmp_path):
    coin = oracle_judge(case, "coin", wrong=0.5)
    scores = score(case, tmp_path, {"coin": judge(coin, tmp_path)}, case.names(TRUE))
    figures = scores.judges[0].latents
    low, high = figures.interval
    assert low <= 0.5 <= high and high - low < 0.3
    assert figures.p_value > 0.01


def test_images_are_balanced_held_out_plain_and_of_different_patients(case, tmp_path):
    oracle = oracle_judge(case)
    names = case.names({0: FINDINGS[0]})
    score(case, tmp_path, {"oracle": judge(oracle, tmp_path)}, names)
    images = [case.image(shown) for shown in oracle.shown]  # plain: any mark on a picture would not be found
    frame = case.table.frame.iloc[images]
    assert set(frame["split"]) == {"test"}
    assert frame["patient"].is_unique
    assert sum(FINDINGS[0] in case.findings[i] for i in images) * 2 == len(images)
    assert not set(frame["patient"]) & set(case.table.frame.loc[case.table.frame["split"] == "train", "patient"])
    with pytest.raises(MedSAEError, match=r"patients are in both 'train' and 'train'"):
        score(case, tmp_path, {"oracle": judge(oracle, tmp_path)}, names, split="train")


def test_several_judges_agree_as_far_as_they_do(case, tmp_path):
    judges = {
        "oracle": judge(oracle_judge(case), tmp_path),
        "hasty": judge(oracle_judge(case, "hasty", wrong=0.2), tmp_path),
        "tired": judge(oracle_judge(case, "tired", wrong=0.2), tmp_path),
    }
    scores = score(case, tmp_path, judges, case.names(TRUE))
    by_judge = {figures.judge: figures.latents.balanced_accuracy for figures in scores.judges}
    assert by_judge["oracle"] == 1.0
    # Two of three are right where at most one of the hasty and the tired errs: 0.96 of the time.
    assert by_judge["majority"] > max(by_judge["hasty"], by_judge["tired"])
    assert by_judge["hasty"] == pytest.approx(0.8, abs=0.1)
    kappas = {pair.judges: pair.kappa for pair in scores.agreement.cohen_kappa}
    assert kappas[("oracle", "hasty")] == pytest.approx(0.6, abs=0.2)
    assert kappas[("hasty", "tired")] == pytest.approx(0.36, abs=0.25)
    assert 0.2 < scores.agreement.fleiss_kappa < 0.8
    table = str(scores)
    assert "Fleiss' kappa" in table and "majority" in table
    lines = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert {line["judge"] for line in lines} == {"oracle", "hasty", "tired", "majority"}
    assert NameScores.open(tmp_path) == scores and scores["tired"].latents.names == len(TRUE)


def test_names_and_scores_fit_the_schemas_that_are_told_of_them(case, tmp_path, capsys):
    judges = {name: judge(oracle_judge(case, name, wrong=0.2), tmp_path, 5) for name in ("one", "other")}
    score(case, tmp_path, judges, case.names(TRUE, WRONG))
    for what, change in (("names", {"names": [{"kind": "latent"}]}), ("scores", {"by_name": [{"judge": "one"}]})):
        capsys.readouterr()
        assert main(["schema", what]) == 0
        schema = json.loads(capsys.readouterr().out)
        saved = json.loads((tmp_path / f"{what}.json").read_text())
        jsonschema.validate(saved, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(saved | change, schema)
    (tmp_path / "scores.json").write_text(json.dumps(saved | {"judges": [{"judge": "one"}]}))
    with pytest.raises(MedSAEError, match=r"scores\.json is not what medsae name score writes \(judges\.0\.identity: "):
        NameScores.open(tmp_path)


def test_what_a_judge_leaves_unanswered_is_counted_as_that(case, tmp_path):
    silent = oracle_judge(case, "silent")
    told = silent.answer
    silent.answer = lambda text, captioned: "I cannot say." if "Edema" in text else told(text, captioned)
    scores = score(case, tmp_path, {"silent": judge(silent, tmp_path)}, case.names(TRUE))
    figures = scores.judges[0].latents
    assert figures.balanced_accuracy == 1.0 and figures.unanswered >= 4
    edema = next(
        line
        for line in csv.DictReader((tmp_path / "scores.csv").open())
        if line["concept"] == "Edema" and line["condition"] == "latents"
    )
    assert edema["balanced_accuracy"] == edema["p_value"] == "" and int(edema["unanswered"]) == figures.unanswered
    assert (edema["tp"], edema["fp"], edema["fn"], edema["tn"]) == ("0", "0", "0", "0")


def test_an_oracle_names_what_it_sees(case, tmp_path):
    sae = shutil.copytree(case.sae, tmp_path / "sae")
    model = oracle_namer(case)
    namer = ChatNamer(Asker(model, Answers(tmp_path / "out" / "answers"), progress=False))
    options = {"counts": Counts(4, 4, 8), "neurons": 5, "progress": False}
    names = name_latents(case.store, sae, case.table, tmp_path / "out", namer, **options)
    named = {int(unit.latent): unit for unit in names.of("latent")}
    right = [k for k, unit in named.items() if unit.concept == unit.category == FINDINGS[k]]
    assert len(named) >= 11 and len(right) >= len(named) - 1
    assert len(names.of("neuron")) == 5
    skipped = [unit for unit in names.units if unit.status == "skipped"]
    assert all("fewer than 8 patients" in unit.problem for unit in skipped)
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    splits = case.table.frame["split"]
    ids = [i for unit in evidence["latents"].values() for group in unit.values() for i in group]
    assert {splits[i] for i in ids} == {"train"}
    # The names are in the SAE's folder too, which SAE-Lens still loads; nothing there tells of an image or a patient.
    from sae_lens import SAE

    assert SAE.load_from_disk(sae).cfg.d_sae == len(FINDINGS)
    released = (sae / "names.json").read_text()
    assert {n["kind"] for n in json.loads(released)["names"]} == {"latent"}
    for text in (released, (tmp_path / "out" / "names.csv").read_text()):
        assert str(tmp_path) not in text and "patient0" not in text and ".png" not in text
    before = {p: p.read_bytes() for p in (tmp_path / "out").glob("names.*")}
    asked = len(model.asked)
    name_latents(case.store, sae, case.table, tmp_path / "out", namer, **options)
    assert {p: p.read_bytes() for p in before} == before and len(model.asked) == asked


def test_labels_name_latents(case, tmp_path):
    sae = shutil.copytree(case.sae, tmp_path / "sae")
    names = name_latents(
        case.store, sae, case.table, tmp_path / "out", LabelNamer(), counts=Counts(2, 2, 2), progress=False
    )
    right = [unit for unit in names.of("latent") if unit.concept == FINDINGS[int(unit.latent)]]
    assert len(right) >= 11 and all(0 < unit.similarity <= 1 for unit in right)


def test_refinement_takes_a_better_name_and_keeps_a_better_old_one(case, tmp_path):
    sae = shutil.copytree(case.sae, tmp_path / "sae")
    effusion, edema = FINDINGS.index("Pleural Effusion"), FINDINGS.index("Edema")
    names = case.names({effusion: "Fracture", edema: "Edema"})
    names.save(tmp_path)
    # This judge errs now and then, so the right name is put in question too; the namer then offers a wrong one.
    doctor = oracle_judge(case, "doctor", wrong=0.15)
    model = oracle_namer(case)
    told = model.answer
    model.answer = lambda text, shown: '{"concept": "Fracture"}' if '"concept": "Edema"' in text else told(text, shown)
    namer = ChatNamer(Asker(model, Answers(tmp_path / "answers"), progress=False))
    refined = refine_names(
        case.store, sae, case.table, tmp_path, namer, judge(doctor, tmp_path), rounds=2, each=8, progress=False
    )
    assert [unit.concept for unit in refined.of("latent")] == ["Pleural Effusion", "Edema"]
    assert [unit.round for unit in refined.of("latent")] == [1, 0]
    assert any('"concept": "Edema"' in text for text in model.asked), "it was offered a worse name"
    assert Names.open(sae).of("latent") == refined.of("latent")
    shown = case.table.frame.iloc[[case.image(p) for p in (*doctor.shown, *model.shown)]]
    assert set(shown["split"]) == {"train", "val"}, "the split that names are scored on stays untouched"


def test_names_of_another_sae_are_refused(case, tmp_path):
    names = case.names(TRUE)
    names.made["sae_sha256"] = "0" * 64
    with pytest.raises(MedSAEError, match="another SAE"):
        score(case, tmp_path, {"oracle": judge(oracle_judge(case), tmp_path)}, names)
    with pytest.raises(MedSAEError, match=r"there is no names\.json at .*empty; medsae name writes it"):
        score_names(case.store, case.sae, case.table, tmp_path / "empty", {}, progress=False)


def test_equal_names_are_not_shuffled_into_each_other(case, tmp_path):
    same = {k: "Edema" if k < 6 else f for k, f in TRUE.items()}
    score(case, tmp_path, {"oracle": judge(oracle_judge(case), tmp_path)}, case.names(same))
    lines = [line for line in csv.DictReader((tmp_path / "scores.csv").open()) if line["condition"] == "shuffled"]
    assert lines and all(same[int(x["latent"])] != x["concept"] for x in lines)
    alone = score(case, tmp_path, {"oracle": judge(oracle_judge(case), tmp_path)}, case.names({5: "Edema"}))
    assert alone.judges[0].shuffled is None and np.isfinite(alone.judges[0].latents.p_value)
