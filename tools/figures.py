"""Write the README's tables from results: `python tools/figures.py`; `--check` only compares.

The tables stand between two marks, so that no figure of the README is copied by hand.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures: tools/figures.py -->", "<!-- end of figures -->"
SETS = {
    "real_dev": "concert grands (7 excerpts)",
    "maps_disklavier_dev": "upright, close and room microphones (9 pieces)",
    "maps_disklavier_dev_key": "the same, key-down durations",
    "maps_software_unseen": "software piano not trained on (8 pieces), key-down durations",
}
COLUMNS = {
    "onset_f1": "onset 50 ms",
    "onset_f1_100ms": "100 ms",
    "onset_f1_20ms": "20 ms",
    "offset_f1": "+ offset",
    "velocity_f1": "+ offset + velocity",
}
SHEET = {"beat_F": "beats", "downbeat_F": "downbeats", "hand": "hands", "key": "key"}


def table(rows: list[list[str]]) -> str:
    """A Markdown table whose figures are right-aligned."""
    marks = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], marks, *rows[1:]])


def transcription() -> str:
    """Development scores of the default weights."""
    rows = [["development scores, F1 in percent", *COLUMNS.values()]]
    for name, title in SETS.items():
        mean = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))["mean"]
        rows.append([title, *(f"{100 * mean[column]:.1f}" for column in COLUMNS)])
    return table(rows)


def sheet_music() -> str:
    """What the sheet music network reaches on pieces that it was not trained on."""
    mean = json.loads((ROOT / "results" / "sheet.json").read_text(encoding="utf-8"))["mean"]
    head = ["sheet music from MIDI, 29 test titles, percent", *SHEET.values()]
    return table([head, ["right", *(f"{100 * mean[name]:.0f}" for name in SHEET)]])


def main() -> int:
    """Rewrite the tables, or say that they are not those of the results."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    head, _, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2]
    after = f"{head}{BEGIN}\n{transcription()}\n\n{sheet_music()}\n{END}{tail}"
    if "--check" in sys.argv:
        if after != before:
            print("README.md: its figures are not those of results/; run tools/figures.py")
        return int(after != before)
    readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
