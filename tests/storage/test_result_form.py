import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.storage.result_form import ResultForm


@pytest.mark.parametrize(
    ("dense", "nbytes", "expected"),
    [("auto", 1 << 32, True), ("auto", (1 << 32) + 1, False), ("always", 1 << 50, True), ("never", 1, False)],
)
def test_small_results_are_dense(dense, nbytes, expected):
    assert ResultForm(dense).is_dense(nbytes) is expected


def test_rounded_results_are_compact_however_small():
    assert not ResultForm(dtype="bfloat16").is_dense(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dense": "yes"}, r"dense must be one of \['auto', 'always', 'never'\], found 'yes'"),
        ({"keep": 0}, "keep must be a whole number of at least 1, found 0"),
        ({"dtype": "float16"}, r"dtype must be one of \['float32', 'bfloat16'\], found 'float16'"),
        ({"dense": "always", "dtype": "bfloat16"}, "dtype bfloat16 is for all edges in the compact form, dense always"),
        ({"keep": 3, "dtype": "bfloat16"}, "dtype bfloat16 is for all edges in the compact form, keep 3 asks for"),
        ({"dense": "always", "keep": 3}, "dense always asks for all edges, keep 3 for the strongest alone"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ResultForm(**settings)
