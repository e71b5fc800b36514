"""What mkdocs.yml's site needs beside docs/: pages and files from elsewhere, links that lead to them, and a full menu.

Pages are written to be read in the repository: their links are relative and may leave docs/. On the site README.md is
the first page, a few others have pages too, and any other file that a page links to is copied to files/.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    "README.md": "index.md",
    "datasets/README.md": "datasets.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files outside of docs/ that have a page, and its address."""

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
"""The relative target of a link or picture, without what follows a #."""

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""Where brackets are no links."""


def links_of(text: str) -> list[str]:
    """The relative targets that a page links to."""
    return LINK.findall(CODE.sub("", text))


def linked_file(source: Path, target: str) -> Path:
    """The file or folder that a link on the page `source` leads to; PluginError if there is none."""
    path = Path(os.path.normpath(source.parent / target))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{source.relative_to(ROOT)}: the link to {target} leads nowhere")
    return path


def address(path: Path) -> str:
    """Where a file of the repository stands on the site; a folder, where its list of files does."""
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"files/{name}/index.md" if path.is_dir() else f"files/{name}"


def list_of_files(folder: Path) -> str:
    """A page that lists the files of a folder."""
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    return "\n".join([f"# {folder.relative_to(ROOT)}", "", *(f"- [{name}]({name})" for name in names), ""])


def add(files: Files, config: MkDocsConfig, path: Path) -> None:
    """Add a file, or a folder with its files, to the site unless it is there."""
    if files.get_file_from_path(address(path)) is not None:
        return
    if path.is_dir():
        files.append(File.generated(config, address(path), content=list_of_files(path)))
        for inside in (inside for inside in path.iterdir() if inside.is_file()):
            add(files, config, inside)
    else:
        files.append(File.generated(config, address(path), abs_src_path=str(path)))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in the pages from outside of docs/, and every file that a page links to."""
    for name in PAGES:
        add(files, config, ROOT / name)
    for page in files.documentation_pages():
        source = Path(page.abs_src_path or ROOT)
        for target in links_of(page.content_string):
            path = linked_file(source, target)
            if not path.is_relative_to(ROOT / "docs"):
                add(files, config, path)
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    more = [page.src_uri for page in files.documentation_pages() if page.src_uri not in named]
    listed = [name for name in more if not name.startswith("files/")]
    if listed and config.nav is not None:
        config.nav.append({"More": listed})
    for name in set(more) - set(listed):
        files.src_uris[name].inclusion = files.src_uris[name].inclusion.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    if page.file.abs_src_path is None:
        return markdown
    source = Path(page.file.abs_src_path)

    def on_the_site(match: re.Match[str]) -> str:
        return posixpath.relpath(address(linked_file(source, match[1])), posixpath.dirname(page.file.src_uri) or ".")

    parts = CODE.split(markdown)
    codes = [*CODE.findall(markdown), ""]
    return "".join(LINK.sub(on_the_site, part) + code for part, code in zip(parts, codes, strict=True))
