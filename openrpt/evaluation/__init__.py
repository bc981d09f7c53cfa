"""Measures of how good a policy is: next-token accuracy with errors by document, and paired
differences."""
