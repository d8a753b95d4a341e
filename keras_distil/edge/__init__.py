"""Runs exported students without TensorFlow or Keras installed.

`Student` runs LiteRT files and needs `ai-edge-litert`, `numpy` and
`tokenizers`; `StaticStudent` runs tables of token vectors, and needs only the
last two:

    pip install ai-edge-litert numpy tokenizers
    pip install --no-deps keras-distil

`python -m keras_distil.edge FOLDER TEXT` prints what an export answers.
"""

from keras_distil.edge.answers import ANSWER_TOKENS as ANSWER_TOKENS
from keras_distil.edge.answers import Answer as Answer
from keras_distil.edge.files import BY_TOKEN as BY_TOKEN
from keras_distil.edge.files import CARD_FILE as CARD_FILE
from keras_distil.edge.files import EMBEDDING_KIND as EMBEDDING_KIND
from keras_distil.edge.files import FORMAT_VERSION as FORMAT_VERSION
from keras_distil.edge.files import STATIC_KIND as STATIC_KIND
from keras_distil.edge.files import TOKENIZER_FILE as TOKENIZER_FILE
from keras_distil.edge.static_student import TABLE_FILE as TABLE_FILE
from keras_distil.edge.static_student import StaticStudent as StaticStudent
from keras_distil.edge.static_student import row_type as row_type
from keras_distil.edge.student import ANY_LENGTH as ANY_LENGTH
from keras_distil.edge.student import MODEL_FILE as MODEL_FILE
from keras_distil.edge.student import Student as Student
from keras_distil.edge.student import padded as padded
