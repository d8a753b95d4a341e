"""ELMo, the baseline of the paper."""
