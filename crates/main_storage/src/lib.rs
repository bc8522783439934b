//! Ranges, the map of partitions, storage keys and plans: pure data.
