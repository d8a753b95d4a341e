import io

import rich.console

from keras_distil.utils import progress


def on_a_pipe(monkeypatch, seconds):
    """A Progress that writes to the returned stream, and a fake clock."""
    made = progress.Progress()
    stream = io.StringIO()
    made.console = rich.console.Console(file=stream, width=40)
    ticks = iter(seconds)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))
    return made, stream


def test_plain_lines_are_few_and_the_last_one_is_there(monkeypatch):
    made, stream = on_a_pipe(monkeypatch, [0, 1, 16, 17, 18])
    with made.bar("Train", 4) as bar:
        for done in range(1, 5):
            bar.update(done, "loss 1.0")
    assert stream.getvalue().splitlines() == [
        "Train: 2/4 loss 1.0 (16 s, 30 s left)",
        "Train: 4/4 loss 1.0 (18 s)",
    ]


def test_long_lines_are_not_wrapped(monkeypatch):
    made, stream = on_a_pipe(monkeypatch, [0, 99])
    with made.bar("Train", 1) as bar:
        bar.update(1, "x" * 100)
    made.say("y" * 100)
    assert len(stream.getvalue().splitlines()) == 2


def test_quiet_says_nothing(capsys):
    made = progress.Progress(quiet=True)
    made.say("hidden")
    with made.bar("Train", 1) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar():
    made = progress.Progress()
    stream = io.StringIO()
    made.console = rich.console.Console(
        file=stream, force_terminal=True, width=100
    )
    with made.bar("Train", 2) as bar:
        bar.update(2, "loss 1.0")
    assert "Train" in stream.getvalue()
    assert "2/2" in stream.getvalue()
