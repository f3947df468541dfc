package installers

// The installer of macOS waits for its turn by itself.
func lockHolder(string) (string, error) { return "", nil }
