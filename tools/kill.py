"""Work that is killed: `python tools/kill.py resample --kills 100 --seed 1`, or preprocess, or transcribe.

Each round copies a small folder, starts the command on it, kills it by signal 9 at a random moment (or, every fifth
time, lets it run against a limit on the size of files, as on a full disk), and looks: every file has either its old
contents or those of an undisturbed run. Then the command
runs again, and the folder must equal that of an undisturbed run.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("pianoamt")
COMMANDS = {
    "resample": ["resample", "in", "--jobs", "2"],
    "preprocess": ["preprocess", "in", "--store", "out", "--jobs", "2"],
    "transcribe": ["transcribe", "in", "--out", "out"],
}
SMALL_DISK = 20_000  # bytes a file may have


def make(folder: Path, pieces: int) -> None:
    """Write recordings with their notes."""
    import numpy as np

    from pianoamt.audio import write_audio
    from pianoamt.notes import make_notes, write_midi

    for number in range(pieces):
        audio = 0.2 * np.sin(np.arange(2 * 44_100) * (0.05 + 0.01 * number))
        write_audio(folder / "in" / f"{number}.wav", audio, 44_100)
        write_midi(folder / "in" / f"{number}.mid", make_notes([0.1], [1.0], [60 + number]))


def contents(folder: Path) -> dict[str, str]:
    """Files and the checksums of their contents; reports of a run, which name times, by their names alone."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): ""
        if path.suffix in (".csv", ".html") or "report" in path.name
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def start(command: str, folder: Path, small_disk: bool = False) -> subprocess.Popen:
    """The command, as a group of processes of its own."""

    def limit() -> None:
        if small_disk:
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, SMALL_DISK))

    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [PROGRAM, *COMMANDS[command]], cwd=folder, preexec_fn=limit, start_new_session=True, env=environment, **pipes
    )


def complete(command: str, folder: Path) -> float:
    """Run the command undisturbed; the seconds it took."""
    begin, process = time.monotonic(), start(command, folder)
    said = process.communicate()[1]
    assert process.returncode == 0, f"{command} failed: {said}"
    return time.monotonic() - begin


def disturb(command: str, folder: Path, delay: float, small_disk: bool) -> None:
    """Kill the command after some seconds, or let it meet the end of the disk."""
    process = start(command, folder, small_disk)
    if small_disk:
        said = process.communicate()[1]
        assert "Traceback" not in said and "internal error" not in said, said
        return
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def check(before: dict[str, str], now: dict[str, str], after: dict[str, str]) -> None:
    """Every file is whole: the old one or the new one; only temporary files may lie about."""
    lost = [name for name in before if name not in now and name in after]
    assert not lost, f"lost: {lost}"
    for name, digest in now.items():
        temporary = Path(name).name.startswith(".")
        whole = digest in (before.get(name), after.get(name)) or Path(name).suffix == ".json"
        assert temporary or whole, f"half-written: {name}"


def main() -> int:
    """Kill, look, run again, compare; as often as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, killed, filled = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as top:
        fresh, undisturbed = Path(top) / "fresh", Path(top) / "undisturbed"
        make(fresh, args.pieces)
        shutil.copytree(fresh, undisturbed)
        seconds = complete(args.command, undisturbed)
        before, after = contents(fresh), contents(undisturbed)
        for number in range(args.kills):
            folder = Path(top) / f"round{number}"
            shutil.copytree(fresh, folder)
            small_disk = number % 5 == 4
            disturb(args.command, folder, seconds * draw.random(), small_disk)
            killed, filled = killed + (not small_disk), filled + small_disk
            check(before, contents(folder), after)
            complete(args.command, folder)
            again = contents(folder)
            differ = sorted(name for name in {*again, *after} if again.get(name) != after.get(name))
            assert not differ, f"round {number}: not as undisturbed: {differ}"
            shutil.rmtree(folder)
    print(f"kill: {args.command} killed {killed} times and run on a full disk {filled} times; every rerun completed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
