"""Every file of ``pipelines/`` loads through its model, and the default protocol is spelled out in full."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from epvs_cohort.cluster_settings import ClusterSettings, load_cluster
from epvs_cohort.errors import ProtocolError
from epvs_cohort.protocol import Protocol, load_protocol, pipelines_dir
from epvs_cohort.train.recipe import AnyRecipe, load_recipe

LOADERS: dict[str, Callable[[str], Protocol | ClusterSettings | AnyRecipe]] = {
    "protocols": load_protocol,
    "clusters": load_cluster,
    "recipes": load_recipe,
}
FILES = [(kind, path) for kind in LOADERS for path in sorted((pipelines_dir() / kind).glob("*.toml"))]


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_file_loads_and_is_named_after_itself(kind: str, path: Path) -> None:
    by_name = LOADERS[kind](path.stem)
    assert by_name.name == path.stem
    assert by_name.description
    assert LOADERS[kind](str(path)) == by_name


def test_default_protocol_is_spelled_out() -> None:
    path = pipelines_dir() / "protocols" / "rotterdam-basal-ganglia.toml"
    spelled_out = tomllib.loads(path.read_text(encoding="utf-8"))
    assert spelled_out == Protocol().model_dump(mode="json", exclude_none=True)
    assert load_protocol("rotterdam-basal-ganglia").protocol_id == Protocol().protocol_id


def test_unknown_name_lists_what_is_bundled() -> None:
    with pytest.raises(ProtocolError, match="'slurmm' is neither a bundled name nor a file") as caught:
        load_cluster("slurmm")
    assert "local" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("n_procs = 0", "n_procs"),
        ("gpus = -1", "gpus"),
        ('memory_limit = "8 gigs"', "memory_limit"),
        ("threads = 1.5", "threads"),
        ('n_procs = "all"', "n_procs"),
        ("workers = 4", "workers"),
    ],
)
def test_illegal_cluster_setting_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(f'name = "lab"\n{line}\n', encoding="utf-8")
    with pytest.raises(ProtocolError, match=said) as caught:
        load_cluster(str(path))
    assert str(path) in caught.value.message


def test_networks_that_outline_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('name = "study"\n[roi]\nmethod = "network"\n', encoding="utf-8")
    shipped = load_protocol(str(path))
    assert (shipped.roi.head_model, shipped.roi.near_model) == (None, None)
    path.write_text('name = "study"\n[roi]\nmethod = "network"\nnear_model = "net"\n', encoding="utf-8")
    own = load_protocol(str(path))
    assert own.roi.near_model == "net"
    # What a network is counts, not where it lies; its hash goes in beside.
    assert (own.prepare_id, own.protocol_id) == (shipped.prepare_id, shipped.protocol_id)


def test_auto_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text('name = "lab"\nn_procs = "auto"\ngpus = 2\nmemory_limit = "7.5GiB"\n', encoding="utf-8")
    assert load_cluster(str(path)) == ClusterSettings(name="lab", gpus=2, memory_limit="7.5GiB")
    assert load_cluster(str(path)).n_procs is None
