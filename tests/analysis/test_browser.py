"""The report in a browser: headless Chromium over the DevTools protocol, which it speaks on a pair of pipes."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any

import pytest

from analysis import write
from analysis.page import Contents, Heading, Section, Text, html

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium and no google-chrome on PATH")

LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
DESK, PHONE = (1280, 900), (390, 844)
PATIENCE = 60.0


class Browser:
    """One page at a time, what it asked the network for, and what went wrong in it."""

    def __init__(self, profile: Path) -> None:
        own_in, self.to = os.pipe()
        self.come, own_out = os.pipe()
        ends = [fcntl(fd, F_DUPFD, 10) for fd in (own_in, own_out)]  # clear of 3 and 4, which Chromium wants
        os.close(own_in)
        os.close(own_out)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                 "--no-first-run", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, ends), str(CHROMIUM), *flags, "about:blank"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in ends:
            os.close(fd)
        self.buffer, self.last, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        os.close(self.to)  # the end of its pipe ends Chromium
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.come)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, size: tuple[int, int], anchor: str = "") -> None:
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        phone = size == PHONE
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone
        )
        if phone:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.events = []
        self.call("Page.navigate", url=path.as_uri() + anchor)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def mouse(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def tap(self, x: float, y: float) -> None:
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def key(self, name: str) -> None:
        codes = {"Tab": 9, "Escape": 27, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=codes[name])

    def tip(self) -> str:
        """The text of the tooltip, a line a row; empty while it is hidden."""
        return self.value("(t => t.hidden ? '' : [...t.children].map(c => c.textContent).join('\\n'))"
                          "(document.querySelector('.tip'))")  # fmt: skip

    def wrong(self) -> list[dict[str, Any]]:
        """Errors in the console."""
        return [
            e
            for e in self.events
            if e.get("method") == "Runtime.exceptionThrown"
            or (e.get("method") == "Runtime.consoleAPICalled" and e["params"]["type"] in ("error", "assert"))
            or (e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error")
        ]

    def asked(self) -> list[str]:
        """Addresses that the page asked for, itself apart."""
        return [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent" and e["params"]["type"] != "Document"
        ]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.come], [], [], max(0.0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            data = os.read(self.come, 1 << 16)
            assert data, "Chromium ended"
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def report(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(demo, "demo", tmp_path_factory.mktemp("report"))


PLACE = """
(() => {
  const el = document.querySelector(`%s`), svg = el.closest("svg");
  el.scrollIntoView({ block: "center" });
  let x = +el.getAttribute("cx"), y = +el.getAttribute("cy");
  if (el.tagName !== "circle") {
    const path = el.querySelector("path"), at = path.getPointAtLength(path.getTotalLength() / 2);
    x = at.x; y = at.y;
  }
  const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
  return [at.x, at.y, el.dataset.tip];
})()
"""


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_loads_nothing_logs_nothing_and_fits(browser: Browser, report: Path, size: tuple[int, int]) -> None:
    browser.open(report, size)
    assert browser.value("innerWidth") == size[0]
    assert browser.value("document.documentElement.scrollWidth") <= size[0]
    assert browser.value("document.querySelectorAll('svg[data-axes]').length") > 5
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= size[0], "with all that is folded away open"
    narrow = "[...document.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().width < %d).length"
    assert browser.value(narrow % (300 if size == PHONE else 340)) == 0
    assert browser.wrong() == []
    assert [url for url in browser.asked() if not url.startswith("data:")] == []


def test_a_pointer_on_a_point_tells_what_it_is_and_dims_the_rest(browser: Browser, report: Path) -> None:
    browser.open(report, DESK)
    x, y, said = browser.value(PLACE % "circle[data-tip]")
    assert browser.tip() == ""
    browser.mouse(x, y)
    assert browser.tip() == said and "95" not in said
    dim = "[...document.querySelectorAll('svg .dim')].every(e => e.dataset.series !== %s)"
    series = browser.value("document.querySelector('circle.here').dataset.series")
    assert browser.value("document.querySelectorAll('svg .dim').length") > 0
    assert browser.value(dim % json.dumps(series))
    box = browser.value("(r => [r.left, r.right, r.top])(document.querySelector('.tip').getBoundingClientRect())")
    assert 0 <= box[0] and box[1] <= DESK[0] and box[2] >= 0
    browser.mouse(2, 2)
    assert browser.tip() == "" and browser.value("document.querySelectorAll('svg .dim, svg .here').length") == 0
    assert browser.wrong() == []


def test_a_line_is_read_at_the_pointer_on_a_log_axis(browser: Browser, report: Path) -> None:
    browser.open(report, DESK)
    line = "#curves + * svg g[data-tip], #curves ~ .figures svg g[data-tip]"
    x, y, said = browser.value(PLACE % line)
    browser.mouse(x, y)
    name, seed, tokens, loss = browser.tip().split("\n")
    assert tokens.startswith("text tokens: ") and loss.startswith("held-out loss, nats per token: ")
    # What is read there is a point of the law that the curve was made from: 2 + (tokens / 1e6)^-0.3, and an offset.
    shown = tokens.removeprefix("text tokens: ")
    count = float(shown[:-1]) * {"M": 1e6, "k": 1e3}[shown[-1]]
    speedup = 1.5 if "0.2-0.3" in name else 1.0
    assert abs(float(loss.rsplit(" ", 1)[1]) - (2 + (speedup * count / 1e6) ** -0.3)) < 0.05
    assert seed.startswith(("seed ", "mean of ")) and said


def test_a_tap_shows_and_a_tap_elsewhere_hides(browser: Browser, report: Path) -> None:
    browser.open(report, PHONE)
    x, y, said = browser.value(PLACE % "circle[data-tip]")
    browser.tap(x, y)
    assert browser.tip() == said
    left, right = browser.value("(r => [r.left, r.right])(document.querySelector('.tip').getBoundingClientRect())")
    assert 0 <= left and right <= PHONE[0]
    assert browser.value("document.documentElement.scrollWidth") <= PHONE[0]
    browser.tap(5, 5)
    assert browser.tip() == ""


def test_the_keyboard_steps_through_a_figure(browser: Browser, report: Path) -> None:
    browser.open(report, DESK)
    for _ in range(60):
        browser.key("Tab")
        if browser.value("document.activeElement.tagName") == "svg":
            break
    first = browser.tip()
    assert first
    browser.key("ArrowRight")
    assert browser.tip() not in ("", first)
    browser.key("Escape")
    assert browser.tip() == ""
    assert browser.value("document.activeElement.getAttribute('aria-label')")


def test_verdicts_lead_to_their_section_and_ids_are_unique(browser: Browser, report: Path) -> None:
    browser.open(report, DESK)
    ids = browser.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = browser.value("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href').slice(1))")
    assert targets and set(targets) <= set(ids)
    assert browser.value("document.querySelector('td a').getAttribute('href')") == "#curves"


def test_a_link_unfolds_the_section_that_it_leads_to(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    folded = Section(Heading("Folded", id="folded"), [Heading("Inside", 3, id="inside"), Text("here")], open=False)
    path.write_text(html("t", [Contents(), Section(Heading("Open", id="open"), [Text("there")]), folded]))
    browser.open(path, DESK)
    assert browser.value("[...document.querySelectorAll('details')].map(d => d.open)") == [True, False]
    browser.value("location.hash = '#inside'")
    browser.value("new Promise(done => setTimeout(done, 100))")
    assert browser.value("document.querySelector('#inside').closest('details').open")
    browser.open(path, DESK, "#folded")
    assert browser.value("document.querySelector('#folded').closest('details').open")
    assert browser.wrong() == []
