#!/bin/sh
# Row 1: a veth pair between exactly two containers. No bridge, and nothing of it on the host.
# Run as root: examples/1-cable.sh
. "$(dirname "$0")/private-host.sh"

vethwork network create cable --driver p2p --subnet 10.1.0.0/30
vethwork run -d --name left --net cable -- sleep 60
vethwork run -d --name right --net cable -- sleep 60

vethwork exec left -- ping -nc1 10.1.0.2 | grep transmitted
ip -brief link # the host has its loopback, and no end of the cable

# A third is refused, naming both.
vethwork run --net cable -- true || echo "exit status $?"
