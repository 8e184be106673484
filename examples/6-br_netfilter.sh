#!/bin/sh
# Row 6: with br_netfilter on or off, a container reaches its neighbour's published port; and doctor says what it means.
# Run as root: examples/6-br_netfilter.sh
. "$(dirname "$0")/private-host.sh"

vethwork run -d --name web -p 8080:80 -- python3 -m http.server 80
vethwork run -d --name peer -- sleep 60

for value in 0 1; do
    sysctl -w net.bridge.bridge-nf-call-iptables=$value
    vethwork doctor | grep 'br_netfilter, IPv4'
    vethwork exec peer -- curl -s --retry 20 --retry-connrefused --retry-delay 1 -o /dev/null -w '%{http_code}\n' 192.0.2.1:8080
done
