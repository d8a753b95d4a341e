"""The vectors of texts by a sentence embedder."""
