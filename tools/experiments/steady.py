"""Is a transcription steady? `python tools/experiments/steady.py RECORDING… [--weights tiny]` prints one JSON object.

silence: each recording, and the same with ten seconds of silence in front; the share of notes that return within 5 ms.
hiss: the same with ten seconds of faint noise in front, which, unlike silence, moves the network's windows and chunks.
stream: the same share between the notes of a stream and those of the whole file, in both directions.
"""

import json
from pathlib import Path

import numpy as np
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio
from pianoamt.score import match_notes
from pianoamt.transcription import Transcriber

IN_FRONT, HISS = 10, 1e-4  # seconds; amplitude


def agreement(pairs):
    """Share of the notes of both sides that have a partner of the same pitch within 5 ms, over all recordings."""
    matches = sum(2 * len(match_notes(one, other, 0.005)) for one, other in pairs)
    return round(matches / max(1, sum(len(one) + len(other) for one, other in pairs)), 5)


def behind(transcriber, audio, loudness):
    """The notes of a recording with ten seconds of noise in front, on the recording's own clock."""
    noise = np.random.default_rng(0).normal(0, loudness, IN_FRONT * SAMPLE_RATE).astype(np.float32)
    notes = transcriber.transcribe(np.concatenate([noise, audio]), SAMPLE_RATE).notes
    notes["onset"] -= IN_FRONT
    return notes


def stream(transcriber, audio, tuning):
    """The notes of a stream, fed in blocks of a tenth of a second."""
    live = transcriber.stream(SAMPLE_RATE, tuning=tuning)
    for start in range(0, len(audio), SAMPLE_RATE // 10):
        live.feed(audio[start : start + SAMPLE_RATE // 10])
    live.close()
    return live.notes()


def main(
    recordings: list[Path],
    weights: str | None = None,  # other weights than the bundled ones
):
    """Compare."""
    transcriber, rows = Transcriber(weights), {"silence": [], "hiss": [], "stream": []}
    for path in recordings:
        audio = read_audio(path)
        whole = transcriber.transcribe(audio, SAMPLE_RATE)
        rows["silence"].append((whole.notes, behind(transcriber, audio, 0)))
        rows["hiss"].append((whole.notes, behind(transcriber, audio, HISS)))
        rows["stream"].append((whole.notes, stream(transcriber, audio, whole.tuning)))
    notes = sum(len(whole) for whole, _ in rows["stream"])
    shares = {name: agreement(pairs) for name, pairs in rows.items()}
    print(json.dumps({"recordings": len(recordings), "notes": notes, **shares}))


if __name__ == "__main__":
    typer.run(main)
