//! Guest images assembled from distribution packages.
