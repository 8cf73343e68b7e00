"""Who is drawn with what: patients, studies and their findings, occurring together as in practice."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS
from medsae_plugin.phantoms.anatomy import Projection, Sex, View

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
OPACITIES = ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis")
"""Findings that are lung opacities themselves."""

FINDINGS = tuple(name for name in OBSERVATIONS if name != NO_FINDING)
"""CheXpert's observations without No Finding, in CheXpert's order."""

MILDEST = 0.25


@dataclass(frozen=True)
class Case:
    """All that a phantom is drawn from; the same case gives the same bytes.

    The patient's seed fixes the anatomy, the study's where findings lie, the image's exposure and noise. `findings`
    maps what is present to its severity in (0, 1]; nothing but Support Devices means No Finding.
    """

    patient_seed: int
    study_seed: int
    image_seed: int
    sex: Sex
    age: int
    view: View
    projection: Projection
    findings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.findings) - set(FINDINGS))
        if unknown:
            raise MedSAEError(f"no such finding to draw: {', '.join(unknown)}; known are {', '.join(FINDINGS)}")
        for name, severity in self.findings.items():
            if not 0 < severity <= 1:
                raise MedSAEError(f"severity of {name} is {severity}; it lies above 0 and up to 1")
        if self.sex not in ("Female", "Male"):
            raise MedSAEError(f"sex is {self.sex!r}; it is 'Female' or 'Male'")
        if (self.view, self.projection) not in (("Frontal", "PA"), ("Frontal", "AP"), ("Lateral", "")):
            raise MedSAEError(
                f"no view {self.view!r} with projection {self.projection!r}; there are Frontal with PA or AP, and "
                "Lateral with ''"
            )

    @property
    def labels(self) -> dict[str, float]:
        """Severity of each of CheXpert's observations that is present, No Finding (1.0) included."""
        healthy = not set(self.findings) - {DEVICES}
        return {NO_FINDING: 1.0, **self.findings} if healthy else dict(self.findings)


def sample_findings(rng: np.random.Generator, projection: Projection, age: int) -> dict[str, float]:
    """Findings of one study with severities, co-occurring as in practice.

    Heart failure brings cardiomegaly, edema and effusion together; pneumonia comes with consolidation or another
    opacity; effusions press lung into atelectasis; fractures and chest tubes go with pneumothorax; bedside (AP) studies
    are sicker and hold more devices. Whatever opacifies the lung is, nearly always, also a Lung Opacity.
    """
    bedside, old = projection == "AP", float(np.clip((age - 20) / 70, 0, 1))
    present: set[str] = set()

    def maybe(name: str, probability: float) -> None:
        if rng.random() < probability:
            present.add(name)

    sick = rng.random() < (0.80 if bedside else 0.66)
    if sick:
        failing = rng.random() < 0.10 + 0.14 * old + 0.04 * bedside
        maybe("Cardiomegaly", 0.85 if failing else 0.08)
        maybe("Edema", 0.80 if failing else 0.03)
        maybe("Pneumonia", 0.15)
        maybe("Consolidation", 0.60 if "Pneumonia" in present else 0.07)
        maybe("Pleural Effusion", 0.55 if failing else 0.30 if "Pneumonia" in present else 0.12)
        maybe("Fracture", 0.12)
        maybe("Pneumothorax", 0.30 if "Fracture" in present else 0.11)
        maybe("Atelectasis", 0.35 if present & {"Pleural Effusion", "Pneumothorax"} else 0.10)
        maybe("Lung Lesion", 0.14)
        maybe("Enlarged Cardiomediastinum", 0.22 if "Cardiomegaly" in present else 0.11)
        maybe("Pleural Other", 0.18 if "Pleural Effusion" in present else 0.11)
        maybe("Lung Opacity", 0.12)
        if not present:
            present.add(FINDINGS[int(rng.integers(len(FINDINGS) - 1))])
        if "Pneumonia" in present and "Consolidation" not in present:
            present.add("Lung Opacity")
        if present & set(OPACITIES):
            maybe("Lung Opacity", 0.95)
    maybe(DEVICES, 0.65 if "Pneumothorax" in present else 0.50 if bedside else 0.12)
    severities = {name: float(np.round(rng.uniform(MILDEST, 1), 3)) for name in FINDINGS}
    # A Lung Opacity that stands for others is as severe as the worst of them.
    implied = [severities[name] for name in OPACITIES if name in present]
    severities["Lung Opacity"] = max(implied, default=severities["Lung Opacity"])
    return {name: severities[name] for name in FINDINGS if name in present}


def sample_age(rng: np.random.Generator) -> int:
    """Years, 18 to 90 and mostly over 40, as in a hospital."""
    return int(np.clip(rng.normal(58, 18), 18, 90))


def sample_case(
    seed: int,
    *,
    findings: Mapping[str, float] | None = None,
    view: View | None = None,
    projection: Projection | None = None,
    sex: Sex | None = None,
    age: int | None = None,
) -> Case:
    """A case from a seed; what is given is kept, the rest is drawn.

    Raises:
        MedSAEError: a finding, severity, sex or view that does not exist.
    """
    rng = np.random.default_rng([seed, 0])
    drawn_sex: Sex = "Male" if rng.random() < 0.55 else "Female"
    drawn_age = sample_age(rng)
    drawn_view: View = "Lateral" if rng.random() < 0.2 else "Frontal"
    drawn_projection: Projection = "AP" if rng.random() < 0.5 else "PA"
    view = view or ("Frontal" if projection else drawn_view)
    projection = "" if view == "Lateral" and not projection else projection or drawn_projection
    age = drawn_age if age is None else age
    drawn_findings = sample_findings(rng, projection, age)
    return Case(
        patient_seed=seed,
        study_seed=seed,
        image_seed=seed,
        sex=sex or drawn_sex,
        age=age,
        view=view,
        projection=projection,
        findings=drawn_findings if findings is None else dict(findings),
    )
