"""Make a folder of development pieces on two instruments: `python tools/experiments/development.py data studies/development`.

Links to the nine real recordings of DATA/maps_disklavier_dev, and beside them as many minutes of MAESTRO's validation
performances, rendered in rooms on a sampled piano that no training used, for `pianoamt fit-thresholds`.
"""

from pathlib import Path

import numpy as np
import typer

from pianoamt.audio import write_audio
from pianoamt.augment import Augmentation, augment
from pianoamt.corpus import load_midi_pack
from pianoamt.notes import write_midi
from pianoamt.render import draw_voicing, render
from pianoamt.segments import cut_performance, load_rooms, read_piano

SECONDS, MARGIN = 60.0, 2.0  # of an excerpt; at its end, without onsets


def render_excerpts(data: Path, out: Path, piano: str, count: int, seed: int) -> None:
    """Excerpts as .flac and .mid; the same seed gives the same ones."""
    rng, rooms = np.random.default_rng(seed), load_rooms(data / "rooms")
    pack = read_piano(data / "pianos" / f"{piano}.json")
    performances = load_midi_pack(data / "midi" / "maestro_v3_train_val.npz")
    usable = np.flatnonzero(np.asarray(performances.split) == "validation")
    for number, index in enumerate(rng.choice(usable, count, replace=False)):
        whole = performances.performance(int(index))
        start = rng.uniform(0, max(0.0, whole.seconds - SECONDS))
        notes, pedal = cut_performance(whole.notes, whole.pedal, start, SECONDS)
        notes = notes[(notes["onset"] >= 0) & (notes["onset"] < SECONDS - MARGIN)]
        pedal["time"] = np.clip(pedal["time"], 0, SECONDS)
        sound = render(notes, pedal, pack, draw_voicing(rng, detune_cents=5), seconds=SECONDS)
        write_audio(out / f"{piano}_{number:02}.flac", augment(sound, rng, rooms, Augmentation()))
        write_midi(out / f"{piano}_{number:02}.mid", notes, pedal)


def main(
    data: Path,  # for training and measuring
    out: Path,  # folder to fill
    piano: str = "vcsl_upright1",  # a pack of DATA/pianos that no training heard
    count: int = 9,  # excerpts to render
    seed: int = 11,  # chooses pieces, places, rooms
) -> None:
    """Fill the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "maps_disklavier_dev").iterdir()):
        if path.suffix in (".flac", ".mid") and not (out / path.name).exists():
            (out / path.name).symlink_to(path.resolve())
    render_excerpts(data, out, piano, count, seed)


if __name__ == "__main__":
    typer.run(main)
