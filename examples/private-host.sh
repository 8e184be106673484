# Read by the scripts beside it, with "." (not run by itself): gives a script a host of its own, in namespaces of its own, with
# its own state directory. All of it is gone when the script ends; nothing of this machine's network is touched.
if [ -z "${EXAMPLE_HOST-}" ]; then
    EXAMPLE_HOST=$(mktemp -d)
    trap 'rm -rf "$EXAMPLE_HOST"' EXIT
    PATH=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin:$PATH
    export EXAMPLE_HOST PATH VETHWORK_ROOT="$EXAMPLE_HOST/root" VETHWORK_RUN="$EXAMPLE_HOST/run"
    unshare --net --mount --pid --fork --kill-child --mount-proc sh "$0"
    exit
fi
set -eu
ip link set lo up
ip addr add 192.0.2.1/32 dev lo # an address that this host has besides those of its bridges
