import sys
from textwrap import dedent

import pytest

from keras_distil.data.corpus.documentation import InstalledDocumentation, prose
from keras_distil.data.corpus.text_files import CorpusReport


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that writes files of the package `toy_docs`."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files):
        root = tmp_path / "toy_docs"
        root.mkdir(exist_ok=True)
        for name, source in files.items():
            source = source if isinstance(source, bytes) else source.encode()
            (root / f"{name}.py").write_bytes(source)
        return InstalledDocumentation(("toy_docs",))

    return write


def paragraphs(text):
    return list(prose(dedent(text).strip("\n")))


def test_wrapped_lines_are_joined():
    assert paragraphs("""
        A first line of a paragraph
        and a second line of it.

        Another paragraph that has just enough plain words.
        """) == [
        "A first line of a paragraph and a second line of it.",
        "Another paragraph that has just enough plain words.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Only four words here.",
        "This line does not end as any good sentence does",
        ">>> print('one two three four five six seven eight.')",
        "See https://example.org for more about all of these things.",
        r"The sum \sum_i of all the numbers that one can give.",
        "x[0] = y[1] + {a: b, c: d} for one two three four five six.",
        "1 2 3 4 5 6 7 8 9 10 11 12 13.",
    ],
)
def test_what_is_not_prose_is_dropped(text):
    assert paragraphs(text) == []


def test_unicode_letters_are_prose():
    text = "Méthode décrite où les mots français ont été laissés tels quels."
    assert paragraphs(text) == [text]


def test_fenced_code_is_dropped():
    assert paragraphs("""
        This sentence comes before the code that is left out:
        ```python
        The code of which nobody should ever see a word.
        ```
        This sentence comes after the code that is left out.
        ``` one line fence that has very many words in it. ```
        This one follows a fence that takes just one line.
        """) == [
        "This sentence comes before the code that is left out:",
        "This sentence comes after the code that is left out.",
        "This one follows a fence that takes just one line.",
    ]


def test_doctests_end_at_a_blank_line():
    assert paragraphs("""
        >>> help()
        output that has many words and ends like a sentence.

        This sentence comes after the example that is left out.
        """) == ["This sentence comes after the example that is left out."]


def test_literal_blocks_end_with_their_indentation():
    assert paragraphs("""
        Here is how the thing may be called by you::

            a literal text that looks like a proper sentence, yes.

        .. code-block:: python

            another literal text that looks like a proper sentence.

        .. [1] Author, the title of the book in which
           the continuation of the citation looks like a sentence.

        .. note:: Something short.
            The text of a note is kept since it is prose.
        """) == [
        "Here is how the thing may be called by you:",
        "The text of a note is kept since it is prose.",
    ]


def test_headings_and_tables_are_dropped():
    assert paragraphs("""
        A heading that could be a sentence of some eight words.
        -------------------------------------------------------
        The first sentence that stands below the heading above.

        | a table | with a row of words that goes on. |

        ## A heading of Markdown with rather many words in it.
        """) == ["The first sentence that stands below the heading above."]


def test_arguments_in_the_style_of_google():
    assert paragraphs("""
        Args:
            units: The number of units in the hidden layer
                of the network.
            rate: (Optional) the rate at which units are dropped in training.
            *args: The remaining arguments that are passed on as given.

        Returns:
            A tensor with the same shape as the input tensor has.
        """) == [
        "The number of units in the hidden layer of the network.",
        "(Optional) the rate at which units are dropped in training.",
        "The remaining arguments that are passed on as given.",
        "A tensor with the same shape as the input tensor has.",
    ]


def test_arguments_in_the_style_of_numpy():
    assert paragraphs("""
        Parameters
        ----------
        x, y : array_like of many shapes, with optional words behind it.
            The coordinates of the points at which to evaluate
            the polynomial.
        """) == [
        "The coordinates of the points at which to evaluate the polynomial."
    ]


def test_bullets_are_paragraphs():
    assert paragraphs("""
        - The first of the points that are listed in here,
          on two lines.
        * The second of the points that are listed in here.
        1. The third of the points that are listed in here.
        """) == [
        "The first of the points that are listed in here, on two lines.",
        "The second of the points that are listed in here.",
        "The third of the points that are listed in here.",
    ]


def test_markup_is_removed():
    assert paragraphs("""
        Use ``dense`` or :class:`~keras.Layer` with **care**, see `the guide
        <docs.html>`_ and [the paper](https://example.org) of 2020 [1]_.
        """) == [
        "Use dense or keras.Layer with care, see the guide and the paper of "
        "2020."
    ]


def test_docstrings_of_all_kinds(package):
    source = '''
        """The docstring of the module has more than eight words."""

        class Thing:
            """The docstring of the class has more than eight words."""

            async def run(self):
                """The docstring of the method has more than eight words."""

        add_newdoc("name", "thing",
            """
            The docstring that is added has more than eight words.
            """)
        other("A string that is not a docstring has more than eight words.")
        add_newdoc()
        '''
    source = package(__init__=dedent(source))
    texts = list(source.paragraphs(CorpusReport()))
    assert sorted(texts) == [
        "The docstring of the class has more than eight words.",
        "The docstring of the method has more than eight words.",
        "The docstring of the module has more than eight words.",
        "The docstring that is added has more than eight words.",
    ]


def test_packages_are_read_in_order_and_not_imported(package):
    text = '"""The docstring of {} that has more than eight words."""\n'
    source = package(
        __init__="raise SystemExit",
        b=text.format("file b") + "raise SystemExit",
        a=text.format("file a"),
    )
    report = CorpusReport()
    assert list(source.paragraphs(report)) == [
        "The docstring of file a that has more than eight words.",
        "The docstring of file b that has more than eight words.",
    ]
    assert report.files == 3
    assert "toy_docs" not in sys.modules


def test_files_that_are_not_python_are_counted(package):
    source = package(
        __init__="", bad="def (", nul=b"\0", encoding=b"# coding: none\n"
    )
    report = CorpusReport()
    assert list(source.paragraphs(report)) == []
    assert report.skipped == {"file not parsable as Python": 3}


def test_odd_escapes_do_not_warn(package):
    source = package(__init__='"""A docstring with \\d in it, not raw."""')
    list(source.paragraphs(CorpusReport()))


def test_description_follows_the_files(package):
    before = package(__init__="").describe()
    assert package(__init__="").describe() == before
    assert package(__init__="", more="").describe() != before


def test_description_names_versions():
    described = InstalledDocumentation(("numpy",)).describe()
    assert described["packages"]["numpy"][0] == sys.modules["numpy"].__version__


def test_single_modules_can_be_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "The docstring of a module that is a single file."
    (tmp_path / "toy_module.py").write_text(f'"""{text}"""')
    source = InstalledDocumentation(("toy_module",))
    assert list(source.paragraphs(CorpusReport())) == [text]


@pytest.mark.parametrize("name", ["no_such_package", "os.path", ""])
def test_package_that_is_not_installed(name):
    with pytest.raises(
        ValueError, match="is not installed, or is not a top-le"
    ):
        InstalledDocumentation((name,)).describe()


def test_package_without_python_files():
    with pytest.raises(ValueError, match="'sys' has no Python files"):
        list(InstalledDocumentation(("sys",)).paragraphs(CorpusReport()))
