"""MedSAE's way to name and to judge, by its rules as its code states them."""

import json
import shutil

import numpy as np
import pytest
from helpers.naming_case import Model, concept_in, oracle_judge

from medsae_plugin.cli import main
from medsae_plugin.naming import score_names
from medsae_plugin.naming.answers import Answers
from medsae_plugin.naming.asking import Asker
from medsae_plugin.naming.evidence import Sample, TooSeldom
from medsae_plugin.naming.namers import ChatNamer
from medsae_plugin.naming.paper import PaperEvidence, PaperTrials
from medsae_plugin.naming.run import name_latents
from medsae_plugin.naming.trials import Judge
from medsae_plugin.phantoms import FINDINGS


def fires_on(n: int, of: int = 400) -> np.ndarray:
    """A unit that fires on `n` of these images: image k harder than image k + 1."""
    return np.where(np.arange(of) < n, np.linspace(2, 1, of), 0.0).astype(np.float32)


@pytest.mark.parametrize(
    ("fires", "last"),
    [
        (61, 61 - 61 // 3),  # the upper two thirds: 41 ranks
        (149, 149 - 149 // 3),  # exactly 100
        (150, 100),
        (400, 100),
    ],
)
def test_evidence_is_the_first_and_the_last_of_the_upper_two_thirds_up_to_rank_100(fires, last):
    sample = PaperEvidence().sample(fires_on(fires), np.zeros(400, int), 0)
    assert isinstance(sample, Sample) and sample.silent == () and not sample.tells_labels
    assert sample.strongest == tuple(range(15)) and sample.spread == tuple(range(last - 15, last))


@pytest.mark.parametrize(("column", "named"), [(fires_on(60), False), (fires_on(61), True), (np.ones(400), False)])
def test_units_of_60_images_or_of_no_variance_are_not_named(column, named):
    sample = PaperEvidence().sample(column.astype(np.float32), np.arange(400), 0)
    assert isinstance(sample, Sample) == named
    assert named or (isinstance(sample, TooSeldom) and "on fewer than 61 images" in str(sample))


def test_a_trial_is_the_strongest_30_and_30_silent_drawn_again_where_they_are_fewer():
    column, rows = fires_on(390), np.arange(400) + 1000
    trial = PaperTrials().sample(column, rows, np.zeros(400, int), 0)
    shown = np.array(trial.rows) - 1000
    assert set(shown[trial.truth == 1]) == set(range(30)) and (trial.truth == 0).sum() == 30
    silent = shown[trial.truth == 0]
    assert (column[silent] == 0).all() and len(set(silent)) <= 10, "10 silent images make 30"
    assert list(shown) != sorted(shown), "the order is drawn"
    assert PaperTrials().sample(np.ones(400, np.float32), rows, np.zeros(400, int), 0) is None, "none is silent"
    few = PaperTrials().sample(fires_on(20), rows, np.zeros(400, int), 0)
    assert (few.truth == 1).sum() == 20 and len(few.rows) == 60, "the strongest 30, whatever their value"


@pytest.fixture
def case(phantom_case):
    return phantom_case


def common(case) -> list[int]:
    """Findings on more than 60 images of the naming split."""
    train = np.flatnonzero(case.table.frame["split"] == "train")
    return [k for k, name in enumerate(FINDINGS) if sum(name in case.findings[i] for i in train) > 60]


def test_names_are_made_without_labels_and_tried_on_their_own_evidence(case, tmp_path):
    told = []

    def answer(text, captioned):
        told.append((text, len(captioned)))
        return json.dumps({"concept": FINDINGS[common(case)[0]]})

    namer = ChatNamer(Asker(Model("namer", answer), Answers(tmp_path / "answers"), progress=False))
    units, how = common(case)[:2], {"progress": False}
    assert units, "phantoms have common findings"
    sae = shutil.copytree(case.sae, tmp_path / "sae")  # which takes the names in too
    names = name_latents(case.store, sae, case.table, tmp_path, namer, latents=units, counts=PaperEvidence(), **how)
    assert all(
        n == 30 and "label is given" not in text and "does not respond to these images" not in text for text, n in told
    )
    assert names.made["evidence"] == {
        "preset": "medsae-paper", "images": 30, "ranks": 100, "more_than": 60, "labels": False,
    }  # fmt: skip
    judge = Judge(Asker(oracle_judge(case), Answers(tmp_path / "answers"), progress=False), PaperTrials.group)
    scores = score_names(case.store, case.sae, case.table, tmp_path, {"oracle": judge}, rule=PaperTrials(), **how)
    assert (scores.trial, scores.split, scores.images_each) == ("medsae-paper", "train", 30)
    # The evidence's 15 strongest are among the trial's 30.
    assert scores.leak.firing_images == 30 * len(units) and scores.leak.in_evidence >= 15 * len(units)
    printed = str(scores)
    assert f"{scores.leak.in_evidence} of the {30 * len(units)} firing images were in their own" in printed
    on_test = score_names(
        case.store, case.sae, case.table, tmp_path, {"oracle": judge}, rule=PaperTrials(), split="test", **how
    )
    assert "this leaks" not in str(on_test)


def test_an_unread_answer_is_a_no_there_and_none_here(case, tmp_path):
    def answer(text, captioned):
        fitting = [k + 1 for k, (_, shown) in enumerate(captioned) if concept_in(text) in case.seen(shown)]
        return json.dumps({"fitting": fitting}) if len(fitting) != 2 else "two of them"

    unit = common(case)[0]
    case.names({unit: FINDINGS[unit]}).save(tmp_path)
    judge = Judge(Asker(Model("mute", answer), Answers(tmp_path / "answers"), progress=False), PaperTrials.group)
    rules = {"theirs": PaperTrials(), "ours": None}
    found = {}
    for name, rule in rules.items():
        how = {"split": "train" if rule else "test", "each": 10, "rule": rule, "progress": False}
        found[name] = score_names(case.store, case.sae, case.table, tmp_path, {"mute": judge}, **how)["mute"].latents
    assert found["theirs"].unanswered == 0 and found["theirs"].recall < 1 and found["theirs"].precision == 1
    assert found["ours"].unanswered > 0 and found["ours"].recall == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["name", "--evidence", "medsae-paper", "--spread", "3"],
            "--evidence medsae-paper has its own counts; leave out --spread",
        ),
        (
            ["name", "score", "--trial", "medsae-paper", "--each", "5"],
            "--trial medsae-paper has its own counts; leave out --each",
        ),
    ],
)
def test_a_preset_and_counts_of_ones_own_are_not_mixed(case, tmp_path, capsys, words, message):
    if words[1] == "score":
        case.names({0: FINDINGS[0]}).save(tmp_path)
        places = [str(case.store.path), str(case.sae), str(tmp_path), "--judge", "server:m@http://127.0.0.1:9/v1"]
    else:
        places = [str(case.store.path), str(case.sae), "--out", str(tmp_path), "--backend", "label"]
    table = ["--table", str(case.table.image_path(0)).split("images")[0] + "labels.csv", "--quiet"]
    assert main([*words, *places, *table]) == 1
    assert message in capsys.readouterr().err
