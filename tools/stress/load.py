"""Test under heavy load: `python tools/stress/load.py --files 2000 --threads 8 --hours 10 --engine onnx`, or less of it.

Three parts: a folder of short recordings through `pianoamt transcribe DIR`; threads that share one `Transcriber` and
must all get what one alone gets; and one long recording, whose length must not show in the memory. Memory is what
the processes of a part hold together, read twice a second. Prints one JSON object.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import psutil
import typer

from pianoamt.audio import SAMPLE_RATE, read_audio, write_audio, write_blocks
from pianoamt.notes import read_midi
from pianoamt.transcription import Transcriber

PIANOAMT = [sys.executable, "-m", "pianoamt", "transcribe", "--quiet"]
DEMO = read_audio(str(files("pianoamt") / "demo" / "demo.flac"))


def memory_of_family(process: int) -> float:
    """Memory of a process and all that it started, MB; shared pages count for each."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):  # one of them has just ended
        parent = psutil.Process(process)
        for member in (parent, *parent.children(recursive=True)):
            total += member.memory_info().rss / 1e6
    return total


def watch(words: list[str]) -> dict:
    """Run a command: exit code, output, seconds, highest memory, and how it grew from the middle to the end."""
    begin, trace = time.monotonic(), [0.0]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
        while process.poll() is None:
            trace.append(memory_of_family(process.pid))
            time.sleep(0.5)
        output.seek(0)
        lines = output.read().splitlines()[:20]
    seconds, third = time.monotonic() - begin, max(1, len(trace) // 3)
    middle = max(trace[third : 2 * third], default=0.0)
    growth = round(max(trace[-third:]) / middle, 3) if middle else None
    found = {"exit_code": process.returncode, "output": lines, "seconds": round(seconds, 1)}
    return found | {"peak_mb": round(max(trace)), "growth": growth}


def many_files(count: int, folder: Path, options: list[str]) -> dict:
    """A folder of short recordings, each another piece of the demo; then the same command again."""
    size = 4 * SAMPLE_RATE
    for number in range(count):
        first = number * 997 % (len(DEMO) - size)
        name = folder / "in" / f"{number // 100:02}" / f"{number:05}.flac"
        write_audio(name, DEMO[first : first + size])
    out = folder / "out"
    command = [*PIANOAMT, str(folder / "in"), "--out", str(out), *options]
    found = watch(command) | {"files": count}
    found["again_seconds"] = watch(command)["seconds"]
    rows = [json.loads(line) for line in (out / "report.jsonl").open()]
    found["done"] = sum(row["status"] == "done" for row in rows)
    found["left_behind"] = [path.name for path in out.rglob(".pianoamt*")]
    written = len(list(out.rglob("*.mid")))
    found["ok"] = found["exit_code"] == 0 and written == count == found["done"]
    return found


def share_one(count: int, turns: int, transcriber: Transcriber) -> dict:
    """Threads with one transcriber; every result must be the one that a single thread gets."""
    sounds = [DEMO[second * SAMPLE_RATE : 12 * SAMPLE_RATE] for second in range(3)]

    def transcribe(number: int) -> bytes:
        result = transcriber.transcribe(sounds[number % 3], SAMPLE_RATE)
        return result.notes.tobytes() + result.pedal.tobytes()

    alone = [transcribe(number) for number in range(3)]
    with ThreadPoolExecutor(count) as pool:
        heard = list(pool.map(transcribe, range(count * turns)))
    same = sum(result == alone[number % 3] for number, result in enumerate(heard))
    return {"transcriptions": len(heard), "same": same, "ok": same == len(heard)}


def long_recording(hours: float, folder: Path, options: list[str]) -> dict:
    """One recording of many hours."""
    times = max(1, round(hours * 3600 * SAMPLE_RATE / len(DEMO)))
    write_blocks(folder / "long.flac", (DEMO for _ in range(times)))
    found = watch([*PIANOAMT, str(folder / "long.flac"), "--out", str(folder / "out"), *options])
    notes = read_midi(folder / "out" / "long.mid").notes
    hours, last = times * len(DEMO) / SAMPLE_RATE / 3600, float(notes["onset"].max()) / 3600
    found |= {"hours": round(hours, 3), "notes": len(notes), "last_onset_hours": round(last, 3)}
    return found | {"ok": found["exit_code"] == 0 and last > 0.99 * hours - 0.01}


def main(
    files: int = 30,  # short recordings; 0 leaves this part out
    threads: int = 4,  # with one transcriber; or 0
    turns: int = 3,  # transcriptions of each thread
    hours: float = 1 / 6,  # of the long recording; or 0
    engine: str = "onnx",  # or torch
    weights: str | None = None,  # a file, or tiny; the bundled ones if not given
    jobs: int | None = None,  # processes for the folder
    json_file: Annotated[Path | None, typer.Option("--json")] = None,  # for the summary
) -> None:
    """Run the parts that are asked for; the exit code is 0 if all went well."""
    options = ["--engine", engine, *(["--weights", weights] if weights else [])]
    found: dict = {"engine": engine, "weights": weights or "bundled"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if files:
            how = [*options, *(["--jobs", str(jobs)] if jobs else [])]
            found["folder"] = many_files(files, place / "many", how)
        if threads:
            transcriber = Transcriber(weights, "cpu", engine=engine)
            found["threads"] = share_one(threads, turns, transcriber)
        if hours:
            found["long"] = long_recording(hours, place / "long", options)
    print(json.dumps(found))
    if json_file:
        json_file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    sys.exit(not all(found[part]["ok"] for part in ("folder", "threads", "long") if part in found))


if __name__ == "__main__":
    typer.run(main)
