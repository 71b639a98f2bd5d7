"""Long batches: accepted onto the disk, decided beside the requests, gone on with after a restart."""
