"""Try `pianoamt app` in a real browser: `python tools/browser_test.py` needs Chromium, its driver and selenium.

A recording is uploaded and transcribed, a slider moved, notes dragged, deleted and put in; what is downloaded is
compared with what the command line writes. Then the server is asked for what it must not give. Every check is one
line; the last line counts them.
"""

import argparse
import asyncio
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import soundfile as sf
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from pianoamt.notes import read_midi

FLAGS = "headless no-sandbox disable-gpu disable-dev-shm-usage no-first-run disable-background-networking mute-audio"
NAME = "Étude & <b>take 2<b>.flac"
HEAD, LEFT, ROW, TOP = (
    6,
    36,
    5,
    108,
)  # of roll.js: pixels above and left of the keys, pixels a key, the highest key
PATIENCE = 300  # s
PICTURE = 1000, 935  # pixels of the page in the docs, width and height
PATHS = [
    "/voila/files/app.ipynb",
    "/voila/files/../kernels/pianoamt-app/kernel.json",
    "/voila/files/%2e%2e/kernels/pianoamt-app/kernel.json",
    "/voila/files/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/voila/files//etc/passwd",
    "/voila/static/../../../../../../../../etc/passwd",
    "/voila/static/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/voila/labextensions/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/voila/templates/lab/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/voila/api/themes/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/voila/api/contents",
    "/voila/render/app.ipynb",
    "/voila/tree",
    "/api/contents",
    "/api/kernels",
    "/api/sessions",
    "/api/terminals",
    "/etc/passwd",
]

passed, failed = 0, []


def check(name: str, test: Callable[[], object]) -> None:
    """Count one check and say how it went."""
    global passed
    begun = time.monotonic()
    try:
        result = test()
        problem = "" if result else f"got {result!r}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    passed += not problem
    failed.extend([name] if problem else [])
    print(
        f"{'FAILED' if problem else 'ok'}: {name} ({time.monotonic() - begun:.1f} s) {problem}".rstrip(),
        flush=True,
    )


