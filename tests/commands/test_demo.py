"""The page: its parts alone, and the whole in a headless browser that drops an image and waits for the result."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.demo import build_page, cached_model, main, offered_weights, restore_file, shown_names
from mambair.errors import UserError
from mambair.imaging.photo import Photo, read_photo, write_photo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60


class Browser:
    """A headless Chromium, spoken to through its debugging pipe: JSON messages that end with a NUL character."""

    def __init__(self, profile: Path) -> None:
        from_us, self._write = os.pipe()
        self._read, to_us = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe about:blank"
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" --user-data-dir="$1" {flags} 3<&{from_us} 4>&{to_us}', CHROMIUM, str(profile)],
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._buffer, self._count, self._session = b"", 0, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **parameters) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict:
        while b"\0" not in self._buffer:
            block = os.read(self._read, 65536)
            assert block, "the browser ended"
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def value_of(self, expression: str):
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str):
        """The value of a JavaScript expression once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if value := self.value_of(expression):
                return value
            time.sleep(0.1)
        raise AssertionError(f"not true within {SECONDS} s: {expression}")

    def upload(self, selector: str, path: Path) -> None:
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def close(self) -> None:
        os.close(self._write)
        self._process.terminate()
        self._process.wait(timeout=SECONDS)
        os.close(self._read)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


@pytest.fixture
def deep_photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    write_photo(path, Photo(pixels))
    return path


def test_a_file_is_restored_with_its_depth_and_shown_at_the_result_s_size(deep_photo, tmp_path, x2_weights) -> None:
    before, after, target, done = restore_file(
        str(deep_photo), cached_model(str(x2_weights), "cpu", False), tmp_path / "out"
    )
    assert before.size == after.size == (60, 40) and before.mode == after.mode == "RGBA"
    assert done.startswith("30 x 20 to 60 x 40 pixels, in ") and done.endswith("s on cpu")
    pixels = read_photo(target).pixels
    assert pixels.shape == (40, 60, 4) and pixels.dtype == np.uint16


def test_weights_on_offer(own_cache: Path, nothing_shipped: Path, x2_weights: Path) -> None:
    with pytest.raises(UserError, match="--weights"):
        offered_weights([])
    (own_cache / "SR_x2.pth").touch()
    offered = offered_weights([str(x2_weights), "SR_x2"])
    assert offered == [str(x2_weights), str(own_cache / "SR_x2.pth")]
    elsewhere = own_cache / "elsewhere" / "SR_x2.pth"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    assert shown_names([*offered, str(elsewhere)]) == [
        ("light_x2", offered[0]),
        (f"x2: clean, sharp photos, twice as large ({offered[1]})", offered[1]),
        (str(elsewhere), str(elsewhere)),
    ]
    with pytest.raises(UserError, match=r"gone\.pth"):
        offered_weights(["gone.pth"])


def test_the_page_in_a_browser(browser: Browser, deep_photo: Path, tmp_path: Path, x2_weights: Path) -> None:
    pytest.importorskip("gradio", reason="the extra [demo] is not installed")
    page = build_page(offered_weights([str(x2_weights)]), "cpu", tmp_path)
    page.launch(prevent_thread_lock=True, quiet=True, share=False)
    try:
        browser.send("Page.navigate", url=page.local_url)
        assert browser.wait_for("document.querySelector('#weights input')?.value") == "light_x2"
        browser.wait_for("document.querySelector('#source input[type=file]') !== null")
        browser.upload("#source input[type=file]", deep_photo)
        browser.wait_for("document.querySelector('#source img') !== null")
        browser.value_of("document.querySelector('#restore').click()")
        shown = "[...document.querySelectorAll('#result img')].filter(img => img.naturalWidth == 60).length"
        assert browser.wait_for(f"{shown} >= 2")
        assert "30 x 20 to 60 x 40 pixels" in browser.wait_for("document.querySelector('#done')?.innerText")
        assert "photo_restored" in browser.wait_for("document.querySelector('#download a')?.href")
    finally:
        page.close()
    (result,) = tmp_path.glob("*/photo_restored.png")
    assert read_photo(result).pixels.shape == (40, 60, 4)


def test_ctrl_c_ends_it_whenever_it_comes(x2_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page looks out for it in a part of its waiting only."""
    gradio = pytest.importorskip("gradio", reason="the extra [demo] is not installed")
    closed = []

    def interrupted(page: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gradio.Blocks, "block_thread", interrupted)
    close = gradio.Blocks.close
    monkeypatch.setattr(gradio.Blocks, "close", lambda page, verbose=True: closed.append(page) or close(page, verbose))
    assert main(["--weights", str(x2_weights), "--device", "cpu"]) == 0
    assert len(closed) == 1
