"""The resident service, ``vethwork serve``: what must answer at any time, in one process.

    sockets            Unix sockets that only root may use: bound at start, removed at the end
    peers              the process at the other end of a socket, and whether the service may work for it
    inherited_fds      descriptors that are open when the process starts
    http               HTTP over sockets (waitress)
    engine_pool        engines that stay open, one for each thread of work
    calls              the calls of runtimes that the launcher hands over, as a WSGI application
    docker_plugin      Docker's plugin protocol as a WSGI application
    reconciler_thread  the threads of the reconciler, and the socket at which other processes change the owned ruleset
    counters           what the service counts
    sd_notify          messages to systemd
    main               starts and stops all of these

Rules: everything works without the service, only slower. It holds no state: a call is on record when it is answered.
"""
