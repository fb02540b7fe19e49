"""The prepared store: one folder a scan, at most five files, made once and read by counting and training alike.

==================  ==========================================================================
``volume.nii``      intensities, scaled uint16, uncompressed; opens over the scan in any viewer
``labels.nii``      region labels, uint8 (0 outside the mask, 255 in the mask but in no region)
``prepared.json``   fingerprint, transforms, quality measures, checksums
``heat.safetensors``  heatmap within the mask, float32, and the real-valued count
``pictures.zip``    the small pictures that a report shows
==================  ==========================================================================
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from epvs_cohort.data import stored_nifti
from epvs_cohort.data.files import temporary_beside, write_whole
from epvs_cohort.data.store_checksums import SIDECAR, heat_checksum, is_whole, signed
from epvs_cohort.errors import StoreError
from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.records import (
    AcquisitionFacts,
    AcSlice,
    MniMap,
    Prediction,
    PreparedVolume,
    QcValue,
)

STORE_VERSION = 1
VOLUME, LABELS = "volume.nii", "labels.nii"
HEAT, PICTURES = "heat.safetensors", "pictures.zip"
#: Folder of the store within a cohort that consists of prepared volumes.
COHORT_STORE = "prepared"
#: Errors of a side-car that is missing or damaged; lists within lists may be deeper than the reader can follow.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, RecursionError)
_SCALE = 65535
#: A stored voxel times this is its intensity.
INTENSITY_STEP = np.float32(1.0 / _SCALE)


@dataclass(frozen=True)
class Provenance:
    """What a prepared volume was made from: enough to know whether it must be made again."""

    fingerprint: str
    prepare_id: str
    input_path: str
    input_state: str
    input_sha256: str
    side_sha256: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Stored:
    """A prepared volume read back, with its provenance."""

    volume: PreparedVolume
    provenance: Provenance
    checksum: str


@dataclass(frozen=True)
class StoredFacts:
    """What the side-car of a stored volume tells; no voxel is read.

    Attributes
    ----------
    shape : tuple of int
        (I, J, K) of the prepared grid.
    spacing_mm : tuple of float
        Edges of its voxels, three decimals.
    ac : AcSlice or None
        The native slice of the anterior commissure, None where it lies outside the scan.
    """

    key: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    ac: AcSlice | None
    provenance: Provenance


def folder_name(key: str) -> str:
    """Folder of a key: legal on any file system, unique by a hash of the key.

    >>> folder_name("sub-0001_PDw")[:13]
    'sub-0001_PDw-'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", key)[:80].strip(".") or "scan"
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


