"""Runs the Space as the Hub would: `python .ci/space.py WORK`.

Its folder is pushed to a Hub on loopback by the command that everybody uses, fetched from there, and started in a
virtual environment made from its own requirements.txt. Then it is asked for one story, and opened in a browser.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from gradio_client import Client
from playwright.sync_api import sync_playwright


ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hub_server import HubServer  # noqa: E402


STARTED = time.monotonic()
OPENING = "Gus is in the kitchen. He is talking to Mabel."


def say(what: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {what}", flush=True)


def fetch(work: Path) -> Path:
    """Push the Space and fetch it, each in a process of its own."""
    download = (
        "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], repo_type='space', local_dir=sys.argv[2])"
    )
    with HubServer() as hub:
        environment = {**os.environ, **hub.environment(work / "home"), "HF_TOKEN": hub.token}
        environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        publish = ["-m", "train.publish", "space", "--out", str(work / "made"), "--push", "tester/studio"]
        for arguments in (publish, ["-c", download, "tester/studio", str(work / "space")]):
            subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    return work / "space"


def ask(url: str) -> int:
    """Tell one story over the API.

    Returns:
        how many PNG files come with it.
    """
    client = Client(url, verbose=False)
    first = client.view_api(return_format="dict")["named_endpoints"]["/tell_story"]["parameters"][0]
    text = first["python_type"]["type"] == "str"
    told = client.predict(OPENING if text else [OPENING], api_name="/tell_story")
    files = {name for name in re.findall(r"[^'\"]+\.png", repr(told)) if Path(name).is_file()}
    return sum(Path(name).read_bytes().startswith(b"\x89PNG") for name in files)


def look(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page, wrong = browser.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        page.get_by_role("textbox").first.wait_for()
        assert "SAGANets" in page.title() and not wrong, (page.title(), wrong)
        browser.close()


def main(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    space = fetch(work)
    say(f"pushed and fetched: {len([p for p in space.rglob('*') if p.is_file()])} files")
    python = work / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(space / "requirements.txt")], check=True)
    say("its requirements are installed")
    app_file = re.search(r"^app_file: (\S+)$", (space / "README.md").read_text(encoding="utf-8"), re.M)[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    environment |= {"GRADIO_SERVER_PORT": "7893", "HF_HOME": str(work / "home"), "PYTHONUNBUFFERED": "1"}
    with open(work / "app.log", "w+") as log:
        app = subprocess.Popen([python, app_file], cwd=space, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                text = (work / "app.log").read_text()
                if found := re.search(r"http://[\w.]+:\d+", text):
                    break
                if app.poll() is not None:
                    sys.exit(f"the Space stopped:\n{text}")
                time.sleep(0.1)
            else:
                sys.exit(f"the Space did not start in two minutes:\n{text}")
            say(f"started: {found[0]}")
            frames = ask(found[0])
            say(f"a story of {frames} pictures")
            assert frames >= 4, frames
            look(found[0])
            say("and a page in the browser")
        finally:
            app.terminate()
            app.wait(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
