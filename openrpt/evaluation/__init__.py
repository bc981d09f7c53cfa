"""How good is a policy: next-token accuracy with errors by document, and paired differences."""
