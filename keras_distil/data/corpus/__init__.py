"""From text to token ids in shards on disk."""
