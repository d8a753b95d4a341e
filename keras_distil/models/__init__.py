"""Teachers and students: KerasHub task models with checkpoint weights."""

from keras_distil.models.architectures.bert import (
    ExactBertBackbone as ExactBertBackbone,
)
from keras_distil.models.architectures.bert import (
    ExactBertMaskedLM as ExactBertMaskedLM,
)
from keras_distil.models.architectures.distil_bert import (
    ExactDistilBertMaskedLM as ExactDistilBertMaskedLM,
)
from keras_distil.models.architectures.roberta import (
    ExactRobertaBackbone as ExactRobertaBackbone,
)
from keras_distil.models.architectures.roberta import (
    ExactRobertaMaskedLM as ExactRobertaMaskedLM,
)
from keras_distil.models.elmo.language_model import (
    ElmoClassifier as ElmoClassifier,
)
from keras_distil.models.elmo.language_model import ElmoEncoder as ElmoEncoder
from keras_distil.models.embedded import (
    embedded_directory as embedded_directory,
)
from keras_distil.models.embedding_model import (
    embedding_model as embedding_model,
)
from keras_distil.models.embedding_model import (
    with_principal_components as with_principal_components,
)
from keras_distil.models.hub import commit_of as commit_of
from keras_distil.models.initialize_student import (
    initialize_student as initialize_student,
)
from keras_distil.models.initialize_student import (
    student_layer_indices as student_layer_indices,
)
from keras_distil.models.load_embedding_model import (
    load_embedding_model as load_embedding_model,
)
from keras_distil.models.load_teacher import (
    checkpoint_directory as checkpoint_directory,
)
from keras_distil.models.load_teacher import load_teacher as load_teacher
from keras_distil.models.load_teacher import (
    local_directory as local_directory,
)
from keras_distil.models.static_embedding import (
    static_embedding_model as static_embedding_model,
)
from keras_distil.models.task_model import load_task_model as load_task_model
from keras_distil.models.task_model import task_model as task_model
from keras_distil.models.text_preprocessor import (
    TextPreprocessor as TextPreprocessor,
)
from keras_distil.models.token_models import SpanExtractor as SpanExtractor
from keras_distil.models.token_models import TokenClassifier as TokenClassifier
from keras_distil.models.weights import with_dtype as with_dtype
