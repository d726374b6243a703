"""A real Chromium, and the page in it."""

import os
import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 20
WIDE, NARROW = (1280, 900), (400, 800)
_OPTIONS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run")


@contextmanager
def chromium(downloads):
    """A headless Chromium that saves into a folder; Debian's packages chromium and chromium-driver."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(option)
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield Tab(window)
    finally:
        window.quit()


class Tab:
    """The page as a person sees it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, address, size=WIDE, scheme="light"):
        self.look(size, scheme)
        self.driver.get("about:blank")  # an address that differs behind the # alone is not loaded anew
        self.driver.get(address)
        self.until(lambda: self.all("#header h1"))
        self.settle()

    def look(self, size=WIDE, scheme="light"):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def until(self, condition):
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: condition())

    def settle(self):
        """Wait until everything that was asked is answered."""
        self.until(lambda: not self.all("[aria-busy=true], #starting"))

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.until(lambda: next(iter(self.all(selector)), None))

    def click(self, selector):
        self.one(selector).click()
        self.settle()

    def button(self, text, inside="body"):
        found = self.driver.find_element(By.CSS_SELECTOR, inside)
        found.find_element(By.XPATH, f".//button[normalize-space()='{text}']").click()
        self.settle()

    def choose(self, name, value):
        self.script("document.querySelector(arguments[0]).click()", f"input[name={name}][value={value}]")
        self.settle()

    def slide(self, name, value):
        """Move a slider, or fill in a field."""
        self.script(
            "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change'))",
            name,
            str(value),
        )
        self.settle()

    def search(self, text, *keys):
        field = self.one("#search")
        field.clear()
        field.send_keys(text)
        self.settle()
        field.send_keys(*keys)
        self.settle()

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)
        self.settle()

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    @property
    def key(self):
        return self.text(".head h2 .key")

    @property
    def nodes(self):
        return self.script("return [...document.querySelectorAll('.drawing .node')].map((one) => one.dataset.key)")

    @property
    def edges(self):
        """Of the table under the drawing: source, target, value as shown."""
        rows = self.script(
            "return [...document.querySelectorAll('.edges tbody tr')].map((row) => "
            "[row.cells[0].firstChild.dataset.key, row.cells[1].firstChild.dataset.key, row.cells[2].textContent])"
        )
        return {(source, target): value for source, target, value in rows}

    def entries(self, caption):
        """Of a list: keys with values as shown."""
        rows = self.script(
            "const found = [...document.querySelectorAll('.lists table')]"
            ".find((one) => one.caption.textContent === arguments[0]);"
            "return [...(found?.tBodies[0].rows ?? [])]"
            ".map((row) => [row.querySelector('button').dataset.key, row.cells[2].textContent])",
            caption,
        )
        return [tuple(row) for row in rows]

    @property
    def walk(self):
        return [one.text for one in self.all(".crumbs li")]

    @property
    def problems(self):
        """What the browser itself complained about since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def shown(value):
    """A number as the page writes it."""
    size = abs(value)
    sign = "\u2212" if value < 0 else "+"
    if size and (size >= 1e5 or size < 1e-3):
        digits, power = f"{size:.2e}".split("e")
        return f"{sign}{digits}e{int(power)}"
    return sign + _precise(size)


def _precise(size):
    """Four significant digits, as JavaScript's toPrecision(4) writes them."""
    if size == 0:
        return "0"
    power = int(f"{size:.3e}".split("e")[1])
    return f"{size:.{max(3 - power, 0)}f}" if power < 4 else f"{size:.3e}".replace("e+0", "e+")


__all__ = ["NARROW", "PATIENCE", "WIDE", "Keys", "Tab", "chromium", "shown"]
