package calendar

import (
	"archive/zip"
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the list of zones again from Go's own")

const zoneList = "testdata/zones.txt"

// zoneNamesOf are all names of the IANA database.
func zoneNamesOf(t testing.TB) []string {
	t.Helper()
	list, err := os.ReadFile(zoneList)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(list))
}

func TestTheListOfZonesIsGosOwn(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib/time/zoneinfo.zip"))
	if err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no list to compare with: install Go with its lib folder: %v", err)
	}
	defer archive.Close()
	var names []string
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, "/") && f.Name != "Factory" {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	list := []byte(strings.Join(names, "\n") + "\n")
	if *update {
		if err := os.WriteFile(zoneList, list, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(zoneList)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(list, want) {
		t.Errorf("run with -update: %s", cmp.Diff(string(want), string(list)))
	}
}

func TestEveryNameOfTheDatabaseIsAZone(t *testing.T) {
	names := zoneNamesOf(t)
	if len(names) < 500 {
		t.Fatalf("only %d zones", len(names))
	}
	for _, name := range names {
		if err := Zone(name).Validate(); err != nil {
			t.Error(err)
		}
		if got := Zone(name).Location(nil).String(); got != name {
			t.Errorf("%s is read as %s", name, got)
		}
	}
}

func TestZones(t *testing.T) {
	tokyo := zoneOf(t, "Asia/Tokyo")
	for name, c := range map[string]struct {
		zone Zone
		own  *time.Location
		want string
	}{
		"none is UTC":                          {"", tokyo, "UTC"},
		"UTC":                                  {"UTC", tokyo, "UTC"},
		"the machine's own":                    {ZoneAgent, tokyo, "Asia/Tokyo"},
		"that of a machine without one is UTC": {ZoneAgent, nil, "UTC"},
		"a named one":                          {"Europe/Oslo", tokyo, "Europe/Oslo"},
		"an invalid one is UTC, not the machine's": {"Local", tokyo, "UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.zone.Location(c.own).String(); got != c.want {
				t.Fatalf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestWhatIsNoZoneIsRefused(t *testing.T) {
	for zone, want := range map[Zone]string{
		"Local":                         "did you mean agent",
		"Agent":                         "did you mean agent",
		"utc":                           "did you mean UTC",
		"europe/oslo":                   "did you mean Europe/Oslo",
		"EUROPE/OSLO":                   "did you mean Europe/Oslo",
		"America/New York":              "did you mean America/New_York",
		"africa/porto-novo":             "did you mean Africa/Porto-Novo",
		"Europe/Atlantis":               "write UTC, agent",
		"/etc/localtime":                "write UTC, agent",
		"../Europe/Oslo":                "write UTC, agent",
		"Europe/../Europe/Oslo":         "write UTC, agent",
		"Europe/Oslo/":                  "write UTC, agent",
		"Europe":                        "write UTC, agent",
		"localtime":                     "write UTC, agent",
		"posixrules":                    "write UTC, agent",
		"right/Europe/Oslo":             "write UTC, agent",
		"Factory":                       "write UTC, agent",
		"+01:00":                        "write UTC, agent",
		Zone(strings.Repeat("A/", 1e5)): "write UTC, agent",
	} {
		err := zone.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.40q: error %.200v, want %q", string(zone), err, want)
		}
	}
}
