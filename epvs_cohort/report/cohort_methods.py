"""A paragraph of methods ready to paste, with its references, and the facts that a report opens with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.report.measure_words import number

#: Key in the text to reference.
REFERENCES: Final = {
    "Dubost 2017": "Dubost F, Bortsova G, Adams H, Ikram A, Niessen W, Vernooij M, de Bruijne M. GP-Unet: lesion "
    "detection from weak labels with a 3D regression network. MICCAI 2017, LNCS 10435, 214–221. "
    "doi:10.1007/978-3-319-66179-7_25",
    "Klein 2010": "Klein S, Staring M, Murphy K, Viergever MA, Pluim JPW. elastix: a toolbox for intensity-based "
    "medical image registration. IEEE Transactions on Medical Imaging 29(1), 2010, 196–205. "
    "doi:10.1109/TMI.2009.2035616",
    "McCormick 2014": "McCormick M, Liu X, Jomier J, Marion C, Ibanez L. ITK: enabling reproducible research and open "
    "science. Frontiers in Neuroinformatics 8, 2014, 13. doi:10.3389/fninf.2014.00013",
    "Rocklin 2015": "Rocklin M. Dask: parallel computation with blocked algorithms and task scheduling. Proceedings "
    "of the 14th Python in Science Conference, 2015, 126–132. doi:10.25080/Majora-7b98e3ed-013",
    "Fonov 2011": "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL, Brain Development Cooperative "
    "Group. Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 54(1), 2011, 313–327. "
    "doi:10.1016/j.neuroimage.2010.07.033",
    "Desikan 2006": "Desikan RS, Ségonne F, Fischl B, et al. An automated labeling system for subdividing the human "
    "cerebral cortex on MRI scans into gyral based regions of interest. NeuroImage 31(3), 2006, 968–980. "
    "doi:10.1016/j.neuroimage.2006.01.021",
    "Markello 2021": "Markello RD, Arnatkeviciute A, Poline JB, Fulcher BD, Fornito A, Misic B. Standardizing "
    "workflows in imaging transcriptomics with the abagen toolbox. eLife 10, 2021, e72129. doi:10.7554/eLife.72129",
    "Billot 2023": "Billot B, Greve DN, Puonti O, Thielscher A, Van Leemput K, Fischl B, Dalca AV, Iglesias JE. "
    "SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining. Medical Image "
    "Analysis 86, 2023, 102789. doi:10.1016/j.media.2023.102789",
    "Fischl 2002": "Fischl B, Salat DH, Busa E, et al. Whole brain segmentation: automated labeling of neuroanatomical "
    "structures in the human brain. Neuron 33(3), 2002, 341–355. doi:10.1016/S0896-6273(02)00569-X",
}
_ATLAS: Final = "the bundled atlas (Desikan 2006, as carried by Markello 2021)"
_BROUGHT: Final = {
    "aseg": "by FreeSurfer's segmentation (Fischl 2002)",
    "mask": "by masks that the study brought",
    "either": "by FreeSurfer's segmentation (Fischl 2002) or masks, which the study brought",
}
_NETWORKS: Final = "by two networks trained on label maps of heads in the manner of SynthSeg (Billot 2023)"
#: Where coordinates in MNI space come from.
_BY_TEMPLATE: Final = "an affine and a B-spline map of the template to the scan"
_BY_LABELS: Final = f"an affine map of the labels of {_ATLAS} onto those that the networks found"
#: Measured of each scan that networks outlined, and of no other.
_OF_NETWORKS: Final = "roi_entropy_inside"
_TARGET: Final = {
    "roi": "in the whole region",
    "ac_slice": "in the axial slice through the anterior commissure",
}


def methods_text(cohort: Cohort) -> str:
    """One paragraph that says what was done, with the settings that the run was made with."""
    about = cohort.about
    protocol: Mapping[str, Any] = about["protocol"]
    grid, registration = protocol["grid"], protocol["registration"]
    numbers = cohort.scans["status"].value_counts()
    n = {name: int(numbers.get(name, 0)) for name in ("ok", "flagged", "failed")}
    regions = ", ".join(protocol["roi"]["regions"])
    edges = " × ".join(number(float(edge)) for edge in grid["spacing_mm"])
    shape = " × ".join(str(size) for size in grid["shape"])
    at = float(registration["resolution_mm"])
    how = f"after resampling both to {number(at)} mm" if at > 0 else "at full resolution"
    return (
        f"Enlarged perivascular spaces of the basal ganglia ({regions}) were counted {_TARGET[about['count_target']]} "
        f"with epvs-cohort {about.get('version', 'of unknown version')}, protocol {protocol['name']} "
        f"({about['protocol_id']}). Scans were registered rigidly to the ICBM 152 template (Fonov 2011) with elastix "
        f"(Klein 2010) and ITK (McCormick 2014), {how}. {outline_words(cohort)} "
        f"Each scan was resampled once to {shape} voxels of {edges} mm around it. The count is that of GP-UNet "
        f"(Dubost 2017), a 3D regression network that learns from counts alone; model {about['model']['name']} "
        f"({about['model_id']}), trained on {about['trained_on']}. Lesions were located as the components at the "
        f"threshold that gives that count (method {about.get('method', 'unknown')}). Scans were distributed with Dask "
        f"(Rocklin 2015). Of {cohort.n_asked} scans asked for, {n['ok'] + n['flagged']} were counted, {n['flagged']} "
        f"of them flagged by a quality measure, and {n['failed']} failed."
    )


def outline_words(cohort: Cohort) -> str:
    """How the region was outlined in the scans of this run, and where coordinates in MNI space come from."""
    method = str(cohort.about["protocol"]["roi"]["method"])
    if method == "auto":
        return _chosen_words(cohort)
    if method == "network":
        return _outlined(_NETWORKS, _BY_LABELS)
    if method == "atlas":
        return _outlined(f"by {_ATLAS}", _BY_TEMPLATE)
    return _outlined(_BROUGHT[method], _BY_TEMPLATE)


def _chosen_words(cohort: Cohort) -> str:
    """What became of ``auto``, which takes what a scan brings and else the networks: told of the counted scans."""
    counted = int(cohort.scans["count"].notna().sum())
    of_networks = cohort.qc[cohort.qc["measure"].eq(_OF_NETWORKS) & cohort.qc["value"].notna()]
    by_networks = int(of_networks["scan"].nunique())
    if 0 < counted == by_networks:
        return _outlined(_NETWORKS, _BY_LABELS)
    if counted and not by_networks:
        return _outlined(_BROUGHT["either"], _BY_TEMPLATE)
    numbers = (f" ({counted - by_networks} scans)", f" ({by_networks} scans)") if counted else ("", "")
    return (
        f"The region was outlined {_BROUGHT['either']}{numbers[0]}, else {_NETWORKS}{numbers[1]}. Coordinates in MNI "
        f"space come from {_BY_TEMPLATE} in the former, from {_BY_LABELS} in the latter."
    )


def _outlined(how: str, placed: str) -> str:
    return f"The region was outlined {how}. Coordinates in MNI space come from {placed}."


def cited(text: str) -> list[str]:
    """References that a text names, in the order in which it names them."""
    named = sorted((text.index(key), reference) for key, reference in REFERENCES.items() if key in text)
    return [reference for _, reference in named]


def model_words(about: Mapping[str, Any]) -> tuple[str, str]:
    """What the model was trained on, and its limits: two lines that stand on every report."""
    limits = about["model"].get("limits") or "Its card names no limits."
    return f"Trained on {about['trained_on']}.", str(limits)


def facts(cohort: Cohort) -> list[tuple[str, str]]:
    """Terms and words about protocol, model and versions."""
    about = cohort.about
    protocol = about["protocol"]
    return [
        ("Counted", f"lesions {_TARGET[about['count_target']]}, method {about.get('method', 'unknown')}"),
        ("Protocol", f"{protocol['name']} ({about['protocol_id']}): {protocol.get('description', '')}"),
        ("Model", f"{about['model']['name']} ({about['model_id']})"),
        ("Program", f"epvs-cohort {about.get('version', 'of unknown version')}"),
        ("Atlas", str(about.get("atlas_id", "unknown"))),
        ("Run", str(about.get("run_id", "unknown"))),
    ]
