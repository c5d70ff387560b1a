"""Train the pulse network and measure sheet music on performances with known scores.

`python tools/experiments/sheet.py pulse DATA RUN` trains the pulse network on the pack in DATA and writes RUN.safetensors and
RUN.onnx, with `--start WEIGHTS` from there; `keys DATA RUN`, `hands DATA RUN --start PULSE` and `grid DATA RUN --start PULSE`
train the others;
`python tools/experiments/sheet.py measure DATA USE` prints a row a title and the means, and `--json FILE` adds them to a file.
DATA holds score_pack.npz and manifest.csv; USE is validation, test or real_dev, the last with `--audio FOLDER` from the sound.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import mir_eval
import numpy as np
import pretty_midi
import torch
from safetensors.torch import load_file

from pianoamt.grid import GRID_FEATURES, TICKS, place_chances, quantise, to_ticks
from pianoamt.hands import (
    HAND_FEATURES,
    KEY_FEATURES,
    count_pitch_classes,
    find_keys,
    first_opinion,
    hand_logits,
    spell_notes,
    split_hands,
)
from pianoamt.notes import make_pedal
from pianoamt.pulse import (
    BAR_PLACES,
    BEAT_UNITS,
    FEATURES,
    Pulse,
    find_pulse,
    group_features,
    make_groups,
    split_heads,
)
from pianoamt.pulse_train import (
    NONE,
    PulseNet,
    SheetRecipe,
    cut_excerpt,
    make_batch,
    make_pulse_targets,
    pulse_losses,
    read_pack,
    save_network,
    train_network,
)
from pianoamt.result import to_pretty_midi
from pianoamt.sheet import SheetOptions, find_timing, make_score
from pianoamt.sheet_train import (
    GridNet,
    SmallNet,
    grid_batch,
    grid_losses,
    hand_batch,
    hand_losses,
    key_batch,
    key_losses,
    place_chords_by_score,
)
from pianoamt.voices import make_voices


def train(data: Path, run: Path, recipe: SheetRecipe, start: Path | None, what: str) -> None:
    """Train one of the networks."""
    shape, *lesson = prepare_training(data, start, what)
    judge = validation_losses(data) if what == "pulse" else lambda _: ""
    print("start", judge(lesson[0]), flush=True)
    started, recent = time.time(), []
    network, *lesson = lesson
    for step, losses, averaged in train_network(network, recipe, *lesson):
        recent.append(losses)
        if step % 500 == 0 or step == recipe.steps:
            means = {k: round(float(np.mean([x[k] for x in recent if k in x])), 3) for k in losses}
            print(step, f"{time.time() - started:.0f} s", means, judge(averaged), flush=True)
            save_network(averaged, run, shape, {"step": step, "recipe": recipe.__dict__})
            recent = []


def prepare_training(data: Path, start: Path | None, what: str) -> tuple:
    """Shape of the input, network, what it learns from, batches, losses, chance of each piece."""
    needed = {"pulse": ("beat", -1), "keys": ("key", NONE), "hands": ("hand", -1)}
    label, unknown = needed.get(what, ("phase", -1))
    pieces = [piece for _, piece in read_pack(data, "train")]
    pieces = [piece for piece in pieces if (piece.labels[label] > unknown).sum() > 1]
    chances = title_chances([p.title for p in pieces], [len(p.notes) for p in pieces])
    pulse = PulseNet()
    if start:
        pulse.load_state_dict(load_file(start))
    if what == "pulse":
        return (1, 300, FEATURES), pulse, pieces, make_batch, pulse_losses, chances
    if what == "keys":
        known = [count_keys(piece) for piece in {p.title: p for p in pieces}.values()]
        return (1500, KEY_FEATURES), SmallNet(KEY_FEATURES, 16), known, key_batch, key_losses, None
    judged = [(piece, judge_piece(pulse.eval(), piece)) for piece in pieces]
    if what == "hands":
        known = [(piece, said.groups, first_opinion(piece.notes, said)) for piece, said in judged]
        network = SmallNet(HAND_FEATURES)
        return (1000, HAND_FEATURES), network, known, hand_batch, hand_losses, chances
    known = [place_chords_by_score(piece, said) for piece, said in judged]
    return (1, 300, GRID_FEATURES), GridNet(), known, grid_batch, grid_losses, chances


def count_keys(piece):
    """Pitch classes and signature of each chord."""
    groups = make_groups(piece.notes)
    counts = count_pitch_classes(groups, piece.notes["pitch"].astype(int))
    return counts, piece.labels["key"][groups.first].astype(int)


def validation_losses(data: Path, chords: int = 512):
    """A function that gives the losses on the validation titles, as they were played."""
    rng, batches, seen = np.random.default_rng(0), [], Counter()
    for _, piece in read_pack(data, "validation"):
        seen[piece.title] += 1
        if seen[piece.title] > 2:
            continue
        excerpt = cut_excerpt(piece, 2 * chords, rng)
        groups = make_groups(excerpt.notes)
        features = group_features(excerpt.notes, excerpt.presses, groups)
        targets = make_pulse_targets(excerpt, groups)
        batches.append((torch.as_tensor(features)[None], targets))

    def judge(network):
        network.eval()
        every = []
        for features, targets in batches:
            with torch.no_grad():
                outputs = network(features)
            wanted = {name: torch.as_tensor(values)[None] for name, values in targets.items()}
            every.append(pulse_losses(outputs, wanted))
        network.train()
        names = sorted({name for losses in every for name in losses})
        means = {n: float(np.mean([x[n] for x in every if n in x])) for n in names}
        return {name: round(value, 3) for name, value in means.items()}

    return judge


def judge_piece(network, piece):
    """What the pulse network says of a performance."""
    groups = make_groups(piece.notes)
    features = torch.as_tensor(group_features(piece.notes, piece.presses, groups))[None]
    with torch.no_grad():
        return Pulse(groups, split_heads(network(features)[0].numpy()))


def title_chances(titles: list[str], lengths: list[int]) -> np.ndarray:
    """How often each performance is drawn: the rarer its title's performances, the more often."""
    counts = Counter(titles)
    chances = [n**0.5 / counts[title] ** 0.6 for title, n in zip(titles, lengths, strict=True)]
    return np.array(chances) / np.sum(chances)


