"""Train the pulse network and measure sheet music on performances with known scores.

`python tools/experiments/sheet.py train DATA RUN` trains from the pack in DATA and writes RUN and RUN_hands (.safetensors, .onnx);
`python tools/experiments/sheet.py measure DATA USE` prints a row a title and the means, and `--json FILE` keeps them.
DATA holds score_pack.npz and manifest.csv; USE is validation, test or real_dev.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import mir_eval
import numpy as np
import torch

from pianoamt.grid import TICKS, quantise, to_ticks
from pianoamt.hands import find_keys, hand_logits, spell_notes, split_hands
from pianoamt.notes import make_pedal
from pianoamt.pulse import (
    BAR_PLACES,
    BEAT_UNITS,
    FEATURES,
    find_pulse,
    group_features,
    make_groups,
    split_heads,
)
from pianoamt.pulse_train import (
    NONE,
    HandNet,
    PulseNet,
    PulseRecipe,
    read_pack,
    save_network,
    train_hands,
    train_pulse,
)
from pianoamt.result import to_pretty_midi
from pianoamt.sheet import SheetOptions, find_timing, make_score
from pianoamt.voices import make_voices


def train(data: Path, run: Path, steps: int) -> None:
    """Train from scratch; the rarer a title's performances, the more often each is drawn."""
    pieces = [piece for _, piece in read_pack(data, "train")]
    counts = Counter(piece.title for piece in pieces)
    chances = np.array([len(p.notes) ** 0.5 / counts[p.title] ** 0.6 for p in pieces])
    started, recipe = time.time(), PulseRecipe(steps=steps)
    training = train_pulse(pieces, recipe, PulseNet(), chances / chances.sum())
    for step, losses, averaged in training:
        if step % 100 == 0:
            print(
                step,
                f"{time.time() - started:.0f} s",
                {k: round(v, 3) for k, v in losses.items()},
                flush=True,
            )
        if step % 500 == 0 or step == steps:
            save_network(
                averaged, run, (1, 300, FEATURES), {"steps": step, "recipe": recipe.__dict__}
            )
    known = opinions(averaged.eval(), pieces[::2])
    *_, (_, loss, hands) = train_hands(known, steps, HandNet())
    print("hands", round(loss, 3))
    save_network(hands, run.with_name(f"{run.name}_hands"), (1000, 1688), {"steps": steps})


def opinions(network, pieces):
    """The pulse network's opinion on the hand of each note."""
    known = []
    for piece in pieces:
        groups = make_groups(piece.notes)
        features = torch.as_tensor(group_features(piece.notes, piece.presses, groups))[None]
        with torch.no_grad():
            heads = split_heads(network(features)[0].numpy())
        pitch = piece.notes["pitch"].astype(int)
        known.append((piece, groups, heads["hand"][groups.group, pitch - 21]))
    return known


def to_pedal(presses):
    """Presses as a pedal table."""
    value = np.tile([127, 0], len(presses))
    return make_pedal(presses.ravel(), value)


def score_beats(piece, pulse):
    """Beats and bars, found without any help."""
    timing = find_timing(pulse, SheetOptions())
    inside = (timing.beats > pulse.time[0] - 0.07) & (timing.beats < pulse.time[-1] + 0.07)
    found, down = timing.beats[inside], timing.beats[inside & (timing.bars[:, 1] == 0)]
    true_down = piece.beats[[place >= 0 and BAR_PLACES[place][1] == 0 for place in piece.place]]
    continuity = mir_eval.beat.continuity(piece.beats, found)
    return timing, {
        "beat_F": mir_eval.beat.f_measure(piece.beats, found),
        "CMLt": continuity[1],
        "AMLt": continuity[3],
        "downbeat_F": mir_eval.beat.f_measure(true_down, down) if len(true_down) else np.nan,
    }


def peer_beats(piece):
    """Beats by pretty_midi, and by partitura where it is installed."""
    notes, found = piece.notes, {}
    midi = to_pretty_midi(notes, make_pedal())
    found["pretty_midi"] = midi.get_beats()
    try:
        from partitura.musicanalysis import estimate_time
    except ImportError:
        partitura = None
    else:
        fields = [("onset_sec", "f4"), ("duration_sec", "f4"), ("pitch", "i4"), ("velocity", "i4")]
        partitura = np.zeros(len(notes), dtype=fields)
        partitura["onset_sec"], partitura["pitch"] = notes["onset"], notes["pitch"]
        partitura["duration_sec"] = notes["offset"] - notes["onset"]
        partitura["velocity"] = notes["velocity"]
        beats = np.array(estimate_time(partitura)["beats"], dtype=float)
        found["partitura"] = beats.reshape(len(beats), -1)[:, 0] if len(beats) else beats
    scores = {}
    for name, beats in found.items():
        scores[f"{name}_F"] = mir_eval.beat.f_measure(piece.beats, np.sort(beats))
        scores[f"{name}_CMLt"] = mir_eval.beat.continuity(piece.beats, np.sort(beats))[1]
    return scores


