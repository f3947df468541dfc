package calendar

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Zone names the zone of wall-clock times: "" and "UTC" are UTC, "agent" is each machine's own, everything else is a
// name of the IANA database ("Europe/Oslo").
type Zone string

// ZoneAgent is each machine's own zone.
const ZoneAgent Zone = "agent"

// zoneNames are the names of the IANA database. System directories hold more beside them, which are no zones of
// everybody: localtime, posixrules, and those with leap seconds below right.
var zoneNames = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)*$`)

// Validate refuses what is no zone; of an unknown one it says what was probably meant.
func (z Zone) Validate() error {
	if z == "" || z == "UTC" || z == ZoneAgent {
		return nil
	}
	if _, err := z.load(); err == nil {
		return nil
	}
	if near := z.respelt(); near != z {
		if near.Validate() == nil {
			return fmt.Errorf("unknown zone %.50q: did you mean %s?", string(z), near)
		}
	}
	return fmt.Errorf("unknown zone %.50q: write UTC, agent (each machine's own) or a name as Europe/Oslo", string(z))
}

// Location of a valid zone; own, of nil UTC, where the zone is each machine's own. That of an invalid one is UTC.
func (z Zone) Location(own *time.Location) *time.Location {
	if z == ZoneAgent {
		return orUTC(own)
	}
	loc, err := z.load()
	if err != nil {
		return time.UTC
	}
	return loc
}

func (z Zone) load() (*time.Location, error) {
	switch {
	case z == "" || z == "UTC":
		return time.UTC, nil
	case len(z) > 50 || z == "Local" || z == "Factory" || !zoneNames.MatchString(string(z)):
		return nil, fmt.Errorf("unknown zone %.50q", string(z))
	}
	return time.LoadLocation(string(z))
}

// respelt is z as names are usually spelt: Europe/Oslo, America/New_York, UTC, and agent.
func (z Zone) respelt() Zone {
	low := strings.ToLower(strings.TrimSpace(string(z)))
	if low == string(ZoneAgent) || low == "local" {
		return ZoneAgent
	}
	if !strings.Contains(low, "/") {
		return Zone(strings.ToUpper(low))
	}
	start := true
	return Zone(strings.Map(func(r rune) rune {
		if r == ' ' {
			r = '_'
		}
		if start {
			r = unicode.ToUpper(r)
		}
		start = r == '/' || r == '_' || r == '-'
		return r
	}, low))
}

func orUTC(loc *time.Location) *time.Location {
	if loc == nil {
		return time.UTC
	}
	return loc
}
