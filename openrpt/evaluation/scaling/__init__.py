"""The growth of accuracy with training compute."""
