"""The page in a real browser: what a person does with it."""

import pytest

from tests.view.browser import NARROW, WIDE, Keys, shown

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page_with_words):
    return page_with_words


def number(text):
    return float(text.replace("\u2212", "-"))


def as_shown(ranking):
    return [(entry.component_key, shown(entry.value)) for entry in ranking.entries]


def test_search_by_keyboard(tab, explorer):
    tab.search("her", Keys.ARROW_DOWN, Keys.ENTER)
    assert tab.text(".head h2") == '"her"output:18'
    assert tab.entries("positive sources") == as_shown(explorer.sources("output:18"))
    tab.press("/")
    tab.search("0.mlp.up:2", Keys.ENTER)
    assert tab.key == "0.mlp.up:2"
    assert tab.entries("negative targets") == as_shown(explorer.targets("0.mlp.up:2", sign="negative"))


def test_search_by_mouse_through_a_layer(tab):
    tab.search("attn.o")
    tab.click("#hits li:nth-child(2)")
    tab.until(lambda: tab.text("#hits li .key").startswith("1.attn.o:0"))
    tab.click("#hits li:nth-child(4)")
    assert tab.key == "1.attn.o:3"


def test_a_walk_through_three_nodes_and_back(tab, explorer):
    tab.search("output:18", Keys.ENTER)
    tab.choose("neighbours", "components")
    walked = ["output:18"]
    for _ in range(3):
        strongest = explorer.sources(walked[-1], k=1, sign="both", layers=["[0-9]*"]).entries[0].component_key
        tab.click(f".node[data-key='{strongest}']")
        walked.append(strongest)
        assert tab.key == strongest
        assert tab.entries("positive sources") == as_shown(explorer.sources(strongest, layers=["[0-9]*"]))
    assert tab.walk == ['"her" output:18', *walked[1:]]
    for source, target in zip(walked[1:], walked, strict=False):
        assert tab.edges[source, target] == shown(explorer.edge(source, target).normalized)
    assert len(tab.all(".drawing .link.walked")) == 3
    for key in reversed(walked[:-1]):
        tab.button("Undo")
        tab.until(lambda key=key: tab.key == key)
    tab.driver.forward()
    tab.until(lambda: tab.key == walked[1])


def test_the_drawing_is_the_subgraph_in_layers(tab, explorer):
    tab.search("1.attn.q:3", Keys.ENTER)
    for k, depth in ((3, 2), (5, 1)):
        tab.slide("k", k)
        tab.slide("depth", depth)
        found = explorer.subgraph(["1.attn.q:3"], k=k, depth=depth)
        assert tab.edges == {(e.source.component_key, e.target.component_key): shown(e.value) for e in found.edges}
        assert set(tab.nodes) == {node.component_key for node in found.nodes}
    heights = tab.script(
        "return [...document.querySelectorAll('.drawing .link .line')]"
        ".map((one) => one.getAttribute('d').match(/-?[\\d.]+/g))"
    )
    assert all(float(path[1]) > float(path[-1]) for path in heights)  # edges run upwards
    rows = [one.text for one in tab.all(".drawing .row text")]
    assert rows == sorted(rows, key=["output", "1.attn.o", "1.attn.q", "0.mlp.down", "0.attn.o", "embed"].index)


def test_threshold_and_pins(tab, explorer):
    tab.search("1.attn.q:3", Keys.ENTER)
    tab.slide("depth", 1)
    values = sorted(abs(edge.value) for edge in explorer.subgraph(["1.attn.q:3"], depth=1).edges)
    threshold = (values[1] + values[2]) / 2
    tab.slide("threshold", threshold)
    assert len(tab.edges) == len(values) - 2
    for _ in range(2):
        tab.button("Undo")
    tab.until(lambda: set(tab.nodes) == {node.component_key for node in explorer.subgraph(["1.attn.q:3"]).nodes})
    tab.button("Pin")
    assert len(tab.all(".node.pinned")) == 1
    tab.search("0.mlp.up:1", Keys.ENTER)
    both = explorer.subgraph(["0.mlp.up:1", "1.attn.q:3"])
    assert set(tab.nodes) == {node.component_key for node in both.nodes}
    tab.click(".unpin")
    assert set(tab.nodes) == {node.component_key for node in explorer.subgraph(["0.mlp.up:1"]).nodes}


