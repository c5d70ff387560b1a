"""What is an hour of your own recordings worth? `python tools/experiments/own_piano.py --data data` writes results/own_piano.json.

A sampled piano that no training used stands in one room, a little out of tune, and plays MAESTRO's test performances:
takes of five minutes each, an hour of them for training, the others (their names decide) for testing. From there on
everything is done and timed by the commands of the tutorial: check, preprocess, train from the bundled weights, then
transcribe and score the test takes with the weights before and after. Run nothing else at the same time.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import typer

from pianoamt.audio import write_audio
from pianoamt.augment import add_room, coloured_noise, measure_level
from pianoamt.corpus import load_midi_pack, split_by_hash
from pianoamt.engine import default_weights
from pianoamt.files import atomic_path
from pianoamt.notes import write_midi
from pianoamt.render import Voicing, render
from pianoamt.segments import cut_performance, load_rooms, read_piano

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("pianoamt"))
TAKE = 300  # seconds
TRAINING = 3600  # seconds of takes for training
TUNING = {"detune_cents": -6, "stretch_cents": 8, "key_cents": 3}
ACTION = {"onset_delay_ms": 4, "jitter_ms": 1, "sympathetic_db": -24, "level_db": -26}
VOICING = Voicing(**TUNING, **ACTION, seed=5)  # one instrument, tuned a while ago
HISS_DB = 45  # signal-to-noise ratio of the microphone
WEIGHTS = default_weights()
RECIPE = {"steps": 600, "batch_size": 2, "learning_rate": 0.001}  # of the tutorial


def record(data, folder):
    """Play and record the takes; those that are there already are left alone."""
    pack = load_midi_pack(data / "midi" / "maestro_v3_test.npz")
    piano = read_piano(data / "pianos" / "vcsl_upright1.json")
    room = load_rooms(data / "rooms")[0]
    folder.mkdir(parents=True, exist_ok=True)
    seconds, number = 0, 0
    for index in range(len(pack)):
        performance = pack.performance(index)
        if performance.notes["offset"].max() < TAKE:
            continue
        number += 1
        name = f"take{number:02}"
        notes, pedal = cut_performance(performance.notes, performance.pedal, 0, TAKE)
        notes = notes[notes["onset"] < TAKE - 1]
        for table, column in ((notes, "offset"), (pedal, "time")):
            table[column] = np.minimum(table[column], TAKE)
        if not (folder / f"{name}.flac").exists():
            sound = add_room(render(notes, pedal, piano, VOICING, seconds=TAKE), room)
            hiss = coloured_noise(len(sound), np.random.default_rng(number))
            sound = sound + hiss * np.float32(measure_level(sound) * 10 ** (-HISS_DB / 20))
            write_midi(folder / f"{name}.mid", notes, pedal)
            write_audio(folder / f"{name}.flac", sound)
        seconds += TAKE if split_by_hash(name) == "train" else 0
        if seconds >= TRAINING:
            return
    sys.exit(f"{data}/midi: only {seconds / 60:.0f} of {TRAINING / 60:.0f} minutes in whole takes")


def timed(*words):
    """Run the program as a user would; the seconds it took."""
    begun = time.perf_counter()
    subprocess.run([PROGRAM, *map(str, words)], check=True)
    return round(time.perf_counter() - begun, 1)


def main(
    data: Path = Path("data"),  # for training and measuring
    folder: Path = Path("runs/own_piano"),  # for takes, store and run
    weights: Path = WEIGHTS,  # to start from
    out: Path = ROOT / "results" / "own_piano.json",  # the figures
):
    """Record, teach, compare."""
    takes, store, run, test = (folder / name for name in ("takes", "store", "run", "test"))
    record(data, takes)
    for old in (store, run, test):  # a resumed run would not be timed whole
        shutil.rmtree(old, ignore_errors=True)
    test.mkdir()
    for path in takes.iterdir():
        if split_by_hash(path.stem) == "test":
            shutil.copy(path, test)
    recipe, training = folder / "own.json", {"start_from": str(weights), **RECIPE}
    recipe.write_text(json.dumps({"data": {"store": str(store)}, "train": training}))
    seconds = {"check": timed("check", takes)}
    seconds["preprocess"] = timed("preprocess", takes, "--store", store, "--quiet")
    seconds["train"] = timed("train", recipe, run, "--cpu")
    scores = {}
    for name, used in (("before", weights), ("after", run / "weights.safetensors")):
        found, table = folder / name, folder / f"{name}.json"
        how = ["--weights", used, "--durations", "pedal", "--overwrite", "--out", found, "--quiet"]
        timed("transcribe", test, *how)
        timed("score", test, found, "--json", table)
        scores[name] = json.loads(table.read_text())["mean"]
    splits = [split_by_hash(path.stem) for path in takes.glob("*.flac")]
    minutes = {split: splits.count(split) * TAKE / 60 for split in ("train", "test")}
    table = {"minutes": minutes, **RECIPE, "seconds": seconds, **scores}
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
