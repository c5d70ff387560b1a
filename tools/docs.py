"""Build the docs site without Quarto: `python tools/docs.py` writes _docs/ and fails on any warning or dead link.

nbdev prepares the notebooks exactly as it does for Quarto; Sphinx, MyST-NB and furo render them. The sidebar is
_quarto.yml's.
"""

import ast
import contextlib
import html
import importlib
import inspect
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
import textwrap
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from fastcore.docments import docments
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell
from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_docs"
THEME = Path(__file__).resolve().parent / "docs_theme"
COMMANDS = ("pianoamt.terminal", "pianoamt.cli")  # whose commands are called like what they do


class DocsError(Exception):
    """Something in the notebooks or in _quarto.yml that readers of the site would trip over."""


# -- the sidebar


def page_name(notebook: str) -> str:
    """The page of a notebook, named as nbdev's links name it: 03_hcqt.ipynb becomes hcqt."""
    return re.sub(r"^\d+[a-zA-Z0-9]*_", "", Path(notebook).stem.lower())


def read_sidebar() -> list[tuple[str, list[str]]]:
    """The sections of _quarto.yml's sidebar: a caption, empty at the top level, and its notebooks in order."""
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    sections: list[tuple[str, list[str]]] = []
    for entry in config["website"]["sidebar"]["contents"]:
        if isinstance(entry, dict):
            sections.append((entry["section"], list(entry["contents"])))
        elif sections and not sections[-1][0]:
            sections[-1][1].append(entry)
        else:
            sections.append(("", [entry]))
    listed = [name for _, names in sections for name in names]
    there = sorted(path.name for path in (ROOT / "nbs").glob("*.ipynb") if path.name[0] not in "._")
    if missing := [name for name in listed if name not in there]:
        raise DocsError(f"_quarto.yml lists notebooks that do not exist: {' '.join(missing)}")
    if unlisted := [name for name in there if name not in listed]:
        raise DocsError(f"_quarto.yml's sidebar leaves out notebooks: {' '.join(unlisted)}")
    pages = [page_name(name) for name in listed]
    if twice := [name for name in listed if pages.count(page_name(name)) > 1]:
        raise DocsError(f"notebooks that would become the same page: {' '.join(twice)}")
    return sections


def toctrees(sections: list[tuple[str, list[str]]]) -> str:
    """The sidebar as Sphinx reads it, for the end of the first page."""
    parts = []
    for caption, names in sections:
        pages = [page_name(name) for name in names if page_name(name) != "index"]
        options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
        if pages:
            parts.append("```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```")
    return "\n\n".join(parts)


# -- one notebook


def anchor(name: str) -> str:
    """An invisible target with the id that nbdev's links use."""
    return f'<span id="{name.lower()}" class="api-anchor"></span>'


def source_of(obj: object) -> str:
    """The source of a function or class, flush left."""
    return textwrap.dedent(inspect.getsource(obj)).rstrip()


def header(source: str) -> str:
    """The head of a function, as written: its name and its parameters with their comments, down to the colon."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    first = min(
        node.body[0].lineno,
        *(part.lineno for part in getattr(node.body[0], "decorator_list", [node.body[0]])),
    )
    lines = source.splitlines()[: first - 1]
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return "\n".join(lines) or source.splitlines()[0]


def class_header(source: str) -> str:
    """The head of a class: its first line, then its described fields, or else the head of its `__init__`."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.ClassDef)
    lines = source.splitlines()
    shown = lines[node.lineno - 1 - len(node.decorator_list) : node.lineno]
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    inits = [
        part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"
    ]
    for part in fields if not inits else []:
        shown += lines[part.lineno - 1 : part.end_lineno]
    for part in inits:
        text = textwrap.dedent("\n".join(lines[part.lineno - 1 : part.end_lineno]))
        shown += textwrap.indent(header(text), "    ").splitlines()
    return "\n".join(shown)


def entry(obj: object, name: str, level: int) -> str:
    """Heading, described signature, docstring and folded source of one public name (a method's is its class's)."""
    source = source_of(obj)
    signature = class_header(source) if inspect.isclass(obj) else header(source)
    parts = [anchor(name), f"{'#' * level} `{name}`", f"```python\n{signature}\n```"]
    parts.append(NbdevLookup().linkify(inspect.getdoc(obj) or ""))
    fold = '<details class="api-source"><summary>Source</summary>'
    parts.append(f"{fold}\n\n```python\n{source}\n```\n\n</details>" if "." not in name else "")
    return "\n\n".join(part for part in parts if part)


def public_methods(cls: type) -> list[tuple[str, object]]:
    """The methods and properties that a class itself defines for its users, with a docstring."""
    found = []
    for name, value in vars(cls).items():
        target = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if (
            name[0] != "_"
            and inspect.isfunction(target)
            and target.__doc__
            and target.__module__ == cls.__module__
        ):
            found.append((name, target))
    return found


