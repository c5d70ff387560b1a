"""Write the README's tables and the model card from results: `python tools/figures.py`; `--check` only compares.

No figure is copied by hand. The README's tables are between two marks; the card is made from tools/model_card.md.
"""

import json
import sys
from pathlib import Path

from pianoamt.model import count_parameters, load_weights

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pianoamt" / "weights"
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
SPEED = {
    "times_real_time": "times real time",
    "beside_another": "beside another busy program",
    "megabytes": "MB",
}
SHEET = {"beat_F": "beats", "downbeat_F": "downbeats", "hand": "hands", "key": "key"}


def read(name: str):
    """A file of results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(rows: list[list[str]]) -> str:
    """A Markdown table whose figures are right-aligned."""
    marks = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], marks, *rows[1:]])


def transcription(prefix: str = "") -> str:
    """Development scores of the default weights, or of those whose files have a prefix."""
    rows = [["development scores, F1 in percent", *COLUMNS.values()]]
    for name, title in SETS.items():
        mean = read(prefix + name)["mean"]
        rows.append([title, *(f"{100 * mean[column]:.1f}" for column in COLUMNS)])
    return table(rows)


def speed() -> str:
    """Whole commands with either weights."""
    about = read("speed")
    first = f"{about['minutes']:g} minutes of music, {about['cores']} cores, {about['machine']}"
    rows = [[first, *SPEED.values()]]
    for row in about["rows"]:
        if row["what"] in ("default", "tiny"):
            rows.append([f"`--weights {row['what']}`", *(f"{row[name]:.0f}" for name in SPEED)])
    return table(rows).replace("`--weights default`", "default")


def readme(text: str) -> str:
    """The README with its tables, those of sheet music on titles that it was not trained on."""
    head, _, rest = text.partition(BEGIN)
    columns = ["sheet music from MIDI, 29 test titles, percent", *SHEET.values()]
    means = ["right", *(f"{100 * read('sheet')['mean'][name]:.0f}" for name in SHEET)]
    tables = f"{transcription()}\n\n{table([columns, means])}\n\n{speed()}"
    return f"{head}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}"


def card(_: str = "") -> str:
    """The model card: scores, and what is known of the weights."""
    text = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    for name, prefix in (("default", ""), ("tiny", "tiny_")):
        path = WEIGHTS / f"{name}.safetensors"
        network, info = load_weights(path)
        row = next(row for row in read("models") if row["name"] == name)
        facts = {"parameters": f"{count_parameters(network):,}", "steps": f"{row['steps']:,}"}
        facts |= {"mb": f"{path.stat().st_size / 1e6:.1f}", "hours": f"{row['hours_heard']:g}"}
        facts["decoder"] = ", ".join(f"{key} {value:g}" for key, value in info["decoder"].items())
        for key, value in (facts | {"table": transcription(prefix)}).items():
            text = text.replace(f"{{{name}.{key}}}", value)
    return text


def main() -> int:
    """Rewrite both files, or say which is not what the results say."""
    wrong = []
    for path, write in ((ROOT / "README.md", readme), (WEIGHTS / "default.md", card)):
        before = path.read_text(encoding="utf-8")
        after = write(before)
        wrong += [path.name] if after != before else []
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
    if "--check" in sys.argv and wrong:
        print(f"{' and '.join(wrong)}: not what results/ says; run tools/figures.py")
    return int("--check" in sys.argv and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
