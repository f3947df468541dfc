package daemon

import "os"

// dirsSync: the file system keeps names by itself.
const dirsSync = false

// syncFlag: only who may write a file may have it written to the disk.
func syncFlag() int { return os.O_RDWR }
