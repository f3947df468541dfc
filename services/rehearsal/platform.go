package rehearsal

import (
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/versions"
)

// runsOn says, as agents do, whether a machine is of one of the platforms; none: every machine is.
func runsOn(platforms []events.Platform, f events.Facts) bool {
	return len(platforms) == 0 || slices.ContainsFunc(platforms, func(p events.Platform) bool { return isOf(p, f) })
}

// isOf compares the version's leading numbers, since systems add words to it, and as many of them as the upper bound has:
// 12.7 is not above 12, but is 12.
func isOf(p events.Platform, f events.Facts) bool {
	switch {
	case p.OS != f.OS, p.Arch != "" && p.Arch != f.Arch, len(f.OSName) < len(p.Name) || !strings.EqualFold(f.OSName[:len(p.Name)], p.Name):
		return false
	case p.MinVersion+p.MaxVersion == "":
		return true
	}
	version := f.OSVersion
	if end := strings.IndexFunc(version, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }); end >= 0 {
		version = version[:end]
	}
	if version = strings.Trim(version, "."); version == "" || p.MinVersion != "" && versions.Compare(version, p.MinVersion) < 0 {
		return false
	}
	numbers := strings.Split(version, ".")
	precise := strings.Join(numbers[:min(len(numbers), strings.Count(p.MaxVersion, ".")+1)], ".")
	return p.MaxVersion == "" || versions.Compare(precise, p.MaxVersion) <= 0
}
