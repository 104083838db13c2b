"""What can go wrong on a development machine, said so that the reader knows the next step.

Each message names the thing, what was seen, and the command or the file that helps. The command line prints the
message alone; a test shows it with its traceback.
"""


class DevkitError(Exception):
    """Something the development kit needs did not work; the message says what to do next."""


class MissingTool(DevkitError):
    """A program that must be installed is absent or too old; the message holds the command that installs it."""


class StartFailed(DevkitError):
    """A server or service ended, or did not answer in time, while it was starting; its log's last lines follow."""
