import pytest

from benchmarks.large_storage import write_large_storage
from lit_attr.assets import ASSETS
from lit_attr.query.explorer import Explorer
from tests.query.estimated import write_told_apart
from tests.storage.examples import random_storage
from tests.view.browser import chromium
from tests.view.serving import served

TOKENIZER = ASSETS / "tokenizer.json"


def write(folder):
    path = folder / "dataset_attributions.pt"
    random_storage(provenance={"run_reference": "demo", "run_id": "s-litdemo0"}).save(path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A result that stays as it is."""
    return write(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def page(file):
    """Its page."""
    with served(file) as page:
        yield page


@pytest.fixture
def own_file(tmp_path):
    """A result that a test may change."""
    return write(tmp_path)


@pytest.fixture
def own_page(own_file):
    """Its page."""
    with served(own_file) as page:
        yield page


@pytest.fixture(scope="session")
def file_with_words(tmp_path_factory):
    """A made-up result with the tokens of the demo."""
    path = tmp_path_factory.mktemp("page") / "dataset_attributions.pt"
    write_large_storage(path, n_components=30, n_blocks=2, vocab=69, d_model=8)
    return path


@pytest.fixture(scope="session")
def sure_page(tmp_path_factory):
    """The page of a result in random order with standard errors, and its explorer."""
    path = write_told_apart(tmp_path_factory.mktemp("sure") / "dataset_attributions.pt", order="random")
    with served(path) as page:
        yield page, Explorer(path)


@pytest.fixture(scope="session")
def explorer(file_with_words):
    return Explorer(file_with_words, TOKENIZER)


@pytest.fixture(scope="session")
def page_with_words(file_with_words):
    with served(file_with_words, TOKENIZER) as page:
        yield page


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("downloads")) as tab:
        yield tab


@pytest.fixture
def tab(browser, page_with_words):
    """The page with words, in the browser."""
    browser.open(page_with_words.address)
    yield browser
    assert browser.problems == []
