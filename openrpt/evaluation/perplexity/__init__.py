"""Perplexity of plain text, in nats a token and bits a byte."""