def load(name: str) -> ModuleType:
    """A module of the package, with what it imports for type checkers only, so that signatures can be read."""
    module = importlib.import_module(name)
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            exec(compile(ast.Module(node.body, []), name, "exec"), vars(module))
    return module


def api_cell(module: ModuleType, name: str, level: int) -> str:
    """The whole entry of an exported function or class, a class with its public methods below it."""
    obj = getattr(module, name)
    parts = [entry(obj, name, level)]
    if inspect.isclass(obj):
        for method, target in public_methods(obj):
            parts.append(entry(target, f"{name}.{method}", min(level + 1, 6)))
    return "\n\n".join(parts)


def constants(module: ModuleType, documented: set[str], level: int) -> str:
    """A section for the public names that are neither functions nor classes, as the module assigns them."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    statements = {}
    for node in ast.parse(source).body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        for name in (
            part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
        ):
            statements[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    rest = [name for name in module.__all__ if name not in documented]
    if unknown := [name for name in rest if name not in statements]:
        raise DocsError(f"{module.__name__}: no page shows {' '.join(unknown)}")
    if not rest:
        return ""
    parts = [f"{'#' * level} Constants"]
    for name in rest:
        parts.append(
            f"{anchor(name)}\n\n{'#' * (level + 1)} `{name}`\n\n```python\n{statements[name]}\n```"
        )
    return "\n\n".join(parts)


SHOW_DOC = re.compile(r"^show_doc\(\s*([\w.]+)", flags=re.M)


def shown_name(cell: nbformat.NotebookNode) -> str:
    """The name that a show_doc cell shows, '' for any other cell."""
    match = SHOW_DOC.search(cell.source) if cell.cell_type == "code" else None
    return match.group(1) if match else ""


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
    cell.source = "\n".join(
        line for line in cell.source.splitlines() if not re.match(r"#\|", line)
    ).strip("\n")
    tags = []
    if options.get("echo") == "false":
        tags.append("remove-input")
    if options.get("code-fold") == "true":
        tags.append("hide-input")
    cell.metadata["tags"] = tags
    for output in cell.outputs:
        if "data" in output:
            widget = "application/vnd.jupyter.widget-view+json"
            output.data.pop(widget, None)


def in_order(cells: list[nbformat.NotebookNode], names: list[str]) -> list[nbformat.NotebookNode]:
    """The cells with every run of entries in the order of definition; nbdev turns the names of one cell round."""
    ordered: list[nbformat.NotebookNode] = []
    place = {name: number for number, name in enumerate(names)}
    for _, run in itertools.groupby(cells, key=lambda cell: bool(shown_name(cell))):
        ordered += sorted(run, key=lambda cell: place.get(shown_name(cell), 0))
    return ordered


def convert(path: Path, module_name: str | None, tail: str) -> nbformat.NotebookNode:
    """One notebook of nbdev's as a notebook for MyST-NB: title on top, API entries in prose, no directives left."""
    notebook = nbformat.read(path, as_version=4)
    module = load(module_name) if module_name else None
    cells: list[nbformat.NotebookNode] = []
    documented: set[str] = set()
    level = 1
    for cell in in_order(notebook.cells, module.__all__ if module else []):
        name = shown_name(cell)
        if cell.cell_type == "raw":
            front = yaml.safe_load(cell.source.strip().strip("-"))
            cell = new_markdown_cell(
                f"# {front['title']}\n\n{{.lead}}\n{front.get('description', '')}"
            )
        elif name:
            if module is None or name.partition(".")[0] not in vars(module):
                raise DocsError(
                    f"{path.name}: show_doc({name}) names nothing that its module exports"
                )
            if name.partition(".")[0] in documented:
                continue
            documented.add(name)
            cell = new_markdown_cell(api_cell(module, name, level + 1))
        elif cell.cell_type == "markdown":
            if cell.source.startswith("<!-- WARNING: THIS FILE WAS AUTOGENERATED"):
                continue
            level = last_level(cell.source, level)
        else:
            clean_code(cell)
            if not cell.source and not cell.outputs:
                continue
        cells.append(cell)
    if module is not None and (text := constants(module, documented, 2)):
        cells.append(new_markdown_cell(text))
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = local_links(cell.source)
    if tail:
        cells.append(new_markdown_cell(tail))
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}
    }
    return notebook


def module_of(path: Path) -> str | None:
    """The module that a source notebook exports, as `pianoamt.hcqt`."""
    for cell in nbformat.read(path, as_version=4).cells:
        match = re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, flags=re.M)
        if cell.cell_type == "code" and match:
            return f"{get_config().lib_path.name}.{match.group(1)}"
    return None


