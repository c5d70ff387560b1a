"""Test commands that are killed: `python tools/stress/kill.py --kills 200 --seed 1`, or some commands: `… resample train`.

Each round copies a small folder and disturbs a command that works on it: most often it is killed by signal 9 at a
random moment, several times in a row; or files may not grow, as on a full disk; or the folder may not be written to;
or two processes do the same at once. Then every file must have its old contents or those of an undisturbed run, and
once the command has run again, the folder must equal that of an undisturbed run.

Commands run in forks of this process, which has loaded the libraries already, so the signal meets work, not imports.
It computes in one thread, because a fork of a process with OpenMP threads would wait for them for ever.
"""

import contextlib
import csv
import ctypes
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

os.environ["OMP_NUM_THREADS"] = "1"  # before anything loads NumPy or PyTorch

COMMANDS = {
    "resample": "resample in --jobs JOBS",
    "preprocess": "preprocess in --store out --bins-per-semitone 1 --gamma 8 --jobs JOBS",
    "transcribe": "transcribe in --out out --weights w.safetensors --engine torch --jobs JOBS",
    "train": "train recipe.json out --data store --cpu",
    "search": "search recipe.json out --data store --cpu --n-trials 2 --steps 5 --hidden-sizes 8 8",
}
SMALL_DISK = {"transcribe": 100, "train": 3_000}  # bytes a file may have
ROUNDS = ("kill", "kill", "full disk", "kill", "read-only", "kill", "two at once")
KILLS = 5  # in a row
GROWING = (".db", ".json", ".jsonl", ".safetensors", ".pt", ".csv")  # may be between old and new


def small_config():  # a ModelConfig, built when torch is there
    """The smallest network that has all parts."""
    from pianoamt.hcqt import HCQTConfig
    from pianoamt.model import ModelConfig

    hcqt = HCQTConfig(bins_per_semitone=(1,), gamma=8.0)
    return ModelConfig(hcqt, 2, 1, 4, (12, 19), (12,), 1, 2, 2, 2)


