"""The resident service, ``vethwork serve``: what must answer at any time, in one process.

    sockets      Unix sockets that only root may speak to: bound, inherited from nobody, taken away at the end
    peers        who is at the other end, and whether we may work in his stead
    descriptors  what a process finds open when it starts, and should not keep
    web          HTTP over sockets (waitress)
    engines      engines that stay open, one for each thread of work
    calls        the calls of runtimes that ``launch`` hands over, as a WSGI application
    plugin       Docker's plugin protocol as a WSGI application
    guard        the guard's threads (``vethwork.guard``), and the socket for whoever must change the ruleset that it owns
    counters     what is counted
    notify       what systemd is told
    main         puts them together, from the first socket to the last

Rules: everything works without it, only slower. It holds no state: what it does is on record when it is answered.
"""
