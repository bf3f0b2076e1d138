"""Headless Chromium, with which pages are opened in tests and drawn for the documentation."""

import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


def run(*arguments):
    """stdout and stderr of Chromium."""
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def answer(page, question, *flags):
    """The value of a JavaScript expression in a loaded page, and the lines of the console."""
    script = f"""<script>addEventListener("load", () => {{
      document.title = JSON.stringify({question}); }})</script>"""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "page.html"
        copy.write_text(pathlib.Path(page).read_text().replace("</body>", f"{script}</body>"))
        given = ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", *flags]
        page_text, log = run(*given, copy.as_uri())
    title = html.unescape(re.search("<title>(.*?)</title>", page_text).group(1))
    return json.loads(title), [line for line in log.splitlines() if "CONSOLE" in line]


def asked(page):
    """(images, empty images, whether the page is too wide) of a page, and lines of the console."""
    return answer(
        page,
        "[document.images.length, [...document.images].filter(i => !i.naturalWidth || "
        "!i.width).length, document.documentElement.scrollWidth > innerWidth]",
    )


def sections(page, width):
    """{id: (top, height)} of the sections of a page, and its height, in pixels."""
    question = """[[...document.querySelectorAll("section")].map(s => [s.id, s.offsetTop,
      s.offsetHeight]), document.documentElement.scrollHeight]"""
    (found, height), _ = answer(page, question, f"--window-size={width},900")
    return {name: (top, tall) for name, top, tall in found}, height


def screenshot(page, picture, width, height):
    """Writes a picture of a page."""
    run(f"--window-size={width},{height}", f"--screenshot={picture}", pathlib.Path(page).as_uri())
