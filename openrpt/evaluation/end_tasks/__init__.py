"""End tasks: lm-eval's through our generator, functions to be written, and all in one table."""
