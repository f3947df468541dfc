// Package platform says whether a machine is of a platform that a program is for. Agents decide by it, and whoever
// foretells what they will decide.
//
// It is pure, and takes any facts without failing: what a machine does not say is no platform's.
package platform

import (
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/versions"
)

// Refuses says in words why a machine is of none of the platforms that a program is for; "": it is of one, or the program
// is for every machine.
func Refuses(platforms []events.Platform, f events.Facts) string {
	var whys []string
	for _, p := range platforms {
		why := differs(p, f)
		if why == "" {
			return ""
		}
		whys = append(whys, fmt.Sprintf("not %s: %s", words(p), why))
	}
	return strings.Join(slices.Compact(whys), "; ")
}

// differs says in words what keeps a machine from being of a platform; "": it is.
func differs(p events.Platform, f events.Facts) string {
	version := leadingNumbers(f.OSVersion)
	switch {
	case p.OS != f.OS:
		return "the fact os is " + known(f.OS)
	case p.Arch != "" && p.Arch != f.Arch:
		return "the fact arch is " + known(f.Arch)
	case len(f.OSName) < len(p.Name) || !strings.EqualFold(f.OSName[:len(p.Name)], p.Name):
		return fmt.Sprintf("the fact os_name is %q", f.OSName)
	case version == "" && p.MinVersion+p.MaxVersion != "":
		return fmt.Sprintf("the fact os_version is %q, which is no version", f.OSVersion)
	case p.MinVersion != "" && versions.Compare(version, p.MinVersion) < 0,
		p.MaxVersion != "" && versions.Compare(asPreciseAs(version, p.MaxVersion), p.MaxVersion) > 0:
		return "the fact os_version is " + f.OSVersion
	}
	return ""
}

func known(fact string) string {
	if fact == "" {
		return "unknown"
	}
	return fact
}

// leadingNumbers are those of a version, with their dots: systems add words to it ("10.0.22631.4317 Build 22631.4317").
func leadingNumbers(version string) string {
	end := strings.IndexFunc(version, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(version)
	}
	return strings.Trim(version[:end], ".")
}

// asPreciseAs cuts a version to as many numbers as a bound has: 12.7 is not above 12, but is 12.
func asPreciseAs(version, bound string) string {
	numbers := strings.Split(version, ".")
	return strings.Join(numbers[:min(len(numbers), strings.Count(bound, ".")+1)], ".")
}

func words(p events.Platform) string {
	said := []string{p.OS}
	for _, w := range []string{p.Arch, p.Name} {
		if w != "" {
			said = append(said, w)
		}
	}
	if p.MinVersion != "" {
		said = append(said, "from "+p.MinVersion)
	}
	if p.MaxVersion != "" {
		said = append(said, "up to "+p.MaxVersion)
	}
	return strings.Join(said, " ")
}
