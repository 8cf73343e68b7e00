"""What training writes beside weights, typed: `run.json`, what a run is, and `training.json`, how an SAE became."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WrapSerializer

from medsae_plugin.files import reading
from medsae_plugin.sae_folders import HISTORY, REPORT, RUN
from medsae_plugin.saved import Saved
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.specs import SAESpec, TrainingConfig

# A decoder that is free, as all were once, is not said; nor the device, on which nothing of a run depends but its time.
_Spec = Annotated[
    SAESpec,
    WrapSerializer(lambda spec, fields: {k: v for k, v in fields(spec).items() if (k, v) != ("decoder", "free")}),
]
_Config = Annotated[
    TrainingConfig, WrapSerializer(lambda config, fields: {k: v for k, v in fields(config).items() if k != "device"})
]
Figure = Annotated[int | float | None, AfterValidator(lambda x: None if x is None or math.isnan(x) else x)]


class TrainedOn(BaseModel):
    """What of a store the weights of SAEs follow from.

    dtype: of each hook that they stand at. computed_in: what the encoder computed in, float32 where nothing is said.
    """

    model_config = ConfigDict(extra="forbid")

    encoder_sha256: str
    preprocessing: dict[str, Any]
    images_sha256: str
    positions: str
    seed: int
    dtype: dict[str, str]
    computed_in: str = "float32"


class TrainingRun(Saved):
    """All that the weights of a run's SAEs follow from."""

    model_config = ConfigDict(extra="forbid")
    FILE: ClassVar[str] = RUN
    COMMAND: ClassVar[str] = "medsae train"

    schema_version: Literal[1] = 1
    saes: dict[str, _Spec]
    training: _Config
    store: TrainedOn

    @classmethod
    def of(cls, store: ActivationStore, specs: list[SAESpec], config: TrainingConfig) -> TrainingRun:
        return cls(
            saes={spec.name: spec for spec in specs},
            training=config,
            store=TrainedOn(
                encoder_sha256=store.weights_sha256,
                preprocessing=dict(store.preprocessing),
                images_sha256=store.manifest.images.sha256,
                positions=store.manifest.positions,
                seed=store.manifest.seed,
                dtype={spec.hook: store.hooks[spec.hook].dtype for spec in specs},
                computed_in=store.manifest.encoder.dtype,
            ),
        )


class TrainingRecord(Saved):
    """How an SAE was trained, and how well it reconstructs.

    validation: over all rows of the split `val` (`FidelitySums.figures`); None of a store without one. history: the
        figures on the way, a row each with its `step`; they lie in `history.parquet`, and in version 0.1 lay here.
    """

    model_config = ConfigDict(extra="forbid")
    FILE: ClassVar[str] = REPORT
    COMMAND: ClassVar[str] = "medsae train"

    schema_version: Literal[1] = 1
    sae: _Spec
    training: _Config
    validation: dict[str, Figure] | None = None
    history: list[dict[str, Figure]] = Field(default_factory=list, exclude=True)

    @property
    def trained_by(self) -> dict[str, Any]:
        """What the weights follow from beside the rows, as JSON has it: `sae` and `training`."""
        return self.model_dump(mode="json", include={"sae", "training"})


def read_training(folder: str | Path) -> TrainingRecord | None:
    """The record of an SAE's training in its folder; None where there is none.

    Raises:
        MedSAEError: it is damaged, or something else.
    """
    if not (Path(folder) / REPORT).is_file():
        return None
    record = TrainingRecord.open(Path(folder) / REPORT)
    file = Path(folder) / HISTORY
    if file.is_file():
        with reading(file):
            rows = pd.read_parquet(file).to_dict("records")
        record.history = [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in rows]
    return record