class PreparedStore:
    """A folder of prepared volumes.

    Parameters
    ----------
    root : Path
        Made when the first volume is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Folder of one scan, whether it exists or not."""
        return self.root / folder_name(key)

    def provenance(self, key: str) -> Provenance | None:
        """Provenance of a stored volume, None where there is none that can be read."""
        try:
            sidecar = json.loads((self.folder(key) / SIDECAR).read_bytes())
            if sidecar["store_version"] != STORE_VERSION or sidecar["key"] != key:
                return None
            return Provenance(**sidecar["provenance"])
        except _DAMAGED:
            return None

    def keys(self) -> tuple[str, ...]:
        """Keys of the volumes that are here, sorted; a folder without a readable side-car is passed over."""
        return tuple(sorted(self._found()))

    def _found(self) -> Iterator[str]:
        try:
            folders = [entry for entry in os.scandir(self.root) if entry.is_dir()]
        except OSError:
            return
        for folder in folders:
            try:
                key = json.loads(Path(folder.path, SIDECAR).read_bytes())["key"]
            except _DAMAGED:
                continue
            if isinstance(key, str) and folder_name(key) == folder.name:
                yield key

    def holds_any(self) -> bool:
        """Whether any volume is here."""
        return next(self._found(), None) is not None

    def facts(self, key: str) -> StoredFacts:
        """Grid and provenance of a stored volume.

        Raises
        ------
        StoreError
            It is missing, of another version of this program, or its side-car cannot be read.
        """
        folder = self.folder(key)
        try:
            sidecar = json.loads((folder / SIDECAR).read_bytes())
            if sidecar["store_version"] != STORE_VERSION or sidecar["key"] != key:
                raise ValueError(f"version {sidecar['store_version']} of scan {sidecar['key']!r}")
            i, j, k = (int(n) for n in sidecar["shape"])
            edges = np.linalg.norm(_matrix(sidecar["native_from_grid"])[:3, :3], axis=0)
            ac = sidecar["ac_slice"]
            return StoredFacts(
                key=key,
                shape=(i, j, k),
                spacing_mm=(round(float(edges[0]), 3), round(float(edges[1]), 3), round(float(edges[2]), 3)),
                ac=None if ac is None else AcSlice(**ac),
                provenance=Provenance(**sidecar["provenance"]),
            )
        except _DAMAGED as error:
            raise StoreError(f"{folder}: no readable prepared volume: {error}") from error

    def mapped(
        self, key: str, shape: tuple[int, int, int]
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """Stored intensities (times `INTENSITY_STEP` they are in [0, 1]) and labels, each (I, J, K), memory-mapped.

        Checksums are not verified; `load` does that.

        Raises
        ------
        StoreError
            A file is missing or not of this shape.
        """
        folder = self.folder(key)
        try:
            volume = stored_nifti.mapped(folder / VOLUME, shape, np.uint16)
            labels = stored_nifti.mapped(folder / LABELS, shape, np.uint8)
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: no readable prepared volume: {error}") from error
        return volume.view(np.dtype("<u2")), labels.view(np.uint8)

    def save(self, volume: PreparedVolume, provenance: Provenance) -> Path:
        """Store a volume in place of an earlier one; a crash leaves the old one, the new one, or none."""
        self.root.mkdir(parents=True, exist_ok=True)
        final = self.folder(volume.key)
        fresh = temporary_beside(final)
        fresh.mkdir()
        try:
            self._fill(fresh, volume, provenance)
            if final.exists():
                stale = temporary_beside(final)
                os.rename(final, stale)
                shutil.rmtree(stale, ignore_errors=True)
            os.rename(fresh, final)
        except (FileNotFoundError, FileExistsError) as error:
            raise StoreError(f"{final}: another run is writing the same volume: {error.strerror}") from error
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise StoreError(f"{final}: another run is writing the same volume") from error
        finally:
            if fresh.exists():
                shutil.rmtree(fresh, ignore_errors=True)
        return final

    def _fill(self, folder: Path, volume: PreparedVolume, provenance: Provenance) -> None:
        stored = np.rint(np.clip(volume.intensities, 0.0, 1.0) * _SCALE).astype(np.uint16)
        blobs = {
            VOLUME: stored_nifti.encode(stored, volume.native_from_grid, slope=1.0 / _SCALE),
            LABELS: stored_nifti.encode(volume.labels, volume.native_from_grid),
        }
        sidecar = _sidecar(volume, provenance)
        sidecar["sha256"] = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
        blobs[SIDECAR] = signed(sidecar)
        blobs[PICTURES] = _zip(volume.pictures)
        for name, blob in blobs.items():
            (folder / name).write_bytes(blob)

    def restate(self, key: str, provenance: Provenance) -> None:
        """Replace the provenance of a stored volume whose input was touched but holds the same bytes."""
        path = self.folder(key) / SIDECAR
        sidecar = json.loads(path.read_bytes())
        # A damaged side-car must not get a checksum that fits it.
        if sidecar["provenance"]["fingerprint"] != provenance.fingerprint or not is_whole(sidecar):
            return
        sidecar["provenance"] = asdict(provenance)
        write_whole(path, signed(sidecar))

    def load(self, key: str) -> Stored:
        """Read a volume back, its checksums verified.

        Raises
        ------
        StoreError
            It is missing, damaged, or of another version of this program.
        """
        folder = self.folder(key)
        try:
            sidecar = json.loads((folder / SIDECAR).read_bytes())
            if not is_whole(sidecar):
                raise StoreError(f"{folder / SIDECAR}: the bytes do not match the checksum")
            blobs = {name: (folder / name).read_bytes() for name in (VOLUME, LABELS)}
            for name, blob in blobs.items():
                if hashlib.sha256(blob).hexdigest() != sidecar["sha256"][name]:
                    raise StoreError(f"{folder / name}: the bytes do not match the checksum")
            volume = _volume(sidecar, blobs)
            provenance = Provenance(**sidecar["provenance"])
        except _DAMAGED as error:
            raise StoreError(f"{folder}: no readable prepared volume: {error}") from error
        return Stored(volume, provenance, sidecar["sha256"][VOLUME])

    def save_heat(self, prediction: Prediction, checksum: str) -> None:
        """Keep heatmap and count of a volume, bound to the volume's checksum and the model."""
        heat = np.ascontiguousarray(prediction.heat)
        facts = {"model_id": prediction.model_id, "volume": checksum, "count": repr(prediction.count)}
        blob = save({"heat": heat}, metadata={**facts, "sha256": heat_checksum(facts, heat)})
        write_whole(self.folder(prediction.key) / HEAT, blob)

    def load_heat(self, key: str, model_id: str, checksum: str) -> Prediction | None:
        """Heatmap and count kept for this model and volume; None where there are none or they are damaged."""
        try:
            with safe_open(self.folder(key) / HEAT, framework="numpy") as file:
                facts = file.metadata() or {}
                if facts.get("model_id") != model_id or facts.get("volume") != checksum:
                    return None
                heat = file.get_tensor("heat")
                if facts.pop("sha256", None) != heat_checksum(facts, heat):
                    return None
                return Prediction(key, float(facts["count"]), heat, model_id)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def add_pictures(self, key: str, pictures: Mapping[str, bytes]) -> None:
        """Add pictures to those stored with the volume, in place of any of the same name."""
        merged = {**self.pictures(key), **pictures}
        write_whole(self.folder(key) / PICTURES, _zip(merged))

    def pictures(self, key: str) -> dict[str, bytes]:
        """File name to encoded picture; empty where there are none."""
        try:
            with zipfile.ZipFile(self.folder(key) / PICTURES) as archive:
                # Ours are stored as they are; what is compressed could unpack to any size.
                stored = [each for each in archive.infolist() if each.compress_type == zipfile.ZIP_STORED]
                return {each.filename: archive.read(each) for each in stored}
        except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, ValueError):
            # Damaged: what zipfile makes of it depends on the byte.
            return {}


