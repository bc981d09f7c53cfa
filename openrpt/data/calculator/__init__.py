"""Arithmetic in plain text: what it says, if it is true, and its working. No eval, no torch."""
