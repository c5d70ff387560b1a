"""What is each augmentation worth? `python tools/experiments/ablation.py --data data` writes results/ablation.json.

A tiny network learns from plain rendered sound: performances as they are, pianos in tune, no room, no noise, one level.
From its weights several short runs go on, each with one variation added, one with none, one with all, and each as often
as there are seeds: what differs between two seeds of one arm is chance. Each is scored on the real recordings of
DATA/maps_disklavier_dev, at the onset threshold that suits it best, since networks that have heard little are sure of
little; and once more on the same recordings, spoilt by another room (one of training's), noise, an equaliser, lossy
codecs and a level drawn anew. What is done is kept: a second call goes on where the first one stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.augment import Augmentation, augment
from pianoamt.decode import DecoderConfig, decode_notes
from pianoamt.files import atomic_path
from pianoamt.score import read_reference, score_notes
from pianoamt.segments import load_rooms
from pianoamt.targets import concat_rolls
from pianoamt.transcription import Transcriber

ROOT = Path(__file__).resolve().parents[2]
OFTEN = 0.5  # probability of clipping or a codec where it is alone; one in ten would not show in a short run
PLAIN = {
    "performance": 0,
    "detune_cents": 0,
    "sympathetic_strings": 0,
    "room": 0,
    "equalise": 0,
    "noise": 0,
    "level_db": [-24, -24],
    "clip": 0,
    "codec": 0,
}
USUAL = asdict(Augmentation())
ARMS = {  # what differs from PLAIN
    "nothing": {},
    "transposition, tempo, dynamics": {"performance": USUAL["performance"]},
    "detuned pianos": {"detune_cents": USUAL["detune_cents"]},
    "free strings": {"sympathetic_strings": USUAL["sympathetic_strings"]},
    "measured rooms": {"room": USUAL["room"], "measured_room": 1},
    "synthetic rooms": {"room": USUAL["room"], "measured_room": 0},
    "equaliser": {"equalise": USUAL["equalise"]},
    "noise": {"noise": USUAL["noise"]},
    "level": {"level_db": USUAL["level_db"]},
    "clipping": {"clip": OFTEN},
    "codecs": {"codec": OFTEN},
    "all of them": USUAL,
}
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SPOILT = Augmentation(
    room=1, measured_room=1, noise=1, noise_db=(15, 25), equalise=1, codec=0.5, clip=0
)
EXCERPT, MARGIN = 60, 2  # seconds of each recording that are spoilt; at its end, without onsets
SCORES = ("onset_f1", "onset_f1_20ms_aligned", "offset_f1", "velocity_f1")


def write_recipe(path, variations, train):
    """A recipe: the tiny preset's, rendered sound alone, plain but for `variations`."""
    recipe = json.loads((ROOT / "recipes" / "tiny.json").read_text())
    recipe["data"] |= {"recordings": [], "augmentation": PLAIN | variations}
    recipe["train"] |= {"precision": "auto", "save_seconds": 600} | train
    path.write_text(json.dumps(recipe, indent=1))
    return path


def train(recipe, folder, args):
    """Train, in several processes; nothing is done where the run has ended already."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(args.processes),
        "--no-python",
    ]
    command = ["pianoamt", "train", str(recipe), str(folder), "--data", str(args.data), "--cpu"]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.processes))}
    subprocess.run([sys.executable, *launcher, *command], check=True, env=os.environ | threads)
    return folder / "weights.safetensors"


def score(transcriber, recordings):
    """Mean scores over recordings at the best threshold, of all and by microphone."""
    rolls, references = [], []
    for path in recordings:
        rolls.append(concat_rolls(list(transcriber.engine.rolls(iter([read_audio(path)])))))
        references.append(read_reference(path.with_suffix(".mid"), "pedal"))
    tables = []
    for threshold in THRESHOLDS:
        decoder = replace(transcriber.decoder, onset_threshold=threshold)
        found = [decode_notes(each, decoder, "pedal", level=True) for each in rolls]
        scores = [
            score_notes(reference, notes)
            for reference, notes in zip(references, found, strict=True)
        ]
        tables.append((np.mean([each["onset_f1"] for each in scores]), threshold, scores))
    _, threshold, scores = max(tables, key=lambda table: table[:2])
    result = {"threshold": threshold} | {
        name: float(np.mean([s[name] for s in scores])) for name in SCORES
    }
    for part in ("Cl", "Am"):
        chosen = [
            s["onset_f1"]
            for s, path in zip(scores, recordings, strict=True)
            if path.stem.endswith(part)
        ]
        result[f"onset_f1_{part}"] = float(np.mean(chosen))
    return result


def score_spoilt(transcriber, recordings, rooms):
    """Mean onset F1 over the first minutes of recordings, badly recorded; always in the same way."""
    found = []
    for number, path in enumerate(recordings):
        sound = augment(
            read_audio(path)[: EXCERPT * SAMPLE_RATE], np.random.default_rng(number), rooms, SPOILT
        )
        notes = transcriber.transcribe(sound, durations="pedal", tuning=0.0).notes
        tables = (read_reference(path.with_suffix(".mid"), "pedal"), notes)
        early = [table[table["onset"] < EXCERPT - MARGIN] for table in tables]
        found.append(score_notes(*early)["onset_f1"])
    return float(np.mean(found))


def main():
    """Train and score every arm that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="material for training and measuring"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="for the runs")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "ablation.json", help="the table"
    )
    parser.add_argument("--base-steps", type=int, default=700, help="of plain sound")
    parser.add_argument("--steps", type=int, default=160, help="of each arm")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2], metavar="SEED", help="of each arm's runs"
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=list(ARMS),
        metavar="ARM",
        help="all if not given",
    )
    parser.add_argument("--processes", type=int, default=2, help="that share the work")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    recordings = sorted((args.data / "maps_disklavier_dev").glob("*.flac"))
    rooms = load_rooms(args.data / "rooms")
    stem = f"base_{args.base_steps}"
    base = train(
        write_recipe(args.folder / f"{stem}.json", {}, {"steps": args.base_steps}),
        args.folder / stem,
        args,
    )
    short = {"start_from": str(base), "steps": args.steps, "warmup_steps": 20, "ema_decay": 0.98}
    plan = {"base_steps": args.base_steps, "steps": args.steps}
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    arms = before["arms"] if all(before.get(key) == value for key, value in plan.items()) else {}
    for seed, name in product(args.seeds, args.arms):
        if str(seed) in arms.get(name, {}):
            continue
        stem = f"{name.replace(', ', '_').replace(' ', '_')}_{args.base_steps}_{args.steps}_{seed}"
        recipe = write_recipe(args.folder / f"{stem}.json", ARMS[name], short | {"seed": seed})
        transcriber = Transcriber(
            train(recipe, args.folder / stem, args), "cpu", DecoderConfig(), "torch"
        )
        scores = score(transcriber, recordings)
        transcriber.decoder = replace(transcriber.decoder, onset_threshold=scores["threshold"])
        scores["onset_f1_spoilt"] = score_spoilt(transcriber, recordings, rooms)
        print(name, seed, scores, flush=True)
        arms.setdefault(name, {})[str(seed)] = scores
        with atomic_path(args.out) as temporary:
            rows = {arm: arms[arm] for arm in ARMS if arm in arms}
            temporary.write_text(json.dumps(plan | {"arms": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
