import pytest

from lit_attr.errors import ConfigurationError, StorageError
from lit_attr.plots.style import new_figure, save


def drawn():
    with new_figure(1.0, 2.0) as figure:
        figure.subplots().set_title("$dollar")
    return figure


def test_png_has_300_dots_per_inch(tmp_path):
    from matplotlib.image import imread

    assert imread(save(drawn(), tmp_path / "x.png")).shape[:2] == (300, 600)


def test_svg_keeps_text_and_is_the_same_twice(tmp_path):
    one, other = (save(drawn(), tmp_path / name).read_text() for name in ("x.svg", "y.svg"))
    assert "$dollar</text>" in one
    assert one == other


def test_nothing_global_is_changed():
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    drawn()
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_the_style_stays_with_the_picture():
    axes = drawn().axes[0]
    assert {label.get_fontsize() for label in axes.get_xticklabels()} == {7}
    assert not axes.title.get_parse_math()


def test_refusals(tmp_path):
    with pytest.raises(ConfigurationError, match=r"a picture's name ends in .png or .svg, found '\S*x.pdf'"):
        save(drawn(), tmp_path / "x.pdf")
    save(drawn(), tmp_path / "x.png")
    with pytest.raises(StorageError, match="exists already; --overwrite replaces it"):
        save(drawn(), tmp_path / "x.png")
    save(drawn(), tmp_path / "x.png", overwrite=True)
