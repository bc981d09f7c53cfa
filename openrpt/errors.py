"""The one error that is the user's to mend: shown on one line, exit code 2."""


class UserError(Exception):
    """Bad input or bad configuration.

    The message is one line: what happened, where (file, line, key, document), what to do.

    >>> raise UserError("a.jsonl:7: field 'problem' is missing; there are: question, answer")
    Traceback (most recent call last):
    ...
    openrpt.errors.UserError: a.jsonl:7: field 'problem' is missing; there are: question, answer
    """
