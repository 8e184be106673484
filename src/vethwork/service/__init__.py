"""The resident service, ``vethwork serve``: what must answer at any time, in one process.

    sockets.py   Unix sockets that only root may speak to: bound, inherited from nobody, taken away at the end
    plugin.py    Docker's plugin protocol as a WSGI application
    web.py       HTTP over a Unix socket (waitress)
    notify.py    what systemd is told
    main.py      puts them together, from the first socket to the last

The service holds no state: every request opens the engine, and what it does is on record when it is answered.
"""
