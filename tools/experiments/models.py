"""Score weights and write their row of the table of models: `python tools/experiments/models.py default tiny --data data`.

For each of the bundled weights the command line transcribes and scores the nine real recordings (pedal-extended and
key-down) and the pieces on the software piano that no training heard (key-down, as MAPS has them), and transcribes ten
minutes in one file. What it says of every piece goes to `results/`, the means into the weights' row of
`results/models.json`, beside what is known of their training. Leave the machine alone meanwhile: times are
measured, too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pianoamt.audio import SAMPLE_RATE, read_audio, write_audio
from pianoamt.files import atomic_path
from pianoamt.model import count_parameters, load_weights
from pianoamt.onnx_engine import checksum, load_session

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("pianoamt"))
SHOWN = (
    "onset_f1",
    "onset_f1_20ms",
    "onset_f1_10ms",
    "onset_f1_20ms_aligned",
    "offset_f1",
    "velocity_f1",
)
SETS = {
    "maps_disklavier_dev": ("maps_disklavier_dev/*.flac", ".mid", "pedal"),
    "maps_disklavier_dev_key": ("maps_disklavier_dev/*.flac", ".mid", "key"),
    "maps_software_unseen": ("maps_software/*_AkPnStgb.opus", ".tsv", "key"),
}  # results file -> recordings, ending of their notes, convention


def pianoamt(*words):
    """Run the program as a user would."""
    subprocess.run([PROGRAM, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def score_set(weights, name, data, out):
    """Transcribe and score one set; what was written."""
    pattern, ending, durations = SETS[name]
    recordings = sorted(data.glob(pattern))
    if not recordings:
        sys.exit(f"{data}/{pattern}: no recordings")
    with tempfile.TemporaryDirectory() as scratch:
        truth, found = Path(scratch) / "truth", Path(scratch) / "found"
        truth.mkdir()
        for recording in recordings:
            (truth / recording.stem).with_suffix(ending).symlink_to(
                recording.with_suffix(ending).resolve()
            )
        pianoamt(
            "transcribe",
            *recordings,
            "--weights",
            weights,
            "--durations",
            durations,
            "--out",
            found,
        )
        pianoamt("score", truth, found, "--durations", durations, "--json", out)
    return json.loads(out.read_text())


def times_real_time(weights, data):
    """Ten minutes of the real recordings in one file, by a whole command; the better of two runs."""
    blocks = [read_audio(path) for path in sorted(data.glob(SETS["maps_disklavier_dev"][0]))]
    sound = np.concatenate(blocks)[: 600 * SAMPLE_RATE]
    took = []
    with tempfile.TemporaryDirectory() as scratch:
        write_audio(Path(scratch) / "ten minutes.wav", sound)
        for run in range(2):
            begun = time.perf_counter()
            pianoamt(
                "transcribe",
                Path(scratch) / "ten minutes.wav",
                "--weights",
                weights,
                "--out",
                f"{scratch}/{run}",
            )
            took.append(time.perf_counter() - begun)
    return len(sound) / SAMPLE_RATE / min(took)


def measure(name, data):
    """Everything of a row that can be measured; the files of the sets are written on the way."""
    weights = ROOT / "pianoamt" / "weights" / f"{name}.safetensors"
    model = load_session(weights.with_suffix(".onnx"))  # which is what a processor takes
    if model.get_modelmeta().custom_metadata_map.get("weights_sha256") != checksum(weights):
        sys.exit(f"{name}.onnx was made of other weights; make it anew with pianoamt export")
    prefix = "" if name == "default" else f"{name}_"
    tables = {
        each: score_set(name, each, data, ROOT / "results" / f"{prefix}{each}.json")
        for each in SETS
    }
    real, unseen = tables["maps_disklavier_dev"], tables["maps_software_unseen"]
    network, info = load_weights(weights)
    row = {"name": name, "parameters": count_parameters(network), "steps": info["steps"]}
    row |= {"hours_heard": info["hours_heard"], "scores": {key: real["mean"][key] for key in SHOWN}}
    row["interval_95"] = {key: real["interval_95"][key] for key in SHOWN}
    for part in ("Cl", "Am"):
        pieces = [scores for stem, scores in real["pieces"].items() if stem.endswith(part)]
        row[f"scores_{part}"] = {
            key: float(np.mean([scores[key] for scores in pieces])) for key in SHOWN
        }
    row["scores_unseen"] = {key: unseen["mean"][key] for key in SHOWN}
    return row | {"times_real_time": round(times_real_time(name, data), 1)}


def main():
    """Measure, and put the rows in their places."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="+", choices=("default", "tiny"), metavar="NAME", help="default or tiny"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="holds the two MAPS folders"
    )
    args = parser.parse_args()
    table = ROOT / "results" / "models.json"
    for name in args.names:
        measured, rows = measure(name, args.data), json.loads(table.read_text())
        known = next((row for row in rows if row["name"] == name), None)
        if known is None:
            rows.append(measured)
        else:
            known |= measured
        with atomic_path(table) as temporary:
            temporary.write_text(
                json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        print(
            name,
            {key: round(100 * value, 1) for key, value in measured["scores"].items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
