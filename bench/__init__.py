"""Ours and what people would otherwise run, measured alternately on one machine, in one run: ``make bench``.

    python -m bench                          every part, about 25 minutes
    BENCH_QUICK=1 python -m bench            the same with few repetitions, about 3
    python -m bench attach connections       some parts; what the others measured before stays
    python -m bench report                   the table and the plots again, from the numbers that are there

    peers         Debian sid in a folder: netavark, the CNI plugins, Docker, Podman
    namespaces    the private worlds in which everything is measured, and how programs are started in them
    agent         one process for each world; worlds take turns
    host          what a contender stands on: a host's namespaces, containers' namespaces, programs
    contenders    who attaches and detaches: ours in each way, netavark, the CNI chain
    floor         the same kernel work with nothing around it
    attach, bulk, ports, traffic, runtimes    the parts: what is measured
    results       all numbers, as JSON
    targets       what they are to be
    report, plots the table and the pictures, from the JSON alone

Rules: nothing but the public API, the launchers and the command line of vethwork is used, so what is measured can change
without this. Everything happens in namespaces that end with the process that made them, a process namespace included:
whatever becomes of a run, nothing of it stays. Nothing sleeps in order to wait for something else.
"""
