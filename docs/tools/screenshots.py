"""Takes the screenshots of the docs again.

    python docs/tools/screenshots.py RUN

opens the report and the logs of a finished run in Chromium, without a window,
and writes PNGs to `docs/images`: the report on a phone, a tablet and a desk,
and TensorBoard's pages. It starts TensorBoard itself, on a free port.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from PIL import Image, ImageChops

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Name of the picture, width and height of the window in pixels.
REPORT = (
    ("report_phone", 390, 1500),
    ("report_tablet", 768, 1500),
    ("report", 1400, 1800),
)
# Likewise, with the page of TensorBoard behind the name.
TENSORBOARD = (
    ("tensorboard_time_series", "timeseries", 1500, 900),
    ("tensorboard_custom_scalars", "custom_scalars", 1400, 760),
    ("tensorboard_images", "images", 1400, 640),
    ("tensorboard_text", "text", 1400, 900),
    ("tensorboard_hparams", "hparams", 1400, 420),
)
# How long a page may load, and TensorBoard may read.
_BUDGET_MS, _START_S = 20_000, 60.0
_ADDRESS = re.compile(r"http://localhost:\d+/")
# Rows of pixels that stay below the last that is not empty.
_MARGIN = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pictures; returns 1, with a line, if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    try:
        check_run(given.run)
        browser = find_browser()
        given.output.mkdir(parents=True, exist_ok=True)
        page = (given.run / "report.html").resolve().as_uri()
        for name, *size in REPORT:
            path = given.output / f"{name}.png"
            print(take(browser, page, path, *size), flush=True)
        with serve(given.run / "logs") as address:
            for name, tab, *size in TENSORBOARD:
                path = given.output / f"{name}.png"
                # Other drawings are made beside the page's clock.
                url = f"{address}?forceSVG=true#{tab}"
                print(take(browser, url, path, *size), flush=True)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check_run(run: Path) -> None:
    """Raises ValueError if a folder is not that of a finished run."""
    missing = [x for x in ("report.html", "logs") if not (run / x).exists()]
    if missing:
        raise ValueError(
            f"{run} must be the folder of a finished run, and has no "
            f"{' and no '.join(missing)}: `keras-distil run RECIPE --output "
            f"{run}` makes one."
        )


def find_browser() -> str:
    """Returns the path of Chromium.

    Raises:
        FileNotFoundError: if there is none.
    """
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise FileNotFoundError(
        f"None of {', '.join(BROWSERS)} is installed: `apt-get install "
        "chromium`."
    )


@contextlib.contextmanager
def serve(logs: Path) -> Iterator[str]:
    """Runs TensorBoard; the context's value is its address.

    Args:
        logs: the logs of a run.

    Raises:
        RuntimeError: if it shows no logs within a minute.
    """
    # Its pages show the folder's name as it is given here.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs.name]
    command += ["--port", "0", "--host", "localhost", "--load_fast=false"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=logs.parent, stdout=said, stderr=said
        )
        try:
            yield _wait(process, said)
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen, said: IO[str]) -> str:
    """Returns the address once the logs are read."""
    last, text = time.monotonic() + _START_S, ""
    while time.monotonic() < last and process.poll() is None:
        time.sleep(0.5)
        said.seek(0)
        text = said.read()
        found = _ADDRESS.search(text)
        if found is not None and _runs(found[0]):
            # Their values follow.
            time.sleep(5.0)
            return found[0]
    raise RuntimeError(f"TensorBoard shows no logs. It says: {text[-400:]!r}.")


def _runs(address: str) -> list[str]:
    with urllib.request.urlopen(f"{address}data/runs", timeout=30) as answer:
        return json.load(answer)


def take(browser: str, url: str, path: Path, width: int, height: int) -> Path:
    """Takes a picture of a page.

    Args:
        browser: path of Chromium.
        url: the page.
        path: the PNG to write.
        width: of the window, in pixels.
        height: likewise; empty rows at its end are cut.

    Returns:
        The path.

    Raises:
        RuntimeError: if the browser makes none.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.png")
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/user"]
        command += [f"--virtual-time-budget={_BUDGET_MS}"]
        command += [f"--window-size={width},{height}"]
        command += [f"--screenshot={made}", url]
        ended = subprocess.run(command, capture_output=True, text=True)
        if not made.is_file():
            raise RuntimeError(
                f"{browser} took no picture. It says: {ended.stderr[-400:]!r}."
            )
        shrink(Image.open(made).convert("RGB")).save(path, optimize=True)
    return path


def shrink(picture: Image.Image) -> Image.Image:
    """Cuts empty rows at the end, and keeps 256 colours.

    Args:
        picture: RGB.

    Returns:
        A picture with a palette.
    """
    width, height = picture.size
    empty = Image.new("RGB", picture.size, picture.getpixel((0, height - 1)))
    box = ImageChops.difference(picture, empty).getbbox()
    if box is not None:
        picture = picture.crop((0, 0, width, min(height, box[3] + _MARGIN)))
    return picture.quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    sys.exit(main())
