"""Render the demo recording, the opening of Bach's Prelude in C major, on a sampled piano.

Run it as `python tools/demo.py PACK.json`.
"""

from pathlib import Path

import numpy as np
import soundfile as sf
import typer

from pianoamt.audio import write_audio
from pianoamt.augment import add_room, synthetic_room
from pianoamt.notes import make_notes, make_pedal, write_midi
from pianoamt.render import Voicing, load_pack, render

BARS = """60 64 67 72 76; 60 62 69 74 77; 59 62 67 74 77; 60 64 67 72 76; 60 64 69 76 81
; 60 62 66 69 74; 59 62 67 74 79; 59 60 64 67 72; 57 60 64 67 72; 50 57 62 66 72; 55 59 62 67 71"""
SIXTEENTH = 0.2  # seconds


def performance(seed: int = 846) -> tuple[np.ndarray, np.ndarray]:
    """The eleven bars as a pianist might play them: slightly uneven, with a swell and the pedal changed every bar."""
    rng, notes, pedal, now = np.random.default_rng(seed), [], [], 0.5
    bars = [[int(pitch) for pitch in line.split()] for line in BARS.split(";")]
    for number, (low, second, *upper) in enumerate(bars):
        pedal += [(now - 0.06, 0), (now + 0.12, 127)]
        pace = SIXTEENTH * (1.0 if number < len(bars) - 1 else 1.25)
        swell = 62 + 16 * np.sin(np.pi * number / len(bars))
        for half in range(2):
            for place, pitch in enumerate([low, second, *upper, *upper]):
                onset = now + (half * 8 + place) * pace + rng.normal(0, 0.006)
                held = (8 - place if place < 2 else 1.1) * pace
                velocity = swell + 6 * (place == 4) + rng.normal(0, 3)
                notes.append((onset, onset + held, pitch, velocity))
        now += 16 * pace
    for pitch in (43, 55, 59, 62, 67):
        notes.append((now + rng.normal(0, 0.006), now + 2.5, pitch, 58 + rng.normal(0, 3)))
    pedal += [(now - 0.06, 0), (now + 0.12, 127), (now + 2.6, 0)]
    onset, offset, pitch, velocity = np.array(notes).T
    played = make_notes(onset, offset, pitch.astype(int), np.round(velocity))
    return played, make_pedal(*np.array(pedal).T)


def main(pack: Path) -> None:
    """Write demo.flac and demo.mid into the package; the audio of PACK.json lies beside it."""
    samples = next(path for path in pack.parent.glob(pack.stem + ".*") if path != pack)
    notes, pedal = performance()
    voicing = Voicing(stretch_cents=4, key_cents=1.5, release_ms=90, onset_delay_ms=4, seed=1)
    sampled = load_pack(pack, sf.read(samples, dtype="float32")[0])
    dry = render(notes, pedal, sampled, voicing)
    room = synthetic_room(np.random.default_rng(11))
    wet = add_room(dry, room)
    hiss = np.random.default_rng(0).standard_normal(len(wet)).astype(np.float32)
    sound = 0.5 * wet / np.abs(wet).max() + 2e-4 * hiss
    folder = Path(__file__).parents[1] / "pianoamt" / "demo"
    write_audio(folder / "demo.flac", sound)
    write_midi(folder / "demo.mid", notes, pedal)


if __name__ == "__main__":
    typer.run(main)
