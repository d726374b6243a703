import json

import pytest

from lit_attr.assets import ASSETS
from lit_attr.errors import ConfigurationError, DataError, EdgeNotFoundError, KeyFormatError
from lit_attr.query.explorer import Explorer
from lit_attr.query.keys import KeyReader, tables_of
from lit_attr.query.token_texts import TokenTexts, quoted
from lit_attr.topology.address import ComponentKey
from tests.storage.examples import random_storage

WORDS = [" her", "her", " him", "<s>", "\n", "a:b", '"', "5", " her"]
LAYERS = ["embed", "0.mlp.up", "0.mlp.down", "0.attn.q", "output"]


def word_tokenizer(path, words):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])).save(str(path))
    return path


@pytest.fixture
def reader(tmp_path):
    tokens = TokenTexts(word_tokenizer(tmp_path / "tokenizer.json", WORDS[:-1]), 8)
    return KeyReader(LAYERS, tables_of(None), tokens, [])


@pytest.mark.parametrize(
    ("text", "layer", "index"),
    [
        ("0.mlp.up:5", "0.mlp.up", 5),
        ("h.0.mlp.c_fc:5", "0.mlp.up", 5),
        ("transformer.h.0.mlp.c_proj:1", "0.mlp.down", 1),
        ("model.layers.0.self_attn.q_proj:0", "0.attn.q", 0),
        ("wte:3", "embed", 3),
        ("lm_head:3", "output", 3),
        ("embed:17", "embed", 17),
        ('embed:" her"', "embed", 0),
        ("embed: her", "embed", 0),
        ("embed:her", "embed", 1),
        ("output:her", "output", 1),
        ('output:"5"', "output", 7),
        ("output:5", "output", 5),
        ('output:"\\n"', "output", 4),
        ('output:"\n"', "output", 4),
        ("output:\n", "output", 4),
        ("output:a:b", "output", 5),
        ('output:"\\""', "output", 6),
        ('lm_head:"<s>"', "output", 3),
        ("9.mlp.up:3", "9.mlp.up", 3),
    ],
)
def test_keys(reader, text, layer, index):
    assert reader.key(text) == ComponentKey(layer, index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('output:" hex"', r'no token has the text " hex" in .*tokenizer.json; near are " her"'),
        ("output:HER", r'no token has the text "HER" in .*; near are " her", "her"'),
        ("output:qqqqqqqqqqqqqq", r'no token has the text "qqqqqqqqqqqqqq" in [^;]*$'),
        ('output:"her', r"malformed key 'output:\"her': a token's text is quoted as in JSON"),
        ("output:", "malformed component key 'output:'"),
        ("output", "malformed component key 'output'"),
        ("0.mlp.up:her", "malformed component key '0.mlp.up:her'"),
        (":3", "malformed component key ':3'"),
    ],
)
def test_keys_that_are_none(reader, text, message):
    with pytest.raises(KeyFormatError, match=message):
        reader.key(text)


def test_a_text_of_several_tokens(tmp_path):
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"<0x41>": 0, "A": 1, "\u2581the": 2, "the": 3}, unk_token="A"))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = TokenTexts(tmp_path / "tokenizer.json", 4)
    assert [tokens.text(i) for i in range(5)] == ["A", "A", " the", "the", None]
    reader = KeyReader(LAYERS, [], tokens, [])
    with pytest.raises(KeyFormatError, match='2 tokens have the text "A": give one of the ids 0, 1'):
        reader.key("output:A")
    assert reader.key('output:" the"').index == 2


def test_token_ids_that_the_model_does_not_have(tmp_path):
    tokens = TokenTexts(word_tokenizer(tmp_path / "tokenizer.json", WORDS[:-1]), 2)
    assert tokens.ids("5") == []


def test_no_tokenizer(tmp_path):
    random_storage().save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    with pytest.raises(
        KeyFormatError, match=r"names a token by its text, and no tokenizer was found \(looked in: nowhere"
    ):
        explorer.sources("output: her")
    assert explorer.sources("output:1").entries[0].token is None
    with pytest.raises(ConfigurationError, match=r"no tokenizer at .*none.json"):
        Explorer(tmp_path / "x.pt", tmp_path / "none.json")


