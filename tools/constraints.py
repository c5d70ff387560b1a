"""Write constraints.txt again from settings.ini, for all supported Pythons: `python tools/constraints.py` (needs uv)."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = """\
# The tested set: every set-up command of the README installs with `-c constraints.txt`.
# Written by tools/constraints.py from settings.ini; the markers choose what each Python (3.10 to 3.13) can have.
"""
# beside settings.ini: the installer itself, the release of torch that the figures of the README were measured with,
# and a helper of the docs theme that has only ever had pre-releases
EXTRA = ["pip", "setuptools", "wheel", "torch==2.13.0", "sphinx-basic-ng>=1.0.0b2"]
# torch pins its own accelerator libraries exactly; naming them here would only get in the way of a CPU build
LEFT_OUT = re.compile(r"(nvidia|cuda|triton|torch)\b")


def requirements() -> list[str]:
    """All requirements of settings.ini, of the package and of every extra."""
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = config["DEFAULT"]
    return [name for key in cfg if key.endswith("requirements") for name in cfg[key].split()]


def main() -> int:
    """Resolve for all Pythons at once; arguments go to `uv pip compile`, e.g. `--extra-index-url URL`."""
    how = (
        "--universal --python-version 3.10 --no-annotate --no-header --quiet --prerelease explicit"
    )
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", *how.split(), *sys.argv[1:]]
    wanted = "\n".join(requirements() + EXTRA)
    done = subprocess.run(command, input=wanted, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    pins = [line for line in done.stdout.splitlines() if line and not LEFT_OUT.match(line)]
    pins = sorted([*pins, "torch==2.13.0"])
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(pins)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
