"""A development folder that is not one instrument's: `python tools/experiments/development.py data studies/development`.

Links to the nine real recordings of DATA/maps_disklavier_dev, and beside them as many minutes of MAESTRO's validation
performances, rendered in rooms on a sampled piano that no training heard. `pianoamt tune-decoder` searches on both.
"""

import argparse
from pathlib import Path

import numpy as np

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


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="material for training and measuring")
    parser.add_argument("out", type=Path, help="folder to fill")
    parser.add_argument(
        "--piano", default="vcsl_upright1", help="a pack of DATA/pianos that no training heard"
    )
    parser.add_argument("--count", type=int, default=9, help="excerpts to render")
    parser.add_argument("--seed", type=int, default=11, help="chooses pieces, places, rooms")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted((args.data / "maps_disklavier_dev").iterdir()):
        if path.suffix in (".flac", ".mid") and not (args.out / path.name).exists():
            (args.out / path.name).symlink_to(path.resolve())
    render_excerpts(args.data, args.out, args.piano, args.count, args.seed)


if __name__ == "__main__":
    main()
