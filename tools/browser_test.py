"""Try `pianoamt app` in a real browser: `python tools/browser_test.py` needs Chromium, its driver and selenium.

A recording is uploaded, thresholds and notes are changed, the sound is played, and the downloads are compared with the
command line's files. Then the server is asked for what it must not give. The last line counts the checks.
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
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import soundfile as sf
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from pianoamt.notes import read_midi

FLAGS = (
    "headless=new no-sandbox disable-gpu disable-dev-shm-usage disable-quic no-first-run mute-audio "
    "disable-background-networking disable-component-update disable-sync window-size=1440,1000"
).split()
NAME = "Étude & <b>take 2<b>.flac"
PASSWD = "..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd"
PATHS = [
    *(f"/voila/files/{name}" for name in ("app.ipynb", "../kernels/pianoamt-app/kernel.json", PASSWD)),
    *(f"/voila/{place}/{PASSWD}" for place in ("static", "labextensions", "templates/lab/static", "api/themes")),
    *("/voila/static/../../../../../../../../etc/passwd", "/voila/files//etc/passwd", "/etc/passwd"),
    *("/voila/api/contents", "/voila/render/app.ipynb", "/voila/tree"),
    *(f"/api/{name}" for name in ("contents", "kernels", "sessions", "terminals")),
]  # fmt: skip
UNNAMED = """return [...document.querySelectorAll('.pianoamt :is(button, select, input, canvas)')].filter(e =>
  !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
STRANGE = """return performance.getEntriesByType('resource').filter(e => e.responseStatus).map(e => e.name)
  .filter(name => !/^(http:..127|blob:|data:)/.test(name))"""
results = []


def check(name, test):
    """Run one check, print how it went and count it."""
    try:
        problem = "" if (result := test()) else f"got {result!r}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    results.append(not problem)
    print(f"{'FAILED' if problem else 'ok'}: {name} {problem}".rstrip(), flush=True)


@contextmanager
def running_app(command, home):
    """Start the app as a user would; yield its process and the port it prints."""
    # a script's background processes ignore Ctrl-C, and the app would inherit that
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    env = {**os.environ, "TMPDIR": str(home)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=hear)
    try:
        yield process, int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def browser(downloads):
    """Start a headless Chromium that saves downloads in a folder."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The app as a visitor sees it."""

    def __init__(self, driver, downloads, port):
        self.driver, self.downloads = driver, downloads
        driver.get(f"http://127.0.0.1:{port}/")
        self.run = driver.execute_script

    def wait(self, test, seconds=60):
        return WebDriverWait(self.driver, seconds, 0.1).until(lambda _: test())

    def find(self, selector):
        return self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, f".pianoamt {selector}"), 120)[0]

    def message(self):
        return self.find(".message").text

    def says(self, text, seconds=60):
        return self.wait(lambda: re.search(text, self.message()), seconds)

    def press(self, name):
        self.find(f"[data-do={name}]").click()

    def keys(self, *keys):
        self.find(".roll").send_keys(*keys)

    def theme(self, scheme):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def resize(self, width):
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def download(self, kind="midi", suffix=".mid"):
        """Press a download button and return the file."""
        self.press(kind)
        arrived = lambda: [f for f in self.downloads.iterdir() if f.suffix == suffix and f.stat().st_size]  # noqa: E731
        file = self.wait(arrived)[0]
        content = file.read_bytes()
        file.unlink()
        return content

    def notes(self):
        """The notes of the MIDI file that the page gives."""
        file = self.downloads / "notes.bin"
        file.write_bytes(self.download())
        return read_midi(file).notes

    def pointer(self, seconds, pitch):
        """Move the mouse to a moment and a key of the roll."""
        roll = self.find(".roll")
        self.run("arguments[0].scrollIntoView({block: 'center'})", roll)
        left, top, row, start, shown = (float(roll.get_dom_attribute(f"data-{name}")) for name in ("left", "top", "row", "start", "seconds"))  # fmt: skip
        wide, high = roll.size["width"], roll.size["height"]
        x, y = left + (seconds - start) / shown * (wide - left), top + (108 - pitch + 0.5) * row
        mouse = ActionChains(self.driver, duration=50)
        return mouse.move_to_element_with_offset(roll, round(x - wide / 2), round(y - high / 2)), row


