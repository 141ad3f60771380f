"""Sizes in bytes of the headers that an interface counts with each packet, as Linux sends them."""

ETHERNET, IPV4, IPV6, TCP_WITH_TIMESTAMPS = 14, 20, 40, 32
SEGMENT = 1448  # bytes of TCP payload in a packet of 1500 bytes, timestamps on
SYN_BYTES = 8  # of a SYN's header beyond those of other segments
SACK_BYTES = 12  # of an acknowledgement that reports a gap or a duplicate
