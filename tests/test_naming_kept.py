"""No name is lost: what `medsae name` finds in its folder and in the SAE's stays, or is said to go."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.chat_server import ChatServer
from helpers.naming_case import FINDINGS, HOOK, PhantomCase, oracle_judge, oracle_namer
from helpers.planted import relu_sae, save_sae

from medsae_plugin.cli import main
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming import Names, name_latents, score_names
from medsae_plugin.naming.answers import Answers
from medsae_plugin.naming.asking import Asker
from medsae_plugin.naming.evidence import Counts
from medsae_plugin.naming.namers import ChatNamer, LabelNamer
from medsae_plugin.naming.names import NamedUnit, merged
from medsae_plugin.naming.refinement import refine_names
from medsae_plugin.naming.trials import Judge
from medsae_plugin.sae_folders import load_sae

EVIDENCE = ["--strongest", "2", "--spread", "2", "--silent", "2"]


@pytest.fixture
def case(phantom_case) -> PhantomCase:
    return phantom_case


@pytest.fixture
def sae(case, tmp_path):
    return shutil.copytree(case.sae, tmp_path / "sae")


def name(case, sae, out, *more):
    table = ["--table", case.table.root / "labels.csv", "--root", case.table.root, "--out", out]
    return main([*map(str, ["name", case.store.path, sae, *table]), "--quiet", *EVIDENCE, *more])


def names_in(folder):
    return {unit.latent: unit.concept for unit in Names.open(folder).of("latent")}


def test_an_sae_is_named_as_a_folder_an_object_or_what_training_returned(case, sae, tmp_path):
    def named(given, out, **old):
        more = {"counts": Counts(2, 2, 2), "progress": False, **old}
        return name_latents(case.store, *given, table=case.table, out=out, namer=LabelNamer(), **more)

    by_folder = named([{"mine": sae}], tmp_path / "a")
    assert by_folder.of("latent") and names_in(sae) == names_in(tmp_path / "a")
    (sae / "names.json").unlink()
    assert named([load_sae(sae)], tmp_path / "b").units == by_folder.units
    assert not (sae / "names.json").exists()
    with pytest.raises(MedSAEError, match="of one SAE's latents, and there are 2: a, b"):
        named([{"a": sae, "b": load_sae(sae)}], tmp_path / "c")
    with pytest.warns(DeprecationWarning, match=r"name_latents\(sae_path=\) is now sae"):
        assert named([], tmp_path / "d", sae_path=sae).units == by_folder.units


def test_names_of_other_latents_stay_in_both_folders(case, sae, tmp_path, capsys):
    assert name(case, sae, tmp_path / "a", "--backend", "label", "--latents", "0,1,4") == 0
    before = names_in(sae)
    capsys.readouterr()
    assert name(case, sae, tmp_path / "a", "--backend", "label", "--latents", "4,5") == 0
    assert names_in(sae) == names_in(tmp_path / "a") == before | {"5": FINDINGS[5]}
    assert "names.json keeps 2 names of other latents" in capsys.readouterr().out
    evidence = json.loads((tmp_path / "a" / "evidence.json").read_text())
    assert set(evidence["latents"]) == {"0", "1", "4", "5"}, "what the names were made from stays too"
    assert "runs" not in Names.open(sae).made, "made alike, they are as if of one run"


def test_names_of_another_run_stay_unless_told_to_go(case, sae, tmp_path, capsys):
    assert name(case, sae, tmp_path / "a", "--backend", "label") == 0
    before = names_in(sae)
    assert len(before) > 10
    with ChatServer(lambda asked: '{"concept": "a shadow"}') as server:
        chat = ["--backend", f"server:m@{server.url}", "--latents", "0,5"]
        capsys.readouterr()
        assert name(case, sae, tmp_path / "b", *chat) == 0
        said = capsys.readouterr().out
        assert names_in(sae) == before and names_in(tmp_path / "b") == {"0": "a shadow", "5": "a shadow"}
        assert f"{sae / 'names.json'} keeps 2 other names of the same ones, of another run; --replace" in said
        asked = len(server.asked)
        assert name(case, sae, tmp_path / "b", *chat, "--replace") == 0 and len(server.asked) == asked
        assert names_in(sae) == before | {"0": "a shadow", "5": "a shadow"}
        # The file says of each name how it was made, and the other folder is as it was.
        label, other = Names.open(sae).runs()
        assert (label.made["namer"]["backend"], other.made["namer"]["backend"]) == ("label", "chat")
        assert {unit.latent for unit in other.units} == {"0", "5"} and names_in(tmp_path / "a") == before
        assert label.made["sae_sha256"] == other.made["sae_sha256"] and Names.open(sae).splits == ["train"]
        server.asked.clear()
        assert name(case, sae, tmp_path / "a", *chat) == 1
        assert "13 names that were made otherwise (another namer)" in capsys.readouterr().err
        assert not server.asked and names_in(tmp_path / "a") == before, "told before anything is asked"


def test_a_name_is_not_lost_to_a_namer_without_one(case, sae, tmp_path):
    assert name(case, sae, tmp_path / "a", "--backend", "label", "--latents", "0,5") == 0
    before = names_in(sae)
    with ChatServer(lambda asked: "I cannot say.") as server:
        assert name(case, sae, tmp_path / "b", "--backend", f"server:m@{server.url}", "--latents", "0,5") == 1
    assert names_in(sae) == before and names_in(tmp_path / "b") == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"3": {"concept": "interstitial oedema"}}', "is not what medsae name writes (made: Field required)"),
        ('{"made": {"runs": 3}, "names": []}', "made does not tell how each name was made"),
        ("{", "names.json is damaged"),
        ("of another", "names of an SAE with other weights; move it away"),
    ],
    ids=["by hand", "by hand in its form", "cut", "of another SAE"],
)
def test_what_is_no_list_of_this_saes_names_is_not_written_over(case, sae, tmp_path, capsys, content, told):
    if content == "of another":
        other = save_sae(tmp_path / "other", relu_sae(HOOK, 2 * torch.eye(len(FINDINGS))))
        assert name(case, other, tmp_path / "o", "--backend", "label", "--latents", "0") == 0
        content = (other / "names.json").read_text()
    (sae / "names.json").write_text(content)
    assert name(case, sae, tmp_path / "a", "--backend", "label", "--latents", "0") == 1
    assert told in capsys.readouterr().err and (sae / "names.json").read_text() == content


def named(kind, latent, concept, **more):
    return NamedUnit(kind=kind, latent=latent, status="named", concept=concept, **more)


def test_a_refined_name_stays_beside_a_first_proposal():
    base = {"encoder": {}, "hook": "h", "sae_sha256": "0", "namer": {"by": "x"}, "split": "train", "seed": 0}
    first = Names(made=base, units=tuple(named("latent", str(k), f"name {k}") for k in (0, 2, 10)))
    better = named("latent", "2", "better", round=1)
    refined = Names(made={**base, "refined": {"rounds": 1}}, units=(better,))
    both = merged(first, refined)
    assert [unit.concept for unit in both.units] == ["name 0", "better", "name 10"]
    assert [run["latents"] for run in both.made["runs"]] == [["0", "10"], ["2"]]
    assert merged(both, first) == both, "proposing the first names again takes nothing back"
    assert merged(first, first) == first
    neurons = Names(made=base, units=tuple(named("neuron", label, "x") for label in ("-0", "3", "-12")))
    assert [unit.latent for unit in merged(first, neurons).units] == ["0", "2", "10", "3", "-0", "-12"]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"namer": {"backend": "label", "held_out": "val"}}, "the backend `label` kept the names"),
        ({"refined": {"rounds": 1, "judge": {}, "check_split": "val"}}, "rounds of refinement kept the names"),
    ],
)
def test_names_are_not_tried_where_they_were_chosen(case, sae, tmp_path, made, why):
    names = case.names({0: FINDINGS[0], 1: FINDINGS[1]})
    names.made.update(made)
    names.save(tmp_path)
    judge = {"x": Judge(Asker(oracle_judge(case), Answers(tmp_path / "answers"), progress=False))}
    with pytest.raises(MedSAEError, match=rf"cannot be tried on 'val': {why}.*such as test"):
        score_names(case.store, sae, case.table, tmp_path, judge, split="val", progress=False)
    scores = score_names(case.store, sae, case.table, tmp_path, judge, split="test", progress=False)
    assert scores.split == "test" and scores["x"].latents.names == 2


def test_names_of_several_runs_are_scored_apart_from_all_their_splits(case, sae, tmp_path):
    one, other = case.names({0: FINDINGS[0]}), case.names({1: FINDINGS[1]})
    other.made["split"] = "test"
    merged(one, other).save(tmp_path)
    assert Names.open(tmp_path).splits == ["train", "test"]
    judge = Judge(Asker(oracle_judge(case), Answers(tmp_path / "answers"), progress=False))
    namer = ChatNamer(Asker(oracle_namer(case), Answers(tmp_path / "answers"), progress=False))
    with pytest.raises(MedSAEError, match="patients are in both 'test' and 'test'"):
        score_names(case.store, sae, case.table, tmp_path, {"x": judge}, progress=False)
    with pytest.raises(MedSAEError, match="several runs"):
        refine_names(case.store, sae, case.table, tmp_path, namer, judge, progress=False)


def test_a_judge_that_answers_in_the_wrong_form_ends_the_test_of_names(case, sae, tmp_path, capsys):
    names = case.names(dict(enumerate(FINDINGS)))
    names.save(tmp_path / "names")
    arguments = ["name", "score", str(case.store.path), str(sae), str(tmp_path / "names"), "--quiet"]
    table = ["--table", str(case.table.root / "labels.csv"), "--root", str(case.table.root)]
    with ChatServer(lambda asked: '{"answer": "yes"}') as server:
        assert main([*arguments, *table, "--judge", f"server:m@{server.url}"]) == 1
        said = capsys.readouterr()
        assert 'fits: Field required, in \'{"answer": "yes"}\'' in said.err and len(server.asked) < 50
    assert not (tmp_path / "names" / "scores.json").exists()
    with ChatServer(lambda asked: "I cannot say") as server:
        few = case.names({0: FINDINGS[0]})
        few.save(tmp_path / "few")
        arguments[4] = str(tmp_path / "few")
        assert main([*arguments, *table, "--judge", f"server:m@{server.url}", "--images", "2"]) == 1
        assert "gave no answer that can be used on any image" in capsys.readouterr().err


def test_what_the_namer_was_told_is_no_success(case, sae, tmp_path, capsys):
    """Every latent here is a finding, so its label is above chance; a chat namer is told so, the vocabulary not."""
    assert name(case, sae, tmp_path / "a", "--backend", "label") == 0
    said = capsys.readouterr().out
    assert "named rightly" not in said.replace("named rightly by a namer not told", "")
    assert "bear the label that the namer was told" in said and "no success of naming" in said
    with ChatServer(lambda asked: json.dumps({"concept": "Edema" if "- Edema: " in asked.text else "dust"})) as server:
        assert name(case, sae, tmp_path / "b", "--backend", f"server:m@{server.url}", "--latents", "4") == 0
        assert all("- Edema: " in asked.text for asked in server.asked)
    said = capsys.readouterr().out
    assert "1 of 1 bear the label that the namer was told" in said
    assert "0 of 13 labels' top latents are named rightly by a namer not told the label" in said


def test_a_latent_without_a_label_above_chance_is_not_named_by_one(case, tmp_path):
    """A latent that fires at random has a strongest label all the same; the reason tells it, and its r and p."""
    from helpers.planted import write_store

    from medsae_plugin.store import ActivationStore

    noise = np.random.default_rng(0).random((len(case.table.frame), len(FINDINGS))).astype(np.float32)
    images = case.store.images[["image_id", "path", "patient", "split"]]
    store = ActivationStore(write_store(tmp_path / "store", {"hook_embedding": noise}, images=images).path)
    sae = save_sae(tmp_path / "sae", relu_sae(HOOK, torch.eye(len(FINDINGS))))
    arguments = ["name", str(store.path), str(sae), "--table", str(case.table.root / "labels.csv"), "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--backend", "label", *EVIDENCE]) == 0
    units = Names.open(tmp_path / "out").units
    problems = [unit.problem for unit in units if unit.status == "unanswered"]
    assert len(problems) >= len(units) - 2, "one in twenty is above chance by chance"
    assert all(p.startswith("follows no label above chance on held-out patients (strongest: ") for p in problems)
    assert all(", r " in p and ", p " in p for p in problems if "does not vary" not in p)
