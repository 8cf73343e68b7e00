"""Names of version 0.1 work for one release more, and say what they are called now."""

import json
import re
import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from helpers.planted import planted_rows, reading_weights, relu_sae, write_store

import medsae_plugin as medsae
from medsae_plugin._old_names import MODULES, MOVED, old_functions
from medsae_plugin.causal.passes import PixelBatches
from medsae_plugin.data import prompts
from medsae_plugin.encoders import ZeroShot
from medsae_plugin.scores import Resampling


def test_an_old_module_is_the_new_one(tmp_path):
    (tmp_path / "hub").mkdir()  # what an older checkout leaves behind, once its code is gone
    code = """
import json, sys, warnings
from importlib import import_module
warnings.simplefilter("ignore")
import medsae_plugin
medsae_plugin.__path__.append(sys.argv[2])
found = {}
for old, new in json.loads(sys.argv[1]).items():
    one, other = import_module(old), import_module(new)
    found[old] = [one is other, sys.modules[old] is other, other.__spec__.name]
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(MODULES), tmp_path], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {old: [True, True, new] for old, new in MODULES.items()}


def test_what_was_imported_from_old_modules_is_there():
    with pytest.warns(DeprecationWarning, match=r"medsae_plugin\.activations is now medsae_plugin\.store"):
        sys.modules.pop("medsae_plugin.activations", None)
        assert import_module("medsae_plugin.activations").ActivationStore is medsae.ActivationStore
    with pytest.raises(ModuleNotFoundError):
        import_module("medsae_plugin.evaluation.nothing")
    with pytest.raises(ModuleNotFoundError):
        import_module("medsae_plugin.evaluations")


def test_old_functions_do_as_they_did(tmp_path):
    rows, codes = planted_rows(120, 8, 5)
    store = write_store(tmp_path / "store", {"late": rows})
    frame = pd.DataFrame({"Path": store.images["path"], "Edema": (codes[:, 0] > 0).astype(int)})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    table = medsae.read_table(tmp_path / "labels.csv", label_columns=["Edema"])
    sae = relu_sae("late", **reading_weights(8, 5), encoder_sha256="0" * 64)
    few = {"resampling": Resampling(9, 9), "progress": False}
    with pytest.warns(DeprecationWarning, match=r"medsae_plugin\.evaluate_saes is now evaluate; the old name goes"):
        metrics = medsae.evaluate_saes(store, [sae], table, tmp_path / "out", **few)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    evaluation = medsae.Evaluation.open(tmp_path / "out")
    with pytest.warns(DeprecationWarning, match=r"format_table is now print\(evaluation\)"):
        assert medsae.format_table(metrics) == str(evaluation)
    with pytest.warns(DeprecationWarning, match="compare_saes is now compare"):
        compared = medsae.compare_saes(store, {"a": sae, "b": sae}, table, tmp_path / "compared", **few)
    with pytest.warns(DeprecationWarning, match=r"format_comparison is now print\(comparison\)"):
        assert medsae.format_comparison(compared) == str(medsae.Comparison.open(tmp_path / "compared"))
    np.testing.assert_array_equal([s["name"] for s in compared["saes"]], ["a", "b", "neurons of late"])


def test_what_has_left_the_evaluation_is_told_where_it_is():
    evaluation = import_module("medsae_plugin.evaluation")
    for name, package in MOVED.items():
        with pytest.warns(DeprecationWarning, match=rf"\.{name} is now {package}\.{name}; the old name goes"):
            assert getattr(evaluation, name) is getattr(import_module(package), name)


def test_old_functions_of_encoders_do_as_they_did(demo_saes):
    encoder, table = demo_saes.encoder, demo_saes.split("test").take(np.arange(12))
    saes = medsae.causal.load_saes(encoder, [demo_saes.folders["embedding"]])
    with pytest.warns(DeprecationWarning, match=r"EncoderCard\.own_prompts"):
        assert prompts.prompts_for(encoder.name) == encoder.card.own_prompts()
        assert prompts.prompts_for("of no card") == prompts.load_prompts(prompts.CHEXPERT)
    with pytest.warns(DeprecationWarning, match="downstream_fidelity is now fidelity"):
        found = medsae.downstream_fidelity(encoder, saes, table, progress=False)
    assert found == medsae.fidelity(encoder, saes, table, progress=False).to_json()
    with pytest.warns(DeprecationWarning, match=r"format_fidelity is now print\(fidelity\)"):
        assert medsae.format_fidelity(found) == str(medsae.Fidelity.read(found))
    zero_shot, batches = ZeroShot(encoder, encoder.card.own_prompts()), PixelBatches(encoder, table, progress=False)
    attribution = medsae.attribute(encoder, saes["embedding"], zero_shot, batches)
    with pytest.warns(DeprecationWarning, match=r"summarise_attribution is now AttributionReport\.of"):
        summary = medsae.summarise_attribution(attribution, table, seed=1)
    report = medsae.AttributionReport.of(attribution, table, seed=1)
    assert summary == report.to_json()
    with pytest.warns(DeprecationWarning, match=r"format_attribution is now print\(report\)"):
        assert medsae.format_attribution(summary) == str(report)


def test_the_warning_is_of_the_line_that_uses_the_name(tmp_path):
    """Python shows a DeprecationWarning of a script's own lines alone."""
    lines = ["import medsae_plugin", *(f"medsae_plugin.{name}" for name in old_functions())]
    lines += [f"import {name}" for name in MODULES]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    shown = re.findall(r"script\.py:(\d+): DeprecationWarning: (\S+) is now", done.stderr)
    names = [f"medsae_plugin.{name}" for name in old_functions()]
    assert {(int(at), name) for at, name in shown} >= set(enumerate(names, 2))
    assert {name for _, name in shown} >= set(MODULES)
    with pytest.raises(AttributeError, match="no attribute 'evaluate_sae'"):
        medsae.evaluate_sae  # noqa: B018


def test_by_image_tells_the_place_of_each_row(tmp_path):
    rows, _ = planted_rows(9, 4, 2)
    store = write_store(tmp_path / "store", {"hook_embedding": rows})
    with pytest.warns(DeprecationWarning, match="by_image is now image_batches"):
        old = list(store.by_image("hook_embedding", batch_images=4))
    for (ids, values, place), (new_ids, new_values) in zip(
        old, store.image_batches("hook_embedding", batch_images=4), strict=True
    ):
        assert (ids == new_ids).all() and (values == new_values).all()
        assert (ids[place] == new_ids).all()
