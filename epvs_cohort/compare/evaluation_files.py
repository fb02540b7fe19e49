"""The files of an evaluation: each table as Parquet and as CSV, and a record of what was compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import epvs_cohort
from epvs_cohort.compare.evaluate import Evaluation
from epvs_cohort.data.files import require_folder, whole_file, write_whole
from epvs_cohort.data.tables import METADATA_KEY
from epvs_cohort.errors import UsageError

#: Says what an evaluation is of; a folder that holds one may be written again.
RECORD_FILE: Final = "evaluation.json"
#: Names of the tables without ending.
TABLES: Final = ("figures", "scans", "lesions", "froc", "rescan")


def check_folder(out: Path) -> None:
    """Check that a folder may be written to: new, empty, or of an earlier evaluation.

    Raises
    ------
    UsageError
        It holds something else, or cannot be written.
    """
    require_folder(out)
    if out.is_dir() and not (out / RECORD_FILE).is_file() and any(out.iterdir()):
        raise UsageError(
            f"{out}: holds files, and none of them is {RECORD_FILE}; a new folder, an empty one, or that of an earlier "
            "evaluation is legal"
        )


def tables_of(evaluation: Evaluation) -> dict[str, pd.DataFrame]:
    """Tables by name; those of what was not asked for are not there."""
    tables = {"figures": evaluation.figures, "scans": evaluation.scans}
    if evaluation.lesions is not None:
        tables |= {"lesions": evaluation.lesions.table(), "froc": evaluation.lesions.curve()}
    if evaluation.second is not None:
        tables["rescan"] = evaluation.second.table()
    return tables


def write_evaluation(out: Path, evaluation: Evaluation, inputs: Mapping[str, str]) -> list[Path]:
    """Write tables and record, each whole; tables of an earlier evaluation that this one has not are removed.

    Parameters
    ----------
    out : Path
        Checked by `check_folder`.
    inputs : mapping of str to str
        Options and the files they named.

    Returns
    -------
    list of Path
        Files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = tables_of(evaluation)
    for name in TABLES:
        if name not in tables:
            for ending in (".parquet", ".csv"):
                (out / f"{name}{ending}").unlink(missing_ok=True)
    record = _record(evaluation, inputs)
    written = []
    for name, frame in tables.items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        about = json.dumps({**record, "table": f"evaluation {name}"}).encode()
        path = out / f"{name}.parquet"
        with whole_file(path) as temporary:
            pq.write_table(
                table.replace_schema_metadata({METADATA_KEY: about}), temporary, compression="zstd"
            )
        text = StringIO()
        frame.to_csv(text, index=False, lineterminator="\n")
        write_whole(path.with_suffix(".csv"), text.getvalue().encode())
        written += [path, path.with_suffix(".csv")]
    write_whole(out / RECORD_FILE, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return [*written, out / RECORD_FILE]


def _record(evaluation: Evaluation, inputs: Mapping[str, str]) -> dict[str, Any]:
    about = evaluation.about
    kept = ("count_target", "method", "model_id", "protocol_id", "trained_on", "version")
    return {
        "epvs_cohort_version": epvs_cohort.__version__,
        "inputs": dict(inputs),
        "settings": asdict(evaluation.settings),
        "counted_with": {name: about.get(name) for name in kept},
        "reference": evaluation.reference,
        "notes": [{"what": note.words, "names": list(note.names)} for note in evaluation.notes],
    }
