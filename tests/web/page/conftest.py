"""The page in a real browser, before a real server in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from tests.bundle.small_bundle import write_working
from tests.web.page.drawn_model import SPEC, Drawn, write_drawn

from clearmargin.web.app import make_app
from clearmargin.web.limits import ServeLimits
from clearmargin.web.run import address_of, open_socket
from clearmargin.web.served import load_served
from clearmargin.web.serving import ServeSettings

TOKEN = "a-token-of-more-than-sixteen"


@dataclass
class Tab:
    """A tab, and whatever it asked for or complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def upload(self, *paths: Path) -> None:
        """Sends files and waits until all are decided."""
        self.page.set_input_files("#files", [str(path) for path in paths])
        self.settle()

    def settle(self) -> None:
        """Waits until nothing is under way."""
        self.page.wait_for_selector("tr[data-decision]", state="attached")
        self.page.wait_for_selector("tr[data-decision=pending]", state="detached")
        self.page.wait_for_selector(".run", state="detached")

    def rows(self) -> list[dict[str, str]]:
        """What the table says, row by row."""
        return self.page.eval_on_selector_all(
            "table.results tbody tr",
            "rows => rows.map(row => ({name: row.querySelector('th a').textContent, decision: row.dataset.decision,"
            " number: row.querySelector('.number').textContent}))",
        )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A bundle with cases, and images of every decision."""
    return write_drawn(tmp_path_factory.mktemp("drawn"), "first", seed=1, with_cases=True)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another bundle, which cannot abstain and carries no cases."""
    folder = tmp_path_factory.mktemp("second") / "second"
    write_working(folder, name="residual", spec=SPEC)
    return folder


@contextmanager
def serve(folder: Path, *bundles: Path, limits: ServeLimits | None = None, token: str | None = None) -> Iterator[str]:
    """The address of a server that lives as long as the block."""
    for name in ("private", "state"):
        (folder / name).mkdir(mode=0o700, parents=True)
    limits = limits or ServeLimits()
    settings = ServeSettings(folder / "private", folder / "state", limits, token=token)
    app = make_app(load_served(bundles, limits), settings)
    opened = open_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield address_of(opened)
    finally:
        server.should_exit = True
        thread.join()
        opened.close()


@pytest.fixture(scope="session")
def site(drawn: Drawn, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of two models; the first has everything."""
    with serve(tmp_path_factory.mktemp("site"), drawn.bundle, second) as url:
        yield url


@pytest.fixture
def api(site: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{site}/api/v1", timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def open_tab(browser: Browser, site: str) -> Iterator[Callable[..., Tab]]:
    """`open_tab(path, url=…, **context)`; after the test no tab asked another host or broke the policy."""
    tabs: list[Tab] = []
    with ExitStack() as stack:

        def make(path: str = "/", *, url: str = site, ready: str = ".example img", **options: Any) -> Tab:
            settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}, "locale": "en-US"}
            context = browser.new_context(**settings | options)
            stack.callback(context.close)
            context.set_default_timeout(20_000)
            page = context.new_page()
            tab = Tab(page, url)
            tabs.append(tab)
            page.on("request", lambda each: tab.requests.append(each.url))
            page.on("console", lambda message: tab.complaints.append(message.text))
            page.on("pageerror", lambda error: tab.complaints.append(str(error)))
            page.goto(url + path)
            if ready:
                page.wait_for_selector(ready, state="attached")
            return tab

        yield make
    for tab in tabs:
        foreign = {each for each in tab.requests if urlsplit(each).scheme not in ("data", "blob")}
        assert {f"{urlsplit(each).scheme}://{urlsplit(each).netloc}" for each in foreign} == {tab.url}
        # The browser itself writes a line for every answer that is an error, which the page expects and shows.
        assert [each for each in tab.complaints if not each.startswith("Failed to load resource")] == []
