"""Check that cells are short and exported ones demonstrated: `python tools/cells.py` prints a table.

Exported cells are short and each is demonstrated at once; ordinary cells have 3 to 6 lines in the median; prose
introduces them. It fails where an exported cell is followed by another one instead of a demonstration, and where more cells than
before have over 30 lines, or more modules over 600.
"""

import json
import re
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["notebook", "exported", "longest", "ordinary", "per-export", "median", "prose"]
EXPORTS = {"export", "exports", "exporti"}
LONGEST_CELL, LONGEST_MODULE = 30, 600  # lines
KNOWN_LONG = 2  # cells and modules that are still longer: lower it whenever one is cut


def directives(source: str) -> set[str]:
    """The nbdev directives of a cell."""
    return set(re.findall(r"^#\|\s*(\w+)", source, flags=re.M))


def code_lines(source: str) -> int:
    """Lines of a cell that are neither blank nor directives."""
    return sum(1 for line in source.splitlines() if line.strip() and not line.startswith("#|"))


def only_imports(source: str) -> bool:
    """Whether a cell holds imports and nothing else."""
    bare = re.sub(r"\([^)]*\)", "", source, flags=re.S)
    lines = [line.strip() for line in bare.splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line]
    return all(re.match(r"(from|import)\s|if TYPE_CHECKING:", line) for line in lines)


def undemonstrated(path: Path) -> list[str]:
    """The exported cells of one notebook that are followed by another one."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    marked = [bool(directives(source) & EXPORTS) and not only_imports(source) for source in sources]
    pairs = zip(cells, marked, [*marked, True][1:], strict=True)
    return [
        f"{path.name}: cell {cell['id']} is not shown at work"
        for cell, here, after in pairs
        if here and after
    ]


def too_long(path: Path) -> list[str]:
    """The exported cells of one notebook that have over 30 lines and are more than one dataclass."""
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not directives(source) & EXPORTS or only_imports(source):
            continue
        if code_lines(source) > LONGEST_CELL and "@dataclass" not in source:
            found.append(f"{path.name}: cell {cell['id']} has {code_lines(source)} lines")
    return found


def long_modules() -> list[str]:
    """The modules of the package with over 600 lines."""
    paths = [path for path in sorted((ROOT / "pianoamt").glob("*.py")) if path.name != "_modidx.py"]
    counts = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [f"{name}: {count} lines" for name, count in counts.items() if count > LONGEST_MODULE]


def package_lines() -> int:
    """Lines of the package without blank lines and comments."""
    paths = [path for path in (ROOT / "pianoamt").glob("*.py") if path.name != "_modidx.py"]
    lines = [line.strip() for path in paths for line in path.read_text("utf-8").splitlines()]
    return sum(1 for line in lines if line and not line.startswith("#"))


def row(path: Path) -> list[str]:
    """The figures of one notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    exported, ordinary = [], []
    for cell in cells:
        source = "".join(cell["source"])
        marks = directives(source)
        if cell["cell_type"] == "code" and "hide" not in marks and not only_imports(source):
            (exported if marks & EXPORTS else ordinary).append(code_lines(source))
    share = f"{len(ordinary) / len(exported):.1f}" if exported else "-"
    figures = [len(exported), max(exported, default=0), len(ordinary), share]
    figures += [median(ordinary or [0]), sum(cell["cell_type"] == "markdown" for cell in cells)]
    return [path.name.removesuffix(".ipynb"), *map(str, figures)]


def main() -> int:
    """Print one line a notebook, and what is not demonstrated."""
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    rows = [COLUMNS, *map(row, paths)]
    widths = [max(len(line[i]) for line in rows) for i in range(len(COLUMNS))]
    for line in rows:
        texts = [text.rjust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *texts[1:]]))
    alone = [line for path in paths for line in undemonstrated(path)]
    long = [line for path in paths for line in too_long(path)] + long_modules()
    print(*alone, *long, sep="\n")
    print(f"{len(long)} cells and modules are too long; at most {KNOWN_LONG} may be")
    print(f"the package has {package_lines()} lines without blank lines and comments")
    return int(bool(alone) or len(long) > KNOWN_LONG)


if __name__ == "__main__":
    sys.exit(main())
