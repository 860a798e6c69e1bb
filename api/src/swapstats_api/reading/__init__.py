"""What is read, once for every protocol: from the partitions' owners, and followed so that it stays current."""
