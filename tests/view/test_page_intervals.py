"""The page in a real browser: how sure values are, and what is hidden since it is not."""

import pytest

from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from tests.query.estimated import write_told_apart
from tests.view.browser import NARROW, WIDE, shown
from tests.view.serving import served
from tests.view.test_page_looks import CONTRAST, HIT

pytestmark = pytest.mark.browser
HIDDEN = "hidden: not told apart from zero."


@pytest.fixture
def tab(browser):
    yield browser
    assert browser.problems == []


@pytest.fixture
def page(sure_page):
    return sure_page[0]


@pytest.fixture
def explorer(sure_page):
    return sure_page[1]


def is_sure(one):
    return one.interval is not None and one.interval[0] * one.interval[1] > 0


def error(one):
    """A standard error as the page writes it."""
    value = one.standard_error
    return f"\u00b1 {value:.0f}" if value >= 100 else f"\u00b1 {float(f'{value:.1e}'):#.2g}".removesuffix(".")


def rows(tab, inside=".lists"):
    """Of all lists: what each row shows, and where its bar and interval are, as shares of their track."""
    return {caption: table for caption, table in tab.script(ROWS, inside)}


@pytest.mark.parametrize("key", ["0.attn.q:0", "0.attn.q:2", "output:3"])
def test_rows_have_standard_errors_and_intervals(tab, page, explorer, key):
    tab.open(f"{page.address}#key={key}")
    found = rows(tab)
    kinds = set()
    for ask, way in ((explorer.sources, "sources"), (explorer.targets, "targets")):
        if way == "targets" and key.startswith("output"):
            continue
        lists = {sign: ask(key, sign=sign) for sign in ("positive", "negative")}
        entries = [entry for ranking in lists.values() for entry in ranking.entries]
        largest = max(abs(entry.value) for entry in entries)
        ends = [abs(end) for entry in entries for end in entry.interval or ()]
        scale = max(largest, min(max(ends, default=0), 1.6 * largest))
        for sign, ranking in lists.items():
            assert (f"{sign} {way}" in found) == bool(ranking.entries)
            for entry, row in zip(ranking.entries, found.get(f"{sign} {way}", []), strict=True):
                assert (row["key"], row["number"]) == (entry.component_key, shown(entry.value))
                assert row["isUnsure"] == (not is_sure(entry))
                assert row["bar"] == pytest.approx(abs(entry.value) / scale, abs=0.02)
                kinds.add("few" if entry.few_groups else is_sure(entry))
                if entry.few_groups:
                    assert (row["beside"], row["whisker"], row["title"]) == ("few", None, None)
                    continue
                near, far = sorted(end if entry.value > 0 else -end for end in entry.interval)
                assert row["beside"] == error(entry)
                assert row["whisker"] == pytest.approx([max(near, 0) / scale, min(far / scale, 1)], abs=0.03)
                assert row["caps"] == [near >= 0, far <= scale]
                assert f"95 % interval {shown(entry.interval[0])} to {shown(entry.interval[1])}" in row["title"]
                assert row["title"].endswith("zero is in it") == (not is_sure(entry))
                assert row["said"] == f"; {row['title']}"
    assert kinds == {"few", False, True}


def test_marks_and_orders_are_explained(tab, page, explorer):
    tab.open(f"{page.address}#key=embed:4")
    assert "how far values would come out elsewhere on other text of the same kind" in tab.text(".lists .meaning")
    below = [one.text for one in tab.all(".lists .order")]
    orders = [explorer.targets("embed:4", sign=sign).n_separated for sign in ("positive", "negative")]
    assert orders == [2, 1]
    assert below == [
        "The intervals of the first 2 lie beyond those of the others.",
        "The interval of the first one lies beyond those of the others.",
    ]
    places = tab.script("return [...document.querySelectorAll('tr.separated')].map((one) => one.sectionRowIndex)")
    assert [place + 1 for place in places] == orders
    tab.open(f"{page.address}#key=0.attn.q:0")
    assert {one.text for one in tab.all(".lists .order")} == {
        "Their order is not sure: not all of them have intervals."
    }
    tip = "return getComputedStyle(document.querySelector('.lists .few'), '::after').content"
    assert tab.script(tip) == "none"
    tab.script("document.querySelector('.lists .few').focus()")
    why = "the source occurred in fewer than 4 groups of batches, too few for an interval"
    assert tab.script(tip) == f'"No interval: {why}."'
    assert tab.one(".lists .few").get_attribute("aria-label") == f"few: {why}"
    assert f"few: {why}." in [one.text for one in tab.all(".lists .meaning")]


