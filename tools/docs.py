"""Build the docs site without Quarto: `python tools/docs.py` writes _docs/ and fails on any warning or dead link.

nbdev prepares the notebooks exactly as it does for Quarto; Sphinx, MyST-NB and furo render them. The sidebar is
_quarto.yml's.
"""

import contextlib
import html
import importlib
import inspect
import io
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from fastcore.docments import docments
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell
from sphinx.cmd.build import build_main

from pianoamt.reference import exported_module, public_methods, shown_name

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_docs"
THEME = Path(__file__).resolve().parent / "docs_theme"
LINKING = ("a", "link", "script", "img", "audio", "source")
COMMANDS = ("pianoamt.terminal", "pianoamt.cli")  # whose commands are called like what they do


class DocsError(Exception):
    """Something in the notebooks or in _quarto.yml that readers of the site would trip over."""


# -- the sidebar


def page_name(notebook: str) -> str:
    """The page of a notebook, named as nbdev's links name it: 03_hcqt.ipynb becomes hcqt."""
    return re.sub(r"^\d+[a-zA-Z0-9]*_", "", Path(notebook).stem.lower())


def read_sidebar() -> list[tuple[str, list[str]]]:
    """The sections of _quarto.yml's sidebar: a caption and its notebooks in order."""
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    sections: list[tuple[str, list[str]]] = []
    for entry in config["website"]["sidebar"]["contents"]:
        pages = [page if isinstance(page, str) else page["href"] for page in entry["contents"]]
        sections.append((entry["section"], pages))
    listed = [name for _, names in sections for name in names]
    there = [path.name for path in (ROOT / "nbs").glob("*.ipynb") if path.name[0] not in "._"]
    if wrong := sorted(set(listed) ^ set(there)):
        raise DocsError(f"either in _quarto.yml's sidebar or in nbs/, not in both: {wrong}")
    if len({page_name(name) for name in listed}) < len(listed):
        raise DocsError("two notebooks would become the same page")
    return sections


def toctrees(sections: list[tuple[str, list[str]]]) -> str:
    """The sidebar as Sphinx reads it, for the end of the first page."""
    parts = []
    for caption, names in sections:
        pages = [page_name(name) for name in names if page_name(name) != "index"]
        options = f":hidden:\n:caption: {caption}\n"
        if pages:
            parts.append("```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```")
    return "\n\n".join(parts)


# -- one notebook


def anchor(name: str) -> str:
    """An invisible target with the id that nbdev's links use."""
    return f'<span id="{name}" class="api-anchor"></span>'


def reference_entry(cell: nbformat.NotebookNode, level: int) -> nbformat.NotebookNode:
    """The entry that `pianoamt.reference` wrote, as prose one level below the lesson's heading."""
    text = "".join(cell.outputs[0]["data"]["text/markdown"])
    lift = level - 2  # entries are written for a lesson's second level

    def heading(match: re.Match[str]) -> str:
        return f"{anchor(match[3])}\n\n{'#' * (len(match[1]) + lift)} {match[2]}"

    return new_markdown_cell(re.sub(r"^(#+) (.*) \{#([\w.]+)\}$", heading, text, flags=re.M))


def local_links(source: str) -> str:
    """Links between pages as the site has them: nbdev's to a name of the package, and the authors' to a notebook."""

    def link(match: re.Match[str]) -> str:
        name, target = html.escape(match[1]), match[2]
        return f'<a class="reference internal" href="{target}"><code class="docutils literal">{name}</code></a>'

    source = re.sub(r"\[`([^`\]]+)`\]\((?:\./+)?(\w+\.html(?:#[^)\s]+)?)\)", link, source)
    return re.sub(
        r"\]\((?:\./)?(\w+)\.ipynb", lambda match: f"]({page_name(match[1])}.ipynb", source
    )


def last_level(source: str, level: int) -> int:
    """The level of the last heading in a markdown cell, or the level before it."""
    bare = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.M | re.S)
    headings = re.findall(r"^(#{1,6}) \S", bare, flags=re.M)
    return len(headings[-1]) if headings else level


def clean_code(cell: nbformat.NotebookNode) -> None:
    """Turn Quarto's cell options into MyST-NB's tags and leave the code that readers see."""
    options = dict(re.findall(r"^#\|\s*([\w-]+):\s*(.*?)\s*$", cell.source, flags=re.M))
    lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
    cell.source = "\n".join(lines).strip("\n")
    tags = {"remove-input": ("echo", "false"), "hide-input": ("code-fold", "true")}
    cell.metadata["tags"] = [tag for tag, (key, on) in tags.items() if options.get(key) == on]
    for output in cell.outputs:
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def convert(path: Path, tail: str) -> nbformat.NotebookNode:
    """One notebook of nbdev's as a notebook for MyST-NB: title on top, entries in prose, no directives left."""
    notebook = nbformat.read(path, as_version=4)
    cells: list[nbformat.NotebookNode] = []
    level = 1
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            front = yaml.safe_load(cell.source.strip().strip("-"))
            cell = new_markdown_cell(
                f"# {front['title']}\n\n{{.lead}}\n{front.get('description', '')}"
            )
        elif shown_name(cell):
            cell = reference_entry(cell, level)
        elif cell.cell_type == "markdown":
            if cell.source.startswith("<!-- WARNING: THIS FILE WAS AUTOGENERATED"):
                continue
            if "{#" in cell.source:  # the constants at the end
                target = r'<span id="\2" class="api-anchor"></span>\n\n\1'
                cell.source = re.sub(r"^(#+ .*) \{#([\w.]+)\}$", target, cell.source, flags=re.M)
            level = last_level(cell.source, level)
        else:
            clean_code(cell)
            if not cell.source and not cell.outputs:
                continue
        cells.append(cell)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = local_links(cell.source)
    notebook.cells = cells + ([new_markdown_cell(tail)] if tail else [])
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel}
    return notebook


