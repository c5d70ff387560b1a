"""Try `pianoamt app` in a real browser: `python tools/browser_test.py` needs Chromium, its driver and selenium.

A recording is uploaded, thresholds and notes are changed, the sound is played, and the downloads are compared with the
command line's files. Then we request files that the server must not give. The last line counts the checks.
"""

import argparse
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
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import soundfile as sf
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from pianoamt.notes import read_midi

FLAGS = """headless=new no-sandbox disable-gpu disable-dev-shm-usage disable-quic no-first-run mute-audio
disable-background-networking disable-component-update disable-sync window-size=1440,1000"""
NAME = "Étude & <b>take 2<b>.flac"
UP = "..%2f" * 8
PATHS = f"""/voila/files/app.ipynb /voila/files/../kernels/pianoamt-app/kernel.json /voila/files/{UP}etc%2fpasswd
/voila/static/{UP}etc%2fpasswd /voila/labextensions/{UP}etc%2fpasswd /voila/api/themes/{UP}etc%2fpasswd
/voila/static/../../../../../../../etc/passwd /voila/files//etc/passwd /etc/passwd /voila/api/contents
/voila/render/app.ipynb /voila/tree /api/contents /api/kernels /api/sessions /api/terminals"""
UNNAMED = """return [...document.querySelectorAll('.pianoamt :is(button, select, input, canvas)')].filter(e =>
  !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
STRANGE = """return performance.getEntriesByType('resource').filter(e => e.responseStatus).map(e => e.name)
  .filter(name => !/^(http:..127|blob:|data:)/.test(name))"""
WHEEL = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -300, cancelable: true}))"
RUN_CODE = """const socket = new WebSocket(`ws://${location.host}${arguments[0]}`);
const message = {header: {msg_id: "1", username: "", session: "s", version: "5.3", msg_type: "execute_request"},
  parent_header: {}, metadata: {}, content: {code: arguments[1], silent: false, store_history: false}, buffers: []};
