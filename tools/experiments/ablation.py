"""What is each change of the training data worth on real pianos? `python tools/experiments/ablation.py --data data`.

Several short runs start from the bundled tiny weights: one with the data that they were trained on,
one for each change that makes the training data harder, one with all changes. Each is repeated with
several seeds; the difference between two seeds of one run is chance. Every run is scored on excerpts of real
concert grands (DATA/real_dev) and on the beginnings of the real upright's recordings
(DATA/maps_disklavier_dev), at the onset threshold that is best for both. Finished runs are kept, so a
second call continues where the first one stopped. The table goes to results/ablation_chords.json.
"""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.augment import Augmentation
from pianoamt.decode import decode_notes
from pianoamt.files import atomic_path
from pianoamt.score import read_reference, score_notes
from pianoamt.targets import concat_rolls
from pianoamt.transcription import Transcriber

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "pianoamt" / "weights" / "tiny.safetensors"
LEVERS = ("chords", "microphones", "uneven_keys", "compress")
USUAL = asdict(Augmentation())
BEFORE = dict.fromkeys(LEVERS, 0)
TAUGHT = {"teacher_recordings": {"real_piano": 0.5}, "rendered_share": 0.42}
ARMS = {  # what differs from the data of before
    "nothing": {},
    "teacher's notes on real recordings": TAUGHT,
    "two microphones, uneven keys": {
        "augmentation": BEFORE | {name: USUAL[name] for name in ("microphones", "uneven_keys")}
    },
    "companions, uneven chords": {"augmentation": BEFORE | {"chords": USUAL["chords"]}},
    "all of them": TAUGHT | {"augmentation": {name: USUAL[name] for name in LEVERS}},
}
THRESHOLDS = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
EXCERPT, MARGIN = 45.0, 2.0  # seconds of each upright recording; at its end, without onsets
SCORES = ("onset_f1", "onset_recall", "onset_precision", "offset_f1", "velocity_f1")


def write_recipe(path, changes, train):
    """A recipe: the tiny preset's, with the data of before but for `changes`."""
    recipe = json.loads((ROOT / "recipes" / "tiny.json").read_text())
    recipe["data"] |= {"augmentation": BEFORE, "rendered_share": 0.8, "teacher_recordings": {}}
    recipe["data"] |= changes
    recipe["train"] = {"start_from": str(TINY), "batch_size": 2, "save_seconds": 600} | train
    path.write_text(json.dumps(recipe, indent=1))
    return path


def train(recipe, folder, data):
    """Train; nothing is done where the run has ended."""
    program = Path(sys.executable).with_name("pianoamt")
    command = [program, "train", recipe, folder, "--data", data, "--cpu"]
    subprocess.run([*map(str, command)], check=True)
    return folder / "weights.safetensors"


def listen(transcriber, data):
    """Rolls and references of both sets: set -> pairs."""
    tables, folders = {}, {"grands": "real_dev", "upright": "maps_disklavier_dev"}
    for name, folder in folders.items():
        tables[name] = []
        for path in sorted((data / folder).glob("*.flac")):
            end = int(EXCERPT * SAMPLE_RATE) if name == "upright" else None
            rolls = concat_rolls(list(transcriber.engine.rolls(iter([read_audio(path)[:end]]))))
            tables[name].append((rolls, read_reference(path.with_suffix(".mid"), "pedal")))
    return tables


def score(transcriber, tables):
    """Mean scores of each set at the threshold with the best mean onset F1 over both."""
    rows = []
    for threshold in THRESHOLDS:
        decoder = replace(transcriber.decoder, onset_threshold=threshold)
        means = {}
        for name, pairs in tables.items():
            end = EXCERPT - MARGIN if name == "upright" else np.inf
            scores = []
            for rolls, reference in pairs:
                notes = decode_notes(rolls, decoder, "pedal", level=True)
                early = [table[table["onset"] < end] for table in (reference, notes)]
                scores.append(score_notes(*early))
            means[name] = {key: float(np.mean([each[key] for each in scores])) for key in SCORES}
        mean = np.mean([each["onset_f1"] for each in means.values()])
        rows.append((mean, {"threshold": threshold} | means))
    return max(rows, key=lambda row: row[0])[1]


def main(
    data: Path = Path("data"),  # for training and measuring
    folder: Path = Path("runs/ablation"),  # for the runs
    out: Path = ROOT / "results" / "ablation_chords.json",
    steps: int = 150,  # of each arm
    seeds: list[int] = [1, 2],  # noqa: B006, of each arm's runs; may be repeated
):
    """Train and score every arm that is not in the table yet."""
    folder.mkdir(parents=True, exist_ok=True)
    short = {"steps": steps, "learning_rate": 0.001, "warmup_steps": 15}
    short |= {"decay_share": 0.6, "ema_decay": 0.98}
    table = json.loads(out.read_text()) if out.exists() else {"steps": steps}
    arms = table.setdefault("arms", {})
    for seed, (name, changes) in product(seeds, ARMS.items()):
        if str(seed) in arms.get(name, {}):
            continue
        stem = f"{list(ARMS).index(name)}_{steps}_{seed}"
        recipe = write_recipe(folder / f"{stem}.json", changes, short | {"seed": seed})
        transcriber = Transcriber(train(recipe, folder / stem, data), "cpu", None, "torch")
        arms.setdefault(name, {})[str(seed)] = score(transcriber, listen(transcriber, data))
        print(name, seed, arms[name][str(seed)], flush=True)
        with atomic_path(out) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
