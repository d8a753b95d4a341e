import pytest

from keras_distil.models import hub


def test_no_pickle_is_asked_for(tmp_path, monkeypatch):
    calls = []

    def download(repository, allow_patterns):
        calls.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.download_checkpoint("hf://someone/bert") == tmp_path
    ((repository, patterns),) = calls
    assert repository == "someone/bert"
    assert set(patterns) == {
        "*.json",
        "model*.safetensors",
        "vocab.txt",
        "*/model.safetensors",
        "*/vocab.txt",
        # The model card says the licence.
        "README.md",
    }


def _cache(folder, repository, commit, files):
    """Writes a download as the client keeps it in its cache."""
    kept = folder / f"models--{repository.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    snapshot = kept / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_text(content)
    return snapshot


def test_what_was_downloaded_is_found_without_the_network(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", tmp_path)

    def refuse(*args, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)
    snapshot = _cache(tmp_path, "a/b", "0" * 40, {"config.json": "{}"})
    assert hub.cached_checkpoint("hf://a/b") == snapshot
    assert hub.cached_checkpoint("hf://a/c") is None
    assert hub.cached_checkpoint("hf://a/b@v2") is None


@pytest.mark.parametrize(
    "source", ["hf://", "hf://name", "hf://a/b/c", "hf://../a", "hf://a/b?c"]
)
def test_malformed_name(source):
    with pytest.raises(ValueError, match="hf://organisation/name`. Received"):
        hub.download_checkpoint(source)


@pytest.mark.parametrize(
    "error, reason",
    [(OSError("timed out\ndetails"), "timed out."), (KeyError(), "KeyError.")],
)
def test_failure_is_one_line(monkeypatch, error, reason):
    def fail(repository, allow_patterns):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    message = f"Could not download 'hf://a/b': {reason} Check the name"
    with pytest.raises(ConnectionError, match=message) as raised:
        hub.download_checkpoint("hf://a/b")
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_not_reported_as_the_network(monkeypatch):
    def fail(repository, allow_patterns):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    message = "a/b' to .*: No space left on device. Make room .* HF_HOME"
    with pytest.raises(OSError, match=message) as raised:
        hub.download_checkpoint("hf://a/b")
    assert not isinstance(raised.value, ConnectionError)
    assert "network" not in str(raised.value)
