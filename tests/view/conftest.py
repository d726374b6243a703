import pytest

from tests.storage.examples import random_storage
from tests.view.serving import served


def write(folder):
    path = folder / "dataset_attributions.pt"
    random_storage(provenance={"run_reference": "demo", "run_id": "s-litdemo0"}).save(path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A stored harvest that stays as it is."""
    return write(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def page(file):
    """Its page."""
    with served(file) as page:
        yield page


@pytest.fixture
def own_file(tmp_path):
    """A stored harvest that a test may change."""
    return write(tmp_path)


@pytest.fixture
def own_page(own_file):
    """Its page."""
    with served(own_file) as page:
        yield page
