"""How fast are whole commands? `python tools/experiments/speed.py RECORDING` prints a table and writes `results/speed.json`.

Each command runs alone, then beside a process that keeps one core busy; time and memory are measured from outside.
`--beside COMMAND` measures another `pianoamt` (that of an older version, say) in the same run.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import soundfile
import typer

from pianoamt.jobs import count_cores

BUSY = [sys.executable, "-c", "while True: pass"]
WAYS = {
    "default": [],
    "tiny": ["--weights", "tiny"],
    "PyTorch": ["--engine", "torch"],
    "tiny, PyTorch": ["--weights", "tiny", "--engine", "torch"],
}


def run(words):
    """Seconds of the clock, seconds of the processor and MB of one command."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2)\n"
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    code += "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.decode()[-300:]}")
    processor, peak = map(float, done.stdout.split())
    return {"seconds": seconds, "processor": processor, "megabytes": peak / 1024}


def measure(program, recording, options):
    """One command alone and beside a busy process."""
    with tempfile.TemporaryDirectory() as out:
        words = [*program, "transcribe", str(recording), "--out", out, "--overwrite", *options]
        alone = run(words)
        busy = subprocess.Popen(BUSY)
        try:
            return {"alone": alone, "beside": run(words)}
        finally:
            busy.kill()


def main(
    recording: Annotated[Path, typer.Argument(help="Some ten minutes of music.")],
    machine: Annotated[str, typer.Option(help="What the machine is, for the table.")] = "",
    beside: Annotated[str, typer.Option(help="Another `pianoamt`, as a command line.")] = "",
    out: Annotated[Path, typer.Option(help="The table, as JSON.")] = Path("results/speed.json"),
):
    """Measure all ways to transcribe a recording."""
    sound, rows = soundfile.info(recording), []
    programs = {"": [sys.executable, "-m", "pianoamt"]}
    if beside:
        programs["before: "] = beside.split()
    for way, options in WAYS.items():
        for version, program in programs.items():
            times = measure(program, recording, options)
            row = {"what": version + way}
            row["times_real_time"] = round(sound.duration / times["alone"]["seconds"], 1)
            row["beside_another"] = round(sound.duration / times["beside"]["seconds"], 1)
            row["processor_seconds"] = round(times["alone"]["processor"], 1)
            row["megabytes"] = round(times["alone"]["megabytes"])
            rows.append(row)
            print(*row.values(), sep="\t", flush=True)
    about = {"machine": machine, "cores": count_cores(), "minutes": round(sound.duration / 60, 1)}
    out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
