"""Short findings sentences: what the demo encoder learns from, and prompts for zero-shot classification."""

from typing import NamedTuple


class Sentences(NamedTuple):
    """Ways to say that a finding is there, and that it is not."""

    present: tuple[str, ...]
    absent: tuple[str, ...]


SENTENCES: dict[str, Sentences] = {
    "No Finding": Sentences(
        ("no acute cardiopulmonary process", "normal chest radiograph", "no abnormal findings", "the chest is normal"),
        ("abnormal chest radiograph", "there are abnormal findings", "the chest is abnormal"),
    ),
    "Enlarged Cardiomediastinum": Sentences(
        ("widened mediastinum", "the mediastinum is enlarged", "enlarged cardiomediastinal silhouette"),
        ("the mediastinum is not widened", "normal mediastinal contours"),
    ),
    "Cardiomegaly": Sentences(
        ("cardiomegaly", "the heart is enlarged", "enlarged cardiac silhouette"),
        ("no cardiomegaly", "the heart is normal in size", "normal cardiac silhouette"),
    ),
    "Lung Opacity": Sentences(
        ("lung opacity", "there is an opacity in the lung", "hazy opacity"),
        ("no lung opacity", "the lungs are clear"),
    ),
    "Lung Lesion": Sentences(
        ("lung lesion", "a nodule is seen in the lung", "pulmonary mass"),
        ("no lung lesion", "no nodule or mass"),
    ),
    "Edema": Sentences(
        ("pulmonary edema", "vascular congestion with edema", "bilateral perihilar edema"),
        ("no pulmonary edema", "no vascular congestion"),
    ),
    "Consolidation": Sentences(
        ("consolidation", "lobar consolidation", "consolidation with air bronchograms"),
        ("no consolidation", "no lobar consolidation"),
    ),
    "Pneumonia": Sentences(
        ("pneumonia", "patchy opacities of pneumonia", "multifocal infection"),
        ("no pneumonia", "no sign of infection"),
    ),
    "Atelectasis": Sentences(
        ("atelectasis", "bibasilar atelectasis", "linear atelectasis at the base"),
        ("no atelectasis", "the lungs are well expanded"),
    ),
    "Pneumothorax": Sentences(
        ("pneumothorax", "a pneumothorax is present", "pleural air with a pleural line"),
        ("no pneumothorax", "no pleural air"),
    ),
    "Pleural Effusion": Sentences(
        ("pleural effusion", "blunting of the costophrenic angle", "pleural fluid is present"),
        ("no pleural effusion", "the costophrenic angles are sharp"),
    ),
    "Pleural Other": Sentences(
        ("pleural thickening", "pleural plaques", "calcified pleural thickening"),
        ("no pleural thickening", "no pleural plaques"),
    ),
    "Fracture": Sentences(
        ("rib fracture", "a fracture is seen", "displaced fracture of a bone"),
        ("no fracture", "the bones are intact"),
    ),
    "Support Devices": Sentences(
        ("support devices", "tubes and lines are in place", "a catheter or pacemaker is seen"),
        ("no support devices", "no tubes or lines"),
    ),
}
"""By CheXpert's observation, in CheXpert's order."""