def to_pedal(presses):
    """Presses as a pedal table."""
    value = np.tile([127, 0], len(presses))
    return make_pedal(presses.ravel(), value)


def score_beats(piece, notes, pulse):
    """Beats and bars, found without any help."""
    timing = find_timing(notes, pulse, SheetOptions())
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
    """Beats by pretty_midi, and by partitura and MuseScore where they are installed."""
    notes, midi = piece.notes, to_pretty_midi(piece.notes, make_pedal())
    found = {"pretty_midi": midi.get_beats()}
    try:
        from partitura.musicanalysis import estimate_time
    except ImportError:
        print("partitura is not installed")
    else:
        fields = [("onset_sec", "f4"), ("duration_sec", "f4"), ("pitch", "i4"), ("velocity", "i4")]
        played = np.zeros(len(notes), dtype=fields)
        played["onset_sec"], played["pitch"] = notes["onset"], notes["pitch"]
        played["duration_sec"] = notes["offset"] - notes["onset"]
        played["velocity"] = notes["velocity"]
        beats = np.array(estimate_time(played)["beats"], dtype=float)
        found["partitura"] = beats.reshape(len(beats), -1)[:, 0] if len(beats) else beats
    if shutil.which("mscore3"):
        found["MuseScore 3"] = musescore_beats(midi)
    scores = {}
    for name, beats in found.items():
        scores[f"{name}_F"] = mir_eval.beat.f_measure(piece.beats, np.sort(beats))
        scores[f"{name}_CMLt"] = mir_eval.beat.continuity(piece.beats, np.sort(beats))[1]
    return scores


