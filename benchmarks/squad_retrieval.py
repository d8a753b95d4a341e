r"""Makes a retrieval set of SQuAD's files, for `evaluate.retrieval`.

Every answerable question of one file is a query, whose paragraph is to be found
among the paragraphs of all files:

    python benchmarks/squad_retrieval.py dev-v1.1.json FOLDER \\
        --paragraphs train-v1.1.json
"""

import argparse

from keras_distil import data


def main() -> None:
    """Reads the command line, and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("questions", help="file whose questions are queries")
    parser.add_argument("folder", help="folder to write, in BEIR's layout")
    parser.add_argument(
        "--paragraphs",
        nargs="*",
        default=[],
        help="files whose paragraphs are documents, too",
    )
    given = parser.parse_args()
    texts = data.squad_retrieval(given.questions, given.paragraphs)
    data.save_retrieval(texts, given.folder)
    print(
        f"{given.folder}: {len(texts.queries):,} queries, "
        f"{len(texts.documents):,} documents"
    )


if __name__ == "__main__":
    main()