socket.onopen = () => ["shell", "control"].forEach(channel => socket.send(JSON.stringify({...message, channel})));
setTimeout(() => socket.close(), 3000)"""
results = []


def check(name, test):
    """Run one check, print how it went and count it."""
    try:
        result = test()
        problem = "" if result else f"got {result!r}"
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
        yield process, int(re.search(r"127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


class Page:
    """The app as a visitor sees it, in a headless Chromium that saves downloads in a folder."""

    def __init__(self, downloads, port):
        options = webdriver.ChromeOptions()
        for flag in FLAGS.split():
            options.add_argument(f"--{flag}")
        options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver, self.downloads = webdriver.Chrome(options=options, service=service), downloads
        self.run, self.command = self.driver.execute_script, self.driver.execute_cdp_cmd
        self.driver.get(f"http://127.0.0.1:{port}/")

    def wait(self, test, seconds=60):
        return WebDriverWait(self.driver, seconds, 0.1).until(lambda _: test())

    def find(self, selector):
        find = functools.partial(self.driver.find_elements, By.CSS_SELECTOR)
        return self.wait(lambda: find(f".pianoamt {selector}"), 120)[0]

    def says(self, text, seconds=60):
        return self.wait(lambda: re.search(text, self.find(".message").text), seconds)

    def press(self, name):
        self.find(f"[data-do={name}]").click()

    def view(self, name):
        return float(self.find(".roll").get_dom_attribute(f"data-{name}"))

    def download(self, kind="midi", suffix=".mid"):
        self.press(kind)
        files = self.downloads.glob
        file = self.wait(lambda: [f for f in files(f"*{suffix}") if f.stat().st_size])[0]
        content = file.read_bytes()
        file.unlink()
        return content

    def notes(self):
        (self.downloads / "notes.bin").write_bytes(self.download())
        return read_midi(self.downloads / "notes.bin").notes

    def mouse(self, seconds, pitch):
        roll = self.find(".roll")
        self.run("arguments[0].scrollIntoView({block: 'center'})", roll)
        left, wide, high = self.view("left"), roll.size["width"], roll.size["height"]
        x = left + (seconds - self.view("start")) / self.view("seconds") * (wide - left) - wide / 2
        y = self.view("top") + (108 - pitch + 0.5) * self.view("row") - high / 2
        return ActionChains(self.driver, duration=50).move_to_element_with_offset(roll, x, y)


def open_and_save(page, wanted, table, large, recording):
    """Upload files, and save what comes of them."""
    page.find(".drop input").send_keys(str(large))
    check("a file that is too large is refused", lambda: page.says("larger than 1 MB"))
    page.find(".drop input").send_keys(str(recording))
    count = len(read_midi(wanted).notes)
    check("the recording is transcribed", lambda: page.says(f"{count} notes$", 300))
    check("its name is text, not HTML", lambda: NAME in page.find(".message").text)
    check("the MIDI file is the command line's", lambda: page.download() == wanted.read_bytes())
    check("so is the CSV", lambda: page.download("csv", ".csv") == table.read_bytes())
    check("the picture is a PNG", lambda: page.download("png", ".png")[:4] == b"\x89PNG")
    left = page.downloads.parent.rglob("pianoamt-*/recording")
    check("the upload was removed", lambda: not list(left))
    page.find(".drop input").send_keys(str(Path(__file__)))
    check("a file that is no recording is refused", lambda: page.says(Path(__file__).name))


def decide(page, wanted, sure):
    """Move thresholds, correct notes, undo everything."""
    notes, roll = read_midi(wanted).notes, page.find(".roll")
    count = len(notes)
    page.find("summary").click()
    page.find("[name=onset]").send_keys(Keys.END)
    few = len(read_midi(sure).notes)
    check("a threshold moves and notes vanish", lambda: page.says(f": {few} notes"))
    check("the file follows", lambda: page.download() == sure.read_bytes())
    page.press("reset")
    check("the thresholds are reset", lambda: page.says(f": {count} notes"))
    page.find("[name=sensitivity]").send_keys(Keys.END)
    heard = lambda: int(page.says(r"(\d+) notes")[1])  # noqa: E731
    check("more sensitivity, more notes", lambda: page.wait(lambda: heard() > count))
    page.press("undo")
    check("undo brings the notes back", lambda: page.says(f": {count} notes"))
    note = max(notes[notes["offset"] < 9], key=lambda note: note["offset"] - note["onset"])
    hand = page.mouse((note["onset"] + note["offset"]) / 2, int(note["pitch"])).click_and_hold()
    hand.move_by_offset(0, round(25 * page.view("row"))).release().perform()
    check("a note is dragged", lambda: page.says("corrections: 1"))
    check("to where it was put", lambda: note["pitch"] - 25 in page.notes()["pitch"])
    roll.send_keys(Keys.DELETE)
    check("a note is deleted", lambda: page.says(f"{count - 1} notes, corrections: 2"))
    page.mouse(5.0, 25).double_click().perform()
    check("a note is added", lambda: page.says(f"{count} notes, corrections: 3"))
    added = page.notes()
    onset = added[added["pitch"] == 25]["onset"][0]
    check("where it was clicked", lambda: abs(onset - 5.0) < 0.05)
    roll.send_keys(Keys.ARROW_UP)
    check("the arrow keys move it", lambda: page.wait(lambda: 26 in page.notes()["pitch"]))
    for left in (3, 2, 1, 0):
        roll.send_keys(Keys.CONTROL, "z")
        page.says(f"corrections: {left}" if left else f"{count} notes$")
    check("all is undone without a trace", lambda: page.download() == wanted.read_bytes())
    roll.send_keys(Keys.CONTROL, Keys.SHIFT, "z")
    check("and redone", lambda: page.says("corrections: 1"))


def listen_and_look(page):
    """Play, zoom, scroll; on a telephone and in the dark."""
    roll, position = page.find(".roll"), lambda: float(page.find(".clock").text[2:6])
    roll.send_keys(Keys.HOME, " ")
    check("the space key plays", lambda: page.wait(lambda: position() > 1))
    roll.send_keys(" ")
    check("and pauses", lambda: page.find("[data-do=play]").text == "Play")
    before = page.view("seconds")
    page.run(WHEEL, roll)
    check("the wheel zooms", lambda: page.wait(lambda: page.view("seconds") < 0.7 * before))
    page.find(".overview").click()
    middle = lambda: page.view("start") + page.view("seconds") / 2  # noqa: E731
    check("the overview scrolls", lambda: page.wait(lambda: abs(middle() - 6) < 0.3))
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.command("Emulation.setDeviceMetricsOverride", size)
    width = "return document.documentElement.scrollWidth"
    check("a telephone needs no sideways scrolling", lambda: page.run(width) <= 390)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.command("Emulation.setEmulatedMedia", dark)
    is_dark = "return !!document.querySelector('.pianoamt.dark')"
    check("the page is dark where the system is", lambda: page.wait(lambda: page.run(is_dark)))
    check("every control has a name", lambda: not (page.run(UNNAMED) and print(page.run(UNNAMED))))
    check("nothing was loaded from elsewhere", lambda: not page.run(STRANGE))


def read_score(page):
    """Open the sheet music, play a bar and save the score."""
    page.press("sheet")
    measures = lambda: page.driver.find_elements(By.CSS_SELECTOR, ".pianoamt .measure")  # noqa: E731
    check("the score is engraved", lambda: page.wait(measures))
    measures()[1].click()
    check(
        "a click on a bar marks it",
        lambda: page.wait(lambda: measures()[1].find_elements(By.CSS_SELECTOR, ".now")),
    )
    check("MusicXML is saved", lambda: b"score-partwise" in page.download("musicxml", ".musicxml"))
    page.press("roll")


def ask(port, path, **headers):
    """The status and the body of the server's answer to a path, exactly as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def attack(page, port, folder):
    """Ask for what must not be given."""
    answers = [(path, *ask(port, path)) for path in PATHS.split()]
    secrets = (b"root:", b"argv")
    leaks = [p for p, status, body in answers if status == 200 or any(s in body for s in secrets)]
    check(f"{len(answers)} paths outside the app give nothing", lambda: not leaks)
    check("another host is refused", lambda: ask(port, "/", Host="evil.example")[0] == 403)
    check("another site is refused", lambda: ask(port, "/", Sec_Fetch_Site="cross-site")[0] == 403)
    data = page.driver.find_element(By.ID, "jupyter-config-data").get_attribute("textContent")
    channels = f"/api/kernels/{json.loads(data)['kernelId']}/channels"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    upgrade |= {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "http://evil.example"}
    check("another site's script is refused", lambda: ask(port, channels, **upgrade)[0] == 403)
    written = folder / "written"
    page.run(RUN_CODE, channels, f"open({str(written)!r}, 'w').close()")
    time.sleep(4)
    check("code that a page sends is not run", lambda: not written.exists())
    check("the page is still alive", lambda: page.download())
    with socket.socket() as probe:  # on Linux all of 127.0.0.0/8 is this machine
        check("no other address answers", lambda: probe.connect_ex(("127.0.0.2", port)))


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
        wanted, sure = (folder / kind / f"{recording.stem}.mid" for kind in ("wanted", "sure"))
        app = [program, "app", "--no-browser", "--port", "0", "--device", "cpu", "--megabytes", "1"]
        with running_app(app, home) as (process, port):
            page = Page(downloads, port)
            try:
                open_and_save(page, wanted, wanted.with_suffix(".csv"), large, recording)
                decide(page, wanted, sure)
                listen_and_look(page)
                read_score(page)
                attack(page, port, folder)
            finally:
                page.driver.quit()
        check("the app ends when asked to", lambda: process.returncode == 0)
        check("and leaves nothing behind", lambda: not list(home.iterdir()))
    print(f"browser_test: {sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
