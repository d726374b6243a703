"""The page in a real browser: how it looks."""

import pytest

from tests.view.browser import NARROW, WIDE

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page_with_words):
    return page_with_words


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
@pytest.mark.parametrize(
    "view", ["key=1.attn.q:3&k=10", "key=output:18&k=10&components=1", "walk=embed:2&walk=0.mlp.up:3&key=output:4&k=6"]
)
def test_edges_run_through_no_nodes(tab, page, size, view):
    tab.open(f"{page.address}#{view}", size)
    assert len(tab.edges) > 5
    assert tab.script(HIT) == []


@pytest.mark.parametrize(
    "view", ["key=1.attn.q:3", "key=0.attn.o:2&k=5", "walk=embed:2&walk=0.mlp.up:3&key=output:4&k=6"]
)
def test_edges_can_be_told_apart(tab, page, view):
    tab.open(f"{page.address}#{view}")
    assert len(tab.edges) > 5
    assert tab.script(SHARED) == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view", ["", "#pair=embed&pair=0.mlp.up", "#walk=output:18&key=1.attn.q:3&pin=output:18", "#view=about"]
)
def test_readable_in_every_light_and_width(tab, page, size, scheme, view):
    tab.open(page.address + view, size, scheme)
    width = tab.script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1] == size[0]
    tab.script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.script("return [...document.querySelectorAll('.step .key')].every((one) => one.offsetHeight < 30)")
    poor = tab.script(CONTRAST)
    assert poor == []


# Edges that are nearer to the middle of a node, other than their ends, than its border is.
HIT = """
const hit = [];
const nodes = [...document.querySelectorAll(".drawing .node")].map((one) => {
  const [x, y] = one.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
  return { key: one.dataset.key, x, y, half: Number(one.querySelector("rect").getAttribute("width")) / 2 };
});
for (const path of document.querySelectorAll(".drawing .touch")) {
  const ends = path.textContent.split(": ")[0].split(" \u2192 ").map((end) => end.split(" ")[0]);
  for (let at = 0; at <= path.getTotalLength(); at += 2) {
    const point = path.getPointAtLength(at);
    const isInside = ({ x, y, half }) => Math.abs(point.x - x) < half && Math.abs(point.y - y) < 13;
    const through = nodes.filter((one) => !ends.includes(one.key) && isInside(one));
    hit.push(...through.map(({ key }) => `${ends} runs through ${key}`));
  }
}
return hit;
"""
# Pairs of edges that cannot be told apart over more than 40 pixels.
SHARED = """
const ways = [...document.querySelectorAll(".drawing .line")].map((path) => {
  const points = new Map();
  for (let at = 0; at <= path.getTotalLength(); at += 1) {
    const { x, y } = path.getPointAtLength(at);
    points.set(Math.round(y), x);
  }
  return points;
});
const shared = [];
ways.forEach((one, place) => ways.slice(place + 1).forEach((other, further) => {
  const both = [...one].filter(([y, x]) => Math.abs((other.get(y) ?? Infinity) - x) < 1);
  if (both.length > 40) shared.push([place, place + 1 + further, both.length]);
}));
return shared;
"""
# Texts whose contrast with the nearest background behind them is below 4.5.
CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    if (one.matches("g.node")) return parse(getComputedStyle(one.querySelector("rect")).fill);
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] > 0.99) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
  if (element.closest("title, option")) continue;
  const style = getComputedStyle(element);
  const ink = light(parse(element.ownerSVGElement ? style.fill : style.color));
  const paper = light(behind(element));
  const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (contrast < 4.5) poor.push(`${walker.currentNode.textContent.trim()}: ${contrast.toFixed(2)}`);
}
return poor;
"""
