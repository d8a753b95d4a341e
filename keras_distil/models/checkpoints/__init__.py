"""Names and layouts of stored weights, independent of Keras models."""

from keras_distil.models.checkpoints.config import (
    CheckpointConfig as CheckpointConfig,
)
from keras_distil.models.checkpoints.config import (
    hugging_face_config as hugging_face_config,
)
from keras_distil.models.checkpoints.config import read_config as read_config
from keras_distil.models.checkpoints.hugging_face import (
    HuggingFaceCheckpoint as HuggingFaceCheckpoint,
)
from keras_distil.models.checkpoints.hugging_face import (
    write_checkpoint as write_checkpoint,
)
from keras_distil.models.checkpoints.safetensors_files import (
    SAFETENSORS_FILES as SAFETENSORS_FILES,
)
from keras_distil.models.checkpoints.safetensors_files import (
    list_tensors as list_tensors,
)
