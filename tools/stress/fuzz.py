"""Test with thousands of hostile files: `python tools/stress/fuzz.py --cases 10000 --seed 1`, or `--family MIDI`.

Hypothesis draws damaged and odd files of every kind, and a worker process gives each to the function that reads its
kind. That must end in a result or in a PianoamtError of one line: no other exception, no crash, no hang, at most 1.5 GB
of memory, no open file and no file left behind. Hypothesis shrinks what breaks to the smallest case. The same seed
makes the same cases.
"""

import contextlib
import functools
import io
import json
import math
import os
import random
import re
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import TimeoutError
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import hypothesis.strategies as st
import numpy as np
import soundfile as sf
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from pebble import ProcessExpired, ProcessPool

SECONDS, MEMORY = 120, 1_500_000_000  # that a case may take
HEADER = 200  # bytes of a sound file, at each of which it is cut
DEMO = files("pianoamt") / "demo"


def words(text: str) -> list[str]:
    """Split a list that is written as a text."""
    return text.split()


# ---- healthy files, to be damaged ----


@functools.cache
def sounds() -> dict[str, bytes]:
    """A sound of 60 ms in every form that libsndfile and FFmpeg write."""
    import av

    tone, made = 0.3 * np.sin(np.arange(7680) / 5), {}
    for form in words(
        "WAV/PCM_U8 WAV/PCM_16 WAV/PCM_24 WAV/FLOAT WAV/ULAW WAV/MS_ADPCM FLAC/PCM_16 OGG/VORBIS OGG/OPUS "
        "MP3/MPEG_LAYER_III WAVEX/PCM_16 RF64/PCM_16 AIFF/PCM_16 AU/FLOAT CAF/ALAC_16 W64/PCM_16"
    ):
        file, (kind, sub) = io.BytesIO(), form.split("/")
        rate = 48_000 if sub in ("OPUS", "MPEG_LAYER_III") else 16_000
        sf.write(file, tone if rate > 16_000 else tone[:960], rate, sub, format=kind)
        made[form] = file.getvalue()
    for form in words("mp4/aac matroska/flac adts/aac asf/wmav2 avi/pcm_s16le"):
        file, (kind, codec) = io.BytesIO(), form.split("/")
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=44_100, layout="mono")
            stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(
                tone[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.rate, frame.pts = 44_100, 0
            size = {"aac": 1024, "wmav2": 2048}.get(codec, 1152)
            cutter = av.AudioResampler(stream.format, "mono", 44_100, size)
            for piece in [*cutter.resample(frame), *cutter.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        made[form] = file.getvalue()
    return made


def small_config():  # a ModelConfig, built when torch is there
    """The smallest network that has all parts."""
    from pianoamt.hcqt import HCQTConfig
    from pianoamt.model import ModelConfig

    hcqt = HCQTConfig(bins_per_semitone=(1,), gamma=8.0)
    return ModelConfig(hcqt, 2, 1, 4, (12, 19), (12,), 1, 2, 2, 2)


@functools.cache
def healthy_weights() -> bytes:
    """A weights file of the smallest network."""
    from pianoamt.model import PianoNet, save_weights

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_weights(PianoNet(small_config()), path, {"decoder": {"onset_threshold": 0.4}})
        return path.read_bytes()


def make_store(folder: Path) -> Path:
    """Write a feature store of one short piece, and return its manifest."""
    from pianoamt.audio import write_audio
    from pianoamt.corpus import open_corpus
    from pianoamt.notes import make_notes, write_midi
    from pianoamt.store import preprocess

    write_audio(folder / "in" / "a.wav", 0.1 * np.sin(np.arange(16_000) / 6))
    write_midi(folder / "in" / "a.mid", make_notes([0.1, 0.5], [0.4, 0.9], [60, 64]))
    preprocess(open_corpus(folder / "in", "folder"), folder / "store", small_config().hcqt, jobs=1)
    return folder / "store" / "manifest.json"


@functools.cache
def healthy_manifest() -> object:
    """What the manifest of a store says."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(make_store(Path(folder)).read_bytes())


# ---- how files are damaged ----

PAYLOADS = st.one_of(
    st.sampled_from(
        [b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0" * 8, b"\0" * 500]
    ),
    st.binary(min_size=1, max_size=32),
)
EDITS = st.tuples(
    st.sampled_from(words("overwrite insert delete cut repeat")), st.floats(0, 1), PAYLOADS
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Change a few bytes as broken disks and transfers do, more often near the beginning."""
    body = bytearray(data)
    for what, place, payload in draw(st.lists(EDITS, min_size=1, max_size=6)):
        at = int(len(body) * place**3)
        if what == "overwrite":
            body[at : at + len(payload)] = payload
        elif what == "insert":
            body[at:at] = payload
        elif what == "repeat":
            body[at:at] = body[at : at + 100]
        else:
            del body[at : at + len(payload) if what == "delete" else None]
    return bytes(body)


NUMBERS = [-1, 0, 1, 128, 10**6, 2**31, 2**63, 10**30, -0.5, 1e308, math.nan, math.inf]
TEXTS = ["", "x", "x" * 10_000, "../../etc/passwd", "/etc/passwd", "a\nb", "\0", "\ud800", "inf"]
VALUES = [None, True, [], [0], [[]], {}, {"a": 1}, [1e308], [-1], [10**12], ["x"], *NUMBERS, *TEXTS]


@st.composite
def damaged_tree(draw: st.DrawFn, tree: object) -> object:
    """Replace, add or remove something anywhere in a JSON value."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        nodes = [tree]
        for node in nodes:
            inner = node.values() if isinstance(node, dict) else node
            nodes += [each for each in inner if isinstance(each, (dict, list))]
        node, value = draw(st.sampled_from(nodes)), draw(st.sampled_from(VALUES))
        keys = [*node] if isinstance(node, dict) else [*range(len(node))]
        key = draw(st.sampled_from([*keys, "x"] if isinstance(node, dict) else [*keys, None]))
        if key in keys and draw(st.integers(0, 5)) == 0:
            del node[key]
        elif key is None:
            node.append(value)
        else:
            node[key] = value
    return tree


def damaged_json(tree: object) -> st.SearchStrategy[bytes]:
    """A JSON text that is odd in its values, or in its bytes, or far too deep."""
    deep = [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b"\xff\xfe{}", b""]
    odd = damaged_tree(tree).map(lambda value: json.dumps(value).encode())
    return odd | odd | damaged(json.dumps(tree).encode()) | st.sampled_from(deep)


@st.composite
def damaged_tensors(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file with something wrong in its length, its header, its metadata or its numbers."""
    size = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    what = draw(st.sampled_from(words("bytes length pickle numbers header config info claim")))
    if what == "bytes":
        return draw(damaged(data))
    if what == "length":
        wrong = draw(st.sampled_from([0, 1, size - 1, 2**40, 2**63, 2**64 - 1]))
        return wrong.to_bytes(8, "little") + data[8:]
    if what == "pickle":
        return draw(st.sampled_from([b"\x80\x04\x95", b"PK\x03\x04"])) + bytes(500)
    if what == "numbers":
        return data[: 8 + size] + draw(st.sampled_from([b"\xff", b"\0\0\xc0\x7f"])) * len(body)
    notes = head.setdefault("__metadata__", {})
    if what == "header":
        head = draw(damaged_tree(head))
    elif what == "claim":
        name = next(key for key in head if key != "__metadata__")
        head[name] |= {"shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    else:
        tree = json.loads(notes.get(what, "{}"))
        notes[what] = draw(damaged_json(tree)).decode("utf-8", "replace")
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


# ---- odd files that are not damaged ----


@st.composite
def odd_sound(draw: st.DrawFn) -> bytes:
    """A WAV file that is whole, and declares or holds something odd."""
    channels = draw(st.sampled_from([0, 1, 1, 2, 3, 8, 32, 1024, 65_535]))
    rate = draw(st.sampled_from([0, 1, 10, 1000, 11_025, 44_100, 192_000, 768_001, 2**31]))
    bits, tag = draw(
        st.sampled_from([(8, 1), (16, 1), (24, 1), (32, 3), (64, 3), (0, 1), (12, 17)])
    )
    frames = draw(st.sampled_from([0, 1, 2, 3, 17, 1000]))
    data = draw(st.binary(min_size=8, max_size=8)) * (frames * channels * bits // 64)
    if tag == 3:
        odd = [math.nan, math.inf, 1e-40, 5e-324, 1e30, 1e300, -0.0]
        with np.errstate(over="ignore"):
            value = np.array(draw(st.sampled_from(odd))).astype(f"<f{bits // 8}")
        data = value.tobytes() * (frames * channels)
    size = draw(st.sampled_from([len(data), len(data), 0, 1, 2**31, 2**32 - 40, len(data) + 1]))
    block = channels * bits // 8
    form = (tag, channels, rate, rate * block % 2**32, block % 2**16, bits)
    head = b"WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", *form)
    sizes = [struct.pack("<I", number % 2**32) for number in (size + 36, size)]
    return b"RIFF" + sizes[0] + head + b"data" + sizes[1] + data


EVENTS = st.one_of(
    st.tuples(st.integers(0x80, 0xFF), st.integers(0, 127), st.integers(0, 127)).map(bytes),
    st.tuples(st.integers(0, 127), st.integers(0, 127)).map(bytes),
    st.sampled_from(
        [b"\xff\x51\x03\0\0\0", b"\xff\x51\x03\xff\xff\xff", b"\xf0\x03abc", b"\xc0\x05"]
    ),
)


@st.composite
def odd_midi(draw: st.DrawFn) -> bytes:
    """A MIDI file with any header and any tracks."""
    waits = st.sampled_from([b"\x05"] * 9 + [b"\0", b"\x81\0", b"\xff\xff\xff\x7f", b"\xff" * 4])
    tracks = draw(st.lists(st.lists(st.tuples(waits, EVENTS), max_size=60), max_size=4))
    division = draw(st.sampled_from([0, 1, 96, 480, 0x7FFF, 0xE728, 0x8000, 0xFFFF]))
    length = draw(st.sampled_from([6, 6, 6, 0, 2**32 - 1]))
    data = b"MThd" + struct.pack(">IHHH", length, draw(st.integers(0, 3)), len(tracks), division)
    for events in tracks:
        body = b"".join(wait + event for wait, event in events) + b"\0\xff\x2f\0"
        size = draw(st.sampled_from([len(body), len(body), len(body), 0, 2**32 - 1, 7]))
        data += b"MTrk" + struct.pack(">I", size) + body
    return data


CELLS = st.sampled_from(words("0.1 60 1e400 nan -inf -1 x 128 999999999999 0x10 1_000 ٣") + [""])
ROWS = st.lists(st.lists(CELLS | st.just("0.5"), max_size=5).map("\t".join), max_size=20)
TABLE = ROWS.map(lambda rows: "\n".join(rows).encode())
RECIPE = {
    "data": {"folder": "data", "recordings": ["a"], "midi_shares": {"x": 0.5}},
    "train": {
        **{"steps": 10, "batch_size": 2, "learning_rate": 0.001, "precision": "no", "seed": 1},
        "model": {"channels": 8, "dilations": [12, 19], "hcqt": {"bins_per_semitone": [1]}},
    },
}
ROW = {"recording": "/a.wav", "outputs": {"a.mid": 1.5}, "status": "done", "seconds": 3, "notes": 2}
COLUMNS = words(
    "canonical_composer canonical_title split year midi_filename audio_filename duration"
)
CELL = {"split": "train", "year": "2004", "audio_filename": "a.wav", "duration": "0.06"}
LIST = {name: {"0": CELL.get(name, "a.mid")} for name in COLUMNS}


# ---- who reads them; the result must make sense, too ----


def move(path: Path, place: Path) -> Path:
    """Move what is there, if anything, and return its new place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        path.rename(place)
    return place


def read_sound(path: Path) -> None:
    """Read a recording to its end, or for a minute of it."""
    from pianoamt.audio import read_blocks

    for block, _ in zip(read_blocks(path), range(2), strict=False):
        assert block.dtype == np.float32 and block.ndim == 1 and np.isfinite(block).all()


def read_notes(path: Path) -> None:
    """Read a MIDI file, write its notes to another, and read that again."""
    from pianoamt.notes import read_midi, write_midi

    found, copy = read_midi(path), path.with_name("copy.mid")
    write_midi(copy, found.notes, found.pedal)
    assert len(read_midi(copy).notes) == len(found.notes)
    copy.unlink()


def read_weights(path: Path) -> None:
    """Build the network of a weights file, and open it as `transcribe --weights` does."""
    from pianoamt.model import load_weights
    from pianoamt.transcription import Transcriber

    if path.suffix == ".safetensors":
        state = load_weights(path)[0].state_dict()
        assert all(tensor.isfinite().all() for tensor in state.values())
    Transcriber(path, "cpu")


def read_store(path: Path) -> None:
    """Put a file in the place of a store's manifest, and draw from the store."""
    from pianoamt.store import FeatureStore, StoreDataset

    manifest = make_store(path.parent / "whole")
    manifest.unlink()
    opened = FeatureStore(move(path, manifest).parent)
    if opened.pieces:
        StoreDataset(opened, tuple({piece.split for piece in opened.pieces}), 16)[0]


def read_recipe(path: Path) -> None:
    """Read a recipe and build its network."""
    from pianoamt.model import PianoNet
    from pianoamt.train import read_recipe

    PianoNet(read_recipe(path)[0].model)


def read_report(path: Path) -> None:
    """Plan a run over a folder that holds a report."""
    from pianoamt.folders import plan_run

    out = move(path, path.parent / "out" / "report.jsonl").parent
    (out / "in").mkdir()
    (out / "a.mid").touch()
    (out / "in" / "a.wav").write_bytes(sounds()["WAV/PCM_16"])
    run = plan_run([out / "in"], out)
    assert len(run.tasks) + len(run.results) == 1


def read_dataset(path: Path) -> None:
    """Open a dataset by its list; no piece may lie outside."""
    from pianoamt.corpus import open_corpus

    folder = move(path, path.parent / "data" / f"maestro-v3.0.0{path.suffix}").parent
    (folder / "a.mid").write_bytes((DEMO / "demo.mid").read_bytes())
    for piece in open_corpus(folder).pieces:
        for file in filter(None, (piece.audio, piece.midi)):
            assert Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def read_table(path: Path) -> None:
    """Read a table of notes."""
    from pianoamt.notes import read_tsv

    read_tsv(path)


def read_upload(path: Path) -> None:
    """Take what a page may send to the app: a name, a size, and pieces that do not fit."""
    from pianoamt.explore import Limits, Upload

    name, size, pieces = json.loads(path.read_text())
    upload = Upload(name, size, Limits())
    try:
        for count in pieces:
            upload.add(bytes(count))
        assert upload.path.parent == Path(upload.folder.name)
    finally:
        upload.folder.cleanup()


COMMANDS = (
    "check IN --jobs 1 --quiet|check IN --quick --jobs 1 --quiet|rename IN|resample IN --jobs 1 --quiet|"
    "resample IN --to OUT --jobs 1 --quiet|preprocess IN --store OUT --jobs 1 --bins-per-semitone 1|"
    "score IN IN|transcribe IN --out OUT --weights W --quiet|transcribe FILE --out OUT --weights W|"
    "transcribe FILE --out OUT --weights FILE|export OUT/x.onnx --weights FILE|train FILE OUT --cpu|"
    "check FILE|score FILE IN|resample FILE|pack FILE OUT --quiet|transcribe --files-from FILE --out OUT"
)


def run_commands(path: Path) -> None:
    """Give a folder with a healthy piece and the file to a command; it may fail in lines that a user understands."""
    from typer.testing import CliRunner

    from pianoamt.cli import app

    (path.parent / "in").mkdir()
    (path.parent / "w.safetensors").write_bytes(healthy_weights())
    (path.parent / "in" / "whole.wav").write_bytes(sounds()["WAV/PCM_16"])
    (path.parent / "in" / "whole.mid").write_bytes((DEMO / "demo.mid").read_bytes())
    place = path.rename(path.parent / "in" / path.name)
    line = random.Random(place.read_bytes()).choice(COMMANDS.split("|"))
    names = {"IN": "in", "OUT": "out", "OUT/x.onnx": "out/x.onnx", "W": "w.safetensors"}
    words = [str(place) if word == "FILE" else names.get(word, word) for word in line.split()]
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        done = CliRunner().invoke(app, words)
    finally:
        os.chdir(here)
    assert not done.exception or isinstance(done.exception, SystemExit), (line, done.exception)
    lines = done.output.splitlines()
    bad = [
        row for row in lines if not row.isprintable() or re.search("Traceback|internal error", row)
    ]
    assert not bad and done.exit_code in (0, 1, 2) and (lines or not done.exit_code), (line, lines)


def any_damaged_sound() -> st.SearchStrategy[bytes]:
    """Any sound file with a few bytes changed."""
    return st.sampled_from(sorted(sounds())).flatmap(lambda name: damaged(sounds()[name]))


def cut_header() -> st.SearchStrategy[bytes]:
    """Any sound file cut in its header."""
    places = st.tuples(st.sampled_from(sorted(sounds())), st.integers(1, HEADER))
    return places.map(lambda place: sounds()[place[0]][: place[1]])


def odd_upload() -> st.SearchStrategy[bytes]:
    """A name, a size and the sizes of pieces."""
    name, size = st.sampled_from([*VALUES, "a.wav", "..\\x.exe"]), st.sampled_from([5, *VALUES])
    odd = st.tuples(name, size, st.lists(st.integers(0, 10), max_size=3))
    return odd.map(lambda each: json.dumps(each).encode())


def any_midi() -> st.SearchStrategy[bytes]:
    """A MIDI file of our own nonsense, or a real one with damage."""
    return odd_midi() | odd_midi().flatmap(damaged) | damaged((DEMO / "demo.mid").read_bytes())


def any_file() -> st.SearchStrategy[bytes]:
    """Something of any kind, for the command line."""
    kinds = [odd_sound(), any_damaged_sound(), any_midi(), damaged_json(RECIPE)]
    return st.one_of(*kinds, damaged_tensors(healthy_weights()))


AUDIO, ONNX = ".wav .flac .mp3 .ogg .aiff .m4a .WAV .mkv", files("pianoamt") / "weights/tiny.onnx"
LINE = json.dumps(ROW).encode()
FAMILIES = {  # share of the cases in hundredths; endings; what makes the files; what reads them
    "cut header": (18, AUDIO, cut_header, read_sound),
    "odd sound": (12, AUDIO, odd_sound, read_sound),
    "damaged sound": (18, AUDIO, any_damaged_sound, read_sound),
    "MIDI": (16, ".mid .midi", any_midi, read_notes),
    "table of notes": (3, ".tsv", lambda: TABLE, read_table),
    "weights": (5, ".safetensors", lambda: damaged_tensors(healthy_weights()), read_weights),
    "ONNX model": (3, ".onnx", lambda: damaged(ONNX.read_bytes()), read_weights),
    "feature store": (2, ".json", lambda: damaged_json(healthy_manifest()), read_store),
    "recipe": (4, ".json", lambda: damaged_json(RECIPE), read_recipe),
    "report": (3, ".jsonl", lambda: damaged_json(ROW).map(lambda row: row + b"\n" + LINE), read_report),
    "dataset": (3, ".json", lambda: damaged_json(LIST), read_dataset),
    "upload": (2, ".json", odd_upload, read_upload),
    "command": (3, ".wav .mid .json .safetensors .sf2 .mp3", any_file, run_commands),
}  # fmt: skip
NAMES = ["case", "a\nb", "-rf", "🎹" * 60, "é x", "\udcff\udcfe", "%s{0}", "a'b\"c", " ", "con"]
PLACES = ["a folder", "a pipe", "a loop", "a dangling link", "/dev/zero", "nothing"]


# ---- one case, in a worker process ----


def odd_place(path: Path, what: str) -> None:
    """Make something that is not an ordinary file."""
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what != "nothing":
        target = {"a loop": path.name, "a dangling link": "nowhere"}.get(what, what)
        path.symlink_to(target)


def open_files(folder: Path) -> list[str]:
    """Files below a folder that this process has open."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(link))
    return [link for link in links if link.startswith(str(folder))]


def fault(error: BaseException, path: Path) -> str:
    """What is wrong with an exception; nothing if it is an answer."""
    from pianoamt.files import PianoamtError, show_path

    text = str(error)
    if not isinstance(error, PianoamtError):
        return f"{type(error).__name__}: {text[:300]}"
    words = text.replace(show_path(path), "").replace(str(path.parent), "")
    if re.search(r"alloc|out of memory|\wError:", words):
        return f"an inner failure shows: {text[:300]}"
    readable = text.isprintable() and 10 < len(words) <= 1000
    return "" if readable else f"not one readable line: {text[:300]!r}"


def run_case(name: str, stem: str, suffix: str, data: bytes | str) -> dict:
    """Write the file, read it, and say how that ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print to standard error
    with tempfile.TemporaryDirectory() as top:
        path = Path(top) / f"{stem}{suffix}"
        odd_place(path, data) if isinstance(data, str) else path.write_bytes(data)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        verdict, text = "result", ""
        try:
            FAMILIES[name][3](path)
        except BaseException as error:  # everything is a finding
            text = fault(error, path)
            verdict = "broken" if text else "refused"
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        left = [file.name for file in Path(top).rglob(".pianoamt-*")] + open_files(Path(top))
        if left and verdict != "broken":
            verdict, text = "broken", f"left behind or open: {left}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"verdict": verdict, "text": text.replace(top, ""), "peak": peak}


# ---- many cases ----


class Broken(AssertionError):
    """A case that broke; Hypothesis shrinks it."""


def play(name: str, cases: int, number: int, pool: ProcessPool) -> list[dict]:
    """Run the cases of one family; the last one may be the smallest that broke."""
    (_, endings, make, _), found = FAMILIES[name], []
    places = [] if name in ("command", "upload") else [st.sampled_from(PLACES)]
    content = st.one_of(*[make()] * 12, *places)
    stems, suffixes = st.sampled_from([*NAMES, *["case"] * 30]), st.sampled_from(endings.split())

    @seed(number)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    @given(stems, suffixes, content)
    def test(stem: str, suffix: str, data: bytes | str) -> None:
        begin = time.monotonic()
        future = pool.schedule(run_case, args=(name, stem, suffix, data), timeout=SECONDS)
        try:
            result = future.result()
        except ProcessExpired as error:
            result = {"verdict": "broken", "text": f"crash (exit code {error.exitcode})"}
        except TimeoutError:
            result = {"verdict": "broken", "text": f"hangs: no answer in {SECONDS} s"}
        result |= {"family": name, "seconds": time.monotonic() - begin, "file": f"{stem}{suffix}"}
        found.append(result | {"data": repr(data[:400])})
        if result["verdict"] == "broken":
            raise Broken(result["text"])

    with contextlib.suppress(Broken):
        test()
    return found


def main(
    cases: int = 300,
    seed: int = 0,
    family: str | None = None,  # only cases of this kind
    json_file: Annotated[Path | None, typer.Option("--json")] = None,  # for the summary
) -> None:
    """Run, print and tell by the exit code whether anything broke."""
    families, broken, slowest, peak = {}, [], 0.0, 0
    print(f"{'':16}{'result':>8}{'refused':>9}{'broken':>8}")
    with ProcessPool(1, max_tasks=500, context=get_context("spawn")) as pool:
        for name in [family] if family else FAMILIES:
            share = cases if family else max(1, cases * FAMILIES[name][0] // 100)
            results = play(name, share, seed, pool)
            counts = Counter(result["verdict"] for result in results)
            families[name] = {kind: counts[kind] for kind in ("result", "refused", "broken")}
            print(f"{name:16}{counts['result']:8}{counts['refused']:9}{counts['broken']:8}")
            broken += [result for result in results if result["verdict"] == "broken"][-1:]
            slowest = max(slowest, *(result["seconds"] for result in results))
            peak = max(peak, *(result.get("peak", 0) for result in results))
    for each in broken:
        print(f"BROKEN {each['family']} ({each['file']!r}, {each['data']}): {each['text']}")
    done = sum(sum(counts.values()) for counts in families.values())
    print(f"{done} cases with seed {seed}, {len(broken)} families broken")
    print(f"slowest case {slowest:.2f} s; most memory of a worker {peak / 1e6:.0f} MB")
    if json_file:
        table = {"seed": seed, "cases": done, "slowest_seconds": round(slowest, 2)}
        table |= {"peak_bytes": peak, "families": families, "broken": broken}
        json_file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(broken))


if __name__ == "__main__":
    typer.run(main)