def test_the_drawing_tells_sure_edges_from_others(tab, page, explorer):
    tab.open(f"{page.address}#key=0.attn.o:1&k=6")
    tab.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
    expected = {}
    for edge in explorer.subgraph(["0.attn.o:1"], k=6).edges:
        said = "No interval" if edge.few_groups else f"{shown(edge.value)} {error(edge)}; 95 % interval"
        expected[edge.source.component_key, edge.target.component_key] = (is_sure(edge), said)
    links = tab.script(LINKS)
    assert len(links) == len(expected)
    widths = {True: [], False: []}
    for link in links:
        sure, said = expected[tuple(link["ends"])]
        assert said in link["title"]
        dots = {"0.1px, 5px"} if not sure else {"none", "6px, 4px"}
        assert link["dashes"] in dots
        widths[sure].append((abs(explorer.edge(*link["ends"]).normalized), float(link["width"])))
    assert {"none", "6px, 4px", "0.1px, 5px"} == {link["dashes"] for link in links}
    # An edge that is not told apart is thinner than any that is, and as strong or stronger.
    assert all(w < other for v, w in widths[False] for u, other in widths[True] if v <= u)
    assert "not told apart from zero" in tab.text(".legend")
    assert tab.script(HIT) == []


def test_sure_ones_alone(tab, page, explorer):
    tab.open(f"{page.address}#key=0.attn.o:1&walk=0.attn.q:1&k=6")
    tab.choose("sure", "sure")
    assert "sure=1" in tab.driver.current_url
    tab.driver.refresh()
    tab.until(lambda: tab.all(".lists table"))
    tab.settle()
    assert tab.script("return document.querySelector('input[name=sure]:checked').value") == "sure"
    found = rows(tab)
    hidden = []
    for ask, way in ((explorer.sources, "sources"), (explorer.targets, "targets")):
        for sign in ("positive", "negative"):
            ranking = ask("0.attn.o:1", sign=sign, sure=True)
            assert [row["key"] for row in found.get(f"{sign} {way}", [])] == [e.component_key for e in ranking.entries]
            hidden += [ranking.n_unsure] if ranking.n_unsure else []
    assert [int(one.text.split()[0]) for one in tab.all(".lists .hidden-ones")] == hidden
    assert all(one.text.endswith(HIDDEN) for one in tab.all(".lists .hidden-ones"))
    graph = explorer.subgraph(["0.attn.o:1"], k=6, sure=True)
    drawn = {(e.source.component_key, e.target.component_key) for e in graph.edges}
    # The step that was walked stays, as what it is.
    assert set(tab.edges) == drawn | {("0.attn.q:1", "0.attn.o:1")}
    assert len(tab.all(".link.unsure")) == len(tab.all(".link.unsure.walked")) == 1
    assert f"{graph.n_unsure} edges are {HIDDEN}" in tab.text(".detail")
    tab.open(f"{page.address}#pair=0.attn.q&pair=0.attn.o&sure=1")
    pair = explorer.pair_edges("0.attn.q", "0.attn.o", sign="negative", sure=True)
    listed = rows(tab, ".pair")["negative edges"]
    assert [(row["key"], row["number"], row["beside"]) for row in listed] == [
        (edge.source.component_key, shown(edge.value), error(edge)) for edge in pair.edges
    ]
    assert f"{pair.n_unsure} edges are {HIDDEN}" in tab.text(".pair")
    tab.choose("sure", "all")
    assert len(rows(tab, ".pair")["negative edges"]) > len(listed)


def test_an_edge_says_its_intervals_by_both_metrics(tab, page, explorer):
    tab.open(f"{page.address}#key=0.attn.o:1&k=6")
    tab.click(".edges summary")
    for source, kind in (("0.attn.q:2", "interval"), ("0.attn.q:0", "few")):
        tab.script(
            "const named = (row) => [0, 1].map((at) => row.cells[at].firstChild.dataset.key).join(' ');"
            "[...document.querySelectorAll('.edges tbody tr')].find((row) => named(row) === arguments[0])"
            ".querySelector('button.number').click()",
            f"{source} 0.attn.o:1",
        )
        tab.until(lambda source=source: tab.text(".detail").startswith(source))
        for metric, line in zip(("attr", "attr_abs"), tab.all(".detail .line"), strict=True):
            edge = explorer.edge(source, "0.attn.o:1", metric=metric)
            if kind == "few":
                assert f"{metric} {shown(edge.normalized)} (raw {shown(edge.raw)}); no interval" in line.text
                continue
            for value, normalized in ((edge.normalized, True), (edge.raw, False)):
                one = edge.estimated(normalized=normalized)
                low, high = one.interval
                assert f"{shown(value)} {error(one)} [{shown(low)} to {shown(high)}]" in line.text
            assert f"{float(f'{edge.n_groups:.3g}'):g} groups of batches" in line.text
            zero = edge.normalized_interval[0] * edge.normalized_interval[1] <= 0
            assert line.text.endswith("not told apart from zero") == zero


