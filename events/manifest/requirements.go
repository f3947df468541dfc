package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"chandler/events"
	"chandler/events/versions"
)

var (
	systems = []string{"linux", "windows", "darwin"}
	shows   = []string{"", events.WindowNormal, events.WindowMinimized, events.WindowMaximized, events.WindowHidden}
	// architectures that agents are made for; the word is that of the fact arch.
	architectures = []string{"", "amd64", "arm64", "386", "arm", "riscv64", "ppc64le", "s390x", "loong64"}
	// systemVersion is what agents compare by its numbers.
	systemVersion = regexp.MustCompile(`^[0-9]{1,10}(\.[0-9]{1,10}){0,5}$`)
)

// Limits of what a program asks of a machine.
const (
	MaxPlatforms = 64
	MaxCategory  = 64      // bytes
	maxDiskSpace = 1 << 50 // bytes: a petabyte
)

// requirements checks what a program asks of the machine before it starts.
func (c *checker) requirements(where, name string, p events.Program) {
	if p.DiskSpace < 0 || p.DiskSpace > maxDiskSpace {
		c.add(where+".disk-space", "program %s: disk-space %d bytes: it must be between 0 and %s", name, int64(p.DiskSpace), events.Bytes(maxDiskSpace))
	}
	c.word(where, name, "window", p.Window, shows)
	if p.Window != "" && !p.Interactive {
		c.add(where+".window", "program %s: window is for programs that a user sees: add interactive: true, or leave it out", name)
	}
	if len(p.Platforms) > MaxPlatforms {
		c.add(where+".platforms", "program %s: %d platforms, at most %d are allowed", name, len(p.Platforms), MaxPlatforms)
		return
	}
	for i, platform := range p.Platforms {
		here, what := fmt.Sprintf("%s.platforms[%d]", where, i), fmt.Sprintf("program %s: platform %d", name, i+1)
		c.platform(here, what, platform)
		if slices.Contains(p.Platforms[:i], platform) {
			c.add(here, "%s is there twice", what)
		}
	}
}

func (c *checker) platform(where, what string, p events.Platform) {
	switch {
	case p.OS == "":
		c.add(where, "%s has no os: write linux, windows or darwin", what)
	case !slices.Contains(systems, p.OS):
		c.add(where+".os", "%s: os %.80q: known are linux, windows, darwin", what, p.OS)
	}
	if !slices.Contains(architectures, p.Arch) {
		c.add(where+".arch", "%s: arch %.80q: known are %s", what, p.Arch, strings.Join(architectures[1:], ", "))
	}
	c.text(where+".name", what+": name", p.Name)
	if p.Name != strings.TrimSpace(p.Name) {
		c.add(where+".name", "%s: name %.80q begins or ends with a blank", what, p.Name)
	}
	valid := true
	for _, v := range []struct{ key, version string }{{"min-version", p.MinVersion}, {"max-version", p.MaxVersion}} {
		if v.version != "" && !systemVersion.MatchString(v.version) {
			valid = false
			c.add(where+"."+v.key, "%s: %s %.80q: write numbers between dots, for instance \"10.0.22631\"", what, v.key, v.version)
		}
	}
	if valid && p.MinVersion != "" && p.MaxVersion != "" && versions.Compare(p.MinVersion, p.MaxVersion) > 0 {
		c.add(where+".max-version", "%s: max-version %s is below min-version %s", what, p.MaxVersion, p.MinVersion)
	}
}

func (c *checker) category(category string) {
	if len(category) > MaxCategory || strings.ContainsFunc(category, unicode.IsControl) || category != strings.TrimSpace(category) {
		c.add("$.category", "category %.80q: it is one line of at most %d bytes, without blanks around it", category, MaxCategory)
		return
	}
	c.text("$.category", "category", category)
}