def store_in(folder: Path) -> PreparedStore | None:
    """The store that ``folder`` is, or that it holds as ``prepared``; None where it is no prepared cohort.

    A simulated prepared cohort has its tables beside a folder ``prepared``.
    """
    for root in (folder, folder / COHORT_STORE):
        store = PreparedStore(root)
        if store.holds_any():
            return store
    return None


def _zip(pictures: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(pictures):
            archive.writestr(zipfile.ZipInfo(name), pictures[name])
    return buffer.getvalue()


def _sidecar(volume: PreparedVolume, provenance: Provenance) -> dict[str, Any]:
    return {
        "store_version": STORE_VERSION,
        "key": volume.key,
        "provenance": asdict(provenance),
        "shape": list(volume.intensities.shape),
        "regions": {str(label): name for label, name in volume.regions.items()},
        "native_from_grid": volume.native_from_grid.tolist(),
        "rigid_from_native": volume.rigid_from_native.tolist(),
        "native": {"shape": list(volume.native.shape), "affine": volume.native.affine.tolist()},
        "mni": {
            "mni_from_grid": volume.mni.mni_from_grid.tolist(),
            "offsets_mm": np.round(volume.mni.offsets_mm, 3).tolist(),
        },
        "ac_slice": None if volume.ac is None else asdict(volume.ac),
        "quality": [_known(item) for item in volume.quality],
        "facts": asdict(volume.facts),
        "notes": list(volume.notes),
    }


def _known(item: QcValue) -> dict[str, Any]:
    value = item.value if item.value is None or math.isfinite(item.value) else None
    return {"measure": item.measure, "value": value, "unit": item.unit}


def _matrix(value: object) -> FloatArray:
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"a 4x4 matrix was expected, found shape {matrix.shape}")
    return matrix


def _volume(sidecar: dict[str, Any], blobs: Mapping[str, bytes]) -> PreparedVolume:
    shape = tuple(int(n) for n in sidecar["shape"])
    if len(shape) != 3:
        raise ValueError(f"shape {shape} is not three numbers")
    intensities = stored_nifti.decode(blobs[VOLUME], shape, np.uint16).astype(np.float32)
    intensities *= INTENSITY_STEP
    native = sidecar["native"]
    i, j, k = (int(n) for n in native["shape"])
    offsets = np.asarray(sidecar["mni"]["offsets_mm"], dtype=np.float64)
    return PreparedVolume(
        key=str(sidecar["key"]),
        intensities=intensities,
        labels=stored_nifti.decode(blobs[LABELS], shape, np.uint8).astype(np.uint8),
        regions={int(label): str(name) for label, name in sidecar["regions"].items()},
        native_from_grid=_matrix(sidecar["native_from_grid"]),
        rigid_from_native=_matrix(sidecar["rigid_from_native"]),
        mni=MniMap(_matrix(sidecar["mni"]["mni_from_grid"]), offsets, shape),
        native=Grid((i, j, k), _matrix(native["affine"])),
        ac=None if sidecar["ac_slice"] is None else AcSlice(**sidecar["ac_slice"]),
        quality=tuple(QcValue(**item) for item in sidecar["quality"]),
        facts=AcquisitionFacts(**sidecar["facts"]),
        notes=tuple(sidecar["notes"]),
    )
