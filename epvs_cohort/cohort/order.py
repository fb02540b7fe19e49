"""What every task of a run must know besides its scan: small, frozen, sent over the Dask network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.data.identity import FileState
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.model.predict import Precision
from epvs_cohort.model.roi_bundle import bundled_roi_models, load_roi_pair
from epvs_cohort.prepare.scan import PREPARE_VERSION
from epvs_cohort.protocol import Protocol, digest
from epvs_cohort.records import Scan

#: Raised when detection or a column changes its meaning, so that earlier rows are made again.
RESULT_VERSION = 2


@dataclass(frozen=True)
class PrepareOrder:
    """Settings of the preparation and where it is kept.

    Attributes
    ----------
    verify : bool
        Hash every input again instead of trusting size, mtime and inode.
    anew : bool
        Prepare, predict and detect again whatever is there.
    roi_model_id : str or None
        Of the networks that outline; None where the protocol asks for none.
    """

    protocol: Protocol
    store: Path
    verify: bool = False
    anew: bool = False
    roi_model_id: str | None = None

    @property
    def prepare_id(self) -> str:
        """Hash of all that a prepared volume depends on, the input apart."""
        parts: dict[str, object] = {
            "settings": self.protocol.prepare_id,
            "version": PREPARE_VERSION,
            "atlas": load_atlas().atlas_id,
        }
        if self.roi_model_id is not None:
            parts["roi_model"] = self.roi_model_id
        return digest(parts)


def roi_model_id(protocol: Protocol) -> str | None:
    """Hash of the networks that outline the region of scans without side files; None where others do so.

    Raises
    ------
    ModelError
        A bundle of theirs cannot be used.
    """
    roi = protocol.roi
    by_networks = roi.method in ("auto", "network")
    return load_roi_pair(roi.head_model, roi.near_model).model_id if by_networks else None


def with_places(protocol: Protocol) -> Protocol:
    """The same protocol with the folders of its networks that outline made absolute: workers may start elsewhere."""
    named = {name: getattr(protocol.roi, name) for name in ("head_model", "near_model")}
    placed = {
        name: str(Path(value).absolute())
        for name, value in named.items()
        if value is not None and value not in bundled_roi_models()
    }
    return protocol.model_copy(update={"roi": protocol.roi.model_copy(update=placed)})


@dataclass(frozen=True)
class InferOrder:
    """Settings of prediction and detection.

    Attributes
    ----------
    model : str
        Name of a bundle that ships with the package, or folder as the workers see it.
    score : ScoreSettings
        What is thresholded, settled from the protocol and the bundle.
    device, precision : str
        Settled when the cluster is there, one for all workers.
    maps : Path or None
        Folder for heatmaps and lesion labels in native space.
    """

    model: str
    model_id: str
    score: ScoreSettings
    device: str = "cpu"
    precision: Precision = "float32"
    maps: Path | None = None


@dataclass(frozen=True)
class RunOrder:
    """Both halves of the work on a scan."""

    prepare: PrepareOrder
    infer: InferOrder

    @property
    def plan_id(self) -> str:
        """Hash of all that a committed row depends on, the input apart."""
        return digest(
            {
                "prepare": self.prepare.prepare_id,
                "model": self.infer.model_id,
                "detect": self.prepare.protocol.detect_id,
                "method": self.infer.score.method,
                "version": RESULT_VERSION,
            }
        )


def side_files(scan: Scan) -> Iterator[tuple[str, Path]]:
    """Name and path of each side file that a scan brings."""
    for name in ("aseg", "aseg_to_scan", "mask"):
        path = getattr(scan, name)
        if path is not None:
            yield name, path


def state_of(scan: Scan) -> str:
    """Size, mtime and inode of a scan's files, and its AC slice, as JSON: equal text means unchanged.

    Raises
    ------
    UnreadableError
        A file is missing or may not be looked up.
    """
    state: dict[str, object] = {"scan": str(FileState.of(scan.path)), "ac_slice": scan.ac_slice}
    state.update({name: str(FileState.of(path)) for name, path in side_files(scan)})
    return json.dumps(state, sort_keys=True)
