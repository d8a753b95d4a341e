"""Exports to LiteRT, for phones, in 32, 16, 8 and 4 bits."""
