"""The page in a real browser: what it saves, and what it says when the result or the server is not as it was."""

import csv
import json
import time
from xml.etree import ElementTree

import pytest
from tokenizers import Tokenizer, models

from lit_attr.query.explorer import Explorer
from lit_attr.view import drawing, questions
from tests.storage.examples import TOPOLOGY, attr_alone, from_a_share, partly_harvested, random_storage
from tests.view.browser import NARROW, Keys, chromium
from tests.view.serving import served

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def tab(downloads):
    with chromium(downloads) as tab:
        yield tab


def test_what_is_saved(tab, page, file, downloads):
    tab.open(f"{page.address}#walk=embed:2&key=0.mlp.up:1&pin=output:3", scheme="dark")

    def saved(label, name):
        tab.click(".tools .menu summary")
        tab.button(label, ".tools .menu")
        path = downloads / name
        tab.until(lambda: path.exists() and path.stat().st_size)
        return path

    found = Explorer(file).subgraph(["0.mlp.up:1", "output:3"])
    edges = {(e.source.component_key, e.target.component_key): e.value for e in found.edges}
    drawn = set(tab.edges)
    assert drawn >= set(edges)
    with saved("Edges as CSV", "lit-attr_0.mlp.up_1.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert {(row["source"], row["target"]) for row in rows} == drawn
    assert all(float(row["value"]) == edges.get((row["source"], row["target"]), float(row["value"])) for row in rows)
    assert {(row["metric"], row["normalized"]) for row in rows} == {("attr", "true")}
    assert {(row["source"], row["target"]) for row in rows if row["walked"] == "true"} == {("embed:2", "0.mlp.up:1")}
    assert {row["source_token"] for row in rows if row["source"] == "embed:2"} == {"Mia"}
    saved_json = json.loads(saved("Edges as JSON", "lit-attr_0.mlp.up_1.json").read_text())
    assert len(saved_json.pop("edges")) == len(drawn)
    assert saved_json == {
        **{"file": str(file), "n_tokens": Explorer(file).storage.n_tokens_processed, "partial": None, "rounding": None},
        **{"key": "0.mlp.up:1", "walk": ["embed:2"], "pins": ["output:3"], "neighbours": "all", "sure": False},
        "standard_errors": "not harvested",
        **{"metric": "attr", "sample": None, "sign": "both", "normalized": True, "k": 3, "depth": 2, "threshold": 0},
    }
    picture = ElementTree.fromstring(saved("Picture as SVG", "lit-attr_0.mlp.up_1.svg").read_text())
    assert picture.tag == f"{SVG}svg"
    caption = picture.find(f"{SVG}title").text
    assert caption.startswith("0.mlp.up:1: attr, normalised, both signs, all neighbours; k 3, 2 steps away")
    assert caption.endswith(f"walked from embed:2; pinned output:3; {file}")
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert {'"Mia"', "embed", "0.mlp.up"} <= set(texts)
    lines = [one for one in picture.iter(f"{SVG}path")]
    assert len(lines) == len(drawn)
    assert all("stroke:" in line.get("style") for line in lines)  # needs no style sheet
    assert any("stroke-dasharray: 6px" in line.get("style") for line in lines) == any(v < 0 for v in edges.values())
    assert next(picture.iter(f"{SVG}rect")).get("fill") == "rgb(255, 255, 255)"  # on paper, whatever the screen's theme
    assert saved("Picture as PNG", "lit-attr_0.mlp.up_1.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_saved_says_how_sure_it_is(tab, sure_page, downloads):
    page, explorer = sure_page
    tab.open(f"{page.address}#key=0.attn.o:1&k=6")

    def saved(label, ending):
        tab.click(".tools .menu summary")
        tab.button(label, ".tools .menu")
        path = downloads / f"lit-attr_0.attn.o_1.{ending}"
        tab.until(lambda: path.exists() and path.stat().st_size)
        return path.read_text()

    edges = {(e.source.component_key, e.target.component_key): e for e in explorer.subgraph(["0.attn.o:1"], k=6).edges}
    rows = list(csv.DictReader(saved("Edges as CSV", "csv").splitlines()))
    plain = json.loads(saved("Edges as JSON", "json"))
    assert (plain["standard_errors"], plain["sure"]) == ("random order", False)
    assert len(rows) == len(plain["edges"]) == len(edges)
    for row, one in zip(rows, plain["edges"], strict=True):
        edge = edges[row["source"], row["target"]]
        assert (one["source"], one["target"]) == (row["source"], row["target"])
        for name in ("standard_error", "n_groups", "few_groups"):
            assert one[name] == getattr(edge, name)
            assert row[name] == ("" if one[name] is None else json.dumps(one[name]))
        assert one["interval"] == (edge.interval and list(edge.interval))
        assert [row["low"], row["high"]] == ([json.dumps(end) for end in edge.interval] if edge.interval else ["", ""])
    assert {edge.few_groups for edge in edges.values()} == {False, True}
    picture = ElementTree.fromstring(saved("Picture as SVG", "svg"))
    assert "how far values would come out elsewhere on other text of the same kind" in picture.find(f"{SVG}title").text
    lines = list(picture.iter(f"{SVG}path"))
    n_unsure = sum(not edge.is_sure for edge in edges.values())
    assert sum("stroke-dasharray: 0.1px" in line.get("style") for line in lines) == n_unsure > 0
    assert sum("zero is in it" in line.find(f"{SVG}title").text for line in lines) > 0
    note = [text for text in picture.iter(f"{SVG}text") if text.text == "dotted: not told apart from zero"]
    assert float(note[0].get("y")) < float(picture.get("height"))
    assert tab.problems == []


def test_partial_results_say_so(tab, tmp_path):
    coverage = {"n_batches": 9, "batches": [[0, 3, 1]], "complete": False}
    random_storage(provenance={"coverage": coverage}).save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        tab.open(page.address)
        assert "Partial result: 4 of 9 batches" in tab.text("#banners")
        tab.button("Result")
        assert "partial: 4 of 9 batches" in tab.text(".about dl")
        tab.search("Mia")
        assert "no tokenizer was found" in tab.text(".search .why")


def test_a_metric_that_was_not_harvested_cannot_be_chosen(tab, tmp_path):
    attr_alone().save(tmp_path / "x.pt")
    with served(tmp_path / "x.pt") as page:
        for address in ("#key=0.mlp.up:1", "#key=0.mlp.up:1&metric=attr_abs"):
            tab.open(page.address + address)
            field = tab.one("input[name=metric][value=attr_abs]")
            assert (field.is_enabled(), field.is_selected()) == (False, False)
            title = field.find_element("xpath", "..").get_attribute("title")
            assert title.startswith("attr_abs was not harvested (--model.metrics attr): ask for attr, or harvest")
            assert tab.entries("positive sources")
            assert ("What is shown is attr." in tab.text("#banners")) == ("attr_abs" in address)
        tab.button("Result")
        assert "attr; attr_abs was not harvested" in tab.text(".about dl")
    assert tab.problems == []


def test_a_share_of_the_sequences_is_said_wherever_its_values_are(tab, tmp_path, downloads):
    from_a_share(0.25, 3).save(tmp_path / "x.pt")
    said = "attr_abs from 25 % of the sequences (3 of 10 tokens)"
    with served(tmp_path / "x.pt") as page:
        tab.open(f"{page.address}#key=0.mlp.up:1")
        assert said not in tab.text("#banners")
        tab.click(".edges summary")
        tab.click(".edges .number")
        assert tab.text(".detail").endswith(said)
        tab.choose("metric", "attr_abs")
        assert f"Values are estimates: {said}." in tab.text("#banners")
        tab.click(".tools .menu summary")
        tab.button("Picture as SVG", ".tools .menu")
        path = downloads / "lit-attr_0.mlp.up_1.svg"
        tab.until(lambda: path.exists() and said in path.read_text())
        tab.button("Result")
        assert f"attr; {said}" in tab.text(".about dl")
        assert said not in tab.text("#banners")
    assert tab.problems == []


def test_what_was_not_harvested_is_told_from_zero(tab, tmp_path):
    n_up = TOPOLOGY.n_components["0.mlp.up"]
    partly_harvested({"0.mlp.up": list(range(n_up)), "0.mlp.down": [1]}).save(tmp_path / "x.pt")
    down = f"1 of {TOPOLOGY.n_components['0.mlp.down']} 0.mlp.down component was no target of the harvest"
    with served(tmp_path / "x.pt") as page:
        tab.open(page.address)
        names = {one.get_attribute("aria-label"): one.get_attribute("class") for one in tab.all(".heat button")}
        assert names["0.attn.q to 0.mlp.up: not harvested"] == "unmeasured"
        assert "Hatched cells were not harvested" in tab.text(".map .explain")
        partly = next(name for name in names if name.startswith("0.mlp.up to 0.mlp.down"))
        assert "of its edges that were harvested" in partly
        tab.click(f".heat button[aria-label='{partly}']")
        assert down in tab.text(".pair .missing")
        tab.click(".heat button.unmeasured")
        assert f"{n_up} of {n_up} 0.mlp.up components were no targets" in tab.text(".pair .missing")
        assert not tab.all(".pair table, .pair .none:not(.missing)")
        tab.open(f"{page.address}#key=0.mlp.up:1&walk=embed:0")
        assert "Not harvested" in tab.text(".list[aria-label=Sources]")
        assert "1 component was no target" in tab.text(".list[aria-label=Targets] .missing")
        assert "embed:0 \u2192 0.mlp.up:1 was not harvested" in tab.text(".detail")
        assert tab.all(".node.unmeasured.current")
        assert ("embed:0", "0.mlp.up:1") not in tab.edges
    assert tab.problems == []


def test_provenance(tab, page, file):
    tab.open(f"{page.address}#view=about")
    assert str(file) in tab.text(".about dl")
    assert '"run_reference": "demo"' in tab.text(".json")


def test_a_result_that_is_replaced(tab, own_file, own_page):
    tab.open(f"{own_page.address}#key=output:1")
    before = tab.entries("positive sources")
    random_storage(seed=1, provenance={"run_reference": "demo"}).save(own_file)
    tab.choose("metric", "attr_abs")
    tab.choose("metric", "attr")
    assert "The result was replaced by another file" in tab.text("#banners")
    assert tab.entries("positive sources") == before
    tab.button("Open what is there now")
    tab.until(lambda: not tab.all(".banner"))
    tab.settle()
    assert tab.entries("positive sources") != before


def test_another_tab_opened_another_result(tab, own_file, own_page):
    tab.open(f"{own_page.address}#key=output:1")
    random_storage(seed=1, provenance={"run_reference": "demo"}).save(own_file)
    own_page.answer("about", renew=1)
    tab.choose("metric", "attr_abs")
    assert "Another result was opened, in another tab" in tab.text("#banners")
    tab.button("Open what is there now")
    tab.until(lambda: not tab.all(".banner"))


def test_a_result_that_breaks(tab, own_file, own_page):
    tab.open(f"{own_page.address}#key=output:1")
    with own_file.open("r+b") as opened:
        opened.truncate(100)
    tab.click(".edges summary")
    tab.click(".edges button.number")
    tab.until(lambda: "was changed in place" in tab.text(".detail"))
    tab.choose("metric", "attr_abs")
    assert "was changed in place" in tab.text(".notice.error")
    tab.button("Open what is there now")
    tab.until(lambda: "no result of a harvest" in tab.text(".notice.error"))
    random_storage(provenance={"run_reference": "demo"}).save(own_file)
    tab.button("Try again", ".notice")
    tab.until(lambda: tab.key == "output:1")


def test_a_server_that_is_gone(tab, own_file):
    with served(own_file) as page:
        tab.open(f"{page.address}#key=output:1")
    tab.choose("metric", "attr_abs")
    assert "The server does not answer" in tab.text("#banners")
    assert tab.key == "output:1"


def test_whoever_is_elsewhere_when_an_answer_comes_stays_there(tab, page, monkeypatch):
    def later(*asked):
        time.sleep(0.7)
        return drawing.subgraph(*asked)

    monkeypatch.setitem(questions.QUESTIONS, "subgraph", later)
    address = f"{page.address}#walk=embed:Mia&key=output:1"
    for name, key in (("about", "view"), ("negative", "sign")):
        tab.driver.get("about:blank")
        tab.driver.get(address)
        tab.one(".walk[aria-busy=true]")
        tab.script("document.querySelector(arguments[0]).click()", f"[data-focus={name}], input[value={name}]")
        tab.until(lambda: not tab.all("[aria-busy=true]"))
        time.sleep(1)
        assert f"{key}={name}" in tab.driver.current_url
        assert not tab.all("[aria-busy=true]")


def test_a_server_that_answers_otherwise(tab, page):
    tab.open(f"{page.address}#key=output:1")
    tab.script("window.fetch = async () => new Response('Internal Server Error', { status: 500 })")
    tab.choose("sign", "positive")
    assert "The server answered with status 500" in tab.text(".notice.error")
    assert not tab.all("#banner-gone")


def test_texts_that_cannot_be_seen(tab, own_file, downloads):
    words = ["a\u200bb", "\u202eabc", "\uffff", "\xa0", "x" * 3000]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="\xa0"))
    tokenizer.save(str(own_file.parent / "tokenizer.json"))
    with served(own_file, own_file.parent / "tokenizer.json") as page:
        tab.open(f"{page.address}#key=output:2&walk=embed:4&pin=embed:0&pin=embed:1", size=NARROW)
        assert tab.text(".head h2 .token") == '"\\uffff"'
        assert {'"a\\u200bb"', '"\\u202eabc"'} <= {one.text.split(" ")[0] for one in tab.all(".pins .crumb")}
        assert tab.script("return document.documentElement.scrollWidth") <= NARROW[0]
        tab.click(".tools .menu summary")
        tab.button("Picture as PNG", ".tools .menu")
        path = downloads / "lit-attr_output_2.png"
        tab.until(lambda: path.exists() and path.stat().st_size)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_without_an_index_a_large_result_is_not_read_unasked(tab, own_file, monkeypatch):
    monkeypatch.setattr("lit_attr.view.viewed_result._FEW_EDGES", 3)
    with served(own_file) as page:
        tab.open(page.address)
        assert f"lit-attr index {own_file}" in tab.text(".map .notice")
        tab.button("Compute it anyway (minutes)")
        tab.until(lambda: tab.all(".heat button"))
        tab.click(".heat button")
        tab.until(lambda: "has no index" in tab.text(".pair .notice"))


def test_without_scripts_the_page_says_so(page):
    assert b"This page needs JavaScript" in page.request("/")[2]


def test_a_search_that_is_slow_does_not_overtake_a_later_one(tab, page):
    tab.open(page.address)
    tab.one("#search").send_keys("0.mlp", *[Keys.BACKSPACE] * 5, "Mia")
    tab.until(lambda: tab.text("#hits li .key") == "output:2")