@contextmanager
def running_app(command: list[str], home: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """The app, as a user would start it, and the port it says it is at."""
    env = {**os.environ, "TMPDIR": str(home)}
    # as on a terminal: what runs in the background of a script is deaf to Ctrl-C, and so would be its children
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=hear)
    try:
        line = process.stdout.readline()
        yield process, int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium that saves what it downloads."""
    options = webdriver.ChromeOptions()
    for flag in [*FLAGS.split(), "window-size=1000,1100"]:
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The app as a visitor sees it."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def wait(self, test: Callable[[], object], seconds: float = PATIENCE) -> object:
        """Wait until a test holds."""
        waiting = WebDriverWait(
            self.driver, seconds, 0.1, [StaleElementReferenceException, NoSuchElementException]
        )
        return waiting.until(lambda _: test())

    def find(self, selector: str) -> object:
        """The first element of a kind, once it is there."""
        return self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def message(self) -> str:
        """The line that tells how things stand."""
        return self.find("p[role=status]").text

    def count(self) -> int:
        """How many notes the line tells of, -1 where it tells of none."""
        told = re.search(r"(\d+) notes", self.message())
        return int(told[1]) if told else -1

    def upload(self, path: Path) -> None:
        """Choose a file."""
        self.find(".pianoamt-drop input").send_keys(str(path))

    def press(self, label: str) -> None:
        """Press the button of a name."""
        xpath = f"//button[normalize-space()='{label}']"
        self.wait(lambda: self.driver.find_elements(By.XPATH, xpath))[0].click()

    def download(self) -> bytes:
        """The MIDI file as it arrives on disk, taken away again."""
        self.press("Download MIDI")
        self.wait(
            lambda: [f for f in self.downloads.iterdir() if f.suffix == ".mid" and f.stat().st_size]
        )
        [file] = [f for f in self.downloads.iterdir() if f.suffix == ".mid"]
        content = file.read_bytes()
        file.unlink()
        return content

    def point(self, seconds: float, pitch: int) -> tuple[float, float]:
        """Where a moment and a key are, in pixels from the middle of the roll."""
        roll = self.find("canvas.pianoamt-roll")
        wide, high = self.driver.execute_script(
            "return [arguments[0].clientWidth, arguments[0].clientHeight]", roll
        )
        return LEFT + seconds / 10 * (wide - LEFT) - wide / 2, HEAD + (
            TOP - pitch + 0.5
        ) * ROW - high / 2

    def mouse(self) -> ActionChains:
        """A hand on the mouse."""
        return ActionChains(self.driver, duration=50)


def visit(page: Page, port: int, wanted: Path, sure: Path, large: Path, recording: Path) -> None:
    """Do what a visitor does."""
    roll, notes = "canvas.pianoamt-roll", read_midi(wanted).notes
    check(
        "the page opens",
        lambda: [page.driver.get(f"http://127.0.0.1:{port}/"), page.find(".pianoamt-drop")],
    )
    page.upload(large)
    refused = "is larger than 1 MB"
    check(
        "a file that is too large is refused",
        lambda: page.wait(lambda: refused in page.find(".pianoamt-drop").text),
    )
    page.upload(recording)
    check("the recording is transcribed", lambda: page.wait(lambda: page.count() == len(notes)))
    check("its name is text, not HTML", lambda: NAME in page.message())
    check("the MIDI file is the command line's", lambda: page.download() == wanted.read_bytes())
    check(
        "nothing of the upload is left",
        lambda: not list(page.downloads.parent.rglob("recording.*")),
    )

    handle = page.find(".noUi-handle")
    handle.send_keys(Keys.END)
    few = len(read_midi(sure).notes)
    check("a slider makes notes vanish at once", lambda: page.wait(lambda: page.count() == few, 20))
    check("and the file follows it", lambda: page.download() == sure.read_bytes())
    page.press("Tuned thresholds")
    check("back to the tuned thresholds", lambda: page.wait(lambda: page.count() == len(notes), 20))

    canvas = page.find(roll)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    note = max(notes[notes["offset"] < 9], key=lambda note: note["offset"] - note["onset"])
    held = page.point((note["onset"] + note["offset"]) / 2, int(note["pitch"]))
    lower = note["pitch"] - 25  # into the empty bass
    page.mouse().move_to_element_with_offset(canvas, *held).click_and_hold().move_by_offset(
        0, 25 * ROW
    ).release().perform()
    check("a note is dragged", lambda: page.wait(lambda: "corrections: 1" in page.message(), 20))
    check(
        "to where it was put",
        lambda: lower in midi(page)["pitch"] and len(midi(page)) == len(notes),
    )
    canvas.send_keys(Keys.DELETE)
    check("a note is deleted", lambda: page.wait(lambda: page.count() == len(notes) - 1, 20))
    page.mouse().move_to_element_with_offset(canvas, *page.point(5.0, 25)).double_click().perform()
    check("a note is put in", lambda: page.wait(lambda: page.count() == len(notes), 20))
    added = midi(page)
    check("where it was clicked", lambda: abs(added[added["pitch"] == 25]["onset"][0] - 5.0) < 0.05)
    for _ in range(3):
        page.press("Undo")
    check(
        "and all is taken back", lambda: page.wait(lambda: "corrections" not in page.message(), 20)
    )
    check("without a trace", lambda: page.download() == wanted.read_bytes())

    page.press("Play")
    length = "return document.querySelector('audio').duration"
    check(
        "recording and transcription play",
        lambda: page.wait(lambda: (page.driver.execute_script(length) or 0) > 9.9),
    )
    page.upload(Path(__file__))
    check(
        "what is no recording is refused",
        lambda: page.wait(lambda: "not a sound file" in page.message(), 20),
    )
    loaded = "return performance.getEntriesByType('resource').filter(e => e.responseStatus).map(e => e.name)"
    strange = [
        name
        for name in page.driver.execute_script(loaded)
        if not re.match(r"(http://127|blob:|data:)", name)
    ]
    check("nothing was loaded from elsewhere", lambda: not strange)


def show_off(page: Page, recording: Path, path: str) -> None:
    """Take the picture of the app that the docs show: a note is clicked, the mouse rests elsewhere."""
    page.upload(recording)
    page.wait(lambda: recording.name in page.message() and page.count() > 0)
    frame = page.driver.execute_script(
        "return [outerWidth - innerWidth, outerHeight - innerHeight]"
    )
    page.driver.set_window_size(*(size + more for size, more in zip(PICTURE, frame, strict=True)))
    notes = midi(page)
    note = notes[notes["onset"] > 4][0]
    held = page.point((note["onset"] + note["offset"]) / 2, int(note["pitch"]))
    canvas = page.find("canvas.pianoamt-roll")
    page.mouse().move_to_element_with_offset(canvas, *held).click().move_by_offset(0, 200).perform()
    time.sleep(1)
    page.driver.save_screenshot(path)


def midi(page: Page) -> object:
    """The notes of the file that the page gives."""
    file = page.downloads / "notes.bin"
    file.write_bytes(page.download())
    return read_midi(file).notes


def ask(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask the server for a path exactly as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    return answer.status, answer.read()


async def run_code(port: int, kernel: str, code: str, **headers: str) -> None:
    """Send a kernel what a notebook would send to run code, on every channel."""
    address = HTTPRequest(f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels", headers=headers)
    socket_ = await websocket_connect(address)
    content = {
        "code": code,
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
    }
    for channel in ("shell", "control"):
        head = {
            "msg_id": channel,
            "username": "",
            "session": "s",
            "msg_type": "execute_request",
            "version": "5.3",
        }
        body = {
            "header": head,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": channel,
        }
        await socket_.write_message(json.dumps({**body, "buffers": []}))
    await asyncio.sleep(3)
    socket_.close()


def attack(page: Page, port: int, folder: Path) -> None:
    """Ask for what must not be given."""
    answers = {path: ask(port, path) for path in PATHS}
    leaks = [
        path
        for path, (status, body) in answers.items()
        if status == 200 or b"root:" in body or b"argv" in body
    ]
    check(f"{len(PATHS)} paths outside the app give nothing", lambda: not leaks or print(leaks))
    check("another host's name is refused", lambda: ask(port, "/", Host="evil.example")[0] == 403)
    check(
        "another site's page is refused",
        lambda: ask(port, "/", Sec_Fetch_Site="cross-site")[0] == 403,
    )
    data = page.driver.find_element(By.ID, "jupyter-config-data").get_attribute("textContent")
    kernel, written = json.loads(data)["kernelId"], folder / "written"
    code = f"open({str(written)!r}, 'w').close()"
    asyncio.run(run_code(port, kernel, code))
    check("code that a page sends is not run", lambda: not written.exists())
    check("the page is still alive", lambda: page.download())

    def other_origin() -> bool:
        try:
            asyncio.run(run_code(port, kernel, code, Origin="http://evil.example"))
        except Exception as error:
            return "403" in str(error)
        return False

    check("another site's script is refused", other_origin)
    outside = {
        entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)
    } - {"127.0.0.1"}
    outside = {address for address in outside if not address.startswith("127.")}
    if (
        sys.platform == "linux"
    ):  # all of 127.0.0.0/8 is this machine, and a server on 0.0.0.0 answers there, too
        outside.add("127.0.0.2")
    check(
        "no other address is listened at",
        lambda: not any(reaches(address, port) for address in outside),
    )


def reaches(address: str, port: int) -> bool:
    """Whether something answers there."""
    with socket.socket() as probe:
        probe.settimeout(3)
        return probe.connect_ex((address, port)) == 0


def main() -> int:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--command",
        default=str(Path(sys.executable).parent / "pianoamt"),
        help="the pianoamt to try",
    )
    parser.add_argument("--screenshot", default="", help="where to save a picture of the app")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, downloads = folder / "home", folder / "downloads"
        home.mkdir()
        downloads.mkdir()
        sound, rate = sf.read(files("pianoamt") / "demo" / "demo.flac")
        recording, large = folder / NAME, folder / "large.wav"
        sf.write(recording, sound[: 12 * rate], rate)
        large.write_bytes(bytes(1_500_000))
        line = [args.command, "transcribe", str(recording), "--device", "cpu", "--quiet", "--out"]
        subprocess.run([*line, str(folder / "wanted")], check=True)
        subprocess.run([*line, str(folder / "sure"), "--onset-threshold", "0.95"], check=True)
        wanted, sure = (folder / kind / f"{Path(NAME).stem}.mid" for kind in ("wanted", "sure"))
        command = [args.command, "app", "--no-browser", "--port", "0", "--device", "cpu"]
        if args.screenshot:
            with running_app(command, home) as (_, port), browser(downloads) as driver:
                page = Page(driver, downloads)
                page.driver.get(f"http://127.0.0.1:{port}/")
                show_off(page, shutil.copy(recording, folder / "prelude.flac"), args.screenshot)
        with (
            running_app([*command, "--megabytes", "1"], home) as (process, port),
            browser(downloads) as driver,
        ):
            page = Page(driver, downloads)
            visit(page, port, wanted, sure, large, recording)
            attack(page, port, folder)
        check("the app ends when asked to", lambda: process.returncode == 0)
        check("and leaves nothing behind", lambda: not list(home.iterdir()))
    print(f"browser_test: {passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
