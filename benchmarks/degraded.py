"""Which degraded, wrong or foreign scans are counted, which flagged, which fail: one table in Markdown.

Run as ``python benchmarks/degraded.py [OUT] [--seed SEED] [--n-procs N]``. One simulated head of 1 mm voxels is
spoilt in every way that `degraded_scans` knows, beside volumes that are no head. All are counted by the default way and
by the networks that outline; the folder OUT keeps scans, tables and the table that is printed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import nibabel as nib
import pandas as pd
from degraded_scans import Spoilt, spoilt_scans

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.protocol import Protocol, RoiSettings

WAYS = {
    "networks": Protocol(),
    "atlas": Protocol(name="by-atlas", roi=RoiSettings(method="atlas")),
}
#: Flags that are named in a cell; of the rest the number is given.
NAMED = 3


def write_scans(folder: Path, scans: list[Spoilt]) -> Path:
    """Write the scans and a manifest that names them in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["scan,path"]
    for number, scan in enumerate(scans):
        name = f"{number:02d}.nii.gz"
        nib.Nifti1Image(scan.image.data, scan.image.affine).to_filename(folder / name)
        lines.append(f"{number:02d},{name}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def cell(row: pd.Series) -> str:
    """How one scan ended."""
    if row["status"] == "failed":
        return f"failed: {row['error_kind']}"
    if row["status"] == "ok":
        return f"counted: {row['count']:.1f}"
    measures = [str(flag).split()[0] for flag in row["flags"]]
    more = f" and {len(measures) - NAMED} more" if len(measures) > NAMED else ""
    return f"flagged: {row['count']:.1f} ({', '.join(measures[:NAMED])}{more})"


def table(scans: list[Spoilt], tables: dict[str, pd.DataFrame], truth: int) -> str:
    """One line a scan, one column a way, and how many ended how."""
    lines = ["| scan | " + " | ".join(WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for number, scan in enumerate(scans):
        cells = [cell(rows.loc[f"{number:02d}"]) for rows in tables.values()]
        lines.append(f"| {scan.name} | " + " | ".join(cells) + " |")
    for way, rows in tables.items():
        ended = rows["status"].value_counts()
        sums = ", ".join(f"{ended.get(name, 0)} {name}" for name in ("ok", "flagged", "failed"))
        passed = [s.name for n, s in enumerate(scans) if s.wrong and rows.loc[f"{n:02d}", "status"] == "ok"]
        lines.append(f"\n{way}: {sums}; of wrong contrasts and no heads passed as ok: {passed or 'none'}")
    lines.append(f"\nThe head holds {truth} lesions.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("out/degraded"))
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--n-procs", type=int, default=2)
    asked = parser.parse_args()
    scans, truth = spoilt_scans(asked.seed)
    shutil.rmtree(asked.out, ignore_errors=True)
    manifest = write_scans(asked.out / "scans", scans)
    cluster = ClusterChoice(n_procs=asked.n_procs, device="cpu")
    tables = {}
    for way, protocol in WAYS.items():
        request = RunRequest(manifest, asked.out / f"{way}.parquet", protocol=protocol, cluster=cluster)
        tables[way] = run_cohort(request).scans.set_index("scan")
    text = table(scans, tables, truth)
    (asked.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
