"""The rehearsal world: everything outside that the stages talk to, played on loopback."""
