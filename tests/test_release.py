"""What is released: an sdist, the wheel that `python -m build` makes of it, and a wheel that works alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("seqrec", "training", "index", "service", "retraining", "benchmarks")
BESIDES = ("data", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")


def build(kind: str, source: Path, out: Path) -> Path:
    """`python -m build --no-isolation` without the package `build`."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [made] = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, so that the sdist has all it needs."""
    pytest.importorskip("setuptools", minversion="77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*PACKAGES, *BESIDES):
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, source)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build("sdist", source, out)) as archive:
        archive.extractall(unpacked, filter="data")
    [folder] = unpacked.iterdir()
    return build("wheel", folder, out)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip lays it out."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, directory: Path, *command: str) -> str:
    """A Python with the wheel, in a directory of the test."""
    environment = os.environ | {"PYTHONPATH": str(installed), "SEQREC_PORT": "0"}
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_every_file(root: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {path.relative_to(root) for package in PACKAGES for path in (root / package).rglob("*.py")}
    for folder in (root / "service" / "console", root / "training" / "config" / "presets"):
        wanted |= {path.relative_to(root) for path in folder.rglob("*") if path.is_file()}
    wanted |= {Path("seqrec", "demo_data", path.name) for path in (root / "data" / "online-retail").iterdir()}
    wanted = {path for path in wanted if "__pycache__" not in path.parts}
    assert {str(path) for path in wanted} - names == set()
    assert [name for name in names if name.startswith(("tests/", "data/", "docs/"))] == []


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    assert str(installed) in run(installed, tmp_path, "-c", "import seqrec; print(seqrec.__file__)")
    assert "usage: seqrec COMMAND" in run(installed, tmp_path, "-m", "seqrec", "--help")
    assert "0 errors" in run(installed, tmp_path, "-m", "seqrec", "doctor")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_shop_is_set_up_and_presets_are_read_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    """`-I` hides the checkout and the environment: all that is imported and read is in the wheel or a dependency."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(installed)!r})\n"
        "from pathlib import Path\n"
        "import seqrec, service, training\n"
        "from seqrec.cli import main\n"
        "from seqrec.demo import DATA\n"
        "from training.config.load import load_config, preset_path\n"
        "presets = sorted(preset_path('demo').parent.glob('*.toml'))\n"
        "models = {load_config(path).model.name for path in presets}\n"
        "assert {'recformer', 'sasrec'} <= models, models\n"
        "page = Path(service.__file__).with_name('console') / 'index.html'\n"
        "homes = {Path(one.__file__).parent.parent for one in (seqrec, service, training)} | {page.parents[2]}\n"
        f"assert homes == {{Path({str(installed)!r})}}, homes\n"
        "assert page.is_file()\n"
        "items, events = (str(DATA / name) for name in ('items.jsonl.gz', 'interactions.csv.gz'))\n"
        "main(['init', '--items', items, '--events', events])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3,145" in done.stdout
    assert (tmp_path / "shop.toml").is_file()


@pytest.mark.slow
def test_the_console_comes_from_the_wheel(root: Path, installed: Path, tmp_path: Path) -> None:
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from starlette.testclient import TestClient\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "from index.catalogue.open import open_catalogue\n"
        "open_catalogue(Path('home'), create=True).close()\n"
        "with TestClient(create_app(Settings(home='home'))) as client:\n"
        "    page = client.get('/')\n"
        "    assert page.status_code == 200\n"
        "    for path in re.findall(r'(?:src|href)=\"(/?static/[^\"]+)', page.text):\n"
        "        assert client.get(path).status_code == 200, path\n"
        "        print(path)\n"
    )
    assert len(run(installed, tmp_path, "-c", code).splitlines()) >= 2


@pytest.mark.slow
def test_the_demo_s_shop_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    place = run(installed, tmp_path, "-c", "from seqrec.demo import DATA; print(DATA)").strip()
    assert place == str(installed / "seqrec" / "demo_data")
    code = (
        "import seqrec.demo as demo\n"
        "up = demo.up\n"
        "demo.up = lambda project, fresh: up(project, fresh, until='import')\n"
        "demo.main([])\n"
    )
    assert "3,145" in run(installed, tmp_path, "-c", code)
    assert [path.name for path in tmp_path.iterdir()] == ["var"]
    assert (tmp_path / "var" / "demo" / "data" / "items.jsonl").is_file()


def test_there_is_one_version(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE)
    written = [
        path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if re.search(r"^__version__ = [\"']", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert written == []


def test_the_contributing_guide_and_the_issue_forms(root: Path) -> None:
    guide = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)\)", guide):
        assert (root / link).exists(), link
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", guide)) - {"sure"} <= set(targets)
    forms = list((root / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 3
    yaml = pytest.importorskip("yaml")
    for form in forms:
        read = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert form.name == "config.yml" or {"name", "description", "body"} <= set(read)
    assert yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["license"] == "Apache-2.0"
