"""The tools behind the paper's analyses: cost, effective receptive field, channel activation."""
