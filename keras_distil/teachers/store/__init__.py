"""Outputs of a teacher on disk: records in shards, and a manifest.

The store knows nothing of what a record holds. `masked_lm`, `tasks` and
`embeddings` say that, each with its settings, its layout of a record and the
pass that makes it.
"""
