"""Secret-sharing protocols, as what one party does: arrays and an axis name only."""
