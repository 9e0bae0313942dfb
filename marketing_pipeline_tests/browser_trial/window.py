"""A browser at Dagster's pages, which does what a person does: reads, presses, writes."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

SIZE = (1400, 1000)  # pixels
SETTLED = 5.0  # seconds until a page has drawn what it will
PATIENCE = 30.0  # seconds that a page may take to show something
# A page draws itself anew at any moment: what was found may be gone, or lie beneath something.
RESTLESS = (
    StaleElementReferenceException,
    ElementClickInterceptedException,
    NoSuchElementException,
)


class NotShown(AssertionError):
    """The page does not show what it should; says what, and where the picture of it is."""


class Window:
    """One tab."""

    def __init__(self, driver: webdriver.Chrome, address: str, pictures: Path) -> None:
        self._driver = driver
        self._address = address
        self._pictures = pictures

    def open(self, path: str) -> None:
        self._driver.get(f"{self._address}{path}")

    @property
    def text(self) -> str:
        """All that is to be read."""
        try:
            return self._driver.find_element(By.TAG_NAME, "body").text
        except RESTLESS:
            return ""

    def wait_for(self, *texts: str, seconds: float = PATIENCE) -> None:
        """Until all of these can be read.

        Raises:
            NotShown: they cannot in that time.
        """
        ends = time.monotonic() + seconds
        while missing := [one for one in texts if one not in self.text]:
            if time.monotonic() > ends:
                raise NotShown(f"{missing} after {seconds:.0f} s; see {self.picture('missing')}")
            time.sleep(0.25)

    def wait_until_gone(self, text: str, seconds: float = PATIENCE) -> None:
        """Until this cannot be read any more.

        Raises:
            NotShown: it still can.
        """
        ends = time.monotonic() + seconds
        while text in self.text:
            if time.monotonic() > ends:
                raise NotShown(f"{text!r} stays; see {self.picture('missing')}")
            time.sleep(0.25)

    def open_until(self, path: str, *texts: str, seconds: float) -> None:
        """Anew each few seconds, until all of these can be read: not every page refreshes itself.

        Raises:
            NotShown: they cannot in that time.
        """
        ends = time.monotonic() + seconds
        while True:
            self.open(path)
            try:
                self.wait_for(*texts, seconds=SETTLED)
            except NotShown:
                if time.monotonic() > ends:
                    raise
            else:
                (self._pictures / "missing.png").unlink(missing_ok=True)  # it was not there yet
                return

    def press(self, name: str) -> None:
        """The last thing that is called so; a dialog stands after the page beneath it.

        Raises:
            NotShown: there is none.
        """
        called = f"normalize-space(.) = '{name}'"
        self._do(f"//button[{called}] | //span[{called}]", WebElement.click, name)

    def press_until(self, name: str, text: str) -> None:
        """Again each second: a button that waits for an answer of the server does nothing."""
        ends = time.monotonic() + PATIENCE
        while text not in self.text:
            if time.monotonic() > ends:
                raise NotShown(f"{text!r} after {name!r}; see {self.picture('missing')}")
            self.press(name)
            time.sleep(1)

    def switch(self) -> None:
        """The page's one switch."""
        box = "//input[@type='checkbox']"
        self._do(box, lambda one: self._driver.execute_script("arguments[0].click()", one), box)

    def write(self, hint: str, text: str) -> None:
        """Into the field that shows this hint while it is empty."""

        def replace(field: WebElement) -> None:
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys(text, Keys.ENTER)

        self._do(f"//input[@placeholder='{hint}']", replace, hint)

    def write_config(self, text: str) -> None:
        """Into the editor, as if pasted: it would indent what is typed."""
        self._do(
            "//div[contains(concat(' ', @class, ' '), ' CodeMirror ')]",
            lambda one: self._driver.execute_script(
                "arguments[0].CodeMirror.setValue(arguments[1])", one, text
            ),
            "an editor",
        )

    def show(self, text: str) -> None:
        """Scroll so far that the first of what reads so stands at the top."""

        def scroll(one: WebElement) -> None:
            self._driver.execute_script("arguments[0].scrollIntoView()", one)

        self._do(f"(//*[normalize-space(text()) = '{text}'])[1]", scroll, text)

    def picture(self, name: str) -> Path:
        """Keep what is to be seen."""
        path = self._pictures / f"{name}.png"
        self._driver.save_screenshot(str(path))
        return path

    def _do(self, where: str, what: Callable[[WebElement], Any], name: str) -> None:
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                what(self._driver.find_elements(By.XPATH, where)[-1])
            except (*RESTLESS, IndexError) as error:
                if time.monotonic() > ends:
                    raise NotShown(f"{name!r}: {error}; see {self.picture('missing')}") from error
                time.sleep(0.25)
            else:
                return


@contextmanager
def opened(address: str, pictures: Path) -> Iterator[Window]:
    """A Chromium of the system without a screen, at that address.

    Raises:
        SystemExit: there is none.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit(
            "Chromium and its driver are needed and were not found: install them "
            "(Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.add_argument("--headless=new")
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    if os.geteuid() == 0:  # Chromium refuses its own sandbox to root
        options.add_argument("--no-sandbox")
    pictures.mkdir(parents=True, exist_ok=True)
    with webdriver.Chrome(options=options, service=Service(driver)) as chrome:
        yield Window(chrome, address, pictures)
