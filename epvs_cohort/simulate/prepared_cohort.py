"""Simulated scans straight on the prepared grid, with the errors of a real preparation, into a prepared store."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from epvs_cohort.data.atlas import REGIONS
from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.errors import ProtocolError
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid
from epvs_cohort.prepare.mask import SoftMask, soft_mask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import Protocol, RoiSettings, digest
from epvs_cohort.records import AcSlice, Float32Array, LabelArray, MniMap, PreparedVolume
from epvs_cohort.simulate.anatomy import Anatomy, regions_of
from epvs_cohort.simulate.bids import STATEMENT, Entry, ScanTruth, facts_of, scan_truth
from epvs_cohort.simulate.heads import Acquisition, Look, Person, View, ac_truth, draw_view
from epvs_cohort.simulate.lesions import LesionSpec, fluid_fraction
from epvs_cohort.simulate.mimics import Mimics, paint_mimics
from epvs_cohort.simulate.noise import interpolated_rician
from epvs_cohort.simulate.placement import mistaken_roi
from epvs_cohort.simulate.prepared import RESIDUAL_DEG, RESIDUAL_MM, ROI_ERROR, painted
from epvs_cohort.simulate.scanner import Scanner, bias_field, blur, ghosted
from epvs_cohort.simulate.warp import Placed, Warp, inverse_of, random_rigid
from epvs_cohort.simulate.windows import TRUE_OUTLINE_SHARE

#: Folder of the store in a data set.
STORE_FOLDER = "prepared"

#: Standard deviation in mm of the anterior commissure's height as a preparation finds it.
AC_ERROR_MM = 1.0

#: Nodes of the map to MNI lie about so many mm apart.
MNI_NODE_MM = 10.0


@dataclass(frozen=True)
class PreparedScan:
    """One scan as a preparation would leave it, and the truth about it in native RAS mm.

    Attributes
    ----------
    volume : PreparedVolume
        Without key and acquisition facts. Its ``ac`` is the slice that a preparation finds, or the true one (see
        `Preparation`).
    lesions : tuple of LesionSpec
    crossings_mm : tuple
        For each lesion the middle of its part within the true AC slice, shape (3,), or None.
    scanner : Scanner
    """

    volume: PreparedVolume
    lesions: tuple[LesionSpec, ...]
    crossings_mm: tuple[FloatArray | None, ...]
    scanner: Scanner


@dataclass(frozen=True)
class Preparation:
    """How prepared scans are drawn: the geometry of the scan that they stand for, and the study's settings.

    Attributes
    ----------
    acquisition : Acquisition
    protocol : Protocol
    true_slice : bool
        The slice of the commissure is the true one, as a manifest's ``ac_slice`` names it, and not one that a
        preparation finds.
    """

    acquisition: Acquisition
    protocol: Protocol
    true_slice: bool = False


@dataclass(frozen=True)
class Origin:
    """What prepared volumes of a cohort were drawn by.

    Attributes
    ----------
    drawn_by : str
        Hash of settings and seed.
    prepare_id : str
        `Protocol.prepare_id` of the protocol whose grid, mask and trim they follow.
    """

    drawn_by: str
    prepare_id: str


def check_protocol(protocol: Protocol) -> None:
    """Check that the region of a protocol is the one that lesions are simulated in.

    Raises
    ------
    ProtocolError
        ``roi.regions`` leaves structures out.
    """
    structures = {name.split(" ", 1)[1] for name in REGIONS.values()}
    if missing := sorted(structures - set(protocol.roi.regions)):
        raise ProtocolError(
            f"roi.regions: {', '.join(missing)} not among {', '.join(protocol.roi.regions)}; prepared volumes "
            "are simulated of all the basal ganglia",
            hint="simulate whole heads and prepare them with this protocol",
        )


def preparation_settings(protocol: Protocol, *, true_slice: bool = False) -> dict[str, object]:
    """What prepared volumes depend on beyond people and scanners, for the record beside them."""
    return {
        "protocol": protocol.model_dump(mode="json", include={"roi", "grid", "trim"}),
        "residual_deg": RESIDUAL_DEG,
        "residual_mm": RESIDUAL_MM,
        "roi_error": asdict(ROI_ERROR),
        "true_outline_share": TRUE_OUTLINE_SHARE,
        "ac_error_mm": 0.0 if true_slice else AC_ERROR_MM,
        "mni_node_mm": MNI_NODE_MM,
    }


def scan_prepared(
    rng: np.random.Generator,
    person: Person,
    lesions: list[LesionSpec],
    how: Preparation,
    look: Look | None = None,
) -> PreparedScan:
    """Draw what preparing a scan of a person would give.

    Pose, field of view and contrast are those of `heads.scan_person` for the same state of ``rng``. Tissue is drawn
    on the prepared grid, noise on the native one and interpolated as a scan is.

    Parameters
    ----------
    look : Look, optional
        Contrast, blur and noise level of an earlier scan on the same scanner, in place of drawn ones.
    """
    view = draw_view(rng, person, how.acquisition)
    if look is not None:
        view = view.on_scanner_of(look)
    # What registration leaves: the scan's rigid frame is not quite upright.
    rigid_from_person = random_rigid(rng, person.roi_center_mm, RESIDUAL_DEG, RESIDUAL_MM)
    grid = centered_grid(how.protocol.grid.shape, how.protocol.grid.spacing_mm, person.roi_center_mm)
    canvas = _Canvas(person, view, grid, rigid_from_person)
    image, regions = _image(rng, canvas, lesions)
    mask = _mask(rng, regions, grid, how.protocol.roi)
    native_from_grid = view.native_from_person @ inverse_of(rigid_from_person) @ grid.affine
    voxel_from_grid = inverse_of(view.grid.affine) @ native_from_grid
    noisy = interpolated_rician(rng, image, view.look.scanner.noise_sigma, voxel_from_grid, mask.weight > 0)
    trimmed = trim(noisy, mask, how.protocol.trim)
    moved = tuple(lesion.moved(view.native_from_person) for lesion in lesions)
    ac, crossings = ac_truth(apply_affine(view.native_from_person, person.ac_mm), view.grid, moved)
    volume = PreparedVolume(
        key="",
        intensities=trimmed.intensities,
        labels=mask.labels,
        regions=REGIONS,
        native_from_grid=native_from_grid,
        rigid_from_native=rigid_from_person @ inverse_of(view.native_from_person),
        mni=_mni_map(person.anatomy, person.warp, Placed(grid, inverse_of(rigid_from_person))),
        native=view.grid,
        ac=ac if how.true_slice else _found_slice(rng, ac, view.grid),
        quality=(),
        notes=(STATEMENT,),
    )
    return PreparedScan(volume, moved, crossings, view.look.scanner)


def write_prepared(out: Path, entry: Entry, scan: PreparedScan, origin: Origin) -> ScanTruth:
    """Write one prepared scan into the store of a data set; return its rows."""
    volume = replace(scan.volume, key=entry.scan, facts=facts_of(entry, scan.scanner))
    name = {"simulated": origin.drawn_by, "person": entry.number, "visit": entry.visit}
    provenance = Provenance(
        fingerprint=digest(name),
        prepare_id=origin.prepare_id,
        input_path=f"no file: simulated, person {entry.number}, visit {entry.visit}",
        input_state="simulated",
        input_sha256=hashlib.sha256(np.ascontiguousarray(volume.intensities).tobytes()).hexdigest(),
        side_sha256={},
        # The same seed gives the same bytes, so the time it took is not told.
        seconds=0.0,
    )
    PreparedStore(out / STORE_FOLDER).save(volume, provenance)
    return scan_truth(entry, scan.lesions, scan.crossings_mm)


@dataclass(frozen=True)
class _Canvas:
    """Where a scan is drawn: ``grid`` lies in the rigid frame."""

    person: Person
    view: View
    grid: Grid
    rigid_from_person: FloatArray


def _image(
    rng: np.random.Generator, canvas: _Canvas, lesions: list[LesionSpec]
) -> tuple[Float32Array, LabelArray]:
    """Intensities relative to white matter, without noise, and the true regions."""
    person, grid, frame = canvas.person, canvas.grid, canvas.rigid_from_person
    tissue, scanner = canvas.view.look.tissue, canvas.view.look.scanner
    sigma = scanner.psf_sigma_mm
    mean, labels = painted(rng, person.anatomy, person.warp, Placed(grid, inverse_of(frame)), tissue)
    mimics = Mimics(
        tuple(m.moved(frame) for m in person.mimics.bright),
        tuple(m.moved(frame) for m in person.mimics.soft),
        tuple(m.moved(frame) for m in person.mimics.dark),
    )
    image = paint_mimics(blur(mean, grid, sigma), grid, tissue.fluid, mimics, sigma)
    own = [lesion.moved(frame) for lesion in lesions]
    image += fluid_fraction(own, grid, psf_sigma_mm=sigma) * (np.float32(tissue.fluid) - image)
    image *= bias_field(rng, grid, scanner.bias)
    return ghosted(image, grid, scanner), regions_of(labels)


def _mask(rng: np.random.Generator, regions: LabelArray, grid: Grid, settings: RoiSettings) -> SoftMask:
    """Mask from an outline that errs as the atlas does, or, as a side file brings it, does not."""
    outlined = mistaken_roi(rng, regions, grid, ROI_ERROR)
    given = rng.random() < TRUE_OUTLINE_SHARE
    if settings.method == "atlas":
        given = False
    elif settings.method != "auto":
        given = True
    everywhere = np.ones(grid.shape, dtype=np.bool_)
    return soft_mask(regions if given else outlined, grid.spacing_mm, settings, everywhere)


def _found_slice(rng: np.random.Generator, ac: AcSlice | None, native: Grid) -> AcSlice | None:
    off = int(np.rint(rng.normal(0.0, AC_ERROR_MM) / native.spacing_mm[0 if ac is None else ac.axis]))
    if ac is None or not 0 <= ac.index + off < native.shape[ac.axis]:
        return ac
    return replace(ac, index=ac.index + off)


def _mni_map(anatomy: Anatomy, warp: Warp, placed: Placed) -> MniMap:
    """Map to MNI by the person's own shape, at nodes; the affine part is the least-squares fit to them."""
    shape = placed.grid.shape
    counts = [
        max(2, round((n - 1) * s / MNI_NODE_MM) + 1)
        for n, s in zip(shape, placed.grid.spacing_mm, strict=True)
    ]
    spots = [np.linspace(0.0, n - 1.0, c) for n, c in zip(shape, counts, strict=True)]
    nodes = np.stack(np.meshgrid(*spots, indexing="ij"), axis=-1)
    person_mm = apply_affine(placed.person_from_world @ placed.grid.affine, nodes)
    mni_mm = apply_affine(inverse_of(anatomy.anatomy_from_mni), warp(person_mm))
    design = np.column_stack([nodes.reshape(-1, 3), np.ones(nodes.size // 3)])
    solution, *_ = np.linalg.lstsq(design, mni_mm.reshape(-1, 3), rcond=None)
    affine = np.eye(4)
    affine[:3, :] = solution.T
    return MniMap(affine, mni_mm - apply_affine(affine, nodes), shape)
