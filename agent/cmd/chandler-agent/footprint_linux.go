package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMaps bounds what is read of the process's mappings, in bytes.
const maxMaps = 1 << 20

// dropProgramPages lets go of the pages of this program's file that are mapped and were not written: most served its
// start alone. They stay in the page cache, and are mapped again when they are run.
func dropProgramPages() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil || len(maps) > maxMaps {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if start, length, ok := readOnlyPart(line, program); ok {
			// An error means that they stay.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED)
		}
	}
}

// readOnlyPart reads a line of /proc/self/maps and says whether it is a mapping of the program's file that cannot be written.
func readOnlyPart(line, program string) (start, length uintptr, ok bool) {
	fields := strings.Fields(line) // start-end perms offset device inode path
	if len(fields) != 6 || fields[5] != program || len(fields[1]) != 4 || fields[1][1] != '-' {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	first, errFirst := strconv.ParseUint(from, 16, 64)
	last, errLast := strconv.ParseUint(to, 16, 64)
	if errFirst != nil || errLast != nil || last <= first {
		return 0, 0, false
	}
	return uintptr(first), uintptr(last - first), true
}
