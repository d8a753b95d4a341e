import subprocess
import sys

import numpy as np
import pytest
from toy import byte_level_tokenizer

from keras_distil.data.corpus import beam, text_files, tokenized
from keras_distil.data.corpus.preparation import corpus_settings, prepare_corpus
from keras_distil.data.corpus.prepared_corpus import open_corpus
from keras_distil.data.corpus.text_files import TextFiles

WORDS = "the of sun moon shines over sea river hill star wind rain".split()
# Beam's own modules, on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def sources(tmp_path):
    """Three files with repeats within and across them, and odd lines."""
    random = np.random.default_rng(0)
    folder = tmp_path / "text"
    folder.mkdir()
    texts = [
        " ".join(random.choice(WORDS, random.integers(1, 14)))
        for _ in range(300)
    ]
    for i, name in enumerate("abc"):
        lines = texts[90 * i : 90 * i + 120]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n\n\u200b\n")
    return [TextFiles("*.txt", root=folder), TextFiles("b.txt", root=folder)]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("packed", []),
        ("bucketed", []),
        (
            "packed",
            [
                "--direct_running_mode=multi_processing",
                "--direct_num_workers=2",
            ],
        ),
    ],
)
def test_beam_writes_the_same_bytes(
    sources, tokenizer, tmp_path, monkeypatch, layout, options
):
    if not options:  # other processes do not see these
        monkeypatch.setattr(text_files, "UNIT_BYTES", 900)
        monkeypatch.setattr(tokenized, "SHARD_TOKENS", 16 * 9)
    settings = {
        "sequence_length": 16,
        "held_out_fraction": 0.2,
        "layout": layout,
    }
    prepare_corpus(sources, tokenizer, output=tmp_path / "local", **settings)
    beam.prepare_with_beam(
        sources,
        tokenizer,
        corpus_settings(tokenizer, **settings),
        output=str(tmp_path / "beam"),
        options=options,
    )
    local = bytes_of(tmp_path / "local")
    assert bytes_of(tmp_path / "beam") == local
    assert len(local) > 5 or options
    made = open_corpus(tmp_path / "beam", verify=True)
    assert made.report.skipped["repeated paragraph"] > 100


def test_existing_corpus_is_kept(sources, tokenizer, tmp_path):
    settings = {"sequence_length": 16, "held_out_fraction": 0.2}
    prepare_corpus(sources, tokenizer, output=tmp_path / "a", **settings)
    with pytest.raises(ValueError, match="already holds a corpus. Give anoth"):
        beam.prepare_with_beam(
            sources,
            tokenizer,
            corpus_settings(tokenizer, **settings),
            output=str(tmp_path / "a"),
        )


def test_no_text(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    settings = corpus_settings(
        tokenizer, sequence_length=16, held_out_fraction=0.2
    )
    with pytest.raises(ValueError, match="no usable training paragraph"):
        beam.prepare_with_beam(
            [TextFiles("a.txt", root=tmp_path)],
            tokenizer,
            settings,
            output=str(tmp_path / "out"),
        )


def test_extra_is_named():
    code = (
        "import sys; sys.modules['apache_beam'] = None;"
        "import keras_distil.data.corpus.beam"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert "pip install 'keras-distil[beam]'" in done.stderr


def test_words_that_the_vocabulary_lacks(
    sources, tokenizer, tmp_path, monkeypatch
):
    folder = tmp_path / "text"
    for path in folder.iterdir():
        path.unlink()
    (folder / "a.txt").write_text("sun zzz zzz\nmoon the\n")
    (folder / "b.txt").write_text("sun zzz zzz\nzzz sea\n")
    output = tmp_path / "beam"
    settings = corpus_settings(
        tokenizer, sequence_length=16, held_out_fraction=0.0
    )
    beam.prepare_with_beam(sources, tokenizer, settings, output=str(output))
    # "sun zzz zzz" counts once: 3 of 7.
    report = open_corpus(output).report
    assert (report.unknown_tokens, report.train_tokens) == (3, 7)
    (folder / "a.txt").write_text("sun zzz zzz\nmoon\n")
    with pytest.raises(Exception, match="50.0% of the tokens of the corpus"):
        beam.prepare_with_beam(
            sources, tokenizer, settings, output=str(tmp_path / "again")
        )
    # No shard was written before.
    assert not (tmp_path / "again").exists()


def test_the_unknown_token_is_the_tokenizers(sources, tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path / "byte_level")
    settings = corpus_settings(
        tokenizer, sequence_length=16, held_out_fraction=0.0
    )
    output = tmp_path / "beam"
    beam.prepare_with_beam(sources, tokenizer, settings, output=str(output))
    assert "0.0% of the tokens are <unk>;" in str(open_corpus(output).report)
