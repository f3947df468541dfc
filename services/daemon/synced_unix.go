//go:build unix

package daemon

import "os"

// dirsSync: names outlive a power cut once their directory is synced.
const dirsSync = true

// syncFlag opens what is to be synced.
func syncFlag() int { return os.O_RDONLY }
