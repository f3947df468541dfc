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
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil || len(maps) > maxMaps {
		return
	}
	for _, part := range unwritten(string(maps), program) {
		// An error means that they stay.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, part.start, part.length, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the process's memory, in bytes.
type mapping struct{ start, length uintptr }

// unwritten reads /proc/self/smaps and gives the mappings of the program's file that cannot be written and never were. That
// they cannot be is not enough: a position-independent program is relocated before its constants are protected, and what the file
// holds in their place is not what it needs.
func unwritten(maps, program string) (found []mapping) {
	var at mapping
	ours, clean := false, 0
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // start-end perms offset device inode [path]
			at, ours = readOnlyPart(fields, program)
			clean = 0
		case ours && len(fields) == 3 && (fields[0] == "Anonymous:" || fields[0] == "Swap:") && fields[1] == "0":
			if clean++; clean == 2 {
				found = append(found, at)
			}
		}
	}
	return found
}

// readOnlyPart reads the first line of a mapping and says whether it is one of the program's file that cannot be written.
func readOnlyPart(fields []string, program string) (at mapping, ok bool) {
	if len(fields) != 6 || fields[5] != program || len(fields[1]) != 4 || fields[1][1] != '-' {
		return mapping{}, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	first, errFirst := strconv.ParseUint(from, 16, 64)
	last, errLast := strconv.ParseUint(to, 16, 64)
	if errFirst != nil || errLast != nil || last <= first {
		return mapping{}, false
	}
	return mapping{uintptr(first), uintptr(last - first)}, true
}
