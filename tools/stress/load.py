"""Much work at once: `python tools/stress/load.py --files 2000 --threads 8 --hours 10 --engine onnx`, or less of it.

Three parts, each in a process of its own: a folder of short recordings through `pianoamt transcribe DIR`; threads that
share one `Transcriber` and must all hear what one alone hears; and one long recording, whose length must not show in
the memory. Memory is what the processes of a part hold together, looked at twice a second. Prints one JSON object.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("pianoamt"))
SHORT, POINTS = 4.0, 60  # seconds of a short recording; places in a trace


# ---- memory ----


def children() -> dict[int, list[int]]:
    """Processes by the process that started them."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().partition(" ")
            found.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(number))
        except OSError:  # it has ended
            continue
    return found


def held(process: int) -> float:
    """Memory of a process and all that it started, MB; shared pages count for each."""
    family, tree, total = [process], children(), 0.0
    while family:
        family += tree.get(member := family.pop(), [])
        try:
            pages = int(Path(f"/proc/{member}/statm").read_text().split()[1])
            total += pages * 4096 / 1e6
        except OSError:
            continue
    return total


def watched(command: list[str]) -> dict:
    """Run a command; its exit code, output, seconds, and memory over time, thinned out to its highest points."""
    begin, trace = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        while process.poll() is None:
            trace.append(held(process.pid))
            time.sleep(0.5)
        seconds = time.monotonic() - begin
        out.seek(0)
        err.seek(0)
        said, complained = out.read(), err.read()
    step = -(-len(trace) // POINTS)
    thinned = [round(max(trace[place : place + step])) for place in range(0, len(trace), step)]
    third = max(1, len(trace) // 3)
    frozen_statistics, last = (
        max(trace[third : 2 * third], default=0.0),
        max(trace[-third:], default=0.0),
    )
    memory = {
        "peak_mb": round(max(trace)),
        "growth": round(last / frozen_statistics, 3) if frozen_statistics else None,
        "trace_mb": thinned,
    }
    told = {
        "exit_code": process.returncode,
        "said": said,
        "complained": complained.splitlines()[:20],
    }
    return {**told, "seconds": round(seconds, 1), **memory}


# ---- the three parts ----


def chosen(args: argparse.Namespace, folder: Path) -> list[str]:
    """The options that name engine and weights; the ONNX engine gets a model made of them."""
    weights = args.weights
    if args.engine == "onnx" and weights and not weights.endswith(".onnx"):
        from pianoamt.engine import find_weights
        from pianoamt.onnx_engine import export_onnx

        export_onnx(folder / "model.onnx", find_weights(weights))
        weights = str(folder / "model.onnx")
    return ["--engine", args.engine, *(["--weights", weights] if weights else [])]


def many_files(args: argparse.Namespace, folder: Path) -> dict:
    """A folder of short recordings, each another piece of the demo."""
    from pianoamt.audio import SAMPLE_RATE, read_audio, write_audio

    demo, size = (
        read_audio(str(files("pianoamt") / "demo" / "demo.flac")),
        round(SHORT * SAMPLE_RATE),
    )
    for number in range(args.files):
        first = number * 997 % max(1, len(demo) - size)
        write_audio(
            folder / "in" / f"{number // 100:02}" / f"{number:05}.flac", demo[first : first + size]
        )
    out = folder / "out"
    command = [
        PROGRAM,
        "transcribe",
        str(folder / "in"),
        "--recursive",
        "--out",
        str(out),
        "--quiet",
    ]
    found = watched(
        [*command, *chosen(args, folder), *(["--jobs", str(args.jobs)] if args.jobs else [])]
    )
    totals = json.loads((out / "report.json").read_text())["totals"]
    left = [path.name for path in out.rglob(".pianoamt*")]
    found |= {
        "files": args.files,
        "written": len(list(out.rglob("*.mid"))),
        "totals": totals,
        "left_behind": left,
    }
    found["ok"] = (
        found["exit_code"] == 0 and found["written"] == args.files == totals["done"] and not left
    )
    return found


def work_in_threads(args: argparse.Namespace) -> dict:
    """Many threads with one transcriber; every result must be the one that a single thread gets."""
    from pianoamt.audio import SAMPLE_RATE, read_audio
    from pianoamt.transcription import Transcriber

    demo = read_audio(str(files("pianoamt") / "demo" / "demo.flac"))[: 12 * SAMPLE_RATE]
    sounds = [demo[second * SAMPLE_RATE :] for second in range(3)]
    transcriber = Transcriber(args.weights, "cpu", engine=args.engine)

    def decode_blocks(number: int) -> str:
        result = transcriber.transcribe(sounds[number % 3])
        return hashlib.sha256(result.notes.tobytes() + result.pedal.tobytes()).hexdigest()

    alone = [decode_blocks(number) for number in range(3)]
    with ThreadPoolExecutor(args.threads) as pool:
        heard = list(pool.map(decode_blocks, range(args.threads * args.turns)))
    same = sum(digest == alone[number % 3] for number, digest in enumerate(heard))
    return {"transcriptions": len(heard), "same": same, "threads_left": threading.active_count()}


def threads(args: argparse.Namespace, folder: Path) -> dict:
    """The same in a process of its own."""
    engine, *weights = chosen(args, folder)[1::2]
    words = [
        "--part",
        "threads",
        "--threads",
        str(args.threads),
        "--turns",
        str(args.turns),
        "--engine",
        engine,
    ]
    found = watched(
        [sys.executable, __file__, *words, *(["--weights", weights[0]] if weights else [])]
    )
    found |= json.loads(found["said"] or "{}") | {"threads": args.threads, "said": ""}
    found["ok"] = found["exit_code"] == 0 and found.get("same") == found.get("transcriptions")
    return found


def long_recording(args: argparse.Namespace, folder: Path) -> dict:
    """One recording of many hours."""
    from pianoamt.audio import SAMPLE_RATE, read_audio, write_blocks
    from pianoamt.notes import read_midi

    demo = read_audio(str(files("pianoamt") / "demo" / "demo.flac"))
    times = max(1, round(args.hours * 3600 * SAMPLE_RATE / len(demo)))
    write_blocks(folder / "long.flac", (demo for _ in range(times)))
    command = [
        PROGRAM,
        "transcribe",
        str(folder / "long.flac"),
        "--out",
        str(folder / "out"),
        "--quiet",
    ]
    found = watched([*command, *chosen(args, folder)])
    notes = read_midi(folder / "out" / "long.mid").notes
    found |= {"hours": round(times * len(demo) / SAMPLE_RATE / 3600, 3), "notes": len(notes)}
    found["last_onset_hours"] = round(float(notes["onset"].max()) / 3600, 3)
    found["ok"] = (
        found["exit_code"] == 0 and found["last_onset_hours"] > 0.99 * found["hours"] - 0.01
    )
    return found


def main() -> int:
    """Run the parts that are asked for, and tell by the exit code whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--files", type=int, default=30, help="short recordings in a folder; 0 leaves this out"
    )
    parser.add_argument(
        "--threads", type=int, default=4, help="with one transcriber; 0 leaves this out"
    )
    parser.add_argument("--turns", type=int, default=3, help="transcriptions of each thread")
    parser.add_argument(
        "--hours", type=float, default=1 / 6, help="of the long recording; 0 leaves this out"
    )
    parser.add_argument("--engine", default="onnx", help="onnx or torch")
    parser.add_argument("--weights", help="a file, or tiny; the bundled ones if not given")
    parser.add_argument("--jobs", type=int, help="processes for the folder")
    parser.add_argument("--json", type=Path, help="write the summary here, too")
    parser.add_argument("--part", choices=["threads"], help="used by the tool itself")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(work_in_threads(args)))
        return 0
    found = {"engine": args.engine, "weights": args.weights or "bundled"}
    for name, size, part in (
        ("folder", args.files, many_files),
        ("threads", args.threads, threads),
        ("long", args.hours, long_recording),
    ):
        if size:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = part(args, Path(folder))
    text = json.dumps(found)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    return (
        0
        if all(found[name]["ok"] for name in ("folder", "threads", "long") if name in found)
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