def test_switches(tab, explorer):
    tab.search("0.mlp.up:2", Keys.ENTER)
    tab.choose("metric", "attr_abs")
    assert tab.entries("positive sources") == as_shown(explorer.sources("0.mlp.up:2", metric="attr_abs"))
    tab.choose("sign", "negative")
    assert tab.entries("positive sources") == []
    assert tab.entries("negative sources") == as_shown(
        explorer.sources("0.mlp.up:2", sign="negative", metric="attr_abs")
    )
    assert all(value.startswith("\u2212") for value in tab.edges.values())
    tab.choose("scale", "raw")
    raw = explorer.sources("0.mlp.up:2", sign="negative", metric="attr_abs", normalized=False)
    assert tab.entries("negative sources") == as_shown(raw)
    tab.script("const s = document.getElementById('rows'); s.value = 5; s.dispatchEvent(new Event('change'))")
    tab.settle()
    assert tab.entries("negative sources") == as_shown(raw)[:5]


def test_what_has_no_such_edges_says_why(tab):
    tab.search("output:18", Keys.ENTER)
    assert "the output feeds nothing" in tab.text(".list[aria-label=Targets]")
    tab.choose("metric", "attr_abs")
    assert "attributions to the output have no attr_abs" in tab.text(".list[aria-label=Sources]")
    assert "no such edges" in tab.text(".detail")


def test_overview_leads_to_edges_and_a_walk(tab, explorer):
    mass = explorer.matrix()
    row, column = mass.targets.index("1.attn.o"), mass.sources.index("1.attn.v")
    cell = tab.one("[data-focus='cell-1.attn.v-1.attn.o']")
    assert float(cell.get_attribute("aria-label").split(": ")[1]) == pytest.approx(mass.values[row][column], rel=1e-2)
    cell.click()
    tab.until(lambda: tab.all(".pair table"))
    best = next(
        e
        for e in explorer.edges(k=1, sign="positive").edges
        if e.target.layer == "1.attn.o" and e.source.layer == "1.attn.v"
    )
    buttons = [one.get_attribute("data-key") for one in tab.all(".pair table:first-child .step")[:2]]
    assert buttons == [best.source.component_key, best.target.component_key]
    tab.click(".pair .step")
    assert tab.key == best.source.component_key


def test_a_link_reproduces_the_view(tab, page):
    tab.search("output:18", Keys.ENTER)
    tab.choose("neighbours", "components")
    tab.choose("sign", "positive")
    tab.slide("k", 4)
    tab.button("Pin")
    tab.click(".drawing .node:not(.current)")
    seen = (tab.key, tab.walk, tab.nodes, tab.edges, tab.entries("positive sources"))
    address = tab.driver.current_url
    assert address.startswith(page.address)
    first = tab.driver.current_window_handle
    tab.driver.switch_to.new_window("tab")
    try:
        tab.open(address)
        assert (tab.key, tab.walk, tab.nodes, tab.edges, tab.entries("positive sources")) == seen
        assert tab.script("return document.querySelector('input[name=sign]:checked').value") == "positive"
        assert not tab.all(".banner")
    finally:
        tab.driver.close()
        tab.driver.switch_to.window(first)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("#key=9.mlp.up:1", "unknown layer '9.mlp.up'; layers are: embed"),
        ("#key=1.mlp.up:999", "1.mlp.up has 30 components (0 to 29)"),
        ("#key=nonsense", "malformed component key 'nonsense'"),
        ("#key=output:%22Mja%22", 'no token has the text "Mja"'),
        ("#view=overview&pair=embed&pair=0.mlp.down", "no attr edges from embed to 0.mlp.down"),
    ],
)
def test_bad_links_are_explained(browser, page, address, message):
    browser.open(page.address + address)
    assert message in browser.text(".notice.error")
    browser.search("her", Keys.ARROW_DOWN, Keys.ENTER)
    assert browser.text(".head h2").startswith('"her"')
    assert not browser.all(".walk.failed")
    browser.problems  # noqa: B018 - the browser reports refused questions: forget them


def test_steps_and_pins_that_are_not_there_are_said_and_the_rest_is_shown(tab, page):
    tab.open(f'{page.address}#key=output:18&walk=embed:777&walk=embed:"Mia"&pin=h.0.mlp.c_fc:1')
    assert "embed:777 is left out of the drawing: embed has 69 token ids (0 to 68)" in tab.text(".problem")
    assert tab.key == "output:18"
    assert {"embed:2", "0.mlp.up:1"} < set(tab.nodes)
    assert [one.get_attribute("data-key") for one in tab.all(".node.pinned")] == ["0.mlp.up:1"]
    assert "walk=embed:777&walk=embed:2&key=output:18&pin=0.mlp.up:1" in tab.driver.current_url


def test_a_link_whose_numbers_make_no_sense_shows_the_usual_view(tab, page):
    tab.open(f"{page.address}#key=output:18&k=many&depth=-3&threshold=x&rows=7&metric=x&sign=x&view=x&of=x&pair=x")
    assert tab.key == "output:18"
    assert tab.text("output[for=k]") == "3"
    assert "made with another result" in tab.text("#banners")


