"""Hostile files, thousands of them: `python tools/stress/fuzz.py --cases 10000 --seed 1`; `--case N` repeats one.

Every case makes one damaged or odd file in an empty folder and gives it to the function that reads its kind, inside a
worker process. It must end in a result or in a PianoamtError of one line: no other exception, no crash, at most 10 s
of processor time (for each gigabyte, where a sparse file has several), at most 1.5 GB of memory, no open file and no
file left behind. The same seed makes the same cases.
"""

import argparse
import contextlib
import functools
import gc
import importlib
import io
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

PROCESSOR_SECONDS, WALL_SECONDS, MEMORY = 10, 20, 1_500_000_000
HEADER = 200  # bytes of a sound file, at each of which it is cut
Draw = random.Random


class Hang(BaseException):
    """A case took too long; no `except Exception` on the way may swallow it."""


# ---- what is damaged: small sound files of every kind ----


@functools.cache
def sounds() -> dict[str, bytes]:
    """A sound of 60 ms in every form that libsndfile writes."""
    import numpy as np
    import soundfile as sf

    tone = 0.3 * np.sin(np.arange(960) / 5)
    forms = [
        ("WAV", sub)
        for sub in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM")
    ]
    forms += [
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ]
    forms += [
        ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "FLOAT"),
        ("CAF", "ALAC_16"),
    ]
    forms += [("W64", "PCM_16")]
    made = {}
    for kind, sub in forms:
        if sub in sf.available_subtypes(kind):
            file = io.BytesIO()
            rate = 48_000 if sub in ("OPUS", "MPEG_LAYER_III") else 16_000
            sf.write(file, np.tile(tone, 8) if rate > 16_000 else tone, rate, sub, format=kind)
            made[f"{kind}/{sub}"] = file.getvalue()
    return made


@functools.cache
def foreign_sounds() -> dict[str, bytes]:
    """The same in a few containers that FFmpeg writes; nothing where PyAV is missing."""
    import numpy as np

    try:
        import av
    except ImportError:
        return {}
    made = {}
    tone = (0.3 * np.sin(np.arange(8 * 1152) / 9)).astype(np.float32)[None]
    for kind, codec in (
        ("mp4", "aac"),
        ("matroska", "flac"),
        ("adts", "aac"),
        ("asf", "wmav2"),
        ("avi", "pcm_s16le"),
    ):
        file = io.BytesIO()
        with contextlib.suppress(Exception), av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=44_100, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = 44_100, 0
            size = {"aac": 1024, "wmav2": 2048}.get(codec, 1152)
            cutter = av.AudioResampler(stream.format, "mono", 44_100, size)
            for piece in [*cutter.resample(frame), *cutter.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        if file.getvalue():
            made[f"{kind}/{codec}"] = file.getvalue()
    return made


def wav(
    samples: bytes,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    tag: int = 1,
    lie: int = 0,
) -> bytes:
    """A WAV file that says whatever it is told to."""
    block = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits
    )
    size = lie or len(samples)
    return (
        b"RIFF"
        + struct.pack("<I", size + 36 & 0xFFFFFFFF)
        + b"WAVEfmt \x10\0\0\0"
        + head
        + b"data"
        + struct.pack("<I", size & 0xFFFFFFFF)
        + samples
    )


# ---- how it is damaged ----

ODD_BYTES = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\0" * 8,
)


def damage(data: bytes, draw: Draw) -> bytes:
    """Change a few bytes the way that broken disks, transfers and editors do, more often near the beginning."""
    body = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = min(int(len(body) * draw.random() ** draw.choice((1, 3, 8))), max(len(body) - 1, 0))
        span = draw.choice((1, 2, 4, 8, 32, 500))
        match draw.randrange(9):
            case 0 if body:
                body[at] ^= 1 << draw.randrange(8)
            case 1:
                del body[at:]
            case 2:
                del body[at : at + span]
            case 3:
                body[at:at] = body[at : at + span]
            case 4:
                body[at:at] = draw.randbytes(span)
            case 5:
                body[at : at + span] = bytes(min(span, len(body) - at))
            case 6:
                body[at : at + span] = draw.randbytes(min(span, len(body) - at))
            case _:
                odd = draw.choice(ODD_BYTES)
                body[at : at + len(odd)] = odd
    return bytes(body)


ODD_VALUES = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2,
        3,
        128,
        10**6,
        2**31,
        2**63,
        10**30,
        -0.5,
        1.5,
        1e308,
        math.nan,
        math.inf,
    ),
    *(
        "",
        "x",
        "x" * 10_000,
        "../../etc/passwd",
        "/etc/passwd",
        "a\nb",
        "\0",
        "\ud800",
        "inf",
        [],
        [0],
        [[]],
        {},
    ),
    *({"a": 1}, [1e308], [-1], [10**12], ["x"], [None, None]),
)


def damage_tree(tree: object, draw: Draw) -> object:
    """Replace, add or remove something anywhere in a JSON value."""
    places: list[tuple] = []

    def visit(node: object) -> None:
        keys = (
            list(node)
            if isinstance(node, dict)
            else range(len(node))
            if isinstance(node, list)
            else ()
        )
        for key in keys:
            places.append((node, key))
            visit(node[key])

    tree = json.loads(json.dumps(tree))
    visit(tree)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if not places or not draw.randrange(40):
            return draw.choice(ODD_VALUES)
        node, key = draw.choice(places)
        with contextlib.suppress(LookupError):
            if not draw.randrange(6):
                del node[key]
            elif isinstance(node, dict) and not draw.randrange(10):
                node[draw.choice(("x", "format", "\n", "x" * 300))] = draw.choice(ODD_VALUES)
            else:
                node[key] = draw.choice(ODD_VALUES)
    return tree


def damaged_json(tree: object, draw: Draw) -> bytes:
    """A JSON text that is odd in its values, or in its bytes, or far too deep."""
    text = json.dumps(damage_tree(tree, draw) if draw.randrange(4) else tree)
    match draw.randrange(14):
        case 0:
            return damage(text.encode(), draw)
        case 1:
            return b"[" * 100_000 + b"]" * 100_000
        case 2:
            return draw.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\0")) + text.encode()
        case 3:
            return b'{"a":' * 50_000
        case 4:
            return b"9" * 10_000
    return text.encode()


