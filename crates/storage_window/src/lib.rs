//! Maps a partition's range of main storage to where its guest sees it.
