"""The house stands as the design drew it: who imports whom, what is light, what travels in the wheel, how long a file may be."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "contrapose"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

LIGHT = {"pydantic", "rich", "typer"}  # what a command may need before it has anything to do
LINES = 400


def distribution(requirement: str) -> str:
    """ "Lightning_Fabric[all]>=2.5" → "lightning-fabric"."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def declared(*, extras: bool = True) -> set[str]:
    """The distributions that pyproject.toml names for users: the dependencies, and the extras but for docs and dev."""
    optional = PROJECT["optional-dependencies"].items() if extras else ()
    requirements = [
        *PROJECT["dependencies"],
        *(each for name, group in optional if name not in ("docs", "dev") for each in group),
    ]
    return {distribution(each) for each in requirements} - {"contrapose"}


def distributions_of(modules: set[str]) -> dict[str, set[str]]:
    """Installed third-party modules by name, each with the distributions that bring it; the standard library and our own left out."""
    known = packages_distributions()
    third_party = modules - sys.stdlib_module_names - {"contrapose"}
    return {name: {distribution(each) for each in known.get(name, [])} for name in third_party}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "contrapose", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def test_import_rules_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("part", ["objectives", "geometry", "hardness", "negatives"])
def test_mathematics_needs_torch_alone(graph: grimp.ImportGraph, part: str) -> None:
    needed = {name.partition(".")[0] for name in graph.find_upstream_modules(f"contrapose.{part}", as_package=True)}
    # by mining alone; by the kernels alone, on a GPU
    asked_for_when_called = {"negatives": {"faiss", "triton"}}.get(part, {"triton"})
    assert needed - sys.stdlib_module_names - {"contrapose"} <= {"torch"} | asked_for_when_called


def test_every_imported_package_is_declared(graph: grimp.ImportGraph) -> None:
    external = {name for name in graph.modules if graph.is_module_squashed(name)}
    # pandas is handed in by the user, or not at all; triton comes with the builds of torch for GPUs
    offered = declared() | {"pandas", "sentence-transformers", "triton"}
    missing = {
        name for name, brought_by in distributions_of(external).items() if brought_by and not brought_by & offered
    }
    assert not missing, f"imported under src/, and not named in pyproject.toml: {sorted(missing)}"


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()], (
        "the import rules do not see these"
    )


@pytest.mark.parametrize(
    "program",
    [
        "import contrapose",
        *(
            f"import sys; sys.argv = {['contrapose', *words]}; from contrapose.cli import main; main()"
            for words in (["--help"], ["train", "--help"], ["methods"], ["reproduce"])
        ),
    ],
)
def test_light_paths_load_nothing_heavy(program: str) -> None:
    """In a process of its own: the modules loaded are written to stderr on the way out."""
    watched = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {program}"
    run = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    loaded = {name.partition(".")[0] for name in run.stderr.split()}
    heavy = {name for name, brought_by in distributions_of(loaded).items() if brought_by & (declared() - LIGHT)}
    assert not heavy, f"{program!r} loads {sorted(heavy)}"


@pytest.mark.parametrize(
    "path",
    sorted(SOURCE.rglob("*.py")),
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_file_is_short_enough(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def test_wheel_holds_the_sample_and_no_benchmark_data(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    samples = sorted(path.relative_to(SOURCE.parent).as_posix() for path in (SOURCE / "samples").rglob("*.jsonl.gz"))
    assert samples
    assert set(samples) <= set(files)
    assert {Path(name).parts[0].partition("-")[0] for name in files} == {"contrapose"}
