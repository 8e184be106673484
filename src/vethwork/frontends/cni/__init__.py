"""The CNI plugin: one executable in place of bridge, host-local, portmap, firewall, tuning and bandwidth (CNI SPEC 1.1)."""
