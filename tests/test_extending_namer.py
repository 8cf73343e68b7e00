"""A user's own namer, a class registered in `NAMERS`, names latents from the command line and in Python."""

import json

from helpers.extending import prepare, run

NAMER = """
from medsae_plugin.naming import NAMERS, LatentName, Proposal

class Brightest:
    identity = {"backend": "brightest"}

    def propose(self, firing, units, samples, rows):
        peaks = [float(firing.column(unit, rows).max()) for unit in units]
        return [Proposal(LatentName(concept="edema"), similarity=peak) for peak in peaks]

NAMERS["brightest"] = Brightest
"""


def test_an_own_namer_names_and_is_recorded(tmp_path):
    prepare(tmp_path)
    (tmp_path / "my_namer.py").write_text(NAMER)
    name = ["name", "store", "saes/embedding", "--table", "cxr/labels.csv", "--backend", "brightest"]
    few = ["--strongest", "1", "--spread", "1", "--silent", "1", "--out"]
    done = run(tmp_path, *name, *few, "names", "--import", "my_namer")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "names" / "names.json").read_text())
    named = [unit for unit in content["names"] if unit["status"] == "named"]
    assert content["made"]["namer"] == {"backend": "brightest"}
    assert named and {unit["concept"] for unit in named} == {"edema"} and {u["category"] for u in named} == {"Edema"}
    done = run(tmp_path, *name, *few, "other")
    assert done.returncode == 1 and "no way to name called 'brightest': there are vocabulary, label" in done.stderr