def test_a_result_without_standard_errors_looks_as_before(tab, page_with_words):
    tab.open(f"{page_with_words.address}#key=1.attn.q:3")
    field = tab.one("input[name=sure][value=sure]")
    assert not field.is_enabled()
    assert field.find_element("xpath", "..").get_attribute("title") == WHY_NO_ERRORS
    assert not tab.all(".error, .few, .whisker, .unsure, .estimated, .order, .meaning, .said")
    assert "told apart" not in tab.text("main")
    tab.open(f"{page_with_words.address}#key=1.attn.q:3&sure=1")
    assert f"Which edges are sure is not known: {WHY_NO_ERRORS}" in tab.text("#banners")
    assert "sure=1" not in tab.driver.current_url
    assert tab.entries("positive sources")
    tab.click("[data-focus=about]")
    assert f"none: {WHY_NO_ERRORS}" in tab.text(".about dl")


def test_in_the_order_of_the_file_the_page_says_what_intervals_mean(tab, tmp_path):
    with served(write_told_apart(tmp_path / "x.pt")) as page:
        for view in ("#key=0.attn.o:1", "#pair=0.attn.q&pair=0.attn.o"):
            tab.open(page.address + view)
            said = "of this text in the order of its file alone: rows were not drawn at random"
            assert said in tab.text(".lists .meaning, .pair .meaning")
        tab.click("[data-focus=about]")
        assert said in tab.text(".about dl")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_in_every_light_and_width(tab, page, size, scheme):
    for view in ("#key=0.attn.q:0&walk=0.attn.o:1", "#pair=0.attn.q&pair=0.attn.o"):
        tab.open(page.address + view, size, scheme)
        tab.script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert tab.script("return document.documentElement.scrollWidth") <= size[0]
        assert tab.script(CONTRAST) == []
        assert tab.script(OUTSIDE) == []


def test_intervals_can_be_seen_in_forced_colours(tab, page):
    tab.open(f"{page.address}#key=0.attn.q:0")
    features = [{"name": "forced-colors", "value": "active"}]
    tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    lines = tab.script(
        "return [...document.querySelectorAll('.whisker, .bar')].map((one) => getComputedStyle(one))"
        ".map((style) => [style.borderLeftStyle, style.borderRightStyle, style.borderRightColor])"
    )
    paper = tab.script("return getComputedStyle(document.querySelector('.card')).backgroundColor")
    chosen = "return [...document.querySelectorAll('.choice span')].map((one) => getComputedStyle(one).backgroundColor)"
    assert len(set(tab.script(chosen))) == 2
    assert len(lines) > 10
    assert all({left, right} <= {"solid", "dotted"} and ink != paper for left, right, ink in lines)


ROWS = """
return [...document.querySelectorAll(`${arguments[0]} table`)].map((table) => [table.caption.textContent,
  [...table.tBodies[0].rows].map((row) => {
    const cell = row.querySelector("td.value");
    const track = cell.querySelector(".track").getBoundingClientRect();
    const share = (x) => (x - track.left) / track.width;
    const whisker = cell.querySelector(".whisker");
    const box = whisker?.getBoundingClientRect();
    const caps = whisker && getComputedStyle(whisker);
    return {
      key: row.querySelector("button").dataset.key,
      number: cell.querySelector(".number").textContent,
      beside: cell.querySelector(".error, .few").textContent.trim(),
      title: cell.getAttribute("title"),
      said: cell.querySelector(".said")?.textContent ?? null,
      isUnsure: cell.classList.contains("unsure"),
      bar: share(cell.querySelector(".bar").getBoundingClientRect().right),
      whisker: box ? [share(box.left), share(box.right)] : null,
      caps: caps ? [caps.borderLeftWidth, caps.borderRightWidth].map((width) => width !== "0px") : null,
    };
  })]);
"""
LINKS = """
return [...document.querySelectorAll(".drawing .link")].map((link) => {
  const style = getComputedStyle(link.querySelector(".line"));
  const title = link.querySelector("title").textContent;
  const ends = title.split(": ")[0].split(" \u2192 ");
  return { ends, title, dashes: style.strokeDasharray, width: parseFloat(style.strokeWidth) };
});
"""
# Numbers and tracks that reach beyond the cell of their value, or overlap.
OUTSIDE = """
return [...document.querySelectorAll("td.value")].filter((cell) => cell.offsetParent).flatMap((cell) => {
  const { left, right } = cell.getBoundingClientRect();
  const parts = [".number", ".error, .few", ".track"].map((one) => cell.querySelector(one).getBoundingClientRect());
  const isWithin = parts.every((one) => one.left >= left - 1 && one.right <= right + 1 && one.width > 10);
  const isApart = parts.slice(1).every((one, place) => one.left >= parts[place].right - 1);
  const isOneLine = parts[0].bottom > parts[2].top && parts[2].bottom > parts[0].top;
  return isWithin && isApart && isOneLine ? [] : [cell.textContent];
});
"""
