"""The 14 observations of CheXpert (Irvin et al. 2019, arXiv 1901.07031), in its order."""

OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

HIERARCHY = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Lung Opacity": ("Lung Lesion", "Edema", "Consolidation", "Atelectasis"),
    "Consolidation": ("Pneumonia",),
}
"""CheXpert's tree of them (figure 1 there): of each parent its children, which it is present with."""
