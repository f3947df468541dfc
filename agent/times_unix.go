//go:build unix

package agent

import (
	"os"
	"strings"
	"sync"
	"time"
)

// systemZone is the zone that the system is set to now: the process keeps the one with which it began, and a machine that
// travels is set to another.
type systemZone struct {
	path string // of the system's file

	mu   sync.Mutex
	seen string // what the file was, to know that it changed
	zone *time.Location
}

func newSystemZone() *systemZone { return &systemZone{path: "/etc/localtime", zone: time.Local} }

// location looks at the file each time, and reads it only where it is another one. What cannot be read leaves what was.
func (s *systemZone) location() *time.Location {
	if os.Getenv("TZ") != "" {
		return time.Local
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	target, _ := os.Readlink(s.path)
	seen := target
	if st, err := os.Stat(s.path); err == nil {
		seen += st.ModTime().String()
	}
	if seen == s.seen {
		return s.zone
	}
	if zone, err := readZone(s.path, target); err == nil {
		s.seen, s.zone = seen, zone
	}
	return s.zone
}

func readZone(path, target string) (*time.Location, error) {
	if _, name, ok := strings.Cut(target, "zoneinfo/"); ok {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData("Local", data)
}
