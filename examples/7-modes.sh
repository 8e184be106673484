#!/bin/sh
# Row 7: the modes of --net, networks by name, and a namespace by its path.
# Run as root: examples/7-modes.sh
. "$(dirname "$0")/private-host.sh"

echo "host:      $(vethwork run --rm --net host -- ip -4 -brief addr | tr '\n' ' ')"
echo "none:      $(vethwork run --rm --net none -- ip -4 -brief addr)"
vethwork run -d --name web -- sleep 60 # on "bridge", made on first use
echo "bridge:    $(vethwork exec web -- ip -4 -brief addr show eth0)"
echo "container: $(vethwork run --rm --net container:web -- ip -4 -brief addr show eth0)"

vethwork stop web # the namespace is pinned: it stays, with its address, for who shares it
echo "stopped:   $(vethwork run --rm --net container:web -- ip -4 -brief addr show eth0)"

vethwork network create blue --subnet 10.7.0.0/24
vethwork network create green --subnet 10.7.1.0/24
echo "two:       $(vethwork run --rm --net blue --net green -- ip -4 -brief addr | tr '\n' ' ')"

touch "$EXAMPLE_HOST/theirs" # a namespace that somebody else made
unshare --net="$EXAMPLE_HOST/theirs" ip link set lo up
echo "path:      $(vethwork run --rm --net "ns:$EXAMPLE_HOST/theirs" -- ip -brief link)"