# ---- the kinds of files; each maker writes one and tells what it did ----


def odd_place(path: Path, draw: Draw) -> str:
    """Something that is no ordinary file, in a file's place."""
    kind = draw.choice(
        ("folder", "pipe", "loop", "dangling", "zero", "socket", "missing", "empty", "name")
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may have 107 bytes
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
        os.chdir(here)
    elif kind == "empty":
        path.touch()
    return f"a {kind} in its place"


def cut_header(path: Path, number: int) -> str:
    """The systematic part: every form of sound file cut at every byte of its first 200."""
    forms = sounds()
    name = list(forms)[number // HEADER % len(forms)]
    path.write_bytes(forms[name][: number % HEADER + 1])
    return f"{name} cut after {number % HEADER + 1} bytes"


@functools.cache
def bomb() -> bytes:
    """Two gigabytes of zeros in a zip file of two megabytes that holds them twenty times over."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("sound.flac", "w") as entry,
    ):
        for _ in range(100):
            entry.write(bytes(2**20))
    return packed.getvalue() * 20


@functools.cache
def long_silence() -> bytes:
    """A FLAC file a thousand times smaller than its sound."""
    import numpy as np
    import soundfile as sf

    file = io.BytesIO()
    with sf.SoundFile(file, "w", 48_000, 2, "PCM_16", format="FLAC") as sound:
        for _ in range(30):
            sound.write(np.zeros((60 * 48_000, 2), np.int16))
    return file.getvalue()


def odd_sound(path: Path, draw: Draw) -> str:
    """A WAV file that is whole, and says or holds something odd."""
    import numpy as np

    channels, bits, tag = (
        draw.choice((1, 2, 3, 5, 6, 8, 16, 32)),
        draw.choice((8, 16, 24, 32, 32, 64)),
        1,
    )
    rate = draw.choice(
        (1, 10, 999, 1000, 8000, 11_025, 22_050, 44_100, 96_000, 192_000, 768_000, 768_001, 2**31)
    )
    frames = draw.choice((0, 1, 2, 3, 17, 1000))
    kinds = (
        "noise",
        "constant",
        "square",
        "values",
        "lie",
        "header",
        "sparse",
        "zip",
        "bomb",
        "shape",
    )
    what = draw.choice(kinds)
    data, lie = draw.randbytes(frames * channels * bits // 8), 0
    if what in ("constant", "square", "values"):
        bits, tag = draw.choice((32, 64)), 3
        odd = draw.choice((math.nan, math.inf, -math.inf, 1e-40, 5e-324, 1e30, 1e300, -0.0))
        values = np.ones(frames * channels) if what != "values" else np.full(frames * channels, odd)
        if what == "square":
            values[::2] = -1
        with np.errstate(over="ignore"):
            data = values.astype(f"<f{bits // 8}").tobytes()
    elif what == "lie":
        lie = draw.choice(
            (1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 40, len(data) + 1, max(len(data) - 1, 1))
        )
    elif what == "header":
        channels, bits, tag = (
            draw.choice((0, 1, 1024, 1025, 65_535)),
            draw.choice((0, 1, 7, 12, 65_535)),
            draw.choice((0, 1, 2, 3, 6, 0x11, 0x31, 0x55, 0xFFFE, 0xFFFF)),
        )
    elif what == "zip":
        path.write_bytes(bomb())
        return "a zip bomb named as a sound"
    elif what == "bomb":
        path.write_bytes(damage(long_silence(), draw) if draw.randrange(2) else long_silence())
        return "half an hour of silence in a small file"
    elif what == "shape":
        other = draw.choice(
            (
                b"<html>",
                b"%PDF-1.7",
                b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
                b"OggS" * 50,
                b"fLaC" * 9,
                b"\xff\xfb",
            )
        )
        path.write_bytes(other + draw.randbytes(draw.choice((0, 10, 5000))))
        return f"begins with {other[:8]!r}"
    path.write_bytes(wav(data, channels, rate, bits, tag, lie))
    if what == "sparse":
        path.write_bytes(wav(b"", channels, rate, bits, tag, draw.choice((2**31, 2**32 - 37))))
        os.truncate(
            path, draw.choice((2**31, 2**33, 44 + 10 * 3600 * 176_400))
        )  # the last: ten hours of a CD
    return f"{what}: {channels} channels, {bits} bits, {rate} Hz, {frames} frames"


def damaged_sound(path: Path, draw: Draw) -> str:
    """Any sound file with a few bytes changed."""
    name, data = draw.choice(list(sounds().items()))
    if not draw.randrange(8):
        data += draw.choice(list(sounds().values()))
    path.write_bytes(damage(data, draw))
    return f"{name} damaged"


def foreign_sound(path: Path, draw: Draw) -> str:
    """The same for what FFmpeg reads."""
    name, data = draw.choice(list((foreign_sounds() or sounds()).items()))
    path.write_bytes(damage(data, draw))
    return f"{name} damaged"


def track(draw: Draw) -> bytes:
    """Events that follow MIDI's grammar without making sense."""
    body = b""
    for _ in range(draw.choice((0, 1, 5, 50, 400))):
        wait = draw.choice((b"\0", b"\x10", b"\x81\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"))
        body += (b"\x05" if draw.random() < 0.9 else wait) + draw.choice(
            (
                bytes((0x90 | draw.randrange(16), draw.randrange(128), draw.randrange(128))),
                bytes((0x80 | draw.randrange(16), draw.randrange(128), 0)),
                bytes((0xB0 | draw.randrange(16), 64, draw.randrange(128))),
                bytes((draw.randrange(128), draw.randrange(128))),
                b"\xff\x51\x03" + draw.choice((b"\0\0\0", b"\xff\xff\xff", b"\0\0\1")),
                b"\xf0\x03abc",
                b"\xff\x58\x04\4\2\x18\x08",
                b"\xc0\x05",
            )
        )
    return body + draw.choice((b"\0\xff\x2f\0", b""))


@functools.cache
def real_midi() -> bytes:
    """The notes of the demo."""
    from importlib.resources import files

    return (files("pianoamt") / "demo" / "demo.mid").read_bytes()


def midi(path: Path, draw: Draw) -> str:
    """A MIDI file with any header, any tracks, and mostly some damage; or a real one with damage."""
    if not draw.randrange(3):
        path.write_bytes(damage(damage(real_midi(), draw), draw))
        return "a real one damaged"
    tracks = [track(draw) for _ in range(draw.choice((0, 1, 1, 2, 16)))]
    division = draw.choice((0, 1, 96, 480, 0x7FFF, 0xE728, 0xE250, 0x8000, 0xFFFF))
    data = b"MThd" + struct.pack(
        ">IHHH", draw.choice((6, 6, 6, 0, 2**32 - 1)), draw.randrange(4), len(tracks), division
    )
    for each in tracks:
        data += (
            b"MTrk"
            + struct.pack(">I", len(each) if draw.randrange(5) else draw.choice((0, 2**32 - 1, 7)))
            + each
        )
    path.write_bytes(data if draw.randrange(3) else damage(data, draw))
    return f"{len(tracks)} tracks, division {division}"


def tsv(path: Path, draw: Draw) -> str:
    """A table of notes with odd cells."""
    cells = (
        "0.1",
        "60",
        "1e400",
        "nan",
        "-inf",
        "-1",
        "",
        "x",
        "128",
        "999999999999",
        "0x10",
        "1_000",
        "٣",
        "1e-320",
    )
    rows = ["onset\toffset\tpitch\tvelocity"] * draw.randrange(2)
    for _ in range(draw.choice((0, 1, 3, 100))):
        plain = ["0.1", "0.5", "60", "70"]
        plain[draw.randrange(4)] = draw.choice(cells)
        rows.append("\t".join(plain[: draw.choice((4, 4, 4, 3))] * draw.choice((1, 1, 1, 2))))
    data = draw.choice(("\n", "\r\n", "\r")).join(rows).encode()
    path.write_bytes(damage(data, draw) if draw.randrange(2) else data)
    return f"{len(rows)} lines"


def small_config():  # a ModelConfig, built when torch is there
    """The smallest network that has all parts."""
    from pianoamt.hcqt import HCQTConfig
    from pianoamt.model import ModelConfig

    hcqt = HCQTConfig(bins_per_semitone=(1,), gamma=8.0)
    return ModelConfig(hcqt, 2, 1, 4, (12, 19), (12,), 1, 2, 2, 2)


@functools.cache
def weights() -> bytes:
    """A weights file of it."""
    from pianoamt.model import PianoNet, save_weights

    with tempfile.TemporaryDirectory() as folder:
        save_weights(
            PianoNet(small_config()),
            Path(folder) / "w.safetensors",
            {"decoder": {"onset_threshold": 0.4}},
        )
        return (Path(folder) / "w.safetensors").read_bytes()


def damaged_tensors(data: bytes, draw: Draw) -> tuple[bytes, str]:
    """A safetensors file with something wrong in its length, its header, its config or its numbers."""
    size = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    what = draw.choice(
        (
            "bytes",
            "length",
            "header",
            "config",
            "config",
            "info",
            "claim",
            "pickle",
            "cut",
            "numbers",
        )
    )
    if what == "bytes":
        return damage(data, draw), what
    if what == "length":
        return draw.choice((0, 1, size - 1, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little") + data[
            8:
        ], what
    if what == "pickle":
        return draw.choice((b"\x80\x04\x95", b"PK\x03\x04")) + draw.randbytes(500), what
    if what == "cut":
        return data[: draw.randrange(len(data))], what
    if what == "numbers":
        return data[: 8 + size] + draw.choice((b"\xff", b"\0\0\xc0\x7f")) * len(body), what
    notes = head.setdefault("__metadata__", {})
    if what == "header":
        head = damage_tree(head, draw)
    elif what == "claim":
        name = draw.choice([key for key in head if key != "__metadata__"])
        head[name] |= {"shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    else:
        tree = json.loads(notes.get(what, "{}"))
        notes[what] = damaged_json(tree, draw).decode("utf-8", "replace")
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body, what


def weights_file(path: Path, draw: Draw) -> str:
    """A weights file that cannot be trusted."""
    data, what = damaged_tensors(weights(), draw)
    path.write_bytes(data)
    return what


@functools.cache
def graph() -> bytes:
    """The smallest ONNX model with the notes of one of ours."""
    import onnx

    from pianoamt.onnx_engine import ONNX_FORMAT

    node = onnx.helper.make_node("Identity", ["audio"], ["onset"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["b", "s"]) for name in ("audio", "onset")]
    made = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", ends[:1], ends[1:]), ir_version=10
    )
    made.opset_import[0].version = 20
    notes = {"format": ONNX_FORMAT, "info": '{"decoder": {}}', "reach_frames": "43"}
    notes |= {"chunk_frames": "32", "future_frames": "90"}
    onnx.helper.set_model_props(made, notes)
    return made.SerializeToString()


def onnx_file(path: Path, draw: Draw) -> str:
    """An ONNX model with changed bytes, or with changed notes."""
    import onnx

    if draw.randrange(2):
        path.write_bytes(damage(graph(), draw))
        return "bytes"
    made = onnx.load_from_string(graph())
    notes = {prop.key: prop.value for prop in made.metadata_props}
    key = draw.choice(list(notes))
    notes[key] = draw.choice(
        (
            "",
            "x",
            "-1",
            "9" * 20,
            "nan",
            "[]",
            '{"decoder": 3}',
            '{"decoder": {"x": 1}}',
            "[" * 99_999,
        )
    )
    if draw.randrange(4) == 0:
        del notes[key]
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, notes)
    path.write_bytes(made.SerializeToString())
    return f"notes: {key}"


@functools.cache
def store_folder() -> str:
    """A feature store of one short piece, kept until the process ends."""
    import numpy as np

    from pianoamt.audio import write_audio
    from pianoamt.corpus import Corpus
    from pianoamt.notes import make_notes, write_midi
    from pianoamt.store import preprocess

    folder = Path(KEEP.name)
    (folder / "in").mkdir()
    write_audio(folder / "in" / "a.wav", 0.1 * np.sin(np.arange(16_000) / 6))
    write_midi(folder / "in" / "a.mid", make_notes([0.1, 0.5], [0.4, 0.9], [60, 64]))
    preprocess(Corpus.folder(folder / "in"), folder / "store", small_config().hcqt, jobs=1)
    return str(folder / "store")


def store(path: Path, draw: Draw) -> str:
    """A feature store with something wrong in its manifest or its arrays."""
    shutil.copytree(store_folder(), path)
    file = draw.choice([path / "manifest.json"] * 3 + sorted(path.glob("pieces/*.npy")))
    if not draw.randrange(12):
        file.unlink()
        return f"{file.name}: {odd_place(file, draw)}"
    if file.suffix == ".json" and draw.randrange(4):
        file.write_bytes(damaged_json(json.loads(file.read_text()), draw))
    else:
        file.write_bytes(damage(file.read_bytes(), draw))
    return file.name


RECIPE = {
    "data": {
        "folder": "data",
        "recordings": ["a"],
        "held_out": ["b"],
        "midi_shares": {"x": 0.5},
        "rendered_share": 0.5,
    },
    "train": {
        **{
            "steps": 10,
            "batch_size": 2,
            "learning_rate": 0.001,
            "precision": "no",
            "seed": 1,
            "patience": 2,
        },
        **{
            "decay_share": 0.3,
            "model": {"channels": 8, "dilations": [12, 19], "hcqt": {"bins_per_semitone": [1]}},
        },
    },
}


def recipe(path: Path, draw: Draw) -> str:
    """A recipe for training with odd values."""
    path.write_bytes(damaged_json(RECIPE, draw))
    return "a recipe"


@functools.cache
def training_state():
    """A run of the smallest network, to be resumed from hostile checkpoints."""
    from pianoamt.step import TrainConfig, TrainingState

    return TrainingState(TrainConfig(model=small_config(), precision="no"), cpu=True)


@functools.cache
def checkpoint_bytes() -> bytes:
    """A whole checkpoint of it."""
    from pianoamt.run_log import CHECKPOINT, save_run

    folder = Path(KEEP.name) / "run"
    folder.mkdir()
    save_run(training_state(), folder, {})
    return (folder / CHECKPOINT).read_bytes()


def checkpoint(path: Path, draw: Draw) -> str:
    """A folder of a run whose checkpoint cannot be trusted."""
    path.mkdir()
    file = path / "checkpoint.pt"
    if not draw.randrange(8):
        return odd_place(file, draw)
    file.write_bytes(damage(checkpoint_bytes(), draw))
    return "a checkpoint"


def log(path: Path, draw: Draw) -> str:
    """The log of a run, cut and changed."""
    text = "step,loss,rate\n" + "".join(f"{step},0.5,0.001\n" for step in range(30))
    path.write_bytes(
        damage(text.encode(), draw)
        + draw.choice((b"", b"\0", b'"' + b"x" * 200_000, b"9" * 5000 + b",1,1\n"))
    )
    return "a log"


PACK = {"name": "p", "sr": 16_000, "layer_min_velocity": [1, 64]}


def pack(path: Path, draw: Draw) -> str:
    """The table of a sampled piano, with odd values."""
    from dataclasses import fields

    from pianoamt.render import Region

    values = {item.name: 0.0 if "float" in str(item.type) else 1 for item in fields(Region)}
    path.write_bytes(damaged_json(PACK | {"regions": [values, values | {"layer": 0}]}, draw))
    return "a piano pack"


def midi_pack(path: Path, draw: Draw) -> str:
    """An .npz of performances: bytes changed, arrays exchanged, or a bomb."""
    import numpy as np

    from pianoamt.corpus import PACK_ARRAYS

    arrays = {name: np.arange(4, dtype=np.int32) for name in PACK_ARRAYS}
    arrays |= {"note_index": np.array([0, 2, 4]), "cc64_index": np.array([0, 2, 4])}
    arrays |= {
        "pitch": np.full(4, 60, np.uint8),
        "path": np.array(["a", "b"]),
        "split": np.array(["train", "test"]),
    }
    what, file = draw.choice(("bytes", "bytes", "array", "bomb", "claim", "pickle")), io.BytesIO()
    if what == "array":
        odd = (
            np.zeros(0),
            np.array(5),
            np.full(4, np.nan),
            np.array([-1, 10**9, 5]),
            np.zeros((2, 2)),
            np.array(["x"]),
        )
        arrays[draw.choice(list(arrays))] = draw.choice(odd)
    if what == "pickle":
        arrays["pitch"] = np.array([{}], dtype=object)
    np.savez_compressed(file, **arrays)
    data = file.getvalue()
    if what in ("bomb", "claim"):
        head = (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
            % (3_000_000_000 if what == "bomb" else 10**15)
        )
        with (
            zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open("vel2.npy", "w") as entry,
        ):
            entry.write(head.ljust(127) + b"\n")
            for _ in range(100 if what == "bomb" else 1):
                entry.write(bytes(2**20))
        data = file.getvalue().replace(b"vel.npy", b"old.npy").replace(b"vel2.npy", b"vel.npy\0")
    path.write_bytes(damage(data, draw) if what == "bytes" else data)
    return what


@functools.cache
def soundfont_bytes() -> bytes:
    """A SoundFont of one preset: its tables, without sound."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    parts = chunk(
        b"phdr", b"".join(struct.pack("<20sHHHIII", b"p", 0, 0, bag, 0, 0, 0) for bag in (0, 1))
    )
    for side, last in ((b"p", 41), (b"i", 53)):
        parts += chunk(side + b"bag", struct.pack("<4H", 0, 0, 1, 0)) + chunk(
            side + b"mod", bytes(10)
        )
        parts += chunk(side + b"gen", struct.pack("<4H", last, 0, 0, 0))
        if side == b"p":
            parts += chunk(b"inst", b"".join(struct.pack("<20sH", b"i", bag) for bag in (0, 1)))
    parts += chunk(
        b"shdr", struct.pack("<20s5I2B2H", b"s", 0, 9, 1, 8, 44_100, 60, 0, 0, 1) + bytes(46)
    )
    return chunk(b"RIFF", b"sfbk" + chunk(b"LIST", b"INFO") + chunk(b"LIST", b"pdta" + parts))


def soundfont(path: Path, draw: Draw) -> str:
    """A SoundFont with some bytes changed."""
    path.write_bytes(damage(soundfont_bytes(), draw))
    return "a SoundFont"


LIST_COLUMNS = (
    "canonical_composer",
    "canonical_title",
    "split",
    "year",
    "midi_filename",
    "audio_filename",
    "duration",
)


def dataset(path: Path, draw: Draw) -> str:
    """A dataset whose list of pieces cannot be trusted: MAESTRO's, or that of a folder of packs."""
    path.mkdir()
    names = draw.choice(
        (("a", "b"), ("../../a", "/etc/passwd"), ("a\nb", "\udcff"), ("", "."), ("x" * 4000, "~"))
    )
    rows = [
        [
            "c",
            "t",
            draw.choice(("train", "train", "test", "x")),
            "2004",
            f"{n}.mid",
            f"{n}.wav",
            "0.06",
        ]
        for n in names
    ]
    kind = draw.choice(("csv", "json", "json", "packs"))
    if kind == "packs":
        midi_pack(path / "p.npz", draw)
        table = [("path", "composer", "title", "maps_real_piece"), *(row[:4] for row in rows)]
        target = path / "manifest.csv"
    else:
        table, target = [LIST_COLUMNS, *rows], path / f"maestro-v3.0.0.{kind}"
        (path / "a.wav").write_bytes(damage(sounds()["WAV/PCM_16"], draw))
        (path / "a.mid").write_bytes(damage(real_midi(), draw))
    if not draw.randrange(8):
        return f"{target.name}: {odd_place(target, draw)}"
    if kind == "json":
        columns = {
            name: {str(number): row[place] for number, row in enumerate(rows)}
            for place, name in enumerate(LIST_COLUMNS)
        }
        target.write_bytes(damaged_json(columns, draw))
    else:
        text = "\n".join(",".join(map(str, row)) for row in table).encode(
            "utf-8", "surrogateescape"
        )
        extra = draw.choice((b"", b"", b'\n"' + b"x" * 200_000, b"\0", b"\r,,,,,\r"))
        target.write_bytes((damage(text, draw) if draw.randrange(3) else text) + extra)
    return target.name


@functools.cache
def study_bytes() -> bytes:
    """The file of a search without trials."""
    from pianoamt.search import open_study

    with tempfile.TemporaryDirectory() as folder:
        open_study(Path(folder), {"kind": "fuzz"})._storage.remove_session()
        return (Path(folder) / "study.db").read_bytes()


def study(path: Path, draw: Draw) -> str:
    """The folder of a search whose file is damaged, or is no file."""
    path.mkdir()
    target = path / "study.db"
    if not draw.randrange(4):
        return odd_place(target, draw)
    data = study_bytes()
    what = draw.choice(("bytes", "cut", "settings", "other"))
    if what == "settings":
        data = data.replace(
            b'{"kind": "fuzz"}',
            draw.choice((b"[[[[[[[[[[[[[[[[", b"[1,2,3,4,5,6,78]", b'"kind or other "')),
        )
    elif what == "cut":
        data = data[: draw.randrange(len(data))]
    target.write_bytes(
        damage(data, draw) if what == "bytes" else data if what != "other" else draw.randbytes(5000)
    )
    return what


def upload(path: Path, draw: Draw) -> str:
    """What a page may send: a name, a size, and pieces that do not fit."""
    size = draw.choice((5, 10, 0, -1, 10**9, 10**30, 2.5, True, None, "5", math.nan))
    name = draw.choice(
        (
            "a.wav",
            "../../etc/passwd",
            "/etc/passwd",
            "..\\x.exe",
            "a\nb.mp3",
            "\0",
            "",
            ".",
            "..",
            "x" * 5000,
            None,
            5,
            [],
            "CON",
        )
    )
    pieces = [draw.choice((0, 1, 5, 10)) for _ in range(draw.randrange(4))]
    path.write_text(json.dumps([name, size, pieces]), encoding="utf-8")
    return f"{str(name)[:40]!r}, {size}, {pieces}"


COMMANDS = (
    *(
        "check IN --jobs 1 --quiet",
        "check IN --quick --jobs 1 --quiet",
        "rename IN",
        "resample IN --jobs 1 --quiet",
    ),
    *(
        "resample IN --to OUT --jobs 1 --quiet",
        "preprocess IN --store OUT --jobs 1 --quiet --bins-per-semitone 1",
    ),
    *("score IN IN", "transcribe IN --out OUT --weights WEIGHTS --quiet", "pack FILE OUT --quiet"),
    *(
        "transcribe FILE --out OUT --weights WEIGHTS --quiet",
        "transcribe FILE --out OUT --weights FILE --quiet",
    ),
    *(
        "export OUT/x.onnx --weights FILE",
        "train FILE OUT --cpu",
        "check FILE",
        "score FILE IN",
        "resample FILE",
    ),
)


def command(path: Path, draw: Draw) -> str:
    """The number of a command and of the folder that it is given; see `lay_out`."""
    path.write_text(str(draw.getrandbits(32)), encoding="ascii")
    return "a command"


def lay_out(folder: Path, draw: Draw) -> tuple[list[str], str]:
    """Make a folder with a healthy piece and a hostile file, and choose a command for it."""
    (folder / "in").mkdir()
    (folder / "in" / "whole.wav").write_bytes(sounds()["WAV/PCM_16"])
    (folder / "in" / "whole.mid").write_bytes(real_midi())
    (folder / "w.safetensors").write_bytes(weights())
    suffix, maker = draw.choice(
        (
            (".wav", odd_sound),
            (".flac", damaged_sound),
            (".mid", midi),
            (".tsv", tsv),
            (".json", recipe),
        )
        + (
            (".sf2", soundfont),
            (".safetensors", weights_file),
            (".mp3", odd_place),
            (".mid", odd_place),
        )
    )
    place = folder / "in" / named(draw.choice((*NAMES, *"xxxxx")), suffix)
    made = maker(place, draw)
    if place.is_file() and (
        place.stat().st_size > 2**20 or "silence" in made
    ):  # hours of sound take longer than 10 s
        place.write_bytes(b"")
    words = {
        "IN": "in",
        "OUT": "out",
        "FILE": os.path.join("in", place.name),
        "WEIGHTS": "w.safetensors",
    }
    return [
        words.get(word, word.replace("OUT/", "out/")) for word in draw.choice(COMMANDS).split()
    ], made


# ---- who reads it; the result must make sense, too ----


def decode_file(path: Path) -> str:
    """Read a recording to its end, or for a minute of it."""
    import numpy as np

    from pianoamt.audio import audio_info, read_blocks

    info, samples = audio_info(path), 0
    for block in itertools.islice(read_blocks(path), 2):
        assert block.dtype == np.float32 and block.ndim == 1 and np.isfinite(block).all(), (
            "not a sound"
        )
        samples += len(block)
    return f"{samples} samples of {info.format}"


def play(path: Path) -> str:
    """Read a MIDI file, write its notes to another, and read that again."""
    from pianoamt.notes import read_midi, write_midi

    found = read_midi(path)
    copy = path.parent / "copy.mid"
    write_midi(copy, found.notes, found.pedal)
    again = len(read_midi(copy).notes)
    copy.unlink()
    assert again == len(found.notes), f"{len(found.notes)} notes became {again}"
    return f"{again} notes"


def tabulate(path: Path) -> str:
    """Read a table of notes."""
    from pianoamt.notes import read_tsv

    return f"{len(read_tsv(path))} notes"


def load(path: Path) -> str:
    """Build the network of a weights file; what is not finite must not get that far."""
    import torch

    from pianoamt.model import count_parameters, load_weights

    network, info = load_weights(path)
    assert all(torch.isfinite(each).all() for each in network.state_dict().values()), (
        "weights that are no numbers"
    )
    assert isinstance(info, dict), "notes that are no table"
    return f"{count_parameters(network)} parameters"


def engine(path: Path) -> str:
    """Open a weights file or ONNX model as `transcribe --weights` does."""
    from pianoamt.transcription import Transcriber

    return str(Transcriber(path, "cpu").decoder)


def open_store(path: Path) -> str:
    """Open a feature store and draw from it."""
    from pianoamt.store import FeatureStore, StoreDataset

    opened = FeatureStore(path)
    if opened.pieces:
        StoreDataset(opened, tuple({piece.split for piece in opened.pieces}), 16)[0]
    return f"{len(opened.pieces)} pieces"


def cook(path: Path) -> str:
    """Read a recipe and build its network."""
    from pianoamt.model import PianoNet, count_parameters
    from pianoamt.train import read_recipe

    return f"{count_parameters(PianoNet(read_recipe(path)[0].model))} parameters"


def resume(path: Path) -> str:
    """Take up a run."""
    from pianoamt.run_log import resume_run

    real = training_state()
    state = SimpleNamespace(**vars(real), segments_a_step=real.segments_a_step)
    resume_run(state, path)
    return f"step {state.step}"


def follow(path: Path) -> str:
    """Read a log."""
    from pianoamt.run_log import read_log

    return f"{len(read_log(path))} rows"


def unpack(path: Path) -> str:
    """Open a sampled piano and look at it."""
    import numpy as np

    from pianoamt.render import load_pack

    opened = load_pack(path, np.zeros(16_000, np.float32))
    return f"{len(opened.regions)} strokes, the nearest to 60 is {opened.nearest(60, 0).key}"


def perform(path: Path) -> str:
    """Open a pack of performances and play each."""
    from pianoamt.corpus import load_midi_pack

    opened = load_midi_pack(path)
    return f"{sum(len(opened.performance(index).notes) for index in range(len(opened)))} notes"


def leaf(path: Path) -> str:
    """Read the tables of a SoundFont."""
    from pianoamt.soundfont import choose_preset, read_tables, read_zones

    tables = read_tables(path)
    return f"{len(read_zones(tables, choose_preset(tables, path), path))} zones"


def survey(path: Path) -> str:
    """Open a dataset and look at its pieces; none may lie outside."""
    from pianoamt.corpus import open_corpus

    corpus = open_corpus(path)
    for piece in corpus.pieces:
        for file in filter(None, (piece.audio, piece.midi)):
            assert Path(os.path.realpath(file)).is_relative_to(os.path.realpath(path)), (
                f"{file} lies outside"
            )
    return f"{len(corpus)} pieces, {corpus.hours()}"


def search(path: Path) -> str:
    """Go on with a search; Optuna lets go of its file when nothing holds the study any more."""
    from pianoamt.files import PianoamtError
    from pianoamt.search import count_finished, open_study

    begun = os.path.lexists(path / "study.db")
    try:
        found, refused = count_finished(open_study(path, {"kind": "fuzz"})), ""
    except PianoamtError as error:
        found, refused = 0, str(error)
    gc.collect()
    if refused:
        raise PianoamtError(refused)
    if not begun:  # a new search has been begun, as it should
        (path / "study.db").unlink()
    return f"{found} trials"


def receive(path: Path) -> str:
    """Take an upload as the web app does; nothing may appear outside its own folder."""
    from pianoamt.explore import Limits, Upload

    name, size, pieces = json.loads(path.read_text(encoding="utf-8"))
    sent = Upload(name, size, Limits())
    try:
        whole = [sent.add(bytes(count)) for count in pieces]
        assert sent.path.parent == Path(sent.folder.name), f"{sent.path} lies outside"
        return f"{sent.name}: {whole}"
    finally:
        sent.close()


def order(path: Path) -> str:
    """Give the command line its words, in a folder of its own; it may fail, in lines that a user understands."""
    from typer.testing import CliRunner

    from pianoamt.cli import app

    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        words, made = lay_out(Path(folder), random.Random(int(path.read_text(encoding="ascii"))))
        os.chdir(folder)
        try:
            done = CliRunner().invoke(app, words)
        finally:
            os.chdir(here)
        left = [str(file) for file in Path(folder).rglob(".pianoamt-*")]
    lines, about = done.output.splitlines(), f"{' '.join(words)[:80]!r} ({made[:80]})"
    if done.exception and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{about}: {done.exception!r}") from done.exception
    bad = [
        line
        for line in lines
        if not line.isprintable() or "Traceback" in line or "internal error" in line
    ]
    silent = done.exit_code != 0 and not lines
    assert not left and not bad and not silent and done.exit_code in (0, 1, 2), (
        f"{about}: exit code {done.exit_code}, left behind: {left}, said: {bad or lines[-1:]}"
    )
    return f"{about}: exit code {done.exit_code}: {lines[-1][:100] if lines else ''}"


@dataclass(frozen=True)
class Family:
    """A kind of file, and what reads it."""

    share: int  # how often it is drawn
    suffixes: tuple[str, ...]
    make: Callable[[Path, Draw], str]
    read: Callable[[Path], str]


SOUND_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".aiff", ".m4a", ".WAV", "")
FAMILIES = {
    "odd sound": Family(22, SOUND_ENDINGS, odd_sound, decode_file),
    "damaged sound": Family(28, SOUND_ENDINGS, damaged_sound, decode_file),
    "foreign sound": Family(6, (".m4a", ".mkv", ".wma"), foreign_sound, decode_file),
    "MIDI": Family(20, (".mid", ".midi"), midi, play),
    "table of notes": Family(5, (".tsv",), tsv, tabulate),
    "weights": Family(6, (".safetensors",), weights_file, load),
    "weights to use": Family(1, (".safetensors",), weights_file, engine),
    "ONNX model": Family(2, (".onnx",), onnx_file, engine),
    "feature store": Family(3, ("",), store, open_store),
    "recipe": Family(4, (".json",), recipe, cook),
    "checkpoint": Family(2, ("",), checkpoint, resume),
    "log": Family(1, (".csv",), log, follow),
    "piano pack": Family(2, (".json",), pack, unpack),
    "MIDI pack": Family(2, (".npz",), midi_pack, perform),
    "SoundFont": Family(2, (".sf2",), soundfont, leaf),
    "dataset": Family(4, ("",), dataset, survey),
    "search": Family(1, ("",), study, search),
    "upload": Family(2, (".json",), upload, receive),
    "command": Family(2, ("",), command, order),
}
LONGEST_NAME = 255  # bytes
NAMES = (
    "a\nb",
    "-rf",
    "\U0001f3b9" * 99,
    "e\u0301 x",
    "\udcff\udcfe",
    "%s{0}",
    "a'b\"c",
    ".pianoamt",
    " ",
    "con",
)


def named(stem: str, suffix: str) -> str:
    """A name as long as it may be."""
    while len(os.fsencode(stem + suffix)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem + suffix


# ---- one case ----


def choose(number: int, seed: int) -> tuple[str, Draw]:
    """Which family a case belongs to, and the numbers that make it."""
    draw = random.Random(f"{seed}/{number}")
    if number % 4 == 0:
        return "cut header", draw
    return draw.choices(list(FAMILIES), [family.share for family in FAMILIES.values()])[0], draw


def prepare(number: int, seed: int, folder: Path) -> tuple[str, str, Path, Callable[[Path], str]]:
    """Make the file of a case."""
    name, draw = choose(number, seed)
    if name == "cut header":
        path = folder / f"cut{draw.choice(SOUND_ENDINGS)}"
        place = (number // 4 * 1009 + seed) % (
            len(sounds()) * HEADER
        )  # 1009 shares no factor: all places come by
        return name, cut_header(path, place), path, decode_file
    family = FAMILIES[name]
    path = folder / named(
        "case" if draw.randrange(12) else draw.choice(NAMES), draw.choice(family.suffixes)
    )
    replaced = not draw.randrange(25) and family.read not in (
        search,
        receive,
        order,
    )  # these read what we write here
    return name, odd_place(path, draw) if replaced else family.make(path, draw), path, family.read


def state_of(folder: Path) -> tuple[set[str], list[str]]:
    """All files below a folder and in the temporary folder, and those of them that this process has open."""
    roots, opened = (folder, Path(tempfile.gettempdir())), []
    found = {
        str(path) for root in roots for path in root.rglob("*") if path.name != ".ses"
    }  # onnxruntime's own mark
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them is gone
            opened.append(os.readlink(link))
    return found, sorted(
        path for path in opened if path.startswith(tuple(f"{root}/" for root in roots))
    )


def memory() -> tuple[int, int]:
    """Address space of this process, and the most memory it has held, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def limits(size: int):
    """At most so much time and memory from here on; for a file of gigabytes, the time for each of them."""

    allowed, worked = PROCESSOR_SECONDS * max(1, size / 1e9), [time.process_time()]

    def stop(number: int, _: object) -> None:
        if (
            number == signal.SIGALRM and time.process_time() - worked[0] > 0.01
        ):  # a busy machine is no hang
            worked[0] = time.process_time()
            return
        raise Hang(f"hangs: {allowed:.0f} s of work, or {WALL_SECONDS} s without any")

    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, stop)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (memory()[0] + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, allowed)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS, WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def judge(error: BaseException, path: Path) -> tuple[str, str]:
    """Whether an exception is an answer or a fault."""
    from pianoamt.files import PianoamtError, show_path

    text = str(error)
    said = text.replace(show_path(path), "").replace(str(path.parent), "")
    if not isinstance(error, PianoamtError):
        return "BROKEN", f"{type(error).__name__}: {text[:300]}"
    if re.search(r"alloc|out of memory|\wError:", said):
        return "BROKEN", f"an inner failure shows: {text[:300]}"
    if not text.isprintable() or not 15 < len(said) <= 1000:
        return "BROKEN", f"not one readable line: {text[:300]!r}"
    return "refused", text


def warm_up(number: int, seed: int) -> None:
    """Import and build what a case needs before its memory and files are counted."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception):
        name, _ = choose(number, seed)
        plain = Path(folder) / "x"
        if name not in WARM:
            WARM.add(name)
            {"weights": weights, "weights to use": weights, "feature store": store_folder}.get(
                name, int
            )()
            {"checkpoint": checkpoint_bytes, "ONNX model": graph, "cut header": sounds}.get(
                name, int
            )()
            {"search": study_bytes, "command": weights, "odd sound": long_silence}.get(name, int)()
            if name == "command":
                for module in (
                    "folders",
                    "score",
                    "soundfont",
                    "store",
                    "transcription",
                    "validate",
                ):
                    importlib.import_module(f"pianoamt.{module}")
                plain.write_text("0")
            if (
                name == "ONNX model"
            ):  # the runtime opens files of its own with the first model of a process
                plain.with_suffix(".onnx").write_bytes(graph())
                plain = plain.with_suffix(".onnx")
            with contextlib.suppress(Exception):
                (decode_file if name == "cut header" else FAMILIES[name].read)(plain)
            gc.collect()
            gc.freeze()  # so that it is quick from now on


WARM: set[str] = set()
KEEP = SimpleNamespace(name="")


def run_case(number: int, seed: int) -> dict:
    """Run one case and say how it ended."""
    warm_up(number, seed)
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "case"
        folder.mkdir()
        name, made, path, read = prepare(number, seed, folder)
        gc.collect()  # what an earlier case left open is not to be counted here
        before, start = state_of(folder), time.process_time()
        try:
            with limits(path.stat().st_size if path.is_file() else 0):
                verdict, text = "result", read(path)
        except BaseException as error:  # everything is a finding
            verdict, text = judge(error, path)
        after = state_of(folder)
        if verdict != "BROKEN" and after != before:
            left = sorted(after[0] ^ before[0])
            verdict, text = "BROKEN", f"left behind: {left}, open: {after[1]}"
    used = {"seconds": round(time.process_time() - start, 3), "peak": memory()[1]}
    return {
        "case": number,
        "family": name,
        "made": made,
        "verdict": verdict,
        "text": text.replace(top, ""),
        **used,
    }


# ---- many cases ----


def serve(link, seed: int, home: str) -> None:
    """A worker: run the cases whose numbers arrive until None does."""
    os.chdir(home)
    tempfile.tempdir = str(Path(home) / "tmp")
    KEEP.name = str(Path(home) / "keep")
    for folder in (tempfile.tempdir, KEEP.name):
        os.mkdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)  # decoders speak to standard error
    while (number := link.recv()) is not None:
        link.send(run_case(number, seed))


class Worker:
    """A process that can be lost."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.home = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)
        self.link, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, seed, self.home.name), daemon=True
        )
        self.process.start()
        theirs.close()
        self.number: int | None = None
        self.since = 0.0

    def give(self, number: int | None) -> None:
        """Hand over a case, or the end."""
        self.number, self.since = number, time.monotonic()
        self.link.send(number)

    def close(self) -> None:
        """End it, by force if need be."""
        self.process.kill()
        self.process.join()
        self.link.close()
        self.home.cleanup()


def run(numbers: list[int], seed: int, jobs: int, report: Callable[[dict], None]) -> None:
    """Run cases in worker processes; one that dies or never answers is replaced, and its case is a finding."""
    waiting = iter(numbers)
    workers = [Worker(seed) for _ in range(min(jobs, len(numbers)))]
    for worker in workers:
        worker.give(next(waiting, None))
    while any(worker.number is not None for worker in workers):
        ready = wait([worker.link for worker in workers if worker.number is not None], timeout=5)
        for place, worker in enumerate(workers):
            fault = ""
            if worker.link in ready:
                try:
                    report(worker.link.recv())
                    worker.give(next(waiting, None))
                    continue
                except (EOFError, ConnectionError):
                    worker.process.join()
                    fault = f"crash (exit code {worker.process.exitcode})"
            elif worker.number is not None and time.monotonic() - worker.since > 30 * WALL_SECONDS:
                fault = "hangs where no signal reaches it"
            if fault:
                family = choose(worker.number, seed)[0]
                report(
                    {
                        "case": worker.number,
                        "family": family,
                        "made": "",
                        "verdict": "BROKEN",
                        "text": fault,
                    }
                )
                worker.close()
                workers[place] = Worker(seed)
                workers[place].give(next(waiting, None))
    for worker in workers:
        worker.close()


def summary(results: list[dict], seed: int) -> dict:
    """Counts by family, and the findings."""
    families = sorted({each["family"] for each in results})
    counts = {
        name: Counter(each["verdict"] for each in results if each["family"] == name)
        for name in families
    }
    rows = {
        name: {key: count[key] for key in ("result", "refused", "BROKEN")}
        for name, count in counts.items()
    }
    slowest = max((each.get("seconds", 0.0) for each in results), default=0.0)
    peak = max((each.get("peak", 0) for each in results), default=0)
    broken = [each for each in results if each["verdict"] == "BROKEN"]
    about = {"seed": seed, "cases": len(results), "slowest_seconds": slowest, "peak_bytes": peak}
    return {**about, "families": rows, "broken": broken}


def show(table: dict) -> None:
    """Print the summary."""
    print(f"{'':16}{'result':>8}{'refused':>9}{'broken':>8}")
    for name, row in table["families"].items():
        print(f"{name:16}{row['result']:8}{row['refused']:9}{row['BROKEN']:8}")
    for each in table["broken"]:
        print(f"BROKEN case {each['case']} ({each['family']}, {each['made']}): {each['text']}")
    peak = table["peak_bytes"] / 1e6
    print(
        f"slowest case {table['slowest_seconds']:.2f} s of processor time; a worker's peak {peak:.0f} MB"
    )
    print(f"fuzz: {table['cases']} cases with seed {table['seed']}, {len(table['broken'])} broken")


def main() -> int:
    """Run, print and tell by the exit code whether anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--family", help="only cases of this family, e.g. MIDI")
    parser.add_argument("--case", type=int, help="repeat one case and show it")
    parser.add_argument("--json", type=Path, help="write the summary here, too")
    args = parser.parse_args()
    numbers = (
        [args.case] if args.case is not None else list(range(args.first, args.first + args.cases))
    )
    if args.family:
        numbers = [number for number in numbers if choose(number, args.seed)[0] == args.family]
    results: list[dict] = []

    def report(result: dict) -> None:
        results.append(result)
        if args.case is not None or result["verdict"] == "BROKEN":
            print(json.dumps(result, ensure_ascii=True), flush=True)

    run(numbers, args.seed, args.jobs, report)
    table = summary(results, args.seed)
    show(table)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 1 if table["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