def score_notes(piece, pulse, lengths):
    """Position, hand, key, spelling and length when the beats are known."""
    group, pitch, labels = pulse.groups.group, piece.notes["pitch"].astype(int), piece.labels
    compound = np.mean(piece.unit == BEAT_UNITS.index("dotted quarter")) > 0.5
    beat, slot = quantise(
        pulse.time, pulse.groups.count, piece.beats, bool(compound), np.exp(pulse.heads["phase"])
    )
    ticks, _ = to_ticks(beat, slot, 24)
    known = labels["phase"] >= 0
    close = np.abs(ticks[group] / 24 - labels["beat"] - labels["phase"]) < 0.03
    hand, true_hand = (
        split_hands(pulse.groups, pitch, hand_logits(piece.notes, pulse)),
        labels["hand"],
    )
    bar_starts = piece.beats[[place >= 0 and BAR_PLACES[place][1] == 0 for place in piece.place]]
    bar = np.maximum(np.searchsorted(bar_starts, pulse.time + 0.05) - 1, 0)
    chroma = np.zeros((len(pulse.time), 12))
    np.add.at(chroma, (group, pitch % 12), 1)
    keys = find_keys(bar, int(bar.max()) + 1, pulse.heads["key"], chroma)[bar][group]
    keyed, spelled = labels["key"] > NONE, labels["fifths"] > NONE
    names = spell_notes(group, pitch, keys, pulse.heads["spelling"])
    return {
        "position": close[known].mean() if known.any() else np.nan,
        "hand": (hand == 1 - true_hand)[true_hand >= 0].mean()
        if (true_hand >= 0).any()
        else np.nan,
        "key": (keys == labels["key"])[keyed].mean() if keyed.any() else np.nan,
        "spelling": (names == labels["fifths"])[spelled].mean() if spelled.any() else np.nan,
        "length": score_lengths(piece, lengths),
    }


def score_lengths(piece, lengths):
    """Written lengths, with true positions and hands."""
    start, wanted, per_beat = lengths
    right = total = 0
    beats = np.interp(piece.notes["offset"], piece.beats, per_beat)
    for hand in (0, 1):
        own = (piece.labels["hand"] == hand) & (wanted > 0)
        if own.sum() < 2:
            continue
        ticks = np.rint(start[own] / 10).astype(int)
        found, _ = make_voices(
            ticks, beats[own] / 10, piece.notes["pitch"][own], TICKS, int(ticks.max()) + TICKS
        )
        right += (np.abs(found - wanted[own] / 10) < 1.5).sum()
        total += own.sum()
    return right / total if total else np.nan


def score_page(score):
    """How readable the printed values are."""
    from pianoamt.musicxml import measure_parts

    symbols = []
    ends = score.notes["start"] + score.notes["length"]
    for measure in score.measures:
        last = measure.start + measure.length
        rows = np.flatnonzero((score.notes["start"] < last) & (ends > measure.start))
        for part in measure_parts(score, measure, rows):
            symbols += [(s, measure) for s in part.symbols if s.notes]
    kinds = Counter(s.kind for s, _ in symbols)
    plain = sum(not any(s.ties) and not s.triplet and not s.dots for s, _ in symbols)
    over = sum(s.ties[1] and s.start + s.length == m.start + m.length for s, m in symbols)
    whole = max(1, len(symbols))
    return {
        "under_16th": (kinds["32nd"] + kinds["64th"]) / whole,
        "under_32nd": kinds["64th"] / whole,
        "plain": plain / whole,
        "ties_a_bar": over / max(1, len(score.measures)),
    }


def measure(data: Path, use: str, per_title: int, peers: bool) -> list[dict]:
    """Measure a split; at most a few performances of each title."""
    with np.load(data / "score_pack.npz") as pack:
        arrays = {
            name: pack[name]
            for name in (
                "note_index",
                "q_delta",
                "q_dur",
                "flag",
                "beat_index",
                "beat_q_delta",
                "beat_delta_ms",
                "on_delta_ms",
                "pitch",
            )
        }
    seen, rows = Counter(), []
    for row, piece in read_pack(data, use):
        seen[piece.title] += 1
        if row["source"] == "amaps" or row["source"] == "cpm" or seen[piece.title] > per_title:
            continue
        started = time.time()
        pulse = find_pulse(piece.notes, to_pedal(piece.presses))
        timing, result = score_beats(piece, pulse)
        i = int(row["i"])
        note, beat = (slice(*arrays[f"{name}_index"][i : i + 2]) for name in ("note", "beat"))
        order = np.lexsort(
            (arrays["pitch"][note], np.cumsum(arrays["on_delta_ms"][note].astype(int)))
        )
        start = np.cumsum(arrays["q_delta"][note].astype(int))[order]
        wanted = np.where(arrays["flag"][note] & 3 == 1, arrays["q_dur"][note].astype(int), 0)[
            order
        ]
        kept = np.append(True, np.diff(np.cumsum(arrays["beat_delta_ms"][beat].astype(int))) > 30)
        per_beat = np.cumsum(arrays["beat_q_delta"][beat].astype(int))[kept]
        result |= score_notes(piece, pulse, (start, wanted, per_beat))
        score = make_score(piece.notes, pulse, timing, SheetOptions())
        if peers:
            result |= peer_beats(piece)
        result |= score_page(score) | {"seconds": time.time() - started}
        rows.append({"title": piece.title, **{k: round(float(v), 4) for k, v in result.items()}})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("data", type=Path)
    parser.add_argument("target", help="a path without suffix to train, a split to measure")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--per-title", type=int, default=1)
    parser.add_argument("--peers", action="store_true", help="beats by other programs, too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.what == "train":
        train(args.data, Path(args.target), args.steps)
        return
    rows = measure(args.data, args.target, args.per_title, args.peers)
    means = {
        k: round(float(np.nanmean([row[k] for row in rows])), 4) for k in rows[0] if k != "title"
    }
    print(json.dumps(means, indent=1))
    if args.json:
        args.json.write_text(
            json.dumps({"use": args.target, "mean": means, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
