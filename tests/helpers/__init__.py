"""What tests share: planted data, tiny models, servers on loopback."""
