"""Score bundled weights and write their rows: `python tools/experiments/models.py default tiny`.

Each recording of three sets is transcribed once: excerpts of real concert grands (`real_dev`), nine
recordings of a real upright (`maps_disklavier_dev`) and eight pieces on a software piano that no
training used. The scores of every piece go to `results/`, the means into the weights' row of
`results/models.json`, beside what is known of their training. With `--speed` a whole command
transcribes ten minutes in one file; run nothing else at the same time.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio, write_audio
from pianoamt.decode import decode_notes
from pianoamt.files import atomic_path
from pianoamt.model import count_parameters, load_weights
from pianoamt.onnx_engine import checksum, load_session
from pianoamt.score import FolderScores, f_measure, match_notes, read_reference, score_notes
from pianoamt.transcription import Transcriber
from pianoamt.tuning import at_recording_time, tuning_to_speed

ROOT = Path(__file__).resolve().parents[2]
SHOWN = [f"onset_f1{how}" for how in ("", "_100ms", "_20ms", "_10ms", "_20ms_aligned")]
SHOWN += ["offset_f1", "velocity_f1"]
UPRIGHT = {"pedal": "maps_disklavier_dev", "key": "maps_disklavier_dev_key"}
UNSEEN = {"key": "maps_software_unseen"}
SETS = {  # recordings, ending of their notes, convention -> results file
    "real_dev": ("real_dev/*.flac", ".mid", {"pedal": "real_dev"}),
    "maps_disklavier_dev": ("maps_disklavier_dev/*.flac", ".mid", UPRIGHT),
    "maps_software_unseen": ("maps_software/*_AkPnStgb.opus", ".tsv", UNSEEN),
}
THRESHOLDS = [round(0.05 * step, 2) for step in range(6, 19)]
CHORD_SIZES = {"alone": (1, 1), "two": (2, 2), "three": (3, 3), "four": (4, 4)}
CHORD_SIZES |= {"five or more": (5, 99)}
SOFTER = {"loudest": (0, 0), "1 to 9": (1, 9), "10 to 19": (10, 19), "20 to 29": (20, 29)}
SOFTER |= {"30 or more": (30, 127)}


def chord_recall(pieces):
    """Share of found notes by the size of their chord, and by how much softer than its loudest."""
    rows = []
    for reference, notes in pieces:
        found = np.zeros(len(reference), bool)
        found[match_notes(reference, notes)[:, 0]] = True
        for note, is_found in zip(reference, found, strict=True):
            chord = reference[np.abs(reference["onset"] - note["onset"]) < 0.03]
            softer = int(chord["velocity"].max()) - int(note["velocity"])
            rows.append((len(chord), softer, is_found))
    size, softer, found = np.array(rows, int).T
    table = {"size": {}, "softer": {}}
    for key, values, bins in (("size", size, CHORD_SIZES), ("softer", softer, SOFTER)):
        for label, (low, high) in bins.items():
            inside = (values >= low) & (values <= high) & ((size > 1) | (key == "size"))
            table[key][label] = {"notes": int(inside.sum()), "recall": float(found[inside].mean())}
    return table


def threshold_curve(heard, reference, decoder):
    """Onset F1 at each threshold, and how many onset peaks the network is unsure of."""
    speed, scores = tuning_to_speed(heard.tuning), []
    for threshold in THRESHOLDS:
        tried = replace(decoder, onset_threshold=threshold)
        notes = decode_notes(heard.probabilities, tried, "pedal", level=True)
        pairs = match_notes(reference, at_recording_time(notes, speed))
        scores.append(f_measure(len(pairs), len(reference), len(notes))[2])
    notes = decode_notes(heard.probabilities, replace(decoder, onset_threshold=0.3), "pedal")
    unsure, density = float((notes["confidence"] < 0.85).mean()), len(reference) / heard.seconds
    return {"onset_f1": scores, "unsure": unsure, "notes_per_second": density}


def score_set(transcriber, data, name):
    """Transcribe a set once; the recall in its chords, and its scores by each convention."""
    pattern, ending, conventions = SETS[name]
    recordings = sorted(data.glob(pattern))
    if not recordings:
        sys.exit(f"{data / pattern}: no recordings")
    pieces, pairs, curves = {durations: {} for durations in conventions}, [], {}
    for recording in recordings:
        heard = transcriber.transcribe(recording, probabilities=True)
        speed = tuning_to_speed(heard.tuning)
        for durations, scores in pieces.items():
            reference = read_reference(recording.with_suffix(ending), durations)
            notes = decode_notes(heard.probabilities, transcriber.decoder, durations, level=True)
            notes = at_recording_time(notes, speed)
            scores[recording.stem] = score_notes(reference, notes)
        pairs.append((reference, notes))
        if "pedal" in conventions:  # a real piano
            curves[recording.stem] = threshold_curve(heard, reference, transcriber.decoder)
    tables = {conventions[d]: FolderScores(scores, d, [], []) for d, scores in pieces.items()}
    return chord_recall(pairs), curves, tables


def times_real_time(weights, data):
    """Ten minutes of the real recordings in one file, by a whole command; the better of two runs."""
    paths = sorted(data.glob(SETS["maps_disklavier_dev"][0]))
    sound = np.concatenate([read_audio(path) for path in paths])[: 600 * SAMPLE_RATE]
    program, took = str(Path(sys.executable).with_name("pianoamt")), []
    with tempfile.TemporaryDirectory() as scratch:
        recording = Path(scratch, "ten minutes.wav")
        write_audio(recording, sound)
        for run in range(2):
            command = [program, "transcribe", recording, "--weights", weights]
            command += ["--out", f"{scratch}/{run}"]
            begun = time.perf_counter()
            subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - begun)
    return round(len(sound) / SAMPLE_RATE / min(took), 1)


def keep_row(path, name, row):
    """Put a row into a table by name."""
    table = json.loads(path.read_text()) if path.exists() else {}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(table | {name: row}, indent=1, ensure_ascii=False) + "\n")


def measure(name, data, speed):
    """Everything of a row that can be measured; the files of the sets are written on the way."""
    weights = ROOT / "pianoamt" / "weights" / f"{name}.safetensors"
    model = load_session(weights.with_suffix(".onnx"))  # which is what a processor takes
    if model.get_modelmeta().custom_metadata_map.get("weights_sha256") != checksum(weights):
        sys.exit(f"{name}.onnx was made from other weights; run pianoamt export")
    prefix, tables, chords, curves = "" if name == "default" else f"{name}_", {}, {}, {}
    transcriber = Transcriber(weights.with_suffix(".onnx"), "cpu")
    for each in SETS:
        chords[each], curves[each], results = score_set(transcriber, data, each)
        for result, scores in results.items():
            scores.to_json(ROOT / "results" / f"{prefix}{result}.json")
            tables[result] = scores
    keep_row(ROOT / "results" / "chord_recall.json", name, chords)
    curves = {each: pieces for each, pieces in curves.items() if pieces}
    thresholds = {"thresholds": THRESHOLDS, "sets": curves}
    keep_row(ROOT / "results" / "threshold_curves.json", name, thresholds)
    network, info = load_weights(weights)
    means = {result: scores.mean() for result, scores in tables.items()}
    upright = tables["maps_disklavier_dev"]
    limits = upright.intervals()
    row = {"name": name, "parameters": count_parameters(network), "steps": info["steps"]}
    row |= {"hours_heard": info["hours_heard"]}
    names = {"scores": "maps_disklavier_dev", "scores_grands": "real_dev"}
    for key, result in (names | {"scores_unseen": "maps_software_unseen"}).items():
        row[key] = {each: means[result][each] for each in SHOWN}
    row["interval_95"] = {key: limits[key] for key in SHOWN}
    for part in ("Cl", "Am"):
        pieces = [scores for stem, scores in upright.pieces.items() if stem.endswith(part)]
        columns = {key: [each[key] for each in pieces] for key in SHOWN}
        row[f"scores_{part}"] = {key: float(np.mean(column)) for key, column in columns.items()}
    return row | ({"times_real_time": times_real_time(name, data)} if speed else {})


def main(
    names: list[str],  # bundled weights
    data: Path = Path("data"),  # holds the recordings
    speed: bool = False,  # measure the speed as well
):
    """Measure, and put the rows in their places."""
    table = ROOT / "results" / "models.json"
    for name in names:
        measured, rows = measure(name, data, speed), json.loads(table.read_text())
        known = next((row for row in rows if row["name"] == name), None)
        if known is None:
            rows.append(measured)
        else:
            known |= measured
        with atomic_path(table) as temporary:
            text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
            temporary.write_text(text, encoding="utf-8")
        scores = {key: round(100 * value, 1) for key, value in measured["scores"].items()}
        print(name, scores, flush=True)


if __name__ == "__main__":
    typer.run(main)
