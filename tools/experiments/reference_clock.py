"""Do the times of a reference agree with the sound? `--data data` writes results/reference_clock.json.

For the player piano of DATA/maps_disklavier_dev and, as a control, the software piano of DATA/maps_software that was
held out of training: how late the sound of a note rises after its label, and how late its transcription is, by the
velocity of the note; and for each piece the F1 of onsets within 50 and within 120 ms.
"""

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.files import atomic_path
from pianoamt.hcqt import HCQT, HCQTConfig
from pianoamt.notes import LOWEST_PITCH, read_midi, write_midi
from pianoamt.score import f_measure, match_notes, read_reference
from pianoamt.transcription import Transcriber

ROOT = Path(__file__).resolve().parents[2]
EDGES = (1, 26, 33, 40, 50, 60, 128)  # of bands of MIDI velocities
QUICK = HCQTConfig(bins_per_semitone=(1,), hop=128, gamma=20.0)  # 8 ms a frame, short windows
BEFORE, AFTER = 20, 20  # frames around a label


def rises(audio, notes):
    """Seconds from each label to the moment at which its key's sound is half way up, in dB; nan where nothing rises."""
    with torch.inference_mode():
        level = 20 * HCQT(QUICK)(torch.from_numpy(audio)[None])[0, 1]
    rate, found = SAMPLE_RATE / QUICK.hop, np.full(len(notes), np.nan)
    for index, note in enumerate(notes):
        centre, key = round(note["onset"] * rate), int(note["pitch"]) - LOWEST_PITCH
        again = (notes["pitch"] == note["pitch"]) & (np.abs(notes["onset"] - note["onset"]) < 0.4)
        if centre < BEFORE or centre + AFTER > len(level) or again.sum() > 1:
            continue
        heard = level[centre - BEFORE : centre + AFTER, key].numpy()
        quiet, peak = np.median(heard[:6]), heard[6:].max()
        if peak > quiet + 6:
            first = 6 + int(np.argmax(heard[6:] > (quiet + peak) / 2))
            found[index] = (centre - BEFORE + first) / rate - note["onset"]
    return found


def by_velocity(rows):
    """Medians of (velocity, rise, lateness) rows for each band with at least 20 strokes."""
    table = np.array(rows)
    bands = {}
    for low, high in itertools.pairwise(EDGES):
        inside = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if min(np.isfinite(inside[:, 1]).sum(), np.isfinite(inside[:, 2]).sum()) >= 20:
            rise, late = 1000 * np.nanpercentile(inside[:, 1:3], [25, 50, 75], axis=0).T
            counts = {"median_velocity": float(np.median(inside[:, 0])), "strokes": len(inside)}
            counts |= {"rises_found": int(np.isfinite(inside[:, 1]).sum())}
            found = {"rise_ms": rise.round(1).tolist(), "late_ms": late.round(1).tolist()}
            bands[f"{low}-{high - 1}"] = counts | found
    return bands


def study(recordings, transcriber):
    """What the strokes and the pieces of some recordings say."""
    rows, pieces = [], {}
    for path in recordings:
        audio = read_audio(path)
        tables = [path.with_suffix(ending) for ending in (".mid", ".tsv")]
        truth = read_reference(next(table for table in tables if table.exists()), "key")
        transcription = transcriber.transcribe(audio, durations="key")
        with tempfile.TemporaryDirectory() as folder:  # as they are written, in whole ticks
            write_midi(Path(folder) / "notes.mid", transcription.notes, transcription.pedal)
            notes = read_midi(Path(folder) / "notes.mid").notes
        late = np.full(len(truth), np.nan)
        pairs = match_notes(truth, notes, onset_tolerance=0.12)
        late[pairs[:, 0]] = notes["onset"][pairs[:, 1]] - truth["onset"][pairs[:, 0]]
        rows += zip(truth["velocity"], rises(audio, truth), late, strict=True)
        matches = {50: len(match_notes(truth, notes, onset_tolerance=0.05)), 120: len(pairs)}
        f1 = {ms: f_measure(found, len(truth), len(notes))[2] for ms, found in matches.items()}
        pieces[path.stem] = {f"onset_f1_{ms}ms": value for ms, value in f1.items()}
        print(path.stem, pieces[path.stem], flush=True)
    return {"by_velocity": by_velocity(rows), "pieces": pieces}


def main(data: Path = Path("data")):
    """Measure both pianos."""
    transcriber, found = Transcriber(device="cpu"), {}
    pianos = {"player_piano": "maps_disklavier_dev/*.flac"}
    pianos |= {"software_piano": "maps_software/*AkPnStgb*.opus"}
    for name, pattern in pianos.items():
        found[name] = study(sorted(data.glob(pattern)), transcriber)
    with atomic_path(ROOT / "results" / "reference_clock.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