def test_a_damaged_tokenizer(tmp_path):
    random_storage().save(tmp_path / "x.pt")
    (tmp_path / "t.json").write_text("no")
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        Explorer(tmp_path / "x.pt", tmp_path / "t.json").sources("output:1")


@pytest.mark.parametrize(
    "provenance",
    [
        {"run_reference": "demo"},
        {"run_reference": str(ASSETS / "runs" / "demo-s-litdemo1")},
        {"configuration": {"data": {"dataset": {"tokenizer": str(ASSETS / "tokenizer.json")}}}},
        {"run_reference": str(ASSETS), "decomposition": {"method": "svd"}},
    ],
)
def test_the_tokenizer_is_found_by_the_provenance(tmp_path, provenance):
    random_storage(provenance=provenance).save(tmp_path / "x.pt")
    answer = Explorer(tmp_path / "x.pt").sources('output:"Mia"')
    assert (answer.key.component_key, answer.key.token) == ("output:2", "Mia")
    names = ["<s>", ".", "Mia", "Lily", "Anna"]
    assert all(e.token == names[e.component_idx] for e in answer.entries if e.layer == "embed")


@pytest.mark.parametrize("place", ["run", "target", "named"])
def test_the_tokenizer_of_a_run_in_a_cache(tmp_path, monkeypatch, place):
    root = tmp_path / "out"
    run = root / "runs" / "spd-s-abcd1234"
    run.mkdir(parents=True)
    target = root / "pretrain_cache" / "spd-t-abcd1234" if place == "target" else tmp_path / "own"
    target.mkdir(parents=True)
    (target / "model_config.yaml").write_text("{}")
    name = "wandb:goodfire/spd/runs/t-abcd1234" if place == "target" else str(target / "model.pt")
    (run / "final_config.yaml").write_text(json.dumps({"pretrained_model_name": name}))
    word_tokenizer((run if place == "run" else target) / "tokenizer.json", ["x", "y"])
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(root))
    random_storage(provenance={"run_reference": "s-abcd1234"}).save(tmp_path / "x.pt")
    assert Explorer(tmp_path / "x.pt").sources("output:y").key.component_key == "output:1"


def test_a_path_table_of_its_own(tmp_path):
    table = {"architecture": "Mine", "embed": "tok", "output": "head", "blocks": {"mlp.up": "b.{block}.in"}}
    provenance = {"configuration": {"model": {"path_table": table}}}
    random_storage(provenance=provenance).save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    assert explorer.sources("b.0.in:1").key.component_key == "0.mlp.up:1"
    with pytest.raises(EdgeNotFoundError, match=r"unknown layer 'h\.0\.mlp\.c_fc'"):
        explorer.sources("h.0.mlp.c_fc:1")


def test_layers(reader):
    assert reader.matching([]) is None
    assert reader.matching(["0.mlp.*", "h.0.attn.q_proj"]) == {"0.mlp.up", "0.mlp.down", "0.attn.q"}
    assert reader.matching(["[0-9]*"]) == set(LAYERS) - {"embed", "output"}
    with pytest.raises(ConfigurationError, match=r"no layer matches '9\.\*'; layers are: embed, 0\.attn\.q"):
        reader.matching(["embed", "9.*"])


def test_a_module_path_of_several_layers():
    reader = KeyReader(["embed", "0.mlp.down", "0.glu.down", "output"], tables_of(None), None, [])
    with pytest.raises(KeyFormatError, match=r"may be any of 0\.glu\.down, 0\.mlp\.down: name one of them"):
        reader.key("h.0.mlp.down_proj:1")


def test_texts_are_written_so_that_they_can_be_seen_and_read_back():
    for text, written in (
        (" é😀", '" é😀"'),
        ("a\u200b\xa0\uffff\u3164", r'"a\u200b\u00a0\uffff\u3164"'),
        ('\n"', r'"\n\""'),
    ):
        assert quoted(text) == written
        assert json.loads(written) == text
