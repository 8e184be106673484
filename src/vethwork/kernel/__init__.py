"""What is touched: the only package that opens netlink sockets, enters namespaces and writes to /proc/sys."""