def make(folder: Path, pieces: int) -> None:
    """Write recordings with their notes, weights, a recipe and a feature store."""
    import numpy as np

    from pianoamt.audio import write_audio
    from pianoamt.corpus import open_corpus
    from pianoamt.model import PianoNet, save_weights
    from pianoamt.notes import make_notes, write_midi
    from pianoamt.store import preprocess

    for number in range(pieces):
        audio = 0.2 * np.sin(np.arange(2 * 44_100) * (0.05 + 0.01 * number))
        write_audio(folder / "in" / f"{number}.wav", audio, 44_100)
        write_midi(folder / "in" / f"{number}.mid", make_notes([0.1], [1.0], [60 + number]))
    save_weights(PianoNet(small_config()), folder / "w.safetensors")
    preprocess(open_corpus(folder / "in", "folder"), folder / "store", small_config().hcqt, jobs=1)
    run = {"steps": 8, "batch_size": 1, "segment_frames": 32, "precision": "no", "log_every": 1}
    run |= {"save_seconds": 0, "model": asdict(small_config())}
    recipe = {"data": {"store": "store"}, "train": run}
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def fingerprint(path: Path) -> str:
    """What must be the same in every run; reports, which hold times, must only be whole."""
    from safetensors import safe_open

    if path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path)) as book:
            assert book.execute("pragma integrity_check").fetchone() == ("ok",), f"damaged: {path}"
            if not book.execute("select 1 from sqlite_master where name = 'trials'").fetchone():
                return "0 trials"
            done = "select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
            return f"{book.execute(done).fetchone()[0]} trials"
    data = path.read_bytes()
    if path.suffix == ".json":
        table = json.loads(data)
        if path.name == "manifest.json":  # of a store; it names the folders of its sources
            names = [{**each, "origin": Path(each["origin"]).name} for each in table["pieces"]]
            data = repr({**table, "pieces": names})
    if path.suffix == ".safetensors":  # the order of its metadata changes from run to run
        with safe_open(path, framework="np") as file:
            notes = sorted((file.metadata() or {}).items())
            data = repr(
                [notes, *((name, file.get_tensor(name).tobytes()) for name in sorted(file.keys()))]
            )
    if path.suffix == ".pt":  # its records are named after the temporary file
        import torch
        from torch.utils._pytree import tree_leaves

        leaves = tree_leaves(torch.load(path, weights_only=True))
        data = repr([torch.as_tensor(leaf).tolist() for leaf in leaves if leaf is not None])
    if path.suffix == ".csv":
        rows = list(csv.reader(data.decode().splitlines()))
        assert len({len(row) for row in rows}) <= 1, f"half-written: {path.name}"
    if path.suffix in (".csv", ".jsonl") or path.name == "best.json":
        return ""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """Files and their fingerprints, without hidden files and SQLite's journal."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    paths = [path for path in paths if not path.name.endswith("-journal")]
    return {str(path.relative_to(folder)): fingerprint(path) for path in paths}


def check(before: dict[str, str], now: dict[str, str], after: dict[str, str]) -> None:
    """Nothing is lost, and what is neither old nor new is at least whole."""
    lost = [name for name in before if name not in now and name in after]
    assert not lost, f"lost: {lost}"
    other = [name for name in now if now[name] not in (before.get(name), after.get(name))]
    torn = [name for name in other if Path(name).suffix not in GROWING]
    assert not torn, f"half-written: {torn}"


def drop_power() -> None:
    """Make the permissions of folders hold for the administrator, too."""
    version, override = 0x20080522, 1 << 1  # of the kernel's interface; CAP_DAC_OVERRIDE
    library, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 6)()
    head = (ctypes.c_uint32 * 2)(version, 0)
    assert library.capget(head, sets) == 0
    sets[0] &= ~override
    assert library.capset(head, sets) == 0


class Run:
    """A command at work in a fork of this process, in a group of its own."""

    def __init__(self, command: str, folder: Path, jobs: int, largest: int = 0, weak: bool = False):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        words = COMMANDS[command].replace("JOBS", str(jobs)).split()
        fork = get_context("fork")
        self.process = fork.Process(target=self.work, args=(words, folder, largest, weak))
        self.process.start()

    def work(self, words: list[str], folder: Path, largest: int, weak: bool) -> None:
        """Do what the child does: run the command."""
        from pianoamt.cli import main

        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(self.errors.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(place, "w", 1) for place in (1, 2))
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        if weak:
            drop_power()
        sys.argv = ["pianoamt", *words]
        main()

    def wait(self, seconds: float = 300) -> int:
        """Return the exit code; -9 if we killed it after so many seconds."""
        self.process.join(seconds)
        for kill in (os.killpg, os.kill) if self.process.is_alive() else ():
            with contextlib.suppress(ProcessLookupError):  # it may not have its group yet
                kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return self.process.exitcode

    def require(self, *codes: int) -> None:
        """Wait; it must end with one of these exit codes, and without a traceback."""
        code = self.wait()
        self.errors.seek(0)
        text = self.errors.read()
        fault = "Traceback" in text or "internal error" in text
        assert code in codes and not fault, f"exit code {code}: {text}"


def disturb(kind: str, command: str, folder: Path, seconds: float, jobs: int) -> int:
    """Disturb a command; return how many processes were killed."""
    if kind == "kill":
        return int(Run(command, folder, jobs).wait(seconds) == -signal.SIGKILL)
    if kind == "full disk":
        Run(command, folder, jobs, SMALL_DISK.get(command, 20_000)).require(0, 1, 2)
    elif kind == "two at once":
        for run in [Run(command, folder, jobs), Run(command, folder, jobs)]:
            run.require(0, 1, 2)
    else:
        places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in places:
            place.chmod(0o555)
        try:
            Run(command, folder, jobs, weak=True).require(1, 2)
        finally:
            for place in places:
                place.chmod(0o755)
    return 0


def is_right(now: str | None, after: str | None, kind: str) -> bool:
    """Whether a file is that of an undisturbed run; two that search at once may add one trial."""
    if kind == "two at once" and now and after and after.endswith(" trials"):
        return 0 <= int(now.split()[0]) - int(after.split()[0]) <= 1
    return now == after


def play(command: str, fresh: Path, top: Path, kills: int, draw: random.Random) -> Counter[str]:
    """Disturb a command until it was killed so many times; count what happened."""
    undisturbed, done, number = top / "undisturbed", Counter[str](), 0
    shutil.copytree(fresh, undisturbed)
    begin = time.monotonic()
    Run(command, undisturbed, 1).require(0)
    seconds, before, after = time.monotonic() - begin, contents(fresh), contents(undisturbed)
    while done["kill"] < kills or number < len(ROUNDS):
        folder, kind = top / "round", ROUNDS[number % len(ROUNDS)]
        shutil.copytree(fresh, folder)
        for _ in range(KILLS if kind == "kill" else 1):
            jobs = 2 if number % 12 == 5 else 1
            killed = disturb(kind, command, folder, seconds * draw.random(), jobs)
            done[kind] += killed if kind == "kill" else 1
            check(before, contents(folder), after)
        if kind == "read-only":
            assert contents(folder) == before, "a folder that may not be written to has changed"
        Run(command, folder, 1).require(0)
        again = contents(folder)
        names = sorted({*again, *after})
        differ = [name for name in names if not is_right(again.get(name), after.get(name), kind)]
        assert not differ, f"round {number} ({kind}): not as undisturbed: {differ}"
        shutil.rmtree(folder)
        number += 1
        print(f"{command}, round {number}: {dict(done)}", flush=True)
    shutil.rmtree(undisturbed)
    return done


def main(
    commands: Annotated[list[str] | None, typer.Argument()] = None,  # some of `COMMANDS`
    kills: int = 10,  # of all commands together
    pieces: int = 3,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,  # for the counts
) -> None:
    """Disturb every command; an assertion tells what was lost."""
    import pianoamt.folders
    import pianoamt.study
    import pianoamt.validate

    pianoamt.study.import_optuna()
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        make(top / "fresh", pieces)
        for command in commands or COMMANDS:
            draw = random.Random(f"{seed}/{command}")
            share = -(-kills // len(commands or COMMANDS))
            counts[command] = dict(play(command, top / "fresh", top, share, draw))
    if json_file:
        text = json.dumps({"seed": seed, "commands": counts}, indent=1)
        json_file.write_text(f"{text}\n", encoding="utf-8")
    done = sum(count["kill"] for count in counts.values())
    print(f"{done} kills with seed {seed}: nothing lost, every rerun ended as if undisturbed")


if __name__ == "__main__":
    typer.run(main)
