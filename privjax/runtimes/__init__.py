"""Where a party program runs: simulated on one device, or as separate processes."""
