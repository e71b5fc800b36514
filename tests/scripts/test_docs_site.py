"""The documentation site is built as `mkdocs build --strict` does: no dead link, every page in the menu."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
pytest.importorskip("material", reason="the extra [docs] is not installed")
pytest.importorskip("mkdocstrings", reason="the extra [docs] is not installed")

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [path.relative_to(PROJECT / "docs").with_suffix("") for path in (PROJECT / "docs").rglob("*.md")]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "-d", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=config.parent, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(PROJECT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_menu_of_the_first_page_leads_to_every_page(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    menu = set(re.findall(r'href="([^"#]+)/"', first))
    assert menu >= {str(page) for page in PAGES} | {"datasets", "contributing", "changelog"}


def test_links_within_the_site_lead_to_files(site: Path) -> None:
    """Once more, on what was made: mkdocs does not look at links that the hook turned into files."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links begin at the root of wherever the site will stand
            continue
        for target in re.findall(r'(?:href|src)="([^"#?:]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"


def test_files_of_the_project_are_on_the_site(site: Path) -> None:
    recipe = "options/train/x2.yml"
    assert (site / "files" / recipe).read_bytes() == (PROJECT / recipe).read_bytes()
    assert f"files/{recipe}" in (site / "model_card" / "index.html").read_text(encoding="utf-8")


def test_the_page_on_python_has_the_docstrings(site: Path) -> None:
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "Architecture, scale and all hyperparameters are read off the weights." in page
    for name in ("load_model", "build_network", "ss2d_scan", "imresize", "calculate_psnr"):
        assert re.search(rf'id="mambair\.[\w.]*{name}"', page), name


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    """Headings by mkdocs itself, which goes by mkdocs.yml; files by scripts/docs_site.py."""
    for name in ("docs", "datasets", "options", "examples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/docs_site.py", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "mambair").symlink_to(PROJECT / "mambair")
    page = tmp_path / "docs" / "page.md"
    page.write_text("# A page\n\nSee [this](tasks.md#no-such-heading).\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "no-such-heading" in done.stderr
    page.write_text("# A page\n\nSee [this](gone.md).\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "docs/page.md: the link to gone.md leads nowhere" in done.stderr
