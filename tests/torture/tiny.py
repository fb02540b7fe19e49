"""A cohort of small heads, counted in a fraction of a second each: the bundled template seen coarsely, with dots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.geometry import rigid_about
from epvs_cohort.model.bundle import ModelCard, Requirements, save_bundle
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import (
    GridSettings,
    Protocol,
    QualitySettings,
    RegistrationSettings,
    load_protocol,
)

#: Covers the basal ganglia coarsely.
GRID = GridSettings(shape=(40, 32, 24), spacing_mm=(2.2, 2.2, 2.2))
VOXEL_MM = 3.0
#: Nothing is out of bounds: a neighbour of a broken scan must end as ``ok``.
PROTOCOL = Protocol(
    name="tiny",
    registration=RegistrationSettings(resolution_mm=6.0),
    grid=GRID,
    quality=QualitySettings(bounds={}),
)


@dataclass(frozen=True)
class Tiny:
    """Where the files of a small cohort lie."""

    scans: Path
    protocol: Protocol
    protocol_file: Path


def make_tiny(folder: Path, n_scans: int, seed: int = 1) -> Tiny:
    """Write ``n_scans`` heads and a model that fits them."""
    scans = folder / "scans"
    scans.mkdir(parents=True)
    for number in range(n_scans):
        nib.save(head(seed * 1000 + number), scans / f"s{number:02d}.nii.gz")
    model = make_model(folder / "model", seed=0)
    return with_protocol(scans, folder / "tiny.toml", PROTOCOL.model_copy(update={"model": str(model)}))


def with_protocol(scans: Path, file: Path, protocol: Protocol) -> Tiny:
    """The protocol as a file, for a run that is started as a command."""
    grid, registration = protocol.grid, protocol.registration
    file.write_text(
        f'name = "{protocol.name}"\nmodel = "{protocol.model}"\n'
        f"[grid]\nshape = {list(grid.shape)}\nspacing_mm = {list(grid.spacing_mm)}\n"
        f"[registration]\nresolution_mm = {registration.resolution_mm}\nseed = {registration.seed}\n"
        f"[detection]\nconnectivity = {protocol.detection.connectivity}\n"
        "[quality.bounds]\n"
    )
    assert load_protocol(str(file)) == protocol
    return Tiny(scans, protocol, file)


def head(seed: int) -> nib.Nifti1Image:
    """The template, turned and shifted a little, with noise and bright dots."""
    rng = np.random.default_rng(seed)
    atlas = load_atlas()
    shape = (60, 74, 60)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (np.array(shape) - 1) / 2 + np.array([0.0, -18.0, 8.0])
    turn = rigid_about((0, 0, 0), tuple(rng.normal(0, 0.06, 3)), tuple(rng.normal(0, 4, 3)))
    template_from_voxel = np.linalg.inv(atlas.grid.affine) @ turn @ affine
    data = ndimage.affine_transform(
        atlas.template, template_from_voxel[:3, :3], template_from_voxel[:3, 3], output_shape=shape, order=1
    )
    dots = np.zeros_like(data)
    where = ndimage.affine_transform(
        atlas.labels, template_from_voxel[:3, :3], template_from_voxel[:3, 3], output_shape=shape, order=0
    )
    inside = np.argwhere(where > 0)
    dots[tuple(inside[rng.choice(len(inside), rng.integers(2, 12), replace=False)].T)] = 1.0
    noisy = 300 * (data + dots) + rng.normal(0, 6, shape)
    return nib.Nifti1Image(np.clip(noisy, 0, None).astype(np.int16), affine)


def make_model(folder: Path, seed: int) -> Path:
    """A bundle with random positive weights."""
    torch.manual_seed(seed)
    architecture = Architecture(widths=(3, 4), convs_per_level=1)
    network = GpUnet(architecture)
    torch.nn.init.uniform_(network.last_weight, 0.1, 0.3)
    card = ModelCard(
        name="tiny",
        architecture=architecture,
        count_target="roi",
        requires=Requirements(grid=GRID),
        trained_on="nothing: random weights of a test",
        supervision="none",
        weights_sha256="0" * 64,
    )
    save_bundle(folder, card, network.eval(), "A test.\n")
    return folder
