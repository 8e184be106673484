#!/bin/sh
# Row 3: the bridge has an address, containers have a default route by it, and reach every address of the host.
# Run as root: examples/3-gateway.sh
. "$(dirname "$0")/private-host.sh"

vethwork network create blue --subnet 10.3.0.0/24 --subnet fd03::/64
vethwork run -d --name web --net blue -- sleep 60

vethwork exec web -- ip route
vethwork exec web -- ip -6 route show default
for address in 10.3.0.1 192.0.2.1 fd03::1; do
    vethwork exec web -- ping -nc1 $address | grep transmitted
done