def prepare(folder: Path) -> None:
    """Write the Sphinx project: nbdev's notebooks converted, settings and style beside them."""
    sections = read_sidebar()
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always", UserWarning)
        try:
            cache = proc_nbs(n_workers=0, force=True)
        except Exception as error:
            hint = "a name that is missing belongs into the hidden import cell"
            raise DocsError(f"{error}\n{error.__cause__!r}; {hint}") from error
    if problems := [str(item.message) for item in caught if item.category is UserWarning]:
        raise DocsError("nbdev warned:\n" + "\n".join(problems))
    for name in (name for _, names in sections for name in names):
        tail = toctrees(sections) if page_name(name) == "index" else ""
        notebook = convert(Path(cache) / name, tail)
        nbformat.write(notebook, folder / f"{page_name(name)}.ipynb")
    shutil.copytree(THEME, folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "nbs" / "images", folder / "images")


# -- the site


class Page(HTMLParser):
    """The ids and the links of one rendered page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids = {""}  # a link may name the page alone
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what can be linked to and what is linked."""
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.ids.add(value)
            elif key in ("href", "src") and value and tag in LINKING:
                self.links.append(value)


def drop_doubles(site: Path) -> None:
    """Remove our anchors where the heading already has the id: an id may occur once on a page."""
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'<span id="([^"]+)" class="api-anchor"></span>', text):
            if text.count(f'id="{name}"') > 1:
                text = text.replace(anchor(name), "", 1)
        path.write_text(text, encoding="utf-8")


def dead_links(site: Path) -> list[str]:
    """Links within the site whose page, file or anchor does not exist."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                dead.append(f"{path.name}: {link} leads nowhere")
            elif target in pages and unquote(parts.fragment) not in pages[target].ids:
                dead.append(f"{path.name}: {link} has no such anchor")
    return sorted(set(dead))


def modules() -> dict[str, list[str]]:
    """The modules that notebooks export, and the notebooks; a module may have two pages."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        if name := exported_module(path):
            found.setdefault(f"pianoamt.{name}", []).append(path.name)
    return found


def callables(module: ModuleType) -> list[tuple[str, Callable]]:
    """The public functions of a module, and the methods of its classes, `__init__` and `__call__` included."""
    found = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            found.append((name, value))
        is_class = inspect.isclass(value) and not getattr(value, "_is_protocol", False)
        for method, member in vars(value).items() if is_class else ():
            member = getattr(member, "__func__", member)
            is_public = method in ("__init__", "__call__") or method[0] != "_"
            if inspect.isfunction(member) and is_public:
                found.append((f"{name}.{method}", member))
    return found


def undescribed(function: Callable) -> list[str]:
    """Parameters of a function that nothing is said about."""
    parameters = inspect.signature(function).parameters.values()
    named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    try:
        told = docments(function)
    except OSError:  # what dataclasses make has no source
        return []
    return [name for name in named if name not in ("self", "cls") and not told.get(name)]


def faults(site: Path) -> list[str]:
    """Public names without an entry, without a description or with two meanings, and links that leaked into code."""
    found: list[str] = []
    places: dict[str, str] = {}
    for title, notebooks in modules().items():
        module, ids = importlib.import_module(title), set[str]()
        for notebook in notebooks:
            page = site / f"{page_name(notebook)}.html"
            ids |= Page(page).ids
            signatures = re.findall(r"<pre>.*?</pre>", page.read_text(encoding="utf-8"), flags=re.S)
            if any(re.search(r"\]\(\w+\.html#", text) for text in signatures):
                found.append(f"{page.name}: a link leaked into code")
        names = list(module.__all__)
        for cls in filter(inspect.isclass, (getattr(module, each) for each in module.__all__)):
            names += [f"{cls.__name__}.{method}" for method, _ in public_methods(cls)]
        found += [f"{title}.{each} has no entry" for each in names if each.lower() not in ids]
        for name, function in callables(module):
            found += [f"{title}.{name}: {each} is not described" for each in undescribed(function)]
        for name in module.__all__ if title not in COMMANDS else ():
            other = places.setdefault(name, title)
            found += [f"{name} is defined in {other} and {title}"] if other != title else []
    return found


def main() -> int:
    """Build the site into _docs/ and check it; 1 when a reader would meet a fault."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "source"
        source.mkdir()
        try:
            prepare(source)
        except DocsError as error:
            print(f"docs: {error}", file=sys.stderr)
            return 1
        site = Path(work) / "build" / "site"
        how = ["-q", "-W", "--keep-going", "-b", "html", "-d"]
        code = build_main([*how, f"{work}/trees", str(source), str(site)])
        if not code:
            shutil.rmtree(OUT, ignore_errors=True)
            shutil.copytree(site, OUT)
            drop_doubles(OUT)
    if code:
        return code
    found = dead_links(OUT) + faults(OUT)
    for fault in found:
        print(f"docs: {fault}", file=sys.stderr)
    print(f"docs: {len(list(OUT.glob('*.html')))} pages in {OUT.name}/, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
