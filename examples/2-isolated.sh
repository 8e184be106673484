#!/bin/sh
# Row 2: a bridge without a gateway. Containers reach each other; the host and the world are unreachable.
# Run as root: examples/2-isolated.sh
. "$(dirname "$0")/private-host.sh"

vethwork network create island --isolated --subnet 10.2.0.0/24
for name in one two three; do
    vethwork run -d --name $name --net island -- sleep 60
done

vethwork exec one -- ping -nc1 10.2.0.2 | grep transmitted
vethwork exec one -- ping -nc1 10.2.0.3 | grep transmitted
vethwork exec one -- ping -nc1 192.0.2.1 2>&1 || echo "exit status $?" # an address of the host
