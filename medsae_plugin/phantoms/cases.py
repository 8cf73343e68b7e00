"""Who is drawn with what: patients, studies and their findings, occurring together as in CheXpert."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS
from medsae_plugin.phantoms.anatomy import Projection, Sex, View
from medsae_plugin.phantoms.chexpert import PHI, STATED, UNCERTAIN

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
OPACITIES = ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis")
"""Findings that are lung opacities themselves."""

FINDINGS = tuple(name for name in OBSERVATIONS if name != NO_FINDING)
"""CheXpert's observations without No Finding, in CheXpert's order."""

MILDEST = 0.4
MEAN_SEVERITY = MILDEST + (1 - MILDEST) / 3
OWN_OPACITY = 0.08
"""How often a lung without any of those is a Lung Opacity."""


@dataclass(frozen=True)
class Case:
    """All that a phantom is drawn from; the same case gives the same bytes.

    The patient's seed fixes the anatomy, the study's where findings lie, the image's exposure and noise. `findings`
    maps what is present to its severity in (0, 1]; nothing but Support Devices means No Finding. A `marker` is a tag of
    metal in the picture's corner, no device of the patient's: what a planted shortcut goes by.
    """

    patient_seed: int
    study_seed: int
    image_seed: int
    sex: Sex
    age: int
    view: View
    projection: Projection
    findings: Mapping[str, float] = field(default_factory=dict)
    marker: bool = False

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


def _latent_correlations() -> np.ndarray:
    """Correlations of normal variables, one a finding, which cut at thresholds have CheXpert's phi coefficients.

    Tetrachoric, by Digby's approximation from the odds ratio (Biometrics 39, 1983, 753-757).
    """
    p = np.array([PREVALENCE[name] for name in FINDINGS])
    rows = [OBSERVATIONS.index(name) for name in FINDINGS]
    both = np.outer(p, p) + PHI[np.ix_(rows, rows)] * np.sqrt(np.outer(p * (1 - p), p * (1 - p)))
    only_first, only_second = p[:, None] - both, p - both
    with np.errstate(divide="ignore", invalid="ignore"):  # on the diagonal, set below
        odds = (both * (1 - both - only_first - only_second) / (only_first * only_second)) ** 0.75
        found = (odds - 1) / (odds + 1)
    np.fill_diagonal(found, 1.0)
    return found


PREVALENCE = {name: STATED[name] + UNCERTAIN[name] / 2 for name in FINDINGS}
"""Shares of pictures with each finding: what is uncertain in CheXpert's reports is there in half of the cases."""
PREVALENCE["Lung Opacity"] = OWN_OPACITY
# How much likelier at the bedside (AP), and less likely upright (PA), in standard deviations of the latent variable.
BEDSIDE = np.array([{DEVICES: 0.3, "Edema": 0.15}.get(name, 0.0) for name in FINDINGS])
_MIXED = np.sqrt(1 + BEDSIDE**2)
_THRESHOLDS = ndtri([PREVALENCE[name] for name in FINDINGS]) * _MIXED
_ROOT = np.linalg.cholesky(_latent_correlations())


def sample_findings(rng: np.random.Generator, projection: Projection) -> dict[str, float]:
    """Findings of one study with severities, as frequent and as correlated as in CheXpert's training split.

    Each finding is there where a normal variable, correlated with the others', lies below its threshold. Mild ones are
    more frequent than grave ones. Bedside (AP) studies hold more devices and edema. Whatever opacifies the lung is,
    nearly always, also a Lung Opacity, so that this one alone follows the others rather than CheXpert.
    """
    tilt = BEDSIDE if projection == "AP" else -BEDSIDE
    latent = _ROOT @ rng.standard_normal(len(FINDINGS))
    present = {name for name, value, bound in zip(FINDINGS, latent, _THRESHOLDS + tilt, strict=True) if value < bound}
    if present & set(OPACITIES):
        present.discard("Lung Opacity")
        if rng.random() < 0.95:
            present.add("Lung Opacity")
    severities = {name: float(np.round(MILDEST + (1 - MILDEST) * rng.random() ** 2, 3)) for name in FINDINGS}
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
    drawn_findings = sample_findings(rng, projection)
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
