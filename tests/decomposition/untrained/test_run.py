import pytest
import torch

from lit_attr.decomposition.untrained import Decomposition, Neurons, Svd, run
from lit_attr.errors import ConfigurationError
from tests.decomposition.untrained.targets import make_target


@pytest.fixture
def seed(monkeypatch):
    """Models that need no file; what is put under 0 is added to their weights."""
    change = {}

    def load_pretrained(reference, table=None):
        target, own = make_target("LlamaSimple", torch.float32)
        for name, value in change.items():
            target.get_parameter(name).data += value
        return target, table or own

    monkeypatch.setattr(run, "load_pretrained", load_pretrained)
    return change


@pytest.mark.parametrize(
    ("reference", "decomposition", "expected"),
    [
        ("gpt2", Svd(), "gpt2-svd-0.01"),
        ("org/some-model", Neurons(threshold=0.25), "org-some-model-neurons-0.25"),
        ("gpt2", Svd(threshold=0.0), "gpt2-svd-0"),
        ("gpt2", Svd(threshold=1e-05), "gpt2-svd-1e-05"),
        ("folder/model", Svd(), "model-svd-0.01"),
        (".", Svd(), "here-svd-0.01"),
    ],
)
def test_run_id(reference, decomposition, expected, tmp_path, monkeypatch, seed):
    (tmp_path / "here" / "folder" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    loaded = run.load_untrained(reference, decomposition)
    assert (loaded.run_id, loaded.reference) == (expected, reference)


def test_run_ids_tell_settings_apart():
    found = [run.untrained_run_id("gpt2", Svd(matrices=matrices)) for matrices in (None, ["0.*"], ["1.*"])]
    assert len(set(found)) == 3
    assert found[1][:-6] == "gpt2-svd-0.01-"


def test_digest_covers_weights_and_settings(seed):
    def digest(decomposition):
        return run.load_untrained("x", decomposition).weights_digest

    settings = [Svd(), Svd(threshold=0.02), Svd(matrices=["*"]), Neurons()]
    digests = [digest(decomposition) for decomposition in settings]
    assert len(set(digests)) == len(settings)
    assert digests == [digest(decomposition) for decomposition in settings]
    assert digest(Svd(matrices=("*",))) == digest(Svd(matrices=["*"]))
    seed["h.1.attn.q_proj.weight"] = 1e-3
    assert not set(digests) & {digest(decomposition) for decomposition in settings}


def test_description():
    assert Svd(matrices=("0.*",)).description == {
        "class_path": "lit_attr.decomposition.untrained.svd.Svd",
        "init_args": {"threshold": 0.01, "matrices": ["0.*"]},
        "source_digest": Svd().description["source_digest"],
    }
    assert Svd().description["source_digest"] != Neurons().description["source_digest"]
    assert repr(Neurons(threshold=0.5)) == "Neurons(threshold=0.5, matrices=None)"


def test_settings_that_are_not_kept():
    class Forgetful(Decomposition):
        def __init__(self, k, rank):
            super().__init__()
            self.rank = rank

        def factors(self, layer, weight):
            return weight, None

    with pytest.raises(ConfigurationError, match=r"^Forgetful must keep .* it has none for: k$"):
        _ = Forgetful(3, 4).description
