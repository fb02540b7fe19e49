"""The table of dependencies names what is pinned, nothing else, and says of each what the package itself says."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: SPDX licences that an older name may stand for.
_OLD_NAMES = {
    "BSD License": {"BSD-3-Clause", "BSD-2-Clause"},
    "BSD": {"BSD-3-Clause"},
    "3-Clause BSD License": {"BSD-3-Clause"},
    "MIT License": {"MIT"},
    "Apache Software License": {"Apache-2.0"},
    "Python Software Foundation License": {"PSF-2.0"},
    "ISC License (ISCL)": {"ISC"},
    "Mozilla Public License 2.0 (MPL 2.0)": {"MPL-2.0"},
}
#: Told by a file of the package, not by its metadata.
_TOLD_ELSEWHERE = {"axe-playwright-python": {"MIT"}}
#: Asked for by an extra of a package.
_BY_EXTRA = {"numpy-typing-compat"}
_NETWORK_WIDE = re.compile(r"\bAGPL|\bSSPL|\bBUSL|Proprietary|NonCommercial", re.IGNORECASE)


def normal(name: str) -> str:
    """Name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return normal(found[0])


@cache
def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


@cache
def table() -> dict[str, tuple[str, str, str]]:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    return {name: (where, why, licence) for name, where, why, licence in rows}


@cache
def direct() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {"program": project["dependencies"], "tests": project["optional-dependencies"]["test"]}
    return {where: {_required(each) for each in lines} for where, lines in asked.items()}


def test_the_table_names_what_is_pinned_and_nothing_else() -> None:
    assert sorted(table()) == sorted(pinned())


def test_every_direct_dependency_is_pinned_and_has_a_reason_in_words() -> None:
    for where, names in direct().items():
        for name in names:
            assert name in pinned()
            assert table()[name][0] == where
            assert not table()[name][1].startswith("by "), name


@pytest.mark.parametrize("name", sorted(pinned()))
def test_licence_and_version_are_what_the_package_says(name: str) -> None:
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed on this platform")
    classifiers = [
        line.split("::")[-1].strip() for line in told.get_all("Classifier") or [] if "License ::" in line
    ]
    fields = [*(told.get_all("License-Expression") or []), *(told.get_all("License") or [])]
    words = [*classifiers, *(field.split("\n")[0] for field in fields)]
    legal = {word for word in words if word}.union(*(_OLD_NAMES.get(word, set()) for word in words))
    licence = table()[name][2]
    assert licence in legal | _TOLD_ELSEWHERE.get(name, set())
    assert not _NETWORK_WIDE.search(licence)
    # A build of torch names itself behind a plus sign.
    assert metadata.version(name).partition("+")[0] == pinned()[name]


@pytest.mark.parametrize("name", sorted(set(pinned()) - direct()["program"] - direct()["tests"] - _BY_EXTRA))
def test_what_others_need_is_needed_by_them(name: str) -> None:
    users = re.findall(r"`([^`]+)`", table()[name][1])
    assert users
    for user in users:
        try:
            requires = metadata.requires(user) or []
        except metadata.PackageNotFoundError:
            continue
        assert name in {_required(each) for each in requires}, f"{user} does not need {name}"


def test_only_the_tests_have_copyleft_packages() -> None:
    for name, (where, _, licence) in table().items():
        if re.search(r"\bL?GPL|MPL", licence):
            assert where == "tests", name
