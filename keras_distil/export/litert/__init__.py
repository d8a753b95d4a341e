"""Students for phones: LiteRT, in 32, 8 and 4 bits."""
