"""Test with thousands of hostile files: `python tools/stress/fuzz.py --cases 10000 --seed 1`, or `--family MIDI`.

Hypothesis draws damaged and odd files of every kind, and a worker process puts each into a folder and gives it to a
command that reads its kind. The command must end with a result or with lines that a user understands: no traceback, no
crash, no hang, at most 1.5 GB of memory, no open file and no temporary file left behind. Hypothesis shrinks what breaks
to the smallest case. The same seed makes the same cases.
"""

import contextlib
import copy
import functools
import io
import json
import math
import os
import re
import resource
import shutil
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
import psutil
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from kill import make
from pebble import ProcessExpired, ProcessPool

SECONDS, MEMORY = 120, 1_500_000_000  # that a case may take
HEADER = 200  # bytes of a sound file, at each of which it is cut
PACKAGE = files("pianoamt")


def words(text: str) -> list[str]:
    """Split a list that is written as a text."""
    return text.split()


# ---- healthy files, to be damaged ----


@functools.cache
def sounds() -> dict[str, bytes]:
    """A sound of 160 ms in every form that is common: container/coding, as FFmpeg calls them."""
    import av

    tone = (0.3 * np.sin(np.arange(7680) / 5)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
    frame.rate, frame.pts, made = 48_000, 0, {}
    for form in words(
        "wav/pcm_u8 wav/pcm_s16le wav/pcm_s24le wav/pcm_f32le wav/pcm_mulaw wav/adpcm_ms w64/pcm_s16le flac/flac "
        "ogg/flac ogg/libopus mp3/libmp3lame aiff/pcm_s16be au/pcm_f32be caf/alac mp4/aac matroska/flac adts/aac "
        "asf/wmav2 avi/pcm_s16le"
    ):
        file, (kind, codec) = io.BytesIO(), form.split("/")
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            stream.bit_rate = 64_000
            stream.codec_context.open()
            size = stream.codec_context.frame_size or 1024
            cutter = av.AudioResampler(stream.format, "mono", 48_000, size)
            for piece in [*cutter.resample(frame), *cutter.resample(None), None]:
                container.mux(stream.encode(piece))
        made[form] = file.getvalue()
    return made


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
        node = draw(st.sampled_from(nodes))
        value = copy.deepcopy(draw(st.sampled_from(VALUES)))  # or a list might hold itself
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
    """A safetensors file with something wrong in its bytes, its header, its metadata or its numbers."""
    size = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    what = draw(st.sampled_from(words("bytes numbers header config info claim")))
    if what == "bytes":
        return draw(damaged(data))
    if what == "numbers":
        body = draw(st.sampled_from([b"\xff", b"\0\0\xc0\x7f"])) * len(body)
    elif what == "header":
        head = draw(damaged_tree(head))
    elif what == "claim":
        name = next(key for key in head if key != "__metadata__")
        head[name] |= {"shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    else:
        tree = json.loads(head["__metadata__"].get(what, "{}"))
        head["__metadata__"][what] = draw(damaged_json(tree)).decode("utf-8", "replace")
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


# ---- odd files that are not damaged ----


RATES = [0, 1, 10, 1000, 11_025, 44_100, 192_000, 768_001, 2**31]
CODINGS = [(8, 1), (16, 1), (24, 1), (32, 3), (64, 3), (0, 1), (12, 17)]  # bits, kind of numbers
NO_SOUND = [math.nan, math.inf, 1e-40, 5e-324, 1e30, 1e300, -0.0]


@st.composite
def odd_sound(draw: st.DrawFn) -> bytes:
    """A WAV file that is whole, and declares or holds something odd."""
    channels = draw(st.sampled_from([0, 1, 1, 2, 3, 8, 32, 1024, 65_535]))
    rate, (bits, tag) = draw(st.sampled_from(RATES)), draw(st.sampled_from(CODINGS))
    count = draw(st.sampled_from([0, 1, 2, 3, 17, 1000])) * channels  # of numbers
    data = draw(st.binary(min_size=8, max_size=8)) * (count * bits // 64)
    if tag == 3:
        with np.errstate(over="ignore"):
            value = np.array(draw(st.sampled_from(NO_SOUND))).astype(f"<f{bits // 8}")
        data = value.tobytes() * count
    size = draw(st.sampled_from([len(data), len(data), 0, 1, 2**31, 2**32 - 40, len(data) + 1]))
    block = channels * bits // 8
    form = (tag, channels, rate, rate * block % 2**32, block % 2**16, bits)
    head = b"WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", *form)
    whole = struct.pack("<I", (size + 36) % 2**32)
    return b"RIFF" + whole + head + b"data" + struct.pack("<I", size) + data


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
ROW = {"recording": "/a.wav", "outputs": {"a.mid": 1.5}, "status": "done", "seconds": 3, "notes": 2}
COLUMNS = words(
    "canonical_composer canonical_title split year midi_filename audio_filename duration"
)
CELL = {"split": "train", "year": "2004", "audio_filename": "a.wav", "duration": "0.06"}
LIST = {name: {"0": CELL.get(name, "a.mid")} for name in COLUMNS}


# ---- what is made, and the commands that read it ----


def damaged_sound() -> st.SearchStrategy[bytes]:
    """Any sound file with a few bytes changed."""
    return st.sampled_from(sorted(sounds())).flatmap(lambda name: damaged(sounds()[name]))


def cut_header() -> st.SearchStrategy[bytes]:
    """Any sound file cut in its header."""
    places = st.tuples(st.sampled_from(sorted(sounds())), st.integers(1, HEADER))
    return places.map(lambda place: sounds()[place[0]][: place[1]])


SOUND = words("in/*.wav in/*.flac in/*.mp3 in/*.ogg in/*.aiff in/*.m4a in/*.WAV in/*.mkv")
READ_SOUND = (
    "check in --jobs 1|check in --quick|resample in --jobs 1|resample in --to out --jobs 1|"
)
READ_SOUND += "transcribe FILE --out out --weights w.safetensors"
READ_NOTES = "score in in|check in --jobs 1|rename in|pack-midi in pack.npz"
READ_WEIGHTS = "transcribe in --out out --weights FILE|export x.onnx --weights FILE"
PREPROCESS = "preprocess in --store store --jobs 1 --bins-per-semitone 1 --gamma 8"
ANY = "check FILE|score FILE in|resample FILE|pack FILE out|transcribe --files-from FILE --out out"


def families(healthy: Path) -> dict[str, tuple]:
    """Share of the cases in hundredths; places; what makes the files; the commands that read them."""
    midi = damaged((PACKAGE / "demo/demo.mid").read_bytes())
    midi = odd_midi() | odd_midi().flatmap(damaged) | midi
    weights = damaged_tensors((healthy / "w.safetensors").read_bytes())
    manifest = damaged_json(json.loads((healthy / "store" / "manifest.json").read_bytes()))
    recipe = damaged_json(json.loads((healthy / "recipe.json").read_bytes()))
    report = damaged_json(ROW).map(lambda row: row + b"\n" + json.dumps(ROW).encode())
    onnx = damaged((PACKAGE / "weights/tiny.onnx").read_bytes())
    files = words("in/*.wav in/*.mid in/*.json in/*.sf2")
    transcribe = "transcribe in --out out --weights w.safetensors --engine torch"
    return {
        "cut header": (20, SOUND, cut_header(), READ_SOUND),
        "odd sound": (12, SOUND, odd_sound(), READ_SOUND),
        "damaged sound": (18, SOUND, damaged_sound(), READ_SOUND),
        "MIDI": (16, ["in/*.mid", "in/*.midi"], midi, READ_NOTES),
        "table of notes": (4, ["in/*.tsv"], TABLE, READ_NOTES),
        "weights": (6, ["*.safetensors"], weights, READ_WEIGHTS),
        "ONNX model": (3, ["*.onnx"], onnx, "transcribe in --out out --weights FILE"),
        "feature store": (4, ["store/manifest.json"], manifest, f"train recipe.json run|{PREPROCESS}"),
        "recipe": (5, ["*.json"], recipe, "train FILE run --cpu"),
        "report": (4, ["out/report.jsonl"], report, transcribe),
        "dataset": (4, ["in/maestro-v3.0.0.json"], damaged_json(LIST), "check in --jobs 1"),
        "any": (4, files, cut_header() | midi | recipe | weights, ANY),
    }  # fmt: skip


NAMES = ["case", "a\nb", "-rf", "🎹" * 60, "é x", "\udcff\udcfe", "%s{0}", "a'b\"c", " ", "con"]
NO_FILES = ["a folder", "a pipe", "a loop", "a dangling link", "/dev/zero", "nothing"]


# ---- one case, in a worker process ----


def put(path: Path, content: bytes | str) -> None:
    """Write a file, or make something that is not an ordinary file."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "a folder":
        path.mkdir()
    elif content == "a pipe":
        os.mkfifo(path)
    elif content != "nothing":
        path.symlink_to({"a loop": path.name, "a dangling link": "nowhere"}.get(content, content))


def fault(done) -> str:  # a Result of Typer's runner
    """What is wrong with the end of a command; nothing if a user understands it."""
    if done.exception and not isinstance(done.exception, SystemExit):
        return repr(done.exception)
    lines = done.output.splitlines()
    inner = "Traceback|internal error|alloc|enough memory|out of memory"
    bad = [line for line in lines if re.search(inner, line) or not line.isprintable()]
    bad += [] if lines or not done.exit_code else ["it says nothing"]
    return str(bad) if bad or done.exit_code not in (0, 1, 2) else ""


def run_case(healthy: Path, place: str, content: bytes | str, line: str) -> dict:
    """Put the file beside healthy ones, run the command, and say how that ended."""
    from typer.testing import CliRunner

    from pianoamt.cli import app

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print to standard error
    process, verdict = psutil.Process(), "result"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copytree(healthy, folder, dirs_exist_ok=True)
        put(Path(place), content)
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + MEMORY, -1))
        file = place if place[0] != "-" else f"./{place}"
        done = CliRunner().invoke(app, [file if word == "FILE" else word for word in words(line)])
        process.rlimit(psutil.RLIMIT_AS, (-1, -1))
        text = fault(done)
        left = [str(path) for path in Path().rglob(".pianoamt-*")]
        left += [file.path for file in process.open_files() if file.path.startswith(folder)]
        text = f"left behind or open: {left}" if left and not text else text
    verdict = "broken" if text else "refused" if done.exit_code else "result"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"verdict": verdict, "text": text, "peak": peak}


# ---- many cases ----


class Broken(AssertionError):
    """A case that broke; Hypothesis shrinks it."""


def play(family: tuple, cases: int, number: int, pool: ProcessPool, healthy: Path) -> list[dict]:
    """Run the cases of one family; the last one may be the smallest that broke."""
    (_, places, make, commands), found = family, []
    contents = st.one_of(*[make] * 12, st.sampled_from(NO_FILES))
    stems, lines = st.sampled_from([*NAMES, *["case"] * 30]), st.sampled_from(commands.split("|"))

    @seed(number)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.sampled_from(places), stems, contents, lines)
    def test(place: str, stem: str, content: bytes | str, line: str) -> None:
        begin, result, place = time.monotonic(), {"verdict": "broken"}, place.replace("*", stem)
        future = pool.schedule(run_case, args=(healthy, place, content, line), timeout=SECONDS)
        try:
            result = future.result()
        except ProcessExpired as error:
            result["text"] = f"crash (exit code {error.exitcode})"
        except TimeoutError:
            result["text"] = f"hangs: no answer in {SECONDS} s"
        case = f"{line}: {place!r} with {content[:400]!r}"
        found.append(result | {"seconds": time.monotonic() - begin, "case": case})
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
    counts, broken, found = {}, [], []
    print(f"{'':16}{'result':>8}{'refused':>9}{'broken':>8}")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPool(1, max_tasks=500, context=get_context("spawn")) as pool,
    ):
        make(Path(folder), 1)
        known = families(Path(folder))
        for name in [family] if family else known:
            share = cases if family else max(1, cases * known[name][0] // 100)
            results = play(known[name], share, seed, pool, Path(folder))
            verdicts = Counter(result["verdict"] for result in results)
            counts[name] = {kind: verdicts[kind] for kind in ("result", "refused", "broken")}
            print(
                f"{name:16}{counts[name]['result']:8}{verdicts['refused']:9}{verdicts['broken']:8}"
            )
            broken += [result for result in results if result["verdict"] == "broken"][-1:]
            found += results
    for each in broken:
        print(f"BROKEN {each['case']}: {each['text']}")
    table = {"seed": seed, "cases": len(found)}
    table["slowest_seconds"] = round(max(result["seconds"] for result in found), 2)
    table["peak_bytes"] = max(result.get("peak", 0) for result in found)
    print(", ".join(f"{name} {value}" for name, value in table.items()), "broken", len(broken))
    if json_file:
        table |= {"families": counts, "broken": broken}
        json_file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(broken))


if __name__ == "__main__":
    typer.run(main)
