"""Exact bytes of tokens, for use elsewhere: public names of `openrpt.data.tokens`."""

from openrpt.data.tokens import encode_document, token_bytes, token_table

__all__ = ["encode_document", "token_bytes", "token_table"]
