"""Makers of traces: a calculator on the corpus's own text, and models whose thoughts are kept where
the reward says that they are right."""
