"""The one base class of errors that a user can act on."""


class RllabError(Exception):
    """Bad input or a failed run, told in one sentence: what is wrong and what to do.

    The command line prints the sentence and exits with code 2; Python callers get the exception.
    """
