"""``python -m vethwork`` is the command line, and so is ``vethwork``.

Rules: who presses Ctrl-C while the command line is still being loaded ends a process that has done nothing yet; he is shown
no traceback of what it was loading.
"""

import signal


def main() -> None:
    """Run one command and end the process with its exit status."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vethwork.frontends.cli.main import main as run

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