def prepare(folder: Path) -> None:
    """Write the Sphinx project: nbdev's notebooks converted, settings and style beside them."""
    sections = read_sidebar()
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always", UserWarning)
        try:
            cache = proc_nbs(n_workers=0, force=True)
        except Exception as error:
            cause = error.__cause__
            hint = (
                " (let the notebook's hidden import cell import it)"
                if isinstance(cause, NameError)
                else ""
            )
            raise DocsError(f"{error}\n{type(cause).__name__}: {cause}{hint}") from error
    if problems := [str(item.message) for item in caught if item.category is UserWarning]:
        raise DocsError("nbdev warned:\n" + "\n".join(problems))
    for name in (name for _, names in sections for name in names):
        tail = toctrees(sections) if page_name(name) == "index" else ""
        notebook = convert(Path(cache) / name, module_of(ROOT / "nbs" / name), tail)
        nbformat.write(notebook, folder / f"{page_name(name)}.ipynb")
    shutil.copytree(THEME, folder, dirs_exist_ok=True)


# -- the site


class Page(HTMLParser):
    """The ids and the links of one rendered page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what can be linked to and what is linked."""
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.ids.add(value)
            elif (
                key in ("href", "src")
                and value
                and tag in ("a", "link", "script", "img", "audio", "source")
            ):
                self.links.append(value)


def drop_doubles(site: Path) -> None:
    """Remove our anchors where the heading itself already carries the id: an id may stand once on a page."""
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'<span id="([^"]+)" class="api-anchor"></span>', text):
            if text.count(f'id="{name}"') > 1:
                text = text.replace(anchor(name), "")
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
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].ids
            ):
                dead.append(f"{path.name}: {link} has no such anchor")
    return sorted(set(dead))


def unanchored(site: Path) -> list[str]:
    """Public names of the package that no page has an anchor for."""
    missing = []
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        name = module_of(path)
        if name:
            ids = Page(site / f"{page_name(path.name)}.html").ids
            missing += [
                f"{name}.{public}"
                for public in importlib.import_module(name).__all__
                if public.lower() not in ids
            ]
    return missing


def methods(owner: type) -> list[tuple[str, object]]:
    """What a class says that one may call, its construction included."""
    mine = [(name, getattr(value, "__func__", value)) for name, value in vars(owner).items()]
    shown = [
        (name, value)
        for name, value in mine
        if name in ("__init__", "__call__") or not name.startswith("_")
    ]
    return [
        (f"{owner.__name__}.{name}", value) for name, value in shown if inspect.isfunction(value)
    ]


def callables(module: ModuleType) -> list[tuple[str, object]]:
    """The public functions of a module and the methods of its public classes."""
    found = [(name, getattr(module, name)) for name in module.__all__]
    classes = [
        value
        for _, value in found
        if inspect.isclass(value) and not getattr(value, "_is_protocol", False)
    ]
    here = [
        each for owner in classes if owner.__module__ == module.__name__ for each in methods(owner)
    ]
    return [(name, value) for name, value in found if inspect.isfunction(value)] + here


def modules() -> list[str]:
    """The modules that notebooks export."""
    return [name for path in sorted((ROOT / "nbs").glob("*.ipynb")) if (name := module_of(path))]


def ambiguous() -> list[str]:
    """Public names that mean different things in two modules; commands are called like what they do."""
    places: dict[str, list[str]] = {}
    for module in modules():
        for name in importlib.import_module(module).__all__ if module not in COMMANDS else ():
            places.setdefault(name, []).append(module)
    return [
        f"{name} is defined in {' and '.join(found)}"
        for name, found in places.items()
        if len(found) > 1
    ]


def undescribed() -> list[str]:
    """Parameters of public functions and methods that nothing is said about."""
    silent = []
    for module, (title, function) in (
        (m, each) for m in modules() for each in callables(importlib.import_module(m))
    ):
        parameters = inspect.signature(function).parameters
        named = [
            each
            for each, p in parameters.items()
            if p.kind is not p.VAR_KEYWORD and each not in ("self", "cls")
        ]
        with contextlib.suppress(OSError):  # what dataclasses make has no source
            told = docments(function)
            silent += [f"{module}.{title}: {each}" for each in named if not told.get(each)]
    return silent


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
        code = build_main(
            [
                "-q",
                "-W",
                "--keep-going",
                "-b",
                "html",
                "-d",
                f"{work}/trees",
                str(source),
                str(site),
            ]
        )
        if not code:
            shutil.rmtree(OUT, ignore_errors=True)
            shutil.copytree(site, OUT)
            drop_doubles(OUT)
    if code:
        return code
    faults = dead_links(OUT) + [f"{name} has no anchor" for name in unanchored(OUT)]
    faults += [f"{name} is not described" for name in undescribed()] + ambiguous()
    for fault in faults:
        print(f"docs: {fault}", file=sys.stderr)
    print(f"docs: {len(list(OUT.glob('*.html')))} pages in {OUT.name}/, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
