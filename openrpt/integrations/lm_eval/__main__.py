"""lm-eval's own command with the model `openrpt`, and our task files, known to it."""

import os
import sys

from openrpt.errors import UserError
from openrpt.terminal import open_streams, say_error


def main() -> None:
    """Runs lm-eval's command; exits with 2 for what is the user's to mend."""
    open_streams()
    try:
        from lm_eval.__main__ import cli_evaluate

        from openrpt.evaluation.end_tasks.harness import TASKS

        if "--tasks" in sys.argv and "--include_path" not in sys.argv:
            sys.argv += ["--include_path", os.fspath(TASKS)]
        cli_evaluate()
    except (UserError, ImportError) as error:
        say_error(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
