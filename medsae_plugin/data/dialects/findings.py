"""Findings as tables name them."""

from __future__ import annotations

from medsae_plugin.observations import OBSERVATIONS

# Findings as tables name them: CheXpert's, then those that NIH ChestX-ray14, VinDr-CXR, PadChest and RSNA add.
FINDINGS = (
    *OBSERVATIONS,
    *("Effusion", "Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"),
    *("Hiatal Hernia", "Diaphragmatic Hernia", "Aortic Enlargement", "Calcification", "Clavicle Fracture"),
    *("Rib Fracture", "Enlarged PA", "ILD", "Interstitial Lung Disease", "Lung Cavity", "Lung Cyst", "Other Lesion"),
    *(
        "Mediastinal Shift",
        "Nodule/Mass",
        "Nodule or Mass",
        "Pulmonary Fibrosis",
        "COPD",
        "Lung Tumor",
        "Lung Tumour",
        "Tuberculosis",
    ),
    *("Other Disease", "Other Diseases", "Airspace Opacity", "Opacity", "Infiltrate", "Infiltrates", "Pulmonary Edema"),
    *("Oedema", "Pulmonary Oedema", "Congestion", "Pulmonary Congestion", "Interstitial Pattern", "Alveolar Pattern"),
    *("Air Trapping", "Aortic Atheromatosis", "Aortic Elongation", "Bronchiectasis", "Bronchitis", "Bronchiolitis"),
    *("Costophrenic Angle Blunting", "Flattened Diaphragm", "Granuloma", "Hemidiaphragm Elevation", "Scoliosis"),
    *("Hilar Enlargement", "Pleural Thickenings", "Pneumomediastinum", "Pneumoperitoneum", "Subcutaneous Emphysema"),
    *("Cavitation", "Atypical Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia", "Bronchopneumonia", "COVID-19"),
    *("COVID", "Pacemaker", "Tube", "Endotracheal Tube", "Chest Tube", "Catheter", "Central Line", "Lung Cancer"),
    *(
        "Tumor",
        "Tumour",
        "Metastasis",
        "Silicosis",
        "Pneumoconiosis",
        "Sarcoidosis",
        "Normal",
        "Abnormal",
        "No Findings",
    ),
)

# Names of what CheXpert has another word for: no more than those that mean the same.
_CHEXPERT_WORDS = {
    "Effusion": "Pleural Effusion",
    "Airspace Opacity": "Lung Opacity",
    "Pulmonary Edema": "Edema",
    "Oedema": "Edema",
    "Pulmonary Oedema": "Edema",
    "Pulmonary Atelectasis": "Atelectasis",
    "No Findings": "No Finding",
    **{name: name for name in OBSERVATIONS},
}


def key(name: str) -> str:
    """A name without case, spaces and signs, so that `pleural_effusion` is `Pleural Effusion`."""
    return "".join(c for c in name.casefold() if c.isalnum())


KNOWN = frozenset(map(key, FINDINGS))
_CHEXPERT_NAMES = {key(name): observation for name, observation in _CHEXPERT_WORDS.items()}


def chexpert_name(label: str) -> str:
    """What CheXpert calls the finding, where it has a word that means the same; else the label as it is."""
    return _CHEXPERT_NAMES.get(key(label), label)