def visit(page, wanted, sure, table, large, recording):
    """Do what a visitor does."""
    page.find(".drop input").send_keys(str(large))
    check("a file that is too large is refused", lambda: page.says("larger than 1 MB"))
    page.find(".drop input").send_keys(str(recording))
    notes, few = read_midi(wanted).notes, len(read_midi(sure).notes)
    check("the recording is transcribed", lambda: page.says(f"{len(notes)} notes$", 300))
    check("its name is text, not HTML", lambda: NAME in page.message())
    check("the MIDI file is the command line's", lambda: page.download() == wanted.read_bytes())
    check("so is the CSV file", lambda: page.download("csv", ".csv") == table.read_bytes())
    check("the picture is a PNG", lambda: page.download("png", ".png")[:4] == b"\x89PNG")
    check("the upload was removed", lambda: not list(page.downloads.parent.rglob("pianoamt-*/recording")))
    check("every control has a name", lambda: not (page.run(UNNAMED) and print(page.run(UNNAMED))))

    page.find("summary").click()
    page.find("[name=onset]").send_keys(Keys.END)
    check("a threshold moves and notes vanish", lambda: page.says(f": {few} notes"))
    check("the file follows", lambda: page.download() == sure.read_bytes())
    page.press("reset")
    check("the thresholds are reset", lambda: page.says(f": {len(notes)} notes"))
    page.find("[name=sensitivity]").send_keys(Keys.END)
    check("more sensitivity, more notes", lambda: page.wait(lambda: int(page.says(r"(\d+) notes")[1]) > len(notes)))
    page.press("undo")
    check("undo brings the notes back", lambda: page.says(f": {len(notes)} notes"))

    note = max(notes[notes["offset"] < 9], key=lambda note: note["offset"] - note["onset"])
    mouse, row = page.pointer((note["onset"] + note["offset"]) / 2, int(note["pitch"]))
    mouse.click_and_hold().move_by_offset(0, round(25 * row)).release().perform()
    check("a note is dragged", lambda: page.says("corrections: 1"))
    check("to where it was put", lambda: note["pitch"] - 25 in page.notes()["pitch"])
    page.keys(Keys.DELETE)
    check("a note is deleted", lambda: page.says(f"{len(notes) - 1} notes, corrections: 2"))
    page.pointer(5.0, 25)[0].double_click().perform()
    check("a note is added", lambda: page.says(f"{len(notes)} notes, corrections: 3"))
    added = page.notes()
    check("where it was clicked", lambda: abs(added[added["pitch"] == 25]["onset"][0] - 5.0) < 0.05)
    page.keys(Keys.ARROW_UP)
    check("the arrow keys move it", lambda: page.wait(lambda: 26 in page.notes()["pitch"]))
    for step in range(4):
        page.keys(Keys.CONTROL, "z")
        page.says(f"corrections: {3 - step}" if step < 3 else f"{len(notes)} notes$")
    check("all is undone without a trace", lambda: page.download() == wanted.read_bytes())
    page.keys(Keys.CONTROL, Keys.SHIFT, "z")
    check("and redone", lambda: page.says("corrections: 1"))

    position = lambda: float(page.find(".clock").text[2:6])  # noqa: E731
    page.keys(Keys.HOME, " ")
    check("the space key plays", lambda: page.wait(lambda: position() > 1))
    page.keys(" ")
    stopped = position()
    check("and pauses", lambda: page.find("[data-do=play]").text == "Play" and position() - stopped < 0.2)
    view = lambda: float(page.find(".roll").get_dom_attribute("data-seconds"))  # noqa: E731
    before = view()
    page.run("arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -300, cancelable: true}))", page.find(".roll"))
    check("the wheel zooms", lambda: page.wait(lambda: view() < 0.7 * before))
    page.find(".overview").click()
    start = lambda: float(page.find(".roll").get_dom_attribute("data-start"))  # noqa: E731
    check("the overview scrolls", lambda: page.wait(lambda: abs(start() + view() / 2 - 6) < 0.3))
    page.resize(390)
    check("a telephone needs no sideways scrolling", lambda: page.run("return document.documentElement.scrollWidth") <= 390)
    page.theme("dark")
    check("the page is dark where the system is", lambda: page.wait(lambda: page.run("return document.querySelector('.pianoamt').className").endswith("dark")))
    page.find(".drop input").send_keys(str(Path(__file__)))
    check("a file that is no recording is refused", lambda: page.says(Path(__file__).name))
    check("nothing was loaded from elsewhere", lambda: not page.run(STRANGE))


