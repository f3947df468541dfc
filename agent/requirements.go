package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chandler/agent/host"
	"chandler/events"
	"chandler/events/versions"
)

// platform refuses a program that is not for a machine as this one.
func (t *task) platform() error {
	if len(t.program.Platforms) == 0 {
		return nil
	}
	var whys []string
	for _, p := range t.program.Platforms {
		why := differs(p, t.facts)
		if why == "" {
			return nil
		}
		whys = append(whys, fmt.Sprintf("not %s: %s", platformWords(p), why))
	}
	return end(events.Rejected, events.PlatformUnsupported, "program %s is for other platforms: %s", t.part().Program, strings.Join(slices.Compact(whys), "; "))
}

// differs says in words what keeps a machine from being of a platform; "": it is.
func differs(p events.Platform, f events.Facts) string {
	version := leadingNumbers(f.OSVersion)
	switch {
	case p.OS != f.OS:
		return "the fact os is " + orDefault(f.OS, "unknown")
	case p.Arch != "" && p.Arch != f.Arch:
		return "the fact arch is " + orDefault(f.Arch, "unknown")
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

func platformWords(p events.Platform) string {
	words := []string{p.OS}
	for _, w := range []string{p.Arch, p.Name} {
		if w != "" {
			words = append(words, w)
		}
	}
	if p.MinVersion != "" {
		words = append(words, "from "+p.MinVersion)
	}
	if p.MaxVersion != "" {
		words = append(words, "up to "+p.MaxVersion)
	}
	return strings.Join(words, " ")
}

// room makes sure that the disk has the space that the program asks for, and so much beside it: on the system's volume,
// and on that on which the program is laid out.
func (t *task) room(beside int64) error {
	needed := int64(t.program.DiskSpace)
	if needed == 0 {
		return nil
	}
	for _, volume := range []string{host.SystemVolume(), filepath.Dir(t.runDir())} {
		free, err := t.freeBytes(volume)
		if err != nil {
			return err
		}
		if free < needed+beside {
			e := &ending{events.Failed, events.DiskSpaceMissing, status{resource: volume, identity: "agent", answer: fmt.Sprintf("%d bytes are free", free)}}
			e.detail.explanation = fmt.Sprintf("program %s asks for %s free on %s, %d bytes with its content; %d bytes are", t.part().Program, t.program.DiskSpace, volume, needed+beside, free)
			return e
		}
	}
	return nil
}

// freeBytes asks for the volume that a directory is on, or will be on once it is made.
func (t *task) freeBytes(dir string) (int64, error) {
	for {
		_, err := os.Stat(dir)
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return t.a.FreeBytes(dir)
	}
}
