"""The scorer's pass over a corpus, and what it says of one document."""
