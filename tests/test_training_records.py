"""What training writes beside weights: files of version 0.1 open, and what is damaged is said."""

import json
import math

import pandas as pd
import pytest

from medsae_plugin import MedSAEError
from medsae_plugin.training import SAESpec, TrainingConfig
from medsae_plugin.training.records import TrainingRecord, read_training

SPEC = SAESpec("a", "hook_embedding", "topk", 2, options={"k": 4}, lr=0.5)
CONFIG = TrainingConfig(total_training_samples=4096, lr=1e-3)
# As version 0.1 wrote it: no version, no learning rate or decoder of an SAE, passes for epochs, the history inside.
OLD = {
    "sae": {
        "name": "a",
        "hook": "hook_embedding",
        "architecture": "topk",
        "expansion": 16,
        "normalize": "center_and_scale",
        "options": {"k": 4},
        "seed": 3,
    },
    "training": {
        "total_training_samples": 4096,
        "batch_size": 1024,
        "lr": 0.0003,
        "lr_end": None,
        "lr_scheduler_name": "constant",
        "lr_warm_up_steps": 0,
        "lr_decay_steps": 0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "dead_feature_window": 1000,
        "feature_sampling_window": 2000,
        "n_checkpoints": 0,
        "n_batches_for_norm_estimate": 100,
        "validate_every": 1000,
        "seed": 0,
        "autocast": False,
        "passes": None,
    },
    "validation": {"explained_variance": float("nan"), "l0": 4},
    "history": [{"step": 4, "rows": 4096, "l0": 4.0, "loss": None}],
}


def test_a_record_says_all_but_the_device_and_figures_that_are_undefined_are_null(tmp_path):
    figures = {"l0": 4.0, "explained_variance": math.nan}
    TrainingRecord(sae=SPEC, training=CONFIG, validation=figures).save(tmp_path)
    content = json.loads((tmp_path / "training.json").read_text())
    assert list(content) == ["schema_version", "sae", "training", "validation"]
    assert content["validation"] == {"l0": 4.0, "explained_variance": None}
    assert "device" not in content["training"] and "decoder" not in content["sae"]
    record = read_training(tmp_path)
    assert (record.sae, record.training, record.history) == (SPEC, CONFIG, [])
    frame = pd.DataFrame({"step": [1, 2], "l0": [3.5, math.nan]})
    frame.to_parquet(tmp_path / "history.parquet", index=False)
    assert read_training(tmp_path).history == [{"step": 1, "l0": 3.5}, {"step": 2, "l0": None}]


def test_a_record_of_version_0_1_opens(tmp_path):
    assert read_training(tmp_path) is None
    (tmp_path / "training.json").write_text(json.dumps(OLD))
    record = read_training(tmp_path)
    assert record.sae == SAESpec("a", "hook_embedding", "topk", 16, options={"k": 4}, seed=3)
    assert record.training.steps == 4 and record.training.epochs is None
    assert record.validation == {"explained_variance": None, "l0": 4}
    assert record.history == OLD["history"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "training.json is damaged"),
        ("[]", "training.json is not what medsae train writes"),
        ("{}", r"training.json is not what medsae train writes \(sae: Field required\)"),
        (json.dumps(OLD | {"sae": OLD["sae"] | {"normalize": "by_hand"}}), r"\(sae.*by_hand.* is not one of"),
        (json.dumps(OLD | {"training": {"lr": 1}}), r"\(training: .*give either epochs or samples"),
        (json.dumps(OLD | {"schema_version": 7}), "has schema version 7, and this version"),
        (json.dumps(OLD | {"more": 1}), "more: Extra inputs are not permitted"),
    ],
)
def test_what_training_does_not_write_is_refused_in_words(tmp_path, text, said):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(MedSAEError, match=said):
        read_training(tmp_path)
