"""Recipes: their schema, and loading them from YAML.

Does not import TensorFlow, so that a recipe can be checked in a fraction of a
second, even on a machine that cannot train.
"""

from keras_distil.config.loading import RecipeError as RecipeError
from keras_distil.config.loading import dump_recipe as dump_recipe
from keras_distil.config.loading import load_recipe as load_recipe
from keras_distil.config.loading import make_recipe as make_recipe
from keras_distil.config.loading import read_yaml as read_yaml
from keras_distil.config.loading import with_values as with_values
from keras_distil.config.output_sections import EARLIER_FORMAT as EARLIER_FORMAT
from keras_distil.config.output_sections import (
    EARLIER_FORMAT_MESSAGE as EARLIER_FORMAT_MESSAGE,
)
from keras_distil.config.output_sections import EXPORT_FORMATS as EXPORT_FORMATS
from keras_distil.config.output_sections import (
    BenchmarkSection as BenchmarkSection,
)
from keras_distil.config.output_sections import ExportSection as ExportSection
from keras_distil.config.schema import Recipe as Recipe
from keras_distil.config.search_section import Dimension as Dimension
from keras_distil.config.search_section import SearchSection as SearchSection