def ask(port, path, **headers):
    """The status and the body of the server's answer to a path, exactly as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


async def run_code(port, kernel, code, **headers):
    """Send a kernel what a notebook would send to run code."""
    address = f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels"
    connection = await websocket_connect(HTTPRequest(address, headers=headers))
    head = {"username": "", "session": "s", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    for channel in ("shell", "control"):
        message = {"header": {**head, "msg_id": channel}, "parent_header": {}, "metadata": {}}
        await connection.write_message(json.dumps({**message, "content": content, "channel": channel, "buffers": []}))
    await asyncio.sleep(3)
    connection.close()


def reaches(address, port):
    """Whether a server listens there."""
    with socket.socket() as probe:
        probe.settimeout(3)
        return probe.connect_ex((address, port)) == 0


def attack(page, port, folder):
    """Ask for what must not be given."""
    answers = [(path, *ask(port, path)) for path in PATHS]
    leaks = [path for path, status, body in answers if status == 200 or b"root:" in body or b"argv" in body]
    check(f"{len(PATHS)} paths outside the app give nothing", lambda: not leaks or print(leaks))
    check("another host's name is refused", lambda: ask(port, "/", Host="evil.example")[0] == 403)
    check("another site's page is refused", lambda: ask(port, "/", Sec_Fetch_Site="cross-site")[0] == 403)
    data = page.driver.find_element(By.ID, "jupyter-config-data").get_attribute("textContent")
    kernel, written = json.loads(data)["kernelId"], folder / "written"
    code = f"open({str(written)!r}, 'w').close()"
    asyncio.run(run_code(port, kernel, code))
    check("code that a page sends is not run", lambda: not written.exists())
    check("the page is still alive", lambda: page.download())
    try:
        asyncio.run(run_code(port, kernel, code, Origin="http://evil.example"))
        answer = "accepted"
    except Exception as error:
        answer = str(error)
    check("another site's script is refused", lambda: "403" in answer)
    outside = {"127.0.0.2"} if sys.platform == "linux" else set()
    check("no other address answers", lambda: not any(reaches(address, port) for address in outside))


def main():
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    command = str(Path(sys.executable).parent / "pianoamt")
    parser.add_argument("--command", default=command, help="the pianoamt to try")
    program = parser.parse_args().command
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, downloads = folder / "home", folder / "downloads"
        home.mkdir()
        downloads.mkdir()
        sound, rate = sf.read(files("pianoamt") / "demo" / "demo.flac")
        recording, large = folder / NAME, folder / "large.wav"
        sf.write(recording, sound[: 12 * rate], rate)
        large.write_bytes(bytes(1_500_000))
        line = [program, "transcribe", str(recording), "--device", "cpu", "--quiet", "--out"]
        subprocess.run([*line, str(folder / "wanted"), "--formats", "mid,csv"], check=True)
        subprocess.run([*line, str(folder / "sure"), "--onset-threshold", "0.95"], check=True)
        made = [folder / kind / f"{recording.stem}{suffix}" for kind, suffix in (("wanted", ".mid"), ("sure", ".mid"), ("wanted", ".csv"))]
        app = [program, "app", "--no-browser", "--port", "0", "--device", "cpu", "--megabytes", "1"]
        with running_app(app, home) as (process, port), browser(downloads) as driver:
            page = Page(driver, downloads, port)
            visit(page, *made, large, recording)
            attack(page, port, folder)
        check("the app ends when asked to", lambda: process.returncode == 0)
        check("and leaves nothing behind", lambda: not list(home.iterdir()))
    print(f"browser_test: {sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