def musescore_beats(midi):
    """When the beats of the score that MuseScore makes of a MIDI file were played."""
    with tempfile.TemporaryDirectory() as folder:
        played, score = Path(folder) / "played.mid", Path(folder) / "score.mid"
        midi.write(str(played))
        environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
        command = ["mscore3", "-o", str(score), str(played)]
        subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
        written = pretty_midi.PrettyMIDI(str(score))
    pairs = []
    for pitch in range(21, 109):
        both = [
            sorted(n.start for i in file.instruments for n in i.notes if n.pitch == pitch)
            for file in (written, midi)
        ]
        if len(both[0]) == len(both[1]):  # the same notes, in the same order
            pairs += list(zip(*both, strict=True))
    inside, outside = np.array(sorted(pairs)).T
    _, first = np.unique(inside, return_index=True)
    beats = np.interp(written.get_beats(), inside[first], outside[first])
    return np.unique(beats)


def score_notes(piece, pulse, lengths):
    """Position, hand, key, spelling and length when the beats are known."""
    group, pitch, labels = pulse.groups.group, piece.notes["pitch"].astype(int), piece.labels
    compound = np.mean(piece.unit == BEAT_UNITS.index("dotted quarter")) > 0.5
    beat, slot = quantise(
        pulse.time,
        pulse.groups.count,
        piece.beats,
        bool(compound),
        place_chances(piece.notes, pulse, piece.beats),
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
    counts = count_pitch_classes(pulse.groups, pitch)
    keys = find_keys(bar, int(bar.max()) + 1, counts)[bar][group]
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
    down = [place >= 0 and BAR_PLACES[place][1] == 0 for place in piece.place]
    bars = np.unique(np.rint(per_beat[down] / 10).astype(int))
    for hand in (0, 1):
        own = (piece.labels["hand"] == hand) & (wanted > 0)
        if own.sum() < 2:
            continue
        ticks = np.rint(start[own] / 10).astype(int)
        held, pitch, end = beats[own] / 10, piece.notes["pitch"][own], int(ticks.max()) + TICKS
        known = bars if len(bars) else None
        found, _ = make_voices(ticks, held, pitch, TICKS, end, False, known)
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
    values = sum(not s.ties[0] for s, _ in symbols)  # tied symbols are one value
    plain = sum(not any(s.ties) and not s.triplet and not s.dots for s, _ in symbols)
    over = sum(s.ties[1] and s.start + s.length == m.start + m.length for s, m in symbols)
    whole = max(1, len(symbols))
    return {
        "under_16th": (kinds["32nd"] + kinds["64th"]) / whole,
        "under_32nd": kinds["64th"] / whole,
        "plain": plain / max(1, values),
        "ties_a_bar": over / max(1, len(score.measures)),
    }


def read_scores(data: Path):
    """A function that gives written starts and lengths, and the written place of each beat."""
    names = "note_index q_delta q_dur flag beat_index beat_q_delta beat_delta_ms on_delta_ms pitch"
    with np.load(data / "score_pack.npz") as pack:
        arrays = {name: pack[name] for name in names.split()}

    def scores_of(row):
        i = int(row["i"])
        note, beat = (slice(*arrays[f"{name}_index"][i : i + 2]) for name in ("note", "beat"))
        played = np.cumsum(arrays["on_delta_ms"][note].astype(int))
        order = np.lexsort((arrays["pitch"][note], played))
        start = np.cumsum(arrays["q_delta"][note].astype(int))[order]
        known = arrays["flag"][note] & 3 == 1
        wanted = np.where(known, arrays["q_dur"][note].astype(int), 0)[order]
        kept = np.append(True, np.diff(np.cumsum(arrays["beat_delta_ms"][beat].astype(int))) > 30)
        return start, wanted, np.cumsum(arrays["beat_q_delta"][beat].astype(int))[kept]

    return scores_of


def printed_plain(lengths):
    """The share of the printed values that are one plain symbol."""
    plain = [480 * 2**k // 16 for k in range(7)]  # a 64th to a whole note
    wanted = lengths[1][lengths[1] > 0]
    return np.isin(wanted, plain).mean() if len(wanted) else np.nan


def printed_ties(piece, lengths):
    """How many chords of each hand the printed score ties over a bar line, a bar."""
    start, wanted, per_beat = lengths
    down = [place >= 0 and BAR_PLACES[place][1] == 0 for place in piece.place]
    bars = np.append(np.unique(per_beat[down]), 1e9)
    if len(bars) < 3 or not (piece.labels["hand"] >= 0).any():
        return np.nan
    over = start + wanted > bars[np.searchsorted(bars[:-1], start, side="right")] + 5
    over &= (wanted > 0) & (piece.labels["hand"] >= 0)
    return len(set(zip(start[over], piece.labels["hand"][over], strict=True))) / (len(bars) - 1)


def measure(data: Path, use: str, per_title: int, peers: bool) -> list[dict]:
    """Measure a split; at most a few performances of each title."""
    seen, rows, scores_of = Counter(), [], read_scores(data)
    for row, piece in read_pack(data, use):
        seen[piece.title] += 1
        if row["source"] == "amaps" or row["source"] == "cpm" or seen[piece.title] > per_title:
            continue
        started = time.process_time()
        pulse = find_pulse(piece.notes, to_pedal(piece.presses))
        timing, result = score_beats(piece, piece.notes, pulse)
        score = make_score(piece.notes, pulse, timing, SheetOptions())
        result |= score_page(score) | {"seconds": time.process_time() - started}
        lengths = scores_of(row)
        result |= score_notes(piece, pulse, lengths)
        result["printed_ties_a_bar"] = printed_ties(piece, lengths)
        result["printed_plain"] = printed_plain(lengths)
        if peers:
            result |= peer_beats(piece)
        rows.append({"title": piece.title, **{k: round(float(v), 4) for k, v in result.items()}})
        print(rows[-1], flush=True)
    return rows


def measure_recordings(data: Path, folder: Path) -> list[dict]:
    """Beats and bars of the real recordings, transcribed from their sound."""
    from pianoamt.transcription import Transcriber

    transcriber, rows = Transcriber(), []
    for row, piece in read_pack(data, "real_dev"):
        heard = transcriber.transcribe(folder / f"{row['maps_file']}.flac")
        result = score_beats(piece, heard.notes, find_pulse(heard.notes, heard.pedal))[1]
        rows.append({"title": piece.title, **{k: round(float(v), 4) for k, v in result.items()}})
        print(rows[-1], flush=True)
    return rows


def keep_results(file: Path, means: dict, rows: list[dict], use: str, name: str | None) -> None:
    """Put a measurement into a file and leave the others in it alone."""
    results = json.loads(file.read_text()) if file.exists() else {}
    if name:
        columns = ("beat_F", "CMLt", "AMLt", "downbeat_F")
        results.setdefault("real", {})[name] = {column: means[column] for column in columns}
    else:
        before = {row["title"]: row for row in results.get("rows", [])}
        rows = [before.get(row["title"], {}) | row for row in rows]
        results |= {"use": use, "mean": results.get("mean", {}) | means, "rows": rows}
    file.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["pulse", "keys", "hands", "grid", "measure"])
    parser.add_argument("data", type=Path)
    parser.add_argument("target", help="a path without suffix to train, a split to measure")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="chords of an excerpt, or notes")
    parser.add_argument("--rate", type=float, default=0.0025)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--start", type=Path, help="weights of a pulse network, .safetensors")
    parser.add_argument("--per-title", type=int, default=1)
    parser.add_argument("--audio", type=Path, help="folder of the recordings of real_dev")
    parser.add_argument("--peers", action="store_true", help="beats by other programs, too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    average = 1 - 1 / min(1000, max(100, args.steps // 10))
    recipe = SheetRecipe(
        args.steps, args.batch, args.length, args.rate, average=average, bfloat16=args.bfloat16
    )
    if args.what != "measure":
        train(args.data, Path(args.target), recipe, args.start, args.what)
        return
    found = args.audio and measure_recordings(args.data, args.audio)
    rows = found or measure(args.data, args.target, args.per_title, args.peers)
    means = {
        k: round(float(np.nanmean([row[k] for row in rows])), 4) for k in rows[0] if k != "title"
    }
    print(json.dumps(means, indent=1))
    if args.json:
        real = "from the sound" if args.audio else "from their MIDI"
        keep_results(
            args.json, means, rows, args.target, real if args.target == "real_dev" else None
        )


if __name__ == "__main__":
    main()
