"""What the documentation shows is true of the program: links lead somewhere, TOML examples load."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from epvs_cohort.cluster_settings import ClusterSettings, load_cluster
from epvs_cohort.protocol import Protocol, load_protocol

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
EXAMPLES: list[tuple[str, Callable[[str], Protocol | ClusterSettings]]] = [
    ("protocols.md", load_protocol),
    ("clusters.md", load_cluster),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(("page", "load"), EXAMPLES, ids=lambda value: getattr(value, "__name__", value))
def test_toml_examples_load(
    page: str, load: Callable[[str], Protocol | ClusterSettings], tmp_path: Path
) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "example.toml"
        path.write_text(example, encoding="utf-8")
        assert load(str(path)).name


def test_every_setting_is_described() -> None:
    protocols = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    clusters = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    parts = [
        name for name, field in Protocol.model_fields.items() if hasattr(field.annotation, "model_fields")
    ]
    assert [part for part in parts if f"`[{part}" not in protocols] == []
    settings = set(ClusterSettings.model_fields) - {"name", "description"}
    assert [name for name in settings if f"| `{name}` |" not in clusters] == []
