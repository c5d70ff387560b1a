"""Run notebooks in a fresh kernel and store their outputs: `python tools/rerun.py nbs/00_notes.ipynb …`."""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
import typer
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import clean_nb, process_write

SKIPPED_FLAGS = {"notest", "slow", "gpu", "data", "fluidsynth"}


def flags_of(source: str) -> set[str]:
    """The nbdev directives at the top of a cell."""
    return set(re.findall(r"^#\|\s*(\w+)", source, flags=re.M))


class FlagClient(NotebookClient):
    """A notebook client that leaves flagged cells, and their stored outputs, as they are."""

    run_flags: frozenset[str] = frozenset()

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        """Run one cell unless its flags say that it needs more than this machine promises."""
        if (flags_of(cell.get("source", "")) & SKIPPED_FLAGS) - self.run_flags:
            return cell
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)


def forget_widgets(notebook: nbformat.NotebookNode) -> None:
    """Leave of a widget what can be read without the process that it lived in: its picture or its text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def rerun(path: Path, run_flags: frozenset[str]) -> float:
    """Execute one notebook in its own folder, write it back cleaned, and return the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 3600, "kernel_name": "python3", "coalesce_streams": True}
    options |= {"store_widget_state": False, "resources": {"metadata": {"path": str(path.parent)}}}
    client = FlagClient(notebook, **options)
    client.run_flags = run_flags
    start = time.perf_counter()
    client.execute()
    forget_widgets(notebook)
    nbformat.write(notebook, path)
    process_write(f"cannot clean {path}", lambda nb: clean_nb(nb, clean_ids=True), path)
    return time.perf_counter() - start


def main(notebooks: list[Path], flags: str = "") -> None:
    """Rerun notebooks, with cells of these flags ("slow data"), until one fails."""
    os.environ.pop("MPLBACKEND", None)  # a backend from outside would store no pictures
    for path in notebooks:
        try:
            seconds = rerun(path, frozenset(flags.split()))
        except CellExecutionError as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: {seconds:.1f} s")


if __name__ == "__main__":
    typer.run(main)
