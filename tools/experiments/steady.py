"""Is a transcription steady? `python tools/experiments/steady.py RECORDING… [--hours 3] [--weights tiny]` prints one JSON object.

silence: each recording, and the same with ten seconds of silence in front; the share of notes that return within 5 ms.
hiss: the same with ten seconds of faint noise in front, which, unlike silence, moves the network's windows and chunks.
stream: the same share between what a stream finds and what is found offline, in both directions.
drift: a pattern of notes repeated for hours at 44.1 kHz; how much later its last minute comes than its first, in ms.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import soxr
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.notes import PEDAL_DTYPE, make_notes
from pianoamt.score import match_notes
from pianoamt.sonify import sonify
from pianoamt.transcription import Transcriber

IN_FRONT, HISS = 10, 1e-4  # seconds; amplitude
RATE = 44_100  # Hz, of the drift test
BEAT, PATTERN = 2, 60  # seconds between strokes; of the pattern that is repeated


def agreement(pairs):
    """Share of the notes of both sides that have a partner of the same pitch within 5 ms, over all recordings."""
    pairs = list(pairs)
    matches = sum(2 * len(match_notes(one, other, 0.005)) for one, other in pairs)
    return round(matches / max(1, sum(len(one) + len(other) for one, other in pairs)), 5)


def behind(transcriber, audio, loudness):
    """What is found in a recording with ten seconds of noise in front, on its own clock."""
    noise = np.random.default_rng(0).normal(0, loudness, IN_FRONT * SAMPLE_RATE).astype(np.float32)
    notes = transcriber.transcribe(np.concatenate([noise, audio]), SAMPLE_RATE).notes
    notes["onset"] -= IN_FRONT
    return notes


def stream(transcriber, audio, tuning):
    """What a stream finds, fed in blocks of a tenth of a second, and its bound on latency."""
    live = transcriber.stream(SAMPLE_RATE, tuning=tuning)
    for start in range(0, len(audio), SAMPLE_RATE // 10):
        live.feed(audio[start : start + SAMPLE_RATE // 10])
    live.close()
    return live.notes(), live.latency


def drift(transcriber, hours):
    """Median lag of the last minute against that of the first, and their number of notes."""
    onsets = np.arange(1, PATTERN, BEAT, dtype=float)
    pitches = 48 + 5 * np.arange(len(onsets)) % 36
    notes = make_notes(onsets, onsets + 1, pitches, np.full(len(onsets), 80))
    pattern = np.concatenate(list(sonify(notes, np.zeros(0, PEDAL_DTYPE))))
    pattern = np.pad(pattern, (0, PATTERN * SAMPLE_RATE))[: PATTERN * SAMPLE_RATE]
    pattern = soxr.resample(pattern, SAMPLE_RATE, RATE)
    times = round(hours * 3600 / PATTERN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="RF64") as file:
            for _ in range(times):
                file.write(pattern)
        notes = transcriber.transcribe(path).notes
    lags = []  # of the first and the last minute
    for minute in (0, times - 1):
        wanted = make_notes(onsets + PATTERN * minute, onsets + PATTERN * minute + 1, pitches)
        pairs = match_notes(wanted, notes, 0.1)
        lags.append(notes["onset"][pairs[:, 1]] - wanted["onset"][pairs[:, 0]])
    drift_ms = round(1000 * float(np.median(lags[1]) - np.median(lags[0])), 3)
    counts = {"strokes_a_minute": len(onsets), "found_first_and_last": [*map(len, lags)]}
    return {"hours": hours, **counts, "drift_ms": drift_ms}


def main(
    recordings: Annotated[list[Path] | None, typer.Argument()] = None,
    hours: float = 0,  # length of the drift test; 0 leaves it out
    weights: str | None = None,  # other weights than the bundled ones
    streams: bool = True,  # --no-streams leaves them out
):
    """Do what was asked for."""
    transcriber, found = Transcriber(weights), {}
    if recordings:
        sounds = [read_audio(path) for path in recordings]
        results = [transcriber.transcribe(sound, SAMPLE_RATE) for sound in sounds]
        offline = [result.notes for result in results]
        found["recordings"], found["notes"] = len(sounds), sum(map(len, offline))
        for name, loudness in (("silence", 0), ("hiss", HISS)):
            moved = [behind(transcriber, sound, loudness) for sound in sounds]
            found[name] = agreement(zip(offline, moved, strict=True))
        if streams:
            pairs = zip(sounds, results, strict=True)
            live = [stream(transcriber, sound, result.tuning) for sound, result in pairs]
            found["stream"] = agreement(zip(offline, [notes for notes, _ in live], strict=True))
            found["latency_s"] = round(live[0][1], 3)
    if hours:
        found["drift"] = drift(transcriber, hours)
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
