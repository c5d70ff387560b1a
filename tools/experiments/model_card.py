"""Write the model card from results: `python tools/experiments/model_card.py`; `--check` compares.

No figure of `pianoamt/weights/default.md` is copied by hand: they come from `results/` and from the
weights themselves.
"""

import argparse
import json
import sys
from pathlib import Path

from pianoamt.files import atomic_path
from pianoamt.model import count_parameters, load_weights

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "pianoamt" / "weights"
COLUMNS = {
    "onset_f1": "onset 50 ms",
    "onset_f1_100ms": "100 ms",
    "onset_f1_20ms": "20 ms",
    "offset_f1": "+ offset",
    "velocity_f1": "+ offset + velocity",
}
SETS = {
    "real_dev": "**concert grands** (7 excerpts)",
    "maps_disklavier_dev": "**upright** (9 pieces)",
    "maps_disklavier_dev_key": "upright, key-down durations",
    "maps_software_unseen": "unseen software piano (8 pieces), key-down durations",
}


def read(name):
    """A file of results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def percent(scores):
    """Figures of one row."""
    return " | ".join(f"{100 * scores[name]:.1f}" for name in COLUMNS)


def score_table(prefix=""):
    """Scores of all sets."""
    lines = ["| measured on | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for name, label in SETS.items():
        lines.append(f"| {label} | {percent(read(prefix + name)['mean'])} |")
    return "\n".join(lines)


def facts(name):
    """Numbers for the text: parameters, size, thresholds, steps and hours."""
    path = WEIGHTS / f"{name}.safetensors"
    network, info = load_weights(path)
    row = next(row for row in read("models") if row["name"] == name)
    found = {
        "parameters": f"{count_parameters(network):,}",
        "mb": f"{path.stat().st_size / 1e6:.1f}",
    }
    found |= {"steps": f"{row['steps']:,}", "hours": f"{row['hours_heard']:g}"}
    decoder = [f"{key} {value:g}" for key, value in info["decoder"].items()]
    return found | {
        "decoder": ", ".join(decoder),
        "table": score_table("" if name == "default" else f"{name}_"),
    }


def card():
    """The whole card."""
    text = (Path(__file__).parent / "model_card.md").read_text(encoding="utf-8")
    for name in ("default", "tiny"):
        for key, value in facts(name).items():
            text = text.replace(f"{{{name}.{key}}}", value)
    return text


def main():
    """Write the card, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if the card is not up to date")
    args = parser.parse_args()
    path, text = WEIGHTS / "default.md", card()
    if args.check:
        if path.read_text(encoding="utf-8") != text:
            sys.exit(
                f"{path.name} is not what the results say; run tools/experiments/model_card.py"
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
