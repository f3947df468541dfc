package supervise

// syncDirectory does nothing: Windows cannot flush a directory, and NTFS journals the rename.
func syncDirectory(string) error { return nil }
