"""How thoughts change over training and between runs."""