def test_enter_takes_what_is_typed_and_not_what_was_marked_before(tab):
    tab.search("Mia", Keys.ARROW_DOWN)
    tab.one("#search").send_keys(*[Keys.BACKSPACE] * 3, "her", Keys.ENTER)
    tab.until(lambda: tab.key == "output:18")


def test_the_slider_never_leaves_out_the_strongest_edge(tab):
    tab.search("1.attn.q:3", Keys.ENTER)
    strongest = max(abs(number(value)) for ends, value in tab.edges.items() if tab.key in ends)
    tab.script(
        "const range = document.querySelector('[data-focus=threshold-slider]'); range.value = 100;"
        "range.dispatchEvent(new Event('input')); range.dispatchEvent(new Event('change'))"
    )
    tab.settle()
    threshold = float(tab.script("return document.getElementById('threshold').value"))
    assert 0.9 * strongest <= threshold <= 1.0001 * strongest
    assert strongest in [abs(number(value)) for value in tab.edges.values()]
    tab.slide("threshold", -5)
    assert tab.script("return document.getElementById('threshold').value") == "0"


def test_an_edge_by_both_metrics(tab, explorer):
    tab.search("1.attn.q:3", Keys.ENTER)
    tab.choose("metric", "attr_abs")
    source, target = next(iter(tab.edges))
    tab.click(".edges summary")
    tab.click(".edges button.number")
    tab.until(lambda: tab.text(".detail"))
    for metric in ("attr", "attr_abs"):
        edge = explorer.edge(source, target, metric=metric)
        assert f"{metric} {shown(edge.normalized)} (raw {shown(edge.raw)})" in tab.text(".detail")


def test_another_size_of_the_window(tab, page):
    tab.open(f"{page.address}#key=1.attn.q:3")
    for size in (NARROW, (320, 800), WIDE):
        tab.look(size)
        tab.until(lambda: tab.script("return document.querySelector('.drawing').clientWidth <= innerWidth"))
        assert not tab.all(".banner")


def test_the_map_has_no_signs(tab):
    assert not tab.all("input[name=sign]")
    tab.click("[data-focus='cell-1.attn.v-1.attn.o']")
    tab.choose("sign", "negative")
    assert tab.text(".pair caption") == "negative edges"


def test_bad_searches_are_explained(tab):
    tab.search("zzzz")
    assert "no token contains" in tab.text(".search .why")
    tab.search("0.attn.q:99")
    assert "0.attn.q has 30 components (0 to 29)" in tab.text(".search .why")
    tab.search("hre", Keys.ENTER)
    assert "similar token" in tab.text("#hits")
    assert not tab.all(".head h2")


def test_a_token_by_its_text_in_a_link(tab, page):
    tab.open(f'{page.address}#key=output:"her"')
    assert tab.key == "output:18"
    tab.until(lambda: "key=output:18" in tab.driver.current_url)


def test_by_keyboard_alone(tab):
    tab.press("/")
    tab.press("1.attn.q:3")
    tab.until(lambda: tab.all("#hits li"))
    tab.press(Keys.ENTER)
    assert tab.key == "1.attn.q:3"
    for _ in range(60):
        tab.press(Keys.TAB)
        if tab.script("return document.activeElement.matches('.drawing .node')"):
            break
    here = "return document.activeElement.dataset.key"
    assert tab.script(here) == "1.attn.q:3"
    tab.press(Keys.ARROW_UP)
    above = tab.script(here)
    assert above.startswith("1.attn.o:")
    tab.press("P")
    assert above in [node.get_attribute("data-key") for node in tab.all(".node.pinned")]
    assert tab.script(here) == above
    tab.press(Keys.ENTER)
    assert (tab.key, tab.script(here)) == (above, above)
    tab.press("U")
    tab.until(lambda: tab.key == "1.attn.q:3")


def test_the_map_by_keyboard(tab):
    tab.script("document.querySelector('.heat button[tabindex=\"0\"]').focus()")
    first = tab.script("return document.activeElement.ariaLabel")
    tab.press(Keys.ARROW_DOWN)
    assert tab.script("return document.activeElement.ariaLabel") != first
    tab.press(Keys.ENTER)
    tab.until(lambda: tab.all(".pair table"))


def test_nothing_comes_from_elsewhere(tab, page):
    tab.search("output:18", Keys.ENTER)
    tab.driver.refresh()
    tab.settle()
    loaded = tab.script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded
    assert all(name.startswith(page.address) for name in loaded)
