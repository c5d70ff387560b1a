"""Compare with other transcribers: the same excerpts, rules and machine, one after the other.

`python tools/experiments/peers.py data/maps_disklavier_dev --seconds 60 --peer "Transkun=transkun {audio} {midi} --device cpu"`

A peer is any command that reads a sound file and writes MIDI; `{audio}`, `{midi}` and `{folder}` (where `{midi}` lies)
are filled in. If it chooses the file's name itself, the only MIDI file in the folder is taken. Excerpts are the beginnings
of the recordings, at 44.1 kHz. Times are those of whole commands, the start of each included. Prints a table and, with
`--json`, writes the same figures.
"""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import soxr
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.score import read_reference, score_notes

PROGRAM = shlex.quote(str(Path(sys.executable).with_name("pianoamt")))
OURS = f"{PROGRAM} transcribe {{audio}} --out {{folder}} --durations pedal"
SHOWN = ("onset_f1", "offset_f1", "velocity_f1", "onset_f1_20ms_aligned")


def cut(recording: Path, seconds: float, folder: Path) -> tuple[Path, np.ndarray, float]:
    """The beginning of a recording as a file of its own, its notes, and how long it is."""
    audio = read_audio(recording)[: round(seconds * SAMPLE_RATE)]
    path, length = folder / f"{recording.stem}.wav", len(audio) / SAMPLE_RATE
    soundfile.write(path, soxr.resample(audio, SAMPLE_RATE, 44_100), 44_100)
    notes = read_reference(recording.with_suffix(".mid"), "pedal")
    notes = notes[notes["onset"] < length]
    notes["offset"] = np.minimum(notes["offset"], length)
    return path, notes, length


def transcribe(command: str, audio: Path) -> tuple[np.ndarray, float]:
    """What a command finds in a file, and how many seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / f"{audio.stem}.mid"
        names = {"audio": audio, "midi": midi, "folder": folder}
        words = [word.format(**names) for word in shlex.split(command)]
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True)
        took = time.perf_counter() - begun
        files = [midi] if midi.is_file() else sorted(Path(folder).glob("*.mid*"))
        if done.returncode or not files:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            sys.exit(f"{words[0]} failed with {audio.name}: {said}")
        return read_reference(files[0], "pedal"), took


def main(
    folder: Path,  # recordings, each with its .mid beside it
    seconds: float = 60,  # length of an excerpt
    peer: list[str] = [],  # noqa: B006, NAME=COMMAND; may be repeated
    json_file: Annotated[Path | None, typer.Option("--json")] = None,  # for the figures
) -> None:
    """Cut, transcribe, score."""
    recordings = [path for path in folder.glob("*.flac") if path.with_suffix(".mid").is_file()]
    if not recordings or not all("=" in each for each in peer):
        sys.exit("expected .flac recordings with .mid files beside them, and peers as NAME=COMMAND")
    ours = {"pianoamt": OURS, "pianoamt, tiny": f"{OURS} --weights tiny"}
    systems = ours | dict(each.split("=", 1) for each in peer)
    table = {}
    with tempfile.TemporaryDirectory() as scratch:
        excerpts = [cut(path, seconds, Path(scratch)) for path in sorted(recordings)]
        length = sum(long for _, _, long in excerpts)
        for name, command in systems.items():
            scores, took = [], 0.0
            for path, notes, _ in excerpts:
                found, spent = transcribe(command, path)
                scores.append(score_notes(notes, found))
                took += spent
            row = {key: round(float(np.mean([score[key] for score in scores])), 4) for key in SHOWN}
            speed = round(length / took, 1)
            table[name] = row | {"times_real_time": speed, "excerpts": len(excerpts)}
            print(f"{name:20}", *(f"{key} {value}" for key, value in table[name].items()))
    if json_file:
        json_file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
