"""Accuracy over the tokens of thought that are spent at test time."""
