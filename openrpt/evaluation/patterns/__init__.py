"""Patterns of thoughts: their change over training and between runs."""
