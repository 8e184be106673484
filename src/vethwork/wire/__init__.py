"""What is spelled: bytes to data and data to bytes, without a socket: netlink, rtnetlink, nfnetlink, nftables."""
